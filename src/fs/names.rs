//! Names: lookup, and making, linking, renaming and removing what they lead to.

use bytes::Bytes;
use nix::errno::Errno;
use std::sync::Arc;

use super::attr::Change;
use super::config::Symlinks;
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

    /// What a symbolic link says, as the user wants to see it.
    pub(crate) async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let ask = |path| self.client.readlink(path);
        let (_, target) = self.at_path(|| self.path(ino), ask).await?;
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                return Err(self
                    .explain(Operation::Readlink, error, Refused::Other)
                    .await
                    .into());
            }
        };
        let tables = self.tables();
        let depth = tables.inodes.depth(ino).saturating_sub(1);
        let root = tables.inodes.root().clone();
        drop(tables);
        shown_target(self.config().symlinks, &root, depth, target)
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

/// A link's target under a policy; `depth` directories lie between the link's and the root.
///
/// # Errors
/// EPERM for a target outside, where that is not to be shown.
fn shown_target(policy: Symlinks, root: &[u8], depth: usize, target: Bytes) -> Result<Bytes> {
    match policy {
        Symlinks::Raw | Symlinks::Follow => Ok(target),
        Symlinks::Rebase => Ok(rebased(root, depth, &target).unwrap_or(target)),
        Symlinks::Contain => {
            let shown = rebased(root, depth, &target).unwrap_or(target);
            if shown.starts_with(b"/") || leaves(depth, &shown) {
                return Err(Errno::EPERM.into());
            }
            Ok(shown)
        }
    }
}

/// An absolute target below the root, relative to the link.
fn rebased(root: &[u8], depth: usize, target: &[u8]) -> Option<Bytes> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let below = target.strip_prefix(root)?;
    if !below.is_empty() && !below.starts_with(b"/") {
        return None;
    }
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let mut shown = b"../".repeat(depth);
    shown.extend_from_slice(below);
    if shown.is_empty() {
        shown.push(b'.');
    }
    Some(shown.into())
}

/// Whether a relative target may climb out of the root. Up is only known to be where the names say
/// before the first step down, which may be a link that leads anywhere.
fn leaves(depth: usize, target: &[u8]) -> bool {
    let parts = target.split(|byte| *byte == b'/');
    let mut steps = parts.filter(|part| !matches!(*part, b"" | b"."));
    let up = steps.by_ref().take_while(|part| *part == b"..").count();
    up > depth || steps.any(|part| part == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(policy: Symlinks, depth: usize, target: &'static str) -> Result<String> {
        let shown = shown_target(
            policy,
            b"/srv/data",
            depth,
            Bytes::from_static(target.as_bytes()),
        );
        shown.map(|shown| String::from_utf8(shown.to_vec()).unwrap())
    }

    #[test]
    fn a_raw_target_is_what_the_server_says() {
        assert_eq!(
            shown(Symlinks::Raw, 1, "/srv/data/x").as_deref(),
            Ok("/srv/data/x")
        );
    }

    #[test]
    fn an_absolute_target_below_the_root_is_made_relative() {
        assert_eq!(
            shown(Symlinks::Rebase, 0, "/srv/data/x").as_deref(),
            Ok("x")
        );
        assert_eq!(
            shown(Symlinks::Rebase, 2, "/srv/data/x/y").as_deref(),
            Ok("../../x/y")
        );
        assert_eq!(shown(Symlinks::Rebase, 0, "/srv/data").as_deref(), Ok("."));
        assert_eq!(
            shown(Symlinks::Rebase, 1, "/srv/database").as_deref(),
            Ok("/srv/database")
        );
    }

    #[test]
    fn a_contained_target_never_leads_out() {
        for out in ["/etc/passwd", "..", "a/../..", "/srv/data/../x", "a/../b"] {
            assert_eq!(
                shown(Symlinks::Contain, 0, out),
                Err(Errno::EPERM.into()),
                "{out}"
            );
        }
        assert_eq!(shown(Symlinks::Contain, 1, "../x").as_deref(), Ok("../x"));
        assert_eq!(shown(Symlinks::Contain, 0, "a/./b").as_deref(), Ok("a/./b"));
    }
}
