//! Forks, keeps the first process waiting until the mount answers, and cuts the second one loose.
//!
//! **Invariant:** the process that waits ends with success only when the mount answers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use log::LevelFilter;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid, pipe2, setsid};

use super::logging;
use super::signals::INTERRUPTED;
use super::terminal::Terminal;
use crate::error::{Error, Result};

/// What this process is to do after [`split`].
pub(super) enum Side {
    /// Wait for the other.
    Waiting(Child),
    /// Serve the mount.
    Serving(Report),
}

/// The process that will serve, seen by the one that waits.
pub(super) struct Child {
    pid: Pid,
    pipe: File,
}

/// Where the process that serves says how it went; nowhere in the foreground.
pub(super) struct Report {
    pipe: Option<File>,
    is_background: bool,
}

/// First byte of a message: the mount answers.
const ANSWERS: u8 = b'+';
/// First byte of a message: it failed, and why follows.
const FAILED: u8 = b'-';

/// Forks, unless all is to happen in the foreground.
pub(super) fn split(foreground: bool) -> Result<Side> {
    if foreground {
        return Ok(Side::Serving(Report {
            pipe: None,
            is_background: false,
        }));
    }
    let cannot = |errno| Error::setup(format!("cannot go to the background: {errno}"));
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(cannot)?;
    let waiting = nix::unistd::getpid();
    match fork_without_threads().map_err(cannot)? {
        ForkResult::Parent { child } => {
            drop(write);
            Ok(Side::Waiting(Child {
                pid: child,
                pipe: File::from(read),
            }))
        }
        ForkResult::Child => {
            drop(read);
            end_with(waiting);
            Ok(Side::Serving(Report {
                pipe: Some(File::from(write)),
                is_background: true,
            }))
        }
    }
}

#[expect(unsafe_code, reason = "nix offers fork(2) only so")]
fn fork_without_threads() -> nix::Result<ForkResult> {
    // SAFETY: `run` forks before it starts any thread, so that no lock is held by one that is gone.
    unsafe { fork() }
}

/// Until the mount answers we end with the process that waits: who kills that one does not want a
/// mount any more.
fn end_with(waiting: Pid) {
    // Without it (no kernel lacks it) the report that nobody reads ends us, only later.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    if getppid() != waiting {
        std::process::exit(1);
    }
}

impl Child {
    /// Waits until the mount answers, or takes over why it does not.
    pub(super) fn wait(mut self, terminal: &Terminal) -> Result<()> {
        // Ctrl-C is for the other one: we stay to put the terminal in order.
        // That a signal cannot be blocked means that we end at once; no harm.
        let _ = SigSet::from(Signal::SIGINT).thread_block();
        let mut message = Vec::new();
        // A broken pipe is as good as an ended one.
        let _ = self.pipe.read_to_end(&mut message);
        match message.split_first() {
            Some((&ANSWERS, _)) => return Ok(()),
            Some((_, why)) => {
                terminal.restore();
                // It ends on its own; waiting means that no trace of it is left when we end.
                let _ = waitpid(self.pid, None);
                return Err(Error::setup(String::from_utf8_lossy(why).into_owned()));
            }
            None => terminal.restore(),
        }
        let how = match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, INTERRUPTED)) => "interrupted; nothing is mounted".to_owned(),
            Ok(WaitStatus::Exited(_, code)) => format!("ended unexpectedly with code {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("ended unexpectedly by {signal}"),
            other => format!("ended unexpectedly: {other:?}"),
        };
        Err(Error::setup(how))
    }
}

impl Report {
    /// Whether this process goes, or went, to the background.
    pub(super) fn is_background(&self) -> bool {
        self.is_background
    }

    /// The mount answers: leaves the terminal and lets the other process end.
    ///
    /// # Errors
    /// The other process is gone: nobody wants this mount.
    pub(super) fn answers(&mut self) -> Result<()> {
        let Some(mut pipe) = self.pipe.take() else {
            return Ok(());
        };
        leave_terminal()
            .map_err(|why| Error::setup(format!("cannot go to the background: {why}")))?;
        let told = pipe.write_all(&[ANSWERS]);
        told.map_err(|_| Error::setup("the process that started it is gone"))
    }

    /// Says how it ended. In the background this ends the process.
    pub(super) fn end(self, ended: Result<()>) -> Result<()> {
        if !self.is_background {
            return ended;
        }
        let Err(error) = ended else {
            std::process::exit(0);
        };
        match self.pipe {
            Some(mut pipe) => {
                let message = [&[FAILED], error.to_string().as_bytes()].concat();
                // If nobody listens any more, nobody can be told.
                let _ = pipe.write_all(&message);
            }
            None => log::error!("{error}"),
        }
        std::process::exit(1);
    }
}

fn leave_terminal() -> std::io::Result<()> {
    setsid()?;
    nix::sys::prctl::set_pdeathsig(None)?;
    // The directory we were started in must not stay busy for ever.
    std::env::set_current_dir("/")?;
    logging::to_syslog();
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    if log::max_level() >= LevelFilter::Info {
        log::info!("in the background as process {}", std::process::id());
    }
    Ok(())
}
