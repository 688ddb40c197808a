//! What is remembered of names and files, under one lock: inode numbers, attributes, listings, and
//! who shares storage. Changes of ours are made to all of them at once here.

use std::time::Instant;

use super::Asked;
use super::cow::Groups;
use super::inodes::Inodes;
use super::listings::Listings;
use super::walk::Walk;
use crate::cache::{Attr, AttrCache, DirCache, Directory, Fetch, Ino, Said, Sighting};
use crate::sftp::FileKind;

/// What is told of an entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) kind: FileKind,
    /// None that we have changed since.
    pub(super) attr: Option<Attr>,
    pub(super) links: Option<u32>,
    /// When the server was asked.
    pub(super) asked: Asked,
    /// Since when listings have said the same.
    pub(super) same_since: Instant,
    /// The server has just said so, and we have not changed it since.
    pub(super) is_from_server: bool,
}

impl Shown {
    pub(super) const fn sighting(&self) -> Sighting {
        Sighting {
            at: self.asked.at,
            same_since: self.same_since,
        }
    }
}

/// What the lock of the tables guards. `inodes` and `attrs` are read as they are; what changes a
/// file or a name goes through the methods here, since listings tell of it too.
pub(super) struct Tables {
    pub(super) inodes: Inodes,
    pub(super) attrs: AttrCache,
    pub(super) dirs: DirCache,
    pub(super) listings: Listings,
    /// What is ahead of programs that walk.
    pub(super) walk: Walk,
    /// Names that share storage on the server.
    pub(super) groups: Groups,
    /// Counts changes of link counts.
    pub(super) relinks: u64,
}

impl Tables {
    /// A file's attributes are changed by us: see [`AttrCache::changed`].
    pub(super) fn changed(&mut self, ino: Ino) {
        self.attrs.changed(ino);
        self.touched(ino);
    }

    /// As [`Self::changed`], with what they are now: see [`AttrCache::change`].
    pub(super) fn change(&mut self, ino: Ino, until: Instant, change: impl FnOnce(&mut Attr)) {
        self.attrs.change(ino, until, change);
        self.touched(ino);
    }

    fn touched(&mut self, ino: Ino) {
        for (parent, name) in self.inodes.places(ino) {
            self.dirs.touched(*parent, name);
        }
        self.walk.changed(ino, &mut self.inodes);
    }

    /// The number of names that some file has was changed by us: what listings said of such is out
    /// of date, also under names that we do not know to be the file's.
    pub(super) const fn relinked(&mut self) {
        self.relinks += 1;
    }

    /// What link counts are right for.
    const fn counting(&self) -> u64 {
        self.groups.version().wrapping_add(self.relinks)
    }

    /// We made a name, or it leads to another file now.
    pub(super) fn made(&mut self, parent: Ino, name: &[u8], kind: FileKind) {
        self.dirs.made(parent, name, kind);
        self.changed(parent);
    }

    /// A name is no more, by our doing or as the server says. Gives the file that it led to.
    pub(super) fn gone(&mut self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.will_lose_a_name(self.inodes.find(parent, name));
        let ino = self.inodes.remove(parent, name);
        self.dirs.gone(parent, name);
        if let Some(ino) = ino {
            self.walk.changed(ino, &mut self.inodes);
            if self
                .inodes
                .kind(ino)
                .is_none_or(|kind| kind == FileKind::Directory)
            {
                self.dirs.forget(ino);
            }
        }
        ino
    }

    fn will_lose_a_name(&mut self, ino: Option<Ino>) {
        if ino.is_some_and(|ino| self.inodes.may_have_several_names(ino)) {
            self.relinked();
        }
    }

    /// A name was made another, by us. Gives the file that was replaced.
    pub(super) fn renamed(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Option<Ino> {
        let moved = self.inodes.find(from.0, from.1);
        let target = self.inodes.find(to.0, to.1);
        let is_one_file = moved.is_some() && moved == target;
        self.will_lose_a_name(target);
        let replaced = self.inodes.rename(from, to);
        if !is_one_file {
            let kind = moved.and_then(|ino| self.inodes.kind(ino));
            self.dirs.gone(from.0, from.1);
            match kind {
                Some(kind) => self.dirs.made(to.0, to.1, kind),
                // Nothing is known of what is there now.
                None => self.dirs.forget(to.0),
            }
        }
        for ino in [moved, replaced].into_iter().flatten() {
            self.walk.changed(ino, &mut self.inodes);
        }
        replaced.into_iter().for_each(|ino| self.dirs.forget(ino));
        self.changed(from.0);
        self.changed(to.0);
        replaced
    }

    /// A listing is about to be asked for: see [`DirCache::begin`].
    pub(super) fn begin_listing(&mut self, ino: Ino) -> Fetch {
        self.dirs.begin(ino, self.counting())
    }

    /// Whether one who lists a directory need not ask, link counts included.
    pub(super) fn tells_all(&self, directory: &Directory) -> bool {
        directory.tells_all() && directory.counted_for == self.counting()
    }

    /// What a remembered listing says of a name: its attributes and link count, as far as they are
    /// known, and when it was asked for.
    pub(super) fn remembered(&mut self, parent: Ino, name: &[u8]) -> Option<Shown> {
        let counting = self.counting();
        let (said, directory) = self.dirs.find(parent, name)?;
        let asked = Asked {
            stamp: directory.asked,
            at: directory.at,
        };
        let same_since = directory.sighting().same_since;
        let Said::There(listed) = said else {
            return None;
        };
        let (kind, attr) = (listed.kind, listed.attr);
        let is_counted = directory.counted_for == counting;
        let links = listed.links.filter(|_| is_counted);
        let links = links.map(|links| self.real_links(parent, name, links));
        Some(Shown {
            kind,
            attr,
            links,
            asked,
            same_since,
            is_from_server: false,
        })
    }

    /// The kind of the file that a name leads to, if that is another one than a listing that was
    /// asked for at `asked` says, and was seen or made later.
    pub(super) fn kind_since(
        &self,
        (parent, name): (Ino, &[u8]),
        listed: FileKind,
        asked: Asked,
    ) -> Option<FileKind> {
        let ino = self.inodes.find(parent, name)?;
        let kind = self.inodes.kind(ino).filter(|kind| *kind != listed)?;
        self.attrs.is_newer(ino, asked.stamp).then_some(kind)
    }

    /// Takes in the link count of a file that is no directory.
    pub(super) fn count_links(&mut self, ino: Ino, kind: FileKind, links: Option<u32>) {
        if let (Some(links), true) = (links, kind != FileKind::Directory) {
            self.inodes.listed(ino, links);
        }
    }

    /// The link count of a listing without what is linked only to share storage.
    pub(super) fn real_links(&self, parent: Ino, name: &[u8], links: u32) -> u32 {
        if links < 2 || self.groups.is_empty() {
            return links;
        }
        let Some(path) = self.inodes.path_below(parent, name) else {
            return links;
        };
        let others = self
            .groups
            .other_members(&path)
            .into_iter()
            .flatten()
            .count();
        links
            .saturating_sub(u32::try_from(others).unwrap_or(0))
            .max(1)
    }
}
