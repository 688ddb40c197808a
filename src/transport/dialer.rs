//! Which way to take to a target, and taking it as often as a connection is needed.
//!
//! **Invariant:** a person is asked while the first connection is made, and never again but by who
//! takes the questions ([`Questions`]).

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;

use super::askpass::Known;
use super::host_config::Settings;
use super::login::{Memory, Plan, Proofs};
use super::openssh::Answering;
use super::questions::Questions;
use super::secrets::{Prompter, Secret};
use super::{Link, ReconnectSecret, Target, Way, command, libssh2, openssh, russh};
use crate::error::Result;

/// Makes connections to one target.
pub(crate) struct Dialer {
    /// But its password.
    target: Target,
    /// A password that was given beforehand.
    given: std::sync::Mutex<Option<Secret>>,
    route: Route,
    /// What every connection of this dialer may use.
    memory: Arc<Memory>,
    questions: Questions,
    /// Whether a connection was made. Held while the first one is, so that two do not ask at once.
    done: Mutex<bool>,
}

/// The way that was chosen, with what it needs.
enum Route {
    Command,
    OpenSsh(Settings),
    Russh(Arc<Settings>),
    LibSsh2(Arc<Settings>),
}

impl Dialer {
    /// Finds out what ssh_config(5) says of the target, and which way that leaves.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`](crate::error::Error::Setup) if the target or its settings make no sense.
    pub(crate) async fn new(mut target: Target) -> Result<Self> {
        let route = choose(&target).await?;
        Ok(Self {
            given: std::sync::Mutex::new(target.password.take()),
            memory: Arc::new(Memory::new(target.reconnect_secret)),
            target,
            route,
            questions: Questions::default(),
            done: Mutex::new(false),
        })
    }

    /// Makes a new connection, logged in, with the SFTP server started. The first one asks what a
    /// person must be asked (host key, passphrase, password); the answers that worked serve for the
    /// others, as far as the user lets us keep them. Each of its waits has an end, but the one for a
    /// person. Dropping it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Why there is no connection: [`Error::Denied`](crate::error::Error::Denied) if another try would
    /// end the same, [`Error::Setup`](crate::error::Error::Setup) if it might not.
    pub(crate) async fn dial(&self) -> Result<Link> {
        let mut done = self.done.lock().await;
        log::debug!("connecting to {}", self.describe());
        if *done {
            drop(done);
            return self.connect(true).await;
        }
        let link = self.connect(false).await?;
        *done = true;
        self.forget_given();
        Ok(link)
    }

    /// Where connections after the first one ask, if somebody takes their questions.
    #[must_use]
    pub(crate) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Whether a person is being asked something for a connection.
    #[must_use]
    pub(crate) fn is_asking(&self) -> bool {
        self.questions.are_open()
    }

    /// Target and way, for the log: `user@host port 22 through russh`.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match &self.route {
            Route::Command => "a command".to_owned(),
            Route::OpenSsh(settings) => format!("{} through ssh", place(settings)),
            Route::Russh(settings) => format!("{} through russh", place(settings)),
            Route::LibSsh2(settings) => format!("{} through libssh2", place(settings)),
        }
    }

    /// Which server and login this is, the same for every way to it: `user@host:22`.
    #[must_use]
    pub(crate) fn identity(&self) -> String {
        match &self.route {
            Route::Command => match &self.target.way {
                Way::Command(words) => {
                    let words = words.iter().map(|word| word.to_string_lossy());
                    format!("command {}", words.collect::<Vec<_>>().join(" "))
                }
                _ => self.describe(),
            },
            Route::OpenSsh(settings) => login(settings),
            Route::Russh(settings) | Route::LibSsh2(settings) => login(settings),
        }
    }

    async fn connect(&self, again: bool) -> Result<Link> {
        match &self.route {
            Route::Command => match &self.target.way {
                Way::Command(words) => command::dial(words).await,
                _ => unreachable!("Route::Command is chosen for Way::Command only"),
            },
            Route::OpenSsh(settings) => self.through_ssh(settings, again).await,
            Route::Russh(settings) => russh::dial(&self.plan(settings, again)).await,
            Route::LibSsh2(settings) => libssh2::dial(self.plan(settings, again)).await,
        }
    }

    /// By a child ssh: at first it asks the person itself, unless a password was given beforehand; later
    /// it asks us, if there is anything that we could answer.
    async fn through_ssh(&self, settings: &Settings, again: bool) -> Result<Link> {
        let prompter = self.prompter(settings, again);
        let known = Known {
            answers: self.memory.proofs(&prompter).answers,
            password: self
                .given()
                .filter(|_| !self.memory.is_doubted() || !prompter.can_ask()),
        };
        let mut target = Cow::Borrowed(&self.target);
        let is_ours = known.password.is_some() || (again && prompter.can_ask());
        let answering = if is_ours || !known.answers.is_empty() {
            Answering::Us(known, prompter)
        } else {
            Answering::Terminal
        };
        if again && matches!(answering, Answering::Terminal) {
            // The first value counts (ssh_config(5)).
            let quiet = ("BatchMode".to_owned(), "yes".to_owned());
            target.to_mut().ssh_options.insert(0, quiet);
        }
        let mut answers = Vec::new();
        let link = openssh::dial(&target, settings, answering, again, &mut answers).await;
        let proofs = link.as_ref().map(|_| Proofs {
            answers,
            ..Proofs::default()
        });
        self.memory.note(proofs.map_err(Clone::clone))?;
        link
    }

    fn plan(&self, settings: &Arc<Settings>, again: bool) -> Plan {
        Plan {
            settings: settings.clone(),
            memory: self.memory.clone(),
            prompter: self.prompter(settings, again),
            password: self.given().filter(|_| !again),
            sftp_server: self.target.sftp_server.clone(),
        }
    }

    /// Whom to ask.
    fn prompter(&self, settings: &Settings, again: bool) -> Prompter {
        let ask_never = self.target.reconnect_secret == ReconnectSecret::Never;
        if settings.batch_mode() || (again && ask_never) {
            Prompter::NOBODY
        } else if again {
            Prompter::through(&self.questions)
        } else {
            Prompter::new(false)
        }
    }

    /// The password that was given beforehand, as long as it may be used.
    fn given(&self) -> Option<Secret> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.clone()
    }

    fn forget_given(&self) {
        if self.target.reconnect_secret != ReconnectSecret::Keep {
            *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

async fn choose(target: &Target) -> Result<Route> {
    if let Way::Command(_) = target.way {
        return Ok(Route::Command);
    }
    let settings = Settings::resolve(target).await?;
    Ok(match target.way {
        Way::OpenSsh => Route::OpenSsh(settings),
        Way::LibSsh2 => Route::LibSsh2(Arc::new(settings)),
        Way::Auto if let Some(reason) = settings.needs_openssh() => {
            log::info!("{}: using OpenSSH's client, because {reason}", target.host);
            Route::OpenSsh(settings)
        }
        _ => Route::Russh(Arc::new(settings)),
    })
}

fn login(settings: &Settings) -> String {
    let (user, host, port) = (settings.user(), settings.host_name(), settings.port());
    format!("{user}@{host}:{port}")
}

fn place(settings: &Settings) -> String {
    format!(
        "{}@{} port {}",
        settings.user(),
        settings.host_name(),
        settings.port()
    )
}
