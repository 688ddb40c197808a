//! Where nodes are: paths on the server, and directories above.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DEPTH_MAX, Inodes, Place};
use crate::fs::Ino;

impl Inodes {
    /// The absolute path on the server; `None` if no name leads there any more.
    pub(in crate::fs) fn path(&self, ino: Ino) -> Option<Bytes> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let (parent, name) = self.nodes.get(at)?.places.first()?;
            names.push(name);
            at = *parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        let len = names.iter().map(|name| name.len() + 1).sum::<usize>();
        let mut path = BytesMut::with_capacity(self.root.len() + len);
        path.put_slice(&self.root);
        for name in names.iter().rev() {
            if !path.ends_with(b"/") {
                path.put_u8(b'/');
            }
            path.put_slice(name);
        }
        Some(path.freeze())
    }

    /// The names that lead to a node, as far as we know, each with its directory.
    pub(in crate::fs) fn places(&self, ino: Ino) -> &[Place] {
        let node = self.nodes.get(ino);
        node.map_or(&[], |node| &node.places)
    }

    /// All paths that lead to a node, as far as we know.
    pub(in crate::fs) fn paths(&self, ino: Ino) -> Vec<Bytes> {
        self.places(ino)
            .iter()
            .filter_map(|(parent, name)| self.path_below(*parent, name))
            .collect()
    }

    /// The node that an absolute path on the server leads to, if it is one of ours.
    pub(in crate::fs) fn at_path(&self, path: &[u8]) -> Option<Ino> {
        let below = path.strip_prefix(&self.root[..])?;
        if !below.starts_with(b"/") && !self.root.ends_with(b"/") && !below.is_empty() {
            return None;
        }
        let mut names = below
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        names.try_fold(Ino::ROOT, |parent, name| self.find(parent, name))
    }

    /// The path that a name in a directory has.
    pub(in crate::fs) fn path_below(&self, parent: Ino, name: &[u8]) -> Option<Bytes> {
        let above = self.path(parent)?;
        let mut path = BytesMut::with_capacity(above.len() + 1 + name.len());
        path.put_slice(&above);
        if !above.ends_with(b"/") {
            path.put_u8(b'/');
        }
        path.put_slice(name);
        Some(path.freeze())
    }

    /// The directory that a node is in; the root's is itself.
    pub(in crate::fs) fn parent(&self, ino: Ino) -> Ino {
        let place = self.nodes.get(ino).and_then(|node| node.places.first());
        place.map_or(Ino::ROOT, |(parent, _)| *parent)
    }

    /// How many directories lie between a node and the root.
    pub(in crate::fs) fn depth(&self, mut ino: Ino) -> usize {
        let mut depth = 0;
        while ino != Ino::ROOT && depth < DEPTH_MAX {
            ino = self.parent(ino);
            depth += 1;
        }
        depth
    }

    /// The directories above a node, nearest first.
    pub(in crate::fs) fn above(&self, mut ino: Ino) -> Vec<Ino> {
        let mut above = Vec::new();
        while ino != Ino::ROOT && above.len() < DEPTH_MAX {
            ino = self.parent(ino);
            above.push(ino);
        }
        above
    }

    pub(in crate::fs) fn root(&self) -> &Bytes {
        &self.root
    }
}
