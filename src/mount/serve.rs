//! The life of a mount: connect, mount, answer the kernel, write what is unwritten, end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Session, SessionACL};
use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::background::Report;
use super::kernel::{self, Mount};
use super::place::Place;
use super::presence::Presence;
use super::resume::Resume;
use super::signals::{self, Stage};
use super::state::state_directory;
use super::terminal::Terminal;
use super::{Options, device, found};
use crate::client::{Client, Standing};
use crate::clock;
use crate::control::{Control, Subject};
use crate::error::{Error, Result};
use crate::fs::{CopyIsHardlink, Filesystem, Patience, State};
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
    /// A signal asks for something.
    Signal(Signal),
}

/// Serves one mount from the first connection to the last byte written.
pub(super) fn serve(
    mut options: Options,
    place: Place,
    terminal: Terminal,
    report: &mut Report,
) -> Result<()> {
    let (event, events) = channel();
    let stages = signals::watch(
        terminal,
        report.is_background(),
        event.clone(),
        Event::Signal,
    )?;
    let network = Network::start()?;
    let subject = network.handle.block_on(connect(&mut options))?;
    let fs = Arc::clone(&subject.fs);

    let mut stage = stages.lock();
    let recall = Recall::default();
    let (mount, session) = attach(&options, &place, (&fs, &recall), &network.handle)?;
    *stage = Stage::Mounted;
    drop(stage);

    let presence = announce(&mount);
    let control = control(&mount, subject);
    mount.raise_read_ahead();
    watch_for_resume(&network.handle, &fs, &recall);
    #[cfg(feature = "logind")]
    watch_for_sleep(&network.handle, &fs, &recall, &options.source);
    let ended = match answer(session, event, report) {
        Ok(()) => wait_for_end(&events, &mount, (&fs, &recall)),
        Err(error) => (Err(error), clock::of_timers()),
    };
    // Also after an error of ours: nothing stays mounted that nobody answers.
    let detached = mount.detach();
    let (ended, since) = ended;
    let patience = Patience {
        all: SHUTDOWN_MAX,
        since,
    };
    let must_hurry = || presence.as_ref().is_some_and(Presence::is_in_hurry);
    let written = network.handle.block_on(fs.shut_down(patience, must_hurry));
    drop((fs, control));
    network.stop();
    let ended = ended.and(detached).and(written);
    if let Some(presence) = presence {
        presence.leave(&ended);
    }
    ended
}

async fn connect(options: &mut Options) -> Result<Subject> {
    // Nothing of it is left here: there may be a password in it.
    let dialer = Dialer::new(std::mem::take(&mut options.target)).await?;
    let (questions, server) = (dialer.questions(), dialer.describe());
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
    let fs = Filesystem::new(client, &options.directory, config).await?;
    Ok(Subject {
        fs,
        questions,
        server,
        network: Handle::current(),
    })
}

/// Mounts and shakes hands with the kernel; if the second fails, the first is undone.
fn attach(
    options: &Options,
    place: &Place,
    (fs, recall): (&Arc<Filesystem>, &Recall),
    network: &Handle,
) -> Result<(Mount, Session<Face>)> {
    let (descriptor, mount) = kernel::attach(options, place)?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(SESSION_THREADS);
    // fuser opens /dev/fuse once more for each thread, which a sandboxed daemon may not.
    config.clone_fd = device::is_openable();
    let face = Face::new(Arc::clone(fs), network.clone(), recall.clone());
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

/// Without it `sftpfs status` cannot tell how the mount is, and all else works.
fn control(mount: &Mount, subject: Subject) -> Option<Control> {
    let place = found::control_of(mount.device()?);
    Control::start(&place, subject)
        .inspect_err(|error| log::info!("'sftpfs status' will not know this mount: {error}"))
        .ok()
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

/// Waits until the mount is to end. Also says since when that is so.
fn wait_for_end(
    events: &Receiver<Event>,
    mount: &Mount,
    (fs, recall): (&Filesystem, &Recall),
) -> (Result<()>, Instant) {
    let ended = loop {
        match events.recv() {
            Ok(Event::Ended(ended)) => break (ended, clock::of_timers()),
            Ok(Event::Signal(Signal::SIGUSR1)) => {
                log::info!("SIGUSR1: whoever waits for the server is interrupted");
                recall.all();
            }
            Ok(Event::Signal(signal)) => {
                let since = clock::of_timers();
                log::info!("{signal}: unmounting");
                if let Err(error) = mount.detach() {
                    return (Err(error), since);
                }
                break (end_within(events, grace(fs)), since);
            }
            // Both senders live as long as their threads, which end with an event or not at all.
            Err(_) => {
                let gone = io::Error::other("the session's thread is gone");
                break (Err(gone), clock::of_timers());
            }
        }
    };
    let (ended, since) = ended;
    let cannot = |error| Error::setup(format!("the kernel's requests cannot be read: {error}"));
    (ended.map_err(cannot), since)
}

/// Whoever waits for a server that is away closes nothing.
fn grace(fs: &Filesystem) -> Duration {
    match fs.health().standing {
        Standing::Connected => GRACE,
        _ => Duration::ZERO,
    }
}

/// The session's end, if it comes in time.
fn end_within(events: &Receiver<Event>, grace: Duration) -> io::Result<()> {
    let until = clock::of_timers() + grace;
    loop {
        let left = until.saturating_duration_since(clock::of_timers());
        match events.recv_timeout(left) {
            Ok(Event::Ended(ended)) => return ended,
            Ok(Event::Signal(_)) => {}
            // Still in use. Our end is an end of the connection for those.
            Err(_) => return Ok(()),
        }
    }
}

/// Without it a connection that died while the machine slept is found dead a little later.
fn watch_for_resume(network: &Handle, fs: &Arc<Filesystem>, recall: &Recall) {
    let _entered = network.enter();
    let woken = woken(fs);
    let recall = recall.clone();
    let jumped = move || {
        // Before logind says it.
        recall.open();
        woken()
    };
    match Resume::new() {
        Ok(resume) => drop(network.spawn(resume.each(jumped))),
        Err(error) => log::info!("it is not noticed when the machine has slept: {error}"),
    }
}

/// Without it programs that wait for the server keep the machine awake.
#[cfg(feature = "logind")]
fn watch_for_sleep(network: &Handle, fs: &Arc<Filesystem>, recall: &Recall, source: &str) {
    let sleep = super::sleep::Sleep::new(recall.clone(), Arc::clone(fs.waits()), source, woken(fs));
    drop(network.spawn(sleep.listen()));
}

/// What is done when the machine has slept; says whether anybody is interested.
fn woken(fs: &Arc<Filesystem>) -> impl Fn() -> bool + Send + Sync + 'static {
    let fs = Arc::downgrade(fs);
    move || fs.upgrade().map(|fs| fs.check_connection()).is_some()
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
