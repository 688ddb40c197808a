//! Which of the server's handles serves an open file. A file whose server file was replaced (it
//! became a hard link of another, or stopped being one) is opened anew when it is next used, and so
//! is one whose handle was lost with its connection.
//!
//! **Invariant:** what was lost with its connection is opened again only if it looks as it did. What
//! somebody else has put there meanwhile is another file: ESTALE.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::files::open_flags;
use super::handles::{OpenFile, Serving};
use super::likeness::{Look, Mark};
use super::rooms::Work;
use super::second_question::Refused;
use super::{Filesystem, Ino};
use crate::client::{Handle, Losses};
use crate::clock::Seconds;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind, OpenFlags, StatusCode};

impl Filesystem {
    /// A handle that reads an open file, or whatever it was opened for.
    ///
    /// # Errors
    /// What open(2) says, or ESTALE, if the file must be opened anew; EIO if it was removed and its
    /// handle lost.
    pub(super) async fn handle(&self, file: &OpenFile) -> Result<Handle> {
        if let Some(handle) = file.handle() {
            return Ok(handle);
        }
        if file.is_lost() {
            return Box::pin(self.open_lost(file)).await;
        }
        let (handle, look) = self.open_again(file, OpenFlags::READ).await?;
        let serving = Serving::reading(handle.clone()).seen(look);
        Ok(file.serve_unless_served(serving).unwrap_or(handle))
    }

    /// A handle for all that a file was opened for.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub(super) async fn full_handle(&self, file: &OpenFile) -> Result<Handle> {
        if let Some(handle) = file.full_handle() {
            return Ok(handle);
        }
        if file.is_lost() {
            return Box::pin(self.open_lost(file)).await;
        }
        let (handle, look) = self.open_again(file, open_flags(file.access)).await?;
        file.serve(Serving::full(handle.clone(), None).seen(look));
        Ok(handle)
    }

    async fn open_again(
        &self,
        file: &OpenFile,
        flags: OpenFlags,
    ) -> Result<(Handle, Option<Look>)> {
        let _no_name_moves = self.rooms.enter(Work::OpeningAgain).await;
        let path = self.path(file.shared.ino)?;
        let mark = file.shared.mark();
        match self.open_and_look(&path, flags).await {
            Ok((handle, seen)) => {
                let look = self.look_at(mark, &seen);
                if let Some(look) = &look {
                    file.shared.saw(look);
                }
                Ok((handle, look))
            }
            Err(error) => {
                let write = flags.contains(OpenFlags::WRITE);
                let refused = Refused::Open { path, write };
                Err(self.explain(Operation::Open, error, refused).await.into())
            }
        }
    }

    /// Does something by the handle that serves a file: by the next one if it is lost meanwhile. It
    /// must do no harm to do it twice.
    ///
    /// # Errors
    /// Those of what is done, and of [`Self::handle`].
    pub(super) async fn by_handle<T, W>(
        &self,
        file: &OpenFile,
        work: impl Fn(Handle) -> W,
    ) -> Result<T>
    where
        W: Future<Output = Result<T>>,
    {
        let mut losses = Losses::default();
        loop {
            let done = work(self.handle(file).await?).await;
            match done {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                done => return done,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// Opens again all opens of a file that were lost, before its name is used to change it: then they
    /// are told apart from what somebody else may have put there. What cannot be opened is told to
    /// who uses it.
    pub(super) async fn open_lost_of(&self, ino: Ino) {
        for file in self.handles.files(ino) {
            if file.is_lost() {
                let opened = Box::pin(self.open_lost(&file)).await;
                log::debug!("opened before its name is used: {:?}", opened.is_ok());
            }
        }
    }

    /// Notes what the server said of what a name leads to, behind an open of it, while other opens
    /// of it are lost: whether it may be what those had open.
    pub(super) fn judge_lost(&self, ino: Ino, there: &Look) {
        for file in self.handles.files(ino) {
            let shared = &file.shared;
            let is_known = file.is_lost() && shared.is_at(there.at);
            if is_known && !is_as(&file, (there.size, there.mtime)) {
                file.set_stale();
            }
        }
    }

    /// What was seen of a file at that moment.
    pub(super) fn look_at(&self, mark: Option<Mark>, seen: &Attrs) -> Option<Look> {
        let seen = self.translator.local(seen).ok()?;
        Some(Look {
            at: mark?,
            size: seen.size,
            mtime: seen.mtime,
        })
    }

    /// Notes what the server said of an open file by its handle.
    pub(super) fn saw(&self, file: &OpenFile, handle: &Handle, look: Option<Look>) {
        if let Some(look) = look {
            file.shared.saw(&look);
            file.saw(handle, look);
        }
    }

    /// Opens, by its name, a file whose handle was lost with its connection.
    async fn open_lost(&self, file: &OpenFile) -> Result<Handle> {
        let mut losses = Losses::default();
        loop {
            match self.open_lost_once(file).await {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                opened => return opened,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    async fn open_lost_once(&self, file: &OpenFile) -> Result<Handle> {
        let _no_name_moves = self.rooms.enter(Work::OpeningAgain).await;
        let Ok(path) = self.path(file.shared.ino) else {
            log::error!("a removed file that was still open is gone with the connection");
            return Err(Errno::EIO.into());
        };
        if file.is_stale() {
            return Err(stale(&path, "something else has been there since"));
        }
        let flags = open_flags(file.access);
        let mark = file.shared.mark();
        let mut opened = self.open_and_look(&path, flags).await;
        let is_denied = |error: &Error| error.is_refused_with(StatusCode::PERMISSION_DENIED);
        if flags.contains(OpenFlags::WRITE) && opened.as_ref().is_err_and(is_denied) {
            opened = self.open_read_only_file(file, &path, flags).await;
        }
        match opened {
            // With the connection on which it was opened, before the look at it.
            Ok((handle, _)) if handle.is_lost() => Err(Error::Lost("lost once more".into())),
            Ok((handle, seen)) => {
                let Some(seen) = self.same(file, &handle, seen).await? else {
                    // Whatever it is made to look like from now on.
                    file.set_stale();
                    return Err(stale(&path, "what is there now is not as it was"));
                };
                log::info!("\"{}\" is open again", path.escape_ascii());
                let look = self.look_at(mark, &seen);
                let serving = Serving::full(handle.clone(), None).seen(look);
                Ok(file.serve_unless_served(serving).unwrap_or(handle))
            }
            Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => {
                Err(stale(&path, "it is not there any more"))
            }
            Err(error) => {
                let write = flags.contains(OpenFlags::WRITE);
                let refused = Refused::Open { path, write };
                Err(self.explain(Operation::Open, error, refused).await.into())
            }
        }
    }

    /// What was opened, if it looks as the file did. What was seen may be older than what we have done
    /// to the file since.
    async fn same(
        &self,
        file: &OpenFile,
        handle: &Handle,
        mut seen: Attrs,
    ) -> Result<Option<Attrs>> {
        for _ in 0..LOOKS_MAX {
            if self.is_still(file, &seen) {
                return Ok(Some(seen));
            }
            if file.shared.is_exact(file.look().as_ref()) {
                break;
            }
            seen = self.client.fstat(handle).await?;
        }
        Ok(None)
    }

    async fn open_and_look(&self, path: &Bytes, flags: OpenFlags) -> Result<(Handle, Attrs)> {
        let (path, attrs) = (path.clone(), Attrs::default());
        self.client.open_and_look(path, flags, attrs).await
    }

    /// A file may be made with a mode by which its maker cannot open it to write again (git's
    /// objects are 0444): its owner may for the moment that it takes.
    async fn open_read_only_file(
        &self,
        file: &OpenFile,
        path: &Bytes,
        flags: OpenFlags,
    ) -> Result<(Handle, Attrs)> {
        let there = self.client.lstat(path.clone()).await?;
        let denied = || Error::Errno(Errno::EACCES);
        let mode = there.permissions.ok_or_else(denied)? & 0o7777;
        if there.kind() != Some(FileKind::Regular) || !self.is_still(file, &there) {
            return Err(Errno::ESTALE.into());
        }
        let (client, path) = (Arc::clone(&self.client), path.clone());
        // In a task, so that nobody who is interrupted leaves the file with a mode that is not its.
        let opening = tokio::spawn(async move {
            let of_mode = |permissions| Attrs {
                permissions: Some(permissions),
                ..Attrs::default()
            };
            client.setstat(path.clone(), of_mode(mode | 0o600)).await?;
            let opened = client.open_and_look(path.clone(), flags, Attrs::default());
            let opened = opened.await;
            // Nobody may be left who keeps a directory above from being renamed.
            if let Ok((handle, _)) = &opened
                && client.fsetstat(handle, of_mode(mode)).await.is_ok()
            {
                return opened;
            }
            client.setstat(path, of_mode(mode)).await?;
            opened
        });
        let opened = opening.await.unwrap_or(Err(Errno::EIO.into()));
        let (handle, mut attrs) = opened?;
        attrs.permissions = there.permissions;
        Ok((handle, attrs))
    }

    /// Whether what is there now looks as the file did that was open.
    fn is_still(&self, file: &OpenFile, attrs: &Attrs) -> bool {
        self.translator.local(attrs).is_ok_and(|there| {
            there.kind == FileKind::Regular && is_as(file, (there.size, there.mtime))
        })
    }
}

fn is_as(file: &OpenFile, there: (u64, Seconds)) -> bool {
    let last = file.look();
    file.shared.fits(last.as_ref(), there, file.access.append)
}

fn stale(path: &[u8], why: &str) -> Error {
    log::error!(
        "\"{}\" was open when the connection was lost and cannot go on: {why}",
        path.escape_ascii()
    );
    Errno::ESTALE.into()
}

/// More often our own writes do not come between a look and what is known by then.
const LOOKS_MAX: usize = 4;
