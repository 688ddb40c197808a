//! What a server means by FAILURE: OpenSSH says it for EEXIST, ENOTEMPTY, ENOSPC, EXDEV, EISDIR,
//! EROFS and all the rest. A second question tells them apart, and is asked only then.

use bytes::Bytes;
use nix::errno::Errno;

use super::Filesystem;
use crate::client::Losses;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind, StatusCode, Statvfs};

/// What was refused.
#[derive(Debug, Clone)]
pub(super) enum Refused {
    /// Making something at a path: mkdir, exclusive create, symlink.
    New(Bytes),
    /// A hard link.
    Link {
        from: Bytes,
        to: Bytes,
    },
    Rmdir(Bytes),
    Unlink(Bytes),
    Rename {
        from: Bytes,
        to: Bytes,
    },
    /// Opening for writing or reading.
    Open {
        path: Bytes,
        write: bool,
    },
    /// Writing this many bytes to a file.
    Write {
        path: Bytes,
        len: u64,
    },
    /// Giving a file another size.
    Resize {
        path: Bytes,
        grows: bool,
    },
    /// Changing mode, owner or times.
    Attributes(Bytes),
    /// Nothing that a question could tell.
    Other,
}

impl Filesystem {
    /// The error number for `error`, after a second question where that helps.
    pub(super) async fn explain(&self, operation: Operation, error: Error, what: Refused) -> Errno {
        let said = error.errno(operation);
        let is_vague = error.is_refused_with(StatusCode::FAILURE) && said == Errno::EIO;
        let errno = if is_vague {
            self.ask_again(what).await.unwrap_or(said)
        } else {
            said
        };
        log::debug!("{operation:?}: {error}: {errno}");
        errno
    }

    /// `None` if the second question tells nothing either.
    async fn ask_again(&self, what: Refused) -> Option<Errno> {
        match what {
            Refused::New(path) => {
                if self.client.lstat(path.clone()).await.is_ok() {
                    return Some(Errno::EEXIST);
                }
                self.space(parent(&path), 1).await
            }
            Refused::Link { from, to } => {
                if self.client.lstat(to.clone()).await.is_ok() {
                    return Some(Errno::EEXIST);
                }
                if self.are_apart(from, parent(&to)).await {
                    return Some(Errno::EXDEV);
                }
                self.space(parent(&to), 1).await.or(Some(Errno::EMLINK))
            }
            Refused::Rmdir(path) => match self.kind_at(path.clone()).await? {
                FileKind::Directory if self.has_entries(path.clone()).await => {
                    Some(Errno::ENOTEMPTY)
                }
                FileKind::Directory => self.space(path, 0).await.or(Some(Errno::EBUSY)),
                _ => Some(Errno::ENOTDIR),
            },
            Refused::Unlink(path) => match self.kind_at(path.clone()).await? {
                FileKind::Directory => Some(Errno::EISDIR),
                _ => self.space(parent(&path), 0).await,
            },
            Refused::Rename { from, to } => self.ask_rename(from, to).await,
            Refused::Open { path, write } => match self.kind_at(path.clone()).await {
                Some(FileKind::Directory) => Some(Errno::EISDIR),
                Some(FileKind::Socket) => Some(Errno::ENXIO),
                Some(_) if write => self.space(path, 0).await.or(Some(Errno::ETXTBSY)),
                Some(_) => None,
                None => self.space(parent(&path), 1).await,
            },
            Refused::Write { path, len } => self.space(path, len).await,
            Refused::Resize { path, grows } => {
                let space = self.space(path, 0).await;
                space.or_else(|| grows.then_some(Errno::EFBIG))
            }
            Refused::Attributes(path) => self.space(path, 0).await,
            Refused::Other => None,
        }
    }

    async fn ask_rename(&self, from: Bytes, to: Bytes) -> Option<Errno> {
        let source = self.kind_at(from.clone()).await?;
        let target = self.kind_at(to.clone()).await;
        match (source, target) {
            (FileKind::Directory, Some(FileKind::Directory))
                if self.has_entries(to.clone()).await =>
            {
                Some(Errno::ENOTEMPTY)
            }
            (FileKind::Directory, Some(FileKind::Directory)) | (_, None) => {
                if self.are_apart(parent(&from), parent(&to)).await {
                    return Some(Errno::EXDEV);
                }
                self.space(parent(&to), 1).await.or(Some(Errno::EBUSY))
            }
            (FileKind::Directory, Some(_)) => Some(Errno::ENOTDIR),
            (_, Some(FileKind::Directory)) => Some(Errno::EISDIR),
            (_, Some(_)) if self.are_apart(from, parent(&to)).await => Some(Errno::EXDEV),
            (_, Some(_)) => self.space(parent(&to), 1).await,
        }
    }

    async fn kind_at(&self, path: Bytes) -> Option<FileKind> {
        self.client
            .lstat(path)
            .await
            .as_ref()
            .ok()
            .and_then(Attrs::kind)
    }

    async fn has_entries(&self, path: Bytes) -> bool {
        let mut losses = Losses::default();
        loop {
            match self.first_entry(path.clone()).await {
                Err(error) if error.is_of_connection() && losses.count(&error).is_ok() => {}
                found => return found.unwrap_or(false),
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    async fn first_entry(&self, path: Bytes) -> Result<bool> {
        let handle = self.client.opendir(path).await?;
        // Both dots come in the first page or two; a server could send them for ever.
        for _ in 0..PAGES_MAX {
            let Some(page) = self.client.readdir(&handle).await? else {
                return Ok(false);
            };
            let is_dot = |name: &[u8]| matches!(name, b"." | b"..");
            if page.iter().any(|entry| !is_dot(&entry.name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether two paths are on different file systems, as far as the server tells.
    async fn are_apart(&self, one: Bytes, other: Bytes) -> bool {
        let fsid = async |path| {
            self.client
                .statvfs(path)
                .await
                .ok()
                .flatten()
                .map(|s| s.fsid)
        };
        let (one, other) = (fsid(one).await, fsid(other).await);
        one.is_some() && other.is_some() && one != other
    }

    /// EROFS or ENOSPC if the file system at `path` is read-only, or has no room for `len` bytes
    /// or for another inode.
    async fn space(&self, path: Bytes, len: u64) -> Option<Errno> {
        let space = self.client.statvfs(path).await.ok().flatten()?;
        if space.flag & Statvfs::FLAG_RDONLY != 0 {
            return Some(Errno::EROFS);
        }
        let is_full = space.bavail.saturating_mul(space.frsize) < len.max(space.frsize);
        let no_inodes = space.files > 0 && space.favail == 0;
        (len > 0 && (is_full || no_inodes)).then_some(Errno::ENOSPC)
    }
}

/// The directory that a path is in.
pub(super) fn parent(path: &Bytes) -> Bytes {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => path.slice(0..1),
        Some(at) => path.slice(0..at),
        None => Bytes::from_static(b"."),
    }
}

/// Pages of a listing that are looked through for an entry.
const PAGES_MAX: usize = 4;
