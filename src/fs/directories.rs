//! Listing directories. A listing also tells attributes, so that nobody need ask for them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nix::errno::Errno;
use tokio::sync::Mutex;

use super::config::Symlinks;
use super::dir::{Listing, OpenDir, Row};
use super::handles::Fh;
use super::second_question::Refused;
use super::tables::Shown;
use super::{Attr, Filesystem, Ino, Known, same_content};
use crate::cache::{Fetch, Listed};
use crate::error::{Error, Operation, Result};
use crate::sftp::FileKind;

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
        let under_way = self.listing_under_way(ino);
        let under_way = under_way.filter(|_| self.listing(ino).is_none());
        let must_wait = under_way.is_some();
        if let Some(under_way) = under_way {
            under_way.await;
        }
        self.visited(ino, must_wait);
        self.go_ahead();
        let began = self.now();
        let client = Arc::clone(&self.client);
        // Who lists a directory looks at the files too.
        let remembered = self.listing(ino);
        let remembered = remembered.filter(|it| self.tables().tells_all(it));
        let (listing, fetch) = match remembered {
            Some(directory) => (
                Listing::remembered(client, self.path(ino)?, directory),
                None,
            ),
            None => {
                let fetch = self.tables().begin_listing(ino);
                let open = |path| self.client.opendir(path);
                let cancel = || self.tables().dirs.cancel(ino, fetch);
                let opened = self.at_path(|| self.path(ino), open).await;
                match opened.inspect_err(|_| cancel())? {
                    (path, Ok(handle)) => (Listing::new(client, path, handle, began), Some(fetch)),
                    (path, Err(error)) => {
                        cancel();
                        let refused = Refused::Open { path, write: false };
                        return Err(self.explain(Operation::List, error, refused).await.into());
                    }
                }
            }
        };
        self.tables().inodes.opened(ino);
        Ok(self.handles.add_dir(OpenDir {
            ino,
            fetch,
            began,
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
        let mut listing = dir.listing.lock().await;
        if let Ok(path) = self.path(dir.ino) {
            listing.is_at(path);
        }
        if offset == 0 {
            self.explained(listing.rewind().await).await?;
        }
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
        let (now, from) = (self.now(), offset.saturating_sub(DOTS));
        let read = listing.read_to(from, now, &self.translator).await;
        self.explained(read).await?;
        self.keep_listing(&dir, &mut listing);
        for (index, row) in listing.rows(from) {
            let entry = Seen {
                parent: dir.ino,
                name: &row.listed.name,
                shown: self.as_shown(&dir, row, plus).await,
                row: row.listed.attr,
                next: index + DOTS + 1,
            };
            if self.give(&entry, plus, &mut take) {
                break;
            }
        }
        Ok(())
    }

    async fn explained(&self, listed: Result<()>) -> Result<()> {
        match listed {
            Ok(()) => Ok(()),
            Err(error) => Err(self
                .explain(Operation::List, error, Refused::Other)
                .await
                .into()),
        }
    }

    /// Remembers a listing that was read to its end.
    fn keep_listing(&self, dir: &OpenDir, listing: &mut Listing) {
        if let (Some(fetch), Some(entries)) = (dir.fetch, listing.take_complete()) {
            let began = (dir.began.stamp, dir.began.at);
            self.tables().dirs.finish(dir.ino, fetch, entries, began);
            self.is_listed(dir.ino);
            self.go_ahead();
        }
    }

    /// Hands one entry on; true if it was refused.
    fn give(
        &self,
        seen: &Seen<'_>,
        plus: bool,
        take: &mut impl FnMut(&DirEntry<'_>) -> bool,
    ) -> bool {
        let Shown {
            kind,
            links,
            asked,
            is_from_server,
            ..
        } = seen.shown;
        let (ino, kind) = {
            let mut tables = self.tables();
            let later = tables.kind_since((seen.parent, seen.name), kind, asked);
            let kind = later.unwrap_or(kind);
            let ino = tables.inodes.enter(seen.parent, seen.name, kind);
            if is_from_server {
                // What was listed before may have been remembered without it.
                tables.dirs.seen(seen.parent, seen.name);
            }
            // Counted before it is told: meanwhile the kernel may forget what it was told before.
            tables.inodes.looked_up(ino);
            tables.count_links(ino, kind, links);
            (ino, kind)
        };
        let known = plus.then(|| self.listed(ino, kind, seen));
        let refused = take(&DirEntry {
            ino,
            name: seen.name,
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

    /// What a listing says about a file; nothing that is believed if it does not say enough, or we
    /// have changed the file since. The kernel takes an entry for looked up whatever it is told.
    fn listed(&self, ino: Ino, kind: FileKind, seen: &Seen<'_>) -> Known {
        let asked = seen.shown.asked;
        let Some(attr) = seen.shown.attr else {
            let of_row = || Known {
                attr: Attr {
                    kind,
                    ..seen.row.unwrap_or(NOTHING)
                },
                links: 1,
                ttl: Duration::ZERO,
            };
            return self.unsettled(ino).unwrap_or_else(of_row);
        };
        let sighting = seen.shown.sighting();
        let known = self.learn_listed(ino, attr, asked, sighting);
        let until = self.config.entry_trust().until(sighting);
        self.tables().attrs.set_named(ino, Some(until));
        known
    }

    /// An entry as the user wants symbolic links to be seen.
    async fn as_shown(&self, dir: &OpenDir, row: &Row, plus: bool) -> Shown {
        let name = &row.listed.name;
        let follows =
            self.config.symlinks == Symlinks::Follow && row.listed.kind == FileKind::Symlink;
        let shown = self.as_listed(dir, row);
        let is_unknown = || shown.attr.is_none() && self.is_unknown(dir.ino, name);
        if !(follows || self.is_doubtful(dir.ino, row) || plus && is_unknown()) {
            return shown;
        }
        let path = self.tables().inodes.path_below(dir.ino, name);
        let Some(path) = path else {
            return shown;
        };
        let asked = self.now();
        let looked = if follows {
            self.client.stat(path).await
        } else {
            self.look_at_name(dir.ino, name, &path).await
        };
        match looked.and_then(|attrs| self.translator.local(&attrs)) {
            Ok(attr) => Shown {
                kind: attr.kind,
                attr: Some(attr),
                asked,
                same_since: asked.at,
                ..shown
            },
            Err(_) => shown,
        }
    }

    /// What is said of an entry and was not changed by us since: by the listing while it is read, and
    /// once that is remembered by what is remembered, where our changes are made.
    fn as_listed(&self, dir: &OpenDir, row: &Row) -> Shown {
        let Listed {
            name,
            kind,
            attr,
            links,
            ..
        } = &row.listed;
        let mut tables = self.tables();
        let is_read = |fetch: &Fetch| tables.dirs.is_under_way(dir.ino, *fetch);
        let Some(fetch) = dir.fetch.filter(is_read) else {
            return tables.remembered(dir.ino, name).unwrap_or(Shown {
                kind: *kind,
                attr: None,
                links: None,
                asked: row.asked,
                same_since: row.asked.at,
                is_from_server: false,
            });
        };
        let is_out_of_date = tables.dirs.has_changed(dir.ino, fetch, name);
        let links = links.map(|links| tables.real_links(dir.ino, name, links));
        Shown {
            kind: *kind,
            attr: attr.filter(|_| !is_out_of_date),
            links,
            asked: row.asked,
            same_since: row.asked.at,
            is_from_server: !is_out_of_date,
        }
    }

    /// Whether somebody has the file that a name leads to, and its attributes were forgotten. The
    /// kernel must not be told older ones: it would take pages of the file away.
    fn is_unknown(&self, parent: Ino, name: &[u8]) -> bool {
        let tables = self.tables();
        let ino = tables.inodes.find(parent, name);
        ino.is_some_and(|ino| tables.attrs.last(ino).is_none())
    }

    /// One of several names that we know of one file, and the listing says something new of it: it
    /// may have been replaced.
    fn is_doubtful(&self, parent: Ino, row: &Row) -> bool {
        let tables = self.tables();
        let Some(ino) = tables.inodes.find(parent, &row.listed.name) else {
            return false;
        };
        let is_as_known = || {
            let known = tables.attrs.last(ino);
            known.zip(row.listed.attr).is_some_and(|(known, said)| {
                same_content(&known, &said) && known.permissions == said.permissions
            })
        };
        tables.inodes.has_other_name(ino) && !is_as_known()
    }

    /// The last who lists a directory is gone. The server's handle goes at once; what was asked for already
    /// is taken in, for the next who lists it.
    pub(crate) fn releasedir(&self, fh: Fh) {
        let (Some(dir), Some(filesystem)) = (self.handles.remove_dir(fh), self.me.upgrade()) else {
            return;
        };
        let mut rest = async move { filesystem.finish_listing(&dir).await }.boxed();
        // Mostly all is here already, and is remembered before the next one asks.
        if (&mut rest).now_or_never().is_none() {
            tokio::spawn(rest);
        }
    }

    async fn finish_listing(&self, dir: &OpenDir) {
        let mut listing = dir.listing.lock().await;
        // At once: there are servers that remove no directory that is open.
        listing.close();
        if let Some(fetch) = dir.fetch {
            listing.take_in_rest(&self.translator).await;
            self.keep_listing(dir, &mut listing);
            self.tables().dirs.cancel(dir.ino, fetch);
        }
        self.tables().inodes.closed(dir.ino);
    }
}

/// An entry that the server listed.
struct Seen<'a> {
    parent: Ino,
    name: &'a [u8],
    shown: Shown,
    /// What the listing says, whether it is believed or not.
    row: Option<Attr>,
    next: u64,
}

/// Of a file of which the server's listing says nothing.
const NOTHING: Attr = Attr {
    kind: FileKind::Regular,
    permissions: 0,
    uid: 0,
    gid: 0,
    size: 0,
    atime: 0,
    mtime: 0,
    ctime: 0,
};
/// `.` and `..` come first and are ours.
const DOTS: u64 = 2;
