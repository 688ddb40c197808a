//! Where messages and the line of progress go, so that they do not run into each other.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::options::{Options, Progress};
use crate::tools::sys;

/// The terminal, or what stands in its place.
#[derive(Debug)]
pub(super) struct Screen {
    /// Whether the line of progress is shown.
    pub(super) shows_progress: bool,
    /// Whether a last line says what was done.
    pub(super) shows_summary: bool,
    /// Whether the line stands there now.
    is_shown: Mutex<bool>,
}

impl Screen {
    pub(super) fn new(options: &Options) -> Self {
        let shows_progress = match options.progress {
            Progress::Always => true,
            Progress::Never => false,
            Progress::Auto => std::io::stderr().is_terminal(),
        };
        Self {
            shows_progress,
            shows_summary: shows_progress || options.verbose,
            is_shown: Mutex::new(false),
        }
    }

    /// Takes the line away, and keeps others from showing it.
    fn clear(&self) -> MutexGuard<'_, bool> {
        let mut is_shown = self.is_shown.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *is_shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        is_shown
    }

    /// What is wrong, on standard error. As with all that is printed here: that nobody listens any
    /// more is no error.
    pub(super) fn complain(&self, what: &str) {
        let _cleared = self.clear();
        let _ = writeln!(std::io::stderr(), "sftpfs cp: {what}");
    }

    /// The last line, on standard error.
    pub(super) fn sum_up(&self, what: &str) {
        let _cleared = self.clear();
        let _ = writeln!(std::io::stderr(), "{what}");
    }

    /// What was done, on standard output.
    pub(super) fn tell(&self, what: &str) {
        let _cleared = self.clear();
        let _ = writeln!(std::io::stdout(), "{what}");
    }

    /// Shows the line instead of the one before.
    pub(super) fn show(&self, line: impl FnOnce(usize) -> String) {
        let mut is_shown = self.is_shown.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line(sys::columns());
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        *is_shown = true;
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        drop(self.clear());
    }
}
