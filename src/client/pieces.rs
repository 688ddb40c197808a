//! What a server-side copy asks for next, and what is there for certain. Pure state.
//!
//! OpenSSH copies 64 KiB at a time, says OK to a request whose last chunk failed, and never says
//! how much it copied (sftp-server.c, process_extended_copy_data). So an OK alone vouches for a
//! piece up to its last chunk, where the next piece begins. Where a piece makes the target grow, its
//! new size tells more: only the write of the last byte brings it there.
//!
//! **Invariant:** no request reaches beyond the span or asks for "until the end" (length 0), which
//! on one file under two names would never end.

use std::time::Duration;

/// What is copied from where to where, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub source_offset: u64,
    pub target_offset: u64,
    pub len: u64,
}

impl Span {
    /// What is left of it after its first bytes.
    pub(super) const fn after(self, done: u64) -> Self {
        Self {
            source_offset: self.source_offset.saturating_add(done),
            target_offset: self.target_offset.saturating_add(done),
            len: self.len.saturating_sub(done),
        }
    }

    /// No more of it than a source of this size has.
    pub(super) fn within(self, source_size: u64) -> Self {
        let there = source_size.saturating_sub(self.source_offset);
        Self {
            len: self.len.min(there),
            ..self
        }
    }

    /// No more of it than has a place in a file (off_t is a signed 64-bit number).
    pub(super) fn possible(self) -> Self {
        let begin = self.source_offset.max(self.target_offset);
        let room = i64::MAX.unsigned_abs().saturating_sub(begin);
        Self {
            len: self.len.min(room),
            ..self
        }
    }
}

/// One copy-data request. Offsets count from the beginning of the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: u64,
    /// What an OK to it vouches for.
    vouched: u64,
    /// The target's size before it, if all before it went well.
    size_before: u64,
}

/// A copy in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    span: Span,
    /// Where the next piece begins.
    asked: u64,
    verified: u64,
    /// The target's size when all that was asked for is done.
    target_size: u64,
}

impl Pieces {
    pub(super) const fn new(span: Span, target_size: u64) -> Self {
        Self {
            span,
            asked: 0,
            verified: 0,
            target_size,
        }
    }

    /// How much is there for certain, from the beginning of the span.
    pub(super) const fn verified(&self) -> u64 {
        self.verified
    }

    /// Where a piece is in the files.
    pub(super) const fn span_of(&self, piece: Piece) -> Span {
        let from_there = self.span.after(piece.start);
        Span {
            len: piece.len,
            ..from_there
        }
    }

    /// The next piece, of about this length; `None` when there is nothing more that a piece could
    /// prove. What is not verified then is for the client to write.
    pub(super) fn next(&mut self, len: u64) -> Option<Piece> {
        let len = len
            .max(2 * CHUNK)
            .min(self.span.len.checked_sub(self.asked)?);
        let end = self.span.target_offset + self.asked + len;
        // Rounded up and one less: where the last chunk, a whole one or not, begins.
        let to_last_chunk = len.saturating_sub(1) / CHUNK * CHUNK;
        let grows = end > self.target_size;
        let piece = Piece {
            start: self.asked,
            len,
            vouched: to_last_chunk,
            size_before: self.target_size,
        };
        let goes_on = if grows { len } else { to_last_chunk };
        if goes_on == 0 {
            return None;
        }
        self.asked += goes_on;
        self.target_size = self.target_size.max(end);
        Some(piece)
    }

    /// Notes the answer to the oldest piece without one: whether it was OK, and the target's size
    /// after it, if that is known. Returns whether the next piece may count on it.
    pub(super) fn settle(&mut self, piece: Piece, ok: bool, size: Option<u64>) -> bool {
        // Behind a piece that failed nothing counts.
        if piece.start > self.verified {
            return false;
        }
        let begin = self.span.target_offset + piece.start;
        // The server writes from front to back: where the file grew, all before its end is there.
        let grown = size
            .filter(|size| *size > piece.size_before)
            .map_or(0, |size| size.saturating_sub(begin).min(piece.len));
        // A server that makes the file long first and then fails has proved nothing.
        let proved = if ok { piece.vouched.max(grown) } else { grown };
        let proved = if !ok && proved == piece.len {
            0
        } else {
            proved
        };
        self.verified = self.verified.max(piece.start + proved);
        let expected = if begin + piece.len > piece.size_before {
            piece.len
        } else {
            piece.vouched
        };
        ok && proved >= expected
    }
}

/// How long a piece should be, so that a copy can be stopped soon and others get their turn.
#[derive(Debug)]
pub(super) struct Pace {
    len: u64,
    len_max: u64,
    aim: Duration,
}

impl Pace {
    /// On a connection of its own: a quarter of a second each, begun with what the last copy to the
    /// same file came to.
    pub(super) fn of_a_lane(last: Option<u64>) -> Self {
        Self {
            len: last.unwrap_or(LANE_FIRST).clamp(LEN_MIN, LANE_MAX),
            len_max: LANE_MAX,
            aim: Duration::from_millis(250),
        }
    }

    /// On a connection where others wait behind it.
    pub(super) const fn among_others() -> Self {
        Self {
            len: LEN_MIN,
            len_max: AMONG_OTHERS_MAX,
            aim: Duration::from_millis(50),
        }
    }

    /// Bytes for the next piece.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Notes how long the server had a piece. Down at once, up in steps: what went into the
    /// server's memory says little of its disk.
    pub(super) fn note(&mut self, len: u64, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let aim = u64::try_from(self.aim.as_micros()).unwrap_or(u64::MAX);
        let ideal = u128::from(len) * u128::from(aim) / u128::from(took);
        let ideal = u64::try_from(ideal).unwrap_or(u64::MAX);
        // A short last piece says how slow the server is, not how fast it could be.
        let most = if len < self.len {
            self.len
        } else {
            self.len.saturating_mul(4)
        };
        self.len = ideal.min(most).clamp(LEN_MIN, self.len_max) / CHUNK * CHUNK;
    }
}

/// What OpenSSH's sftp-server reads and writes at a time in a copy.
pub(super) const CHUNK: u64 = 64 << 10;
/// A disk that does 30 MB/s has it done in a third of a second.
const LANE_FIRST: u64 = 8 << 20;
/// Two of these on their way hide any round trip. Should the server's memory fill up meanwhile and
/// its disk do 100 MB/s, stopping takes 3 s once, until the pace is found again.
const LANE_MAX: u64 = 128 << 20;
const AMONG_OTHERS_MAX: u64 = 32 << 20;
const LEN_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn span(len: u64) -> Span {
        Span {
            source_offset: 0,
            target_offset: 0,
            len,
        }
    }

    /// A server that copies as OpenSSH does, on a target of which only this is known: its size, and
    /// which bytes of the span it got.
    struct Disk {
        size: u64,
        /// The disk is full after this many more bytes.
        room: u64,
        /// Whether a failed last chunk is told.
        honest: bool,
        written: Vec<(u64, u64)>,
    }

    impl Disk {
        /// The answer to a piece and the size after it.
        fn copy(&mut self, span: Span, piece: Piece) -> (bool, Option<u64>) {
            let mut done = 0;
            while done < piece.len {
                let chunk = CHUNK.min(piece.len - done);
                let taken = chunk.min(self.room);
                self.room -= taken;
                if taken > 0 {
                    self.written.push((piece.start + done, taken));
                    let end = span.target_offset + piece.start + done + taken;
                    self.size = self.size.max(end);
                }
                if taken < chunk {
                    let is_last = done + chunk == piece.len;
                    return (is_last && !self.honest, Some(self.size));
                }
                done += chunk;
            }
            (true, Some(self.size))
        }

        /// How far the span is there without a gap.
        fn reaches(&self) -> u64 {
            let mut written = self.written.clone();
            written.sort_unstable();
            let join = |end: u64, (from, len): &(u64, u64)| {
                if *from <= end {
                    end.max(from + len)
                } else {
                    end
                }
            };
            written.iter().fold(0, join)
        }
    }

    fn sizes() -> impl Strategy<Value = u64> {
        let around = |unit: u64| {
            (0..6_u64, 0..5_u64).prop_map(move |(n, d)| (n * unit + d) - d.min(n * unit + d).min(2))
        };
        prop_oneof![around(CHUNK), around(1 << 20), 0..10 * CHUNK]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_disk_holds_no_byte_is_believed_that_is_not_there(
            len in sizes(),
            target_offset in sizes(),
            size in sizes(),
            room in prop_oneof![Just(u64::MAX), sizes()],
            honest: bool,
            lens in vec(1_u64..1 << 21, 1..40),
            ahead in 1_usize..3,
        ) {
            let span = Span { source_offset: 0, target_offset, len };
            let mut disk = Disk { size, room, honest, written: Vec::new() };
            let mut pieces = Pieces::new(span, size);
            let mut lens = lens.into_iter().cycle();
            let (mut asked, mut good) = (std::collections::VecDeque::new(), true);
            loop {
                while good && asked.len() < ahead {
                    let Some(piece) = pieces.next(lens.next().unwrap()) else { break };
                    prop_assert!(piece.len > 0, "a length of 0 has no end");
                    prop_assert!(piece.start + piece.len <= len, "beyond the span: {piece:?}");
                    let answer = disk.copy(span, piece);
                    asked.push_back((piece, answer));
                }
                let Some((piece, (ok, size))) = asked.pop_front() else { break };
                good &= pieces.settle(piece, ok, size);
                if good || pieces.verified() > 0 {
                    prop_assert!(pieces.verified() <= disk.reaches(), "{pieces:?}");
                }
            }
            prop_assert!(pieces.verified() <= disk.reaches().min(len));
            if room == u64::MAX {
                prop_assert!(good);
                prop_assert!(len - pieces.verified() <= CHUNK, "too much is left: {pieces:?}");
                prop_assert!(size > target_offset || pieces.verified() == len, "{pieces:?}");
            }
        }
    }

    #[test]
    fn a_new_file_is_copied_without_asking_for_anything_twice() {
        let mut pieces = Pieces::new(span(20 << 20), 0);
        let starts: Vec<_> = std::iter::from_fn(|| pieces.next(8 << 20))
            .map(|piece| (piece.start >> 20, piece.len >> 20))
            .collect();
        assert_eq!(starts, [(0, 8), (8, 8), (16, 4)]);
    }

    #[test]
    fn where_the_target_does_not_grow_each_piece_begins_at_the_last_chunk_of_the_one_before() {
        let mut pieces = Pieces::new(span(3 << 20), 3 << 20);
        let starts: Vec<_> = std::iter::from_fn(|| pieces.next(1 << 20))
            .map(|piece| piece.start / CHUNK)
            .collect();
        assert_eq!(starts, [0, 15, 30, 45]);
    }

    #[test]
    fn an_ok_without_the_growth_that_was_due_is_not_believed() {
        let mut pieces = Pieces::new(span(1 << 20), 0);
        let piece = pieces.next(1 << 20).unwrap();
        assert!(!pieces.settle(piece, true, Some((1 << 20) - 1)));
        assert_eq!(pieces.verified(), (1 << 20) - 1);
        let mut pieces = Pieces::new(span(1 << 20), 0);
        let piece = pieces.next(1 << 20).unwrap();
        assert!(!pieces.settle(piece, true, None));
        assert_eq!(pieces.verified(), (1 << 20) - CHUNK);
    }

    #[test]
    fn the_pace_finds_its_time_and_keeps_its_bounds() {
        let rate = 200 << 20;
        let mut pace = Pace::of_a_lane(None);
        let took = |len: u64| Duration::from_secs(len) / rate;
        for _ in 0..10 {
            pace.note(pace.len(), took(pace.len()));
        }
        let aimed = u64::from(rate) / 4;
        assert!(pace.len().abs_diff(aimed) <= CHUNK, "{pace:?}");
        pace.note(pace.len(), Duration::from_secs(3600));
        assert_eq!(pace.len(), LEN_MIN);
        for _ in 0..10 {
            pace.note(pace.len(), Duration::ZERO);
        }
        assert_eq!(pace.len(), LANE_MAX);
        assert_eq!(Pace::of_a_lane(Some(u64::MAX)).len(), LANE_MAX);
    }
}
