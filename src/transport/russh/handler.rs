//! What the server may ask or tell outside the SFTP channel: its key, its banner, its farewell.
//!
//! **Invariant:** the server opens no channel to us: no forwarded agent, X11 or port.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, Names};

use super::super::Diagnosis;
use super::super::host_config::Settings;
use super::super::host_keys::{self, Trust};
use super::super::login::Memory;
use super::super::prompt::printable;
use super::super::secrets::Prompter;
use super::algorithms;
use crate::error::Error;

/// One connection's side of the conversation that russh leads.
pub(super) struct Handler {
    pub(super) settings: Arc<Settings>,
    pub(super) prompter: Prompter,
    pub(super) memory: Arc<Memory>,
    pub(super) diagnosis: Diagnosis,
    pub(super) learned: Arc<Learned>,
}

/// What the handshake found out.
#[derive(Default)]
pub(super) struct Learned {
    /// A person is being asked about the host key: nothing is late meanwhile.
    asking: AtomicBool,
    facts: Mutex<Facts>,
}

#[derive(Default)]
pub(super) struct Facts {
    /// How far the host key lets us trust the server; `None` before it was checked.
    pub(super) trust: Option<Trust>,
    /// `OpenSSH_9.2p1 Debian-2`.
    pub(super) server: String,
    /// What encrypts.
    pub(super) cipher: String,
    /// The server's reason for hanging up.
    pub(super) farewell: Option<String>,
}

impl Learned {
    pub(super) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::SeqCst)
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends the handshake: russh's reason or ours.
#[derive(Debug)]
pub(super) enum Failure {
    Ssh(russh::Error),
    Ours(Error),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// Sends what the server opens back where it came from: dropping the handle rejects.
macro_rules! reject {
    ($($name:ident($($kind:ty),*);)*) => { $(
        async fn $name(
            &mut self,
            _: Channel<Msg>,
            $(_: $kind,)*
            refused: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Failure> {
            drop(refused);
            Ok(())
        }
    )* };
}

impl russh::client::Handler for Handler {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let key = shown.public_key().to_bytes().map_err(russh::Error::from)?;
        // The same key as on an earlier connection, or before this re-exchange: it was looked at.
        if let Some(trust) = self.memory.trust_of_host_key(&key) {
            self.learned.facts().trust = Some(trust);
            return Ok(true);
        }
        let (settings, prompter) = (self.settings.clone(), self.prompter.clone());
        let asked = key.clone();
        self.learned.asking.store(true, Ordering::SeqCst);
        let verified = tokio::task::spawn_blocking(move || {
            host_keys::verify(&settings, &asked, &mut |question| prompter.line(question))
        });
        let verified = verified.await;
        self.learned.asking.store(false, Ordering::SeqCst);
        let trust = verified
            .map_err(|error| Error::setup(format!("checking the host key failed: {error}")))
            .and_then(|trust| trust)
            .map_err(Failure::Ours)?;
        self.memory.remember_host_key(key, trust);
        self.learned.facts().trust = Some(trust);
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &Names,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let id = String::from_utf8_lossy(session.remote_sshid()).into_owned();
        let mut facts = self.learned.facts();
        facts.server = printable(id.splitn(3, '-').nth(2).unwrap_or(&id));
        facts.cipher = algorithms::describe(names);
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Failure> {
        let quiet = matches!(
            self.settings.get("loglevel"),
            Some("QUIET" | "FATAL" | "ERROR" | "quiet" | "fatal" | "error")
        );
        // Only where a person logs in, and once: not at every connection of a running mount.
        if !quiet && self.memory.is_new() {
            eprint!("{}", printable(banner));
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        let text = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let said = printable(&info.message);
                self.learned.facts().farewell = Some(said.clone());
                format!("the server disconnected: {said}")
            }
            DisconnectReason::Error(Failure::Ssh(error)) => {
                let why = super::explain::ended(error);
                self.learned.facts().farewell = Some(why.clone());
                why
            }
            DisconnectReason::Error(Failure::Ours(error)) => error.to_string(),
        };
        self.diagnosis.note(text);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    reject! {
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
        server_channel_open_forwarded_streamlocal(&str);
        server_channel_open_agent_forward();
        server_channel_open_session();
        server_channel_open_direct_tcpip(&str, u32, &str, u32);
        server_channel_open_direct_streamlocal(&str);
        server_channel_open_x11(&str, u32);
    }
}
