//! Which small files come next: those of the directories that a program walks through and reads, and those
//! that were opened next when it did the same before.

use std::time::{Duration, Instant};

use super::files::Why;
use super::order::Order;
use super::{JUST_LISTED, Job, REMEMBERED, Visit, Walk, is_other};
use crate::cache::{AttrCache, DirCache, Directory, Listed};
use crate::fs::Ino;
use crate::fs::inodes::Inodes;
use crate::sftp::FileKind;

impl Walk {
    /// A program opens a file for reading. `again_life`: for so long the content of a file that comes next
    /// because it did before may be taken for what it is; zero if that is not to be fetched ahead.
    pub(in crate::fs) fn opened(
        &mut self,
        ino: Ino,
        again_life: Duration,
        inodes: &Inodes,
        now: Instant,
    ) {
        self.again_life = again_life;
        self.count_vain();
        if !again_life.is_zero() {
            // Between two opens a program may wait for the server several times.
            let pause = PAUSE.max(again_life * PAUSE_LIVES);
            self.trail.opened(ino, pause, now);
            self.again = self.trail.coming();
        }
        let dir = inodes.parent(ino);
        if self.entered == Some(dir) {
            self.count_unread(dir, inodes, |_| 0);
        }
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

    /// Counts what nobody came for.
    pub(super) fn count_vain(&mut self) {
        let (walk, again) = self.files.take_vain();
        self.tally.files_wasted += walk + again;
        if again > 0 {
            self.trail.wasted();
        }
    }

    /// Fetches the files that came next when programs did before what they do now.
    pub(super) fn plan_again(
        &mut self,
        jobs: &mut Vec<Job>,
        inodes: &mut Inodes,
        (dirs, attrs): (&mut DirCache, &AttrCache),
        now: Instant,
    ) {
        let life = self.again_life;
        let is_planned = |jobs: &[Job], ino| {
            let mut jobs = jobs.iter();
            jobs.any(|job| matches!(job, Job::Fetch(fetch) if fetch.ino == ino))
        };
        while self.files.has_room(Why::Again { life })
            && let Some(ino) = self.again.pop_front()
        {
            let len = attrs.last(ino).map(|attr| attr.size);
            let Some(len) = len.filter(|len| *len <= FILE_MAX) else {
                continue;
            };
            if has_one_name(ino, inodes, dirs)
                && !is_planned(jobs, ino)
                && self.files.make_way(ino, inodes, now)
            {
                inodes.opened(ino);
                jobs.push(Job::Fetch(self.files.plan(ino, len, Why::Again { life })));
            }
        }
    }

    /// A program lists a directory, or looks through it. Has it read what was in the last one?
    pub(super) fn enters(&mut self, ino: Ino, inodes: &Inodes, dirs: &mut DirCache) {
        let Some(left) = self.entered.replace(ino).filter(|left| *left != ino) else {
            return;
        };
        let is_file = |entry: &Listed| entry.kind == FileKind::Regular;
        let has_files = dirs
            .get(left)
            .is_some_and(|it| it.entries().iter().any(is_file));
        if has_files && !self.has_opened_in(left) {
            self.count_unread(left, inodes, |unread| unread.saturating_add(1));
        }
    }

    /// Counts for the two directories above one: what programs do below others says nothing.
    fn count_unread(&mut self, dir: Ino, inodes: &Inodes, count: impl Fn(u32) -> u32) {
        for above in inodes.above(dir).into_iter().take(2) {
            let visit = self.visits.get_or_insert_mut(above, Visit::default);
            visit.unread = count(visit.unread);
        }
    }

    /// Whether the files of a directory may come next. `git status` opens some of its own and lists
    /// all others, of which it opens none.
    fn is_read(&self, dir: Ino, inodes: &Inodes) -> bool {
        let is_left_out = |above: &Ino| {
            let visit = self.visits.peek(above);
            visit.is_some_and(|visit| visit.unread >= UNREAD_MAX)
        };
        self.has_opened_in(dir) || !inodes.above(dir).iter().take(2).any(is_left_out)
    }

    fn has_opened_in(&self, dir: Ino) -> bool {
        let visit = self.visits.peek(&dir);
        visit.is_some_and(|visit| !visit.opened.is_empty())
    }

    /// The files of this directory come next.
    pub(super) fn source(&mut self, dir: Ino) {
        if self.sources.front() != Some(&dir) {
            self.sources.retain(|source| *source != dir);
            self.sources.push_front(dir);
            self.sources.truncate(REMEMBERED);
        }
    }

    pub(super) fn next_file(
        &mut self,
        inodes: &mut Inodes,
        dirs: &mut DirCache,
    ) -> Option<(Ino, u64)> {
        while let Some(dir) = self.sources.front().copied() {
            if self.is_read(dir, inodes)
                && let Some(directory) = dirs.get(dir)
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
            let last = self.visits.peek(&dir).map_or([None; 2], |visit| visit.last);
            if let [Some(one), Some(other)] = last
                && let Some(order) = Order::followed([one, other], dir, directory, inodes)
            {
                self.order = order;
            }
            // From where the program is.
            let names = self.order.sort(dir, directory, last[1], inodes);
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
            if is_opened || self.files.contains(ino) {
                inodes.closed(ino);
                continue;
            }
            return Some((ino, len));
        }
        None
    }
}

/// Whether a regular file is known to have one name: what we write by another one would not be seen by who
/// opens this one unasked.
fn has_one_name(ino: Ino, inodes: &Inodes, dirs: &mut DirCache) -> bool {
    let [(parent, name)] = inodes.places(ino) else {
        return false;
    };
    let listed = || dirs.get(*parent)?.find(name)?.links;
    let links = inodes.links_listed(ino).or_else(listed);
    inodes.kind(ino) == Some(FileKind::Regular) && links == Some(1)
}

/// Who opens nothing for so long does something else then; where the server is far, for so many times as long
/// as what was fetched lasts.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_LIVES: u32 = 10;
/// So many directories left unread have no files of those beside and below them fetched, until one is opened
/// in the directory that was entered last.
const UNREAD_MAX: u32 = 4;
/// So many files opened in a directory have the others fetched, and one if the directory was just
/// listed.
const OPENS: usize = 2;
/// How long after the last of them that goes on, also in the directories that come.
const READING_LASTS: Duration = Duration::from_secs(3);
/// Files remembered as opened, of one directory.
const OPENED_MAX: usize = 1 << 12;
/// The largest file fetched whole, one request; larger ones are read ahead when they are opened.
const FILE_MAX: u64 = 255 << 10;
