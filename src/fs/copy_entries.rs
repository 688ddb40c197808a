//! Many files of a directory copied to another one under their names, at once, by the server: the
//! ioctl(2) COPY, which `sftpfs cp` asks for.
//!
//! Nothing is replaced. A name that fails leaves nothing behind under it. As copy_file_range(2)
//! does, a call answers after a while with what is done so far: names that it did not come to are
//! EAGAIN. So are those whose copies lost their connection, when what was made of them is removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use nix::errno::Errno;
use tokio::sync::Semaphore;

use super::attributes::may_by_mode;
use super::notices::Notice;
use super::second_question::Refused;
use super::{Caller, Filesystem, Ino};
use crate::client::{CopyLane, NewCopy, NewCopyError};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::ioctl::Way;
use crate::sftp::{Attrs, FileKind};

/// What is to be copied, and how.
#[derive(Debug, Clone)]
pub(crate) struct CopyEntries {
    /// From which directory.
    pub(crate) source: Ino,
    pub(crate) names: Vec<Bytes>,
    /// Mode, times, and owner as far as that is allowed.
    pub(crate) preserve: bool,
    /// Bits that new files do not get where nothing is preserved.
    pub(crate) umask: u32,
}

/// How a file was copied and how long it is; or why it was not.
pub(crate) type Outcome = Result<(Way, u64), Errno>;

/// What is under way in all such calls together.
pub(super) struct CopyBudget {
    files: Semaphore,
    mebibytes: Semaphore,
}

impl Default for CopyBudget {
    fn default() -> Self {
        Self {
            files: Semaphore::new(FILES_MAX as usize),
            mebibytes: Semaphore::new(MEBIBYTES_MAX as usize),
        }
    }
}

/// One call, understood.
pub(super) struct Job<'a> {
    pub(super) wanted: &'a CopyEntries,
    pub(super) target: Ino,
    pub(super) caller: Caller,
    /// When it is time to answer.
    until: Instant,
}

impl Filesystem {
    /// Copies regular files; an outcome for each name, in order.
    ///
    /// # Errors
    /// EACCES for a caller who may not make names in one directory or find those in the other;
    /// EROFS; ENOTDIR and ESTALE for what is no directory of this mount.
    pub(crate) async fn copy_entries(
        self: &Arc<Self>,
        target: Ino,
        wanted: &CopyEntries,
        caller: Caller,
    ) -> Result<Vec<Outcome>> {
        if self.config.read_only {
            return Err(Errno::EROFS.into());
        }
        self.may_do(wanted.source, caller, SEARCH).await?;
        self.may_do(target, caller, SEARCH | WRITE).await?;
        let mut job = Job {
            wanted,
            target,
            caller,
            until: clock::now(),
        };
        let linked = self.link_entries(&job).await;
        let lane = match linked.contains(&None) {
            true => Some(self.client.copy_lane().await),
            false => None,
        };
        job.until = clock::now() + SLICE;
        let mut each = Vec::with_capacity(wanted.names.len());
        for (name, linked) in wanted.names.iter().zip(linked) {
            each.push(self.copy_unless_linked(&job, lane.as_ref(), name, linked));
        }
        let outcomes = join_all(each).await;
        if outcomes.iter().any(Result::is_ok) {
            self.notices.tell(Notice::Attributes(target));
        }
        Ok(outcomes)
    }

    /// Whether a caller may do something in a directory that he names by its number, as far as its
    /// mode and those of the directories above it tell.
    async fn may_do(&self, directory: Ino, caller: Caller, what: u16) -> Result<()> {
        if self.tables().inodes.kind(directory) != Some(FileKind::Directory) {
            return Err(Errno::ENOTDIR.into());
        }
        let above = self.tables().inodes.above(directory);
        let wanted =
            std::iter::once((directory, what)).chain(above.into_iter().map(|ino| (ino, SEARCH)));
        for (ino, what) in wanted {
            self.may(ino, caller, what).await?;
        }
        Ok(())
    }

    async fn copy_unless_linked(
        self: &Arc<Self>,
        job: &Job<'_>,
        lane: Option<&CopyLane>,
        name: &[u8],
        linked: Option<Outcome>,
    ) -> Outcome {
        match (linked, lane) {
            (Some(outcome), _) => outcome,
            (None, Some(lane)) => self.copy_entry(job, lane, name).await,
            // There is one wherever something is left to copy.
            (None, None) => Err(Errno::EIO),
        }
    }

    async fn copy_entry(self: &Arc<Self>, job: &Job<'_>, lane: &CopyLane, name: &[u8]) -> Outcome {
        let (from, to) = self.paths_of(job, name)?;
        // Handles that are open at a time: two for each. Semaphores of ours are never closed.
        let places = match self.client.features().extensions.limits {
            true => 1,
            false => FILES_MAX / FILES_UNTOLD_MAX,
        };
        let _place = self
            .copy_budget
            .files
            .acquire_many(places)
            .await
            .map_err(|_| Errno::EIO)?;
        if clock::now() >= job.until {
            return Err(Errno::EAGAIN);
        }
        let known = self.tables().inodes.find(job.wanted.source, name);
        if let Some(shared) = known.and_then(|ino| self.handles.shared(ino)) {
            shared.written().await;
        }
        let copy = match self.client.begin_copy(lane, from.clone(), to.clone()).await {
            Ok(copy) => copy,
            Err(NewCopyError::Target(Error::Lost(_))) => {
                let cleared = self.client.clear_lost_copy(&to, false).await;
                return Err(cleared.map_or(Errno::EIO, |()| Errno::EAGAIN));
            }
            // What was made is gone.
            Err(NewCopyError::Source(Error::Lost(_))) => return Err(Errno::EAGAIN),
            Err(NewCopyError::Source(error)) => {
                let refused = Refused::Open {
                    path: from,
                    write: false,
                };
                return Err(self.explain(Operation::Open, error, refused).await);
            }
            Err(NewCopyError::Target(error)) => {
                return Err(self
                    .explain(Operation::Create, error, Refused::New(to))
                    .await);
            }
        };
        if let Err(why) = self.may_copy(&copy.attrs, job.caller) {
            self.client.abandon_copy(copy).await;
            return Err(why);
        }
        self.copy_content(job, copy, name, to).await
    }

    /// What is refused here, `sftpfs cp` copies alone.
    fn may_copy(&self, source: &Attrs, caller: Caller) -> Result<(), Errno> {
        let attr = self.translator.local(source).map_err(|_| Errno::EPERM)?;
        if self.config.default_permissions && !may_by_mode(&attr, caller, READ) {
            return Err(Errno::EACCES);
        }
        // The answer would take long; and set-ID bits need to know whose the new file became.
        if source.size.unwrap_or(0) > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        match source.permissions.unwrap_or(0) & 0o6000 {
            0 => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    async fn copy_content(
        self: &Arc<Self>,
        job: &Job<'_>,
        copy: NewCopy,
        name: &[u8],
        to: Bytes,
    ) -> Outcome {
        let len = copy.attrs.size.unwrap_or(0);
        let places = u32::try_from(len >> 20)
            .unwrap_or(MEBIBYTES_MAX)
            .min(MEBIBYTES_MAX - 1)
            + 1;
        let budget = self.copy_budget.mebibytes.acquire_many(places);
        let _place = budget.await.map_err(|_| Errno::EIO)?;
        let (owner, dress) = self.clothes(job.wanted, &copy.attrs);
        let mode = dress.permissions;
        let copied = match self.client.finish_copy(&copy, owner, dress).await {
            Ok(copied) => copied,
            Err(Error::Lost(_)) => {
                self.client.abandon_copy(copy).await;
                return Err(Errno::EAGAIN);
            }
            Err(error) => {
                log::warn!("copying to \"{}\": {error}", to.escape_ascii());
                let refused = Refused::Write {
                    path: to,
                    len: len.max(1),
                };
                let why = self.explain(Operation::Write, error, refused).await;
                self.client.abandon_copy(copy).await;
                return Err(why);
            }
        };
        drop(copy);
        let way = if copied.by_server {
            Way::Copied
        } else {
            Way::Streamed
        };
        let (mode, owner) = match (job.wanted.preserve, copied.attrs.owner) {
            // It has both already.
            (true, Some((uid, gid))) => (None, Caller { uid, gid }),
            _ => (mode, job.caller),
        };
        let entered = self
            .enter_new(job.target, name, copied.attrs, mode, owner)
            .await;
        let ino = entered.map_err(|error| error.errno(Operation::Create))?.ino;
        self.made_copy(job.target, name, ino, (way, copied.size));
        Ok((way, copied.size))
    }

    /// Takes in that a copy is there. Gives back the count by which its number was held.
    pub(super) fn made_copy(&self, parent: Ino, name: &[u8], ino: Ino, (way, size): (Way, u64)) {
        self.copies.note(ino, way, size, true);
        self.forget(ino, 1);
        // The kernel may believe that there is no such name.
        self.notices.tell(Notice::Name(parent, name.into()));
    }

    /// Paths of a name in both directories.
    ///
    /// # Errors
    /// EINVAL for what is no name.
    pub(super) fn paths_of(&self, job: &Job<'_>, name: &[u8]) -> Result<(Bytes, Bytes), Errno> {
        let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
        if !is_name || job.wanted.source == job.target {
            return Err(Errno::EINVAL);
        }
        let path = |parent| {
            let path = self.path_below(parent, name);
            path.map_err(|error| error.errno(Operation::Stat))
        };
        Ok((path(job.wanted.source)?, path(job.target)?))
    }

    /// What a copy is given: its owner, if that is to be another than who logs in, and the rest.
    fn clothes(&self, wanted: &CopyEntries, source: &Attrs) -> (Option<Attrs>, Attrs) {
        let mode = source.permissions.unwrap_or(0o644);
        if !wanted.preserve {
            let permissions = Some(mode & 0o777 & !wanted.umask);
            return (
                None,
                Attrs {
                    permissions,
                    ..Attrs::default()
                },
            );
        }
        let owner = source
            .owner
            .filter(|owner| !self.translator.is_login(*owner));
        let owner = owner.map(|owner| Attrs {
            owner: Some(owner),
            ..Attrs::default()
        });
        let dress = Attrs {
            permissions: Some(mode & 0o7777),
            times: source.times,
            ..Attrs::default()
        };
        (owner, dress)
    }
}

/// How long a call begins to copy further files: as copy_file_range(2) here, so that Ctrl-C and
/// progress come in time.
const SLICE: Duration = Duration::from_millis(500);
/// Files copied at a time by all calls, with two handles each. OpenSSH, which tells its limits, has
/// some 1000 handles (its RLIMIT_NOFILE); what a server takes that tells nothing is a guess.
const FILES_MAX: u32 = 128;
const FILES_UNTOLD_MAX: u32 = 32;
/// Bytes being copied at a time: what a server does within a moment, as it answers in order.
const MEBIBYTES_MAX: u32 = 64;
/// A file that is copied here must not take long, as nothing can interrupt it.
const SIZE_MAX: u64 = 16 << 20;
/// Bits of a mode for one of owner, group and others.
pub(super) const READ: u16 = 0o4;
const WRITE: u16 = 0o2;
const SEARCH: u16 = 0o1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_budget_bounds_what_is_under_way() {
        let budget = CopyBudget::default();
        assert!(FILES_MAX.is_multiple_of(FILES_UNTOLD_MAX));
        assert_eq!(budget.files.available_permits(), FILES_MAX as usize);
        assert!(SIZE_MAX >> 20 < u64::from(MEBIBYTES_MAX));
    }
}
