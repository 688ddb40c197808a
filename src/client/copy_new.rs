//! A small file copied whole to a new name, in two round trips, many of them under way at once: for
//! `sftpfs cp`.
//!
//! **Invariant:** copy-data "until the end" (length 0) goes only into a file that was made by this
//! very copy (O_EXCL), so that it is another file than the source: on one file under two names it
//! would never end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nix::errno::Errno;

use super::connection::Connection;
use super::files::{Handle, opened};
use super::pieces::Span;
use super::{Client, Ticket, attrs, done};
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind, OpenFlags, Request, StatusCode};

/// The connection that copies take: their own if there is one.
#[derive(Clone)]
pub(crate) struct CopyLane(Arc<Connection>);

/// A source and a new, empty file, both open.
pub(crate) struct NewCopy {
    lane: CopyLane,
    source: Handle,
    target: Handle,
    /// What was made, to be removed if it does not become the copy.
    path: Bytes,
    /// Of the source.
    pub(crate) attrs: Attrs,
}

/// What became of one.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Of the new file.
    pub(crate) attrs: Attrs,
    pub(crate) size: u64,
    /// The server copied; otherwise the data came here and went back.
    pub(crate) by_server: bool,
}

impl Client {
    /// Dials the connection for copies if it is not there.
    pub(crate) async fn copy_lane(&self) -> CopyLane {
        CopyLane(match self.lanes.copies().connection().await {
            Some(connection) => connection,
            None => self.lanes.metadata(),
        })
    }

    /// Opens the source and makes the target, which only its owner may touch yet.
    ///
    /// # Errors
    /// What the server said of either, [`NewCopyError::Target`] if it was the target: it may be
    /// there already. Then nothing was made. EINVAL for a source that is no regular file.
    pub(crate) async fn begin_copy(
        &self,
        lane: &CopyLane,
        from: Bytes,
        to: Bytes,
    ) -> Result<NewCopy, NewCopyError> {
        let connection = &lane.0;
        let open = |path: Bytes, flags, permissions| {
            let attrs = Attrs {
                permissions,
                ..Attrs::default()
            };
            let ticket = connection.submit(&Request::Open { path, flags, attrs });
            opened(Arc::clone(connection), ticket)
        };
        // One round trip. The source first, so that it is open before anything is made.
        let source = open(from.clone(), OpenFlags::READ, None);
        let flags = OpenFlags::WRITE | OpenFlags::READ | OpenFlags::CREAT | OpenFlags::EXCL;
        let target = open(to.clone(), flags, Some(PRIVATE));
        let look = attrs(connection.submit(&Request::Lstat { path: from }));
        let (source, target, seen) = (source.await, target.await, look.await);
        let target = target.map_err(NewCopyError::Target)?;
        let regular = |attrs: Attrs| match attrs.kind() {
            Some(FileKind::Regular) => Ok(attrs),
            _ => Err(Error::Errno(Errno::EINVAL)),
        };
        match (source, seen.and_then(regular)) {
            (Ok(source), Ok(attrs)) => Ok(NewCopy {
                lane: lane.clone(),
                source,
                target,
                path: to,
                attrs,
            }),
            (Err(error), _) | (_, Err(error)) => {
                drop(target);
                self.remove_failed(lane, to).await;
                Err(NewCopyError::Source(error))
            }
        }
    }

    /// Waits for the server to be back after a copy lost its connection, and removes what was made
    /// for it. `is_ours`: it was made by us; else the answer to that was lost, and what is there is
    /// taken for ours if it is as ours would be. Anything else stays.
    ///
    /// # Errors
    /// What the server said.
    pub(crate) async fn clear_lost_copy(&self, to: &Bytes, is_ours: bool) -> Result<()> {
        let there = match self.lstat(to.clone()).await {
            Ok(there) => there,
            Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_new = there.kind() == Some(FileKind::Regular)
            && there.size == Some(0)
            && there.permissions.map(|bits| bits & 0o7777) == Some(PRIVATE);
        if !is_ours && !is_new {
            return Ok(());
        }
        match self.remove(to.clone()).await {
            Err(error) if !error.is_refused_with(StatusCode::NO_SUCH_FILE) => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies, and gives the new file these attributes in turn, of which the first may be refused.
    ///
    /// # Errors
    /// What the server said. Then the new file is no copy: it waits for [`Self::abandon_copy`],
    /// as a full disk can be told for one only while it is there.
    pub(crate) async fn finish_copy(
        &self,
        copy: &NewCopy,
        owner: Option<Attrs>,
        dress: Attrs,
    ) -> Result<Copied> {
        let refused = self.copies_refused.load(Ordering::Relaxed);
        if self.features.extensions.copy_data && !refused {
            let copied = self
                .finish_by_server(copy, owner.clone(), dress.clone())
                .await?;
            if let Some(copied) = copied {
                return Ok(copied);
            }
        }
        let size = copy.attrs.size.unwrap_or(0);
        let mut streamed = 0;
        // An error after some bytes is told by the next call.
        while streamed < size {
            let rest = Span {
                source_offset: streamed,
                target_offset: streamed,
                len: size - streamed,
            };
            match self
                .stream(&copy.source, &copy.target, rest, |_| true)
                .await?
            {
                0 => return Err(Error::Protocol("less of a file than the server says")),
                more => streamed += more,
            }
        }
        let dressed = dress_up(&copy.target, owner, dress);
        let seen = attrs(copy.target.submit_fstat());
        wait_dressed(dressed).await?;
        Ok(Copied {
            attrs: seen.await?,
            size,
            by_server: false,
        })
    }

    /// Removes what was made for a copy that is not wanted any more.
    pub(crate) async fn abandon_copy(&self, copy: NewCopy) {
        let NewCopy { lane, path, .. } = copy;
        self.remove_failed(&lane, path).await;
    }

    /// One round trip; `None` if the server did not copy it, and the client is to.
    async fn finish_by_server(
        &self,
        copy: &NewCopy,
        owner: Option<Attrs>,
        dress: Attrs,
    ) -> Result<Option<Copied>> {
        let until_the_end = Span {
            source_offset: 0,
            target_offset: 0,
            len: 0,
        };
        // Done in the order in which it is sent.
        let copied = done(copy.source.submit_copy(&copy.target, until_the_end));
        let dressed = dress_up(&copy.target, owner, dress);
        let new = attrs(copy.target.submit_fstat());
        let old = attrs(copy.source.submit_fstat());
        let copied = copied.await;
        let dressed = wait_dressed(dressed).await;
        let (new, old) = (new.await, old.await);
        if let Err(error) = copied {
            self.note_refusal(error)?;
            return Ok(None);
        }
        dressed?;
        let (new, old) = (new?, old?);
        // It may have grown meanwhile: then as much is there as at some moment.
        let (least, size, most) = (copy.attrs.size, new.size, old.size);
        match size {
            Some(size) if least.min(most) <= Some(size) && Some(size) <= least.max(most) => {
                Ok(Some(Copied {
                    attrs: new,
                    size,
                    by_server: true,
                }))
            }
            _ => Ok(None),
        }
    }

    /// Whether the data may go through the client instead.
    ///
    /// # Errors
    /// The error itself if that would not go better.
    fn note_refusal(&self, error: Error) -> Result<()> {
        if !matches!(error, Error::Refused { .. })
            || matches!(error.errno(Operation::Write), Errno::ENOSPC | Errno::EDQUOT)
        {
            return Err(error);
        }
        self.refused_copy(&error);
        Ok(())
    }

    async fn remove_failed(&self, lane: &CopyLane, path: Bytes) {
        // On the lane on which it was made, and so after it.
        let request = Request::Remove { path: path.clone() };
        let mut removed = done(lane.0.submit(&request)).await;
        self.lanes.note_move(&path);
        if removed.as_ref().is_err_and(Error::is_of_connection) {
            removed = self.clear_lost_copy(&path, true).await.map(drop);
        }
        if let Err(error) = removed {
            log::warn!(
                "\"{}\", a copy that failed, stays: {error}",
                path.escape_ascii()
            );
        }
    }
}

/// The mode of what is made, until it is the copy.
const PRIVATE: u32 = 0o600;

/// Of which file an error is.
#[derive(Debug)]
pub(crate) enum NewCopyError {
    Source(Error),
    Target(Error),
}

/// Sends the changes, the owner first: chown(2) takes set-ID bits away.
fn dress_up(target: &Handle, owner: Option<Attrs>, dress: Attrs) -> (Option<Ticket>, Ticket) {
    let owner = owner.map(|attrs| target.submit_fsetstat(attrs));
    (owner, target.submit_fsetstat(dress))
}

async fn wait_dressed((owner, dress): (Option<Ticket>, Ticket)) -> Result<()> {
    if let Some(owner) = owner
        && let Err(error) = done(owner).await
    {
        // As after `cp`: only root gives files away.
        log::debug!("a copy's owner stays the login user: {error}");
    }
    done(dress).await
}
