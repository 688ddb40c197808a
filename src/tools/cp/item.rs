//! One thing to copy, and the pieces of work that are made of such things.

use std::sync::Arc;

use nix::dir::OwningIter;

use super::node::Node;
use super::operands::join;
use super::plan::{Kind, Look};
use crate::ioctl::{COPY_NAMES_MAX, COPY_SIZE, CopyHeader};

/// Files up to this size are copied many at a time. Above it, progress within a file is of interest.
pub(super) const SMALL_MAX: u64 = 8 << 20;
/// All files of a batch together: one that is streamed after all must not take for ever.
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// One name to copy. Its pair of directories waits for it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) node: Arc<Node>,
    pub(super) name: Vec<u8>,
    /// The new name, if it is another one.
    pub(super) new_name: Option<Vec<u8>>,
    /// As what it is copied: through a symbolic link if it is followed.
    pub(super) look: Look,
    pub(super) follow: bool,
}

impl Item {
    pub(super) fn to_name(&self) -> &[u8] {
        self.new_name.as_ref().unwrap_or(&self.name)
    }

    pub(super) fn source_path(&self) -> Vec<u8> {
        join(&self.node.source_path(), &self.name)
    }

    pub(super) fn new_path(&self) -> Vec<u8> {
        join(&self.node.new_path(), self.to_name())
    }

    /// Whether the mount may be asked to copy it together with others.
    pub(super) fn is_for_batch(&self) -> bool {
        self.look.kind == Kind::File
            && self.look.size <= SMALL_MAX
            && !self.follow
            && self.new_name.is_none()
            && self.look.id.dev == self.node.to_id.dev
    }
}

/// Work with a directory.
pub(super) enum Directory {
    /// To be made and read.
    Enter(Item),
    /// To be read further.
    Read(Arc<Node>, OwningIter),
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enter(item) => f.debug_tuple("Enter").field(item).finish(),
            Self::Read(node, _) => f.debug_tuple("Read").field(node).finish(),
        }
    }
}

/// Work with files.
#[derive(Debug)]
pub(super) enum Files {
    /// Small ones of one directory, to be copied by one question to the mount.
    Batch(Vec<Item>),
    One(Item),
    /// To be linked to what was copied before.
    Link(Item, Place),
}

/// A name in a directory that is filled.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    pub(super) name: Vec<u8>,
}

impl Files {
    pub(super) fn is_large(&self) -> bool {
        matches!(self, Self::One(item) if item.look.kind == Kind::File && item.look.size > SMALL_MAX)
    }
}

/// Files of one directory that fit into one question.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    names_size: usize,
    size: u64,
}

impl Batch {
    /// Adds one; gives those before it if it does not fit in with them.
    pub(super) fn add(&mut self, item: Item) -> Option<Vec<Item>> {
        let room = usize::try_from(COPY_SIZE).unwrap_or_default() - CopyHeader::SIZE;
        let name_size = item.name.len() + 1;
        let is_full = self.items.len() == COPY_NAMES_MAX
            || self.names_size + name_size > room
            || self.size + item.look.size > BATCH_BYTES_MAX;
        let full = if is_full { self.take() } else { None };
        self.names_size += name_size;
        self.size += item.look.size;
        self.items.push(item);
        full
    }

    /// What there is, if there is something.
    pub(super) fn take(&mut self) -> Option<Vec<Item>> {
        let taken = std::mem::take(self);
        (!taken.items.is_empty()).then_some(taken.items)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use nix::fcntl::AT_FDCWD;

    use super::super::node::{Fds, Finish, Names, open_from, open_to};
    use super::super::plan::tests::look;
    use super::*;

    pub(in crate::tools::cp) fn item(name: &[u8], kind: Kind, size: u64) -> Item {
        let open = |_| open_from(AT_FDCWD, b"/", false).unwrap();
        let to = open_to(AT_FDCWD, b"/").unwrap();
        let fds = Fds::new(open(()), to, &Arc::default());
        let names = Names {
            from: b"from".to_vec(),
            to: b"to".to_vec(),
            follow: false,
        };
        let node = Node::new(None, names, fds, Finish::Nothing).unwrap();
        let mut look = look(kind, 1);
        (look.size, look.id.dev) = (size, node.to_id.dev);
        Item {
            node,
            name: name.to_vec(),
            new_name: None,
            look,
            follow: false,
        }
    }

    pub(in crate::tools::cp) fn directory() -> Directory {
        Directory::Enter(item(b"d", Kind::Dir, 0))
    }

    pub(in crate::tools::cp) fn small() -> Files {
        Files::One(item(b"s", Kind::File, SMALL_MAX))
    }

    pub(in crate::tools::cp) fn large() -> Files {
        Files::One(item(b"l", Kind::File, SMALL_MAX + 1))
    }

    /// How many a batch takes before it is full.
    fn fitting(item: &Item) -> usize {
        let mut batch = Batch::default();
        loop {
            if let Some(full) = batch.add(item.clone()) {
                assert_eq!(batch.take().map(|rest| rest.len()), Some(1));
                assert!(batch.take().is_none());
                return full.len();
            }
        }
    }

    #[test]
    fn a_batch_is_bounded_by_names_their_size_and_bytes() {
        assert_eq!(fitting(&item(b"a", Kind::File, 0)), COPY_NAMES_MAX);
        let long = item(&[b'x'; 255], Kind::File, 0);
        assert_eq!(fitting(&long), (16000 - 24) / 256);
        assert_eq!(fitting(&item(b"a", Kind::File, SMALL_MAX)), 8);
    }

    #[test]
    fn only_small_files_under_their_own_names_go_into_batches() {
        let plain = item(b"a", Kind::File, SMALL_MAX);
        assert!(plain.is_for_batch());
        assert!(!item(b"a", Kind::File, SMALL_MAX + 1).is_for_batch());
        assert!(!item(b"a", Kind::Symlink, 1).is_for_batch());
        let renamed = Item {
            new_name: Some(b"b".to_vec()),
            ..plain.clone()
        };
        assert!(!renamed.is_for_batch());
        assert_eq!(renamed.new_path(), b"to/b");
        assert_eq!(renamed.source_path(), b"from/a");
        let mut elsewhere = plain;
        elsewhere.look.id.dev += 1;
        assert!(!elsewhere.is_for_batch());
    }
}
