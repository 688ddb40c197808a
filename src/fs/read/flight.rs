//! How much may be on its way ahead of readers, so that the link is full and who asks for something
//! else does not wait long behind it. Pure state, with time as an argument.
//!
//! The server answers in order, so what is on its way delays every other answer. As long as answers
//! take hardly longer than the fastest one did, the link was not full and twice as much may be under
//! way; when they take much longer, what is asked for only waits in a queue, and it becomes less.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Flight {
    /// Bytes that may be on their way.
    limit: u64,
    /// Bytes that are.
    under_way: u64,
    /// Somebody wanted more than that in this round.
    is_short: bool,
    /// No answer was slow yet.
    is_new: bool,
    /// How long an answer takes when there is no queue.
    fastest: Option<Duration>,
    /// The fastest answer of this round.
    fastest_now: Option<Duration>,
    /// Bytes still to be answered in this round.
    round_left: u64,
    /// What was asked for before this tells of the queue that there was with another limit.
    changed: Option<Instant>,
    /// Connections that carry it.
    connections: usize,
}

impl Flight {
    pub(super) const fn new() -> Self {
        Self {
            limit: LIMIT_FIRST,
            under_way: 0,
            is_short: false,
            is_new: true,
            fastest: None,
            fastest_now: None,
            round_left: LIMIT_FIRST,
            changed: None,
            connections: 1,
        }
    }

    /// Bytes that may be on their way.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Notes how many connections there are. A new one has something to do beside what the others are
    /// busy with; and what all can carry is to be found out once more.
    pub(super) fn carried_by(&mut self, connections: usize) {
        let more = connections.saturating_sub(self.connections);
        self.connections = connections;
        if more > 0 {
            let more = ONE_MORE.saturating_mul(more as u64);
            self.limit = self.limit.saturating_add(more).min(LIMIT_MAX);
            self.is_new = true;
        }
    }

    /// Whether a request might be sent now.
    pub(super) const fn has_room(&self, len: u64) -> bool {
        self.under_way + len <= self.limit
    }

    /// Notes a request, if it may be sent now.
    pub(super) const fn ask(&mut self, len: u64) -> bool {
        if !self.has_room(len) {
            self.is_short = true;
            return false;
        }
        self.under_way += len;
        true
    }

    /// Notes the end of a request; of a good answer, when it was `asked` for and that it came now.
    pub(super) fn answered(&mut self, len: u64, asked: Option<Instant>, now: Instant) {
        let is_alone = self.under_way <= len;
        self.under_way = self.under_way.saturating_sub(len);
        let Some(asked) = asked.filter(|asked| self.changed.is_none_or(|then| *asked >= then))
        else {
            return;
        };
        let took = now.saturating_duration_since(asked);
        let faster = |than: Option<Duration>| Some(than.map_or(took, |than| than.min(took)));
        // With nothing else on its way it is the link that became slower, or another route.
        self.fastest = if is_alone {
            Some(took)
        } else {
            faster(self.fastest)
        };
        self.fastest_now = faster(self.fastest_now);
        self.round_left = self.round_left.saturating_sub(len);
        if self.round_left == 0 {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, at: Instant) {
        let (Some(fastest), Some(now)) = (self.fastest, self.fastest_now.take()) else {
            return;
        };
        if now > slow(fastest) {
            if self.limit == LIMIT_MIN {
                // So little makes no queue: it is the link.
                self.fastest = Some(now);
            }
            self.is_new = false;
            self.changed = Some(at);
            self.limit = (self.limit / 4 * 3).max(LIMIT_MIN);
        } else if self.is_short {
            // In a hurry at first; later it is seen what the last step did before the next one.
            let more = if self.is_new {
                self.limit
            } else {
                self.limit / 4
            };
            self.limit = (self.limit + more).min(LIMIT_MAX);
            self.changed = Some(at).filter(|_| !self.is_new);
        }
        self.is_short = false;
        self.round_left = self.limit;
    }
}

/// Four requests of OpenSSH's 255 KiB.
const LIMIT_FIRST: u64 = 1 << 20;
/// Eight requests, a connection's first window.
const ONE_MORE: u64 = 2 << 20;
/// Two requests: while one is answered the next is on its way.
const LIMIT_MIN: u64 = 1 << 19;
/// 1 Gbit/s for half a second.
const LIMIT_MAX: u64 = 64 << 20;
/// An answer that takes longer than this waits for others, if the fastest one took `fastest`: twice
/// as long and a little more. On one TCP connection of several answers wait for its turn while the
/// link still has room, and further connections are opened only for those who want more.
fn slow(fastest: Duration) -> Duration {
    (fastest * 2).max(fastest + QUEUE) + fastest.min(TURN) * 2
}

/// As long as one connection may make answers wait.
const TURN: Duration = Duration::from_millis(50);
/// Time in the queue that is not noticed: on a fast link the fastest answer takes less than what
/// the two computers need to hand data on.
const QUEUE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock;

    const BLOCK: u64 = 255 << 10;

    /// A link that carries `rate` bytes a second with a round trip of `rtt`: asks for as much as it
    /// may for a while. Gives the share of the rate that was reached in the second half, and the
    /// longest that an answer took then.
    fn run(flight: &mut Flight, rate: u64, rtt: Duration, blocks: u64) -> (f64, Duration) {
        let start = flight.changed.unwrap_or_else(clock::now) + Duration::from_secs(60);
        let (mut now, mut free) = (start, start);
        let (mut half, mut longest) = (start, Duration::ZERO);
        let mut sent = VecDeque::new();
        let transfer = Duration::from_nanos(BLOCK * 1_000_000_000 / rate);
        for done in 0..blocks {
            while flight.ask(BLOCK) {
                // The link takes one after the other; half of the round trip lies on either side.
                free = free.max(now + rtt) + transfer;
                sent.push_back((now, free));
            }
            let (asked, arrived) = sent.pop_front().expect("at least one is under way");
            now = arrived;
            flight.answered(BLOCK, Some(asked), now);
            if done == blocks / 2 {
                (half, longest) = (now, Duration::ZERO);
            }
            longest = longest.max(now - asked);
        }
        for _ in sent {
            flight.answered(BLOCK, None, now);
        }
        let ideal = transfer * u32::try_from(blocks - blocks / 2).unwrap();
        (ideal.as_secs_f64() / (now - half).as_secs_f64(), longest)
    }

    #[test]
    fn each_new_connection_has_something_to_do_at_once_and_growth_is_in_a_hurry_again() {
        let mut flight = Flight::new();
        run(&mut flight, 20_000_000, Duration::from_millis(100), 500);
        assert!(!flight.is_new, "the link was seen to be full");
        let before = flight.limit();
        flight.carried_by(4);
        assert_eq!(flight.limit(), before + 3 * ONE_MORE);
        assert!(flight.is_new);
        flight.carried_by(4);
        flight.carried_by(2);
        assert_eq!(flight.limit(), before + 3 * ONE_MORE);
        flight.carried_by(1000);
        assert_eq!(flight.limit(), LIMIT_MAX);
    }

    #[test]
    fn each_link_is_filled_and_its_queue_stays_short() {
        let mbit = 1_000_000 / 8;
        for rate in [10, 100, 1000] {
            for rtt_ms in [0, 1, 20, 100, 300] {
                let rtt = Duration::from_millis(rtt_ms);
                let (share, longest) = run(&mut Flight::new(), rate * mbit, rtt, 4000);
                let transfer = Duration::from_nanos(BLOCK * 8_000 / rate);
                let alone = rtt + transfer;
                assert!(share > 0.98, "{share} of {rate} Mbit/s at {rtt:?}");
                // One request is the smallest step there is.
                let bound = slow(alone) * 7 / 4 + transfer * 2;
                assert!(longest <= bound, "{longest:?} for {rate} Mbit/s at {rtt:?}");
            }
        }
    }

    #[test]
    fn a_link_that_became_longer_is_filled_again() {
        let mut flight = Flight::new();
        let rate = 125_000_000;
        run(&mut flight, rate, Duration::from_millis(5), 1000);
        let (share, _) = run(&mut flight, rate, Duration::from_millis(100), 8000);
        assert!(share > 0.98, "{share}");
    }

    #[test]
    fn nothing_grows_while_nobody_wants_more() {
        let mut flight = Flight::new();
        let now = clock::now();
        for _ in 0..1000 {
            assert!(flight.ask(BLOCK));
            flight.answered(BLOCK, Some(now), now + Duration::from_millis(20));
        }
        assert_eq!(flight.limit(), LIMIT_FIRST);
    }

    #[test]
    fn what_failed_makes_room_and_teaches_nothing() {
        let mut flight = Flight::new();
        for _ in 0..1000 {
            while flight.ask(BLOCK) {}
            for _ in 0..LIMIT_FIRST / BLOCK {
                flight.answered(BLOCK, None, clock::now());
            }
        }
        assert_eq!(flight.limit(), LIMIT_FIRST);
    }
}
