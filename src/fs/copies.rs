//! What was copied, and how: counters for all, and for the last files a note each.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::Ino;
use crate::ioctl::Way;

/// Files and bytes since the mount was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Files that became hard links.
    pub(crate) linked: u64,
    /// Files that the server copied.
    pub(crate) copied: u64,
    /// Files whose data came here and went back.
    pub(crate) streamed: u64,
    /// Bytes that did not come here and go back.
    pub(crate) bytes_saved: u64,
}

/// How a file's content came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A program wrote some of it.
    Written,
    Copied(Way),
}

/// Copies made here.
pub(super) struct Copies(Mutex<State>);

struct State {
    totals: Totals,
    last: LruCache<Ino, Origin>,
}

impl Default for Copies {
    fn default() -> Self {
        let max = NonZeroUsize::new(NOTED_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(State {
            totals: Totals::default(),
            last: LruCache::new(max),
        }))
    }
}

impl Copies {
    /// Notes `bytes` of a file copied; `is_end` with the last of them.
    pub(super) fn note(&self, target: Ino, way: Way, bytes: u64, is_end: bool) {
        let mut state = self.state();
        let files = u64::from(is_end);
        let State { totals, last } = &mut *state;
        match way {
            Way::Linked => totals.linked += files,
            Way::Copied => totals.copied += files,
            Way::Streamed => totals.streamed += files,
        }
        if way != Way::Streamed {
            totals.bytes_saved = totals.bytes_saved.saturating_add(bytes);
        }
        last.put(target, Origin::Copied(way));
    }

    /// Notes that a program has written to a file.
    pub(super) fn note_written(&self, file: Ino) {
        self.state().last.put(file, Origin::Written);
    }

    /// A number that a new file has got is not told the story of an earlier one.
    pub(super) fn forget(&self, file: Ino) {
        self.state().last.pop(&file);
    }

    /// How the content of a file came to be there, if that was here and is remembered.
    pub(super) fn origin(&self, file: Ino) -> Option<Origin> {
        self.state().last.peek(&file).copied()
    }

    pub(super) fn totals(&self) -> Totals {
        self.state().totals
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files of which it is remembered how their content came: some 60 bytes each.
const NOTED_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_and_its_bytes_as_they_come() {
        let copies = Copies::default();
        copies.note(Ino(2), Way::Copied, 100, false);
        copies.note(Ino(2), Way::Copied, 20, true);
        copies.note(Ino(3), Way::Linked, 7, true);
        copies.note(Ino(4), Way::Streamed, 1000, true);
        let totals = Totals {
            linked: 1,
            copied: 1,
            streamed: 1,
            bytes_saved: 127,
        };
        assert_eq!(copies.totals(), totals);
        assert_eq!(copies.origin(Ino(3)), Some(Origin::Copied(Way::Linked)));
        copies.note_written(Ino(3));
        assert_eq!(copies.origin(Ino(3)), Some(Origin::Written));
        copies.forget(Ino(3));
        assert_eq!(copies.origin(Ino(3)), None);
    }
}
