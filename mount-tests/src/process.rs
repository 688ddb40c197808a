//! Runs programs with a deadline, and knows every process below this one.
//!
//! **Invariant:** only processes that descend from this one are ever signalled. Orphans stay ours
//! because this process is their subreaper ([`crate::sys::adopt_orphans`]).

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// None if the deadline ended it.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// Whether it ended by itself with exit code 0.
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The exit code, if it ended by itself and not by a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// How it ended, for a person.
    pub fn ending(&self) -> String {
        match self.status {
            None => format!("did not end within {:.0?}", self.took),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("ended by signal {signal}"),
                (None, None) => "ended".into(),
            },
        }
    }

    /// Everything it said, errors last.
    pub fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs a program to its end, or to its deadline, at which it and its process group are killed.
/// Its output goes to files, not pipes: a daemon that keeps them open does not keep us waiting.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    run_with_input(command, b"", limit)
}

/// As [`run`], with this on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Finished {
    let started = Instant::now();
    let mut out = tempfile::tempfile().expect("a temporary file");
    let mut err = tempfile::tempfile().expect("a temporary file");
    let mut stdin = tempfile::tempfile().expect("a temporary file");
    stdin
        .write_all(input)
        .and_then(|()| stdin.rewind())
        .expect("a temporary file");
    command
        .stdin(stdin)
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap());
    sys::in_own_group(command);
    assert!(!is_ending(), "everything is being taken down");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => panic!("cannot run {}: {why}", command.get_program().display()),
    };
    let status = wait_until(&mut child, started + limit);
    if status.is_none() {
        kill_group(&mut child);
    }
    let text = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut bytes))
            .expect("a temporary file");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Finished {
        status,
        out: text(&mut out),
        err: text(&mut err),
        took: started.elapsed(),
    }
}

/// Runs a program that must succeed; panics with what it said otherwise. Gives its output.
#[track_caller]
pub fn must_run(command: &mut Command, limit: Duration) -> String {
    let finished = run(command, limit);
    assert!(
        finished.ok(),
        "{command:?}: {}: {}",
        finished.ending(),
        tail(&finished.said(), 30)
    );
    finished.out
}

/// Starts a program that goes on running, saying nothing to our terminal.
pub fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null());
    sys::in_own_group(command);
    assert!(!is_ending(), "everything is being taken down");
    match command.spawn() {
        Ok(child) => child,
        Err(why) => panic!("cannot start {}: {why}", command.get_program().display()),
    }
}

/// Waits for a child of [`start`] until a moment; None if it still runs then.
pub fn wait_until(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    wait_for(end, || child.try_wait().ok().flatten())
}

/// Asks again and again until there is an answer or the moment has come.
pub fn wait_for<T>(end: Instant, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Waits for an adopted child (a daemon whose parent has gone). None if it still runs at the end.
pub fn wait_for_adopted(pid: i32, end: Instant) -> Option<WaitStatus> {
    wait_for(end, || {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(status) => Some(status),
            // Somebody else has waited for it, so it has gone.
            Err(_) => Some(WaitStatus::Exited(Pid::from_raw(pid), 0)),
        }
    })
}

/// Sends a signal; a process that has gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Every child of this process, adopted ones included: (pid, command name), zombies left out.
pub fn children() -> Vec<(i32, String)> {
    children_of(std::process::id())
}

/// Every child of a process: (pid, command name), zombies left out.
pub fn children_of(parent: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // pid (name) state ppid ...; the name may hold anything, so look for its last bracket.
        let Some((head, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = rest.split_ascii_whitespace();
        let (state, ppid) = (
            fields.next(),
            fields.next().and_then(|ppid| ppid.parse::<u32>().ok()),
        );
        if ppid == Some(parent) && state != Some("Z") {
            let name = head.split_once('(').map_or("", |(_, name)| name);
            found.push((pid, name.to_owned()));
        }
    }
    found
}

/// From now on nothing is started any more: a case that still runs must not make up for what is
/// being taken down.
pub fn start_no_more() {
    ENDING.store(true, Ordering::SeqCst);
}

/// Whether everything is being taken down.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Ends every process below this one, politely first. For the end, and for a signal.
pub fn end_all() {
    for (round, sent) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL]
        .iter()
        .enumerate()
    {
        let all = descendants();
        if all.is_empty() {
            return;
        }
        for pid in all {
            signal(pid, *sent);
        }
        let patience = Duration::from_secs(if round == 0 { 3 } else { 1 });
        wait_for(Instant::now() + patience, || {
            reap();
            descendants().is_empty().then_some(())
        });
    }
}

/// Takes note of adopted children that have ended; only for when nobody waits for any child.
pub fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The processes below this one that are called so (their name in ps(1): 15 bytes at most).
pub fn descendants_called(name: &str) -> Vec<i32> {
    let mut all = descendants();
    all.retain(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    });
    all
}

/// All processes below this one, the deepest last.
fn descendants() -> Vec<i32> {
    descendants_of(std::process::id())
}

/// All processes below one of ours, the deepest last.
pub fn descendants_of(parent: u32) -> Vec<i32> {
    let below = |pid: u32| children_of(pid).into_iter().map(|(pid, _)| pid);
    let mut all: Vec<i32> = below(parent).collect();
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        all.extend(below(pid.unsigned_abs()));
        next += 1;
    }
    all
}

fn kill_group(child: &mut Child) {
    let group = Pid::from_raw(-i32::try_from(child.id()).expect("a pid"));
    let _ = kill(group, Signal::SIGKILL);
    // A process that hangs in a mount may not die before the mount does; do not wait for ever.
    wait_until(child, Instant::now() + Duration::from_secs(2));
}

static ENDING: AtomicBool = AtomicBool::new(false);

/// Short against everything that is waited for here, long against the cost of asking.
const POLL: Duration = Duration::from_millis(4);
