//! What is to be done next: directories to enter and read, files to copy. Threads take it from
//! here; whoever finds more puts it in.
//!
//! **Invariant:** the queue of files is bounded by who fills it: a thread that reads a directory
//! takes part in copying while the queue is full, so nobody waits for a place while holding one.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::item::{Directory, Files};

/// Pieces of work with files that may wait before no more directories are read. One piece is up to
/// 256 small files.
const FULL: usize = 64;
/// Directories entered at once while files wait.
const DIRECTORIES_AT_ONCE: usize = 8;
/// Large files copied at once. More would share one disk, and be incomplete together.
const LARGE_AT_ONCE: usize = 4;

/// The queue; see the module.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    Directory(Directory),
    Small(Files),
    Large(Files),
}

/// What a thread has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Small,
    Large,
}

impl Work {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::Small(_) => Kind::Small,
            Self::Large(_) => Kind::Large,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Last in, first out: a tree is walked depth first, so what waits is small.
    directories: Vec<Directory>,
    files: VecDeque<Files>,
    large: VecDeque<Files>,
    large_running: usize,
    directories_running: usize,
    /// Nothing more comes from the command line.
    is_fed: bool,
    busy: usize,
    ended: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.files.len() + self.large.len() >= FULL
    }

    fn is_idle(&self) -> bool {
        let waiting = self.directories.len() + self.files.len() + self.large.len();
        waiting + self.busy == 0
    }

    fn take_files(&mut self) -> Option<Work> {
        if let Some(files) = self.files.pop_front() {
            return Some(Work::Small(files));
        }
        if self.large_running >= LARGE_AT_ONCE {
            return None;
        }
        let files = self.large.pop_front()?;
        self.large_running += 1;
        Some(Work::Large(files))
    }

    /// Directories first: what they hold must be known to share round trips. But not with all
    /// threads, as long as there are files to copy meanwhile.
    fn take(&mut self) -> Option<Work> {
        let are_many = self.directories_running >= DIRECTORIES_AT_ONCE;
        if are_many && let Some(work) = self.take_files() {
            return Some(work);
        }
        if !self.is_full()
            && let Some(directory) = self.directories.pop()
        {
            self.directories_running += 1;
            return Some(Work::Directory(directory));
        }
        self.take_files()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let woken = self.changed.wait(state);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of them is the next one taken.
    pub(super) fn push_directories(&self, directories: Vec<Directory>) {
        let mut state = self.lock();
        state.directories.extend(directories.into_iter().rev());
        self.changed.notify_all();
    }

    pub(super) fn push_files(&self, files: Files) {
        let mut state = self.lock();
        match files.is_large() {
            true => state.large.push_back(files),
            false => state.files.push_back(files),
        }
        self.changed.notify_all();
    }

    /// Waits for work; none at the end. [`Pool::done`] must follow.
    pub(super) fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(work) = state.take() {
                state.busy += 1;
                return Some(work);
            }
            state = self.wait(state);
        }
    }

    /// Work for a thread that is busy already, as long as too much waits. [`Pool::helped`] must
    /// follow.
    pub(super) fn help(&self) -> Option<Work> {
        let mut state = self.lock();
        while state.is_full() && !state.ended {
            if let Some(work) = state.take_files() {
                return Some(work);
            }
            state = self.wait(state);
        }
        None
    }

    pub(super) fn done(&self, what: Kind) {
        self.lock().busy -= 1;
        self.helped(what);
    }

    pub(super) fn helped(&self, what: Kind) {
        let mut state = self.lock();
        match what {
            Kind::Directory => state.directories_running -= 1,
            Kind::Large => state.large_running -= 1,
            Kind::Small => {}
        }
        self.changed.notify_all();
    }

    /// Nothing more comes from the command line.
    pub(super) fn fed(&self) {
        self.lock().is_fed = true;
    }

    /// Whether all that is to be copied was seen.
    pub(super) fn is_all_known(&self) -> bool {
        let state = self.lock();
        state.is_fed && state.directories.len() + state.directories_running == 0
    }

    /// Waits until there is room, for whoever does not help.
    pub(super) fn wait_for_room(&self) {
        let mut state = self.lock();
        while state.is_full() && !state.ended {
            state = self.wait(state);
        }
    }

    /// Waits until nothing waits and nobody works, or until the end.
    pub(super) fn wait_until_idle(&self) {
        let mut state = self.lock();
        while !state.is_idle() && !state.ended {
            state = self.wait(state);
        }
    }

    /// Waits until nobody works, or for so long.
    pub(super) fn wait_until_quiet(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.busy > 0;
        let quiet = self
            .changed
            .wait_timeout_while(self.lock(), patience, is_busy);
        drop(quiet);
    }

    /// Nothing more is taken; what waits is dropped when the pool is.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::tests::{directory, large, small};
    use super::*;

    fn name(work: Option<Work>) -> &'static str {
        match work {
            None => "nothing",
            Some(Work::Directory(_)) => "directory",
            Some(Work::Large(_)) => "large",
            Some(Work::Small(_)) => "small",
        }
    }

    #[test]
    fn directories_come_first_until_enough_files_wait() {
        let mut state = State {
            directories: vec![directory()],
            ..State::default()
        };
        state.files.extend((0..FULL).map(|_| small()));
        assert_eq!(name(state.take()), "small");
        assert_eq!(name(state.take()), "directory");
        assert_eq!(name(state.take()), "small");
    }

    #[test]
    fn some_threads_copy_while_others_enter_directories() {
        let mut state = State::default();
        state
            .directories
            .extend((0..=DIRECTORIES_AT_ONCE).map(|_| directory()));
        state.files.push_back(small());
        for _ in 0..DIRECTORIES_AT_ONCE {
            assert_eq!(name(state.take()), "directory");
        }
        assert_eq!(name(state.take()), "small");
        assert_eq!(name(state.take()), "directory");
    }

    #[test]
    fn only_some_large_files_are_copied_at_once() {
        let mut state = State::default();
        state.large.extend((0..=LARGE_AT_ONCE).map(|_| large()));
        for _ in 0..LARGE_AT_ONCE {
            assert_eq!(name(state.take()), "large");
        }
        assert_eq!(name(state.take()), "nothing");
        state.large_running -= 1;
        assert_eq!(name(state.take()), "large");
    }

    #[test]
    fn a_thread_helps_only_while_too_much_waits() {
        let pool = Pool::default();
        (0..FULL).for_each(|_| pool.push_files(small()));
        assert_eq!(name(pool.help()), "small");
        assert_eq!(name(pool.help()), "nothing");
    }

    #[test]
    fn idle_is_when_nothing_waits_and_nobody_works() {
        let pool = Pool::default();
        pool.push_directories(vec![directory()]);
        assert!(!pool.lock().is_idle());
        let work = pool.next();
        assert!(!pool.lock().is_idle(), "{work:?} may bring more");
        pool.fed();
        assert!(!pool.is_all_known());
        pool.done(Kind::Directory);
        assert!(pool.is_all_known());
        pool.wait_until_idle();
        pool.end();
        assert_eq!(name(pool.next()), "nothing");
    }
}
