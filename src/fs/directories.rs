//! Listing directories. A listing also tells attributes, so that nobody need ask for them.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::Mutex;

use super::config::Symlinks;
use super::dir::{Listed, Listing, OpenDir};
use super::handles::Fh;
use super::second_question::Refused;
use super::{Asked, Filesystem, Ino, Known, same_content};
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind};

/// One entry of a directory.
#[derive(Debug)]
pub(crate) struct DirEntry<'a> {
    pub(crate) ino: Ino,
    pub(crate) name: &'a [u8],
    pub(crate) kind: FileKind,
    /// Where the listing goes on after this entry.
    pub(crate) next: u64,
    /// What is known of the file, where that was asked for; never for `.` and `..`.
    pub(crate) known: Option<Known>,
}

impl Filesystem {
    pub(crate) async fn opendir(&self, ino: Ino) -> Result<Fh> {
        let path = self.path(ino)?;
        let handle = match self.client.opendir(path.clone()).await {
            Ok(handle) => handle,
            Err(error) => {
                let refused = Refused::Open { path, write: false };
                return Err(self.explain(Operation::List, error, refused).await.into());
            }
        };
        let listing = Listing::new(Arc::clone(&self.client), path, handle, self.now());
        self.tables().inodes.opened(ino);
        Ok(self.handles.add_dir(OpenDir {
            ino,
            listing: Mutex::new(listing),
        }))
    }

    /// Gives the entries from `offset` on to `take` until it has enough and says so. With `plus`
    /// each entry counts as told to the kernel, unless `take` refused it.
    pub(crate) async fn readdir(
        &self,
        fh: Fh,
        offset: u64,
        plus: bool,
        mut take: impl FnMut(&DirEntry<'_>) -> bool + Send,
    ) -> Result<()> {
        let dir = self.handles.dir(fh).ok_or(Error::Errno(Errno::EBADF))?;
        let parent = self.tables().inodes.parent(dir.ino);
        for (at, ino, name) in [(0, dir.ino, &b"."[..]), (1, parent, b"..")] {
            let dots = DirEntry {
                ino,
                name,
                kind: FileKind::Directory,
                next: at + 1,
                known: None,
            };
            if offset <= at && take(&dots) {
                return Ok(());
            }
        }
        let now = self.now();
        let mut listing = dir.listing.lock().await;
        let page = match listing.from(offset.saturating_sub(DOTS), now).await {
            Ok(page) => page,
            Err(error) => {
                return Err(self
                    .explain(Operation::List, error, Refused::Other)
                    .await
                    .into());
            }
        };
        for (index, listed) in page {
            let (attrs, asked) = self.as_shown(dir.ino, listed).await;
            let entry = Seen {
                parent: dir.ino,
                listed,
                attrs: &attrs,
                next: index + DOTS + 1,
                asked,
            };
            if self.give(&entry, plus, &mut take) {
                break;
            }
        }
        Ok(())
    }

    /// Hands one entry on; true if it was refused.
    fn give(
        &self,
        seen: &Seen<'_>,
        plus: bool,
        take: &mut impl FnMut(&DirEntry<'_>) -> bool,
    ) -> bool {
        let kind = seen.attrs.kind().unwrap_or(FileKind::Regular);
        let name = &*seen.listed.name;
        let ino = {
            let mut tables = self.tables();
            let ino = tables.inodes.enter(seen.parent, name, kind);
            // Counted before it is told: meanwhile the kernel may forget what it was told before.
            tables.inodes.looked_up(ino);
            if let (Some(links), true) = (seen.listed.links, kind != FileKind::Directory) {
                let links = tables.real_links(seen.parent, name, links);
                tables.inodes.listed(ino, links);
            }
            ino
        };
        let known = plus.then(|| self.listed(ino, seen)).flatten();
        let refused = take(&DirEntry {
            ino,
            name,
            kind,
            next: seen.next,
            known,
        });
        if !plus || refused {
            // Nobody was told.
            self.forget(ino, 1);
        }
        refused
    }

    /// What a listing says about a file; nothing if it does not say enough.
    fn listed(&self, ino: Ino, seen: &Seen<'_>) -> Option<Known> {
        let says_all = seen.attrs.permissions.is_some() && seen.attrs.size.is_some();
        let asked = seen.asked;
        let known = self.learn(ino, seen.attrs, asked).ok()?;
        let mut tables = self.tables();
        // A name that we removed after the page was asked for must not be believed.
        if !says_all || tables.attrs.has_changed(seen.parent, asked.stamp) {
            tables.attrs.expire(ino);
            return Some(Known {
                ttl: Duration::ZERO,
                ..known
            });
        }
        drop(tables);
        let until = asked.at + self.config.entry_timeout;
        self.tables().attrs.set_named(ino, Some(until));
        Some(known)
    }

    /// The attributes of an entry as the user wants symbolic links to be seen, and when they were
    /// asked for.
    async fn as_shown(&self, parent: Ino, listed: &Listed) -> (Attrs, Asked) {
        let follows = self.config.symlinks == Symlinks::Follow
            && listed.attrs.kind() == Some(FileKind::Symlink);
        let as_listed = || (listed.attrs.clone(), listed.asked);
        if !follows && !self.is_doubtful(parent, listed) {
            return as_listed();
        }
        let path = self.tables().inodes.path_below(parent, &listed.name);
        let Some(path) = path else {
            return as_listed();
        };
        let asked = self.now();
        let looked = if follows {
            self.client.stat(path).await
        } else {
            self.look_at_name(parent, &listed.name, &path).await
        };
        looked.map_or_else(|_| as_listed(), |attrs| (attrs, asked))
    }

    /// One of several names that we know of one file, and the listing says something new of it: it
    /// may have been replaced.
    fn is_doubtful(&self, parent: Ino, listed: &Listed) -> bool {
        let tables = self.tables();
        let Some(ino) = tables.inodes.find(parent, &listed.name) else {
            return false;
        };
        let is_as_known = || {
            let known = tables.attrs.last(ino);
            let said = self.translator.local(&listed.attrs).ok();
            known.zip(said).is_some_and(|(known, said)| {
                same_content(&known, &said) && known.permissions == said.permissions
            })
        };
        tables.inodes.has_other_name(ino) && !is_as_known()
    }

    pub(crate) async fn releasedir(&self, fh: Fh) {
        let Some(dir) = self.handles.remove_dir(fh) else {
            return;
        };
        self.tables().inodes.closed(dir.ino);
        dir.listing.lock().await.close();
    }
}

/// An entry that the server listed.
struct Seen<'a> {
    parent: Ino,
    listed: &'a Listed,
    attrs: &'a Attrs,
    next: u64,
    asked: Asked,
}

/// `.` and `..` come first and are ours.
const DOTS: u64 = 2;
