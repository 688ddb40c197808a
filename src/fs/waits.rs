//! Which calls of programs wait for the server, and since when: for `sftpfs status`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// The calls that wait now.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// In the order in which they began to wait. As many as the kernel has requests under way.
    since: BTreeMap<u64, Instant>,
    last: u64,
}

/// A call that waits for as long as this is there.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Waits {
    /// A call begins to wait.
    pub(crate) fn begin(&self) -> Wait<'_> {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.since.insert(number, clock::of_timers());
        Wait {
            waits: self,
            number,
        }
    }

    /// How many wait, and for how long the first of them has.
    pub(crate) fn now(&self) -> (usize, Option<Duration>) {
        let table = self.table();
        let first = table.since.first_key_value();
        let longest = first.map(|(_, since)| clock::of_timers().saturating_duration_since(*since));
        (table.since.len(), longest)
    }

    /// A number that changes whenever a call begins to wait.
    #[cfg(any(test, feature = "logind"))]
    pub(crate) fn begun(&self) -> u64 {
        self.table().last
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.waits.table().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_is_that_of_the_first_that_still_waits() {
        let waits = Waits::default();
        assert_eq!(waits.now(), (0, None));
        let first = waits.begin();
        tokio::time::advance(Duration::from_secs(3)).await;
        let _second = waits.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(waits.now(), (2, Some(Duration::from_secs(4))));
        drop(first);
        assert_eq!(waits.now(), (1, Some(Duration::from_secs(1))));
    }
}
