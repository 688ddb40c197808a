//! Recognises that a program walks through a tree, and says what it will want next: listings of the
//! directories that come, and small files. Pure state; time is an argument. What it says is done in
//! [`prefetch`](super::prefetch).
//!
//! A walk is a directory that is listed soon after its parent was: what is below it comes next, and then
//! its siblings. Files are fetched ahead in directories of which a second file is opened (the first, if the
//! directory was just listed), and in those that come next while that goes on, unless the program has left
//! some without a look at their files. The order is the server's, or that of inode numbers (cp(1)), whichever
//! the last opens followed. Files are fetched, too, that were opened next when it did the same before
//! (`trail.rs`).
//!
//! **Invariants:** what is ahead of programs is bounded in number and in bytes. More is under way
//! only after a program had to wait for what was, or came for it in time, and less after something was
//! fetched in vain. What we change ourselves is dropped at once.

mod files;
mod order;
mod pace;
mod reading;
mod trail;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use self::files::FilesAhead;
pub(super) use self::files::{Ahead, Fetch, Fetched, Fetching, Why};
use self::order::Order;
use self::pace::Pace;
use self::trail::Trail;
use super::Ino;
use super::inodes::{Inodes, Name};
use crate::cache::{AttrCache, DirCache};
use crate::client::Handle;
use crate::sftp::FileKind;

/// What was noticed of programs that walk, and what is ahead of them.
pub(super) struct Walk {
    visits: LruCache<Ino, Visit>,
    /// Directories that will be listed next, the nearest first, by parent and name.
    coming: VecDeque<(Ino, Name)>,
    /// Directories whose subdirectories were put there, and when.
    queued: LruCache<Ino, Instant>,
    /// Directories listed ahead of the program, and since when.
    listed: HashMap<Ino, Instant>,
    /// Directories whose files come next, the nearest first.
    sources: VecDeque<Ino>,
    todo: LruCache<Ino, VecDeque<Name>>,
    files: FilesAhead,
    directories_pace: Pace,
    order: Order,
    /// Programs open small files one after the other, until then.
    reading_until: Option<Instant>,
    /// The directory that was listed or looked through last.
    entered: Option<Ino>,
    trail: Trail,
    /// Files that come next because they did before: each asked for once for each open that says so.
    again: VecDeque<Ino>,
    /// For so long what is fetched because it was opened before is opened again without asking.
    again_life: Duration,
    pub(super) tally: Tally,
    /// Somebody looks after what gets too old.
    pub(super) is_swept: bool,
}

/// What came of fetching ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) directories_used: u64,
    pub(super) directories_wasted: u64,
    pub(super) files_used: u64,
    pub(super) files_wasted: u64,
}

/// A directory that a program listed, or opens files in.
#[derive(Default)]
struct Visit {
    listed_at: Option<Instant>,
    opened: HashSet<Ino>,
    /// The last two files opened.
    last: [Option<Ino>; 2],
    /// Directories below, or below those, that were left one after the other with no file of them opened.
    unread: u32,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    List(Ino),
    Fetch(Fetch),
}

impl Walk {
    /// `handles_max`: how many handles the server gives at once, if it says.
    pub(super) fn new(handles_max: Option<u64>) -> Self {
        let size = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self {
            visits: LruCache::new(size),
            coming: VecDeque::new(),
            queued: LruCache::new(size),
            listed: HashMap::new(),
            sources: VecDeque::new(),
            todo: LruCache::new(SOURCES_MAX),
            files: FilesAhead::new(handles_max),
            directories_pace: Pace::new(DIRECTORIES_FIRST, DIRECTORIES_LEAST, DIRECTORIES_MAX),
            order: Order::Place,
            reading_until: None,
            entered: None,
            trail: Trail::new(),
            again: VecDeque::new(),
            again_life: Duration::ZERO,
            tally: Tally::default(),
            is_swept: false,
        }
    }

    /// A program lists a directory, or looks through it; `has_waited` for a listing asked for ahead.
    pub(super) fn visited(
        &mut self,
        ino: Ino,
        has_waited: bool,
        inodes: &mut Inodes,
        dirs: &mut DirCache,
        now: Instant,
    ) {
        if self.listed.remove(&ino).is_some() {
            self.tally.directories_used += 1;
            inodes.closed(ino);
        }
        if has_waited {
            self.directories_pace.late();
        }
        let visit = self.visits.get_or_insert_mut(ino, Visit::default);
        let is_another_walk = visit
            .listed_at
            .is_some_and(|at| now.duration_since(at) >= WALK_LASTS);
        if is_another_walk {
            *visit = Visit::default();
            self.todo.pop(&ino);
        }
        visit.listed_at = Some(now);
        self.source(ino);
        self.enters(ino, inodes, dirs);
        let parent = inodes.parent(ino);
        if self.was_listed_within(JUST_LISTED, parent, now) {
            // Who goes below at once comes to the others there too: where a walk begins nothing above
            // tells that it is one.
            self.queue_below(parent, dirs, now);
        }
        if self.is_walked(parent, now) {
            self.queue_below(ino, dirs, now);
        }
    }

    /// A directory's listing is here: what is below it comes next, if it was asked for ahead or is
    /// part of a walk.
    pub(super) fn is_listed(
        &mut self,
        ino: Ino,
        inodes: &Inodes,
        dirs: &mut DirCache,
        now: Instant,
    ) {
        let since = self.listed.get(&ino).copied();
        let is_ahead = since.is_some();
        if let Some(since) = since {
            self.directories_pace.has_taken(now.duration_since(since));
        }
        if is_ahead && !self.sources.contains(&ino) && self.sources.len() < REMEMBERED {
            self.sources.push_back(ino);
        }
        let is_walked = || self.is_walked(ino, now) && self.is_walked(inodes.parent(ino), now);
        if is_ahead || is_walked() {
            self.queue_below(ino, dirs, now);
        }
    }

    /// What to ask for now. The numbers of what is asked for are held until it is used or dropped.
    pub(super) fn next(
        &mut self,
        inodes: &mut Inodes,
        dirs: &mut DirCache,
        attrs: &AttrCache,
        now: Instant,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.files.expire(inodes, now);
        while self.listed.len() < self.directories_pace.now()
            && let Some(ino) = self.next_directory(inodes, dirs, now)
        {
            self.listed.insert(ino, now);
            jobs.push(Job::List(ino));
        }
        while self.reading_until.is_some_and(|until| now <= until)
            && self.files.has_room(Why::Walk)
            && let Some((ino, len)) = self.next_file(inodes, dirs)
        {
            jobs.push(Job::Fetch(self.files.plan(ino, len, Why::Walk)));
        }
        self.plan_again(&mut jobs, inodes, (dirs, attrs), now);
        jobs
    }

    /// What is ahead of a program that opened a file at this moment.
    pub(super) fn take(&mut self, ino: Ino, inodes: &mut Inodes, opened: Instant) -> Option<Ahead> {
        let why = self.files.why(ino)?;
        let ahead = self.files.take(ino, inodes, opened)?;
        if matches!(ahead, Ahead::Here(_)) {
            self.tally.files_used += 1;
            if why != Why::Walk {
                self.trail.used();
            }
        }
        Some(ahead)
    }

    /// A file is being fetched: called for each one that [`Self::next`] names, under the same lock, so
    /// that what we change from now on drops it.
    pub(super) fn begin(
        &mut self,
        fetch: Fetch,
        fetching: Fetching,
        inodes: &mut Inodes,
        now: Instant,
    ) {
        self.files.begin(fetch, fetching, inodes, now);
    }

    /// A fetch has ended, well or not, after `took`. What was changed meanwhile is not kept, and given
    /// back.
    pub(super) fn end(
        &mut self,
        fetch: Fetch,
        fetched: Option<Fetched>,
        took: Duration,
        inodes: &mut Inodes,
    ) -> Option<Fetched> {
        self.files.end(fetch, fetched, took, inodes)
    }

    /// A file was changed by us: what was fetched of it is out of date.
    pub(super) fn changed(&mut self, ino: Ino, inodes: &mut Inodes) {
        if !self.files.is_empty() {
            self.files.drop(ino, inodes);
        }
    }

    /// Handles that nobody needs: closing them sends a request, and that under no lock.
    pub(super) fn take_dropped(&mut self) -> Vec<Handle> {
        self.files.take_dropped()
    }

    /// Drops what nobody came for in time. True if there is nothing left.
    pub(super) fn sweep(&mut self, life: Duration, inodes: &mut Inodes, now: Instant) -> bool {
        self.files.sweep(life, inodes, now);
        self.count_vain();
        let old = self.listed.iter();
        let old = old.filter(|(_, since)| now.duration_since(**since) >= life);
        let old: Vec<Ino> = old.map(|(ino, _)| *ino).collect();
        if !old.is_empty() {
            // Nobody goes there: the walk has ended, or went another way.
            self.directories_pace.wasted();
            self.tally.directories_wasted += old.len() as u64;
            self.coming.clear();
        }
        for ino in old {
            self.listed.remove(&ino);
            self.sources.retain(|source| *source != ino);
            inodes.closed(ino);
        }
        self.listed.is_empty() && self.files.is_empty()
    }

    fn is_walked(&self, ino: Ino, now: Instant) -> bool {
        self.was_listed_within(WALK_LASTS, ino, now)
    }

    fn was_listed_within(&self, time: Duration, ino: Ino, now: Instant) -> bool {
        let listed_at = self.visits.peek(&ino).and_then(|visit| visit.listed_at);
        listed_at.is_some_and(|at| now.duration_since(at) < time)
    }

    /// Whether the program that walks has been in a directory since it was in the one above: another
    /// walk, a while later, goes there again.
    fn is_past(&self, ino: Ino, parent: Ino, now: Instant) -> bool {
        let listed_at = |ino| self.visits.peek(&ino).and_then(|visit| visit.listed_at);
        listed_at(ino).is_some_and(|at| {
            now.duration_since(at) < FRESH || listed_at(parent).is_none_or(|above| above <= at)
        })
    }

    fn queue_below(&mut self, ino: Ino, dirs: &mut DirCache, now: Instant) {
        let queued = self.queued.get(&ino);
        if queued.is_some_and(|at| now.duration_since(*at) < FRESH) {
            return;
        }
        let Some(directory) = dirs.get(ino) else {
            return;
        };
        self.queued.put(ino, now);
        let mut below: Vec<_> = directory
            .entries()
            .iter()
            .filter(|entry| entry.kind == FileKind::Directory)
            .collect();
        below.sort_by_key(|entry| entry.place);
        for entry in below.into_iter().take(COMING_MAX).rev() {
            self.coming.push_front((ino, entry.name.clone()));
        }
        self.coming.truncate(COMING_MAX);
    }

    fn next_directory(
        &mut self,
        inodes: &mut Inodes,
        dirs: &mut DirCache,
        now: Instant,
    ) -> Option<Ino> {
        while let Some((parent, name)) = self.coming.pop_front() {
            if inodes.kind(parent).is_none() || is_other(inodes, parent, &name, FileKind::Directory)
            {
                continue;
            }
            let ino = inodes.enter(parent, &name, FileKind::Directory);
            let is_visited = self.is_past(ino, parent, now);
            let is_known = dirs
                .get(ino)
                .is_some_and(|it| now.duration_since(it.at) < FRESH);
            inodes.opened(ino);
            if is_known && !is_visited {
                self.queue_below(ino, dirs, now);
            }
            if is_known || is_visited || self.listed.contains_key(&ino) {
                inodes.closed(ino);
                continue;
            }
            return Some(ino);
        }
        None
    }
}

/// Whether a name is known to lead to a file of another kind than an older listing says: to enter
/// it as that would take the name from what is there.
fn is_other(inodes: &Inodes, parent: Ino, name: &[u8], kind: FileKind) -> bool {
    let known = inodes.find(parent, name).and_then(|ino| inodes.kind(ino));
    known.is_some_and(|known| known != kind)
}

/// A program that has listed a directory so lately is still at it.
const JUST_LISTED: Duration = Duration::from_secs(2);
/// How long after a directory was listed its subdirectories are taken for its walk's.
const WALK_LASTS: Duration = Duration::from_secs(10);
/// A younger listing is not asked for again.
const FRESH: Duration = Duration::from_secs(2);
/// Directories whose files are in line, with the names of up to 16,384 each.
const SOURCES_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Directories about which anything is remembered.
const REMEMBERED: usize = 1024;
/// Directories waiting to be listed ahead.
const COMING_MAX: usize = 4096;
/// Directories ahead of a walk: at first, when walks were not what they seemed or answers get slow,
/// and at most. A level of a tree that has no more than that takes one listing's time.
const DIRECTORIES_FIRST: usize = 32;
const DIRECTORIES_LEAST: usize = 4;
const DIRECTORIES_MAX: usize = 64;
