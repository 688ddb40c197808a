//! In which order a program opens the files of a directory: that of the server, or that of inode
//! numbers (cp(1)). Pure.

use std::collections::VecDeque;

use crate::cache::Directory;
use crate::fs::Ino;
use crate::fs::inodes::{Inodes, Name};
use crate::sftp::FileKind;

/// An order of the files of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Place,
    Inode,
}

impl Order {
    /// The order that opening `one` and then `other` followed, if both are in the listing: the one
    /// that skipped fewer files.
    pub(super) fn followed(
        [one, other]: [Ino; 2],
        dir: Ino,
        directory: &Directory,
        inodes: &Inodes,
    ) -> Option<Self> {
        let mut places = [None; 2];
        let mut between = 0;
        for entry in directory.entries() {
            let number = inodes.number(dir, &entry.name);
            for (place, opened) in places.iter_mut().zip([one, other]) {
                if number == opened {
                    *place = Some(entry.place);
                }
            }
            between +=
                usize::from(entry.kind == FileKind::Regular && number > one && number < other);
        }
        let [Some(first), Some(second)] = places else {
            return None;
        };
        let skipped_by_place = second.checked_sub(first + 1);
        let skipped_by_inode = (one < other).then_some(between);
        Some(match (skipped_by_place, skipped_by_inode) {
            (Some(by_place), Some(by_inode)) if by_inode < by_place as usize => Self::Inode,
            (None, Some(_)) => Self::Inode,
            _ => Self::Place,
        })
    }

    /// The regular files of a directory in this order, from the one after `last` on.
    pub(super) fn sort(
        self,
        dir: Ino,
        directory: &Directory,
        last: Option<Ino>,
        inodes: &Inodes,
    ) -> VecDeque<Name> {
        let files = directory.entries().iter();
        let files = files.filter(|entry| entry.kind == FileKind::Regular);
        let mut keyed: Vec<_> = match self {
            Self::Place => files
                .map(|entry| (u64::from(entry.place), &entry.name))
                .collect(),
            Self::Inode => files
                .map(|entry| (inodes.number(dir, &entry.name).0, &entry.name))
                .collect(),
        };
        keyed.sort_unstable();
        let at = last.and_then(|last| {
            let is_last = |(_, name): &(u64, &Name)| inodes.number(dir, name) == last;
            keyed.iter().position(is_last)
        });
        keyed.rotate_left(at.map_or(0, |at| at + 1));
        keyed.into_iter().map(|(_, name)| name.clone()).collect()
    }
}
