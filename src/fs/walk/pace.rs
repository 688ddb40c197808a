//! How much may be under way ahead of a program. Pure state.

use std::time::Duration;

/// More each time that somebody had to wait, less for what was in vain and when answers get slow.
#[derive(Debug)]
pub(super) struct Pace {
    now: usize,
    least: usize,
    max: usize,
    /// The shortest time that an answer took lately.
    fastest: Duration,
}

impl Pace {
    /// `first` at the beginning, never below `least` nor above `max`.
    pub(super) const fn new(first: usize, least: usize, max: usize) -> Self {
        let (now, fastest) = (first, NEVER);
        Self {
            now,
            least,
            max,
            fastest,
        }
    }

    /// So much may be under way.
    pub(super) const fn now(&self) -> usize {
        self.now
    }

    /// Somebody had to wait for what was under way.
    pub(super) fn late(&mut self) {
        self.now = (self.now * 2).min(self.max);
    }

    /// Something was fetched in vain, or what is under way waits for each other.
    pub(super) fn wasted(&mut self) {
        self.now = (self.now / 2).max(self.least);
    }

    /// What was asked for is here after `took`.
    pub(super) fn has_taken(&mut self, took: Duration) {
        self.fastest = self.fastest.min(took);
        if took > self.fastest * 3 + QUEUE {
            // They wait for each other, and so does whoever reads something else.
            self.wasted();
        }
        self.fastest += self.fastest / 64;
    }
}

/// Before the first answer; can be multiplied.
const NEVER: Duration = Duration::from_secs(1 << 40);
/// What takes so much longer than three of the fastest waits for others.
const QUEUE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn answers_that_get_slow_lower_it_to_the_least_and_no_further() {
        let mut pace = Pace::new(32, 4, 64);
        (0..10).for_each(|_| pace.has_taken(MS * 20));
        assert_eq!(pace.now(), 32);
        pace.has_taken(MS * 200);
        assert_eq!(pace.now(), 16);
        (0..10).for_each(|_| pace.has_taken(MS * 200));
        assert_eq!(pace.now(), 4);
    }

    #[test]
    fn who_had_to_wait_raises_it_to_the_most() {
        let mut pace = Pace::new(8, 8, 20);
        pace.late();
        assert_eq!(pace.now(), 16);
        pace.late();
        assert_eq!(pace.now(), 20);
    }
}
