//! Signs what the server asks to be signed, with the agent or with a key from a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, signature};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::host_config::Settings;
use super::super::login::{Proofs, StoredKey};
use super::super::secrets::Prompter;
use super::identities;
use super::identities::Origin;

/// Holds the agent's connection and the private keys that were read so far.
pub(super) struct Signer {
    agent: Option<AgentClient<UnixStream>>,
    /// Read for this login.
    keys: Vec<(PathBuf, Arc<PrivateKey>)>,
    known: Proofs,
    prompter: Prompter,
    /// What to sign with next.
    pub(super) with: Option<Origin>,
}

/// Why there is no signature.
pub(super) enum Unsigned {
    /// The connection is gone.
    Gone,
    /// The agent would not, or the key cannot be had.
    Declined(String),
}

impl From<russh::SendError> for Unsigned {
    fn from(_: russh::SendError) -> Self {
        Self::Gone
    }
}

impl Signer {
    /// With the keys that are `known` from an earlier connection.
    pub(super) fn new(known: Proofs, prompter: Prompter) -> Self {
        Self {
            agent: None,
            keys: Vec::new(),
            known,
            prompter,
            with: None,
        }
    }

    /// The agent's keys. None if there is no agent, which ssh(1) does not complain about either;
    /// the reason goes to `notes` if there should be one.
    pub(super) async fn ask_agent(
        &mut self,
        settings: &Settings,
        binding: Option<&russh::keys::agent::AgentSessionBinding>,
        notes: &mut Vec<String>,
    ) -> Vec<AgentIdentity> {
        let Some(path) = settings.identity_agent() else {
            return Vec::new();
        };
        let list = async {
            let mut agent = AgentClient::connect_uds(&path).await?;
            if let Some(binding) = binding {
                // An agent that cannot be bound has no keys that need it (OpenSSH's PROTOCOL.agent).
                let _ = agent.bind_session(binding, false).await;
            }
            let keys = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, keys))
        };
        match timeout(AGENT_PATIENCE, list).await {
            Ok(Ok((agent, keys))) => {
                self.agent = Some(agent);
                return keys;
            }
            Ok(Err(error)) => notes.push(format!("agent ({}: {error})", path.display())),
            Err(_) => notes.push(format!("agent ({}: no answer)", path.display())),
        }
        Vec::new()
    }

    /// The private key in a file; asks for its passphrase if it was not read yet.
    pub(super) async fn key(&mut self, path: &Path) -> Result<Arc<PrivateKey>, String> {
        if let Some((_, key)) = self.keys.iter().find(|(of, _)| of == path) {
            return Ok(key.clone());
        }
        if let Some(key) = self.known.private_key(path) {
            return Ok(Arc::new(key));
        }
        let (of, prompter) = (path.to_owned(), self.prompter.clone());
        let loaded = tokio::task::spawn_blocking(move || identities::load(&of, &prompter)).await;
        let key = loaded.map_err(|error| error.to_string())??;
        self.keys.push((path.to_owned(), key.clone()));
        Ok(key)
    }

    /// The file that signed last, and its key.
    pub(super) fn key_in_use(&self) -> Option<(PathBuf, StoredKey)> {
        let Some(Origin::File(path)) = &self.with else {
            return None;
        };
        let read = self.keys.iter().find(|(of, _)| of == path);
        let read = read.and_then(|(of, key)| Some((of.clone(), StoredKey::new(key)?)));
        let known = &self.known.private_keys;
        read.or_else(|| known.iter().find(|(of, _)| of == path).cloned())
    }

    async fn sign(
        &mut self,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        let declined = |error: String| Unsigned::Declined(error);
        match self.with.clone() {
            Some(Origin::Agent(identity)) => {
                let Some(agent) = &mut self.agent else {
                    return Err(declined("no agent".into()));
                };
                let signed = agent.sign_request(&identity, hash, data).await;
                signed.map_err(|error| declined(format!("the agent did not sign: {error}")))
            }
            Some(Origin::File(path)) => {
                let key = self.key(&path).await.map_err(declined)?;
                append_signature(&key, hash, &mut data).map_err(declined)?;
                Ok(data)
            }
            None => Err(declined("no key".into())),
        }
    }
}

impl russh::Signer for Signer {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        self.sign(hash, data).await
    }
}

/// Puts the signature of `data` behind it, as a string of RFC 4251 section 5.
fn append_signature(
    key: &PrivateKey,
    hash: Option<HashAlg>,
    data: &mut Vec<u8>,
) -> Result<(), String> {
    let signature = match key.key_data() {
        KeypairData::Rsa(pair) => signature::Signer::try_sign(&(pair, hash), data.as_slice()),
        other => signature::Signer::try_sign(other, data.as_slice()),
    };
    let signature = signature.map_err(|error| format!("cannot sign: {error}"))?;
    let mut blob = Vec::new();
    let encoded = signature
        .encode(&mut blob)
        .and_then(|()| blob.as_slice().encode(data));
    encoded.map_err(|error| format!("cannot sign: {error}"))
}

/// Some agents ask a person before they list their keys.
const AGENT_PATIENCE: Duration = Duration::from_secs(60);
