//! Logs in through libssh2: agent, key files, keyboard-interactive and password, in the order of
//! `PreferredAuthentications`.
//!
//! **Invariant:** what a person typed is offered to this server only, and not at all if its host
//! key changed.

use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use ssh2::{KeyboardInteractivePrompt, Prompt, PublicKey, Session};

use super::super::host_keys::Trust;
use super::super::login::{Plan, Proofs, StoredKey};
use super::super::prompt::printable;
use super::super::russh::{find_public, load};
use super::super::secrets::{Prompter, Secret};
use crate::error::{Error, Result};

/// One attempt to be let in.
pub(super) struct Login<'a> {
    session: &'a Session,
    plan: &'a Plan,
    trust: Trust,
    /// What worked on an earlier connection.
    known: Proofs,
    /// A password that was given beforehand; offered once.
    given: Option<Secret>,
    /// What worked on this one.
    won: Proofs,
    /// What was tried, for the message if all fails.
    tried: Vec<String>,
}

impl<'a> Login<'a> {
    pub(super) fn new(session: &'a Session, plan: &'a Plan, trust: Trust) -> Self {
        Self {
            session,
            plan,
            trust,
            known: plan.memory.proofs(&plan.prompter),
            given: plan.password.clone(),
            won: Proofs::default(),
            tried: Vec::new(),
        }
    }

    /// Logs in. What worked is returned, to be remembered.
    ///
    /// # Errors
    /// [`Error::Denied`], naming all that was tried; [`Error::Setup`] if the connection ended.
    pub(super) fn run(mut self) -> Result<Proofs> {
        let mut offered = self.offered()?;
        self.show_banner();
        for _ in 0..FACTORS_MAX {
            for method in self.plan.settings.preferred_authentications() {
                if self.session.authenticated() {
                    return Ok(self.won);
                }
                if !offered.contains(&method) {
                    continue;
                }
                match method.as_str() {
                    "publickey" => self.public_keys()?,
                    "keyboard-interactive" => self.keyboard_interactive()?,
                    "password" => self.password()?,
                    _ => {}
                }
            }
            if self.session.authenticated() {
                return Ok(self.won);
            }
            // libssh2 does not say that a method was a step on the way, but a server that wants
            // another one names it now.
            let next = self.offered()?;
            if next == offered {
                break;
            }
            offered = next;
        }
        Err(self.denied(&offered))
    }

    /// The methods that the server takes, found out by asking for nothing (RFC 4252 section 5.2).
    fn offered(&self) -> Result<Vec<String>> {
        match self.session.auth_methods(self.plan.settings.user()) {
            Ok(methods) => Ok(methods.split(',').map(str::to_owned).collect()),
            Err(_) if self.session.authenticated() => Ok(Vec::new()),
            Err(error) => Err(self.gone(&error)),
        }
    }

    fn show_banner(&self) {
        if let Ok(Some(banner)) = self.session.userauth_banner() {
            for line in printable(banner).lines() {
                log::info!("{}: {line}", self.plan.settings.host_name());
            }
        }
    }

    /// The agent's keys, then those in files that the agent does not have.
    fn public_keys(&mut self) -> Result<()> {
        let files: Vec<_> = self.plan.settings.identity_files();
        let public = |path: &Path| {
            find_public(path)
                .ok()
                .flatten()
                .and_then(|key| key.to_bytes().ok())
        };
        let named: Vec<Option<Vec<u8>>> = files.iter().map(|path| public(path)).collect();
        let held = self.agent_keys(&named)?;
        for (path, blob) in files.iter().zip(&named) {
            if self.session.authenticated() {
                return Ok(());
            }
            if !blob.as_ref().is_some_and(|blob| held.contains(blob)) {
                self.file(path)?;
            }
        }
        Ok(())
    }

    /// Tries what the agent holds, the keys that are `named` as files first; returns what it held.
    fn agent_keys(&mut self, named: &[Option<Vec<u8>>]) -> Result<Vec<Vec<u8>>> {
        let Some(path) = self.plan.settings.identity_agent() else {
            return Ok(Vec::new());
        };
        let keys = self.session.agent().and_then(|mut agent| {
            agent.set_identity_path(&path)?;
            agent.connect()?;
            agent.list_identities()?;
            let keys = agent.identities()?;
            Ok((agent, keys))
        });
        let (agent, keys) = match keys {
            Ok(found) => found,
            Err(error) => {
                self.tried
                    .push(format!("agent ({}: {})", path.display(), error.message()));
                return Ok(Vec::new());
            }
        };
        let place = |key: &PublicKey| {
            named
                .iter()
                .position(|blob| blob.as_deref() == Some(key.blob()))
        };
        let mut ordered: Vec<_> = keys.iter().map(|key| (place(key), key)).collect();
        ordered.retain(|(named, _)| named.is_some() || !self.plan.settings.identities_only());
        ordered.sort_by_key(|(named, key)| {
            // What opened the door before does it again; the server counts what does not.
            let won = self.known.public_keys.iter().any(|blob| blob == key.blob());
            (!won, named.unwrap_or(usize::MAX))
        });
        let mut held = Vec::new();
        for (_, key) in ordered {
            if self.session.authenticated() {
                break;
            }
            match agent.userauth(self.plan.settings.user(), key) {
                Ok(()) => self.won.public_keys.push(key.blob().to_vec()),
                Err(error) => self.refused(&format!("{} (agent)", key.comment()), &error)?,
            }
            held.push(key.blob().to_vec());
        }
        Ok(held)
    }

    /// Tries the key in a file. libssh2 cannot ask whether the server would take it before it has
    /// the private half, so its passphrase is asked for first.
    fn file(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            if !self.plan.settings.identity_file_is_default(path) {
                self.tried
                    .push(format!("{} (no such file)", path.display()));
            }
            return Ok(());
        }
        let key = match self.known.private_key(path) {
            Some(key) => Arc::new(key),
            None => match load(path, &self.plan.prompter) {
                Ok(key) => key,
                Err(why) => {
                    self.tried.push(format!("{} ({why})", path.display()));
                    return Ok(());
                }
            },
        };
        // Wiped when dropped.
        let Ok(text) = key.to_openssh(LineEnding::LF) else {
            return Ok(());
        };
        match self
            .session
            .userauth_pubkey_memory(self.plan.settings.user(), None, &text, None)
        {
            Ok(()) => {
                let stored = StoredKey::new(&key).map(|key| (path.to_owned(), key));
                self.won.private_keys.extend(stored);
                Ok(())
            }
            Err(error) => self.refused(&path.display().to_string(), &error),
        }
    }

    fn password(&mut self) -> Result<()> {
        if !self.may_send_secrets("password") {
            return Ok(());
        }
        let question = format!("{}'s password: ", self.whom());
        let mut ready = self
            .known
            .password
            .clone()
            .into_iter()
            .chain(self.given.take());
        for _ in 0..self.plan.settings.password_attempts() {
            let secret = ready
                .next()
                .or_else(|| self.plan.prompter.secret(&question));
            let Some(secret) = secret else { break };
            let Some(text) = secret.text() else { continue };
            match self
                .session
                .userauth_password(self.plan.settings.user(), text)
            {
                Ok(()) => {
                    self.won.password = Some(secret.clone());
                    return Ok(());
                }
                Err(error) => self.refused("password", &error)?,
            }
        }
        Ok(())
    }

    /// RFC 4256: as many questions as the server likes, as often as a password.
    fn keyboard_interactive(&mut self) -> Result<()> {
        if !self.may_send_secrets("keyboard-interactive") {
            return Ok(());
        }
        for attempt in 0..self.plan.settings.password_attempts() {
            let mut interview = Interview {
                prompter: &self.plan.prompter,
                known: if attempt == 0 {
                    Some(&self.known)
                } else {
                    None
                },
                given: self.given.take(),
                answers: Vec::new(),
                silent: false,
            };
            let user = self.plan.settings.user();
            let result = self
                .session
                .userauth_keyboard_interactive(user, &mut interview);
            let Interview {
                given,
                answers,
                silent,
                ..
            } = interview;
            // A server that asked nothing was not offered it.
            self.given = given;
            match result {
                Ok(()) => {
                    self.won.answers = answers;
                    return Ok(());
                }
                Err(error) => self.refused("keyboard-interactive", &error)?,
            }
            // Without a question it will not ask next time either; without an answer we will not.
            if silent || answers.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn may_send_secrets(&mut self, method: &str) -> bool {
        if self.trust == Trust::KeysOnly {
            self.tried
                .push(format!("{method} (not sent: the host key changed)"));
        }
        self.trust == Trust::Full
    }

    /// Notes a refusal; an end of the connection is an error.
    fn refused(&mut self, what: &str, error: &ssh2::Error) -> Result<()> {
        if REFUSALS.contains(&error.code()) {
            self.tried.push(what.to_owned());
            return Ok(());
        }
        log::debug!("{what}: {error}");
        if ENDS.contains(&error.code()) {
            return Err(self.gone(error));
        }
        self.tried.push(format!("{what} ({})", error.message()));
        Ok(())
    }

    fn gone(&self, error: &ssh2::Error) -> Error {
        let tried = match self.tried.as_slice() {
            [] => String::new(),
            tried => format!("; tried before: {}", tried.join(", ")),
        };
        Error::setup(format!(
            "{}: the server ended the connection during the login ({}){tried}",
            self.whom(),
            error.message()
        ))
    }

    fn denied(&self, offered: &[String]) -> Error {
        let tried = match self.tried.as_slice() {
            [] => "there was nothing to try".to_owned(),
            tried => format!("tried {}", tried.join(", ")),
        };
        let offered = printable(&offered.join(","));
        Error::denied(format!(
            "{}: Permission denied ({offered}); {tried}",
            self.whom()
        ))
    }

    fn whom(&self) -> String {
        format!(
            "{}@{}",
            self.plan.settings.user(),
            self.plan.settings.host_name()
        )
    }
}

/// Answers one round of keyboard-interactive.
struct Interview<'a> {
    prompter: &'a Prompter,
    known: Option<&'a Proofs>,
    given: Option<Secret>,
    answers: Vec<(String, Secret)>,
    /// Somebody should have answered and did not.
    silent: bool,
}

impl KeyboardInteractivePrompt for Interview<'_> {
    fn prompt<'b>(&mut self, _: &str, instructions: &str, prompts: &[Prompt<'b>]) -> Vec<String> {
        prompts
            .iter()
            .map(|prompt| self.answer(instructions, prompt))
            .collect()
    }
}

impl Interview<'_> {
    fn answer(&mut self, instructions: &str, prompt: &Prompt<'_>) -> String {
        let question = prompt.text.as_ref();
        let known = self.known.and_then(|known| known.answer(question));
        let given = || if prompt.echo { None } else { self.given.take() };
        let answer = known.or_else(given).or_else(|| {
            let shown = match instructions.trim() {
                "" => question.to_owned(),
                instructions => format!("{instructions}\n{question}"),
            };
            if prompt.echo {
                self.prompter
                    .line(&shown)
                    .and_then(|line| Secret::new(&mut line.into_bytes()))
            } else {
                self.prompter.secret(&shown)
            }
        });
        let Some(answer) = answer else {
            self.silent = true;
            return String::new();
        };
        let text = answer.text().unwrap_or_default().to_owned();
        self.answers.push((question.to_owned(), answer));
        text
    }
}

/// What libssh2 says when the server does not take a proof.
const REFUSALS: [ssh2::ErrorCode; 2] = [
    ssh2::ErrorCode::Session(-18), // LIBSSH2_ERROR_AUTHENTICATION_FAILED
    ssh2::ErrorCode::Session(-19), // LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED
];

/// What libssh2 says when the connection is gone.
const ENDS: [ssh2::ErrorCode; 5] = [
    ssh2::ErrorCode::Session(-7),  // LIBSSH2_ERROR_SOCKET_SEND
    ssh2::ErrorCode::Session(-9),  // LIBSSH2_ERROR_TIMEOUT
    ssh2::ErrorCode::Session(-13), // LIBSSH2_ERROR_SOCKET_DISCONNECT
    ssh2::ErrorCode::Session(-30), // LIBSSH2_ERROR_SOCKET_TIMEOUT
    ssh2::ErrorCode::Session(-43), // LIBSSH2_ERROR_SOCKET_RECV
];

/// Methods that a server may want one after the other.
const FACTORS_MAX: usize = 4;
