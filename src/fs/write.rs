//! Writing: write(2) hands its data over and returns; a task of the file sends it on. What goes
//! wrong is told at the next write, fsync or close of each open of the file.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;

use super::Filesystem;
use super::handles::{Fh, OpenFile};
use super::second_question::Refused;
use super::shared_file::SharedFile;
use super::unwritten::Via;
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, OpenFlags};

impl Filesystem {
    /// Takes data over for `offset`. Waits only while too much is unwritten already.
    ///
    /// `positioned` writes go to their offset even if the file was opened to append: pages that
    /// the kernel writes back.
    ///
    /// # Errors
    /// An earlier write's.
    pub(crate) async fn write(
        self: &Arc<Self>,
        fh: Fh,
        offset: u64,
        data: Bytes,
        positioned: bool,
    ) -> Result<()> {
        let file = self.open_file(fh)?;
        file.take_error()?;
        let len = u32::try_from(data.len())
            .unwrap_or(u32::MAX)
            .min(self.write_budget_max);
        let budget = Arc::clone(&self.write_budget).acquire_many_owned(len).await;
        let mut budget = budget.map_err(|_| Error::Errno(Errno::EIO))?;
        let shared = &file.shared;
        let request_max = self.client.features().write_max as usize;
        let must_start = loop {
            self.hear();
            if !shared.is_own() {
                self.own(shared.ino).await?;
            }
            let via = self.via(&file, fh, positioned).await?;
            match shared.write(&via, offset, &data, request_max, budget) {
                Ok(must_start) => break must_start,
                // A copy that shares its storage was made just now.
                Err(back) => budget = back,
            }
        };
        self.note_written(shared, offset + data.len() as u64);
        self.tell_aliases(shared.ino);
        if must_start {
            tokio::spawn(send(Arc::clone(self), Arc::clone(shared)));
        }
        if file.access.sync || self.config.sync {
            shared.written().await;
            file.take_error()?;
        }
        if file.access.sync {
            return self.fsync(fh).await;
        }
        Ok(())
    }

    /// The file's size and times as they will be; believed by nobody but us until the server has
    /// answered.
    pub(super) fn note_written(&self, shared: &SharedFile, end: u64) {
        let now = clock::wall();
        self.tables().change(shared.ino, clock::now(), |attr| {
            attr.size = attr.size.max(end);
            attr.mtime = attr.mtime.max(now);
            attr.ctime = attr.ctime.max(now);
        });
    }

    /// Which of the server's handles a write takes: always one of this open, which stays open for
    /// as long as the write needs it.
    async fn via(&self, file: &OpenFile, fh: Fh, positioned: bool) -> Result<Via> {
        if !(positioned && file.access.append) {
            let handle = self.full_handle(file).await?;
            return Ok(Via {
                handle,
                id: (fh, false),
            });
        }
        if let Some(handle) = file.pages() {
            return Ok(Via {
                handle,
                id: (fh, true),
            });
        }
        let path = self.path(file.shared.ino)?;
        let opened = self
            .client
            .open(path, OpenFlags::WRITE, Attrs::default())
            .await;
        let handle = opened.map_err(|error| Error::Errno(error.errno(Operation::Open)))?;
        // Another write may have been first; then its handle does for both.
        let handle = file.set_pages(handle);
        Ok(Via {
            handle,
            id: (fh, true),
        })
    }
}

/// Sends a file's writes until none is left.
async fn send(filesystem: Arc<Filesystem>, shared: Arc<SharedFile>) {
    let sending = Sending(&shared);
    let mut sent = FuturesUnordered::new();
    loop {
        while let Some(next) = shared.next() {
            let len = next.data.len() as u64;
            let answer = filesystem
                .client
                .write(&next.handle, next.offset, next.data)
                .await;
            sent.push(async move { (next.number, len, answer.await, next.budget) });
        }
        tokio::select! {
            Some((number, len, result, budget)) = sent.next() => {
                let result = match result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(filesystem.refused_write(&shared, len, error).await),
                };
                // What was asked before the answer may be older than the write.
                filesystem.tables().changed(shared.ino);
                shared.answered(number, result);
                drop(budget);
            }
            () = shared.work() => {}
        }
        if sent.is_empty() && shared.end_sending() {
            return sending.end();
        }
    }
}

/// While it lives somebody sends. If that ends by a panic, whoever waits is told of the loss.
struct Sending<'a>(&'a SharedFile);

impl Sending<'_> {
    /// Nothing is left; another may be sending already.
    fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.abandon(&Error::Errno(Errno::EIO));
    }
}

impl Filesystem {
    async fn refused_write(&self, shared: &SharedFile, len: u64, error: Error) -> Error {
        let path = self.path(shared.ino).unwrap_or_else(|_| self.root());
        log::warn!("writing to \"{}\": {error}", path.escape_ascii());
        self.explain(Operation::Write, error, Refused::Write { path, len })
            .await
            .into()
    }
}
