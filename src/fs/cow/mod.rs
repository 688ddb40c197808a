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
mod ledger;
mod links;
mod parting;
mod remake;
mod separate;
mod temporary;

use std::sync::Arc;

use self::gates::Gates;
pub(super) use self::gates::{Closed, Passes};
pub(super) use self::groups::{Change as Sharing, Groups};
use self::journal::Journal;
pub(super) use self::ledger::{Announced, Joining};
pub(super) use self::temporary::temporary_beside;
use super::config::{Config, CopyIsHardlink};
use super::handles::OpenFile;
use super::rooms::{Inmate, Work};
use super::{Filesystem, Ino};
use crate::client::Client;
use crate::error::Result;

/// Kept while a name goes.
#[must_use]
pub(super) enum Held {
    Passing(#[expect(dead_code, reason = "held, not looked at")] Passes),
    Closed(#[expect(dead_code, reason = "held, not looked at")] Closed),
}

/// What a mount needs for files that share storage.
#[derive(Default)]
pub(super) struct Cow {
    /// Whether there are such files or may come to be; without, none of this costs anything.
    is_active: bool,
    /// Where it is written down; without, nothing is linked.
    journal: Option<Arc<Journal>>,
    gates: Gates,
    /// Held while names get another server file and that is noted: no two at once.
    renaming: tokio::sync::Mutex<()>,
}

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
            Ok((journal, mut groups, left_over)) => {
                // Nothing is open yet.
                drop(groups.take_moved());
                // Nothing is changed on the server by a mount that is read-only.
                for path in left_over.into_iter().filter(|_| !config.read_only) {
                    ledger::remove_left_over(client, &journal, path).await;
                }
                let journal = Some(Arc::new(journal));
                (
                    Self {
                        is_active: true,
                        journal,
                        ..Self::default()
                    },
                    groups,
                )
            }
            Err(why) => {
                let what = match wanted {
                    true => "copies are not made as hard links, and those that were before",
                    false => "files that were linked as copies before",
                };
                log::warn!("{what} are taken for what the server says they are: {why}");
                (Self::default(), Groups::default())
            }
        }
    }

    /// Whether copies may be links that a write breaks.
    pub(super) const fn can_link(&self) -> bool {
        self.is_active
    }
}

impl Filesystem {
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

    /// A name that leads to `lost` is about to be removed, or replaced by one that leads to
    /// `moved`: what has it open gets a server file that reaches no other name, and is open on the
    /// server. Held until the name is gone.
    ///
    /// # Errors
    /// As [`Self::own`], if it is open for writing.
    pub(super) async fn hold_for_loss(
        self: &Arc<Self>,
        lost: Option<Ino>,
        moved: Option<Ino>,
    ) -> Result<(Option<Held>, Inmate<'_>)> {
        loop {
            let (held, given_up) = self.hold_once(lost, moved).await?;
            let moving = self.rooms.enter(Work::MovingNames).await;
            // A connection that was lost meanwhile took with it what had been opened before.
            if lost.is_none_or(|lost| self.unserved(lost).len() <= given_up) {
                return Ok((held, moving));
            }
        }
    }

    /// The connection was lost before the name was gone, with what had `lost` open: it is opened again.
    /// Nothing is parted: what shares its storage once the name is gone may be announced already.
    pub(super) async fn open_for_loss(&self, lost: Option<Ino>) -> Inmate<'_> {
        loop {
            let given_up = match lost {
                Some(lost) => self.open_unserved(lost).await,
                None => 0,
            };
            let moving = self.rooms.enter(Work::MovingNames).await;
            if lost.is_none_or(|lost| self.unserved(lost).len() <= given_up) {
                return moving;
            }
        }
    }

    /// Also how many opens of `lost` cannot be opened on the server.
    async fn hold_once(
        self: &Arc<Self>,
        lost: Option<Ino>,
        moved: Option<Ino>,
    ) -> Result<(Option<Held>, usize)> {
        let files: Vec<Ino> = lost.into_iter().chain(moved).collect();
        let Some(lost) = lost else {
            return Ok((self.pass(&files).await.map(Held::Passing), 0));
        };
        loop {
            let given_up = self.part_before_loss(lost).await?;
            if !self.shares(lost) {
                let passes = self.pass(&files).await;
                if !self.shares(lost) {
                    return Ok((passes.map(Held::Passing), given_up));
                }
                continue;
            }
            // Closed, so that nobody opens it while its name goes.
            let closed = self.close_gates(&files).await;
            let writes = |file: &OpenFile| file.access.write;
            let is_last = !self.tables().inodes.has_other_name(lost);
            if is_last && self.handles.any_file(lost, writes).is_some() && self.shares(lost) {
                continue;
            }
            return Ok((Some(Held::Closed(closed)), given_up));
        }
    }

    /// A name is about to be lost. What is open by it must not reach the other names of the storage
    /// then, and has no name by which it could be opened again. Gives how many opens cannot be
    /// opened on the server any more.
    ///
    /// # Errors
    /// As [`Self::own`], if it is open for writing.
    async fn part_before_loss(self: &Arc<Self>, ino: Ino) -> Result<usize> {
        let opens = self.handles.files(ino);
        if opens.is_empty() || self.tables().inodes.has_other_name(ino) {
            return Ok(0);
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
        Ok(self.open_unserved(ino).await)
    }

    /// Gives how many opens of a file cannot be opened on the server.
    async fn open_unserved(&self, ino: Ino) -> usize {
        let mut given_up = 0;
        for file in self.unserved(ino) {
            if let Err(error) = self.full_handle(&file).await {
                log::debug!("not open any more: {error}");
                given_up += 1;
            }
        }
        given_up
    }

    /// Opens of a file with one name that no handle of the server's serves.
    fn unserved(&self, ino: Ino) -> Vec<Arc<OpenFile>> {
        if self.tables().inodes.has_other_name(ino) {
            return Vec::new();
        }
        let mut opens = self.handles.files(ino);
        opens.retain(|file| file.full_handle().is_none());
        opens
    }
}
