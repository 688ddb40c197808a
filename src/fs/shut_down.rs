//! The end of a mount: what is unwritten goes to the server as long as it takes it, and what it does
//! not take is told.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Filesystem;
use crate::client::Standing;
use crate::clock;
use crate::error::{Error, Result};

/// How long the server is waited for at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Altogether.
    pub(crate) all: Duration,
    /// When the end was asked for: silence counts from then on.
    pub(crate) since: Instant,
}

/// How quickly the server confirms data, while there is some.
#[derive(Default)]
pub(super) struct Pace(Mutex<Beat>);

#[derive(Default)]
struct Beat {
    last: Option<Instant>,
    /// The time between two confirmations, the latest counting most.
    gap: Duration,
}

impl Pace {
    /// Notes that data sent at `sent` was confirmed.
    pub(super) fn confirmed(&self, sent: Instant, now: Instant) {
        let mut beat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The time in which there was nothing to confirm does not count.
        let before = beat.last.map_or(sent, |last| last.max(sent));
        beat.gap = beat.gap / 4 * 3 + now.saturating_duration_since(before) / 4;
        beat.last = Some(now);
    }

    /// A silence that is longer means that the server is away.
    fn silence_max(&self) -> Duration {
        let beat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (beat.gap * 4).max(SILENCE_MAX)
    }
}

/// What is unwritten, and of which file.
type Lost = Vec<(String, u64)>;

impl Filesystem {
    /// Waits until everything written is on the server. Gives up when the server confirms nothing any
    /// more, at once if `must_hurry` says so, and after all patience; from then on nobody waits for
    /// the server.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) async fn shut_down(
        &self,
        patience: Patience,
        must_hurry: impl Fn() -> bool,
    ) -> Result<()> {
        let mut all = pin!(self.all_written());
        let (mut left, mut heard) = (self.unwritten_files(), patience.since);
        loop {
            tokio::select! {
                biased;
                () = &mut all => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (now, now_left) = (clock::of_timers(), self.unwritten_files());
            if now_left != left {
                (left, heard) = (now_left, now);
            }
            let waited = now.saturating_duration_since(patience.since);
            let silence = now.saturating_duration_since(heard);
            let why = match self.health().standing {
                _ if must_hurry() => "asked to end at once",
                Standing::Denied | Standing::Ended => "the server does not let us in",
                Standing::Reconnecting if silence >= SILENCE_MAX => "the server is away",
                Standing::Connected if silence >= self.pace.silence_max() => {
                    "the server does not answer"
                }
                _ if waited >= patience.all => "the server is too slow",
                _ => continue,
            };
            self.give_up_connection();
            return Err(Error::setup(told(why, &left)));
        }
    }

    async fn all_written(&self) {
        for shared in self.handles.all_shared() {
            shared.written().await;
        }
        // Files that are closed already give their part back when they are written.
        drop(self.write_budget.acquire_many(self.write_budget_max).await);
    }

    /// The largest first.
    fn unwritten_files(&self) -> Lost {
        let all = self.handles.all_shared().into_iter();
        let mut lost: Lost = all
            .filter(|shared| !shared.is_written())
            .map(|shared| {
                let path = self.path(shared.ino);
                let path = path.map_or_else(
                    |_| "a file that was removed".to_owned(),
                    |path| format!("\"{}\"", path.escape_ascii()),
                );
                (path, shared.unwritten_bytes())
            })
            .collect();
        lost.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        lost
    }
}

/// In one line, for a person.
fn told(why: &str, lost: &Lost) -> String {
    let sum: u64 = lost.iter().map(|(_, bytes)| bytes).sum();
    let of = |(path, bytes): &(String, u64)| match bytes {
        0 => format!("mode, owner or times of {path}"),
        bytes => format!("{bytes} of {path}"),
    };
    let mut named: Vec<_> = lost.iter().take(NAMED_MAX).map(of).collect();
    if let Some(more @ 1..) = lost.len().checked_sub(NAMED_MAX) {
        named.push(format!("{more} more files"));
    }
    let named = named.join(", ");
    format!("{sum} bytes could not be written to the server ({why}): {named}")
}

/// A server that has confirmed nothing for so long is taken to be away, if it was quicker before.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Files that are named; a message has some 4,000 bytes.
const NAMED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_is_given_more_time_than_a_fast_one() {
        let (fast, slow, start) = (Pace::default(), Pace::default(), clock::now());
        for n in 1..40 {
            let at = |gap: u64| start + Duration::from_millis(gap) * n;
            fast.confirmed(start, at(10));
            slow.confirmed(start, at(8_000));
        }
        assert_eq!(fast.silence_max(), SILENCE_MAX);
        assert!(slow.silence_max() > Duration::from_secs(25));
    }

    #[test]
    fn rest_is_not_slowness() {
        let (pace, start) = (Pace::default(), clock::now());
        for n in 0..10 {
            let sent = start + Duration::from_secs(600) * n;
            pace.confirmed(sent, sent + Duration::from_millis(20));
        }
        assert_eq!(pace.silence_max(), SILENCE_MAX);
    }

    #[test]
    fn what_is_lost_is_named_but_not_without_end() {
        let one = vec![("\"/f\"".to_owned(), 7)];
        let message = "7 bytes could not be written to the server (it is away): 7 of \"/f\"";
        assert_eq!(told("it is away", &one), message);
        let many = vec![("\"/f\"".to_owned(), 1); NAMED_MAX + 3];
        assert!(told("", &many).ends_with(", 3 more files"));
        let changes = vec![("\"/f\"".to_owned(), 0)];
        assert!(told("", &changes).ends_with("mode, owner or times of \"/f\""));
    }
}
