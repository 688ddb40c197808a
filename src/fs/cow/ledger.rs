//! What is known of files that share storage, taken in and written down in one step: the table
//! ([`Groups`](super::Groups), under the lock of the tables) and the journal never differ but for
//! what other mounts of the same server have just written.

use bytes::Bytes;

use super::groups::carried;
use super::journal::Journal;
use super::{Filesystem, Ino, Sharing};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::fs::Tables;
use crate::sftp::StatusCode;

/// Old and new names that are known to share storage before the server has made the new ones.
#[derive(Debug, Default)]
#[must_use]
pub(in crate::fs) struct Announced(Vec<(Bytes, Bytes)>);

impl Announced {
    /// The names of a rename went elsewhere, with directories above them.
    pub(in crate::fs) fn follow(&mut self, before: (&Bytes, &Bytes), now: (&Bytes, &Bytes)) {
        for (old, new) in &mut self.0 {
            *old = carried(old, before.0, now.0);
            *new = carried(new, before.1, now.1);
        }
    }
}

/// A file that is about to become a copy that shares its source's storage.
pub(in crate::fs) struct Joining {
    /// Those of the two that are known here.
    pub(in crate::fs) files: Vec<Ino>,
    pub(in crate::fs) source: Bytes,
    pub(in crate::fs) copy: Bytes,
}

impl Filesystem {
    /// Whether a file has its storage for itself, so that writing to it changes no other.
    pub(in crate::fs) fn is_own(&self, ino: Ino) -> bool {
        let mut tables = self.tables();
        if self.cow.is_active {
            self.take_news(&mut tables, &[]);
            if tables.shares(ino) {
                return false;
            }
        }
        // Under the lock of the tables, where a copy would join.
        if let Some(shared) = self.handles.shared(ino) {
            shared.set_own(true);
        }
        true
    }

    /// Whether a file is known to share its storage.
    pub(in crate::fs) fn shares(&self, ino: Ino) -> bool {
        self.cow.is_active && self.tables().shares(ino)
    }

    /// Takes in what other mounts of the same server have done. One fstat(2) if that is nothing.
    pub(in crate::fs) fn hear(&self) {
        if self
            .cow
            .journal
            .as_ref()
            .is_some_and(|journal| journal.has_news())
        {
            self.take_news(&mut self.tables(), &[]);
        }
    }

    /// Takes in what the journal has new, of others and of ourselves. A file that another mount
    /// has given storage of its own is opened anew when it is next used; `ours` are names whose
    /// files we have seen to ourselves.
    fn take_news(&self, tables: &mut Tables, ours: &[Bytes]) {
        let Some(journal) = self
            .cow
            .journal
            .as_ref()
            .filter(|journal| journal.has_news())
        else {
            return;
        };
        journal.catch_up(&mut tables.groups);
        for shared in self.handles.all_shared() {
            shared.set_own(false);
        }
        for name in tables.groups.take_moved() {
            if !ours.contains(&name)
                && let Some(ino) = tables.inodes.at_path(&name)
            {
                self.lose(ino);
            }
        }
    }

    /// The server files that all opens of a file have are not to be used any more.
    pub(in crate::fs) fn lose(&self, ino: Ino) {
        for file in self.handles.files(ino) {
            file.lose();
            file.shared.is_another();
            file.shared.content_changed();
        }
    }

    /// A name leads to another server file, or to none, by somebody else's doing. What is open by
    /// it must not write to the storage that the others still share.
    pub(in crate::fs) fn lost(&self, ino: Option<Ino>, path: &Bytes) {
        if !self.cow.is_active || !self.tables().groups.shares(path) {
            return;
        }
        if let Some(ino) = ino {
            self.lose(ino);
        }
        self.sharing_changed(&Sharing::Removed(path.clone()));
    }

    /// Takes in a change of what shares storage with what, here and in the journal.
    pub(in crate::fs) fn sharing_changed(&self, change: &Sharing) {
        let mut tables = self.tables();
        if !self.cow.is_active {
            return;
        }
        self.take_news(&mut tables, &[]);
        if !tables.groups.concerns(change) {
            return;
        }
        // Under the lock, so that nobody finds the table without what has happened.
        match &self.cow.journal {
            Some(journal) if write_down(journal, change) => {
                let ours = tables.names_with(change);
                self.take_news(&mut tables, &ours);
            }
            _ => {
                tables.groups.apply(change);
                drop(tables.groups.take_moved());
            }
        }
    }

    /// A file that shares its storage is about to get another or a further name, which must be
    /// known to share before it does, whatever ends this process. Durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(in crate::fs) async fn announce(&self, from: &Bytes, to: &Bytes) -> Result<Announced> {
        let names = self.names_to_announce(from, to);
        if names.is_empty() {
            return Ok(Announced::default());
        }
        let change = |(existing, new): &(Bytes, Bytes)| Sharing::Linked {
            existing: existing.clone(),
            new: new.clone(),
        };
        let changes: Vec<Sharing> = names.iter().map(change).collect();
        self.write_first(&changes).await?;
        self.take_written(&mut self.tables(), &changes);
        Ok(Announced(names))
    }

    /// Writes down what the server is about to be asked for, so that no file shares its storage on
    /// the server and not in the journal. On the disk when this returns, if there is a journal.
    ///
    /// # Errors
    /// When it cannot be written down.
    async fn write_first(&self, changes: &[Sharing]) -> Result<()> {
        let Some(journal) = self.cow.journal.clone() else {
            return Ok(());
        };
        let changes = changes.to_vec();
        // What was recorded before is on the disk with the last one.
        let record = move || {
            let last = changes.len().saturating_sub(1);
            let mut each = changes.iter().enumerate();
            each.try_for_each(|(at, change)| journal.record(change, at == last))
        };
        match tokio::task::spawn_blocking(record).await {
            Ok(written) => written.map_err(|error| {
                Error::setup(format!(
                    "which files share storage cannot be written down: {error}"
                ))
            }),
            // Only a panic in there.
            Err(_) => Err(Error::setup(
                "which files share storage was not written down",
            )),
        }
    }

    /// Takes in what [`Self::write_first`] has written: by way of the journal, in its order.
    fn take_written(&self, tables: &mut Tables, changes: &[Sharing]) {
        match &self.cow.journal {
            Some(_) => self.take_news(tables, &[]),
            None => changes
                .iter()
                .for_each(|change| tables.groups.apply(change)),
        }
    }

    fn names_to_announce(&self, from: &Bytes, to: &Bytes) -> Vec<(Bytes, Bytes)> {
        let groups = &self.tables().groups;
        let names = groups.names_at_and_below(from).into_iter();
        let names = names.map(|existing| {
            let new = carried(&existing, from, to);
            (existing, new)
        });
        // A name that leads to another such file still does if nothing comes of it.
        names.filter(|(_, new)| !groups.shares(new)).collect()
    }

    /// Nothing came of what was announced, unless it cannot be known.
    pub(in crate::fs) fn withdraw(&self, announced: Announced, error: &Error) {
        if !error.may_be_done() {
            for (_, new) in announced.0 {
                self.sharing_changed(&Sharing::Removed(new));
            }
        }
    }

    /// A name became another, as announced.
    pub(in crate::fs) fn renamed(&self, from: Bytes, to: Bytes, announced: Announced) {
        // Those that were announced have their new names, and keep them, whatever became of the old
        // ones meanwhile.
        for change in self.changes_of_rename(&from, &to, &announced) {
            self.sharing_changed(&change);
        }
        for (old, _) in announced.0 {
            self.sharing_changed(&Sharing::Removed(old));
        }
        if self.cow.is_active {
            // What was found out of a file meanwhile was of the wrong name.
            let open = self.handles.all_shared();
            open.iter().for_each(|shared| shared.set_own(false));
        }
    }

    /// For the names that were not announced, one by one: at no moment a new name must seem to
    /// share nothing.
    fn changes_of_rename(&self, from: &Bytes, to: &Bytes, announced: &Announced) -> Vec<Sharing> {
        let groups = &self.tables().groups;
        let is_old = |name: &Bytes| announced.0.iter().any(|(old, _)| old == name);
        let is_new = |name: &Bytes| announced.0.iter().any(|(_, new)| new == name);
        let moved = groups.names_at_and_below(from).into_iter();
        let moves = moved.filter(|name| !is_old(name)).map(|old| {
            let new = carried(&old, from, to);
            (old, new)
        });
        let moves: Vec<(Bytes, Bytes)> = moves.collect();
        let is_taken = |name: &Bytes| is_new(name) || moves.iter().any(|(_, new)| new == name);
        let stale = groups.names_at_and_below(to).into_iter();
        let gone = stale.filter(|name| !is_taken(name)).map(Sharing::Removed);
        let mut changes: Vec<Sharing> = gone.collect();
        let renamed = moves.into_iter();
        changes.extend(renamed.map(|(from, to)| Sharing::Renamed { from, to }));
        changes
    }

    /// A temporary name is about to be made on the server, or is gone.
    pub(super) fn temporary(&self, path: &Bytes, is_gone: bool) {
        let path = path.clone();
        let change = match is_gone {
            true => Sharing::TemporaryGone(path),
            false => Sharing::Temporary(path),
        };
        if let Some(journal) = &self.cow.journal {
            write_down(journal, &change);
        }
    }

    /// A file is about to become a copy that shares its source's storage. Durable when this
    /// returns: whoever writes to either from now on has to part them first.
    ///
    /// # Errors
    /// When it cannot be written down, or no more can be remembered.
    pub(in crate::fs) async fn join(
        &self,
        source: (Ino, &Bytes),
        copy: (Ino, &Bytes),
    ) -> Result<()> {
        let joining = Joining {
            files: vec![source.0, copy.0],
            source: source.1.clone(),
            copy: copy.1.clone(),
        };
        match self.join_all(&[joining]).await?.as_slice() {
            [true] => Ok(()),
            _ => Err(Error::setup("another mount was at work on the same files")),
        }
    }

    /// As [`Self::join`], for many that are on the disk together. Whether each of them may be
    /// linked now; one that may not is as it was.
    ///
    /// # Errors
    /// As [`Self::join`]; none of them is to be linked then.
    pub(in crate::fs) async fn join_all(&self, joining: &[Joining]) -> Result<Vec<bool>> {
        let changes = joining.iter().map(|joining| Sharing::Joined {
            source: joining.source.clone(),
            copy: joining.copy.clone(),
        });
        let changes: Vec<_> = changes.collect();
        if self.tables().groups.is_full() {
            return Err(Error::setup("too many files share storage already"));
        }
        self.write_first(&changes).await?;
        let mut tables = self.tables();
        self.take_written(&mut tables, &changes);
        let share = |joining: &Joining| {
            let files = joining
                .files
                .iter()
                .filter_map(|ino| self.handles.shared(*ino));
            files.for_each(|shared| shared.set_own(false));
            tables.groups.share_storage(&joining.source, &joining.copy)
        };
        Ok(joining.iter().map(share).collect())
    }

    /// What one name of a file shares, the others that are known of it share, too.
    pub(in crate::fs) fn other_names_share(&self, ino: Ino, name: &Bytes) {
        let names = self.tables().inodes.paths(ino);
        for new in names.into_iter().filter(|other| other != name) {
            let existing = name.clone();
            self.sharing_changed(&Sharing::Linked { existing, new });
        }
    }
}

impl Tables {
    /// Whether any name of a file shares its storage.
    fn shares(&self, ino: Ino) -> bool {
        if self.groups.is_empty() {
            return false;
        }
        let mut paths = self.inodes.paths(ino).into_iter();
        paths.any(|path| self.groups.shares(&path))
    }

    /// All names of the groups that a change is about.
    fn names_with(&self, change: &Sharing) -> Vec<Bytes> {
        let about = match change {
            Sharing::Joined { source, copy } => [Some(source), Some(copy)],
            Sharing::Linked { existing, new } => [Some(existing), Some(new)],
            Sharing::Renamed { from, to } => [Some(from), Some(to)],
            Sharing::Left(path) | Sharing::OthersLeft(path) | Sharing::Removed(path) => {
                [Some(path), None]
            }
            Sharing::Temporary(_) | Sharing::TemporaryGone(_) => [None, None],
        };
        let groups = about.into_iter().flatten().flat_map(|path| {
            let mut names = self.groups.names_of_member(path);
            names.extend(self.groups.other_members(path).into_iter().flatten());
            names
        });
        groups.collect()
    }
}

/// Removes a temporary file that an earlier mount left on the server.
pub(super) async fn remove_left_over(client: &Client, journal: &Journal, path: Bytes) {
    let shown = path.escape_ascii().to_string();
    match client.remove(path.clone()).await {
        Ok(()) => log::info!("removed \"{shown}\", which an earlier mount left"),
        Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => {}
        Err(error) => return log::warn!("\"{shown}\", left by an earlier mount, stays: {error}"),
    }
    write_down(journal, &Sharing::TemporaryGone(path));
}

/// False if it could not be.
fn write_down(journal: &Journal, change: &Sharing) -> bool {
    let written = journal.record(change, false);
    if let Err(error) = &written {
        log::error!("which files share storage cannot be written down: {error}");
    }
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
        let bytes = |path: &str| Bytes::copy_from_slice(path.as_bytes());
        of.iter()
            .map(|(old, new)| (bytes(old), bytes(new)))
            .collect()
    }

    #[test]
    fn what_was_announced_goes_along_when_the_directories_above_both_names_are_renamed() {
        let mut announced = Announced(paths(&[("/a/x/one", "/b/y/one"), ("/a/x", "/b/y")]));
        let (before, now) = (paths(&[("/a/x", "/b/y")]), paths(&[("/A/x", "/long/b/y")]));
        let both = |paths: &[(Bytes, Bytes)]| paths[0].clone();
        let (before, now) = (both(&before), both(&now));
        announced.follow((&before.0, &before.1), (&now.0, &now.1));
        let expected = paths(&[("/A/x/one", "/long/b/y/one"), ("/A/x", "/long/b/y")]);
        assert_eq!(announced.0, expected);
    }
}
