//! Lends the terminal to a child while it logs in.
//!
//! A child lives in a process group of its own, so that Ctrl-C in the terminal ends the mount in
//! good order instead of cutting its connection first. A program that asks for a password must be
//! in the terminal's foreground group, though; so it is put there until it has logged in, as a
//! shell does with a job.

use std::fs::File;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// While it lives, the terminal is another process group's; dropped, it is ours again.
#[derive(Debug)]
pub(super) struct Loan {
    terminal: File,
    borrower: Pid,
}

impl Loan {
    /// Lends our terminal to a process group. `None` if there is no terminal, or if it is not ours
    /// to lend (we are in the background).
    pub(super) fn to(borrower: Pid) -> Option<Self> {
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        if tcgetpgrp(&terminal).ok()? != getpgrp() {
            return None;
        }
        tcsetpgrp(&terminal, borrower).ok()?;
        // It may have asked for the terminal a moment too early, and been stopped for it. If it
        // is gone already, there is nobody to go on.
        let _ = killpg(borrower, Signal::SIGCONT);
        Some(Self { terminal, borrower })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if tcgetpgrp(&self.terminal) != Ok(self.borrower) {
            return;
        }
        // Whoever changes the foreground group from the background is stopped by SIGTTOU, unless
        // it is blocked (tcsetpgrp(3)).
        let blocked = SigSet::from(Signal::SIGTTOU);
        let Ok(before) = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK) else {
            return;
        };
        // A terminal that was hung up meanwhile is nobody's.
        let _ = tcsetpgrp(&self.terminal, getpgrp());
        let _ = before.thread_set_mask();
    }
}
