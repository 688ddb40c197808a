//! Stops programs that ask again and again while the machine falls asleep. One that calls again
//! whenever it is told EINTR, as most do that read or write, is nearly always in the middle of a
//! call, and cannot be frozen there. So it is traced and stopped at the end of that call
//! (PTRACE_SEIZE and PTRACE_INTERRUPT of ptrace(2)), which the shell that started it does not see and
//! a freeze does not mind. It goes on when the tracing thread ends: also if we die.
//!
//! Where that is not allowed (Yama's ptrace_scope, a debugger) the program is left as it is.

use std::collections::HashMap;
use std::ptr::null_mut;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use nix::errno::Errno;
use tokio::sync::oneshot;

/// Programs that are stopped until the machine was woken.
#[derive(Debug, Default)]
pub(super) struct Hold(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often each thread was interrupted for this sleep.
    interrupted: HashMap<u32, u32>,
    /// To the thread that traces, which ends with this.
    tracer: Option<Sender<Wanted>>,
}

/// A thread to stop, and who waits until it will.
type Wanted = (u32, oneshot::Sender<()>);

impl Hold {
    /// To be called before a thread is told EINTR for a sleep: stops one that comes again and again.
    pub(super) async fn interrupts(&self, thread: u32) {
        let Some(sender) = self.wanted(thread) else {
            return;
        };
        let (done, is_done) = oneshot::channel();
        if sender.send((thread, done)).is_ok() {
            // An error is the end of the tracing thread, and the same.
            let _ = is_done.await;
        }
    }

    /// Lets all go on.
    pub(super) fn release(&self) {
        *self.lock() = State::default();
    }

    /// Who stops the thread, if it is to be stopped.
    fn wanted(&self, thread: u32) -> Option<Sender<Wanted>> {
        let mut state = self.lock();
        if thread == 0 || (state.interrupted.len() >= THREADS_MAX) {
            return None;
        }
        let times = state.interrupted.entry(thread).or_default();
        *times += 1;
        if *times != TIMES {
            return None;
        }
        if state.tracer.is_none() {
            state.tracer = tracer()
                .inspect_err(|error| log::debug!("no program is stopped: {error}"))
                .ok();
        }
        state.tracer.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that traces: the kernel takes one thread for the tracer, not the process.
fn tracer() -> io::Result<Sender<Wanted>> {
    let (sender, receiver) = channel::<Wanted>();
    let trace = move || {
        for (thread, done) in receiver {
            if let Err(errno) = stop(thread) {
                log::debug!("thread {thread} is not stopped for the sleep: {errno}");
            }
            // Who waited may be gone.
            let _ = done.send(());
        }
    };
    let thread = thread::Builder::new().name("sftpfs-hold".into());
    thread.spawn(trace).map(|_| sender)
}

/// Stops a thread when it leaves the kernel.
fn stop(thread: u32) -> nix::Result<()> {
    let thread = libc::pid_t::try_from(thread).map_err(|_| Errno::ESRCH)?;
    ask(libc::PTRACE_SEIZE, thread)?;
    ask(libc::PTRACE_INTERRUPT, thread)
}

#[expect(unsafe_code, reason = "nix would need one more feature for two calls")]
fn ask(request: libc::c_uint, thread: libc::pid_t) -> nix::Result<()> {
    let nothing = null_mut::<libc::c_void>();
    // SAFETY: both requests take no address and no data, and touch no memory of ours.
    Errno::result(unsafe { libc::ptrace(request, thread, nothing, nothing) }).map(drop)
}

/// Who calls that often within the moment between our EINTR and the sleep does nothing else.
const TIMES: u32 = 3;
/// Threads that are counted; further ones are not stopped.
const THREADS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn state(child: &Child) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    async fn until(child: &Child, wanted: impl Fn(char) -> bool) {
        let is_so = async {
            while !state(child).is_some_and(&wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let most = Duration::from_secs(20);
        let found = tokio::time::timeout(most, is_so).await;
        assert!(found.is_ok(), "{:?}", state(child));
    }

    #[tokio::test]
    async fn who_comes_again_and_again_is_stopped_until_it_is_let_go() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null());
        let mut busy = command.spawn().unwrap();
        let hold = Hold::default();
        for _ in 1..TIMES {
            hold.interrupts(busy.id()).await;
        }
        until(&busy, |state| state == 'R').await;
        hold.interrupts(busy.id()).await;
        until(&busy, |state| state == 't').await;
        hold.release();
        until(&busy, |state| state == 'R').await;
        busy.kill().unwrap();
        busy.wait().unwrap();
    }

    #[tokio::test]
    async fn who_is_unknown_or_gone_is_not_waited_for() {
        let hold = Hold::default();
        for _ in 0..TIMES {
            hold.interrupts(0).await;
            hold.interrupts(i32::MAX as u32).await;
            hold.interrupts(u32::MAX).await;
        }
    }
}
