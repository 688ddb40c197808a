//! What a connection in process needs beside the target, and what a [`Dialer`](super::Dialer)
//! remembers from one to the next, so that a person is asked once.
//!
//! **Invariant:** a secret is remembered only after the server took it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::PrivateKey;

use super::host_config::Settings;
use super::host_keys::Trust;
use super::secrets::{Prompter, Secret};

/// What a connection needs.
pub(super) struct Plan {
    pub(super) settings: Arc<Settings>,
    pub(super) memory: Arc<Memory>,
    /// Whom to ask what is not remembered.
    pub(super) prompter: Prompter,
    /// A password to offer once.
    pub(super) password: Option<Secret>,
    /// The subsystem, or a program if there is a `/` in it.
    pub(super) sftp_server: Option<String>,
}

/// Shared by all connections of one dialer.
#[derive(Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Somebody was let in.
    done: bool,
    host_key: Option<(Vec<u8>, Trust)>,
    proofs: Proofs,
}

/// What opened the door.
#[derive(Default, Clone)]
pub(super) struct Proofs {
    /// The public keys that the server took, as blobs (RFC 4253 section 6.6). Tried first.
    pub(super) public_keys: Vec<Vec<u8>>,
    /// Private keys that were read from a file, and perhaps decrypted. They wipe themselves.
    pub(super) private_keys: Vec<(PathBuf, Arc<PrivateKey>)>,
    pub(super) password: Option<Secret>,
    /// Answers of keyboard-interactive (RFC 4256), by question.
    pub(super) answers: Vec<(String, Secret)>,
}

impl Proofs {
    pub(super) fn private_key(&self, path: &Path) -> Option<Arc<PrivateKey>> {
        self.private_keys
            .iter()
            .find(|(of, _)| of == path)
            .map(|(_, key)| key.clone())
    }

    pub(super) fn answer(&self, question: &str) -> Option<Secret> {
        self.answers
            .iter()
            .find(|(asked, _)| asked == question)
            .map(|(_, answer)| answer.clone())
    }
}

impl Memory {
    /// Nobody was let in yet.
    pub(super) fn is_new(&self) -> bool {
        !self.lock().done
    }

    pub(super) fn proofs(&self) -> Proofs {
        self.lock().proofs.clone()
    }

    /// The server let us in with these.
    pub(super) fn remember(&self, proofs: Proofs) {
        let mut remembered = self.lock();
        remembered.done = true;
        remembered.proofs = proofs;
    }

    pub(super) fn trust_of_host_key(&self, key: &[u8]) -> Option<Trust> {
        self.lock()
            .host_key
            .as_ref()
            .filter(|(known, _)| known == key)
            .map(|(_, trust)| *trust)
    }

    pub(super) fn remember_host_key(&self, key: Vec<u8>, trust: Trust) {
        self.lock().host_key = Some((key, trust));
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
