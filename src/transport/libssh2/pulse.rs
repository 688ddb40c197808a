//! Whether a server lives: when it is asked, and when it is given up. Pure.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

pub(super) struct Pulse {
    /// Zero: it is never asked.
    interval: Duration,
    count: u32,
    felt: Instant,
    asking: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    None,
    Ask,
    Gone,
}

impl Pulse {
    pub(super) fn new(interval: Duration, count: u32, now: Instant) -> Self {
        Self {
            interval,
            count,
            felt: now,
            asking: false,
        }
    }

    /// Something came from the server.
    pub(super) fn is_felt(&mut self, now: Instant) {
        self.felt = now;
        self.asking = false;
    }

    /// It is being asked from now on.
    pub(super) fn asks(&mut self) {
        self.asking = true;
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    pub(super) fn next(&self, now: Instant) -> Beat {
        match self.left(now) {
            Some(Duration::ZERO) if self.asking => Beat::Gone,
            Some(Duration::ZERO) => Beat::Ask,
            _ => Beat::None,
        }
    }

    /// How long nothing is to be done.
    pub(super) fn rest(&self, now: Instant) -> PollTimeout {
        let Some(left) = self.left(now) else {
            return PollTimeout::NONE;
        };
        // Not a moment too early, nor at once again and again while it cannot be asked.
        let left = left + Duration::from_millis(1);
        let left = if left < SHORTEST { SHORTEST } else { left };
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        if self.interval.is_zero() {
            return None;
        }
        let times = if self.asking {
            self.count.saturating_add(1)
        } else {
            1
        };
        let until = self.interval.saturating_mul(times);
        Some(until.saturating_sub(now.saturating_duration_since(self.felt)))
    }
}

const SHORTEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_server_is_asked_and_then_given_up() {
        let start = clock::now();
        let mut pulse = Pulse::new(seconds(15), 3, start);
        assert_eq!(pulse.next(start + seconds(14)), Beat::None);
        assert_eq!(pulse.next(start + seconds(15)), Beat::Ask);
        pulse.asks();
        assert_eq!(pulse.next(start + seconds(59)), Beat::None);
        assert_eq!(pulse.next(start + seconds(60)), Beat::Gone);
    }

    #[test]
    fn an_answer_begins_the_time_anew() {
        let start = clock::now();
        let mut pulse = Pulse::new(seconds(15), 3, start);
        pulse.asks();
        pulse.is_felt(start + seconds(16));
        assert!(!pulse.is_asking());
        assert_eq!(pulse.next(start + seconds(30)), Beat::None);
        assert_eq!(pulse.next(start + seconds(31)), Beat::Ask);
    }

    #[test]
    fn without_an_interval_it_is_never_asked() {
        let start = clock::now();
        let pulse = Pulse::new(Duration::ZERO, 3, start);
        assert_eq!(pulse.next(start + seconds(1 << 20)), Beat::None);
        assert_eq!(pulse.rest(start), PollTimeout::NONE);
    }
}
