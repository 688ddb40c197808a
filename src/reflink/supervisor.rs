//! The process that answers. It lives until the last process of the program's has ended, in a
//! session of its own, so that no terminal ends or stops it before.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::unistd::{ForkResult, Pid};

use super::answer::answer;
use super::caller::{Report, Signals};
use super::kernel::{self, Notification, Of};
use super::program::Program;
use super::{FAILED, complain, detach, fork, pipe};

/// How many clones are made at once. Each takes a few round trips to the server, in which it keeps
/// its thread; further programs wait.
const AT_ONCE: usize = 8;

/// Starts the program, answers for it and reports its end; says with which code to exit.
pub(super) fn run(program: &Program, signals: &Signals, go: File, report: File) -> u8 {
    match start(program, signals, go, report) {
        Ok((child, report)) => {
            attend(child, report);
            0
        }
        Err(Stop::Code(code)) => code,
        Err(Stop::Why(why)) => {
            complain(&why);
            FAILED
        }
    }
}

/// Why it does not go on.
enum Stop {
    /// This is the program's process, or why has been said.
    Code(u8),
    Why(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

fn start(
    program: &Program,
    signals: &Signals,
    go: File,
    report: File,
) -> Result<(Pid, File), Stop> {
    if !kernel::notifications_fit() {
        return Err(unfit().into());
    }
    // Processes whose parent has ended stay below us: only so Yama lets us look at them.
    prctl::set_child_subreaper(true).map_err(|errno| format!("prctl: {}", errno.desc()))?;
    let (number, told) = pipe()?;
    let child = match fork()? {
        ForkResult::Child => {
            // Their ends are what the others wait for.
            drop((number, report));
            let code = program.execute_filtered(signals.mask_before(), told, go);
            return Err(Stop::Code(code));
        }
        ForkResult::Parent { child } => child,
    };
    drop((told, go));
    let listener = Arc::new(fetch(child, number)?);
    start_threads(&listener)?;
    // It can fail for the leader of a group only, which a child is not.
    let _ = nix::unistd::setsid();
    detach::let_go(&[listener.as_raw_fd(), report.as_raw_fd()]);
    detach::fall_silent();
    let _ = prctl::set_name(c"sftpfs-reflink");
    Ok((child, report))
}

fn start_threads(listener: &Arc<OwnedFd>) -> Result<(), String> {
    for _ in 0..AT_ONCE {
        let listener = Arc::clone(listener);
        let thread = thread::Builder::new().name("reflink".into());
        thread
            .spawn(move || serve(listener.as_fd()))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    Ok(())
}

/// The listener out of the program's process: what every clone needs, so that it fails now or never.
fn fetch(child: Pid, mut number: File) -> Result<OwnedFd, Stop> {
    let mut bytes = [0; 4];
    if number.read_exact(&mut bytes).is_err() {
        // It has said why.
        return Err(Stop::Code(FAILED));
    }
    let pidfd = kernel::pidfd_open(child, Of::Process);
    let listener =
        pidfd.and_then(|pidfd| kernel::pidfd_getfd(pidfd.as_fd(), i32::from_ne_bytes(bytes)));
    listener.map_err(|errno| {
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        Stop::Why(explain(errno, scope.ok().as_deref().map(str::trim)))
    })
}

fn explain(errno: Errno, ptrace_scope: Option<&str>) -> String {
    match (errno, ptrace_scope) {
        (Errno::ENOSYS, _) => "this kernel has no pidfd_getfd(2): Linux 5.6 or later is needed".into(),
        (Errno::EPERM, Some("2")) => {
            "only root may look at other processes here (kernel.yama.ptrace_scope is 2); root can \
             run this, or set it to 1 with sysctl(8)"
                .into()
        }
        (Errno::EPERM, Some("3")) => {
            "nobody may look at other processes here (kernel.yama.ptrace_scope is 3, until the next \
             boot)"
                .into()
        }
        (Errno::EPERM, _) => {
            "not permitted to look at the program's open files (pidfd_getfd(2)): in a container, \
             CAP_SYS_PTRACE is needed"
                .into()
        }
        (errno, _) => format!("the program's open files: {}", errno.desc()),
    }
}

fn unfit() -> String {
    "this kernel cannot pass on system calls (Linux 5.6 or later is needed), or only in a form that \
     this sftpfs does not know"
        .into()
}

/// Waits for all processes below us, the program and those that outlive it, and reports.
fn attend(child: Pid, report: File) {
    let mut report = Some(report);
    tell(report.as_mut(), Report::Started(child));
    loop {
        match kernel::wait_any() {
            Ok((pid, end)) if pid == child => {
                let is_last = !kernel::has_children();
                tell(report.take().as_mut(), Report::Ended { end, is_last });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            // ECHILD: the last one has gone.
            Err(_) => return,
        }
    }
}

fn tell(to: Option<&mut File>, report: Report) {
    if let Some(to) = to {
        // Whoever has been killed needs no report; the program and those below it go on.
        let _ = to.write_all(&report.encode());
    }
}

/// Answers one after the other until nobody is left to ask.
fn serve(listener: BorrowedFd<'_>) {
    while let Some(asked) = next(listener) {
        let answer = answer(listener, &asked);
        // Who asked may have been killed meanwhile.
        let _ = kernel::send(listener, asked.id, answer);
    }
}

/// One thread at a time waits: before Linux 6.11 the kernel's own queue does not end when the last
/// program does, so poll(2) must come first, and then be followed by no one else.
static TURN: Mutex<()> = Mutex::new(());

fn next(listener: BorrowedFd<'_>) -> Option<Notification> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => give_up(),
        }
        let [found] = fds;
        if !found.any().unwrap_or(false) {
            continue;
        }
        if !found
            .revents()
            .unwrap_or(PollFlags::empty())
            .contains(PollFlags::POLLIN)
        {
            return None;
        }
        match kernel::receive(listener) {
            Ok(asked) => return Some(asked),
            // Killed between the two calls.
            Err(Errno::ENOENT | Errno::EINTR) => {}
            Err(_) => give_up(),
        }
    }
}

/// Better that programs get an error (ENOSYS, from the kernel) than that they wait for ever.
fn give_up() -> ! {
    std::process::exit(FAILED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(explain(Errno::ENOSYS, None).contains("Linux 5.6"));
        assert!(explain(Errno::EPERM, Some("2")).contains("set it to 1"));
        assert!(explain(Errno::EPERM, Some("3")).contains("next boot"));
        assert!(explain(Errno::EPERM, Some("1")).contains("CAP_SYS_PTRACE"));
        assert!(explain(Errno::EPERM, None).contains("CAP_SYS_PTRACE"));
    }
}
