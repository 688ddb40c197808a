//! A copy through the client: many READs on their way, each answer written on at once. For servers
//! that do not copy by themselves, and for the little that cannot be left to them.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use super::files::Handle;
use super::pieces::Span;
use super::{Client, attrs};
use crate::clock;
use crate::error::{Error, Result};
use crate::sftp::Attrs;

/// What became of one block.
struct Block {
    /// Bytes read and written, from its beginning; fewer than asked for at the end of the source.
    copied: u64,
    asked: u64,
    result: Result<()>,
    took: Duration,
}

/// How much is there without a gap.
#[derive(Default)]
struct Progress {
    copied: u64,
    /// A block came to less than was asked for: what comes after it does not count.
    has_ended: bool,
    /// Something may be there that does not count.
    is_torn: bool,
    /// The first error.
    failed: Option<Error>,
}

impl Progress {
    /// Notes the next block in order; says whether there may be more.
    fn note(&mut self, block: Block) -> bool {
        if self.has_ended {
            self.is_torn |= block.copied > 0 || block.result.is_err();
            return false;
        }
        self.copied += block.copied;
        self.is_torn = block.result.is_err();
        self.failed = block.result.err();
        self.has_ended = self.failed.is_some() || block.copied < block.asked;
        !self.has_ended
    }
}

/// How many blocks may be on their way. More as long as that does not make each of them slower: what
/// only waits in a queue delays everybody else, and the end of a copy that is to stop.
struct Depth {
    blocks: usize,
    blocks_max: usize,
    /// The least that a block took: the round trips without a queue.
    least: Duration,
}

impl Depth {
    fn new(blocks_max: usize) -> Self {
        let blocks_max = blocks_max.max(BLOCKS_MIN);
        Self {
            blocks: BLOCKS_FIRST.min(blocks_max),
            blocks_max,
            least: Duration::MAX,
        }
    }

    fn note(&mut self, took: Duration) {
        self.least = self.least.min(took);
        let queued = took.saturating_sub(self.least);
        if queued < QUEUED_MAX / 2 {
            self.blocks = (self.blocks + 1).min(self.blocks_max);
        } else if queued > QUEUED_MAX {
            self.blocks = (self.blocks - 1).max(BLOCKS_MIN);
        }
    }
}

impl Client {
    /// Copies by reading and writing; says how many bytes are there, counted from the beginning
    /// without a gap. Fewer than asked for mean the end of the source, that `go_on` said false, or
    /// an error that the next call meets again.
    ///
    /// `go_on` is told the number of bytes so far; when it says false nothing more is begun, what is
    /// on its way is waited for, and counts. Source and target may be on different connections; the
    /// caller sees to it that they do not overlap. Holds at most 8 MiB.
    ///
    /// # Errors
    /// What the server said, if nothing was copied.
    pub(crate) async fn stream(
        &self,
        source: &Handle,
        target: &Handle,
        span: Span,
        mut go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<u64> {
        let span = span.possible();
        if span.len == 0 {
            return Ok(0);
        }
        let block_len = u64::from(self.features.read_max.min(self.features.write_max)).max(1);
        // Sent before all that changes it; looked at only if something goes wrong.
        let before = attrs(target.submit_fstat());
        let mut depth = Depth::new(usize::try_from(HELD_MAX / block_len).unwrap_or(1));
        let mut progress = Progress::default();
        let (mut asked, mut going) = (0, true);
        let mut blocks = FuturesOrdered::new();
        loop {
            while going && asked < span.len && blocks.len() < depth.blocks {
                let block = Span {
                    len: block_len.min(span.len - asked),
                    ..span.after(asked)
                };
                asked += block.len;
                blocks.push_back(self.copy_block(source, target, block));
            }
            let Some(block) = blocks.next().await else {
                break;
            };
            depth.note(block.took);
            going = progress.note(block) && going && go_on(progress.copied);
        }
        if progress.is_torn {
            let end = span.target_offset.saturating_add(progress.copied);
            self.take_back(target, before.await.ok().as_ref(), end)
                .await;
        }
        match progress.failed {
            Some(error) if progress.copied == 0 => Err(error),
            _ => Ok(progress.copied),
        }
    }

    /// Reads a block and writes it. A short answer is no end: the rest is asked for.
    async fn copy_block(&self, source: &Handle, target: &Handle, block: Span) -> Block {
        let began = clock::now();
        let asked = block.len;
        let (mut copied, mut result) = (0, Ok(()));
        while copied < asked && result.is_ok() {
            let left = block.after(copied);
            match self.copy_some(source, target, left).await {
                Ok(0) => break,
                Ok(some) => copied += some,
                Err(error) => result = Err(error),
            }
        }
        Block {
            copied,
            asked,
            result,
            took: clock::now().duration_since(began),
        }
    }

    /// One READ and its WRITE; 0 at the end of the source.
    async fn copy_some(&self, source: &Handle, target: &Handle, span: Span) -> Result<u64> {
        let len = u32::try_from(span.len).unwrap_or(u32::MAX);
        let data = self.read(source, span.source_offset, len).await?;
        let read = data.len() as u64;
        if read > 0 {
            self.write_in_order(target, span.target_offset, data)
                .await
                .await?;
        }
        Ok(read)
    }

    /// After a copy that failed in the middle, while later parts of it may be there: lets the target
    /// end where the copy is whole, if all behind that is ours. A file with a hole in it that has
    /// its full size looks like a whole one.
    pub(super) async fn take_back(&self, target: &Handle, before: Option<&Attrs>, end: u64) {
        let Some(size_before) = before.and_then(|attrs| attrs.size) else {
            return;
        };
        let size = self.fstat(target).await.ok().and_then(|attrs| attrs.size);
        let keep = end.max(size_before);
        if size.is_none_or(|size| size <= keep) {
            return;
        }
        let shorter = Attrs {
            size: Some(keep),
            ..Attrs::default()
        };
        // The copy is failing already, and its caller is told so.
        if let Err(error) = self.fsetstat(target, shorter).await {
            log::warn!("what a failed copy left behind could not be taken back: {error}");
        }
    }
}

/// Data on its way at once, in bytes: the bandwidth x delay of 1 Gbit/s at 60 ms.
const HELD_MAX: u64 = 8 << 20;
/// One is read while another is written.
const BLOCKS_MIN: usize = 2;
const BLOCKS_FIRST: usize = 8;
/// What others may have to wait longer because of a copy.
const QUEUED_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn block(copied: u64, result: Result<()>) -> Block {
        Block {
            copied,
            asked: 10,
            result,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn what_comes_after_a_gap_does_not_count() {
        let mut progress = Progress::default();
        assert!(progress.note(block(10, Ok(()))));
        assert!(!progress.note(block(3, Ok(()))));
        assert!(!progress.is_torn);
        assert!(!progress.note(block(10, Ok(()))));
        assert_eq!((progress.copied, progress.is_torn), (13, true));
        let mut progress = Progress::default();
        assert!(!progress.note(block(3, Err(Error::Protocol("first")))));
        assert!(!progress.note(block(0, Err(Error::Protocol("second")))));
        assert_eq!(progress.copied, 3);
        assert_eq!(progress.failed, Some(Error::Protocol("first")));
    }

    #[test]
    fn a_fast_or_far_server_is_given_more_and_a_narrow_link_less() {
        let ms = Duration::from_millis;
        for round_trip in [ms(0), ms(900)] {
            let mut depth = Depth::new(32);
            (0..100).for_each(|_| depth.note(round_trip));
            assert_eq!(depth.blocks, 32);
        }
        // Each block takes 200 ms of the link; only the first one finds it free.
        let mut depth = Depth::new(32);
        depth.note(ms(200));
        for _ in 0..100 {
            let queue = u64::try_from(depth.blocks).unwrap();
            depth.note(ms(200 * queue));
        }
        assert!((BLOCKS_MIN..6).contains(&depth.blocks), "{}", depth.blocks);
    }
}
