//! An SSH server in process, for what needs passwords and bad manners: nothing of this machine's
//! users is touched.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;

/// What the server lets people in for.
#[derive(Clone, Default)]
pub(in crate::transport) struct Rules {
    pub(in crate::transport) password: Option<&'static str>,
    /// Prompts of keyboard-interactive, whether they echo, and the right answers.
    pub(in crate::transport) interview: Vec<(&'static str, bool, &'static str)>,
    /// The password is only the first step, the interview the second.
    pub(in crate::transport) both: bool,
    /// Opens an agent channel to the client as soon as it is in.
    pub(in crate::transport) wants_agent: bool,
    pub(in crate::transport) attempts_max: Option<usize>,
}

impl Rules {
    /// Nothing but this password.
    pub(in crate::transport) fn password(password: &'static str) -> Self {
        Self {
            password: Some(password),
            ..Self::default()
        }
    }
}

pub(in crate::transport) struct Server {
    pub(in crate::transport) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves connections until the runtime ends.
    pub(in crate::transport) async fn start(rules: Rules) -> Self {
        let key =
            PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
        let mut methods = MethodSet::empty();
        if rules.password.is_some() {
            methods.push(MethodKind::Password);
        }
        if !rules.interview.is_empty() && !rules.both {
            methods.push(MethodKind::KeyboardInteractive);
        }
        let config = Arc::new(Config {
            methods: methods.clone(),
            keys: vec![key],
            auth_rejection_time: Duration::ZERO,
            max_auth_attempts: rules.attempts_max.unwrap_or(100),
            ..Config::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let guard = Guard {
            rules,
            methods,
            seen: seen.clone(),
            channels: Vec::new(),
        };
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (config, guard) = (config.clone(), guard.clone());
                // A client that hangs up is no failure of the server.
                tokio::spawn(async move {
                    if let Ok(session) = run_stream(config, socket, guard).await {
                        drop(session.await);
                    }
                });
            }
        });
        Self { port, seen }
    }

    /// The same in a thread and runtime of its own; the port.
    pub(in crate::transport) fn start_apart(rules: Rules) -> u16 {
        let (sender, port) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                sender.send(Self::start(rules).await.port).unwrap();
                std::future::pending::<()>().await;
            });
        });
        port.recv().unwrap()
    }

    /// What was offered and asked, in order.
    pub(in crate::transport) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

struct Guard {
    rules: Rules,
    methods: MethodSet,
    seen: Arc<Mutex<Vec<String>>>,
    /// Held, so that they stay open; never read.
    channels: Vec<Channel<Msg>>,
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            methods: self.methods.clone(),
            seen: self.seen.clone(),
            channels: Vec::new(),
        }
    }
}

impl Guard {
    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }

    /// Without the methods, russh would not offer the one that failed again.
    fn no(&self) -> Auth {
        let mut methods = self.methods.clone();
        if self.rules.both {
            methods.push(MethodKind::KeyboardInteractive);
        }
        Auth::Reject {
            proceed_with_methods: Some(methods),
            partial_success: false,
        }
    }

    fn ask(&self) -> Auth {
        let prompts = self.rules.interview.iter();
        let prompts: Vec<_> = prompts
            .map(|(text, echo, _)| (Cow::Borrowed(*text), *echo))
            .collect();
        Auth::Partial {
            name: "Door".into(),
            instructions: "Say it.".into(),
            prompts: prompts.into(),
        }
    }
}

impl Handler for Guard {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.note(format!("password {password}"));
        if self.rules.password != Some(password) {
            return Ok(self.no());
        }
        if !self.rules.both {
            return Ok(Auth::Accept);
        }
        let next = [MethodKind::KeyboardInteractive];
        let proceed_with_methods = Some(MethodSet::from(&next[..]));
        Ok(Auth::Reject {
            proceed_with_methods,
            partial_success: true,
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(response) = response else {
            return Ok(self.ask());
        };
        let said: Vec<_> = response
            .map(|r| String::from_utf8_lossy(&r).into_owned())
            .collect();
        self.note(format!("answers {}", said.join(",")));
        let right = self
            .rules
            .interview
            .iter()
            .map(|(_, _, answer)| *answer)
            .eq(said);
        Ok(if right { Auth::Accept } else { self.no() })
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(None)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.push(channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, "welcome")?;
        if self.rules.wants_agent {
            let (handle, seen) = (session.handle(), self.seen.clone());
            tokio::spawn(async move {
                let opened = handle.channel_open_agent().await.is_ok();
                seen.lock()
                    .unwrap()
                    .push(format!("agent channel opened: {opened}"));
                drop(handle.data(channel, "asked").await);
            });
        }
        Ok(())
    }
}
