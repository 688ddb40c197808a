//! What a [`Dialer`](super::super::Dialer) remembers from one connection to the next, so that a
//! person is asked once.
//!
//! **Invariant:** a secret is remembered only after the server took it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::PrivateKey;

use super::super::host_keys::Trust;
use super::super::secrets::Secret;

/// Shared by all connections of one dialer.
#[derive(Default)]
pub(in super::super) struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Somebody was let in.
    done: bool,
    host_key: Option<(Vec<u8>, Trust)>,
    proofs: Proofs,
}

/// What opened the door.
#[derive(Default, Clone)]
pub(in super::super) struct Proofs {
    /// The public keys that the server took, as blobs (RFC 4253 section 6.6). Tried first.
    pub(in super::super) public_keys: Vec<Vec<u8>>,
    /// Private keys that were read from a file, and perhaps decrypted. They wipe themselves.
    pub(in super::super) private_keys: Vec<(PathBuf, Arc<PrivateKey>)>,
    pub(in super::super) password: Option<Secret>,
    /// Answers of keyboard-interactive (RFC 4256), by question.
    pub(in super::super) answers: Vec<(String, Secret)>,
}

impl Proofs {
    pub(in super::super) fn private_key(&self, path: &Path) -> Option<Arc<PrivateKey>> {
        self.private_keys
            .iter()
            .find(|(of, _)| of == path)
            .map(|(_, key)| key.clone())
    }

    pub(in super::super) fn answer(&self, question: &str) -> Option<Secret> {
        self.answers
            .iter()
            .find(|(asked, _)| asked == question)
            .map(|(_, answer)| answer.clone())
    }
}

impl Memory {
    /// Nobody was let in yet.
    pub(in super::super) fn is_new(&self) -> bool {
        !self.lock().done
    }

    pub(in super::super) fn proofs(&self) -> Proofs {
        self.lock().proofs.clone()
    }

    /// The server let us in with these.
    pub(in super::super) fn remember(&self, proofs: Proofs) {
        let mut remembered = self.lock();
        remembered.done = true;
        remembered.proofs = proofs;
    }

    pub(in super::super) fn trust_of_host_key(&self, key: &[u8]) -> Option<Trust> {
        self.lock()
            .host_key
            .as_ref()
            .filter(|(known, _)| known == key)
            .map(|(_, trust)| *trust)
    }

    pub(in super::super) fn remember_host_key(&self, key: Vec<u8>, trust: Trust) {
        self.lock().host_key = Some((key, trust));
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
