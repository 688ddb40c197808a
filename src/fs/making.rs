//! New names: directories, symbolic links and hard links. Files are made when they are opened
//! ([`files`](super::files)).

use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::cow::Sharing;
use super::going::Going;
use super::second_question::Refused;
use super::{Caller, Entry, Filesystem, Ino};
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind};

impl Filesystem {
    pub(crate) async fn mkdir(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let permissions = Attrs {
            permissions: Some(mode & 0o7777),
            ..Attrs::default()
        };
        let before = self.now();
        let make = |path: Bytes| {
            let made = self.client.mkdir(path.clone(), permissions.clone());
            let seen = self.client.lstat(path);
            async move { made.await.map(|()| seen) }
        };
        let (path, made) = self.at_path(|| self.path_below(parent, name), make).await?;
        let seen = match made {
            Ok(seen) => self.seen_below(parent, name, seen.await).await?.0,
            Err(error) => {
                let refused = Refused::New(path);
                return Err(self.explain(Operation::Mkdir, error, refused).await.into());
            }
        };
        let entry = self
            .enter_new(parent, name, seen, Some(mode), caller)
            .await?;
        let (stamp, at) = (before.stamp, before.at);
        self.tables().dirs.made_empty(entry.ino, (stamp, at));
        Ok(entry)
    }

    /// Makes a symbolic link that says `target`.
    pub(crate) async fn symlink(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        let make = |path| self.client.symlink(Bytes::copy_from_slice(target), path);
        let (path, made) = self.at_path(|| self.path_below(parent, name), make).await?;
        match made {
            Ok(seen) => {
                let (attrs, _) = self.seen_below(parent, name, seen).await?;
                self.enter_new(parent, name, attrs, None, caller).await
            }
            Err(error) => Err(self
                .explain(Operation::Symlink, error, Refused::New(path))
                .await
                .into()),
        }
    }

    /// What was seen of what we have just made below a directory, which may have been renamed since: then
    /// with its new path.
    async fn seen_below(
        &self,
        parent: Ino,
        name: &[u8],
        seen: Result<Attrs>,
    ) -> Result<(Attrs, Option<Bytes>)> {
        match seen {
            Ok(seen) => Ok((seen, None)),
            Err(error @ Error::Refused { .. }) => {
                let path = || self.path_below(parent, name);
                let look = |path| self.client.lstat(path);
                let (path, seen) = self.at_path(path, look).await?;
                // What was refused first says more.
                Ok((seen.map_err(|_| error)?, Some(path)))
            }
            Err(error) => Err(error),
        }
    }

    /// link(2): one more name for a file.
    pub(crate) async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry> {
        let paths = || Ok((self.path(ino)?, self.path_below(parent, name)?));
        paths()?;
        if self.config().disable_hardlink {
            return Err(Errno::EPERM.into());
        }
        let _passes = self.pass(&[ino]).await;
        let mut going = self.going(paths()?).await?;
        let link = |(from, to)| self.client.hardlink(from, to);
        let linked = self.at_paths(&mut going, paths, link).await;
        let Going {
            from,
            to,
            announced,
            ..
        } = going;
        if let Err(error) = linked {
            self.withdraw(announced, &error);
            if error == Error::Errno(Errno::EPERM) {
                log::warn!("the server has no hardlink@openssh.com: hard links are refused");
            }
            let refused = Refused::Link { from, to };
            return Err(self.explain(Operation::Link, error, refused).await.into());
        }
        let asked = self.now();
        let seen = self.client.lstat(to.clone()).await;
        // Some servers answer OK and make nothing: what is there counts.
        let (attrs, to) = match self.seen_below(parent, name, seen).await {
            Ok((attrs, elsewhere)) => (attrs, elsewhere.unwrap_or(to)),
            Err(error) if error.tells_nothing() => return Err(error),
            Err(_) => {
                log::warn!("the server said that it made a hard link, and did not");
                let error = Errno::EPERM.into();
                self.withdraw(announced, &error);
                return Err(error);
            }
        };
        {
            let mut tables = self.tables();
            tables.inodes.link(ino, parent, name);
            tables.inodes.looked_up(ino);
            let kind = tables.inodes.kind(ino).unwrap_or(FileKind::Regular);
            tables.made(parent, name, kind);
            tables.relinked();
        }
        self.sharing_changed(&Sharing::Linked {
            existing: from,
            new: to,
        });
        self.learn(ino, &attrs, asked)?;
        self.touch(ino);
        let known = self.getattr(ino).await?;
        Ok(Entry {
            ino,
            known,
            ttl: self.config().entry_timeout,
        })
    }
}
