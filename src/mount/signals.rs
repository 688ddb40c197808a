//! SIGTERM, SIGINT and SIGHUP, each by what is going on when it arrives: they end a connection
//! attempt at once, unmount what is mounted, and end hard when asked a second time. SIGUSR1 is
//! passed on while something is mounted, and else means nothing.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::terminal::Terminal;
use crate::error::{Error, Result};

/// How the process in the background tells the one that waits: 128 and SIGINT, as shells say it.
pub(super) const INTERRUPTED: i32 = 130;

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is mounted: to end at once leaves nothing behind.
    Connecting,
    /// Ask the main thread to unmount.
    Mounted,
    /// The main thread was asked: whoever sends another signal does not want to wait.
    Ending {
        /// When it was asked.
        since: Instant,
    },
}

/// Signals that come closer together are one wish.
const ONE_WISH: Duration = Duration::from_secs(1);

/// The stage, shared with the thread that waits for signals. Its lock is held while mounting, so
/// that a signal finds either nothing or a whole mount.
#[derive(Debug, Clone)]
pub(super) struct Stages(Arc<Mutex<Stage>>);

impl Stages {
    pub(super) fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks the signals, for this thread and all that it starts, and starts the one that waits for
/// them; it lives as long as the process. `wake` is called with the first signal after mounting.
/// Children get an empty mask from [`std::process::Command`].
pub(super) fn watch<E: Send + 'static>(
    terminal: Terminal,
    is_background: bool,
    asked: Sender<E>,
    event: fn(Signal) -> E,
) -> Result<Stages> {
    let signals = SigSet::from(Signal::SIGTERM) | Signal::SIGINT | Signal::SIGHUP | Signal::SIGUSR1;
    signals
        .thread_block()
        .map_err(|errno| Error::setup(format!("sigprocmask: {errno}")))?;
    let stages = Stages(Arc::new(Mutex::new(Stage::Connecting)));
    let shared = stages.clone();
    let wait = move || {
        // sigwait(3) fails for a set without signals only.
        while let Ok(signal) = signals.wait() {
            let mut stage = shared.lock();
            match *stage {
                Stage::Mounted if signal == Signal::SIGUSR1 => drop(asked.send(event(signal))),
                _ if signal == Signal::SIGUSR1 => {}
                Stage::Connecting => {
                    terminal.restore();
                    if is_background {
                        std::process::exit(INTERRUPTED);
                    }
                    eprintln!("sftpfs: interrupted; nothing is mounted");
                    std::process::exit(1);
                }
                Stage::Mounted => {
                    *stage = Stage::Ending {
                        since: crate::clock::now(),
                    };
                    // The main thread is gone only when the process ends.
                    let _ = asked.send(event(signal));
                }
                // One wish may come as two signals: timeout(1) sends its child one, and then all of
                // the child's group.
                Stage::Ending { since } if crate::clock::now() - since < ONE_WISH => {}
                Stage::Ending { .. } => {
                    log::error!("{signal} again: ending now, unwritten data is lost");
                    std::process::exit(1);
                }
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("sftpfs-signals".into())
        .spawn(wait);
    thread.map_err(|error| Error::setup(format!("cannot start a thread: {error}")))?;
    Ok(stages)
}
