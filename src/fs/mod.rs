//! What the files are: one method for each operation of the VFS, and what they share. No word of
//! FUSE.
//!
//! Every method is async and finishes without a wait where memory knows the answer.
//!
//! **Locks.** `tables`, and those inside [`Handles`], [`SharedFile`](shared_file::SharedFile) and
//! a [`Reader`](read::Reader), are each taken for a few lines. Under a reader's the budget of
//! readers is, and requests are queued; under that of the tables those of what is open and of a file's state may be taken, and
//! nothing else is. None is held over an await: such a future could not be spawned, so the compiler
//! sees to it. The exceptions are an open directory's position ([`dir::OpenDir`]), and of files that
//! may share storage the gates and the moment at which names get another server file ([`cow`]).

mod ahead;
mod attr;
mod attributes;
mod by_path;
mod config;
mod copies;
mod copy;
mod copy_entries;
mod cow;
mod dir;
mod directories;
mod files;
mod going;
mod handles;
mod info;
mod inodes;
mod interrupt;
mod lazy_open;
mod likeness;
mod link_entries;
mod link_whole;
mod listings;
mod making;
mod may_link;
#[cfg(test)]
mod model;
mod names;
mod notices;
mod one_inode;
mod prefetch;
mod read;
mod resend;
mod rooms;
mod root;
mod second_question;
mod serving;
mod shared_file;
mod shut_down;
mod survive;
mod tables;
mod targets;
#[cfg(test)]
mod tests;
mod told;
mod unwritten;
mod waits;
mod walk;
mod write;

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::Semaphore;

use self::ahead::Proven;
pub(crate) use self::attr::Change;
use self::attr::Translator;
pub(crate) use self::config::{Config, CopyIsHardlink, IdMap, State, Symlinks};
use self::copies::Copies;
use self::copy_entries::CopyBudget;
pub(crate) use self::copy_entries::CopyEntries;
use self::cow::Cow;
pub(crate) use self::directories::DirEntry;
pub(crate) use self::files::{Creation, Opened};
use self::handles::Handles;
pub(crate) use self::handles::{Access, Fh};
use self::inodes::Inodes;
pub(crate) use self::interrupt::{Wish, is_in_a_read, on_behalf_of, wish_of};
use self::listings::{Listings, Me};
pub(crate) use self::notices::Notice;
use self::notices::Notices;
use self::rooms::Rooms;
use self::root::Space;
use self::shut_down::Pace;
pub(crate) use self::shut_down::Patience;
use self::tables::Tables;
pub(crate) use self::waits::Waits;
use self::walk::Walk;
pub(crate) use crate::cache::{Attr, Ino};
use crate::cache::{AttrCache, DirCache, Sighting, Stamp};
use crate::client::{Client, Health, Standing};
pub(crate) use crate::client::{Wanted, while_wanted};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind};

/// A mounted directory of a server.
pub(crate) struct Filesystem {
    me: Me,
    client: Arc<Client>,
    config: Config,
    translator: Translator,
    tables: Mutex<Tables>,
    handles: Handles,
    /// Bytes that may still be taken from writers before the server has answered for some.
    write_budget: Arc<Semaphore>,
    write_budget_max: u32,
    /// How quickly the server confirms what is written.
    pace: Pace,
    /// What the server said last of the root's file system.
    space: Space,
    /// Bytes that may still be asked for ahead of readers.
    ahead_budget: Arc<read::Budget>,
    /// Which changes of attributes may be answered before they are made.
    proven: Proven,
    /// Names are not moved while files are opened again by them.
    rooms: Rooms,
    cow: Cow,
    copies: Copies,
    copy_budget: CopyBudget,
    notices: Notices,
    /// Which calls of programs wait for the server.
    waits: Arc<Waits>,
    /// Some number of the kernel may mean another file: see [`one_inode`].
    has_aliases: AtomicBool,
}

/// When the server was asked: in the order of our own changes, and by the clock.
#[derive(Debug, Clone, Copy)]
struct Asked {
    stamp: Stamp,
    at: Instant,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What is told of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) attr: Attr,
    /// st_nlink.
    pub(crate) links: u32,
    /// How long it may be believed.
    pub(crate) ttl: Duration,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ino: Ino,
    pub(crate) known: Known,
    /// How long the name may be believed to lead there.
    pub(crate) ttl: Duration,
}

impl Filesystem {
    /// The filesystem below `directory` on the server, as typed.
    ///
    /// # Errors
    /// [`Error::Setup`] if it is not there or is no directory.
    pub(crate) async fn new(
        client: Client,
        directory: &[u8],
        mut config: Config,
    ) -> Result<Arc<Self>> {
        if !config.cache {
            config.attr_timeout = Duration::ZERO;
            config.entry_timeout = Duration::ZERO;
            config.negative_timeout = Duration::ZERO;
        }
        let typed = Bytes::copy_from_slice(directory);
        let (root, home) = tokio::join!(client.resolve(typed), client.resolve(Bytes::new()));
        let root = root.map_err(|error| cannot_mount(directory, &error))?;
        let attrs = client.stat(root.clone()).await;
        let attrs = attrs.map_err(|error| cannot_mount(directory, &error))?;
        if attrs.kind() != Some(FileKind::Directory) {
            return Err(Error::setup(format!(
                "\"{}\" on the server is not a directory; name the directory it is in",
                directory.escape_ascii()
            )));
        }
        // Who we are there: the owner of the login directory.
        let home = home.unwrap_or_else(|_| root.clone());
        let login = client.stat(home).await.ok().and_then(|attrs| attrs.owner);
        let translator = Translator::new(&config, login.or(attrs.owner).unwrap_or((0, 0)));
        let write_budget_max = u32::try_from(config.write_behind_max)
            .unwrap_or(u32::MAX)
            .max(1);
        let attrs_max = NonZeroUsize::new(ATTRS_MAX).unwrap_or(NonZeroUsize::MIN);
        let (cow, groups) = Cow::load(&config, &client).await;
        let tables = Tables {
            inodes: Inodes::new(root),
            attrs: AttrCache::new(attrs_max),
            dirs: DirCache::new(),
            listings: Listings::new(),
            walk: Walk::new(client.features().handles_max),
            relinks: 0,
            groups,
        };
        let filesystem = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            client: Arc::new(client),
            config,
            translator,
            tables: Mutex::new(tables),
            handles: Handles::default(),
            write_budget: Arc::new(Semaphore::new(write_budget_max as usize)),
            write_budget_max,
            pace: Pace::default(),
            space: Space::default(),
            ahead_budget: Arc::new(read::Budget::new(AHEAD_MAX)),
            proven: Proven::default(),
            rooms: Rooms::default(),
            cow,
            copies: Copies::default(),
            copy_budget: CopyBudget::default(),
            notices: Notices::default(),
            waits: Arc::default(),
            has_aliases: AtomicBool::new(false),
        });
        let asked = filesystem.now();
        filesystem.learn(Ino::ROOT, &attrs, asked)?;
        Ok(filesystem)
    }

    /// How the connection to the server is.
    pub(crate) fn health(&self) -> Health {
        self.client.health()
    }

    /// For how long the oldest question waits that the server has got and not answered; `None` if
    /// there is none, or no server.
    pub(crate) fn oldest_question(&self) -> Option<Duration> {
        let health = self.client.health();
        let is_there = health.standing == Standing::Connected;
        health.oldest.filter(|_| is_there)
    }

    /// Which calls of programs wait for the server.
    pub(crate) const fn waits(&self) -> &Arc<Waits> {
        &self.waits
    }

    /// Asks the server whether it is there: after a suspend, or when somebody wants to know.
    pub(crate) fn check_connection(&self) {
        self.client.check();
    }

    /// Waits no longer for a server that is away: the mount is to end.
    pub(crate) fn give_up_connection(&self) {
        self.client.give_up();
    }

    /// Bytes that programs have written and the server has not confirmed.
    pub(crate) fn unwritten(&self) -> usize {
        self.write_budget_max as usize - self.write_budget.available_permits()
    }

    /// How the kernel is told what it has not asked for; must not wait.
    pub(crate) fn tell_kernel_by(&self, teller: Box<dyn Fn(Notice) + Send + Sync>) {
        self.notices.tell_by(teller);
    }

    /// The user's choices.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// The kernel forgets `count` replies that named `ino`.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        let mut tables = self.tables();
        if tables.inodes.forget(ino, count) {
            tables.attrs.forget(ino);
            tables.dirs.forget(ino);
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn root(&self) -> Bytes {
        self.tables().inodes.root().clone()
    }

    /// The path of a file that has one.
    ///
    /// # Errors
    /// ESTALE: its name was removed.
    fn path(&self, ino: Ino) -> Result<Bytes> {
        self.tables()
            .inodes
            .path(ino)
            .ok_or(Error::Errno(Errno::ESTALE))
    }

    /// The path of a name in a directory.
    ///
    /// # Errors
    /// ENAMETOOLONG, or ENOENT for a directory that was removed.
    fn path_below(&self, parent: Ino, name: &[u8]) -> Result<Bytes> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let path = self.tables().inodes.path_below(parent, name);
        sendable(path.ok_or(Error::Errno(Errno::ENOENT))?)
    }

    /// The moment before a question, for [`Self::learn`].
    fn now(&self) -> Asked {
        let stamp = self.tables().attrs.stamp();
        let at = clock::now();
        Asked { stamp, at }
    }

    /// Takes in what the server said about a file to a question asked at `asked`, and gives what
    /// is known then: unwritten data and later changes of ours count more than the answer.
    fn learn(&self, ino: Ino, attrs: &Attrs, asked: Asked) -> Result<Known> {
        let attr = self.translator.local(attrs)?;
        Ok(self.learn_from(ino, attr, asked))
    }

    /// As [`Self::learn`], in our terms.
    fn learn_from(&self, ino: Ino, attr: Attr, asked: Asked) -> Known {
        let belief = (Sighting::first(asked.at), self.config.attr_trust());
        self.learn_by(ino, |attrs| attrs.store(ino, attr, asked.stamp, belief))
    }

    /// As [`Self::learn`], from a listing out of which our own changes would have taken it.
    fn learn_listed(&self, ino: Ino, attr: Attr, asked: Asked, sighting: Sighting) -> Known {
        let belief = (sighting, self.config.attr_trust());
        self.learn_by(ino, |attrs| {
            attrs.store_listed(ino, attr, asked.stamp, belief)
        })
    }

    fn learn_by(&self, ino: Ino, store: impl FnOnce(&mut AttrCache) -> Attr) -> Known {
        let shared = self.handles.shared(ino);
        if shared.as_ref().is_some_and(|shared| !shared.is_written())
            && let Some(known) = self.unsettled(ino)
        {
            return known;
        }
        let mut tables = self.tables();
        let before = tables.attrs.last(ino);
        let attr = store(&mut tables.attrs);
        let now = clock::now();
        if !before.is_some_and(|before| same_content(&before, &attr)) {
            tables.attrs.content_is_new(ino, now);
        }
        let fresh = tables.attrs.fresh(ino, now);
        let links = tables.inodes.links(ino);
        drop(tables);
        let is_same = before.is_none_or(|before| same_content(&before, &attr));
        if let (false, Some(shared)) = (is_same, shared) {
            shared.content_changed();
            // While a handle is lost its name may lead to another file.
            if self
                .handles
                .any_file(ino, |file| file.handle().is_some())
                .is_some()
            {
                shared.heard(attr.size);
            }
        }
        let ttl = fresh.map_or(Duration::ZERO, |(_, left)| self.told_for(left));
        Known { attr, links, ttl }
    }

    /// What is known of a file whose writes are on their way: our own idea of its size.
    fn unsettled(&self, ino: Ino) -> Option<Known> {
        let tables = self.tables();
        let attr = tables.attrs.last(ino)?;
        Some(Known {
            attr,
            links: tables.inodes.links(ino),
            ttl: Duration::ZERO,
        })
    }

    /// What is known of a file and still believed.
    fn known(&self, ino: Ino) -> Option<Known> {
        let mut tables = self.tables();
        let (attr, left) = tables.attrs.fresh(ino, clock::now())?;
        let ttl = self.told_for(left);
        Some(Known {
            attr,
            links: tables.inodes.links(ino),
            ttl,
        })
    }

    /// How long the kernel is told to believe what is believed here for so long: what we hear of
    /// others' changes meanwhile, it hears when it asks.
    fn told_for(&self, left: Duration) -> Duration {
        left.min(self.config.attr_timeout)
    }

    /// Attributes by path, as the user wants symbolic links to be seen.
    async fn look(&self, path: Bytes) -> Result<Attrs> {
        let attrs = self.client.lstat(path.clone()).await?;
        if self.config.symlinks == Symlinks::Follow && attrs.kind() == Some(FileKind::Symlink) {
            // A link that leads nowhere is shown as what it is.
            return Ok(self.client.stat(path).await.unwrap_or(attrs));
        }
        Ok(attrs)
    }
}

/// Whether a file's content is likely to be what it was.
const fn same_content(before: &Attr, after: &Attr) -> bool {
    before.size == after.size && before.mtime == after.mtime
}

/// A path that a server can take. OpenSSH folds ENAMETOOLONG and EINVAL into one, so that the
/// question is settled here.
///
/// # Errors
/// ENAMETOOLONG.
fn sendable(path: Bytes) -> Result<Bytes> {
    if path.len() > PATH_LEN_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    Ok(path)
}

fn cannot_mount(directory: &[u8], error: &Error) -> Error {
    let shown = if directory.is_empty() {
        "the login directory".to_owned()
    } else {
        format!("\"{}\"", directory.escape_ascii())
    };
    match error.errno(Operation::Stat) {
        Errno::ENOENT => Error::setup(format!(
            "{shown} is not there on the server; a path without a leading / starts at the login \
             directory"
        )),
        Errno::EACCES => Error::setup(format!("{shown} may not be read by the login user")),
        _ => Error::setup(format!("cannot mount {shown}: {error}")),
    }
}

/// Linux' limit for one name on all its file systems (NAME_MAX, limits.h).
pub(crate) const NAME_MAX: usize = 255;
/// PATH_MAX (limits.h) counts the NUL at the end.
const PATH_LEN_MAX: usize = 4095;
/// Attributes remembered: more than the files of a large source tree; about 120 bytes each.
const ATTRS_MAX: usize = 1 << 17;
/// Bytes held ahead of all readers together.
const AHEAD_MAX: u64 = 128 << 20;
