//! Open files: open, create, read, write, flush, fsync, fallocate, release.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::attr::Change;
use super::handles::{Access, Fh, OpenFile};
use super::likeness::{Doing, Look, Mark};
use super::read::{self, Bounds, Reading};
use super::second_question::Refused;
use super::{Attr, Caller, Entry, Filesystem, Ino, Notice, same_content};
use crate::client::{Handle, Losses};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, OpenFlags, StatusCode};

/// A file that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) fh: Fh,
    /// The pages that the kernel has are of this content.
    pub(crate) keep_pages: bool,
}

/// What to do where a file that is to be made is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Creation {
    /// O_EXCL: refuse.
    pub(crate) exclusive: bool,
    /// O_TRUNC: empty it.
    pub(crate) truncate: bool,
}

impl Creation {
    /// O_EXCL.
    pub(crate) const EXCLUSIVE: Self = Self {
        exclusive: true,
        truncate: false,
    };
}

impl Filesystem {
    /// Opens a file. The server is always asked, so that what another client wrote and closed
    /// before is seen (close-to-open, as with NFS); but see [`lazy_open`](super::lazy_open).
    pub(crate) async fn open(
        self: &Arc<Self>,
        ino: Ino,
        access: Access,
        truncate: bool,
    ) -> Result<Opened> {
        if let Some(shared) = self.handles.shared(ino) {
            shared.written().await;
        }
        let _passes = match truncate {
            // A file that is emptied needs nothing of what it had.
            true => self.pass_as_owner(&[ino], ino, 0).await?,
            false => self.pass(&[ino]).await,
        };
        let shared = self.shares(ino);
        self.path(ino)?;
        let mut flags = open_flags(access);
        if truncate {
            flags = flags | OpenFlags::TRUNC;
            self.tables().changed(ino);
        }
        let before = self.tables().attrs.last(ino);
        if !access.write
            && !truncate
            && let Some(opened) = self.open_fetched(ino, access, shared, before).await
        {
            return Ok(opened);
        }
        if !truncate && let Some(opened) = self.open_lazily(ino, access) {
            return Ok(opened);
        }
        // It may have been renamed while a fetch was waited for.
        if truncate {
            self.open_lost_of(ino).await;
        }
        let opens = self.handles.shared(ino);
        let emptying = opens.as_ref().filter(|_| truncate);
        let emptying = emptying.map(|opens| opens.begin(Doing::Resize(0)));
        let mark = opens
            .as_ref()
            .map_or(Some(Mark::FIRST), |opens| opens.mark());
        let asked = self.now();
        let open = |path| self.client.open_and_look(path, flags, Attrs::default());
        let (path, opened) = self.at_path(|| self.path(ino), open).await?;
        let (handle, attrs) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let refused = Refused::Open {
                    path,
                    write: access.write,
                };
                return Err(self.explain(Operation::Open, error, refused).await.into());
            }
        };
        if truncate && let Some(shared) = self.handles.shared(ino) {
            shared.content_changed();
        }
        let mark = emptying.map_or(mark, |emptying| emptying.done(Doing::Resize(0)));
        let after = self.learn(ino, &attrs, asked)?.attr;
        let keep_pages = self.keeps_pages(ino, before, after) && !truncate;
        let has_changed = self.tables().attrs.has_changed(ino, asked.stamp);
        let mark = mark.filter(|mark| *mark != Mark::FIRST || !has_changed);
        let look = self.look_at(mark, &attrs);
        if let Some(look) = look.filter(|_| !truncate) {
            self.judge_lost(ino, &look);
        }
        let fh = self.add_open(ino, access, (handle, look), false);
        if let (Some(owner), Some(shared)) = (attrs.owner, self.handles.shared(ino)) {
            shared.set_owner(owner);
        }
        if shared && !self.shares(ino) {
            // The name got another server file meanwhile, before this open was known.
            self.lose(ino);
        }
        Ok(Opened { fh, keep_pages })
    }

    /// Opens a file to read that was fetched ahead, if what was fetched may still be believed.
    async fn open_fetched(
        &self,
        ino: Ino,
        access: Access,
        shared: bool,
        before: Option<Attr>,
    ) -> Option<Opened> {
        let fetched = self.take_ahead(ino).await?;
        let known = self.learn_from(ino, fetched.attr, fetched.asked);
        let (handle, data) = (fetched.handle.clone(), fetched.data.clone());
        self.tables().inodes.opened(ino);
        let is_first = self.handles.shared(ino).is_none();
        let look = is_first.then_some(Look {
            at: Mark::FIRST,
            size: fetched.attr.size,
            mtime: fetched.attr.mtime,
        });
        let fh = self.handles.add_fetched(ino, access, (handle, look), data);
        if !self.is_believed(ino, &fetched) || (shared && !self.shares(ino)) {
            // Changed just now, before this open was known.
            self.close(fh);
            return None;
        }
        let keep_pages = self.keeps_pages(ino, before, known.attr);
        Some(Opened { fh, keep_pages })
    }

    /// Whether the kernel's pages of a file that is opened are of this content.
    fn keeps_pages(&self, ino: Ino, before: Option<Attr>, after: Attr) -> bool {
        let is_same = before.is_some_and(|before| same_content(&before, &after));
        if !is_same {
            // The kernel may believe the size that it was told for some seconds more.
            self.notices.tell(Notice::Attributes(ino));
        }
        let are_good = self.tables().attrs.opened(ino, clock::now(), clock::wall());
        self.config.kernel_cache || (is_same && are_good)
    }

    /// Makes a file and opens it. Where there is one already it is opened, unless that is
    /// refused.
    pub(crate) async fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        mode: u32,
        access: Access,
        how: Creation,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let attrs = Attrs {
            permissions: Some(mode & 0o7777),
            ..Attrs::default()
        };
        let flags = open_flags(access) | OpenFlags::CREAT | OpenFlags::EXCL;
        // Exclusively first, also where that was not asked for: only then is it known that the
        // file is new, and its mode ours to correct.
        let make = |path| self.client.open_and_look(path, flags, attrs.clone());
        let (path, made) = self.at_path(|| self.path_below(parent, name), make).await?;
        let (handle, seen) = match made {
            Ok(made) => made,
            Err(error) => {
                let is_there = error.is_refused_with(StatusCode::FAILURE)
                    || error.is_refused_with(StatusCode::FILE_ALREADY_EXISTS);
                if is_there && !how.exclusive && self.client.lstat(path.clone()).await.is_ok() {
                    return self.open_existing(parent, name, access, how.truncate).await;
                }
                return Err(self
                    .explain(Operation::Create, error, Refused::New(path))
                    .await
                    .into());
            }
        };
        let entry = self.enter_made(parent, name, &seen)?;
        let look = self.look_at(Some(Mark::FIRST), &seen);
        let fh = self.add_open(entry.ino, access, (handle, look), true);
        if let (Some(owner), Some(shared)) = (seen.owner, self.handles.shared(entry.ino)) {
            shared.set_made(owner);
        }
        // As it is open already, nobody need wait for this.
        let change = self.correction(parent, &seen, Some(mode), caller);
        let entry = self.correct(entry, change).await;
        Ok((
            entry,
            Opened {
                fh,
                keep_pages: false,
            },
        ))
    }

    async fn open_existing(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        access: Access,
        truncate: bool,
    ) -> Result<(Entry, Opened)> {
        let entry = self.lookup(parent, name).await?;
        match self.open(entry.ino, access, truncate).await {
            Ok(opened) => {
                // As it is after the open, which may have emptied it.
                let known = self.getattr(entry.ino).await.unwrap_or(entry.known);
                Ok((Entry { known, ..entry }, opened))
            }
            Err(error) => {
                self.forget(entry.ino, 1);
                Err(error)
            }
        }
    }

    /// mknod(2) of a regular file; SFTP can make no other kind.
    pub(crate) async fn mknod(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let access = Access {
            read: false,
            write: true,
            append: false,
            sync: false,
        };
        let (entry, opened) = self
            .create(parent, name, mode, access, Creation::EXCLUSIVE, caller)
            .await?;
        self.release(opened.fh);
        Ok(entry)
    }

    fn add_open(&self, ino: Ino, access: Access, by: (Handle, Option<Look>), is_new: bool) -> Fh {
        self.tables().inodes.opened(ino);
        self.handles.add_file(ino, access, by, is_new)
    }

    pub(super) fn open_file(&self, fh: Fh) -> Result<Arc<OpenFile>> {
        self.handles.file(fh).ok_or(Error::Errno(Errno::EBADF))
    }

    /// Up to `len` bytes from `offset`: fewer only at the end of the file.
    pub(crate) async fn read(&self, fh: Fh, offset: u64, len: u32) -> Result<Bytes> {
        let file = self.open_file(fh)?;
        let wanted = offset..offset.saturating_add(u64::from(len));
        match self.read_range(&file, wanted).await {
            Ok(data) => Ok(data),
            Err(error) => Err(self
                .explain(Operation::Read, error, Refused::Other)
                .await
                .into()),
        }
    }

    async fn read_range(&self, file: &Arc<OpenFile>, wanted: Range<u64>) -> Result<Bytes> {
        if let Some(data) = file.fetched(&wanted) {
            return Ok(data);
        }
        let size = self
            .tables()
            .attrs
            .last(file.shared.ino)
            .map_or(wanted.end, |attr| attr.size);
        let bounds = Bounds {
            size,
            request: u64::from(self.client.features().read_max),
            ahead_max: self.config.readahead_max as u64,
        };
        let mut losses = Losses::default();
        loop {
            let handle = self.handle(file).await?;
            let reading = Reading {
                client: &self.client,
                handle: &handle,
                budget: &self.ahead_budget,
                bounds,
            };
            match read::read(&reading, file, wanted.clone()).await {
                Ok(data) if file.is_served_by(&handle) => return Ok(data),
                Ok(_) => {}
                Err(error) if error.is_of_connection() => {
                    losses.count(&error)?;
                    tokio::time::sleep(losses.rest()).await;
                }
                Err(error) => return Err(error),
            }
            // The file got another server file meanwhile: what was asked of the old one, also ahead
            // of the reader, may since have become another file's. Or what was asked for is lost.
            file.shared.content_changed();
        }
    }

    /// close(2) of one descriptor: waits until what was written is on the server, and tells what
    /// went wrong.
    pub(crate) async fn flush(&self, fh: Fh) -> Result<()> {
        let file = self.open_file(fh)?;
        // In the same round trip, so that who looks at what was just closed need not ask.
        file.shared.look(self.client.features().acts_in_order());
        file.shared.written().await;
        file.take_error()
    }

    /// fsync(2): what was written is on the server's disk.
    pub(crate) async fn fsync(&self, fh: Fh) -> Result<()> {
        let file = self.open_file(fh)?;
        file.shared.written().await;
        file.take_error()?;
        let synced = self.by_handle(
            &file,
            |handle| async move { self.client.fsync(&handle).await },
        );
        match synced.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self
                .explain(Operation::Fsync, error, Refused::Other)
                .await
                .into()),
        }
    }

    /// fallocate(2) without flags: the file is at least `end` bytes long. SFTP can reserve nothing.
    pub(crate) async fn grow(self: &Arc<Self>, ino: Ino, fh: Fh, end: u64) -> Result<()> {
        let file = self.open_file(fh)?;
        file.shared.written().await;
        let size = self.ask_attributes(ino).await?.attr.size;
        // Also where the file is long enough its mtime moves, as on ext4, xfs and btrfs.
        let change = Change {
            size: (size < end).then_some(end),
            mtime: (size >= end).then(clock::wall),
            ..Change::default()
        };
        self.setattr(ino, change, Some(fh)).await?;
        Ok(())
    }

    /// The last descriptor of an open(2) is gone. Nobody waits for this.
    pub(crate) fn release(self: &Arc<Self>, fh: Fh) {
        let Some(file) = self.handles.file(fh) else {
            return;
        };
        if file.shared.is_written() {
            return self.close(fh);
        }
        // Pages of a shared mapping may have been written after the last close(2). The file stays
        // open until they are on the server: whoever opens or asks meanwhile waits for them.
        let filesystem = Arc::clone(self);
        tokio::spawn(async move {
            file.shared.written().await;
            if let Err(error) = file.take_error() {
                log::error!("what was done to a file after it was closed was lost: {error}");
            }
            filesystem.close(fh);
        });
    }

    fn close(&self, fh: Fh) {
        let Some(file) = self.handles.remove_file(fh) else {
            return;
        };
        if file.shared.was_written() {
            self.copies.note_written(file.shared.ino);
        }
        self.tables().inodes.closed(file.shared.ino);
    }
}

pub(super) fn open_flags(access: Access) -> OpenFlags {
    let mut flags = OpenFlags(0);
    for (wanted, flag) in [
        (access.read, OpenFlags::READ),
        (access.write, OpenFlags::WRITE),
        (access.append, OpenFlags::APPEND),
    ] {
        if wanted {
            flags = flags | flag;
        }
    }
    flags
}
