//! The process that was started: it passes on the signals that are sent to it, and ends as the
//! program ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::ExitCode;

use libc::c_int;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::kernel::{self, End, Of};
use super::{FAILED, detach};

/// Signals by which people and programs say something to a program.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that are held back from this process; they are read instead.
pub(super) struct Signals {
    arriving: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Holds them back from now on, in this process and in those that it forks.
    pub(super) fn hold() -> Result<Self, String> {
        let cannot = |errno: Errno| format!("signals: {}", errno.desc());
        let held: SigSet = PASSED_ON.into_iter().collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before)).map_err(cannot)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let arriving = SignalFd::with_flags(&held, flags).map_err(cannot)?;
        Ok(Self { arriving, before })
    }

    /// What was held back before, and will be for the program.
    pub(super) fn mask_before(&self) -> SigSet {
        self.before
    }

    /// Passes on what has arrived.
    fn pass_on(&self, program: BorrowedFd<'_>) {
        while let Ok(Some(signal)) = self.arriving.read_signal() {
            if was_sent_to_us_alone(signal.ssi_code) {
                // ESRCH: it has just ended, which is what will be reported.
                let _ = kernel::pidfd_send_signal(program, signal.ssi_signo.cast_signed());
            }
        }
    }
}

/// sigaction(2), "si_code": a signal of the kernel's, such as Ctrl-C, goes to the whole group of
/// processes, and so to the program without us.
fn was_sent_to_us_alone(code: i32) -> bool {
    code <= 0
}

/// What the supervisor reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// All is ready for the program, which is this process.
    Started(Pid),
    /// The program has ended.
    Ended {
        end: End,
        /// No process of its is left, so that the supervisor ends too.
        is_last: bool,
    },
}

impl Report {
    pub(super) fn encode(self) -> [u8; 8] {
        let (kind, value) = match self {
            Self::Started(pid) => (0, pid.as_raw()),
            Self::Ended { end, is_last } => match end {
                End::Exited(code) => (1 | u64::from(is_last) << 2, code),
                End::Killed(signal) => (2 | u64::from(is_last) << 2, signal),
            },
        };
        (u64::from(value.cast_unsigned()) << 8 | kind).to_ne_bytes()
    }

    fn decode(bytes: [u8; 8]) -> Option<Self> {
        let number = u64::from_ne_bytes(bytes);
        let value = u32::try_from(number >> 8).ok()?.cast_signed();
        let end = match number & 0xFF {
            0 => return Some(Self::Started(Pid::from_raw(value))),
            1 | 5 => End::Exited(value),
            2 | 6 => End::Killed(value),
            _ => return None,
        };
        let is_last = number & 4 != 0;
        Some(Self::Ended { end, is_last })
    }

    /// `None` if the supervisor is no more.
    fn read(mut from: &File) -> Option<Self> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes).ok()?;
        Self::decode(bytes)
    }
}

/// How to end.
pub(super) enum Ended {
    Exited(u8),
    Killed(c_int),
}

impl Ended {
    /// Ends by the same signal, so that a shell sees what it would have seen: a script ends with a
    /// program that Ctrl-C has ended, and goes on after one that exits with 130.
    pub(super) fn repeat(self) -> ExitCode {
        match self {
            Self::Exited(code) => ExitCode::from(code),
            Self::Killed(signal) => {
                // One core is enough.
                let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
                kernel::die_of(signal);
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(FAILED))
            }
        }
    }
}

/// Waits for the program, which starts when all is ready.
pub(super) fn wait(
    supervisor: Pid,
    signals: &Signals,
    mut go: File,
    reports: File,
) -> Result<Ended, String> {
    let Some(Report::Started(pid)) = Report::read(&reports) else {
        return match waitpid(supervisor, None) {
            // Why has been said.
            Ok(WaitStatus::Exited(_, code)) => {
                Ok(Ended::Exited(u8::try_from(code).unwrap_or(FAILED)))
            }
            _ => Err("the supervisor ended before it had begun".into()),
        };
    };
    let cannot = |errno: Errno| format!("the program's process: {}", errno.desc());
    // It waits for us, so that the number is still its own.
    let program = kernel::pidfd_open(pid, Of::Process).map_err(cannot)?;
    go.write_all(&[0])
        .map_err(|error| format!("the program's process: {error}"))?;
    drop(go);
    let keep = [
        signals.arriving.as_fd().as_raw_fd(),
        reports.as_raw_fd(),
        program.as_raw_fd(),
    ];
    detach::let_go(&keep);
    let Some((end, is_last)) = end_of(program.as_fd(), signals, &reports) else {
        let why = "the supervisor was killed; the program goes on, and FICLONE fails for it with \
                   ENOSYS";
        return Err(why.into());
    };
    if is_last {
        see_off(supervisor);
    }
    match end {
        End::Exited(code) => Ok(Ended::Exited(u8::try_from(code).unwrap_or(FAILED))),
        End::Killed(signal) => Ok(Ended::Killed(signal)),
    }
}

/// Leaves no trace of a supervisor that is ending. One that still waits for a mount is left alone.
fn see_off(supervisor: Pid) {
    let Ok(pidfd) = kernel::pidfd_open(supervisor, Of::Process) else {
        return;
    };
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    // Nothing depends on either: whoever is above us takes it over.
    let _ = poll(&mut ended, PATIENCE_MS);
    let _ = waitpid(supervisor, Some(WaitPidFlag::WNOHANG));
}

/// Far longer than the end of a process takes, far shorter than a server's silence.
const PATIENCE_MS: u16 = 500;

fn end_of(program: BorrowedFd<'_>, signals: &Signals, reports: &File) -> Option<(End, bool)> {
    loop {
        let mut fds = [
            PollFd::new(signals.arriving.as_fd(), PollFlags::POLLIN),
            PollFd::new(reports.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
        let [_, reported] = fds;
        signals.pass_on(program);
        if !reported.any().unwrap_or(false) {
            continue;
        }
        return match Report::read(reports) {
            Some(Report::Ended { end, is_last }) => Some((end, is_last)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for report in [
            Report::Started(Pid::from_raw(4_000_000)),
            Report::Ended {
                end: End::Exited(255),
                is_last: true,
            },
            Report::Ended {
                end: End::Killed(64),
                is_last: false,
            },
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([0xFF; 8]), None);
    }

    #[test]
    fn what_the_terminal_sends_is_not_sent_twice() {
        assert!(was_sent_to_us_alone(libc::SI_USER));
        assert!(was_sent_to_us_alone(libc::SI_QUEUE));
        assert!(!was_sent_to_us_alone(libc::SI_KERNEL));
    }
}
