//! Which of the server's handles serves an open file. A file whose server file was replaced (it
//! became a hard link of another, or stopped being one) is opened anew when it is next used, and so
//! is one whose handle was lost with its connection.
//!
//! **Invariant:** what was lost with its connection is opened again only if it looks as it did. What
//! somebody else has put there meanwhile is another file: ESTALE.

use std::future::Future;

use bytes::Bytes;
use nix::errno::Errno;

use super::Filesystem;
use super::files::open_flags;
use super::handles::{OpenFile, Serving};
use super::rooms::Work;
use super::second_question::Refused;
use crate::client::{Handle, Losses};
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
        let handle = self.open_again(file, OpenFlags::READ).await?;
        let serving = Serving::reading(handle.clone());
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
        let handle = self.open_again(file, open_flags(file.access)).await?;
        file.serve(Serving::full(handle.clone(), None));
        Ok(handle)
    }

    async fn open_again(&self, file: &OpenFile, flags: OpenFlags) -> Result<Handle> {
        let path = self.path(file.shared.ino)?;
        match self
            .client
            .open(path.clone(), flags, Attrs::default())
            .await
        {
            Ok(handle) => Ok(handle),
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
        let flags = open_flags(file.access);
        let mut opened = self.open_and_look(&path, flags).await;
        let is_denied = |error: &Error| error.is_refused_with(StatusCode::PERMISSION_DENIED);
        if flags.contains(OpenFlags::WRITE) && opened.as_ref().is_err_and(is_denied) {
            opened = self.open_read_only_file(file, &path, flags).await;
        }
        match opened {
            // With the connection on which it was opened, before the look at it.
            Ok((handle, _)) if handle.is_lost() => Err(Error::Lost("lost once more".into())),
            Ok((handle, seen)) if self.is_same(file, &handle, &seen).await? => {
                log::info!("\"{}\" is open again", path.escape_ascii());
                file.shared.survived();
                let serving = Serving::full(handle.clone(), None);
                Ok(file.serve_unless_served(serving).unwrap_or(handle))
            }
            Ok(_) => Err(stale(&path, "what is there now is not as it was")),
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

    /// Whether what was opened looks as the file did. What was seen may be older than what we have
    /// done to the file since.
    async fn is_same(&self, file: &OpenFile, handle: &Handle, seen: &Attrs) -> Result<bool> {
        let mut seen = seen.clone();
        for _ in 0..LOOKS_MAX {
            if self.is_still(file, &seen) {
                return Ok(true);
            }
            if !file.shared.was_written() {
                return Ok(false);
            }
            seen = self.client.fstat(handle).await?;
        }
        Ok(false)
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
        let set = |permissions| {
            let attrs = Attrs {
                permissions: Some(permissions),
                ..Attrs::default()
            };
            self.client.setstat(path.clone(), attrs)
        };
        set(mode | 0o600).await?;
        let opened = self.open_and_look(path, flags).await;
        set(mode).await?;
        let (handle, mut attrs) = opened?;
        attrs.permissions = there.permissions;
        Ok((handle, attrs))
    }

    /// Whether what is there now looks as the file did that was open.
    ///
    /// Of a file that we have written to the server's last word on its times may never have come:
    /// there it is its size, within what was not acknowledged.
    fn is_still(&self, file: &OpenFile, attrs: &Attrs) -> bool {
        let shared = &file.shared;
        let is_written = shared.is_written();
        let Ok(there) = self.translator.local(attrs) else {
            return false;
        };
        let known = self.tables().attrs.last(shared.ino);
        let Some(known) = shared.when_lost().or(known) else {
            return false;
        };
        if there.kind != FileKind::Regular {
            return false;
        }
        let reach = shared.changes_reach();
        match (shared.was_written(), is_written && reach.is_none()) {
            (false, true) => there.size == known.size && there.mtime == known.mtime,
            // Others may append too.
            _ if file.access.append => true,
            (true, true) => there.size == known.size,
            (_, false) => there.size <= known.size.max(reach.unwrap_or(0)),
        }
    }
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
