//! What of one file is here or on its way: blocks that were asked for, by offset. They are held
//! only between asking and reading; what was read stays in the kernel's page cache.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::error::Result;

/// A READ under way; whoever clones it can wait for it.
pub(crate) type Fetch = Shared<BoxFuture<'static, Result<Bytes>>>;

/// One block that was asked for.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) start: u64,
    /// Bytes asked for; fewer may come.
    pub(crate) len: u64,
    pub(crate) fetch: Fetch,
    /// Which of the file's streams of reads it was asked for; 0 for none.
    pub(crate) stream: u64,
    /// Of a block that was asked for ahead: its part of what may be held, given back with it.
    pub(crate) part: Option<Arc<dyn Any + Send + Sync>>,
}

/// The blocks of one file. No two overlap.
#[derive(Default)]
pub(crate) struct Blocks {
    by_start: BTreeMap<u64, Block>,
    bytes: u64,
}

impl Block {
    pub(crate) const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// It was asked for ahead and has not come yet.
    fn is_late(&self) -> bool {
        self.part.is_some() && self.fetch.clone().now_or_never().is_none()
    }
}

impl Blocks {
    /// The block that holds the byte at `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<&Block> {
        let (_, block) = self.by_start.range(..=offset).next_back()?;
        (offset < block.end()).then_some(block)
    }

    /// Whether something of `range` was asked for ahead and has not come yet.
    pub(crate) fn is_late(&self, range: &Range<u64>) -> bool {
        let before = self
            .at(range.start)
            .map_or(range.start, |block| block.start);
        let mut blocks = self.by_start.range(before..range.end.max(before));
        blocks.any(|(_, block)| block.is_late())
    }

    /// Adds a block; those it overlaps go.
    pub(crate) fn insert(&mut self, block: Block) {
        self.remove(block.start..block.end());
        self.bytes += block.len;
        self.by_start.insert(block.start, block);
    }

    /// Drops every block that overlaps `range`.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        while let Some((&start, block)) = self.by_start.range(..range.end).next_back()
            && block.end() > range.start
        {
            self.bytes -= block.len;
            self.by_start.remove(&start);
        }
    }

    /// Drops every block of a stream that ends at or before `offset`.
    pub(crate) fn remove_before(&mut self, stream: u64, offset: u64) {
        let before = self.by_start.range(..offset);
        let gone: Vec<_> = before
            .filter(|(_, block)| block.stream == stream && block.end() <= offset)
            .map(|(&start, _)| start)
            .collect();
        for start in gone {
            if let Some(block) = self.by_start.remove(&start) {
                self.bytes -= block.len;
            }
        }
    }

    /// Drops every block of a stream.
    pub(crate) fn remove_of(&mut self, stream: u64) {
        self.retain(|block| block.stream != stream);
    }

    /// Drops every block that was asked for ahead, also what is on its way.
    pub(crate) fn remove_ahead(&mut self) {
        self.retain(|block| block.part.is_none());
    }

    fn retain(&mut self, stays: impl Fn(&Block) -> bool) {
        self.by_start.retain(|_, block| stays(block));
        self.bytes = self.by_start.values().map(|block| block.len).sum();
    }

    pub(crate) fn clear(&mut self) {
        self.by_start.clear();
        self.bytes = 0;
    }

    /// Bytes asked for and not yet given up.
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first byte at or after `offset` that is neither here nor on its way.
    pub(crate) fn missing_from(&self, mut offset: u64) -> u64 {
        while let Some(block) = self.at(offset) {
            offset = block.end();
        }
        offset
    }

    /// Where the next block after `offset` starts, if there is one.
    pub(crate) fn next_start(&self, offset: u64) -> Option<u64> {
        self.by_start
            .range(offset..)
            .next()
            .map(|(&start, _)| start)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn blocks(ranges: &[Range<u64>]) -> Blocks {
        let mut blocks = Blocks::default();
        for range in ranges {
            let fetch = async { Ok(Bytes::new()) }.boxed().shared();
            blocks.insert(Block {
                start: range.start,
                len: range.end - range.start,
                fetch,
                stream: range.start / 20,
                part: None,
            });
        }
        blocks
    }

    #[test]
    fn a_block_is_found_by_each_of_its_bytes_and_no_other() {
        let blocks = blocks(&[10..20, 30..40]);
        for (offset, start) in [
            (9, None),
            (10, Some(10)),
            (19, Some(10)),
            (20, None),
            (39, Some(30)),
        ] {
            assert_eq!(
                blocks.at(offset).map(|block| block.start),
                start,
                "at {offset}"
            );
        }
    }

    #[test]
    fn what_is_missing_begins_after_adjacent_blocks() {
        let blocks = blocks(&[0..10, 10..20, 30..40]);
        assert_eq!(blocks.missing_from(0), 20);
        assert_eq!(blocks.missing_from(25), 25);
        assert_eq!(blocks.next_start(21), Some(30));
    }

    #[test]
    fn removing_a_range_drops_all_it_overlaps_and_no_more() {
        let mut blocks = blocks(&[0..10, 10..20, 20..30]);
        blocks.remove(15..20);
        assert!(blocks.at(5).is_some() && blocks.at(15).is_none() && blocks.at(20).is_some());
        assert_eq!(blocks.bytes(), 20);
        blocks.remove(9..10);
        assert_eq!(blocks.bytes(), 10);
    }

    #[test]
    fn removing_what_lies_before_keeps_the_block_that_is_being_read() {
        let mut blocks = blocks(&[0..10, 10..20]);
        blocks.remove_before(0, 12);
        assert!(blocks.at(0).is_none() && blocks.at(12).is_some());
    }

    #[test]
    fn what_lies_before_one_stream_may_be_ahead_of_another() {
        let mut blocks = blocks(&[0..10, 20..30, 40..50]);
        blocks.remove_before(1, 100);
        assert!(blocks.at(0).is_some() && blocks.at(20).is_none() && blocks.at(40).is_some());
        blocks.remove_of(2);
        assert_eq!(blocks.bytes(), 10);
    }

    #[test]
    fn a_range_is_late_while_any_part_of_it_that_was_asked_for_ahead_has_not_come() {
        let mut blocks = blocks(&[0..10, 10..20, 20..30]);
        let waits = |block: &Block, part: Option<Arc<dyn Any + Send + Sync>>| Block {
            fetch: futures_util::future::pending().boxed().shared(),
            part,
            ..block.clone()
        };
        let waited_for = waits(blocks.at(10).unwrap(), None);
        blocks.insert(waited_for);
        assert!(
            !blocks.is_late(&(0..30)),
            "the middle was not asked for ahead"
        );
        let ahead = waits(blocks.at(20).unwrap(), Some(Arc::new(())));
        blocks.insert(ahead);
        for (range, is_late) in [
            (0..30, true),
            (25..26, true),
            (0..20, false),
            (30..40, false),
        ] {
            assert_eq!(blocks.is_late(&range), is_late, "{range:?}");
        }
    }

    #[test]
    fn what_was_asked_for_ahead_goes_and_what_is_waited_for_stays() {
        let mut blocks = blocks(&[0..10, 10..20]);
        let ahead = Block {
            part: Some(Arc::new(())),
            ..blocks.at(10).unwrap().clone()
        };
        blocks.insert(ahead);
        blocks.remove_ahead();
        assert!(blocks.at(0).is_some() && blocks.at(10).is_none());
    }
}
