//! What a connection in process needs beside the target, and what a [`Dialer`](super::Dialer)
//! remembers from one to the next, so that a person is asked once.
//!
//! **Invariant:** a secret is remembered only after the server took it, in locked memory, and only if
//! the user wants that (`-o reconnect_secret`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use zeroize::Zeroizing;

use super::ReconnectSecret;
use super::host_config::Settings;
use super::host_keys::Trust;
use super::secrets::{Prompter, Secret};
use crate::error::{Error, Result};

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
pub(super) struct Memory {
    policy: ReconnectSecret,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// Somebody was let in.
    done: bool,
    /// The last login was denied: what is remembered may be wrong.
    doubted: bool,
    host_key: Option<(Vec<u8>, Trust)>,
    proofs: Proofs,
}

/// What opened the door.
#[derive(Default, Clone)]
pub(super) struct Proofs {
    /// The public keys that the server took, as blobs (RFC 4253 section 6.6). Tried first.
    pub(super) public_keys: Vec<Vec<u8>>,
    /// Private keys that were read from a file, and perhaps decrypted.
    pub(super) private_keys: Vec<(PathBuf, StoredKey)>,
    pub(super) password: Option<Secret>,
    /// Answers of keyboard-interactive (RFC 4256), and to a child ssh, by question.
    pub(super) answers: Vec<(String, Secret)>,
}

/// A private key in OpenSSH's format, not encrypted, in locked memory.
#[derive(Clone)]
pub(super) struct StoredKey(Secret);

impl StoredKey {
    /// `None` for a key that has no such form, or is longer than a [`Secret`] may be.
    pub(super) fn new(key: &PrivateKey) -> Option<Self> {
        // Wipes itself, as does the key.
        let text = key.to_openssh(LineEnding::LF).ok()?;
        let mut bytes = Zeroizing::new(text.as_bytes().to_vec());
        Secret::new(&mut bytes).map(Self)
    }

    /// The key, in memory that wipes itself but is not locked: for one signature.
    pub(super) fn open(&self) -> Option<PrivateKey> {
        PrivateKey::from_openssh(self.0.bytes()).ok()
    }
}

impl Proofs {
    pub(super) fn private_key(&self, path: &Path) -> Option<PrivateKey> {
        self.private_keys
            .iter()
            .find(|(of, _)| of == path)
            .and_then(|(_, key)| key.open())
    }

    pub(super) fn answer(&self, question: &str) -> Option<Secret> {
        self.answers
            .iter()
            .find(|(asked, _)| asked == question)
            .map(|(_, answer)| answer.clone())
    }

    /// Without what a person typed.
    fn without_words(self) -> Self {
        Self {
            password: None,
            answers: Vec::new(),
            ..self
        }
    }
}

impl Memory {
    pub(super) fn new(policy: ReconnectSecret) -> Self {
        Self {
            policy,
            remembered: Mutex::default(),
        }
    }

    /// Nobody was let in yet.
    pub(super) fn is_new(&self) -> bool {
        !self.lock().done
    }

    /// What is remembered. What a person typed is left out if it did not open the door last time and
    /// the `prompter` has somebody to ask.
    pub(super) fn proofs(&self, prompter: &Prompter) -> Proofs {
        let remembered = self.lock();
        let proofs = remembered.proofs.clone();
        if remembered.doubted && prompter.can_ask() {
            return proofs.without_words();
        }
        proofs
    }

    /// Whether the last login was denied.
    pub(super) fn is_doubted(&self) -> bool {
        self.lock().doubted
    }

    /// Notes how a login ended.
    ///
    /// # Errors
    /// The login's.
    pub(super) fn note(&self, login: Result<Proofs>) -> Result<()> {
        let mut remembered = self.lock();
        match login {
            Ok(proofs) => {
                remembered.done = true;
                remembered.doubted = false;
                remembered.proofs = match self.policy {
                    ReconnectSecret::Keep => proofs,
                    ReconnectSecret::Ask | ReconnectSecret::Never => Proofs {
                        public_keys: proofs.public_keys,
                        ..Proofs::default()
                    },
                };
                Ok(())
            }
            Err(error) => {
                remembered.doubted |= matches!(error, Error::Denied(_));
                Err(error)
            }
        }
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
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
