//! How often a request may be asked again on another connection, and how soon. Pure state.

use std::time::Duration;

use crate::error::{Error, Result};

/// How often one request has lost its connection.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    all: u32,
    /// By answers that the protocol does not allow.
    by_rubbish: u32,
}

impl Losses {
    /// Notes one more.
    ///
    /// # Errors
    /// The error itself, of a request that the server cannot answer.
    pub(crate) fn count(&mut self, error: &Error) -> Result<()> {
        self.all += 1;
        if matches!(error, Error::Protocol(_)) {
            self.by_rubbish += 1;
        }
        self.may_be_answered(error)
    }

    /// # Errors
    /// The error itself, of a request that the server cannot answer.
    fn may_be_answered(&self, error: &Error) -> Result<()> {
        let is_rubbish = matches!(error, Error::Protocol(_));
        match is_rubbish && self.by_rubbish >= RUBBISH_MAX {
            true => Err(error.clone()),
            false => Ok(()),
        }
    }

    /// How long to wait before it is asked again: it may be what the server dies of.
    pub(crate) fn rest(&self) -> Duration {
        match self.all {
            0..=LOSSES_FREE => Duration::ZERO,
            more => LOSS_REST
                .saturating_mul(1 << (more - LOSSES_FREE).min(10))
                .min(LOSS_REST_MAX),
        }
    }
}

/// The same for requests that are under way together: what one connection takes with it counts once,
/// however many there were.
#[derive(Debug, Default)]
pub(crate) struct LossesTogether {
    losses: Losses,
    /// Whether something was sent since the last loss.
    is_sent: bool,
    rest: Duration,
}

impl LossesTogether {
    /// One of them was sent.
    pub(crate) const fn sent(&mut self) {
        self.is_sent = true;
    }

    /// One of them was answered: the server does not die of them. Whether it can answer those that
    /// were lost, only one of those tells.
    pub(crate) fn answered(&mut self, was_lost: bool) {
        self.losses.all = 0;
        if was_lost {
            self.losses.by_rubbish = 0;
        }
    }

    /// Notes that one of them was lost.
    ///
    /// # Errors
    /// The error itself, of a request that the server cannot answer.
    pub(crate) fn count(&mut self, error: &Error) -> Result<()> {
        if !std::mem::take(&mut self.is_sent) {
            return self.losses.may_be_answered(error);
        }
        self.losses.count(error)?;
        self.rest = self.losses.rest();
        Ok(())
    }

    /// How long to wait before the next one is sent; told once for each lost connection.
    pub(crate) fn rest(&mut self) -> Duration {
        std::mem::take(&mut self.rest)
    }
}

/// A server that answers one question so often with rubbish will do it again.
const RUBBISH_MAX: u32 = 3;
/// In a bad network a request loses some connections that it has done nothing to.
const LOSSES_FREE: u32 = 5;
const LOSS_REST: Duration = Duration::from_millis(50);
const LOSS_REST_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_its_server_dies_of_is_asked_more_and_more_seldom() {
        let mut losses = Losses::default();
        let mut rests = Vec::new();
        for _ in 0..14 {
            losses.count(&Error::Lost("reset".into())).unwrap();
            rests.push(losses.rest());
        }
        assert!(rests[..5].iter().all(Duration::is_zero));
        assert!(rests[5..].is_sorted() && rests[5] > Duration::ZERO);
        assert_eq!(rests[13], LOSS_REST_MAX);
    }

    #[test]
    fn what_one_connection_takes_with_it_counts_once() {
        let lost = Error::Lost("reset".into());
        let mut losses = LossesTogether::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            for _ in 0..64 {
                losses.count(&lost).unwrap();
                rests.push(losses.rest());
            }
            (0..64).for_each(|_| losses.sent());
        }
        let rests: Vec<_> = rests.into_iter().filter(|rest| !rest.is_zero()).collect();
        assert_eq!(rests, [LOSS_REST * 2, LOSS_REST * 4]);
        losses.answered(false);
        losses.count(&lost).unwrap();
        assert_eq!(losses.rest(), Duration::ZERO);
    }

    #[test]
    fn rubbish_that_ends_a_connection_fails_nothing_that_was_under_way_until_it_goes_on() {
        let rubbish = Error::Protocol("an answer to nothing");
        let mut losses = LossesTogether::default();
        for _ in 1..RUBBISH_MAX {
            losses.sent();
            assert!((0..64).all(|_| losses.count(&rubbish).is_ok()));
        }
        for _ in 0..2 {
            losses.sent();
            assert!((0..64).all(|_| losses.count(&rubbish).is_err()));
        }
        losses.answered(false);
        losses.sent();
        assert!(losses.count(&rubbish).is_err());
        losses.answered(true);
        losses.sent();
        assert!(losses.count(&rubbish).is_ok());
    }

    #[test]
    fn what_is_answered_with_rubbish_again_and_again_fails() {
        let mut losses = Losses::default();
        let rubbish = Error::Protocol("empty DATA");
        assert!(losses.count(&rubbish).is_ok());
        assert!(losses.count(&Error::Lost("reset".into())).is_ok());
        assert!(losses.count(&rubbish).is_ok());
        assert_eq!(losses.count(&rubbish), Err(rubbish.clone()));
        assert_eq!(losses.count(&rubbish), Err(rubbish), "for good");
    }
}
