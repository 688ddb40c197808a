//! copy_file_range(2): a copy inside the mount is made by the server.
//!
//! In this order: a hard link, where the user wants that and a whole file is copied
//! ([`super::link_whole`]); copy-data by the server; a pipelined copy through here, which needs
//! nothing of the server. Each answers after [`SLICE`] with what is done so far, as
//! copy_file_range(2) may, so that a program that copies 100 GB can be interrupted. Never ENOSYS,
//! which would end it for the whole mount, nor EXDEV or EOPNOTSUPP, upon which the kernel would
//! copy, 64 KiB a round trip.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::Filesystem;
use super::handles::{Fh, OpenFile};
use super::likeness::Doing;
use super::second_question::Refused;
use crate::client::{CopyData, CopyEnd, Losses, Span, is_abandoned};
use crate::clock;
use crate::error::{Operation, Result};
use crate::ioctl::Way;

impl Filesystem {
    /// Copies up to `len` bytes from one open file to another. Fewer means that there are no more,
    /// or that time was up.
    ///
    /// # Errors
    /// As read(2) and write(2), if nothing was copied.
    pub(crate) async fn copy_range(
        self: &Arc<Self>,
        (from, from_offset): (Fh, u64),
        (to, to_offset): (Fh, u64),
        len: u64,
    ) -> Result<u64> {
        let (source, target) = (self.open_file(from)?, self.open_file(to)?);
        source.shared.written().await;
        target.shared.written().await;
        target.take_error()?;
        let offsets = (from_offset, to_offset);
        let size = self.getattr(source.shared.ino).await?.attr.size;
        if from_offset >= size {
            return Ok(0);
        }
        let len = len.min(size - from_offset);
        if let Some(done) = self.is_there_already(&source, &target, offsets, len) {
            return Ok(done);
        }
        if from_offset == 0
            && to_offset == 0
            && let Some(size) = self
                .link_whole(source.shared.ino, target.shared.ino, len)
                .await
        {
            return Ok(size.min(len));
        }
        self.copy_slice(&source, &target, offsets, len).await
    }

    /// Bytes that need no copying, since both names share their storage: the rest of a file that
    /// was linked, of which the kernel can ask for 4 GiB at a time.
    fn is_there_already(
        &self,
        source: &OpenFile,
        target: &OpenFile,
        (from, to): (u64, u64),
        len: u64,
    ) -> Option<u64> {
        let (source, target) = (source.shared.ino, target.shared.ino);
        let tables = self.tables();
        let one = tables.inodes.path(source)?;
        let other = tables.inodes.path(target)?;
        let is_shared = source == target || tables.groups.share_storage(&one, &other);
        (is_shared && from == to && from > 0).then_some(len)
    }

    /// Copies for a while.
    async fn copy_slice(
        self: &Arc<Self>,
        source: &Arc<OpenFile>,
        target: &Arc<OpenFile>,
        offsets: (u64, u64),
        len: u64,
    ) -> Result<u64> {
        let (from, to) = (source.shared.ino, target.shared.ino);
        let _passes = self.pass_as_owner(&[from, to], to, u64::MAX).await?;
        self.tables().changed(to);
        let end = Doing::CopyTo(offsets.1.saturating_add(len));
        let copying = target.shared.begin(end);
        let copied = self.copy_ends(source, target, offsets, len).await;
        let end = copied
            .as_ref()
            .map_or(0, |(copied, _)| offsets.1.saturating_add(*copied));
        self.note_written(&target.shared, end);
        match copied {
            Ok(_) => drop(copying.done(Doing::CopyTo(end))),
            Err(_) => drop(copying),
        }
        target.shared.content_changed();
        self.tell_aliases(to);
        match copied {
            Ok((copied, way)) => {
                let size = self.tables().attrs.last(from).map_or(0, |attr| attr.size);
                let is_end = offsets.0.saturating_add(copied) >= size;
                self.copies.note(to, way, copied, is_end);
                Ok(copied)
            }
            Err(error) => {
                let path = self.path(to).unwrap_or_else(|_| self.root());
                log::warn!("copying to \"{}\": {error}", path.escape_ascii());
                let len = len.min(ROOM_ASKED_FOR);
                Err(self
                    .explain(Operation::Write, error, Refused::Write { path, len })
                    .await
                    .into())
            }
        }
    }

    /// Copies between open files; from the beginning if the connection is lost.
    async fn copy_ends(
        &self,
        source: &OpenFile,
        target: &OpenFile,
        offsets: (u64, u64),
        len: u64,
    ) -> Result<(u64, Way)> {
        let mut losses = Losses::default();
        loop {
            let source_end = CopyEnd {
                handle: self.handle(source).await?,
                path: self.path(source.shared.ino).ok(),
            };
            let target_end = CopyEnd {
                handle: self.full_handle(target).await?,
                path: self.path(target.shared.ino).ok(),
            };
            if is_abandoned() {
                return Err(Errno::EINTR.into());
            }
            let until = clock::now() + SLICE;
            let go_on = |_| clock::now() < until;
            let copied = self
                .copy_bytes(&source_end, &target_end, offsets, len, go_on)
                .await;
            match copied {
                // Not late, behind what was done since.
                Err(error) if error.is_of_connection() && is_abandoned() => return Err(error),
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                copied => return copied,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// Copies by the server, and what it does not do through here. The way is that of most.
    pub(super) async fn copy_bytes(
        &self,
        source: &CopyEnd,
        target: &CopyEnd,
        (from, to): (u64, u64),
        len: u64,
        mut go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<(u64, Way)> {
        let span = |done: u64| Span {
            source_offset: from + done,
            target_offset: to + done,
            len: len - done,
        };
        let done = match self
            .client
            .copy_data(source, target, span(0), &mut go_on)
            .await?
        {
            CopyData::Copied(copied) => return Ok((copied, Way::Copied)),
            CopyData::Unable(copied) => copied.min(len),
        };
        let streamed = self
            .client
            .stream(&source.handle, &target.handle, span(done), |more| {
                go_on(done + more)
            })
            .await;
        match streamed {
            Ok(streamed) if streamed < done => Ok((done + streamed, Way::Copied)),
            Ok(streamed) => Ok((done + streamed, Way::Streamed)),
            Err(_) if done > 0 => Ok((done, Way::Copied)),
            Err(error) => Err(error),
        }
    }
}

/// How long one call works: short enough for Ctrl-C, long against a round trip.
const SLICE: Duration = Duration::from_millis(500);
/// How much room a full disk is asked for: some free blocks are no room for a large copy.
const ROOM_ASKED_FOR: u64 = 1 << 20;
