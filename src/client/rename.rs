//! rename(2) that replaces, also where the server has no such request.

use std::future::Future;

use bytes::Bytes;
use nix::errno::Errno;

use super::calls::{Again, Tried};
use super::{Client, done};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, FileKind, Request, StatusCode};

impl Client {
    /// rename(2), replacing what is at `to`: posix-rename@openssh.com (OpenSSH 4.9). Without it,
    /// RENAME, which most servers refuse if `to` exists: then what is there is moved aside first
    /// and brought back if the second step fails. Only an empty directory is replaced by another.
    ///
    /// # Errors
    /// Also EISDIR and ENOTDIR, and what rmdir says of a directory that is not empty.
    pub(crate) async fn rename(&self, from: Bytes, to: Bytes) -> Result<()> {
        if self.features.extensions.posix_rename {
            let (from, to) = (from.clone(), to.clone());
            match done(self.call(Request::PosixRename { from, to })).await {
                // Some announce what they have not.
                Err(error) if error.is_refused_with(StatusCode::OP_UNSUPPORTED) => {}
                other => return other,
            }
        }
        let refused = match self.rename_plain(from.clone(), to.clone()).await {
            Err(error @ Error::Refused { .. }) => error,
            other => return other,
        };
        let (old, new) = (self.lstat(to.clone()), self.lstat(from.clone()));
        let (Ok(old), Ok(new)) = (old.await, new.await) else {
            return Err(refused);
        };
        match (new.kind(), old.kind()) {
            (Some(FileKind::Directory), Some(FileKind::Directory)) => {
                self.rename_over_directory(from, to, old).await
            }
            (_, Some(FileKind::Directory)) => Err(Errno::EISDIR.into()),
            (Some(FileKind::Directory), _) => Err(Errno::ENOTDIR.into()),
            _ => self.rename_over_file(from, to).await,
        }
    }

    /// As `rename`; `tried` goes with each try of the same renaming.
    ///
    /// # Errors
    /// Also those of a connection that was lost: it was not done. Without posix-rename it is settled
    /// here, as [`Self::rename`] is.
    pub(crate) async fn try_rename(&self, from: &Bytes, to: &Bytes, tried: &Tried) -> Result<()> {
        if self.features.extensions.posix_rename {
            let (from, to) = (from.clone(), to.clone());
            let again = Again::ByCaller(tried.clone());
            let answer = self.lanes.call(Request::PosixRename { from, to }, again);
            match done(async move { Ok(answer.await?.1) }).await {
                Err(error) if error.is_refused_with(StatusCode::OP_UNSUPPORTED) => {}
                other => return other,
            }
        }
        self.rename(from.clone(), to.clone()).await
    }

    /// rename(2), replacing what is at `to` in one step: posix-rename@openssh.com and nothing else.
    ///
    /// # Errors
    /// EOPNOTSUPP where the server has no such request.
    pub(crate) fn rename_over(
        &self,
        from: Bytes,
        to: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let has = self.features.extensions.posix_rename;
        let ticket = has.then(|| self.call(Request::PosixRename { from, to }));
        async move {
            match ticket {
                Some(ticket) => done(ticket).await,
                None => Err(Errno::EOPNOTSUPP.into()),
            }
        }
    }

    /// What is at `to` is moved aside, brought back if the second step fails, and removed if it
    /// does not.
    async fn rename_over_file(&self, from: Bytes, to: Bytes) -> Result<()> {
        let aside = aside_name(&to);
        self.rename_plain(to.clone(), aside.clone()).await?;
        let renamed = self.rename_plain(from, to.clone()).await;
        let tidied = match renamed {
            Ok(()) => self.remove(aside.clone()).await,
            Err(_) => self.rename_plain(aside.clone(), to).await,
        };
        if let Err(error) = tidied {
            let aside = aside.escape_ascii();
            log::error!("the file that was to be replaced is left as \"{aside}\": {error}");
        }
        renamed
    }

    /// What was at `to` is made anew if the second step fails: it was empty.
    async fn rename_over_directory(&self, from: Bytes, to: Bytes, old: Attrs) -> Result<()> {
        if to
            .strip_prefix(&from[..])
            .is_some_and(|below| below.starts_with(b"/"))
        {
            // rename(2): a directory cannot be moved into itself.
            return Err(Errno::EINVAL.into());
        }
        self.rmdir(to.clone()).await?;
        let renamed = self.rename_plain(from, to.clone()).await;
        if renamed.is_err() {
            let attrs = Attrs {
                permissions: old.permissions.map(|mode| mode & 0o7777),
                owner: old.owner,
                ..Attrs::default()
            };
            let made = self.mkdir(to.clone(), Attrs::default());
            let changed = self.setstat(to, attrs);
            made.await?;
            changed.await?;
        }
        renamed
    }
}

/// A name beside `path` that nobody else has.
fn aside_name(path: &Bytes) -> Bytes {
    let mut aside = path.to_vec();
    aside.extend_from_slice(format!(".sftpfs-{:x}", std::process::id()).as_bytes());
    aside.into()
}
