//! A terminal that does not echo, for as long as a [`Quiet`] lives.
//!
//! **Invariant:** the terminal echoes again when the [`Quiet`] is dropped and before the process
//! dies of a signal that can be caught; readpassphrase(3) of OpenSSH sets the example.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};

/// Echo is off until this is dropped. One at a time in a process.
pub(super) struct Quiet {
    terminal: OwnedFd,
    before: libc::termios,
    handlers: Vec<(Signal, SigAction)>,
    /// The signals this thread did not take before.
    mask: SigSet,
}

impl Quiet {
    /// Turns the echo of `terminal` off and throws away what was typed ahead. `None` if it is no
    /// terminal.
    pub(super) fn start(terminal: BorrowedFd<'_>) -> Option<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned().ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut quiet = before.clone();
        quiet
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        // Ctrl-Z would leave the terminal quiet for the shell; it is an ordinary character here.
        if let Some(suspend) = quiet
            .control_chars
            .get_mut(SpecialCharacterIndices::VSUSP as usize)
        {
            *suspend = libc::_POSIX_VDISABLE;
        }
        let mut mask = SigSet::empty();
        let handlers = catch(&terminal, &before.clone().into());
        let _ = signals()
            .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_UNBLOCK)
            .map(|old| mask = old);
        let guard = Self {
            terminal,
            before: before.into(),
            handlers,
            mask,
        };
        tcsetattr(&guard.terminal, SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(guard)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // An error means that the terminal is gone; there is nothing to restore then.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before.into());
        let _ = self.mask.thread_set_mask();
        release(&self.handlers);
    }
}

fn signals() -> SigSet {
    SIGNALS.into_iter().collect()
}

/// What the handler needs, where it can read it: it may take no lock and allocate nothing.
static TERMINAL: AtomicI32 = AtomicI32::new(-1);
static BEFORE: AtomicPtr<libc::termios> = AtomicPtr::new(std::ptr::null_mut());

#[expect(
    unsafe_code,
    reason = "sigaction(2) takes a handler that must keep to what it may do"
)]
fn catch(terminal: &OwnedFd, before: &libc::termios) -> Vec<(Signal, SigAction)> {
    // One small block for each question stays allocated: a handler that is running cannot be
    // waited for.
    BEFORE.store(Box::into_raw(Box::new(*before)), Ordering::SeqCst);
    TERMINAL.store(terminal.as_raw_fd(), Ordering::SeqCst);
    let ours = SigAction::new(
        SigHandler::Handler(restore_and_raise),
        SaFlags::empty(),
        SigSet::empty(),
    );
    let mut replaced = Vec::new();
    for signal in SIGNALS {
        // SAFETY: the handler makes only calls that signal-safety(7) lists.
        let Ok(old) = (unsafe { sigaction(signal, &ours) }) else {
            continue;
        };
        if matches!(old.handler(), SigHandler::SigIgn) {
            // SAFETY: puts back what was there.
            let _ = unsafe { sigaction(signal, &old) };
        } else {
            replaced.push((signal, old));
        }
    }
    replaced
}

#[expect(unsafe_code, reason = "sigaction(2)")]
fn release(handlers: &[(Signal, SigAction)]) {
    for (signal, old) in handlers {
        // SAFETY: puts back what was there.
        let _ = unsafe { sigaction(*signal, old) };
    }
    TERMINAL.store(-1, Ordering::SeqCst);
}

/// Restores the terminal, and lets the signal do what it does to a process that handles nothing.
#[expect(
    unsafe_code,
    reason = "runs as a signal handler: plain system calls only"
)]
extern "C" fn restore_and_raise(signal: libc::c_int) {
    let before = BEFORE.load(Ordering::SeqCst);
    // SAFETY: `before` points to a block that is never freed; tcsetattr(3), signal(2) and raise(3)
    // may be called in a handler.
    unsafe {
        if !before.is_null() {
            libc::tcsetattr(TERMINAL.load(Ordering::SeqCst), libc::TCSANOW, before);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// What ends a process from outside or by Ctrl-C and Ctrl-\.
const SIGNALS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];
