//! Which way to take to a target, and taking it as often as a connection is needed.
//!
//! **Invariant:** a person is asked while the first connection is made, and never again.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::host_config::Settings;
use super::login::{Memory, Plan};
use super::secrets::Prompter;
use super::{Link, Target, Way, command, libssh2, openssh, russh};
use crate::error::Result;

/// Makes connections to one target.
pub(crate) struct Dialer {
    target: Target,
    route: Route,
    /// Whether a connection was made. Held while the first one is, so that two do not ask at once.
    done: Mutex<bool>,
}

/// The way that was chosen, with what it needs.
enum Route {
    Command,
    OpenSsh(Settings),
    Russh {
        settings: Arc<Settings>,
        memory: Arc<Memory>,
    },
    LibSsh2 {
        settings: Arc<Settings>,
        memory: Arc<Memory>,
    },
}

impl Dialer {
    /// Finds out what ssh_config(5) says of the target, and which way that leaves.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`](crate::error::Error::Setup) if the target or its settings make no sense.
    pub(crate) async fn new(target: Target) -> Result<Self> {
        let route = choose(&target).await?;
        Ok(Self {
            target,
            route,
            done: Mutex::new(false),
        })
    }

    /// Makes a new connection, logged in, with the SFTP server started. The first one asks what a
    /// person must be asked (host key, passphrase, password); the answers that worked serve for the
    /// others.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`](crate::error::Error::Setup): why there is no connection.
    pub(crate) async fn dial(&self) -> Result<Link> {
        let mut done = self.done.lock().await;
        log::debug!("connecting to {}", self.describe());
        if *done {
            drop(done);
            return self.connect(true).await;
        }
        let link = self.connect(false).await?;
        *done = true;
        Ok(link)
    }

    /// Target and way, for the log: `user@host port 22 through russh`.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match &self.route {
            Route::Command => "a command".to_owned(),
            Route::OpenSsh(settings) => format!("{} through ssh", place(settings)),
            Route::Russh { settings, .. } => format!("{} through russh", place(settings)),
            Route::LibSsh2 { settings, .. } => format!("{} through libssh2", place(settings)),
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
            Route::Russh { settings, .. } | Route::LibSsh2 { settings, .. } => login(settings),
        }
    }

    async fn connect(&self, again: bool) -> Result<Link> {
        match &self.route {
            Route::Command => match &self.target.way {
                Way::Command(words) => command::dial(words).await,
                _ => unreachable!("Route::Command is chosen for Way::Command only"),
            },
            // With a password at hand, ssh asks us, and we nobody.
            Route::OpenSsh(settings) if again && self.target.password.is_none() => {
                let mut target = self.target.clone();
                // The first value counts (ssh_config(5)).
                target
                    .ssh_options
                    .insert(0, ("BatchMode".to_owned(), "yes".to_owned()));
                openssh::dial(&target, settings, Prompter::NOBODY).await
            }
            Route::OpenSsh(settings) => {
                let prompter = Prompter::new(again || settings.batch_mode());
                openssh::dial(&self.target, settings, prompter).await
            }
            Route::Russh { settings, memory } => {
                russh::dial(&self.plan(settings, memory, again)).await
            }
            Route::LibSsh2 { settings, memory } => {
                libssh2::dial(self.plan(settings, memory, again)).await
            }
        }
    }

    fn plan(&self, settings: &Arc<Settings>, memory: &Arc<Memory>, again: bool) -> Plan {
        Plan {
            settings: settings.clone(),
            memory: memory.clone(),
            prompter: Prompter::new(again || settings.batch_mode()),
            password: self.target.password.clone().filter(|_| !again),
            sftp_server: self.target.sftp_server.clone(),
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
        Way::LibSsh2 => Route::LibSsh2 {
            settings: Arc::new(settings),
            memory: Arc::default(),
        },
        Way::Auto if let Some(reason) = settings.needs_openssh() => {
            log::info!("{}: using OpenSSH's client, because {reason}", target.host);
            Route::OpenSsh(settings)
        }
        _ => Route::Russh {
            settings: Arc::new(settings),
            memory: Arc::default(),
        },
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
