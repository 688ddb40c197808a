//! Logs in: agent, key files, keyboard-interactive and password, in the order of
//! `PreferredAuthentications`, and as many of them as the server wants one after the other.
//!
//! **Invariant:** what a person typed is offered to this server only, and not at all if its host
//! key changed.

use std::future::Future;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Prompt};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::time::timeout;

use super::super::denial;
use super::super::host_config::Settings;
use super::super::host_keys::Trust;
use super::super::login::Proofs;
use super::super::secrets::{Prompter, Secret};
use super::algorithms::allows;
use super::handler::{Handler, Learned};
use super::identities::{self, Identity, Origin};
use super::sign::{Signer, Unsigned};
use crate::error::{Error, Result};

/// One attempt to be let in.
pub(super) struct Login<'a> {
    pub(super) handle: &'a mut Handle<Handler>,
    pub(super) settings: &'a Settings,
    pub(super) learned: &'a Learned,
    pub(super) prompter: Prompter,
    /// What worked on an earlier connection.
    pub(super) known: Proofs,
    /// A password that was given beforehand; offered once.
    pub(super) given: Option<Secret>,
    /// What worked on this one.
    won: Proofs,
    /// What was tried, for the message if all fails.
    tried: Vec<String>,
    signer: Signer,
    /// Not offered yet; `None` before they were gathered.
    identities: Option<Vec<Identity>>,
    agent_keys_tried: usize,
}

impl<'a> Login<'a> {
    pub(super) fn new(
        handle: &'a mut Handle<Handler>,
        settings: &'a Settings,
        learned: &'a Learned,
        prompter: Prompter,
        known: Proofs,
        given: Option<Secret>,
    ) -> Self {
        let signer = Signer::new(known.clone(), prompter.clone());
        Self {
            handle,
            settings,
            learned,
            prompter,
            known,
            given,
            won: Proofs::default(),
            tried: Vec::new(),
            signer,
            identities: None,
            agent_keys_tried: 0,
        }
    }

    /// Logs in. What worked is returned, to be remembered.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], naming all that was tried; [`Error::Setup`] if the connection ended.
    pub(super) async fn run(mut self) -> Result<Proofs> {
        let mut answer = match self.is_known_by_key() {
            true => AuthResult::Failure {
                remaining_methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
                partial_success: false,
            },
            false => self.none().await?,
        };
        for _ in 0..FACTORS_MAX {
            let AuthResult::Failure {
                remaining_methods, ..
            } = answer
            else {
                return Ok(self.won);
            };
            let Some(next) = self.factor(&remaining_methods).await? else {
                return Err(self.denied(&remaining_methods));
            };
            answer = next;
        }
        Err(self.denied(&MethodSet::empty()))
    }

    /// A key alone opened the door before: it is offered without a round trip to ask what is wanted.
    const fn is_known_by_key(&self) -> bool {
        let Proofs {
            public_keys,
            password,
            answers,
            ..
        } = &self.known;
        public_keys.len() == 1 && password.is_none() && answers.is_empty()
    }

    /// Asks for nothing: the answer names the methods (RFC 4252 section 5.2).
    async fn none(&mut self) -> Result<AuthResult> {
        let user = self.settings.user().to_owned();
        let answer = patiently(self.handle.authenticate_none(user)).await;
        self.check(answer).await
    }

    /// Tries the methods that the server offers until one lets us in or is a step on the way;
    /// `None` if none was.
    async fn factor(&mut self, offered: &MethodSet) -> Result<Option<AuthResult>> {
        let mut offered = offered.clone();
        for method in self.settings.preferred_authentications() {
            if !offered.iter().any(|kind| <&str>::from(kind) == method) {
                continue;
            }
            let answer = match method.as_str() {
                "publickey" => self.public_keys().await?,
                "keyboard-interactive" => self.keyboard_interactive().await?,
                "password" => self.password().await?,
                _ => None,
            };
            match answer {
                Some(AuthResult::Failure {
                    partial_success: false,
                    remaining_methods,
                }) => {
                    offered = remaining_methods;
                }
                Some(progress) => return Ok(Some(progress)),
                None => {}
            }
        }
        Ok(None)
    }

    async fn public_keys(&mut self) -> Result<Option<AuthResult>> {
        let mut left = match self.identities.take() {
            Some(left) => left,
            None => self.gather().await,
        };
        let mut last = None;
        while !left.is_empty() {
            let answer = self.offer(left.remove(0)).await?;
            let done = answer.as_ref().is_some_and(is_progress);
            last = answer.or(last);
            if done {
                break;
            }
        }
        // A second factor of the same method must be another key.
        self.identities = Some(left);
        Ok(last)
    }

    async fn gather(&mut self) -> Vec<Identity> {
        let binding = self.handle.agent_session_binding();
        let agent = self
            .signer
            .ask_agent(self.settings, binding, &mut self.tried)
            .await;
        let mut identities = identities::gather(self.settings, agent, &mut self.tried);
        let accepted = self.settings.list("pubkeyacceptedalgorithms");
        identities.retain(|identity| {
            identity
                .public
                .as_ref()
                .is_none_or(|key| is_accepted(&key.algorithm(), &accepted))
        });
        // What opened the door before does it again; the server counts what does not.
        identities.sort_by_key(|identity| {
            let blob = identity.public.as_ref().and_then(|key| key.to_bytes().ok());
            !blob.is_some_and(|blob| self.known.public_keys.contains(&blob))
        });
        identities
    }

    /// Offers one key. `None` if it could not be used at all.
    async fn offer(&mut self, identity: Identity) -> Result<Option<AuthResult>> {
        let public = match (&identity.public, &identity.origin) {
            (Some(public), _) => public.clone(),
            (None, Origin::File(path)) => match self.signer.key(path).await {
                Ok(key) => key.public_key().clone(),
                Err(why) => {
                    self.tried.push(format!("{} ({why})", path.display()));
                    return Ok(None);
                }
            },
            (None, Origin::Agent(_)) => return Ok(None),
        };
        let hash = self.hash_for(&public).await;
        let user = self.settings.user().to_owned();
        self.signer.with = Some(identity.origin.clone());
        let certificate = match &identity.origin {
            Origin::Agent(agent) => match agent.as_ref() {
                AgentIdentity::Certificate { certificate, .. } => Some(certificate.clone()),
                AgentIdentity::PublicKey { .. } => None,
            },
            Origin::File(_) => None,
        };
        let handle = &mut *self.handle;
        let signer = &mut self.signer;
        let answer = match certificate {
            Some(certificate) => {
                timeout(
                    ANSWER_PATIENCE,
                    handle.authenticate_certificate_with(user, certificate, hash, signer),
                )
                .await
            }
            None => {
                timeout(
                    ANSWER_PATIENCE,
                    handle.authenticate_publickey_with(user, public.clone(), hash, signer),
                )
                .await
            }
        };
        let answer = match answer {
            Ok(Ok(answer)) => self.check(Ok(answer)).await?,
            Ok(Err(Unsigned::Gone)) => return Err(self.gone().await),
            Ok(Err(Unsigned::Declined(why))) => {
                self.tried.push(format!("{} ({why})", name_of(&identity)));
                return Ok(None);
            }
            Err(_) => return Err(self.silent()),
        };
        self.note_key(&identity, &public, &answer);
        Ok(Some(answer))
    }

    fn note_key(&mut self, identity: &Identity, public: &PublicKey, answer: &AuthResult) {
        if is_progress(answer) {
            self.won.public_keys.extend(public.to_bytes().ok());
            self.won.private_keys.extend(self.signer.key_in_use());
            log::debug!("logged in with {}", name_of(identity));
        } else if matches!(identity.origin, Origin::Agent(_)) {
            self.agent_keys_tried += 1;
        } else {
            self.tried.push(name_of(identity));
        }
    }

    /// Which hash an RSA key signs with: the best that the server and the settings know. SHA-1
    /// only for who allows `ssh-rsa`.
    async fn hash_for(&self, key: &PublicKey) -> Option<HashAlg> {
        if !key.algorithm().is_rsa() {
            return None;
        }
        let accepted = self.settings.list("pubkeyacceptedalgorithms");
        let best = self.handle.best_supported_rsa_hash().await.ok().flatten();
        match best {
            // It says that it knows nothing but SHA-1.
            Some(None) if accepted.contains(&"ssh-rsa") => None,
            Some(Some(HashAlg::Sha256)) => Some(HashAlg::Sha256),
            _ if !allows(&accepted, "rsa-sha2-512") => Some(HashAlg::Sha256),
            _ => Some(HashAlg::Sha512),
        }
    }

    async fn password(&mut self) -> Result<Option<AuthResult>> {
        if !self.may_send_secrets("password") {
            return Ok(None);
        }
        let mut last = None;
        let mut known = self
            .known
            .password
            .clone()
            .into_iter()
            .chain(self.given.take());
        let mut again = false;
        for _ in 0..self.settings.password_attempts() {
            let question = format!(
                "{}{}'s password: ",
                if again { AGAIN } else { "" },
                self.whom()
            );
            let secret = match known.next() {
                Some(secret) => Some(secret),
                None => {
                    again = true;
                    self.ask(question, false).await
                }
            };
            let Some(secret) = secret else { break };
            let Some(text) = secret.text() else { continue };
            let user = self.settings.user().to_owned();
            let answer = patiently(self.handle.authenticate_password(user, text)).await;
            let answer = self.check(answer).await?;
            if is_progress(&answer) {
                self.won.password = Some(secret);
                return Ok(Some(answer));
            }
            last = Some(answer);
        }
        self.note_secret("password", last.is_some());
        Ok(last)
    }

    /// RFC 4256: as many questions as the server likes, as often as a password.
    async fn keyboard_interactive(&mut self) -> Result<Option<AuthResult>> {
        if !self.may_send_secrets("keyboard-interactive") {
            return Ok(None);
        }
        let nobody =
            !self.prompter.can_ask() && self.known.answers.is_empty() && self.given.is_none();
        let mut last = None;
        for attempt in 0..self.settings.password_attempts() {
            if nobody {
                break;
            }
            let (answer, asked) = self.interview(attempt == 0).await?;
            if is_progress(&answer) {
                return Ok(Some(answer));
            }
            last = Some(answer);
            // Without a question it will not ask next time either; without an answer we will not.
            if !asked {
                break;
            }
        }
        self.note_secret("keyboard-interactive", last.is_some());
        Ok(last)
    }

    /// One round of questions, and whether another makes sense.
    async fn interview(&mut self, first: bool) -> Result<(AuthResult, bool)> {
        let user = self.settings.user().to_owned();
        let start = self
            .handle
            .authenticate_keyboard_interactive_start(user, None::<String>);
        let mut answer = patiently(start).await;
        let mut used = Vec::new();
        let mut asked = false;
        for _ in 0..INTERVIEW_MAX {
            let (name, instructions, prompts) = match self.check(answer).await? {
                KeyboardInteractiveAuthResponse::Success => {
                    self.won.answers.append(&mut used);
                    return Ok((AuthResult::Success, false));
                }
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                } => {
                    if partial_success {
                        self.won.answers.append(&mut used);
                    }
                    return Ok((
                        AuthResult::Failure {
                            remaining_methods,
                            partial_success,
                        },
                        asked,
                    ));
                }
                KeyboardInteractiveAuthResponse::InfoRequest {
                    name,
                    instructions,
                    prompts,
                } => (name, instructions, prompts),
            };
            let mut preface = preface(&name, &instructions);
            let mut responses = Vec::new();
            for prompt in &prompts {
                let given = self
                    .respond(prompt, std::mem::take(&mut preface), first)
                    .await;
                asked = given.is_some();
                let text = given.as_ref().and_then(Secret::text).unwrap_or_default();
                responses.push(text.to_owned());
                used.extend(given.map(|secret| (prompt.prompt.clone(), secret)));
            }
            let response = self
                .handle
                .authenticate_keyboard_interactive_respond(responses);
            answer = patiently(response).await;
        }
        Err(Error::setup(format!(
            "{}: the server asks without end",
            self.whom()
        )))
    }

    /// The answer to one question: known, given beforehand, or a person's.
    async fn respond(&mut self, prompt: &Prompt, preface: String, first: bool) -> Option<Secret> {
        if first && let Some(known) = self.known.answer(&prompt.prompt) {
            return Some(known);
        }
        if !prompt.echo
            && let Some(given) = self.given.take()
        {
            return Some(given);
        }
        let question = format!("{preface}({}) {}", self.whom(), prompt.prompt);
        self.ask(question, prompt.echo).await
    }

    async fn ask(&self, question: String, echo: bool) -> Option<Secret> {
        let prompter = self.prompter.clone();
        let asked = tokio::task::spawn_blocking(move || {
            if echo {
                let mut line = prompter.line(&question)?.into_bytes();
                return Secret::new(&mut line);
            }
            prompter.secret(&question)
        });
        asked.await.ok().flatten()
    }

    fn may_send_secrets(&mut self, method: &str) -> bool {
        let may = self.learned.facts().trust == Some(Trust::Full);
        if !may {
            self.tried
                .push(format!("{method} (not sent: the host key has changed)"));
        }
        may
    }

    fn note_secret(&mut self, method: &str, sent: bool) {
        self.tried.push(match (sent, self.prompter.can_ask()) {
            (true, _) => format!("{method} (wrong)"),
            (false, true) => format!("{method} (none given)"),
            (false, false) => format!("{method} (there is nobody to ask)"),
        });
    }

    fn whom(&self) -> String {
        format!("{}@{}", self.settings.user(), self.settings.host_name())
    }

    /// Lets an answer through, unless it stands for a connection that has ended.
    async fn check<T: Answer>(&mut self, answer: Heard<T>) -> Result<T> {
        match answer {
            Ok(answer) if !answer.is_empty() || !self.handle.is_closed() => Ok(answer),
            Ok(_) | Err(Some(_)) => Err(self.gone().await),
            Err(None) => Err(self.silent()),
        }
    }

    /// Why the connection ended: the server says so before it hangs up, if it is polite.
    async fn gone(&mut self) -> Error {
        // The session ends by itself; its end is awaited so that its reason is there.
        let _ = timeout(Duration::from_secs(2), &mut *self.handle).await;
        let said = self.learned.facts().farewell.clone();
        let why = said.unwrap_or_else(|| "connection closed".to_owned());
        let hint = if why.contains("Too many authentication failures") {
            "; name the right key with -o IdentityFile=... -o IdentitiesOnly=yes"
        } else {
            ""
        };
        let whom = self.whom();
        let text = format!(
            "{whom}: the server ended the login: {why}{}{hint}",
            self.attempts()
        );
        // Without a word of the server's, it is the network.
        denial::error(&why, text)
    }

    fn silent(&self) -> Error {
        Error::setup(format!(
            "{}: no answer to the login in {} s{} (if the password has expired, log in with ssh \
             once to set a new one)",
            self.whom(),
            ANSWER_PATIENCE.as_secs(),
            self.attempts()
        ))
    }

    fn denied(&self, remaining: &MethodSet) -> Error {
        let methods: Vec<&str> = remaining.iter().map(<&str>::from).collect();
        let methods = methods.join(",");
        Error::denied(format!(
            "{}: Permission denied ({methods}){}",
            self.whom(),
            self.attempts()
        ))
    }

    fn attempts(&self) -> String {
        let mut tried = Vec::new();
        match self.agent_keys_tried {
            0 => {}
            1 => tried.push("agent (1 key)".to_owned()),
            n => tried.push(format!("agent ({n} keys)")),
        }
        tried.extend(self.tried.iter().cloned());
        if tried.is_empty() {
            "; tried nothing: no key is there".to_owned()
        } else {
            format!("; tried {}", tried.join(", "))
        }
    }
}

/// An answer of russh that may stand for no answer.
trait Answer {
    fn is_empty(&self) -> bool;
}

impl Answer for AuthResult {
    /// russh says "failed, and nothing else is left" when the connection ended, too.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Failure { remaining_methods, .. } if remaining_methods.is_empty())
    }
}

impl Answer for KeyboardInteractiveAuthResponse {
    fn is_empty(&self) -> bool {
        false
    }
}

/// russh's answer, or its error; `None` for none in time.
type Heard<T> = std::result::Result<T, Option<russh::Error>>;

async fn patiently<T>(
    answer: impl Future<Output = std::result::Result<T, russh::Error>>,
) -> Heard<T> {
    match timeout(ANSWER_PATIENCE, answer).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

fn is_progress(answer: &AuthResult) -> bool {
    matches!(
        answer,
        AuthResult::Success
            | AuthResult::Failure {
                partial_success: true,
                ..
            }
    )
}

fn is_accepted(algorithm: &Algorithm, accepted: &[&str]) -> bool {
    if matches!(algorithm, Algorithm::Rsa { .. }) {
        return ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"]
            .iter()
            .any(|name| allows(accepted, name));
    }
    allows(accepted, algorithm.as_str())
}

fn name_of(identity: &Identity) -> String {
    match &identity.origin {
        Origin::Agent(key) => format!("the agent's key {}", key.comment()),
        Origin::File(path) => path.display().to_string(),
    }
}

fn preface(name: &str, instructions: &str) -> String {
    let lines = [name, instructions]
        .into_iter()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

/// What ssh(1) says before it asks again.
const AGAIN: &str = "Permission denied, please try again.\n";

/// Servers ask for two or three factors; one that never has enough is hostile.
const FACTORS_MAX: usize = 8;

/// Rounds of questions in one attempt, likewise.
const INTERVIEW_MAX: usize = 16;

/// Below sshd's LoginGraceTime (120 s), above the minute that a second factor on a telephone takes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(100);
