//! Writing: write(2) hands its data over and returns; a task of the file sends it on. What goes
//! wrong is told at the next write, fsync or close of each open of the file.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use nix::errno::Errno;
use tokio::sync::Semaphore;

use super::Filesystem;
use super::handles::{Fh, OpenFile};
use super::resend::{Again, Answer, Answered, Attempt, Came, place};
use super::rooms::Work;
use super::second_question::Refused;
use super::shared_file::SharedFile;
use super::unwritten::{Budget, Via};
use crate::cache::Sighting;
use crate::client::Client;
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, OpenFlags};

impl Filesystem {
    /// write(2), to its end.
    ///
    /// # Errors
    /// An earlier write's; its own where it waits for the server.
    #[cfg(test)]
    pub(crate) async fn write(
        self: &Arc<Self>,
        fh: Fh,
        offset: u64,
        data: Bytes,
        positioned: bool,
    ) -> Result<()> {
        self.take_over(fh, offset, data, positioned).await?;
        self.write_through(fh).await
    }

    /// Takes data over for `offset`. Waits only while too much is unwritten already. May be given up
    /// at any moment before it returns: then nothing was taken over.
    ///
    /// `positioned` writes go to their offset even if the file was opened to append: pages that
    /// the kernel writes back.
    ///
    /// # Errors
    /// An earlier write's.
    pub(crate) async fn take_over(
        self: &Arc<Self>,
        fh: Fh,
        offset: u64,
        data: Bytes,
        positioned: bool,
    ) -> Result<()> {
        let file = self.open_file(fh)?;
        file.take_error()?;
        let mut taking = std::pin::pin!(self.budget(&file.shared, data.len()));
        let mut budget = match taking.as_mut().now_or_never() {
            Some(budget) => budget?,
            None => {
                // Before the wait, whose end is an answer's: a connection more takes time to be made.
                file.full_handle().inspect(Client::expect_writes);
                taking.await?
            }
        };
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
        Ok(())
    }

    /// Waits until what was taken over is where the open file or the mount has it when write(2)
    /// returns (O_SYNC, `-o sync`).
    ///
    /// # Errors
    /// What became of it.
    pub(crate) async fn write_through(&self, fh: Fh) -> Result<()> {
        let file = self.open_file(fh)?;
        let shared = &file.shared;
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
    pub(super) async fn via(&self, file: &OpenFile, fh: Fh, positioned: bool) -> Result<Via> {
        if !(positioned && file.access.append) {
            let handle = self.full_handle(file).await?;
            return Ok(Via {
                handle,
                id: (fh, false),
                appends: file.access.append,
            });
        }
        if let Some(handle) = file.pages() {
            return Ok(Via {
                handle,
                id: (fh, true),
                appends: false,
            });
        }
        if file.is_lost() {
            // Is it the same file still?
            self.full_handle(file).await?;
        }
        // Or its name would lead to what is renamed over it meanwhile.
        let _no_name_moves = self.rooms.enter(Work::OpeningAgain).await;
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
            appends: false,
        })
    }
}

/// Sends a file's writes and changes of attributes until none is left.
pub(super) async fn send(filesystem: Arc<Filesystem>, shared: Arc<SharedFile>) {
    let sending = Sending(&shared);
    let in_order = filesystem.client.features().acts_in_order();
    // One that waits for its place on the connection, and those that wait for their answers, which
    // are heard meanwhile.
    let mut placing = None;
    let mut sent = FuturesUnordered::new();
    let mut again = Again::default();
    loop {
        // What was lost is known before anything behind it is sent: that may have another handle by now.
        while let Some(came) = sent.next().now_or_never().flatten() {
            filesystem.take_back(&shared, &mut again, came).await;
        }
        if placing.is_none() {
            let next = match again.is_empty() {
                true => shared.next(in_order).map(|next| (next, Attempt::First)),
                false => again.next(sent.len(), in_order && shared.is_small()),
            };
            let place = |(next, attempt)| place(Arc::clone(&filesystem), next, attempt);
            placing = next.map(|next| Box::pin(place(next)));
        }
        let is_placing = placing.is_some();
        let is_idle = !is_placing && sent.is_empty() && again.is_empty();
        if is_idle && shared.end_sending() {
            return sending.end();
        }
        let place = OptionFuture::from(placing.as_mut());
        tokio::select! {
            Some(came) = sent.next() => filesystem.take_back(&shared, &mut again, came).await,
            Some(placed) = place => {
                placing = None;
                again.sent(placed.by);
                sent.push(placed.answer);
            }
            () = shared.work(), if !is_placing => {}
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
    /// Takes what `len` more bytes of a file need, when it is to be had.
    async fn budget(&self, shared: &SharedFile, len: usize) -> Result<Budget> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let all_max = self.write_budget_max;
        let file_max = (all_max - all_max / 4).max(1);
        let take = async |from: Arc<Semaphore>, len: u32| {
            let taken = from.acquire_many_owned(len).await;
            taken.map_err(|_| Error::Errno(Errno::EIO))
        };
        // That of the file first: who waits for it keeps nobody else waiting.
        let of_file = take(shared.budget(file_max), len.min(file_max)).await?;
        let of_all = take(Arc::clone(&self.write_budget), len.min(all_max)).await?;
        Ok(Budget { of_file, of_all })
    }

    /// Takes in what came of a request: an answer, or that it is to be sent again.
    async fn take_back(&self, shared: &SharedFile, again: &mut Again, came: Came) {
        match again.take_in(came) {
            Some(answer) => self.take_answer(shared, answer).await,
            None => tokio::time::sleep(again.rest()).await,
        }
    }

    /// Notes what the server said to a request.
    async fn take_answer(&self, shared: &SharedFile, Answer { number, what }: Answer) {
        let result = match what {
            Answered::Data(len, Err(error)) => Err(self.refused_write(shared, len, error).await),
            Answered::Change(is_asked, Err(error)) => {
                let error = self.refused_ahead(shared, error).await;
                if is_asked { Err(error) } else { Ok(()) }
            }
            Answered::Look(asked, Ok(attrs)) => {
                self.settle(shared, number, &attrs, asked);
                return shared.answered(number, Ok(()));
            }
            // Somebody will ask again.
            Answered::Look(_, Err(_)) | Answered::Data(_, Ok(())) | Answered::Change(_, Ok(())) => {
                Ok(())
            }
        };
        // What was asked before the answer may be older than the write.
        self.tables().changed(shared.ino);
        shared.answered(number, result);
    }

    /// Takes in what the server said of a file behind all that was done to it, if nothing was done
    /// since.
    fn settle(&self, shared: &SharedFile, number: u64, attrs: &Attrs, asked: Instant) {
        if let Some(owner) = attrs.owner {
            shared.set_owner(owner);
        }
        let Ok(attr) = self.translator.local(attrs) else {
            return;
        };
        let mut tables = self.tables();
        // Under the lock: who writes or changes something meanwhile notes that after this.
        if shared.is_only(number) {
            let stamp = tables.attrs.stamp();
            let belief = (Sighting::first(asked), self.config.attr_trust());
            tables.attrs.store(shared.ino, attr, stamp, belief);
            shared.settled(attr.size);
        }
    }

    async fn refused_write(&self, shared: &SharedFile, len: u64, error: Error) -> Error {
        let path = self.path(shared.ino).unwrap_or_else(|_| self.root());
        log::warn!("writing to \"{}\": {error}", path.escape_ascii());
        self.explain(Operation::Write, error, Refused::Write { path, len })
            .await
            .into()
    }
}
