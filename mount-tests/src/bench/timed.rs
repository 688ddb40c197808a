//! Runs one command to its end or its deadline and takes the time, without polling.

use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process;
use crate::sys;

/// How a command ended.
#[derive(Debug)]
pub struct Timed {
    /// From its start to its end, or to the deadline.
    pub took: Duration,
    /// None if the deadline ended it.
    pub status: Option<ExitStatus>,
    /// The last of what it said on standard error.
    pub said: String,
}

/// Runs it; standard output is thrown away. At the deadline it is killed with all its children.
pub fn run(command: &mut Command, limit: Duration) -> Result<Timed, String> {
    let mut err = tempfile::tempfile().map_err(|why| why.to_string())?;
    let copy = err.try_clone().map_err(|why| why.to_string())?;
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(copy);
    sys::in_own_group(command);
    if process::is_ending() {
        return Err("everything is being taken down".into());
    }
    let started = Instant::now();
    let child = command
        .spawn()
        .map_err(|why| format!("cannot run {}: {why}", command.get_program().display()))?;
    let status = wait(child, limit);
    let took = started.elapsed();
    let mut bytes = Vec::new();
    let read = err.rewind().and_then(|()| err.read_to_end(&mut bytes));
    read.map_err(|why| why.to_string())?;
    let said = process::tail(&String::from_utf8_lossy(&bytes), 5);
    Ok(Timed { took, status, said })
}

fn wait(mut child: Child, limit: Duration) -> Option<ExitStatus> {
    let group = Pid::from_raw(-child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    // Outlives the deadline if the child hangs in a mount, and ends when the mount is taken down.
    std::thread::spawn(move || {
        let _ = sender.send(child.wait());
    });
    match receiver.recv_timeout(limit) {
        Ok(status) => status.ok(),
        Err(_) => {
            // A group that has just gone is no error.
            let _ = kill(group, Signal::SIGKILL);
            let _ = receiver.recv_timeout(Duration::from_secs(3));
            None
        }
    }
}
