//! What one read of an open file has us ask the server for: what is missing for the answer, and what
//! will be wanted next. Pure state.
//!
//! **Invariants:** nothing is planned beyond the end that is known but what is wanted, nor what is
//! here or on its way.

use std::ops::Range;

use super::pattern::{Pattern, Step, Stream, StreamId};
use crate::cache::Blocks;

/// One reader: how it reads, and what was asked for it.
#[derive(Default)]
pub(in super::super) struct Reader {
    pattern: Pattern,
    pub(super) blocks: Blocks,
    /// The file's version that the blocks are of.
    version: u64,
    /// Its number among those that something is held for.
    pub(super) holder: Option<u64>,
}

/// What bounds the plan, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Bounds {
    /// The file's size, as far as it is known.
    pub(in super::super) size: u64,
    /// One request.
    pub(in super::super) request: u64,
    /// What may be asked for ahead of this reader.
    pub(in super::super) ahead_max: u64,
}

/// What to ask for, in requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Whose blocks these become.
    pub(super) stream: Option<StreamId>,
    /// Needed for the answer.
    pub(super) demand: Vec<Range<u64>>,
    /// Likely to be needed next.
    pub(super) ahead: Vec<Range<u64>>,
}

impl Reader {
    /// Plans a read of `wanted` and notes it.
    pub(super) fn plan(&mut self, wanted: &Range<u64>, bounds: Bounds) -> Plan {
        let noted = self.pattern.note(wanted);
        if let Some(given_up) = noted.given_up {
            self.blocks.remove_of(given_up.0);
        }
        let bounds = Bounds {
            ahead_max: bounds.ahead_max / self.pattern.streams(),
            ..bounds
        };
        self.note_wait(wanted, noted.stream, bounds);
        let stream = noted.stream.and_then(|id| self.pattern.stream(id));
        let stream = stream.filter(|_| noted.goes_on && bounds.ahead_max > 0);
        let mut plan = Plan {
            stream: noted.stream,
            demand: self.demand(wanted, bounds, stream),
            ahead: Vec::new(),
        };
        if let Some(stream) = stream {
            let asked = plan.demand.last().map_or(0, |last| last.end);
            self.next(stream, asked, bounds, &mut plan.ahead);
        }
        plan
    }

    /// What a stream's latest read would have had asked for, and is neither here nor on its way.
    pub(super) fn more(&self, stream: StreamId, bounds: Bounds) -> Vec<Range<u64>> {
        let bounds = Bounds {
            ahead_max: bounds.ahead_max / self.pattern.streams(),
            ..bounds
        };
        let mut more = Vec::new();
        if let Some(stream) = self.pattern.stream(stream).filter(|_| bounds.ahead_max > 0) {
            self.next(stream, 0, bounds, &mut more);
        }
        more
    }

    /// All that may be asked for ahead of a stream was, and the link has room: if its reader waits for
    /// some of that, more may be.
    pub(super) fn widen(&mut self, stream: StreamId, bounds: Bounds) {
        let ahead_max = bounds.ahead_max / self.pattern.streams();
        if let Some(stream) = self.pattern.stream_mut(stream)
            && self.blocks.is_late(&(stream.done()..stream.at))
        {
            stream.widen(ahead_max);
        }
    }

    /// What comes next in a stream, but for what was asked for in order up to `asked`.
    fn next(&self, stream: &Stream, asked: u64, bounds: Bounds, out: &mut Vec<Range<u64>>) {
        match stream.step {
            Step::On => self.ahead(stream, asked.max(stream.at), bounds, out),
            Step::By(by) => self.ahead_by(stream, by, bounds, out),
        }
    }

    /// What of `wanted` is neither here nor on its way. Who reads on gets more with it.
    fn demand(
        &self,
        wanted: &Range<u64>,
        bounds: Bounds,
        stream: Option<&Stream>,
    ) -> Vec<Range<u64>> {
        let more = match stream {
            // A small file is one request.
            Some(stream) if stream.step == Step::On && bounds.size <= bounds.request => {
                bounds.request
            }
            Some(stream) if stream.step == Step::On => stream.run.saturating_mul(4),
            _ => 0,
        };
        let mut demand = Vec::new();
        let mut from = self.blocks.missing_from(wanted.start);
        while from < wanted.end {
            let due = (wanted.end - from).max(more).min(bounds.request);
            let to = from.saturating_add(due);
            // What lies beyond the known size is asked for only if it is wanted.
            let to = to.min(bounds.size.max(wanted.end));
            // And by a request of its own, so that one round trip tells that the file ends there.
            let to = if from < bounds.size {
                to.min(bounds.size)
            } else {
                to
            };
            let to = self.blocks.next_start(from).map_or(to, |next| to.min(next));
            demand.push(from..to);
            from = self.blocks.missing_from(to);
        }
        demand
    }

    /// What comes next: in whole requests, or in halves of a smaller window, so that a read does not
    /// send a request for as many bytes as it was of.
    fn ahead(&self, stream: &Stream, from: u64, bounds: Bounds, out: &mut Vec<Range<u64>>) {
        let window = stream.window(bounds.ahead_max);
        let limit = stream.at.saturating_add(window).min(bounds.size);
        let least = bounds.request.min(window / 2);
        let mut from = self.blocks.missing_from(from);
        while from < limit && (limit - from >= least || limit == bounds.size) {
            let to = (from + bounds.request).min(limit);
            let to = self.blocks.next_start(from).map_or(to, |next| to.min(next));
            out.push(from..to);
            from = self.blocks.missing_from(to);
        }
    }

    /// The next steps of a stream with gaps: no byte of the gaps.
    fn ahead_by(&self, stream: &Stream, by: i64, bounds: Bounds, out: &mut Vec<Range<u64>>) {
        let mut left = stream.window(bounds.ahead_max);
        let mut at = Some(stream.at);
        for _ in 0..STEPS_MAX {
            let Some(start) = at.filter(|start| *start < bounds.size) else {
                return;
            };
            let end = start.saturating_add(stream.len).min(bounds.size);
            if end - start > left {
                return;
            }
            left -= end - start;
            let mut from = self.blocks.missing_from(start);
            while from < end {
                let to = (from + bounds.request).min(end);
                let to = self.blocks.next_start(from).map_or(to, |next| to.min(next));
                out.push(from..to);
                from = self.blocks.missing_from(to);
            }
            at = start.checked_add_signed(by);
        }
    }

    /// Learns from what was asked for ahead and is not here in time.
    fn note_wait(&mut self, wanted: &Range<u64>, stream: Option<StreamId>, bounds: Bounds) {
        let Some(stream) = stream.and_then(|id| self.pattern.stream_mut(id)) else {
            return;
        };
        if self.blocks.is_late(wanted) {
            let asked_to = self.blocks.missing_from(wanted.start);
            stream.was_late(wanted.start, asked_to, bounds.ahead_max);
        }
    }

    /// Lets go of what is not wanted any more after a read of `wanted`, which was answered well or
    /// not.
    pub(super) fn done(&mut self, wanted: &Range<u64>, stream: Option<StreamId>, is_well: bool) {
        match stream.and_then(|id| self.pattern.stream(id)) {
            Some(stream) if is_well && stream.step == Step::On => {
                let done = stream.done().min(wanted.end);
                self.blocks.remove_before(stream.id.0, done);
            }
            // What failed or ended there may be otherwise next time; who reads with gaps or at
            // random does not come back.
            _ => self.blocks.remove(wanted.clone()),
        }
    }

    /// Whether what is here is of this version of the file.
    pub(super) const fn is_of(&self, version: u64) -> bool {
        self.version == version
    }

    /// Drops what was fetched of an earlier version of the file. False if `version` is the
    /// earlier one.
    pub(super) fn renew(&mut self, version: u64) -> bool {
        if self.version < version {
            self.blocks.clear();
            self.version = version;
        }
        self.version == version
    }
}

/// Steps that a stream with gaps is asked for ahead: what one connection has places for.
const STEPS_MAX: usize = 64;

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a plan is a list of ranges, also when it is one"
)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::Block;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds = Bounds {
        size: 100_000 * KIB,
        request: 256 * KIB,
        ahead_max: 4096 * KIB,
    };

    /// Plans a read and carries the plan out, with nothing behind it.
    fn step(reader: &mut Reader, wanted: Range<u64>, bounds: Bounds) -> Plan {
        let plan = reader.plan(&wanted, bounds);
        let demand = plan.demand.iter().map(|range| (range, false));
        for (range, is_ahead) in demand.chain(plan.ahead.iter().map(|range| (range, true))) {
            for at in [range.start, range.end - 1] {
                let there = reader.blocks.at(at).is_some();
                assert!(!there, "{range:?} is asked for twice");
            }
            assert!(range.end - range.start <= bounds.request);
            reader.blocks.insert(Block {
                start: range.start,
                len: range.end - range.start,
                fetch: async { Ok(Bytes::new()) }.boxed().shared(),
                stream: plan.stream.map_or(0, |stream| stream.0),
                part: is_ahead.then(|| Arc::new(()) as _),
            });
        }
        let mut at = wanted.start;
        while at < wanted.end {
            at = reader
                .blocks
                .at(at)
                .expect("what is wanted was asked for")
                .end();
        }
        plan
    }

    /// The same, to the end of the answer.
    fn read(reader: &mut Reader, wanted: Range<u64>, bounds: Bounds) -> Plan {
        let plan = step(reader, wanted.clone(), bounds);
        reader.done(&wanted, plan.stream, true);
        plan
    }

    #[test]
    fn a_sequential_reader_is_never_asked_to_wait_after_its_first_read() {
        for len in [4 * KIB, 16 * KIB, 128 * KIB, 1024 * KIB] {
            let mut reader = Reader::default();
            read(&mut reader, 0..len, BOUNDS);
            for n in 1..BOUNDS.size / len / 2 {
                let plan = read(&mut reader, n * len..(n + 1) * len, BOUNDS);
                assert_eq!(plan.demand, [], "read {n} of {len}");
            }
        }
    }

    #[test]
    fn little_is_asked_for_ahead_of_who_has_read_little() {
        for len in [4 * KIB, 64 * KIB, 512 * KIB] {
            for reads in 1..10 {
                let mut reader = Reader::default();
                for n in 0..reads {
                    step(&mut reader, n * len..(n + 1) * len, BOUNDS);
                }
                let asked = reader.blocks.missing_from(0);
                let wasted = asked - reads * len;
                assert!(wasted <= 4 * reads * len, "{wasted} after {reads} of {len}");
            }
        }
    }

    #[test]
    fn a_file_of_one_request_is_asked_for_at_once_and_nothing_else() {
        let bounds = Bounds {
            size: 200 * KIB,
            ..BOUNDS
        };
        let plan = step(&mut Reader::default(), 0..4 * KIB, bounds);
        assert_eq!((plan.demand, plan.ahead), (vec![0..200 * KIB], vec![]));
    }

    #[test]
    fn the_distance_ahead_is_bounded_by_what_was_needed_and_by_the_option() {
        let mut reader = Reader::default();
        let mut distance = 0;
        for n in 0..100 {
            let at = n * 256 * KIB;
            read(&mut reader, at..at + 256 * KIB, BOUNDS);
            distance = reader.blocks.missing_from(at) - (at + 256 * KIB);
            assert!(distance <= MIB, "nobody had to wait");
        }
        assert!(distance > MIB - BOUNDS.request);
    }

    #[test]
    fn what_there_was_no_room_for_is_what_an_answer_has_asked_for_and_nothing_else() {
        let mut reader = Reader::default();
        read(&mut reader, 0..256 * KIB, BOUNDS);
        let little = Bounds {
            ahead_max: 256 * KIB,
            ..BOUNDS
        };
        let plan = read(&mut reader, 256 * KIB..512 * KIB, little);
        let stream = plan.stream.expect("it reads on");
        let more = reader.more(stream, BOUNDS);
        let all = more
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>();
        let first = reader.blocks.missing_from(512 * KIB);
        assert_eq!(more.first().unwrap().start, first);
        assert_eq!(first + all, 512 * KIB + MIB);
        let bounds = Bounds {
            ahead_max: 0,
            ..BOUNDS
        };
        assert_eq!(reader.more(stream, bounds), []);
        assert_eq!(reader.more(StreamId(999), BOUNDS), [], "a stream given up");
    }

    #[test]
    fn a_reader_that_waits_though_all_was_asked_for_gets_more_and_one_that_does_not_gets_none() {
        for is_late in [true, false] {
            let mut reader = Reader::default();
            read(&mut reader, 0..MIB, BOUNDS);
            let plan = step(&mut reader, MIB..2 * MIB, BOUNDS);
            let stream = plan.stream.expect("it reads on");
            if is_late {
                let block = reader.blocks.at(MIB).unwrap();
                let late = Block {
                    fetch: futures_util::future::pending().boxed().shared(),
                    part: Some(Arc::new(())),
                    ..block.clone()
                };
                reader.blocks.insert(late);
            }
            assert_eq!(reader.more(stream, BOUNDS), []);
            reader.widen(stream, BOUNDS);
            assert_eq!(!reader.more(stream, BOUNDS).is_empty(), is_late);
        }
    }

    #[test]
    fn a_random_reader_gets_exactly_what_it_wants() {
        let mut reader = Reader::default();
        step(&mut reader, 50_000 * KIB..50_004 * KIB, BOUNDS);
        let plan = step(&mut reader, 9_000 * KIB..9_004 * KIB, BOUNDS);
        assert_eq!(
            (plan.demand, plan.ahead),
            (vec![9_000 * KIB..9_004 * KIB], vec![])
        );
    }

    #[test]
    fn a_reader_with_gaps_gets_its_next_steps_and_nothing_of_the_gaps() {
        for by in [1024 * KIB, 777 * KIB] {
            for is_backwards in [false, true] {
                let mut reader = Reader::default();
                for n in 0..40 {
                    let n = if is_backwards { 90 - n } else { n + 1 };
                    let wanted = n * by..n * by + 64 * KIB;
                    let plan = read(&mut reader, wanted.clone(), BOUNDS);
                    for range in plan.demand.iter().chain(&plan.ahead) {
                        assert_eq!((range.start % by, range.end % by), (0, 64 * KIB));
                    }
                    let is_known = if is_backwards { n < 88 } else { n > 3 };
                    assert_eq!(plan.demand.is_empty(), is_known, "{n} by {by}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_asked_for_beyond_the_end_but_what_is_wanted() {
        let bounds = Bounds {
            size: 300 * KIB,
            ..BOUNDS
        };
        let plan = step(&mut Reader::default(), 0..128 * KIB, bounds);
        assert_eq!(plan.demand, [0..256 * KIB]);
        assert_eq!(plan.ahead, [256 * KIB..300 * KIB]);
        let grown = step(&mut Reader::default(), 290 * KIB..310 * KIB, bounds);
        assert_eq!(grown.demand.last().unwrap().end, 310 * KIB);
    }

    #[test]
    fn without_read_ahead_only_what_is_wanted_is_asked_for() {
        let bounds = Bounds {
            ahead_max: 0,
            ..BOUNDS
        };
        let plan = step(&mut Reader::default(), 0..4 * KIB, bounds);
        assert_eq!((plan.demand, plan.ahead), (vec![0..4 * KIB], vec![]));
    }

    #[test]
    fn another_version_of_the_file_drops_what_was_fetched() {
        let mut reader = Reader::default();
        step(&mut reader, 0..4 * KIB, BOUNDS);
        assert!(reader.renew(1));
        assert_eq!(reader.blocks.bytes(), 0);
        assert!(!reader.renew(0), "an earlier moment must be taken anew");
    }

    /// Reads of one open file: jumps, runs, steps and repetitions.
    fn reads() -> impl Strategy<Value = Vec<Range<u64>>> {
        let len = prop_oneof![Just(4 * KIB), Just(128 * KIB), Just(MIB), 1..3 * MIB];
        let burst = (0..100_000 * KIB, len, -3..4_i64, 1..20_i64);
        proptest::collection::vec(burst, 1..20).prop_map(|bursts| {
            let mut reads = Vec::new();
            for (start, len, factor, times) in bursts {
                for n in 0..times {
                    let by = i64::try_from(len).unwrap() * factor * n;
                    let start = start.saturating_add_signed(by);
                    reads.push(start..start + len);
                }
            }
            reads
        })
    }

    proptest! {
        #[test]
        fn nothing_is_asked_for_twice_and_little_is_held_whatever_is_read(
            reads in reads(),
            size in 0..100_000 * KIB,
        ) {
            let mut reader = Reader::default();
            let bounds = Bounds { size, ..BOUNDS };
            for wanted in reads {
                // Asserts that nothing is asked for that is here.
                let plan = step(&mut reader, wanted.clone(), bounds);
                for range in &plan.ahead {
                    prop_assert!(range.end <= size, "{range:?} of {size}");
                }
                reader.done(&wanted, plan.stream, true);
                // As when an answer comes.
                let more = plan.stream.map(|stream| reader.more(stream, bounds));
                let mut asked_to = 0;
                for range in more.unwrap_or_default() {
                    let is_new = range.start >= asked_to || range.end <= asked_to;
                    prop_assert!(is_new && range.end <= size);
                    for at in [range.start, range.end - 1] {
                        prop_assert!(reader.blocks.at(at).is_none(), "{range:?} is here");
                    }
                    asked_to = range.end;
                }
                // What is ahead, and for each of 16 streams what may come out of order.
                let bound = 2 * BOUNDS.ahead_max + 16 * 8 * MIB;
                prop_assert!(reader.blocks.bytes() <= bound);
            }
        }
    }
}
