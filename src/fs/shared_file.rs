//! What all opens of one file share: its unwritten data, the errors of writes, and the moment of
//! its last change.
//!
//! Lock: `state` is taken for a few lines at a time, never while waiting and never together with
//! another lock.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Ino;
use super::unwritten::{Mark, Outgoing, Unwritten, Via};
use crate::error::Error;

/// One file that is open at least once.
pub(super) struct SharedFile {
    pub(super) ino: Ino,
    state: Mutex<State>,
    /// Rung when there is something to send.
    work: Notify,
    /// Rung when an answer has come.
    progress: Notify,
}

/// What a reader must know before it asks the server, taken at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// What was fetched of another version is out of date.
    pub(super) version: u64,
    /// Nothing is unwritten.
    pub(super) is_settled: bool,
    /// Some of what is to be read is unwritten.
    pub(super) must_wait: bool,
}

#[derive(Default)]
struct State {
    unwritten: Unwritten,
    /// Somebody waits for everything to be written.
    waiting: u32,
    /// A task is sending this file's writes.
    is_sending: bool,
    /// Something was, since it was opened.
    was_written: bool,
    /// What is written reaches no other file's content: see [`cow`](super::cow).
    is_own: bool,
    /// The latest error of a write, and how many there were.
    error: Option<Error>,
    errors: u64,
    /// Counts changes of the content.
    version: u64,
}

impl SharedFile {
    pub(super) fn new(ino: Ino) -> Self {
        Self {
            ino,
            state: Mutex::default(),
            work: Notify::new(),
            progress: Notify::new(),
        }
    }

    /// Takes data over. True if the caller must start the task that sends it.
    ///
    /// # Errors
    /// Gives the budget back if the file does not have its storage for itself, or that is not
    /// known: nothing is taken over.
    pub(super) fn write(
        &self,
        via: &Via,
        offset: u64,
        data: &[u8],
        request_max: usize,
        budget: OwnedSemaphorePermit,
    ) -> Result<bool, OwnedSemaphorePermit> {
        let mut state = self.state();
        if !state.is_own {
            return Err(budget);
        }
        state.version += 1;
        state.was_written = true;
        state.unwritten.add(via, offset, data, request_max, budget);
        let must_start = !state.is_sending;
        state.is_sending = true;
        drop(state);
        self.work.notify_one();
        Ok(must_start)
    }

    /// Whether data was taken over since the file was opened.
    pub(super) fn was_written(&self) -> bool {
        self.state().was_written
    }

    /// Whether the file is known to have its storage for itself.
    pub(super) fn is_own(&self) -> bool {
        self.state().is_own
    }

    /// Notes whether the file has its storage for itself. Said under the lock of the tables, where
    /// it is decided.
    pub(super) fn set_own(&self, is_own: bool) {
        self.state().is_own = is_own;
    }

    /// The next request for the task that sends.
    pub(super) fn next(&self) -> Option<Outgoing> {
        let mut state = self.state();
        let hurry = state.waiting > 0;
        state.unwritten.next(hurry)
    }

    /// Notes the answer to a request.
    pub(super) fn answered(&self, number: u64, result: Result<(), Error>) {
        let mut state = self.state();
        state.unwritten.answered(number);
        if let Err(error) = result {
            state.errors += 1;
            state.error = Some(error);
        }
        drop(state);
        self.progress.notify_waiters();
    }

    /// Waits for more work; the task that sends calls this.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// Whether the task that sends may end: nothing is left. After that the next write starts
    /// another.
    pub(super) fn end_sending(&self) -> bool {
        let mut state = self.state();
        let is_empty = state.unwritten.is_empty();
        state.is_sending = !is_empty;
        is_empty
    }

    /// Gives up what is unwritten, if anything is.
    pub(super) fn abandon(&self, error: &Error) {
        let mut state = self.state();
        if !state.unwritten.is_empty() {
            state.unwritten = Unwritten::default();
            state.is_sending = false;
            state.errors += 1;
            state.error = Some(error.clone());
        }
        drop(state);
        self.progress.notify_waiters();
    }

    /// Waits until all writes so far were answered, well or badly.
    pub(super) async fn written(&self) {
        let mark = {
            let mut state = self.state();
            if state.unwritten.is_empty() {
                return;
            }
            state.waiting += 1;
            state.unwritten.mark()
        };
        let _hurry = Hurry(self);
        self.work.notify_one();
        loop {
            let progress = self.progress.notified();
            if self.is_done(mark) {
                return;
            }
            progress.await;
        }
    }

    fn is_done(&self, mark: Mark) -> bool {
        self.state().unwritten.is_done(mark)
    }

    /// What a reader of `range` must know.
    pub(super) fn moment(&self, range: &Range<u64>) -> Moment {
        let state = self.state();
        Moment {
            version: state.version,
            is_settled: state.unwritten.is_empty(),
            must_wait: state.unwritten.overlaps(range),
        }
    }

    /// Another number after each change of the content.
    pub(super) fn version(&self) -> u64 {
        self.state().version
    }

    pub(super) fn is_written(&self) -> bool {
        self.state().unwritten.is_empty()
    }

    /// The latest write error and its number.
    pub(super) fn error(&self) -> Option<(u64, Error)> {
        let state = self.state();
        state.error.clone().map(|error| (state.errors, error))
    }

    pub(super) fn error_count(&self) -> u64 {
        self.state().errors
    }

    /// Notes that the content changed: by us, or as the server's attributes tell.
    pub(super) fn content_changed(&self) {
        self.state().version += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for everything to be written; gone also when the wait is given up.
struct Hurry<'a>(&'a SharedFile);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
