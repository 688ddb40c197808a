//! The terminal's settings, to be put back if a question for a password is interrupted.

use std::fs::{File, OpenOptions};
use std::io::Write;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The terminal as it was, if there is one.
pub(super) struct Terminal(Option<(File, Termios)>);

impl Terminal {
    /// Remembers the settings.
    pub(super) fn save() -> Self {
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok();
        Self(tty.and_then(|tty| {
            let settings = tcgetattr(&tty).ok()?;
            Some((tty, settings))
        }))
    }

    /// Puts them back: an interrupted question has turned the echo off.
    pub(super) fn restore(&self) {
        let Some((tty, settings)) = &self.0 else {
            return;
        };
        // In the background this would stop us (SIGTTOU), and the terminal is another's by then.
        if tcgetpgrp(tty) != Ok(getpgrp()) {
            return;
        }
        // If any of this fails, the terminal is gone, and its settings with it.
        let is_asking = tcgetattr(tty).is_ok_and(|now| now.local_flags != settings.local_flags);
        let _ = tcsetattr(tty, SetArg::TCSANOW, settings);
        if is_asking {
            // The line that the answer was to be typed on.
            let mut tty: &File = tty;
            let _ = tty.write_all(b"\n");
        }
    }
}
