//! How many READ and WRITE requests may be without an answer on one connection. Pure state.
//!
//! Few at first, more with every good answer that comes soon, fewer when answers come late: what
//! only waits in a queue makes nothing faster, and everybody else wait. Servers exist that never
//! answer a connection with 64 large requests outstanding; they do answer the first few.

use std::time::{Duration, Instant};

/// The size of the window, in requests, and what it follows from.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// Where `size` is on its way to, if that is less.
    target: usize,
    /// The least that an answer took: the round trip, as nearly as it can be seen.
    least: Option<Duration>,
    /// What was asked before this says nothing about the size since.
    cut: Option<Instant>,
    /// Answers that came soon since the last place was added.
    soon: usize,
    rate: Rate,
}

/// What becomes of the place that an answered request had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Free for the next request.
    Free,
    /// Free, and one more with it.
    FreeAndOneMore,
    /// There is one place less.
    Gone,
}

/// How a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flow {
    /// `None` before the first answer.
    pub(super) round_trip: Option<Duration>,
    /// Of the data of READ and WRITE that was answered lately, in bytes a second.
    pub(super) rate: u64,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            size: SIZE_FIRST,
            target: SIZE_FIRST,
            least: None,
            cut: None,
            soon: 0,
            rate: Rate {
                since: None,
                bytes: 0,
                last: 0,
            },
        }
    }

    /// Notes how long an answer took that carries no data.
    pub(super) fn heard(&mut self, took: Duration) {
        self.least = Some(self.least.map_or(took, |least| least.min(took)));
    }

    /// Notes the answer to a READ or WRITE and the bytes that it brought; 0 if it was not good.
    pub(super) fn answered(&mut self, asked: Instant, now: Instant, bytes: usize) -> Place {
        let took = now.saturating_duration_since(asked);
        self.heard(took);
        if bytes == 0 {
            return Place::Free;
        }
        let least = self.least.unwrap_or(took);
        self.rate.note(now, bytes as u64, least);
        if self.target < self.size {
            self.size -= 1;
            return Place::Gone;
        }
        let late = least + QUEUE.saturating_sub(least / 2).max(least / 4);
        let size_min = size_min(least);
        if took <= late && self.size < SIZE_MAX && self.is_time_for_more(least) {
            self.size += 1;
            self.target = self.size;
            return Place::FreeAndOneMore;
        }
        if took > late && self.cut.is_none_or(|cut| asked > cut) {
            self.cut = Some(now);
            self.target = (self.size - self.size.div_ceil(8)).max(size_min.min(self.size));
            if self.size <= size_min {
                // Nothing queues up behind so little: the way itself has become longer.
                self.least = Some(least + (took - least) / 8);
            }
        }
        Place::Free
    }

    /// In a hurry at first, and where the way is short; else, once there were too many, each step's effect
    /// is to be seen before the link's own queue is full: what that drops is sent again.
    fn is_time_for_more(&mut self, least: Duration) -> bool {
        self.soon += 1;
        let is_hurry = self.cut.is_none() || least < QUEUE;
        let is_time = is_hurry || self.soon >= SOON_FOR_ONE_MORE;
        if is_time {
            self.soon = 0;
        }
        is_time
    }

    pub(super) fn flow(&self, now: Instant) -> Flow {
        Flow {
            round_trip: self.least,
            rate: self.rate.now(now, self.least.unwrap_or_default()),
        }
    }
}

/// Bytes a second, over the last little while.
#[derive(Debug)]
struct Rate {
    since: Option<Instant>,
    bytes: u64,
    /// Of the last whole while.
    last: u64,
}

impl Rate {
    fn note(&mut self, now: Instant, bytes: u64, round_trip: Duration) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let passed = now.saturating_duration_since(since);
        if passed >= span(round_trip) {
            self.last = per_second(self.bytes, passed);
            (self.since, self.bytes) = (Some(now), 0);
        }
    }

    fn now(&self, now: Instant, round_trip: Duration) -> u64 {
        let is_fresh = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) < span(round_trip) * FRESH);
        if is_fresh { self.last } else { 0 }
    }
}

/// The least time over which a rate is measured.
fn span(round_trip: Duration) -> Duration {
    round_trip.max(WHILE)
}

/// The least size, by the round trip: at most the first one.
fn size_min(round_trip: Duration) -> usize {
    let by_way = round_trip.as_millis() / ONE_MORE.as_millis();
    usize::try_from(by_way).map_or(SIZE_FIRST, |size| size.clamp(SIZE_MIN, SIZE_FIRST))
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

/// Places before the first answer.
pub(super) const SIZE_FIRST: usize = 8;
/// Fewer would leave nothing to read ahead with beside those who wait.
const SIZE_MIN: usize = 4;
/// For so long a round trip one more: what one connection carries of such a way, 20 MB/s.
const ONE_MORE: Duration = Duration::from_millis(12);
/// 64 requests of 255 KiB are 16 MiB, four times what one TCP connection carries on its way.
const SIZE_MAX: usize = 64;
/// So long may an answer wait behind others where there is no round trip to speak of: that keeps the other
/// side busy while we are not. On a longer way it is less, down to a quarter of the round trip: what others
/// ask for waits in the same queue, and a link drops what does not fit into its own.
const QUEUE: Duration = Duration::from_millis(10);
/// A rate is measured over a round trip, as in the beginning it doubles with each, but no less than this.
const WHILE: Duration = Duration::from_millis(100);
/// After so many answers that came soon one more, if there were too many once: a quarter more in a
/// round trip.
const SOON_FOR_ONE_MORE: usize = 4;
/// A rate that is older than so many of the spans that it is measured over says nothing: what another
/// connection carries since then is not to be added to it.
const FRESH: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LEN: usize = 261_120;

    /// What a window comes to on a link: answers take the round trip and what waits before them.
    fn settle(window: &mut Window, start: Instant, round_trip: Duration, rate: u64) -> Instant {
        let mut now = start;
        for _ in 0..2000 {
            let transfer = Duration::from_micros(LEN as u64 * 1_000_000 / rate);
            let queued = transfer * u32::try_from(window.size).unwrap();
            let took = queued.max(round_trip);
            now += transfer.max(round_trip / u32::try_from(window.size).unwrap());
            window.answered(now - took, now, LEN);
        }
        now
    }

    #[test]
    fn the_window_grows_by_one_with_each_answer_and_stops_at_its_bound() {
        let mut window = Window::new();
        let now = crate::clock::now();
        let added = (0..1000)
            .filter(|_| window.answered(now, now, LEN) == Place::FreeAndOneMore)
            .count();
        assert_eq!(SIZE_FIRST + added, SIZE_MAX);
    }

    #[test]
    fn places_are_as_many_as_the_window_says() {
        let mut window = Window::new();
        let (mut places, mut now) = (SIZE_FIRST, crate::clock::now());
        window.heard(MS);
        for n in 0..5000_u32 {
            now += MS;
            let took = MS * (n * 7919 % 100);
            match window.answered(now - took, now, LEN) {
                Place::Free => {}
                Place::FreeAndOneMore => places += 1,
                Place::Gone => places -= 1,
            }
            assert_eq!(places, window.size);
            assert!((SIZE_MIN..=SIZE_MAX).contains(&places));
        }
    }

    #[test]
    fn a_window_covers_the_way_and_queues_little_more() {
        // 1 Gbit/s at 20 ms; one connection of 20 MB/s at 100 ms; 250 MB/s without a way.
        for (round_trip, rate) in [(20, 119_000_000), (100, 20_000_000), (0, 250_000_000)] {
            let mut window = Window::new();
            let round_trip = MS * round_trip;
            window.heard(round_trip);
            settle(&mut window, crate::clock::now(), round_trip, rate);
            let under_way = (window.size * LEN) as u64;
            let way = rate * u64::try_from(round_trip.as_millis()).unwrap() / 1000;
            assert!(under_way >= way, "{under_way} of {way}");
            let most = way + way / 4 + rate / 100 + 4 * LEN as u64;
            assert!(under_way <= most, "{under_way} of {way}");
        }
    }

    #[test]
    fn after_too_many_were_under_way_a_long_way_gets_more_slowly_and_a_short_one_at_once() {
        for (least, answers_for_one_more) in [(MS, 1), (MS * 20, SOON_FOR_ONE_MORE)] {
            let mut window = Window::new();
            let now = crate::clock::now();
            let mut answered = |asked: Instant, took: Duration| {
                window.answered(asked, asked + took, LEN) == Place::FreeAndOneMore
            };
            assert!((0..10).all(|_| answered(now, least)), "in a hurry at first");
            answered(now, MS * 500);
            let later = now + MS * 1000;
            // The places that are too many go first.
            let answers = (0..20).map(|_| answered(later, least));
            let more: Vec<_> = answers.skip_while(|is_more| !is_more).collect();
            let count = more.iter().filter(|is_more| **is_more).count();
            assert_eq!(count, more.len().div_ceil(answers_for_one_more));
        }
    }

    #[test]
    fn on_a_slow_link_the_window_is_at_its_least() {
        let mut window = Window::new();
        window.heard(MS * 30);
        let now = crate::clock::now();
        for n in 0..20 {
            let now = now + MS * 800 * n;
            window.answered(now - MS * 800, now, LEN);
        }
        assert!(window.size <= SIZE_FIRST, "{}", window.size);
    }

    #[test]
    fn a_way_that_became_longer_is_believed_in_the_end() {
        let mut window = Window::new();
        let now = settle(&mut window, crate::clock::now(), MS, 100_000_000);
        settle(&mut window, now, MS * 200, 100_000_000);
        assert_eq!(window.size, SIZE_MAX);
    }

    #[test]
    fn the_rate_is_of_the_last_while() {
        let mut window = Window::new();
        let mut now = crate::clock::now();
        assert_eq!(window.flow(now).rate, 0);
        for _ in 0..1000 {
            now += MS;
            window.answered(now - MS, now, 100_000);
        }
        let rate = window.flow(now).rate;
        assert!((98_000_000..104_000_000).contains(&rate), "{rate}");
        assert_eq!(window.flow(now + WHILE * FRESH * 2).rate, 0);
    }
}
