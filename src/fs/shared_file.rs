//! What all opens of one file share: its unwritten data, changes of attributes on their way, what
//! went wrong with them, and the moment of its last change.
//!
//! Lock: `state` is taken for a few lines at a time, never while waiting and never together with
//! another lock.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::Ino;
use super::ahead::Standing;
use super::handles::Fh;
use super::likeness::{self, Doing, Likeness, Look};
use super::unwritten::{Budget, Mark, Outgoing, Unwritten, Via};
use crate::clock::Seconds;
use crate::error::Error;
use crate::sftp::Attrs;

/// One file that is open at least once.
pub(super) struct SharedFile {
    pub(super) ino: Ino,
    state: Mutex<State>,
    /// Rung when there is something to send.
    work: Notify,
    /// Rung when an answer has come.
    progress: Notify,
    /// Bytes that may still be taken over for it; made by the first write.
    budget: OnceLock<Arc<Semaphore>>,
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
    /// Whose it is on the server, and what that allows us.
    standing: Option<Standing>,
    /// The latest error of a write or a change of attributes, and how many there were.
    error: Option<Error>,
    errors: u64,
    /// Counts changes of the content.
    version: u64,
    /// How it is known again.
    likeness: Likeness,
}

impl SharedFile {
    pub(super) fn new(ino: Ino) -> Self {
        Self {
            ino,
            state: Mutex::default(),
            work: Notify::new(),
            progress: Notify::new(),
            budget: OnceLock::new(),
        }
    }

    /// What may be unwritten of this file, `max` bytes at most.
    pub(super) fn budget(&self, max: u32) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(max as usize));
        Arc::clone(self.budget.get_or_init(new))
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
        data: &Bytes,
        request_max: usize,
        budget: Budget,
    ) -> Result<bool, Budget> {
        let mut state = self.state();
        if !state.is_own {
            return Err(budget);
        }
        state.version += 1;
        state.was_written = true;
        let end = offset.saturating_add(data.len() as u64);
        state.likeness.will_write(end);
        let data = data.clone();
        state.unwritten.add(via, offset, data, request_max, budget);
        Ok(self.has_work(state))
    }

    /// Takes a change of attributes over, behind all data that was. True if the caller must start
    /// the task that sends it; `None` if nothing is taken over: the file is not known to have its
    /// storage for itself, or has too many changes on their way.
    pub(super) fn change(&self, via: &Via, requests: Vec<Attrs>, is_asked: bool) -> Option<bool> {
        let mut state = self.state();
        let is_taken = state.is_own && state.unwritten.change(via, requests, is_asked);
        if is_taken {
            state.likeness.will_change();
        }
        is_taken.then(|| self.has_work(state))
    }

    /// Has the server asked, behind the last of what was taken over, what it came to: if there is
    /// anything, and nothing need wait for that.
    pub(super) fn look(&self, in_order: bool) {
        let mut state = self.state();
        state.unwritten.look(in_order);
        drop(state);
        self.work.notify_one();
    }

    /// Whether somebody must be started who sends.
    fn has_work(&self, mut state: MutexGuard<'_, State>) -> bool {
        let must_start = !state.is_sending;
        state.is_sending = true;
        drop(state);
        self.work.notify_one();
        must_start
    }

    /// The open that the newest unanswered request goes through, if there is one.
    pub(super) fn newest(&self) -> Option<Fh> {
        self.state().unwritten.newest()
    }

    /// Whether nothing but this request is unanswered.
    pub(super) fn is_only(&self, number: u64) -> bool {
        self.state().unwritten.is_only(number)
    }

    /// Whose it is on the server, if that was said since it was opened.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.state().standing
    }

    /// Notes whose it is on the server; who made it stays who made it.
    pub(super) fn set_owner(&self, owner: (u32, u32)) {
        let mut state = self.state();
        let maker = state.standing.and_then(|standing| standing.maker);
        state.standing = Some(Standing { owner, maker });
    }

    /// Notes that we made it just now, and to whom it belonged then.
    pub(super) fn set_made(&self, owner: (u32, u32)) {
        let maker = Some(owner.0);
        self.state().standing = Some(Standing { owner, maker });
    }

    /// Notes that the server is asked to change it, until what is returned goes.
    pub(super) fn begin(&self, doing: Doing) -> Changing<'_> {
        let mut state = self.state();
        let is_quiet = state.unwritten.is_empty();
        let since = state.likeness.begin(doing);
        Changing {
            shared: self,
            doing,
            since,
            is_quiet,
            is_done: false,
        }
    }

    /// The moment, before the server is asked for its size; `None` while we are changing it.
    pub(super) fn mark(&self) -> Option<likeness::Mark> {
        let state = self.state();
        let is_settled = state.unwritten.is_empty();
        is_settled.then(|| state.likeness.mark()).flatten()
    }

    /// Whether we have done nothing to it since.
    pub(super) fn is_at(&self, mark: likeness::Mark) -> bool {
        self.state().likeness.is_at(mark)
    }

    /// Takes in what the server said of it through an open.
    pub(super) fn saw(&self, look: &Look) {
        self.state().likeness.saw(look);
    }

    /// Notes a size of what its name leads to, while the server had it open.
    pub(super) fn heard(&self, size: u64) {
        self.state().likeness.heard(size);
    }

    /// Notes that it has another server file.
    pub(super) fn is_another(&self) {
        self.state().likeness.is_another();
    }

    /// Notes that the server told of its size behind all that was done.
    pub(super) fn settled(&self, size: u64) {
        self.state().likeness.settled(size);
    }

    /// See [`Likeness::fits`].
    pub(super) fn fits(&self, last: Option<&Look>, there: (u64, Seconds), added_to: bool) -> bool {
        self.state().likeness.fits(last, there, added_to)
    }

    /// See [`Likeness::is_exact`].
    pub(super) fn is_exact(&self, last: Option<&Look>) -> bool {
        self.state().likeness.is_exact(last)
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
    pub(super) fn next(&self, in_order: bool) -> Option<Outgoing> {
        let mut state = self.state();
        let hurry = state.waiting > 0;
        state.unwritten.next(hurry, in_order)
    }

    /// Whether all its requests go by one connection.
    pub(super) fn is_small(&self) -> bool {
        self.state().unwritten.is_small()
    }

    /// Notes the answer to a request.
    pub(super) fn answered(&self, number: u64, result: Result<(), Error>) {
        let mut state = self.state();
        let end = state.unwritten.answered(number);
        match result {
            Ok(()) => {
                let is_last = state.unwritten.is_empty();
                state.likeness.wrote(end.unwrap_or(0), is_last);
            }
            Err(error) => {
                state.errors += 1;
                state.error = Some(error);
            }
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

    /// Waits until all writes and changes of attributes so far were answered, well or badly.
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

    /// Bytes that were taken over and not confirmed.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.state().unwritten.bytes()
    }

    /// The latest error and its number.
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

/// A change of the file is under way.
pub(super) struct Changing<'a> {
    shared: &'a SharedFile,
    doing: Doing,
    since: likeness::Mark,
    /// Nothing was unwritten when it began.
    is_quiet: bool,
    is_done: bool,
}

impl Changing<'_> {
    /// The server has said that it is done. Gives the moment at which it was asked behind it, if
    /// nothing else was on its way.
    pub(super) fn done(mut self, doing: Doing) -> Option<likeness::Mark> {
        (self.doing, self.is_done) = (doing, true);
        self.is_quiet.then_some(self.since)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.likeness.end(self.doing, self.since, self.is_done);
    }
}

/// One who waits for everything to be written; gone also when the wait is given up.
struct Hurry<'a>(&'a SharedFile);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
