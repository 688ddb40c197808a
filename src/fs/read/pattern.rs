//! What a program's reads of one open file have in common, and so what it will want next. It may
//! read on in several places at once, by turns.
//!
//! Pure state. Bounded: few streams, few reads remembered; the least recently used go first.

use std::collections::VecDeque;
use std::ops::Range;

/// Reads that follow each other.
#[derive(Debug)]
pub(super) struct Stream {
    /// Tells streams of one reader apart; never used twice.
    pub(super) id: StreamId,
    pub(super) step: Step,
    /// Where the next read would begin.
    pub(super) at: u64,
    /// Bytes of its largest read.
    pub(super) len: u64,
    /// Bytes that it has read in this way.
    pub(super) run: u64,
    /// Bytes asked for and held ahead of it at most, as far as it was seen to need them.
    pub(super) reach: u64,
    /// What was asked for from here on was asked for with this reach.
    pub(super) reach_from: u64,
    used: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(pub(crate) u64);

/// How the next read lies to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It begins where that ended.
    On,
    /// It begins so many bytes from where that began: columns of a table, or backwards. Such reads
    /// do not overlap.
    By(i64),
}

/// The reads of one open file.
#[derive(Debug)]
pub(super) struct Pattern {
    streams: Vec<Stream>,
    /// The latest reads, in order, whatever stream they belong to.
    recent: VecDeque<Range<u64>>,
    /// Counts streams and reads.
    last: u64,
}

/// What one read is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// The stream that it belongs to; without one it is a read at random.
    pub(super) stream: Option<StreamId>,
    /// It takes that stream further.
    pub(super) goes_on: bool,
    /// A stream that was given up for this one.
    pub(super) given_up: Option<StreamId>,
}

impl Default for Pattern {
    /// Who opens a file is expected to read it from its start.
    fn default() -> Self {
        let mut pattern = Self {
            streams: Vec::with_capacity(1),
            recent: VecDeque::with_capacity(1),
            last: 0,
        };
        pattern.begin(Step::On, 0, 0, 0);
        pattern
    }
}

impl Pattern {
    /// Takes note of a read.
    pub(super) fn note(&mut self, wanted: &Range<u64>) -> Noted {
        let mut given_up = None;
        let mut found = self.find(wanted);
        if found.is_none()
            && let Some((step, run)) = self.discover(wanted)
        {
            let at = next_of(step, wanted).unwrap_or(u64::MAX);
            given_up = self.begin(step, at, len_of(wanted), run);
            found = self.streams.len().checked_sub(1).map(|index| (index, true));
        } else if let Some((index, true)) = found
            && let Some(stream) = self.streams.get_mut(index)
        {
            stream.go_on(wanted);
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(wanted.clone());
        self.last += 1;
        let last = self.last;
        let stream = found.and_then(|(index, _)| self.streams.get_mut(index));
        let stream = stream.map(|stream| {
            stream.used = last;
            stream.id
        });
        Noted {
            stream,
            goes_on: found.is_some_and(|(_, goes_on)| goes_on),
            given_up: given_up.or_else(|| self.give_up_unused()),
        }
    }

    /// Streams that the reader has not left for others.
    pub(super) fn streams(&self) -> u64 {
        self.streams.len().max(1) as u64
    }

    fn give_up_unused(&mut self) -> Option<StreamId> {
        let is_unused = |stream: &Stream| self.last - stream.used > UNUSED_MAX;
        let index = self.streams.iter().position(is_unused)?;
        Some(self.streams.remove(index).id)
    }

    pub(super) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// The stream that a read belongs to, and whether it takes it further.
    fn find(&self, wanted: &Range<u64>) -> Option<(usize, bool)> {
        let distances = self
            .streams
            .iter()
            .enumerate()
            .filter_map(|(index, stream)| {
                let goes_on = stream.takes(wanted)?;
                Some((stream.at.abs_diff(wanted.start), index, goes_on))
            });
        let (_, index, goes_on) = distances.min_by_key(|(distance, ..)| *distance)?;
        Some((index, goes_on))
    }

    /// What the read makes of those before it: a step, and the bytes that were read in this way.
    fn discover(&self, wanted: &Range<u64>) -> Option<(Step, u64)> {
        let len = len_of(wanted);
        // Places at equal distances that are read on by turns look like columns, too.
        if let Some(before) = self.ends_at(wanted.start)
            && let Some(first) = self.ends_at(before.start)
        {
            return Some((Step::On, len_of(first) + len_of(before) + len));
        }
        for before in self.recent.iter().rev().filter(|read| len_of(read) == len) {
            let by = distance(before.start, wanted.start)?;
            let first = before.start.checked_add_signed(by.checked_neg()?);
            let is_third = |first| self.recent.contains(&(first..first + len));
            let overlaps = by.unsigned_abs() < len;
            if !overlaps && !follows(before, wanted) && first.is_some_and(is_third) {
                return Some((Step::By(by), len * 3));
            }
        }
        let before = self
            .recent
            .iter()
            .rev()
            .find(|read| follows(read, wanted))?;
        Some((Step::On, len_of(before) + len))
    }

    fn ends_at(&self, end: u64) -> Option<&Range<u64>> {
        self.recent.iter().rev().find(|read| read.end == end)
    }

    /// Gives the stream that had to make room.
    fn begin(&mut self, step: Step, at: u64, len: u64, run: u64) -> Option<StreamId> {
        let mut given_up = None;
        if self.streams.len() == STREAMS_MAX {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, s)| s.used);
            if let Some((index, _)) = oldest {
                given_up = Some(self.streams.remove(index).id);
            }
        }
        self.last += 1;
        self.streams.push(Stream {
            id: StreamId(self.last),
            step,
            at,
            len,
            run,
            reach: REACH_FIRST,
            reach_from: 0,
            used: self.last,
        });
        given_up
    }
}

impl Stream {
    /// Whether a read takes the stream further; `None` if it is not one of it.
    fn takes(&self, wanted: &Range<u64>) -> Option<bool> {
        match self.step {
            Step::On => {
                let near = self.at.abs_diff(wanted.start) <= slack(self.len.max(len_of(wanted)));
                near.then_some(wanted.end > self.at)
            }
            Step::By(by) => {
                let off = distance(self.at, wanted.start)?;
                let steps = off.checked_div(by)?;
                let is_one = off.checked_rem(by)? == 0 && steps.abs() <= OUT_OF_ORDER;
                (is_one && len_of(wanted) <= self.len).then_some(steps >= 0)
            }
        }
    }

    fn go_on(&mut self, wanted: &Range<u64>) {
        match self.step {
            Step::On => {
                self.run = self.run.saturating_add(wanted.end.saturating_sub(self.at));
                self.at = wanted.end;
            }
            Step::By(_) => {
                self.run = self.run.saturating_add(len_of(wanted));
                self.at = next_of(self.step, wanted).unwrap_or(u64::MAX);
            }
        }
        self.len = self.len.max(len_of(wanted));
    }

    /// Bytes to be asked for and held ahead: twice what was read in this way, so that little is
    /// wasted on one who stops, and no more than was seen to be needed.
    pub(super) fn window(&self, bound: u64) -> u64 {
        self.run.saturating_mul(2).min(self.reach).min(bound)
    }

    /// The reader had to wait for what was asked ahead of it, at `offset`: it needs twice as much.
    /// `asked_to` is as far as was asked for; what was asked for before tells nothing new.
    pub(super) fn was_late(&mut self, offset: u64, asked_to: u64, bound: u64) {
        let is_news = match self.step {
            Step::On => offset >= self.reach_from,
            Step::By(_) => true,
        };
        if is_news {
            self.widen(bound);
            self.reach_from = asked_to;
        }
    }

    /// Twice as much may be asked for ahead.
    pub(super) fn widen(&mut self, bound: u64) {
        self.reach = self.reach.saturating_mul(2).min(bound.max(REACH_FIRST));
    }

    /// As far as it has come: what of it lies before is not wanted any more, but by reads that come
    /// out of order.
    pub(super) fn done(&self) -> u64 {
        self.at.saturating_sub(slack(self.len))
    }
}

/// Whether `next` reads on where `read` ended; small ones of the kernel may come out of order.
fn follows(read: &Range<u64>, next: &Range<u64>) -> bool {
    next.end > read.end && next.start.abs_diff(read.end) <= slack(len_of(read).min(len_of(next)))
}

/// How far reads of `len` bytes that follow each other may come out of order.
fn slack(len: u64) -> u64 {
    len.saturating_mul(OUT_OF_ORDER.unsigned_abs())
        .min(SLACK_MAX)
}

fn next_of(step: Step, wanted: &Range<u64>) -> Option<u64> {
    match step {
        Step::On => Some(wanted.end),
        Step::By(by) => wanted.start.checked_add_signed(by),
    }
}

/// From one offset to another; offsets of files are below 2^63.
fn distance(from: u64, to: u64) -> Option<i64> {
    i64::try_from(i128::from(to) - i128::from(from)).ok()
}

const fn len_of(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Places of one open file that are read by turns: columns of a table, or threads with a part each.
const STREAMS_MAX: usize = 16;
/// Reads remembered to see a pattern in: two for each stream that may begin.
const RECENT_MAX: usize = 2 * STREAMS_MAX;
/// Reads elsewhere after which the reader has left a place: four rounds of as many places as may be.
const UNUSED_MAX: u64 = 4 * STREAMS_MAX as u64;
/// Reads that follow each other come out of order by so many: the kernel reads ahead too, and four
/// threads take its requests.
const OUT_OF_ORDER: i64 = 4;
/// Four of the kernel's largest requests.
const SLACK_MAX: u64 = 4 << 20;
/// What is asked for ahead before anybody has waited: four requests of OpenSSH's 255 KiB.
pub(super) const REACH_FIRST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// What the last of some reads (offset, length) is taken for.
    fn last_step(reads: impl IntoIterator<Item = (u64, u64)>) -> Option<Step> {
        let mut pattern = Pattern::default();
        let mut last = None;
        for (start, len) in reads {
            let noted = pattern.note(&(start..start + len));
            last = noted.stream.filter(|_| noted.goes_on);
        }
        Some(pattern.stream(last?).unwrap().step)
    }

    #[test]
    fn each_way_of_reading_is_recognised() {
        const PAGE: u64 = 4 * KIB;
        const FAR: u64 = 500 * MIB;
        let by = |bytes: i64| Some(Step::By(bytes));
        type Case = (&'static str, &'static [(u64, u64)], Option<Step>);
        let cases: &[Case] = &[
            ("from the start", &[(0, PAGE)], Some(Step::On)),
            ("somewhere", &[(FAR, PAGE)], None),
            (
                "on from there",
                &[(FAR, PAGE), (FAR + PAGE, PAGE)],
                Some(Step::On),
            ),
            ("again", &[(FAR, PAGE), (FAR, PAGE)], None),
            (
                "behind a hole",
                &[(FAR, PAGE), (FAR + 3 * PAGE, PAGE)],
                Some(Step::On),
            ),
            ("far away", &[(FAR, PAGE), (2 * FAR, PAGE)], None),
            ("back once", &[(FAR, PAGE), (FAR - PAGE, PAGE)], None),
            (
                "backwards",
                &[(FAR, PAGE), (FAR - PAGE, PAGE), (FAR - 2 * PAGE, PAGE)],
                by(-4096),
            ),
            (
                "each MiB",
                &[(FAR, PAGE), (FAR + MIB, PAGE), (FAR + 2 * MIB, PAGE)],
                by(1 << 20),
            ),
            (
                "of other lengths",
                &[(FAR, PAGE), (FAR + MIB, PAGE), (FAR + 2 * MIB, KIB)],
                None,
            ),
            (
                "the kernel's first requests in another order",
                &[(MIB, MIB), (0, MIB), (3 * MIB, MIB)],
                Some(Step::On),
            ),
        ];
        for (name, reads, step) in cases {
            assert_eq!(last_step(reads.iter().copied()), *step, "{name}");
        }
    }

    #[test]
    fn streams_that_are_read_by_turns_do_not_disturb_each_other() {
        let mut pattern = Pattern::default();
        let mut ids = [None; 12];
        for n in 0..100 {
            for (index, id) in ids.iter_mut().enumerate() {
                let start = (index as u64 + 1) * 1000 * MIB + n * 128 * KIB;
                let noted = pattern.note(&(start..start + 128 * KIB));
                assert!(n == 0 || noted.goes_on, "{index} {n}");
                if n > 1 {
                    assert_eq!(*id.get_or_insert(noted.stream), noted.stream, "{index} {n}");
                }
            }
        }
    }

    #[test]
    fn columns_that_are_read_by_turns_are_recognised() {
        let mut pattern = Pattern::default();
        for row in 0..50_u64 {
            for column in [100, 350, 700] {
                let start = row * MIB + column * KIB;
                let noted = pattern.note(&(start..start + 4 * KIB));
                assert!(row < 3 || noted.goes_on, "row {row}, column {column}");
            }
        }
    }

    #[test]
    fn a_reader_at_random_is_hardly_ever_taken_for_another() {
        let mut pattern = Pattern::default();
        let (mut state, mut taken) = (7_u64, 0);
        for _ in 0..10_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let start = (state >> 33) % (1 << 18) * 4 * KIB;
            taken += u32::from(pattern.note(&(start..start + 4 * KIB)).goes_on);
        }
        assert!(taken < 100, "{taken} of 10000 in 1 GiB");
    }

    #[test]
    fn a_place_that_was_left_for_another_is_given_up() {
        let mut pattern = Pattern::default();
        let left = pattern.note(&(0..MIB)).stream.unwrap();
        let mut given_up = Vec::new();
        for n in 0..200 {
            let start = 1000 * MIB + n * MIB;
            given_up.extend(pattern.note(&(start..start + MIB)).given_up);
        }
        assert_eq!(given_up, [left]);
        assert_eq!(pattern.streams(), 1);
    }

    #[test]
    fn the_reach_grows_once_for_all_that_was_asked_with_the_one_before() {
        let mut pattern = Pattern::default();
        let id = pattern.note(&(0..MIB)).stream.unwrap();
        let stream = pattern.stream_mut(id).unwrap();
        stream.was_late(MIB, 4 * MIB, 64 * MIB);
        stream.was_late(3 * MIB, 5 * MIB, 64 * MIB);
        assert_eq!(stream.reach, 2 * REACH_FIRST);
        for offset in 4..1000 {
            stream.was_late(offset * MIB, offset * MIB, 64 * MIB);
        }
        assert_eq!(stream.reach, 64 * MIB);
    }
}
