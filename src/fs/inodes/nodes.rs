//! Nodes by number. A table of a million has as many empty places, so that each holds a pointer only, and
//! the number is in the node.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::Node;
use crate::fs::Ino;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    table: HashTable<Box<Node>>,
    key: RandomState,
}

impl Nodes {
    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        let node = self.table.find(self.hash(ino), |node| node.ino == ino)?;
        Some(node)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        let hash = self.hash(ino);
        let node = self.table.find_mut(hash, |node| node.ino == ino)?;
        Some(node)
    }

    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.get(ino).is_some()
    }

    /// Adds a node, if there is none of its number.
    pub(super) fn add(&mut self, node: Node) {
        if self.contains(node.ino) {
            return;
        }
        let (hash, key) = (self.hash(node.ino), &self.key);
        let node = Box::new(node);
        self.table
            .insert_unique(hash, node, |node| key.hash_one(node.ino));
    }

    pub(super) fn remove(&mut self, ino: Ino) -> Option<Node> {
        let hash = self.hash(ino);
        let entry = self.table.find_entry(hash, |node| node.ino == ino).ok()?;
        Some(*entry.remove().0)
    }

    fn hash(&self, ino: Ino) -> u64 {
        self.key.hash_one(ino)
    }
}
