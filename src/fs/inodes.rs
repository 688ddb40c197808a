//! Inode numbers and the names that lead to them. Pure state: no server, no clock.
//!
//! A number is a hash of the parent's number and the name at first sight, so that a file the
//! kernel has forgotten gets the same number again. Where that is not so (the file was renamed or
//! linked, or another file holds the number) the exception is remembered, for the last
//! [`REMEMBERED_MAX`] of them.
//!
//! **Invariants:** a node is here while the kernel knows it, while it is open, or while a node
//! below it is here. A name leads to one node at most. Paths are never stored: they are the walk
//! to the root, so that renaming a directory changes one name.

mod nodes;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use smallvec::SmallVec;

use self::nodes::Nodes;
use super::Ino;
use crate::sftp::FileKind;

/// One component of a path: never empty, `.` or `..`, no `/`, no NUL.
pub(super) type Name = Box<[u8]>;

pub(super) type Place = (Ino, Name);

/// All inodes that the kernel or an open file holds on to.
#[derive(Debug)]
pub(super) struct Inodes {
    /// The mounted directory's absolute path on the server.
    root: Bytes,
    nodes: Nodes,
    /// Names whose node's number is not the name's hash.
    exceptions: HashMap<Place, Ino>,
    /// The same for nodes that were forgotten, and all names of those that have several.
    remembered: LruCache<Place, Ino>,
    /// How many remembered names each number has; such numbers are not given to others.
    reserved: HashMap<Ino, u32>,
    /// Numbers that the kernel still knows, of files that became hard links of others.
    aliases: HashMap<Ino, Ino>,
}

#[derive(Debug)]
struct Node {
    ino: Ino,
    kind: FileKind,
    /// Where the node is; empty for the root and for what was removed while still in use.
    places: SmallVec<[Place; 1]>,
    /// How often the kernel was told of this node and has not forgotten it.
    lookups: u64,
    /// Open files and directories.
    opens: u32,
    /// Nodes here that have a place in this one.
    children: u32,
    /// st_nlink as a listing showed it, which counts names that we never saw.
    links_listed: u32,
}

impl Inodes {
    pub(super) fn new(root: Bytes) -> Self {
        let remembered =
            LruCache::new(NonZeroUsize::new(REMEMBERED_MAX).unwrap_or(NonZeroUsize::MIN));
        let mut nodes = Nodes::default();
        nodes.add(Node::new(Ino::ROOT, FileKind::Directory));
        Self {
            root,
            nodes,
            exceptions: HashMap::new(),
            remembered,
            reserved: HashMap::new(),
            aliases: HashMap::new(),
        }
    }

    /// The node that a name leads to, as far as we know.
    pub(super) fn find(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        let usual = usual_number(parent, name, 0);
        if self
            .nodes
            .get(usual)
            .is_some_and(|node| node.is_at(parent, name))
        {
            return Some(usual);
        }
        if self.exceptions.is_empty() {
            return None;
        }
        self.exceptions.get(&place(parent, name)).copied()
    }

    /// The number that a name has, or would most likely get.
    pub(super) fn number(&self, parent: Ino, name: &[u8]) -> Ino {
        let known = self.find(parent, name);
        known.unwrap_or_else(|| usual_number(parent, name, 0))
    }

    /// The node for a name that was just seen on the server. A file of another kind than the one
    /// known there is another file.
    pub(super) fn enter(&mut self, parent: Ino, name: &[u8], kind: FileKind) -> Ino {
        if let Some(ino) = self.find(parent, name) {
            if self.kind(ino) == Some(kind) {
                return ino;
            }
            self.remove(parent, name);
        }
        let ino = self.number_for(parent, name, kind);
        self.nodes.add(Node::new(ino, kind));
        self.add_place(ino, parent, name);
        ino
    }

    /// Counts one more reply that told the kernel of this node.
    pub(super) fn looked_up(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.lookups += 1;
        }
    }

    /// The kernel forgets `count` of the replies. True if the node is gone.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) -> bool {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.drop_unused(ino)
    }

    pub(super) fn opened(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.opens += 1;
        }
    }

    pub(super) fn closed(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.drop_unused(ino);
    }

    /// A name is no more. Gives the node that it led to.
    pub(super) fn remove(&mut self, parent: Ino, name: &[u8]) -> Option<Ino> {
        let Some(ino) = self.find(parent, name) else {
            // What was remembered of the name goes too: what comes there next is another file.
            if let Some(ino) = self.remembered.pop(&place(parent, name)) {
                self.release(ino);
            }
            return None;
        };
        if let Some(node) = self.nodes.get_mut(ino) {
            node.links_listed = node.links_listed.saturating_sub(1);
        }
        self.remove_place(ino, parent, name);
        self.drop_unused(ino);
        Some(ino)
    }

    /// Whether we know two names of a node.
    pub(super) fn has_other_name(&self, ino: Ino) -> bool {
        self.nodes
            .get(ino)
            .is_some_and(|node| node.places.len() > 1)
    }

    /// Whether a node may have more than one name on the server: it is not known to have one.
    pub(super) fn may_have_several_names(&self, ino: Ino) -> bool {
        let is_directory = self.kind(ino) == Some(FileKind::Directory);
        let has_one = self.links_listed(ino) == Some(1) && !self.has_other_name(ino);
        !is_directory && (!has_one || self.reserved.contains_key(&ino))
    }

    /// Another name of the node that a name leads to, as a path; none if that is its only one.
    pub(super) fn other_path(&self, parent: Ino, name: &[u8]) -> Option<Bytes> {
        let node = self.nodes.get(self.find(parent, name)?)?;
        let is_other = |place: &&Place| (place.0, &*place.1) != (parent, name);
        let (above, its) = node.places.iter().find(is_other)?;
        self.path_below(*above, its)
    }

    /// A node has one more name, by link(2).
    pub(super) fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) {
        self.remove(parent, name);
        if let Some(node) = self.nodes.get_mut(ino) {
            let known = u32::try_from(node.places.len()).unwrap_or(u32::MAX);
            node.links_listed = node.links_listed.max(known).saturating_add(1);
        }
        self.add_place(ino, parent, name);
    }

    /// A name has become another, replacing what was there. Gives the node that was replaced.
    ///
    /// Two names of one node stay as they are, as rename(2) has it.
    pub(super) fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Option<Ino> {
        let Some(moved) = self.find(from.0, from.1) else {
            return self.remove(to.0, to.1);
        };
        if self.find(to.0, to.1) == Some(moved) {
            return None;
        }
        let replaced = self.remove(to.0, to.1);
        // The new place first: without any, an unused node would be dropped.
        self.add_place(moved, to.0, to.1);
        self.remove_place(moved, from.0, from.1);
        replaced
    }

    /// A file has become a hard link of another: its names lead to `kept` from now on, and its
    /// number means `kept` for as long as anybody uses it. Gives the names.
    pub(super) fn merge(&mut self, gone: Ino, kept: Ino) -> Vec<Place> {
        // Each number that means the other holds on to it.
        self.opened(kept);
        self.aliases.insert(gone, kept);
        let places = self.places(gone).to_vec();
        for (parent, name) in &places {
            self.remove(*parent, name);
            self.link(kept, *parent, name);
        }
        if !self.nodes.contains(gone) {
            self.drop_alias(gone);
        }
        places
    }

    /// The file that a number means.
    pub(super) fn resolve(&self, mut ino: Ino) -> Ino {
        // Never in a circle: a file that was merged has no names, and is merged with no other.
        while let Some(kept) = self.aliases.get(&ino) {
            ino = *kept;
        }
        ino
    }

    /// Other numbers that mean this file.
    pub(super) fn aliases(&self, ino: Ino) -> Vec<Ino> {
        let others = self
            .aliases
            .keys()
            .filter(|other| self.resolve(**other) == ino);
        others.copied().collect()
    }

    fn drop_alias(&mut self, gone: Ino) {
        if let Some(kept) = self.aliases.remove(&gone) {
            self.closed(kept);
        }
    }

    pub(super) fn kind(&self, ino: Ino) -> Option<FileKind> {
        self.nodes.get(ino).map(|node| node.kind)
    }

    /// st_nlink: names that we know of, or what a listing showed if that is more. Directories
    /// have 1, which tells programs that their subdirectories are not counted.
    pub(super) fn links(&self, ino: Ino) -> u32 {
        let Some(node) = self.nodes.get(ino) else {
            return 0;
        };
        if node.kind == FileKind::Directory {
            return u32::from(ino == Ino::ROOT || !node.places.is_empty());
        }
        if node.places.is_empty() {
            return node.links_listed;
        }
        node.links_listed
            .max(u32::try_from(node.places.len()).unwrap_or(u32::MAX))
    }

    /// Notes the link count that a listing shows.
    pub(super) fn listed(&mut self, ino: Ino, links: u32) {
        if let Some(node) = self.nodes.get_mut(ino) {
            node.links_listed = links;
        }
    }

    /// The link count that a listing showed, if one did.
    pub(super) fn links_listed(&self, ino: Ino) -> Option<u32> {
        let links = self.nodes.get(ino)?.links_listed;
        (links > 0).then_some(links)
    }

    /// The number for a name that leads to no node: the one it had, or its hash if that is free.
    fn number_for(&mut self, parent: Ino, name: &[u8], kind: FileKind) -> Ino {
        if let Some(ino) = self.remembered.pop(&place(parent, name)) {
            self.release(ino);
            // A file of another kind than what its other names lead to is another file.
            if self.kind(ino).is_none_or(|known| known == kind) {
                return ino;
            }
        }
        let mut attempt = 0;
        loop {
            let ino = usual_number(parent, name, attempt);
            if !self.nodes.contains(ino) && !self.reserved.contains_key(&ino) {
                return ino;
            }
            attempt += 1;
        }
    }

    fn add_place(&mut self, ino: Ino, parent: Ino, name: &[u8]) {
        let place = place(parent, name);
        if usual_number(parent, name, 0) != ino {
            self.exceptions.insert(place.clone(), ino);
        }
        if let Some(above) = self.nodes.get_mut(parent) {
            above.children += 1;
        }
        if let Some(node) = self.nodes.get_mut(ino) {
            node.places.push(place);
        }
    }

    fn remove_place(&mut self, ino: Ino, parent: Ino, name: &[u8]) {
        self.exceptions.remove(&place(parent, name));
        if let Some(node) = self.nodes.get_mut(ino) {
            node.places
                .retain(|(above, its)| (*above, &**its) != (parent, name));
        }
        if let Some(above) = self.nodes.get_mut(parent) {
            above.children = above.children.saturating_sub(1);
        }
        self.drop_unused(parent);
    }

    /// Forgets a node that nobody holds on to, and then its parents if they were only here for it.
    fn drop_unused(&mut self, ino: Ino) -> bool {
        if ino == Ino::ROOT || self.nodes.get(ino).is_none_or(|node| node.is_used()) {
            return false;
        }
        let Some(node) = self.nodes.remove(ino) else {
            return false;
        };
        self.drop_alias(ino);
        // A name whose number is its hash is remembered too where others share the number: else it
        // would seem taken by them.
        let is_shared = node.places.len() > 1 || self.reserved.contains_key(&ino);
        for (parent, name) in node.places {
            let place = (parent, name);
            if self.exceptions.remove(&place).is_some() || is_shared {
                self.remember(place, ino);
            }
            if let Some(above) = self.nodes.get_mut(parent) {
                above.children = above.children.saturating_sub(1);
            }
            self.drop_unused(parent);
        }
        true
    }

    fn remember(&mut self, place: Place, ino: Ino) {
        *self.reserved.entry(ino).or_insert(0) += 1;
        if let Some((_, pushed_out)) = self.remembered.push(place, ino) {
            self.release(pushed_out);
        }
    }

    fn release(&mut self, ino: Ino) {
        if let Some(names) = self.reserved.get_mut(&ino) {
            *names -= 1;
            if *names == 0 {
                self.reserved.remove(&ino);
            }
        }
    }
}

impl Node {
    fn new(ino: Ino, kind: FileKind) -> Self {
        Self {
            ino,
            kind,
            places: SmallVec::new(),
            lookups: 0,
            opens: 0,
            children: 0,
            links_listed: 0,
        }
    }

    fn is_at(&self, parent: Ino, name: &[u8]) -> bool {
        self.places
            .iter()
            .any(|(above, its)| (*above, &**its) == (parent, name))
    }

    const fn is_used(&self) -> bool {
        self.lookups > 0 || self.opens > 0 || self.children > 0
    }
}

fn place(parent: Ino, name: &[u8]) -> Place {
    (parent, name.into())
}

/// The number that a name would have; `attempt` counts those that were taken.
fn usual_number(parent: Ino, name: &[u8], attempt: u32) -> Ino {
    let mut hasher = DefaultHasher::new();
    (parent.0, name, attempt).hash(&mut hasher);
    // 53 bits: some programs keep st_ino in a double. 0 means "no inode" to the kernel, 1 is the
    // root.
    Ino((hasher.finish() >> 11).max(2))
}

/// Names of forgotten nodes whose number is no hash: about 100 bytes each. `git gc` and package
/// managers rename some thousand files; beyond this the oldest get a new number.
const REMEMBERED_MAX: usize = 1 << 18;
/// Deeper than any path the kernel lets through (PATH_MAX is 4096 bytes, so 2048 components).
const DEPTH_MAX: usize = 4096;
