//! Break on write: a copy that is a hard link on the server is a file of its own in the mount.
//!
//! With `copy_is_hardlink`, `cp a b` makes one server file with two names ([`super::copy`]). That
//! is a matter of storage: here they are two inodes, and whoever writes to one of them, or changes
//! its size, mode, owner or times, gives it a server file of its own first ([`separate`]). Names
//! that share storage are kept in [`groups`], and between mounts in [`journal`]; what link(2) has
//! linked is one inode and is never parted.
//!
//! **Invariants:** a name joins a group, durably, before the server is asked for the link, and
//! leaves it after it has storage of its own, so that at any moment a name that shares storage is
//! known to. A file that is not known to have its storage for itself ([`SharedFile::is_own`]) takes
//! no data over. Who opens or changes a file passes its gate, and who gives it another server file
//! has closed it.
//!
//! [`SharedFile::is_own`]: super::shared_file::SharedFile::is_own

mod gates;
mod groups;
mod journal;
mod links;
mod separate;
mod temporary;

use std::sync::Arc;

use bytes::Bytes;

use self::gates::Gates;
pub(super) use self::gates::{Closed, Passes};
pub(super) use self::groups::{Change as Sharing, Groups};
use self::journal::Journal;
pub(super) use self::temporary::temporary_beside;
use super::config::{Config, CopyIsHardlink};
use super::{Filesystem, Ino};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::sftp::StatusCode;

/// What a mount needs for files that share storage.
#[derive(Default)]
pub(super) struct Cow {
    /// Whether there are such files or may come to be; without, none of this costs anything.
    is_active: bool,
    /// Where it is written down; without, nothing is linked.
    journal: Option<Arc<Journal>>,
    gates: Gates,
}

/// Old and new names that are known to share storage before the server has made the new ones.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Announced(Vec<(Bytes, Bytes)>);

impl Cow {
    /// What an earlier mount of this server left. Removes its temporary files.
    pub(super) async fn load(config: &Config, client: &Client) -> (Self, Groups) {
        // With `shared` only temporary names are written down.
        let wanted = config.copy_is_hardlink != CopyIsHardlink::Off;
        let Some(state) = &config.state else {
            return (
                Self {
                    is_active: wanted,
                    ..Self::default()
                },
                Groups::default(),
            );
        };
        let directory = state.directory.join("copies");
        if !wanted && !Journal::exists(&directory, &state.identity) {
            return (Self::default(), Groups::default());
        }
        match Journal::open(&directory, &state.identity) {
            Ok((journal, groups, left_over)) => {
                for path in left_over {
                    remove_left_over(client, &journal, path).await;
                }
                let journal = Some(Arc::new(journal));
                (
                    Self {
                        is_active: true,
                        journal,
                        gates: Gates::default(),
                    },
                    groups,
                )
            }
            Err(why) => {
                log::warn!(
                    "{why}: copies are not made as hard links, and files that were linked as \
                     copies before are taken for hard links"
                );
                (Self::default(), Groups::default())
            }
        }
    }

    /// Whether copies may be links that a write breaks.
    pub(super) const fn can_link(&self) -> bool {
        self.is_active
    }
}

async fn remove_left_over(client: &Client, journal: &Journal, path: Bytes) {
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

impl Filesystem {
    /// Another mount of the same server may have made a copy of a file that is written here.
    pub(super) fn hear_of_others(&self) {
        let Some(journal) = &self.cow.journal else {
            return;
        };
        if journal.has_news() {
            let mut tables = self.tables();
            journal.catch_up(&mut tables.groups);
            for shared in self.handles.all_shared() {
                shared.set_own(false);
            }
        }
    }

    /// Whether a file has its storage for itself, so that writing to it changes no other.
    pub(super) fn is_own(&self, ino: Ino) -> bool {
        let mut tables = self.tables();
        if self.cow.is_active {
            if let Some(journal) = &self.cow.journal {
                journal.catch_up(&mut tables.groups);
            }
            let mut paths = tables.inodes.paths(ino).into_iter();
            if paths.any(|path| tables.groups.shares(&path)) {
                return false;
            }
        }
        // Under the lock of the tables, where a copy would join.
        if let Some(shared) = self.handles.shared(ino) {
            shared.set_own(true);
        }
        true
    }

    /// Sees to it that a file has its storage for itself.
    ///
    /// # Errors
    /// Why it could not be given a server file of its own.
    pub(super) async fn own(self: &Arc<Self>, ino: Ino) -> Result<()> {
        while !self.is_own(ino) {
            self.separate(ino, u64::MAX).await?;
        }
        Ok(())
    }

    /// Keeps these files' server files what they are for as long as the result lives.
    pub(super) async fn pass(&self, files: &[Ino]) -> Option<Passes> {
        if !self.cow.is_active {
            return None;
        }
        Some(self.cow.gates.pass(files).await)
    }

    /// As [`Self::pass`], with `owner` having its storage for itself; `keep` bytes of it are needed.
    ///
    /// # Errors
    /// As [`Self::own`].
    pub(super) async fn pass_as_owner(
        self: &Arc<Self>,
        files: &[Ino],
        owner: Ino,
        keep: u64,
    ) -> Result<Option<Passes>> {
        loop {
            let passes = self.pass(files).await;
            if self.is_own(owner) {
                return Ok(passes);
            }
            drop(passes);
            self.separate(owner, keep).await?;
        }
    }

    /// Gives these files other server files: nobody else opens or changes them meanwhile.
    pub(super) async fn close_gates(&self, files: &[Ino]) -> Closed {
        self.cow.gates.close(files).await
    }

    /// A name is about to be lost. What is open by it must not reach the other names of the storage
    /// then, and has no name by which it could be opened again.
    ///
    /// # Errors
    /// As [`Self::own`], if it is open for writing.
    pub(super) async fn part_before_loss(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let opens = self.handles.files(ino);
        if opens.is_empty() || self.tables().inodes.has_other_name(ino) {
            return Ok(());
        }
        if self.cow.is_active
            && let Err(error) = self.own(ino).await
        {
            if opens.iter().any(|file| file.access.write) {
                return Err(error);
            }
            // A full disk must not keep anybody from removing files.
            log::warn!("who reads a removed copy sees what is written to the others: {error}");
        }
        for file in opens {
            if let Err(error) = self.full_handle(&file).await {
                log::debug!("not open any more: {error}");
            }
        }
        Ok(())
    }

    /// A name that shared storage is gone, by somebody else's doing. What is open by it must not
    /// write to the other names.
    pub(super) fn lost(&self, ino: Option<Ino>, path: Bytes) {
        if !self.cow.is_active || !self.tables().groups.shares(&path) {
            return;
        }
        for file in ino.into_iter().flat_map(|ino| self.handles.files(ino)) {
            file.lose();
        }
        self.sharing_changed(&Sharing::Removed(path));
    }

    /// Takes in a change of what shares storage with what, here and in the journal.
    pub(super) fn sharing_changed(&self, change: &Sharing) {
        let mut tables = self.tables();
        if !self.cow.is_active || !tables.groups.concerns(change) {
            return;
        }
        // Under the lock, so that nobody finds the table without what has happened.
        match &self.cow.journal {
            Some(journal) if write_down(journal, change) => journal.catch_up(&mut tables.groups),
            _ => tables.groups.apply(change),
        }
    }

    /// A file that shares its storage is about to get another or a further name, which must be
    /// known to share before it does, whatever ends this process. Durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(super) async fn announce(&self, from: &Bytes, to: &Bytes) -> Result<Announced> {
        let names = self.names_to_announce(from, to);
        if names.is_empty() {
            return Ok(Announced::default());
        }
        let change = |(existing, new): &(Bytes, Bytes)| Sharing::Linked {
            existing: existing.clone(),
            new: new.clone(),
        };
        let changes: Vec<Sharing> = names.iter().map(change).collect();
        if let Some(journal) = self.cow.journal.clone() {
            let last = changes.len() - 1;
            let record = move || {
                let mut each = changes.iter().enumerate();
                each.try_for_each(|(n, change)| journal.record(change, n == last))
            };
            match tokio::task::spawn_blocking(record).await {
                Ok(written) => written.map_err(cannot_write_down)?,
                Err(_) => return Err(not_written_down()),
            }
            self.hear_of_others();
        } else {
            let mut tables = self.tables();
            changes
                .iter()
                .for_each(|change| tables.groups.apply(change));
        }
        Ok(Announced(names))
    }

    fn names_to_announce(&self, from: &Bytes, to: &Bytes) -> Vec<(Bytes, Bytes)> {
        let groups = &self.tables().groups;
        let names = groups.names_at_and_below(from).into_iter().map(|existing| {
            let below = existing.get(from.len()..).unwrap_or_default();
            let new = Bytes::from([to, below].concat());
            (existing, new)
        });
        // A name that leads to another such file still does if nothing comes of it.
        names.filter(|(_, new)| !groups.shares(new)).collect()
    }

    /// Nothing came of what was announced, unless it cannot be known.
    pub(super) fn withdraw(&self, announced: Announced, error: &Error) {
        if !matches!(error, Error::Lost(_)) {
            for (_, new) in announced.0 {
                self.sharing_changed(&Sharing::Removed(new));
            }
        }
    }

    /// A name became another, as announced.
    pub(super) fn renamed(&self, from: Bytes, to: Bytes, announced: Announced) {
        self.sharing_changed(&Sharing::Renamed { from, to });
        for (old, _) in announced.0 {
            self.sharing_changed(&Sharing::Removed(old));
        }
    }

    /// A temporary name is about to be made on the server, or is gone.
    fn temporary(&self, path: &Bytes, is_gone: bool) {
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
    pub(super) async fn join(&self, source: (Ino, &Bytes), copy: (Ino, &Bytes)) -> Result<()> {
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
    pub(super) async fn join_all(&self, joining: &[Joining]) -> Result<Vec<bool>> {
        let changes = joining.iter().map(|joining| Sharing::Joined {
            source: joining.source.clone(),
            copy: joining.copy.clone(),
        });
        let changes: Vec<_> = changes.collect();
        if self.tables().groups.is_full() {
            return Err(Error::setup("too many files share storage already"));
        }
        if let Some(journal) = self.cow.journal.clone() {
            let changes = changes.clone();
            // What was recorded before is on the disk with the last one.
            let record = move || {
                let last = changes.len().saturating_sub(1);
                let mut changes = changes.iter().enumerate();
                changes.try_for_each(|(at, change)| journal.record(change, at == last))
            };
            match tokio::task::spawn_blocking(record).await {
                Ok(written) => written.map_err(cannot_write_down)?,
                Err(_) => return Err(not_written_down()),
            }
        }
        let mut tables = self.tables();
        match &self.cow.journal {
            Some(journal) => journal.catch_up(&mut tables.groups),
            None => changes
                .iter()
                .for_each(|change| tables.groups.apply(change)),
        }
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
}

/// Only a panic in there.
fn not_written_down() -> Error {
    Error::setup("which files share storage was not written down")
}

fn cannot_write_down(error: std::io::Error) -> Error {
    Error::setup(format!(
        "which files share storage cannot be written down: {error}"
    ))
}

/// A file that is about to become a copy that shares its source's storage.
pub(in crate::fs) struct Joining {
    /// Those of the two that are known here.
    pub(super) files: Vec<Ino>,
    pub(super) source: Bytes,
    pub(super) copy: Bytes,
}
