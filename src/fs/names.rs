//! Names: lookup, renaming and removing what they lead to, and taking in what was made.

use bytes::Bytes;
use nix::errno::Errno;
use std::sync::Arc;

use super::attr::Change;
use super::cow::Sharing;
use super::going::Going;
use super::second_question::Refused;
use super::{Asked, Caller, Entry, Filesystem, Ino};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind, StatusCode};

impl Filesystem {
    /// What a name leads to. Counts as told to the kernel.
    ///
    /// # Errors
    /// ENOENT if it leads nowhere.
    pub(crate) async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        let path = || self.path_below(parent, name);
        path()?;
        if let Some(entry) = self.known_entry(parent, name) {
            return Ok(entry);
        }
        if let Some(entry) = self.listed_entry(parent, name)? {
            return Ok(entry);
        }
        let look = async |path| {
            let asked = self.now();
            Ok((self.look_at_name(parent, name, &path).await?, asked))
        };
        let (_, found) = self.at_path(path, look).await?;
        match found {
            Ok((attrs, asked)) => self.enter(parent, name, &attrs, asked),
            Err(error) => Err(self.refused_lookup(parent, name, error).await),
        }
    }

    /// Attributes by name. Where we know two names of one file, made here by link(2), the other is
    /// looked at too, in the same round trip: somebody may have replaced one of them on the server,
    /// and then they are two files from now on.
    pub(super) async fn look_at_name(
        &self,
        parent: Ino,
        name: &[u8],
        path: &Bytes,
    ) -> Result<Attrs> {
        let (ino, other) = {
            let tables = self.tables();
            let ino = tables.inodes.find(parent, name);
            (ino, tables.inodes.other_path(parent, name))
        };
        let shared = ino.and_then(|ino| self.handles.shared(ino));
        let is_settled = shared.is_none_or(|shared| shared.is_written());
        let Some(other) = other.filter(|_| is_settled) else {
            return self.look(path.clone()).await;
        };
        let other = self.client.lstat(other);
        let (attrs, other) = tokio::join!(self.look(path.clone()), other);
        let attrs = attrs?;
        if other.is_ok_and(|other| !may_be_one_file(&attrs, &other)) {
            let mut tables = self.tables();
            tables.gone(parent, name);
            // It is another file that is there; a listing goes on telling of the name.
            let kind = attrs.kind().unwrap_or(FileKind::Regular);
            tables.dirs.made(parent, name, kind);
        }
        Ok(attrs)
    }

    async fn refused_lookup(&self, parent: Ino, name: &[u8], error: Error) -> Error {
        if error.is_refused_with(StatusCode::NO_SUCH_FILE) {
            let ino = self.tables().gone(parent, name);
            if let Ok(path) = self.path_below(parent, name) {
                self.lost(ino, &path);
            }
        }
        self.explain(Operation::Stat, error, Refused::Other)
            .await
            .into()
    }

    /// What memory knows about a name, if it is believed.
    fn known_entry(&self, parent: Ino, name: &[u8]) -> Option<Entry> {
        let (ino, ttl) = {
            let mut tables = self.tables();
            let ino = tables.inodes.find(parent, name)?;
            let ttl = tables.attrs.named(ino, clock::now())?;
            let ttl = ttl.min(self.config.entry_timeout);
            // Counted at once: meanwhile the kernel may forget what it was told before.
            tables.inodes.looked_up(ino);
            (ino, ttl)
        };
        let known = match self.handles.shared(ino) {
            Some(shared) if !shared.is_written() => self.unsettled(ino),
            _ => self.known(ino),
        };
        let Some(known) = known else {
            self.forget(ino, 1);
            return None;
        };
        Some(Entry { ino, known, ttl })
    }

    /// Takes in that a name leads to a file with these attributes. Counts as told to the kernel.
    pub(super) fn enter(
        &self,
        parent: Ino,
        name: &[u8],
        attrs: &Attrs,
        asked: Asked,
    ) -> Result<Entry> {
        let kind = attrs.kind().unwrap_or(FileKind::Regular);
        let ino = {
            let mut tables = self.tables();
            let ino = tables.inodes.enter(parent, name, kind);
            tables.inodes.looked_up(ino);
            ino
        };
        self.entered(ino, attrs, asked)
    }

    fn entered(&self, ino: Ino, attrs: &Attrs, asked: Asked) -> Result<Entry> {
        let known = match self.learn(ino, attrs, asked) {
            Ok(known) => known,
            Err(error) => {
                // It is not told after all.
                self.forget(ino, 1);
                return Err(error);
            }
        };
        let (trust, ttl) = (self.config.entry_trust(), self.config.entry_timeout);
        let mut tables = self.tables();
        let until = clock::now() + ttl;
        let until = tables
            .attrs
            .until(ino, trust)
            .map_or(until, |it| it.max(until));
        tables.attrs.set_named(ino, Some(until));
        Ok(Entry { ino, known, ttl })
    }

    /// Takes in what we just made, and makes it what its maker asked for.
    pub(super) async fn enter_new(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        attrs: Attrs,
        mode: Option<u32>,
        caller: Caller,
    ) -> Result<Entry> {
        let entry = self.enter_made(parent, name, &attrs)?;
        let change = self.correction(parent, &attrs, mode, caller);
        Ok(self.correct(entry, change).await)
    }

    /// Takes in what we just made. A number that an earlier file of that name had is not told
    /// that file's story.
    pub(super) fn enter_made(&self, parent: Ino, name: &[u8], attrs: &Attrs) -> Result<Entry> {
        if let Ok(path) = self.path_below(parent, name) {
            self.sharing_changed(&Sharing::Removed(path));
        }
        let (ino, stamp) = {
            let mut tables = self.tables();
            tables.gone(parent, name);
            let kind = attrs.kind().unwrap_or(FileKind::Regular);
            let ino = tables.inodes.enter(parent, name, kind);
            // Nobody need list the directory for it.
            tables.inodes.listed(ino, 1);
            tables.inodes.looked_up(ino);
            tables.attrs.forget(ino);
            tables.made(parent, name, kind);
            (ino, tables.attrs.stamp())
        };
        self.copies.forget(ino);
        let asked = Asked {
            stamp,
            at: clock::now(),
        };
        self.entered(ino, attrs, asked)
    }

    /// Gives what we just made its owner and mode.
    pub(super) async fn correct(self: &Arc<Self>, entry: Entry, change: Change) -> Entry {
        if change.is_empty() {
            return entry;
        }
        let sure = self.sure_change(entry.ino, &change);
        if let Some(known) = sure.and_then(|sure| self.change_ahead(&sure, false)) {
            return Entry { known, ..entry };
        }
        match self.setattr(entry.ino, change, None).await {
            Ok(known) => Entry { known, ..entry },
            Err(error) => {
                log::warn!("cannot give a new file its owner or mode: {error}");
                entry
            }
        }
    }

    pub(crate) async fn unlink(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Result<()> {
        let (path, removed) = self.remove_held(parent, name).await?;
        let _held = match removed {
            Ok(held) => held,
            Err(error) => {
                let refused = Refused::Unlink(path);
                return Err(self.explain(Operation::Unlink, error, refused).await.into());
            }
        };
        self.sharing_changed(&Sharing::Removed(path));
        self.removed(parent, name);
        Ok(())
    }

    pub(crate) async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let (path, removed) = self.remove_directory(parent, name).await?;
        if let Err(error) = removed {
            return Err(self
                .explain(Operation::Rmdir, error, Refused::Rmdir(path))
                .await
                .into());
        }
        self.removed(parent, name);
        Ok(())
    }

    /// rename(2); with `keep` (RENAME_NOREPLACE) nothing is replaced.
    pub(crate) async fn rename(
        self: &Arc<Self>,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        keep: bool,
    ) -> Result<()> {
        let paths = || {
            let to = self.path_below(new_parent, new_name)?;
            Ok((self.path_below(parent, name)?, to))
        };
        let (moved, replaced) = {
            let tables = self.tables();
            let moved = tables.inodes.find(parent, name);
            (moved, tables.inodes.find(new_parent, new_name))
        };
        let is_one_file = moved.is_some() && moved == replaced;
        let replaced = replaced.filter(|_| !is_one_file);
        let (_held, moving) = self.hold_for_loss(replaced, moved).await?;
        let mut going = self.going(paths()?).await?;
        let (moving, renamed) = if keep {
            let rename = |(from, to)| self.rename_unless_there(parent, name, from, to);
            (moving, self.at_paths(&mut going, paths, rename).await)
        } else {
            self.rename_held(moving, replaced, &mut going, paths).await
        };
        let Going {
            from,
            to,
            shares,
            announced,
        } = going;
        let renamed = match renamed {
            Ok(()) if shares && !is_one_file => self.renamed_one_inode(parent, name, &to).await,
            Ok(()) => Ok(()),
            refused => refused,
        };
        if let Err(error) = renamed {
            self.withdraw(announced, &error);
            let refused = Refused::Rename { from, to };
            return Err(self.explain(Operation::Rename, error, refused).await.into());
        }
        let replaced = {
            let mut tables = self.tables();
            let moved = tables.inodes.find(parent, name);
            let replaced = tables.renamed((parent, name), (new_parent, new_name));
            let now = clock::now() + self.config.entry_timeout;
            moved
                .into_iter()
                .for_each(|ino| tables.attrs.set_named(ino, Some(now)));
            [moved, replaced]
        };
        drop(moving);
        // After the numbers have their new paths, under which they are known to share already.
        self.renamed(from, to, announced);
        replaced
            .into_iter()
            .flatten()
            .for_each(|ino| self.touch(ino));
        Ok(())
    }

    /// rename(2) does nothing where both names are of one inode, which two copies that share their
    /// storage are on the server, but not here: the old name goes.
    async fn renamed_one_inode(&self, parent: Ino, name: &[u8], to: &Bytes) -> Result<()> {
        let from = || self.path_below(parent, name);
        match self.at_path(from, |from| self.client.remove(from)).await?.1 {
            Ok(()) => {}
            // They were two files there too.
            Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => {}
            Err(error) => return Err(error),
        }
        self.sharing_changed(&Sharing::Removed(to.clone()));
        Ok(())
    }

    /// Plain RENAME never replaces a regular file on OpenSSH; but it may replace other things
    /// there, and anything elsewhere, so that a look comes first.
    async fn rename_unless_there(
        &self,
        parent: Ino,
        name: &[u8],
        from: Bytes,
        to: Bytes,
    ) -> Result<()> {
        let is_regular = {
            let tables = self.tables();
            let ino = tables.inodes.find(parent, name);
            ino.and_then(|ino| tables.inodes.kind(ino)) == Some(FileKind::Regular)
        };
        // limits@openssh.com: OpenSSH and AsyncSSH, which both refuse.
        let refuses = is_regular && self.client.features().extensions.limits;
        if !refuses && self.client.lstat(to.clone()).await.is_ok() {
            return Err(Errno::EEXIST.into());
        }
        match self.client.rename_plain(from, to.clone()).await {
            Err(error @ Error::Refused { .. }) => {
                let is_there = self.client.lstat(to).await.is_ok();
                Err(if is_there {
                    Errno::EEXIST.into()
                } else {
                    error
                })
            }
            other => other,
        }
    }

    /// Takes in that a name is no more.
    fn removed(&self, parent: Ino, name: &[u8]) {
        let mut tables = self.tables();
        let ino = tables.gone(parent, name);
        tables.changed(parent);
        drop(tables);
        ino.into_iter().for_each(|ino| self.touch(ino));
    }

    /// The inode was changed by us: its ctime is now.
    pub(super) fn touch(&self, ino: Ino) {
        self.tables().attrs.touch(ino, clock::wall());
    }
}

/// Whether two names may lead to one file: all that SFTP tells of it is the same, but for the time
/// of the last access, which a reader may change between two looks.
pub(super) fn may_be_one_file(one: &Attrs, other: &Attrs) -> bool {
    let mtime = |attrs: &Attrs| attrs.times.map(|(_, mtime)| mtime);
    (one.size, one.owner, one.permissions, mtime(one))
        == (other.size, other.owner, other.permissions, mtime(other))
}
