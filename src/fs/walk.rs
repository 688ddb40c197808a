//! Recognises that a program walks through a tree, and says what it will want next: listings of the
//! directories that come, and small files. Pure state; time is an argument. What it says is done in
//! [`prefetch`](super::prefetch).
//!
//! A walk is a directory that is listed soon after its parent was. Files are fetched ahead in
//! directories of which a second file is opened (the first, if the directory was just listed), and in
//! those that come next while that goes on. The order is the server's, or that of inode numbers (cp(1)), whichever the last opens followed.
//!
//! **Invariants:** what is ahead of programs is bounded in number and in bytes. More is under way
//! only after a program had to wait for what was, and less after something was fetched in vain. What
//! we change ourselves is dropped at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;

use super::inodes::{Inodes, Name};
use super::{Asked, Ino};
use crate::cache::{Attr, DirCache, Directory};
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
    files: HashMap<Ino, AheadFile>,
    bytes: u64,
    under_way: usize,
    bytes_under_way: u64,
    last_number: u64,
    /// Files that may be ahead, by the handles that the server has.
    files_max: usize,
    /// The shortest time that a fetch took lately.
    fastest: Duration,
    dropped: Vec<Handle>,
    directories_pace: Pace,
    files_pace: Pace,
    order: Order,
    /// Programs open small files one after the other, until then.
    reading_until: Option<Instant>,
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
}

struct AheadFile {
    state: State,
    since: Instant,
    len: u64,
    number: u64,
}

enum State {
    UnderWay(Fetching),
    Here(Fetched),
}

/// The end of a fetch that is under way.
pub(super) type Fetching = Shared<BoxFuture<'static, ()>>;

/// A whole file, and the server's handle of it.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) handle: Handle,
    pub(super) attr: Attr,
    pub(super) data: Bytes,
    pub(super) asked: Asked,
}

/// A file that is ahead of the program that opens it.
pub(super) enum Ahead {
    Here(Fetched),
    UnderWay(Fetching),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    List(Ino),
    /// `number` tells fetches of one file apart.
    Fetch {
        ino: Ino,
        len: u64,
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Place,
    Inode,
}

/// How much may be under way: more each time that somebody had to wait, less for what was in vain.
#[derive(Debug)]
struct Pace {
    now: usize,
    first: usize,
    max: usize,
}

impl Pace {
    const fn new(first: usize, max: usize) -> Self {
        let now = first;
        Self { now, first, max }
    }

    fn late(&mut self) {
        self.now = (self.now * 2).min(self.max);
    }

    fn wasted(&mut self) {
        self.now = (self.now / 2).max(self.first);
    }
}

impl Walk {
    /// `handles_max`: how many handles the server gives at once, if it says.
    pub(super) fn new(handles_max: Option<u64>) -> Self {
        let files_max = handles_max.map_or(FILES_MAX_UNTOLD, |max| {
            usize::try_from(max / 4).map_or(FILES_MAX, |max| max.min(FILES_MAX))
        });
        let size = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self {
            visits: LruCache::new(size),
            coming: VecDeque::new(),
            queued: LruCache::new(size),
            listed: HashMap::new(),
            sources: VecDeque::new(),
            todo: LruCache::new(SOURCES_MAX),
            files: HashMap::new(),
            bytes: 0,
            under_way: 0,
            bytes_under_way: 0,
            last_number: 0,
            files_max,
            fastest: Duration::MAX / 64,
            dropped: Vec::new(),
            directories_pace: Pace::new(DIRECTORIES_FIRST, DIRECTORIES_MAX),
            files_pace: Pace::new(FILES_FIRST, FILES_UNDER_WAY_MAX),
            order: Order::Place,
            reading_until: None,
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
        if self.is_walked(inodes.parent(ino), now) {
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
        let is_ahead = self.listed.contains_key(&ino);
        if is_ahead && !self.sources.contains(&ino) && self.sources.len() < REMEMBERED {
            self.sources.push_back(ino);
        }
        let is_walked = || self.is_walked(ino, now) && self.is_walked(inodes.parent(ino), now);
        if is_ahead || is_walked() {
            self.queue_below(ino, dirs, now);
        }
    }

    /// A program opens a file for reading.
    pub(super) fn opened(&mut self, ino: Ino, inodes: &Inodes, now: Instant) {
        let dir = inodes.parent(ino);
        let visit = self.visits.get_or_insert_mut(dir, Visit::default);
        if visit.opened.len() < OPENED_MAX {
            visit.opened.insert(ino);
        }
        if visit.last[1] != Some(ino) {
            visit.last = [visit.last[1], Some(ino)];
        }
        // Who has just listed the directory will hardly stop at its first file.
        let is_listed = visit
            .listed_at
            .is_some_and(|at| now.duration_since(at) < JUST_LISTED);
        let enough = if is_listed { 1 } else { OPENS };
        if visit.opened.len() >= enough {
            self.reading_until = Some(now + READING_LASTS);
        }
        self.source(dir);
    }

    /// What is ahead of a program that opens a file. What is here is given away.
    pub(super) fn take(&mut self, ino: Ino, inodes: &mut Inodes) -> Option<Ahead> {
        match &self.files.get(&ino)?.state {
            State::UnderWay(fetching) => {
                self.files_pace.late();
                Some(Ahead::UnderWay(fetching.clone()))
            }
            State::Here(_) => match self.remove_file(ino, inodes)?.state {
                State::Here(fetched) => {
                    self.tally.files_used += 1;
                    Some(Ahead::Here(fetched))
                }
                _ => None,
            },
        }
    }

    /// What to ask for now. The numbers of what is asked for are held until it is used or dropped.
    pub(super) fn next(
        &mut self,
        inodes: &mut Inodes,
        dirs: &mut DirCache,
        now: Instant,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        while self.listed.len() < self.directories_pace.now
            && let Some(ino) = self.next_directory(inodes, dirs, now)
        {
            self.listed.insert(ino, now);
            jobs.push(Job::List(ino));
        }
        if self.reading_until.is_none_or(|until| until < now) {
            return jobs;
        }
        while self.under_way < self.files_pace.now
            && self.bytes_under_way < self.files_pace.now as u64 * BYTES_EACH
            && self.files.len() < self.files_max
            && self.bytes < BYTES_MAX
            && let Some((ino, len)) = self.next_file(inodes, dirs)
        {
            self.last_number += 1;
            let number = self.last_number;
            jobs.push(Job::Fetch { ino, len, number });
            // Until `begin` is called, under the same lock.
            self.under_way += 1;
            self.bytes_under_way += len;
        }
        jobs
    }

    /// A file is being fetched: called for each one that [`Self::next`] names, under the same lock, so
    /// that what we change from now on drops it.
    pub(super) fn begin(
        &mut self,
        ino: Ino,
        (len, number): (u64, u64),
        fetching: Fetching,
        now: Instant,
    ) {
        self.bytes += len;
        let file = AheadFile {
            state: State::UnderWay(fetching),
            since: now,
            len,
            number,
        };
        self.files.insert(ino, file);
    }

    /// A fetch has ended, well or not, after `took`. What was changed meanwhile is not kept, and given
    /// back.
    pub(super) fn end(
        &mut self,
        (ino, number): (Ino, u64),
        fetched: Option<Fetched>,
        took: Duration,
        inodes: &mut Inodes,
    ) -> Option<Fetched> {
        let is_awaited = |file: &&mut AheadFile| {
            file.number == number && matches!(file.state, State::UnderWay(_))
        };
        let Some(file) = self.files.get_mut(&ino).filter(is_awaited) else {
            return fetched;
        };
        match fetched {
            Some(fetched) => {
                self.under_way = self.under_way.saturating_sub(1);
                self.bytes_under_way = self.bytes_under_way.saturating_sub(file.len);
                file.state = State::Here(fetched);
                self.fastest = self.fastest.min(took);
                if took > self.fastest * 3 + QUEUE {
                    // They wait for each other, and so does whoever reads something else.
                    self.files_pace.wasted();
                }
                self.fastest += self.fastest / 64;
            }
            None => {
                // The server may have no handle left: a program that opens a file needs it more.
                self.files_pace.wasted();
                self.drop_file(ino, inodes);
            }
        }
        None
    }

    /// A file was changed by us: what was fetched of it is out of date.
    pub(super) fn changed(&mut self, ino: Ino, inodes: &mut Inodes) {
        if !self.files.is_empty() {
            self.drop_file(ino, inodes);
        }
    }

    /// Drops what nobody came for in time. True if there is nothing left.
    pub(super) fn sweep(&mut self, life: Duration, inodes: &mut Inodes, now: Instant) -> bool {
        let is_old = |since: Instant| now.duration_since(since) >= life;
        let old: Vec<Ino> = self
            .files
            .iter()
            .filter(|(_, file)| is_old(file.since) && matches!(file.state, State::Here(_)))
            .map(|(ino, _)| *ino)
            .collect();
        if !old.is_empty() {
            self.files_pace.wasted();
            self.tally.files_wasted += old.len() as u64;
        }
        for ino in old {
            self.drop_file(ino, inodes);
        }
        let old: Vec<Ino> = self
            .listed
            .iter()
            .filter(|(_, since)| is_old(**since))
            .map(|(ino, _)| *ino)
            .collect();
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

    fn drop_file(&mut self, ino: Ino, inodes: &mut Inodes) {
        let file = self.remove_file(ino, inodes);
        if let Some(State::Here(fetched)) = file.map(|file| file.state) {
            self.dropped.push(fetched.handle);
        }
    }

    fn remove_file(&mut self, ino: Ino, inodes: &mut Inodes) -> Option<AheadFile> {
        let file = self.files.remove(&ino)?;
        self.bytes -= file.len;
        if !matches!(file.state, State::Here(_)) {
            self.under_way = self.under_way.saturating_sub(1);
            self.bytes_under_way = self.bytes_under_way.saturating_sub(file.len);
        }
        inodes.closed(ino);
        Some(file)
    }

    /// Handles that nobody needs: closing them sends a request, and that under no lock.
    pub(super) fn take_dropped(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.dropped)
    }

    fn is_walked(&self, ino: Ino, now: Instant) -> bool {
        let listed_at = self.visits.peek(&ino).and_then(|visit| visit.listed_at);
        listed_at.is_some_and(|at| now.duration_since(at) < WALK_LASTS)
    }

    /// The files of this directory come next.
    fn source(&mut self, dir: Ino) {
        if self.sources.front() != Some(&dir) {
            self.sources.retain(|source| *source != dir);
            self.sources.push_front(dir);
            self.sources.truncate(REMEMBERED);
        }
    }

    fn queue_below(&mut self, ino: Ino, dirs: &mut DirCache, now: Instant) {
        let queued = self.queued.get(&ino);
        if queued.is_some_and(|at| now.duration_since(*at) < WALK_LASTS) {
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
            let is_visited = self.is_walked(ino, now);
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

    fn next_file(&mut self, inodes: &mut Inodes, dirs: &mut DirCache) -> Option<(Ino, u64)> {
        while let Some(dir) = self.sources.front().copied() {
            if let Some(directory) = dirs.get(dir)
                && inodes.kind(dir).is_some()
                && let Some(file) = self.next_file_of(dir, &directory, inodes)
            {
                return Some(file);
            }
            self.sources.pop_front();
        }
        None
    }

    fn next_file_of(
        &mut self,
        dir: Ino,
        directory: &Directory,
        inodes: &mut Inodes,
    ) -> Option<(Ino, u64)> {
        if !self.todo.contains(&dir) {
            self.find_order(dir, directory, inodes);
            let names = self.in_order(dir, directory, inodes);
            self.todo.put(dir, names);
        }
        let todo = self.todo.get_mut(&dir)?;
        while let Some(name) = todo.pop_front() {
            let Some(len) = directory.find(&name).and_then(|entry| {
                let attr = entry.attr?;
                (entry.kind == FileKind::Regular && attr.size <= FILE_MAX).then_some(attr.size)
            }) else {
                continue;
            };
            if is_other(inodes, dir, &name, FileKind::Regular) {
                continue;
            }
            let ino = inodes.enter(dir, &name, FileKind::Regular);
            inodes.opened(ino);
            let visit = self.visits.peek(&dir);
            let is_opened = visit.is_some_and(|visit| visit.opened.contains(&ino));
            if is_opened || self.files.contains_key(&ino) {
                inodes.closed(ino);
                continue;
            }
            return Some((ino, len));
        }
        None
    }

    /// Regular files of a directory in the order in which they are likely to be opened.
    fn in_order(&self, dir: Ino, directory: &Directory, inodes: &Inodes) -> VecDeque<Name> {
        let files = directory.entries().iter();
        let files = files.filter(|entry| entry.kind == FileKind::Regular);
        let mut keyed: Vec<_> = match self.order {
            Order::Place => files
                .map(|entry| (u64::from(entry.place), &entry.name))
                .collect(),
            Order::Inode => files
                .map(|entry| (inodes.number(dir, &entry.name).0, &entry.name))
                .collect(),
        };
        keyed.sort_unstable();
        // From where the program is.
        let last = self.visits.peek(&dir).and_then(|visit| visit.last[1]);
        let at = last.and_then(|last| {
            let is_last = |(_, name): &(u64, &Name)| inodes.number(dir, name) == last;
            keyed.iter().position(is_last)
        });
        keyed.rotate_left(at.map_or(0, |at| at + 1));
        keyed.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Which order the last two opens in a directory followed.
    fn find_order(&mut self, dir: Ino, directory: &Directory, inodes: &Inodes) {
        let Some(Visit {
            last: [Some(one), Some(other)],
            ..
        }) = self.visits.peek(&dir)
        else {
            return;
        };
        let mut places = [None; 2];
        let mut between = 0;
        for entry in directory.entries() {
            let number = inodes.number(dir, &entry.name);
            for (place, opened) in places.iter_mut().zip([one, other]) {
                if number == *opened {
                    *place = Some(entry.place);
                }
            }
            between +=
                usize::from(entry.kind == FileKind::Regular && number > *one && number < *other);
        }
        let [Some(first), Some(second)] = places else {
            return;
        };
        let skipped_by_place = second.checked_sub(first + 1);
        let skipped_by_inode = (one < other).then_some(between);
        self.order = match (skipped_by_place, skipped_by_inode) {
            (Some(by_place), Some(by_inode)) if by_inode < by_place as usize => Order::Inode,
            (None, Some(_)) => Order::Inode,
            _ => Order::Place,
        };
    }
}

/// Whether a name is known to lead to a file of another kind than an older listing says: to enter
/// it as that would take the name from what is there.
fn is_other(inodes: &Inodes, parent: Ino, name: &[u8], kind: FileKind) -> bool {
    let known = inodes.find(parent, name).and_then(|ino| inodes.kind(ino));
    known.is_some_and(|known| known != kind)
}

/// So many files opened in a directory have the others fetched, and one if the directory was just
/// listed.
const OPENS: usize = 2;
const JUST_LISTED: Duration = Duration::from_secs(2);
/// Bytes under way for each file that may be: little at first, for slow links.
const BYTES_EACH: u64 = 16 << 10;
/// How long after the last of them that goes on, also in the directories that come.
const READING_LASTS: Duration = Duration::from_secs(3);
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
/// Files remembered as opened, of one directory.
const OPENED_MAX: usize = 1 << 12;
/// Directories ahead of a walk, at first and at most.
const DIRECTORIES_FIRST: usize = 4;
const DIRECTORIES_MAX: usize = 64;
/// Files under way, at first and at most: at 100 ms and two round trips each, 640 files a second.
const FILES_FIRST: usize = 8;
const FILES_UNDER_WAY_MAX: usize = 128;
/// Files ahead, each with a handle of the server's: a quarter of the handles that it has, and fewer
/// where it does not say how many.
const FILES_MAX: usize = 256;
const FILES_MAX_UNTOLD: usize = 64;
/// Bytes of them: may go beyond by one file.
const BYTES_MAX: u64 = 16 << 20;
/// The largest file fetched whole, one request; larger ones are read ahead when they are opened.
const FILE_MAX: u64 = 255 << 10;
/// A fetch that takes so much longer than three of the fastest waits for others.
const QUEUE: Duration = Duration::from_millis(20);
