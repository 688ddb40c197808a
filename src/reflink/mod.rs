//! `sftpfs reflink COMMAND`: runs a program, and has the clones that it and its children ask for
//! with FICLONE and FICLONERANGE (ioctl_ficlonerange(2)) made by the sftpfs mount they are about.
//!
//! The kernel refuses these two on every FUSE filesystem before the driver hears of them. A filter
//! (seccomp(2)) has it ask us instead. Three processes, each the parent of the next, none with more
//! than one thread when it forks:
//! - the one that was started (`caller.rs`) passes signals on and ends as the program ends;
//! - the supervisor (`supervisor.rs`) answers, for as long as a process of the program's lives. It
//!   is above all of them, since Yama (ptrace(2), "ptrace_scope") lets only ancestors look;
//! - the program (`program.rs`) takes the filter upon itself.
//!
//! **Invariant:** whatever is not surely a clone within one mount of ours is left to the kernel.

mod answer;
mod caller;
mod detach;
mod filter;
mod kernel;
mod program;
mod supervisor;
mod target;

use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2};

use caller::Signals;
use program::Program;

/// env(1), "EXIT STATUS": it failed itself. The others are in `program.rs`.
const FAILED: u8 = 125;

/// Runs the command, and ends as it ends: with its exit code or by the signal that has ended it.
pub(crate) fn run(command: Vec<OsString>) -> ExitCode {
    match start(command) {
        Ok(ended) => ended.repeat(),
        Err(why) => {
            complain(&why);
            ExitCode::from(FAILED)
        }
    }
}

fn start(command: Vec<OsString>) -> Result<caller::Ended, String> {
    let program = Program::new(command)?;
    if kernel::is_answered_already() {
        return Ok(caller::Ended::Exited(program.execute()));
    }
    let signals = Signals::hold()?;
    let (go_read, go) = pipe()?;
    let (reports, report) = pipe()?;
    match fork()? {
        ForkResult::Child => {
            drop((go, reports));
            std::process::exit(supervisor::run(&program, &signals, go_read, report).into())
        }
        ForkResult::Parent { child } => {
            drop((go_read, report));
            caller::wait(child, &signals, go, reports)
        }
    }
}

/// Says what is wrong, in each of the processes.
fn complain(why: &str) {
    eprintln!("sftpfs: reflink: {why}");
}

/// Read end and write end; closed when another program is executed.
fn pipe() -> Result<(File, File), String> {
    let (read, write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|errno| format!("pipe: {}", errno.desc()))?;
    Ok((File::from(read), File::from(write)))
}

fn fork() -> Result<ForkResult, String> {
    kernel::fork().map_err(|errno| format!("cannot start a process: {}", errno.desc()))
}
