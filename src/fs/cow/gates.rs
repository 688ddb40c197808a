//! A gate for each file: many may pass who change the file or open it; one may close it who gives
//! it another server file. Then nobody passes until it is open again.
//!
//! Unlike the locks of `fs`, gates are held while waiting for the server. Several are taken in the
//! order of their inode numbers, so that no two wait for each other, and nobody who has passed one
//! asks for the same one again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::fs::Ino;

/// Held by those who pass.
#[must_use]
pub(in crate::fs) struct Passes {
    _held: Vec<OwnedRwLockReadGuard<()>>,
}

/// Held by him who closes.
#[must_use]
pub(in crate::fs) struct Closed {
    _held: Vec<OwnedRwLockWriteGuard<()>>,
}

/// The gates of all files; one that nobody uses does not exist.
#[derive(Default)]
pub(super) struct Gates {
    all: Mutex<HashMap<Ino, Arc<RwLock<()>>>>,
}

impl Gates {
    /// Passes the gates of these files, when they are open.
    pub(super) async fn pass(&self, files: &[Ino]) -> Passes {
        let mut held = Vec::with_capacity(files.len());
        for gate in self.find(files) {
            held.push(gate.read_owned().await);
        }
        Passes { _held: held }
    }

    /// Closes the gates of these files, when all who passed have left.
    pub(super) async fn close(&self, files: &[Ino]) -> Closed {
        let mut held = Vec::with_capacity(files.len());
        for gate in self.find(files) {
            held.push(gate.write_owned().await);
        }
        Closed { _held: held }
    }

    /// In order, each once.
    fn find(&self, files: &[Ino]) -> Vec<Arc<RwLock<()>>> {
        let mut files = files.to_vec();
        files.sort_unstable();
        files.dedup();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= UNUSED_MAX {
            all.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        files
            .into_iter()
            .map(|ino| Arc::clone(all.entry(ino).or_default()))
            .collect()
    }
}

/// Unused gates are cleared away when there are this many: some kilobytes.
const UNUSED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn nobody_passes_a_closed_gate_and_all_pass_an_open_one() {
        let gates = Gates::default();
        let first = gates.pass(&[Ino(2)]).await;
        let second = gates.pass(&[Ino(2), Ino(3), Ino(2)]).await;
        assert!(gates.close(&[Ino(3), Ino(2)]).now_or_never().is_none());
        drop((first, second));
        let closed = gates.close(&[Ino(3), Ino(2), Ino(3)]).await;
        assert!(gates.pass(&[Ino(2)]).now_or_never().is_none());
        assert!(gates.pass(&[Ino(4)]).now_or_never().is_some());
        drop(closed);
        assert!(gates.pass(&[Ino(2)]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn gates_that_nobody_uses_do_not_pile_up() {
        let gates = Gates::default();
        for number in 0..10 * UNUSED_MAX as u64 {
            drop(gates.pass(&[Ino(number)]).await);
        }
        assert!(gates.all.lock().unwrap().len() <= UNUSED_MAX);
    }
}
