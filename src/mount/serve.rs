//! The life of a mount: connect, mount, answer the kernel, write what is unwritten, end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Session, SessionACL};
use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::background::Report;
use super::kernel::{self, Mount};
use super::place::Place;
use super::presence::Presence;
use super::signals::{self, Stage};
use super::state::state_directory;
use super::terminal::Terminal;
use super::{Options, device};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::fs::{CopyIsHardlink, Filesystem, State};
use crate::fuse::{self, Face, Recall};
use crate::transport::Dialer;

/// Threads that read requests from the kernel. An operation answered from memory is done on the
/// thread, and all others only pass through, so that more would only add their 16 MiB buffers.
const SESSION_THREADS: usize = 4;

/// How long files that are open after a signal keep the process: long enough for a program that
/// gets the same signal (a shutdown, Ctrl-C) to close them, too short to be noticed.
const GRACE: Duration = Duration::from_secs(2);

/// How long writing the rest may take at the end: below the 90 s after which systemd kills.
const SHUTDOWN_MAX: Duration = Duration::from_secs(75);

/// How long connections are given to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What the main thread waits for.
enum Event {
    /// The kernel has ended the session: unmounted, from inside or outside.
    Ended(io::Result<()>),
    /// A signal asks to unmount.
    Asked(Signal),
}

/// Serves one mount from the first connection to the last byte written.
pub(super) fn serve(
    options: Options,
    place: Place,
    terminal: Terminal,
    report: &mut Report,
) -> Result<()> {
    let (event, events) = channel();
    let stages = signals::watch(
        terminal,
        report.is_background(),
        event.clone(),
        Event::Asked,
    )?;
    let network = Network::start()?;
    let fs = network.handle.block_on(connect(&options))?;

    let mut stage = stages.lock();
    let (mount, session) = attach(&options, &place, &fs, &network.handle)?;
    *stage = Stage::Mounted;
    drop(stage);

    let presence = announce(&mount);
    mount.raise_read_ahead();
    let ended = match answer(session, event, report) {
        Ok(()) => wait_for_end(&events, &mount),
        Err(error) => Err(error),
    };
    // Also after an error of ours: nothing stays mounted that nobody answers.
    let detached = mount.detach();
    let written = write_the_rest(&network.handle, &fs);
    drop(fs);
    network.stop();
    let ended = ended.and(detached).and(written);
    if let Some(presence) = presence {
        presence.leave(&ended);
    }
    ended
}

async fn connect(options: &Options) -> Result<Arc<Filesystem>> {
    let dialer = Dialer::new(options.target.clone()).await?;
    let mut config = options.fs.clone();
    config.read_only = options.read_only;
    config.default_permissions = options.default_permissions || options.allow_other;
    config.state = state_directory(options.run_as.is_some()).map(|directory| State {
        directory,
        identity: dialer.identity(),
    });
    if config.state.is_none() && config.copy_is_hardlink == CopyIsHardlink::Cow {
        log::warn!("there is no HOME to remember copies in: they are not made as hard links");
        config.copy_is_hardlink = CopyIsHardlink::Off;
    }
    let client = Client::connect(dialer, &options.client).await?;
    Filesystem::new(client, &options.directory, config).await
}

/// Mounts and shakes hands with the kernel; if the second fails, the first is undone.
fn attach(
    options: &Options,
    place: &Place,
    fs: &Arc<Filesystem>,
    network: &Handle,
) -> Result<(Mount, Session<Face>)> {
    let (descriptor, mount) = kernel::attach(options, place)?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(SESSION_THREADS);
    // fuser opens /dev/fuse once more for each thread, which a sandboxed daemon may not.
    config.clone_fd = device::is_openable();
    let face = Face::new(Arc::clone(fs), network.clone(), Recall::default());
    // All: the kernel decides who may enter, by allow_other.
    match Session::from_fd(face, descriptor, SessionACL::All, config) {
        Ok(session) => {
            if let Err(error) = fuse::start_notifier(session.notifier(), fs) {
                log::warn!("the kernel will not be told of changes: {error}");
            }
            Ok((mount, session))
        }
        Err(error) => {
            mount.detach()?;
            Err(Error::setup(format!(
                "the kernel does not accept the mount: {error}"
            )))
        }
    }
}

/// Without it `sftpfs umount` cannot wait for us, and all else works.
fn announce(mount: &Mount) -> Option<Presence> {
    match Presence::announce(mount.device()?) {
        Ok(presence) => Some(presence),
        Err(error) => {
            log::info!("'sftpfs umount' will not wait for this mount: {error}");
            None
        }
    }
}

/// Starts to answer, and says so.
fn answer(session: Session<Face>, event: Sender<Event>, report: &mut Report) -> Result<()> {
    // The main thread is there until it has received this.
    let run = move || drop(event.send(Event::Ended(session.run())));
    let thread = std::thread::Builder::new()
        .name("sftpfs-session".into())
        .spawn(run);
    thread.map_err(|error| Error::setup(format!("cannot start a thread: {error}")))?;
    report.answers()
}

fn wait_for_end(events: &Receiver<Event>, mount: &Mount) -> Result<()> {
    let ended = match events.recv() {
        Ok(Event::Ended(ended)) => ended,
        Ok(Event::Asked(signal)) => {
            log::info!("{signal}: unmounting");
            mount.detach()?;
            match events.recv_timeout(GRACE) {
                Ok(Event::Ended(ended)) => ended,
                // Still in use. Our end is an end of the connection for those.
                _ => Ok(()),
            }
        }
        // Both senders live as long as their threads, which end with an event or not at all.
        Err(_) => Err(io::Error::other("the session's thread is gone")),
    };
    ended.map_err(|error| Error::setup(format!("the kernel's requests cannot be read: {error}")))
}

fn write_the_rest(network: &Handle, fs: &Filesystem) -> Result<()> {
    network.block_on(fs.shut_down(SHUTDOWN_MAX))
}

/// The thread on which connections live.
struct Network {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Network {
    fn start() -> Result<Self> {
        let cannot = |error| Error::setup(format!("cannot start the network's thread: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // An error means that `stop` was dropped, which means the same.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(GOODBYE_MAX);
        };
        let thread = std::thread::Builder::new()
            .name("sftpfs-network".into())
            .spawn(run);
        Ok(Self {
            handle,
            stop,
            thread: thread.map_err(cannot)?,
        })
    }

    fn stop(self) {
        // Only a thread that has panicked does not listen, and then it has stopped.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
