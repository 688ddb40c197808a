//! How long something is believed that the server said: at least for a while, and for as long as it
//! was seen unchanged before, up to a limit, as NFS does (acregmin and acregmax in nfs(5)).
//!
//! What changes often is asked for again soon; who looks at what does not change asks at twice, four
//! times, eight times the first interval.

use std::time::{Duration, Instant};

/// The least and the most. A least of zero believes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trust {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

/// What the server was asked at a moment, and since when its answers are known to have been the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) at: Instant,
    pub(crate) same_since: Instant,
}

impl Trust {
    /// Until when that is believed.
    pub(crate) fn until(&self, sighting: Sighting) -> Instant {
        sighting.at + self.lasts(sighting)
    }

    /// For how long after it was asked for.
    pub(crate) fn lasts(&self, sighting: Sighting) -> Duration {
        if self.least.is_zero() {
            return Duration::ZERO;
        }
        let was_same_for = sighting.at.saturating_duration_since(sighting.same_since);
        was_same_for.min(self.most).max(self.least)
    }
}

impl Sighting {
    /// For the first time.
    pub(crate) const fn first(at: Instant) -> Self {
        let same_since = at;
        Self { at, same_since }
    }

    /// As the answer that says the same as an earlier one.
    pub(crate) fn after(self, earlier: Self) -> Self {
        Self {
            same_since: self.same_since.min(earlier.same_since),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TRUST: Trust = Trust {
        least: SECOND.saturating_mul(5),
        most: SECOND.saturating_mul(30),
    };

    #[test]
    fn what_stays_the_same_is_asked_for_more_and_more_seldom() {
        let start = crate::clock::now();
        let mut sighting = Sighting::first(start);
        let mut asked = Vec::new();
        for _ in 0..7 {
            let until = TRUST.until(sighting);
            asked.push(until.duration_since(start).as_secs());
            sighting = Sighting::first(until).after(sighting);
        }
        assert_eq!(asked, [5, 10, 20, 40, 70, 100, 130]);
    }

    #[test]
    fn what_has_changed_is_believed_for_the_least_time_again() {
        let start = crate::clock::now();
        let sighting = Sighting::first(start + SECOND * 20).after(Sighting::first(start));
        assert_eq!(TRUST.lasts(sighting), SECOND * 20);
        let changed = Sighting::first(start + SECOND * 60);
        assert_eq!(TRUST.lasts(changed), SECOND * 5);
    }

    #[test]
    fn who_wants_nothing_believed_is_asked_every_time() {
        let start = crate::clock::now();
        let sighting = Sighting::first(start + SECOND * 20).after(Sighting::first(start));
        let least = Duration::ZERO;
        assert!(Trust { least, ..TRUST }.lasts(sighting).is_zero());
    }

    #[test]
    fn an_older_answer_that_comes_late_is_no_proof_of_a_longer_time() {
        let start = crate::clock::now();
        let later = Sighting::first(start + SECOND * 9);
        assert_eq!(TRUST.lasts(Sighting::first(start).after(later)), SECOND * 5);
    }
}
