//! A private D-Bus with a logind that puts no machine to sleep, but says and does about it what the
//! real one does: org.freedesktop.login1(5), "inhibitor locks".

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use zbus::connection::{Builder, Connection};
use zbus::message::Type;
use zbus::{Message, MessageStream, OwnedFd};

use crate::process::{self, wait_for};

/// A bus, ended when it is dropped.
pub struct Bus {
    dir: PathBuf,
    daemon: Child,
}

impl Bus {
    /// Starts a bus with its socket in `dir`; None where there is no dbus-daemon(1).
    pub fn start(dir: &Path) -> Option<Self> {
        let (socket, config) = (dir.join("bus"), dir.join("bus.conf"));
        let _ = std::fs::remove_file(&socket);
        let text = CONFIG.replace("SOCKET", socket.to_str().unwrap());
        std::fs::write(&config, text).unwrap();
        let found = Command::new("dbus-daemon").arg("--version").output();
        if !found.is_ok_and(|found| found.status.success()) {
            return None;
        }
        let mut command = Command::new("dbus-daemon");
        command
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(config)
            // That it would like to have more open files than it may.
            .stderr(Stdio::null());
        let daemon = process::start(&mut command);
        let is_up = || UnixStream::connect(&socket).ok();
        assert!(wait_for(soon(), is_up).is_some(), "dbus-daemon is not up");
        let dir = dir.to_owned();
        Some(Self { dir, daemon })
    }

    /// For DBUS_SYSTEM_BUS_ADDRESS.
    pub fn address(&self) -> String {
        address(&self.dir)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Of a bus in a directory, also of one that does not run yet.
pub fn address(dir: &Path) -> String {
    format!("unix:path={}", dir.join("bus").display())
}

/// One that is connected to a bus, and serves it in a thread of its own.
pub struct Peer {
    commands: Option<UnboundedSender<Say>>,
    locks: Arc<Mutex<Locks>>,
    thread: Option<JoinHandle<()>>,
}

/// Who holds sleeps off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locks {
    /// Taken so far.
    pub taken: usize,
    /// Of those, not given back.
    pub held: usize,
    /// Who took the last one: what, who, why, mode; and the name on the bus.
    pub last: [String; 5],
}

/// PrepareForSleep, to one or to all, and whom to tell when the bus has it.
struct Say {
    begins: bool,
    to: Option<String>,
    done: oneshot::Sender<()>,
}

impl Peer {
    /// logind. With `refuses` nobody gets a lock.
    pub fn logind(bus: &Bus, refuses: bool) -> Self {
        Self::start(bus.address(), Some(LOGIND), refuses)
    }

    /// Any other one.
    pub fn somebody(bus: &Bus) -> Self {
        Self::start(bus.address(), None, false)
    }

    fn start(address: String, name: Option<&'static str>, refuses: bool) -> Self {
        let (commands, said) = unbounded_channel();
        let locks = Arc::new(Mutex::new(Locks::default()));
        let (told, ready) = std::sync::mpsc::channel();
        let shared = Arc::clone(&locks);
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let bus = Builder::address(address.as_str()).build().await.unwrap();
                let calls = MessageStream::from(&bus);
                if let Some(name) = name {
                    bus.request_name(name).await.unwrap();
                }
                told.send(()).unwrap();
                serve(&bus, calls, said, &shared, refuses).await;
            });
        });
        ready.recv().expect("a connection to the bus");
        Self {
            commands: Some(commands),
            locks,
            thread: Some(thread),
        }
    }

    /// Says to all that the machine is about to sleep, or was woken.
    pub fn prepare_for_sleep(&self, begins: bool) {
        self.say(begins, None);
    }

    /// Says so to one only, by its name on the bus.
    pub fn prepare_one_for_sleep(&self, begins: bool, to: &str) {
        self.say(begins, Some(to.to_owned()));
    }

    fn say(&self, begins: bool, to: Option<String>) {
        let (done, is_done) = oneshot::channel();
        let say = Say { begins, to, done };
        assert!(self.commands.as_ref().unwrap().send(say).is_ok());
        is_done.blocking_recv().unwrap();
    }

    /// What is held now.
    pub fn locks(&self) -> Locks {
        self.locks.lock().unwrap().clone()
    }

    /// Waits until the locks are as wanted.
    #[track_caller]
    pub fn expect(&self, what: &str, within: Duration, wanted: impl Fn(&Locks) -> bool) -> Locks {
        let end = Instant::now() + within;
        let found = wait_for(end, || Some(self.locks()).filter(|locks| wanted(locks)));
        found.unwrap_or_else(|| panic!("{what}: not within {within:?}: {:?}", self.locks()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until nobody wants anything any more, or the bus is gone.
async fn serve(
    bus: &Connection,
    mut calls: MessageStream,
    mut said: UnboundedReceiver<Say>,
    locks: &Arc<Mutex<Locks>>,
    refuses: bool,
) {
    loop {
        tokio::select! {
            say = said.recv() => match say {
                Some(say) => tell(bus, say).await,
                None => return,
            },
            call = next(&mut calls) => match call {
                Some(call) => answer(bus, &call, locks, refuses).await,
                None => return,
            },
        }
    }
}

async fn next(calls: &mut MessageStream) -> Option<Message> {
    use zbus::export::futures_core::Stream;
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *calls).poll_next(context))
        .await?
        .ok()
}

async fn tell(bus: &Connection, say: Say) {
    let to = say.to.as_deref();
    let (path, manager) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
    bus.emit_signal(to, path, manager, "PrepareForSleep", &say.begins)
        .await
        .unwrap();
    // The bus answers in order: now it has the signal.
    let of_bus = "org.freedesktop.DBus";
    bus.call_method(
        Some(of_bus),
        "/org/freedesktop/DBus",
        Some(of_bus),
        "GetId",
        &(),
    )
    .await
    .unwrap();
    let _ = say.done.send(());
}

async fn answer(bus: &Connection, call: &Message, locks: &Arc<Mutex<Locks>>, refuses: bool) {
    let header = call.header();
    let member = header.member().map(|member| member.as_str());
    if call.message_type() != Type::MethodCall || member != Some("Inhibit") {
        return;
    }
    if refuses {
        let name = "org.freedesktop.DBus.Error.AccessDenied";
        return bus
            .reply_error(&header, name, &"no permission")
            .await
            .unwrap();
    }
    let (what, who, why, mode): (String, String, String, String) =
        call.body().deserialize().unwrap();
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let sender = header.sender().unwrap().to_string();
    {
        let mut locks = locks.lock().unwrap();
        locks.taken += 1;
        locks.held += 1;
        locks.last = [what, who, why, mode, sender];
    }
    let theirs = OwnedFd::from(std::os::fd::OwnedFd::from(theirs));
    bus.reply(&header, &theirs).await.unwrap();
    drop(theirs);
    let locks = Arc::clone(locks);
    thread::spawn(move || {
        // Its end is that of the last copy of the other end.
        let _ = ours.read(&mut [0]);
        locks.lock().unwrap().held -= 1;
    });
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// The name that logind has on every bus.
pub const LOGIND: &str = "org.freedesktop.login1";

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="signal"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;
