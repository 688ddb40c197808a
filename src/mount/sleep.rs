//! Lets the machine sleep: programs that wait for the server when the kernel freezes them would keep
//! it awake, as it freezes us too. So systemd-logind, or elogind, is asked by D-Bus to hold each sleep
//! off for the moment that it takes to end these waits (org.freedesktop.login1(5), "inhibitor locks").
//! Without a bus, logind or its permission nothing of it happens, and nothing else changes.
//!
//! **Invariant:** no call waits for the bus, and calls do not end before a sleep that does not come:
//! who else than logind says that one comes is not believed, and what it said holds for a minute.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zbus::connection::{Builder, Connection};
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream};

use crate::fs::Waits;
use crate::fuse::Recall;

/// What is done about a sleep.
pub(super) struct Sleep<F> {
    recall: Recall,
    waits: Arc<Waits>,
    /// Called when the machine was woken; says whether anybody is interested.
    woken: F,
    /// What is mounted, for who asks what holds a sleep off.
    why: String,
}

/// How listening ended.
type Ended = zbus::Result<()>;

impl<F: Fn() -> bool> Sleep<F> {
    pub(super) fn new(recall: Recall, waits: Arc<Waits>, source: &str, woken: F) -> Self {
        let why = format!("Calls that wait for {source} are ended");
        Self {
            recall,
            waits,
            woken,
            why,
        }
    }

    /// Listens as long as the runtime lives: the bus may come later, go, and come again.
    pub(super) async fn listen(self) {
        let mut pause = AGAIN_FIRST;
        loop {
            let since = Instant::now();
            if let Err(error) = self.on_a_bus().await {
                log::debug!("no sleep is held off: D-Bus: {error}");
            }
            self.recall.open();
            if since.elapsed() > AGAIN_LAST {
                pause = AGAIN_FIRST;
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_LAST);
        }
    }

    /// Listens to one bus, until it is gone.
    async fn on_a_bus(&self) -> Ended {
        let bus = Builder::system().method_timeout(PATIENCE).build();
        let bus = within(PATIENCE, bus).await?;
        let mut owners = hear(&bus, BUS, "NameOwnerChanged", Some(LOGIND)).await?;
        let mut sleeps = hear(&bus, MANAGER, "PrepareForSleep", None).await?;
        let mut logind = Logind::find(&bus, &self.why).await;
        loop {
            let until = logind.sleeps_until;
            let overslept = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                owner = owners.next() => {
                    if is_of(&next(owner)?, Some(BUS)) {
                        self.recall.open();
                        logind = Logind::find(&bus, &self.why).await;
                    }
                }
                message = sleeps.next() => {
                    let message = next(message)?;
                    if !is_of(&message, logind.owner.as_deref()) {
                        continue;
                    }
                    match message.body().deserialize::<bool>() {
                        Ok(true) => self.falls_asleep(&mut logind).await,
                        Ok(false) => self.is_woken(&bus, &mut logind).await,
                        Err(error) => log::debug!("PrepareForSleep is not understood: {error}"),
                    }
                }
                () = overslept => {
                    log::info!("the machine did not sleep");
                    self.is_woken(&bus, &mut logind).await;
                }
            }
        }
    }

    /// Whoever gets an answer within a moment gets it; the others are ended.
    async fn falls_asleep(&self, logind: &mut Logind) {
        let waiting = self.waits.now().0;
        self.until_nobody_waits(MOMENT).await;
        let ended = self.waits.now().0;
        self.recall.close();
        self.until_quiet().await;
        let kept = self.waits.now().0;
        log::info!(
            "the machine is about to sleep: of {waiting} calls that wait for the server, {} are \
             ended and {kept} left",
            ended.saturating_sub(kept)
        );
        logind.sleeps_until = Some(Instant::now() + SLEEP_MAX);
        // Nothing holds this sleep off any more.
        logind.lock = None;
    }

    async fn until_nobody_waits(&self, most: Duration) {
        let until = Instant::now() + most;
        while self.waits.now().0 > 0 && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Until programs have done with our answers: each may call again, or let another one into the
    /// directory that it had locked.
    async fn until_quiet(&self) {
        let until = Instant::now() + QUIET_WITHIN;
        let mut begun = self.waits.begun();
        while Instant::now() < until {
            sleep(QUIET).await;
            let now = self.waits.begun();
            if now == begun {
                return;
            }
            begun = now;
        }
    }

    async fn is_woken(&self, bus: &Connection, logind: &mut Logind) {
        self.recall.open();
        if (self.woken)() {
            *logind = Logind::find(bus, &self.why).await;
        }
    }
}

/// What is known of logind.
struct Logind {
    /// Its name on the bus, which nobody else can use; `None` if it is not running.
    owner: Option<String>,
    /// As long as it is open, logind waits before a sleep (for 5 s, InhibitDelayMaxSec of
    /// logind.conf(5)). `None` without permission too: a sleep is then heard of as it begins.
    lock: Option<OwnedFd>,
    /// It said that the machine goes to sleep: when that is not to be believed any more. The clock
    /// stands still in a sleep.
    sleeps_until: Option<Instant>,
}

impl Logind {
    /// Asks for a lock if logind is running; it is never started for us.
    async fn find(bus: &Connection, why: &str) -> Self {
        let owner = owner(bus).await;
        let lock = match owner {
            Some(_) => inhibit(bus, why).await,
            None => Err(zbus::Error::InvalidReply),
        };
        match &lock {
            Ok(_) => log::debug!("a sleep of the machine is held off for a moment"),
            Err(_) if owner.is_none() => log::debug!("no sleep is held off: there is no logind"),
            Err(error) => log::debug!("no sleep is held off: logind: {error}"),
        }
        Self {
            owner,
            lock: lock.ok(),
            sleeps_until: None,
        }
    }
}

async fn owner(bus: &Connection) -> Option<String> {
    let asked = bus.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &LOGIND);
    let body = asked.await.ok()?.body();
    body.deserialize::<String>().ok()
}

async fn inhibit(bus: &Connection, why: &str) -> zbus::Result<OwnedFd> {
    let wish = ("sleep", "sftpfs", why, "delay");
    let asked = bus.call_method(Some(LOGIND), LOGIND_PATH, Some(MANAGER), "Inhibit", &wish);
    let body = asked.await?.body();
    Ok(body.deserialize::<zbus::OwnedFd>()?.into())
}

/// Hears a signal from now on.
async fn hear(
    bus: &Connection,
    interface: &'static str,
    member: &'static str,
    about: Option<&str>,
) -> zbus::Result<MessageStream> {
    let sender = if interface == BUS { BUS } else { LOGIND };
    let mut rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(sender)
        .interface(interface)
        .member(member);
    if let Some(about) = about {
        rule = rule.add_arg(about);
    }
    let heard = MessageStream::for_match_rule(rule.build()?, bus, NonZeroUsize::new(QUEUE));
    within(PATIENCE, heard).await
}

/// The bus is gone when a stream ends.
fn next(message: Option<zbus::Result<Message>>) -> zbus::Result<Message> {
    message.unwrap_or(Err(zbus::Error::InputOutput(
        std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
    )))
}

/// Whether a message is from `sender`, of whom the bus vouches. Others may send what no rule asked
/// for.
fn is_of(message: &Message, sender: Option<&str>) -> bool {
    let header = message.header();
    let from = header.sender().map(|name| name.as_str());
    from.is_some() && from == sender
}

async fn within<T>(
    most: Duration,
    asked: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    timeout(most, asked).await.unwrap_or_else(late)
}

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// What a call may wait for its answer: a person who closes the lid does not notice it, and logind
/// waits five times as long.
const MOMENT: Duration = Duration::from_secs(1);
/// A program that is about to call again does it sooner.
const QUIET: Duration = Duration::from_millis(50);
/// Some go on for good.
const QUIET_WITHIN: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A sleep has begun long before, or has failed: logind waits 5 s, the kernel gives up freezing
/// after 20 s.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// What the bus is given for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the bus is tried again that was not there, or went: it is restarted in no time, or is not
/// there at all.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_LAST: Duration = Duration::from_secs(300);
/// Signals that are not taken yet: they come one by one.
const QUEUE: usize = 8;
