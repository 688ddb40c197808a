//! What is known of copies, kept in a file from mount to mount: one for each server and login.
//!
//! Changes are appended, and the table is what they make of an empty one, in the file's order:
//! any beginning of the file is the table as it was at that time. Several mounts of one server may
//! append at once, and each [`catch_up`](Journal::catch_up) applies what all of them wrote.
//! Synchronous: whoever must not wait for a disk calls [`record`](Journal::record) on another
//! thread.
//!
//! **Locks.** Beside the journal is a file `.lock`. Each mount holds it shared for its life; who
//! gets it exclusively at the beginning is alone, and may replace the journal. The journal itself
//! is locked for each record that is appended, so that nobody appends behind half a record.
//! All are flock(2), which ends with the process.

mod place;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::record::{Rest, Scan, encode, header, scan};
use super::groups::{Change, Groups};

/// Bytes of a journal from which on no copy is recorded. A copy takes three records, of some 450
/// bytes with names of 100: two million copies in one life of a mount. The next one rewrites it.
const SIZE_MAX: u64 = 1 << 30;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Locked shared: this mount lives.
    alive: File,
    /// Up to where the file is known to be whole records. Held while one is appended; may be taken
    /// under `applied`.
    whole: Mutex<u64>,
    /// Up to where the file is on the disk. Held during fdatasync(2).
    durable: Mutex<u64>,
    /// Up to where the table has been told.
    applied: Mutex<u64>,
    /// It cannot be relied on any more: nothing is appended.
    is_lost: AtomicBool,
}

impl Journal {
    /// Whether there is one.
    pub(super) fn exists(directory: &Path, identity: &str) -> bool {
        // One that cannot be looked for is not ruled out: opening it will say why.
        let path = directory.join(place::file_name(identity));
        path.try_exists().unwrap_or(true)
    }

    /// Opens the journal of `identity` (server and login), with the table that it makes.
    ///
    /// The temporary names are what earlier mounts may have left on the server. They are told to
    /// the first of several mounts only; each one stays in the journal until
    /// [`Change::TemporaryGone`] is recorded.
    ///
    /// # Errors
    /// One line that says why there is none: then no copy must be made by a link.
    pub(super) fn open(
        directory: &Path,
        identity: &str,
    ) -> Result<(Self, Groups, Vec<Bytes>), String> {
        place::make_directory(directory)?;
        let path = directory.join(place::file_name(identity));
        let say = |error| format!("{}: {error}", path.display());
        let lock_path = place::with_ending(&path, ".lock");
        let alive = open_lock(&lock_path)?;
        let leftovers = match alive.try_lock() {
            Ok(()) => tidy(&path, identity)?,
            Err(TryLockError::WouldBlock) => Vec::new(),
            Err(TryLockError::Error(error)) => return Err(say(error)),
        };
        // Another may be alone between the two and replace the journal, so it is opened now. This
        // waits for such a one.
        alive.lock_shared().map_err(say)?;
        if !place::is_at(&alive, &lock_path).map_err(say)? {
            return Err(format!("{}: was removed just now", lock_path.display()));
        }
        let gone = "the mount that uses it lost it: unmount that one";
        let file =
            place::open(&path, false)?.ok_or_else(|| format!("{}: {gone}", path.display()))?;
        let header = header(identity);
        if !begins_with(&file, &header).map_err(say)? {
            return Err(format!("{}: is not of {identity}", path.display()));
        }
        let begin = header.len() as u64;
        let journal = Self {
            path,
            file,
            alive,
            whole: Mutex::new(begin),
            durable: Mutex::new(begin),
            applied: Mutex::new(begin),
            is_lost: AtomicBool::new(false),
        };
        let mut groups = Groups::default();
        journal
            .read_on(&mut groups)
            .map_err(|error| error.to_string())?;
        Ok((journal, groups, leftovers))
    }

    /// Appends a change; `durable`: it is on the disk before this returns. The table hears of it,
    /// in the order of the file, by [`catch_up`](Self::catch_up): who applied it at once could have
    /// another table than the next mount, since another mount may have appended before.
    ///
    /// # Errors
    /// Then the caller makes a real copy, or applies himself what has happened on the server.
    ///
    /// That of write(2) or fdatasync(2); a journal that somebody else removed or wrote into; a path
    /// that cannot be recorded; a journal that is too large for more copies. Only after a failed
    /// fdatasync(2) may the change be in the file nevertheless.
    pub(super) fn record(&self, change: &Change, durable: bool) -> io::Result<()> {
        let record = encode(change).ok_or(io::ErrorKind::InvalidFilename)?;
        let end = self.append(change, &record)?;
        if durable { self.sync(end) } else { Ok(()) }
    }

    /// Whether something was recorded that [`catch_up`](Self::catch_up) has not told yet. One
    /// fstat(2).
    pub(super) fn has_news(&self) -> bool {
        let len = self.file.metadata().map_or(0, |about| about.len());
        len > *lock(&self.applied)
    }

    /// Tells the table everything that was recorded since the last time, by this mount and others.
    /// One fstat(2) if that is nothing.
    pub(super) fn catch_up(&self, groups: &mut Groups) {
        if let Err(error) = self.read_on(groups) {
            self.lose(&error);
        }
    }

    fn read_on(&self, groups: &mut Groups) -> io::Result<()> {
        let mut applied = lock(&self.applied);
        if self.file.metadata()?.len() <= *applied {
            return Ok(());
        }
        let mut found = scan(&self.file, *applied, |change| groups.apply(&change))?;
        *applied = found.end;
        if found.rest == Rest::Damaged {
            // A record that is being written over half of another may look like it.
            let turn = self.turn()?;
            found = scan(&self.file, found.end, |change| groups.apply(&change))?;
            *applied = found.end;
            drop(turn);
        }
        if found.rest == Rest::Damaged {
            return Err(self.error("is damaged: unmount and mount again"));
        }
        Ok(())
    }

    /// Returns where the record ends.
    fn append(&self, change: &Change, record: &[u8]) -> io::Result<u64> {
        let mut turn = self.turn()?;
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(self.error("cannot be relied on: unmount and mount again"));
        }
        let end = self
            .make_whole(*turn.whole)
            .inspect_err(|error| self.lose(error))?;
        *turn.whole = end;
        if !has_room(end, change) {
            return Err(self.error("is too large for more copies in this mount"));
        }
        let size = (&self.file).write(record);
        if !matches!(size, Ok(size) if size == record.len()) {
            // Not needed, as the next to append does it too; but a full disk has it back now.
            let _ = self.file.set_len(end);
            size?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        *turn.whole = end + record.len() as u64;
        Ok(*turn.whole)
    }

    /// Ends the file behind its last whole record, and returns where. `from`: where a record begins.
    fn make_whole(&self, from: u64) -> io::Result<u64> {
        if !place::is_at(&self.file, &self.path)? {
            return Err(self.error("was removed while in use: unmount and mount again"));
        }
        let Scan { end, rest } = scan(&self.file, from, |_| {})?;
        match rest {
            Rest::Nothing => {}
            // Its writer died: nobody else writes while it is our turn.
            Rest::Torn => self.file.set_len(end)?,
            Rest::Damaged => return Err(self.error("is damaged: unmount and mount again")),
        }
        Ok(end)
    }

    /// Returns when the file is on the disk up to `end`. One fdatasync(2) serves all who wait.
    fn sync(&self, end: u64) -> io::Result<()> {
        let mut durable = lock(&self.durable);
        if *durable < end {
            let whole = *lock(&self.whole);
            self.file.sync_data()?;
            *durable = whole;
        }
        Ok(())
    }

    /// Waits until nobody else appends.
    fn turn(&self) -> io::Result<Turn<'_>> {
        let whole = lock(&self.whole);
        self.file.lock()?;
        let file = &self.file;
        Ok(Turn { whole, file })
    }

    /// Says once that there will be no more links.
    fn lose(&self, error: &io::Error) {
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            log::warn!("{error}; until then no copy is made by a link");
        }
    }

    fn error(&self, what: &str) -> io::Error {
        io::Error::other(format!("{}: {what}", self.path.display()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Closing it is not enough: a program that another thread is just starting has it too,
        // until its exec. A failure ends with the process.
        let _ = self.alive.unlock();
    }
}

/// The right to append, until it is dropped.
struct Turn<'a> {
    whole: MutexGuard<'a, u64>,
    file: &'a File,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It cannot fail on a file that is locked, and ends with the process in any case.
        let _ = self.file.unlock();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What makes names share is refused first, what ends it is always taken.
fn has_room(end: u64, change: &Change) -> bool {
    !matches!(change, Change::Joined { .. } | Change::Temporary(_)) || end < SIZE_MAX
}

/// The file whose lock says that a mount lives.
fn open_lock(path: &Path) -> Result<File, String> {
    place::open(path, true)?.ok_or_else(|| format!("{}: vanished", path.display()))
}

fn begins_with(file: &File, header: &[u8]) -> io::Result<bool> {
    let mut begin = vec![0; header.len()];
    match file.read_exact_at(&mut begin, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| begin == header),
    }
}

/// What a journal says, read by who is alone.
#[derive(Debug, Default)]
struct Contents {
    groups: Groups,
    temporaries: BTreeSet<Bytes>,
    records: usize,
}

impl Contents {
    fn take(&mut self, change: Change) {
        self.records += 1;
        self.groups.apply(&change);
        match change {
            Change::Temporary(path) => {
                self.temporaries.insert(path);
            }
            Change::TemporaryGone(path) => {
                self.temporaries.remove(&path);
            }
            _ => {}
        }
    }

    /// The fewest changes that say the same.
    fn changes(&self) -> impl Iterator<Item = Change> {
        let temporaries = self.temporaries.iter().cloned().map(Change::Temporary);
        self.groups.changes().chain(temporaries)
    }

    fn write(&self, identity: &str, file: &File) -> io::Result<()> {
        let mut file = BufWriter::new(file);
        file.write_all(&header(identity))?;
        for change in self.changes() {
            // What was read can be written.
            file.write_all(&encode(&change).unwrap_or_default())?;
        }
        file.flush()
    }
}

/// Makes a journal that is whole and has no more records than it needs. Only for who is alone.
/// Returns the temporary names in it.
fn tidy(path: &Path, identity: &str) -> Result<Vec<Bytes>, String> {
    let say = |error| format!("{}: {error}", path.display());
    let mut contents = Contents::default();
    let found = match place::open(path, false)? {
        Some(file) => Some(read(&file, identity, &mut contents).map_err(say)?),
        None => None,
    };
    let is_usable = matches!(found, Some(Found::Ours(Rest::Nothing | Rest::Torn)));
    let is_tidy =
        found == Some(Found::Ours(Rest::Nothing)) && contents.records == contents.changes().count();
    if found.is_some() && !is_usable {
        let aside = place::set_aside(path).map_err(say)?;
        log::warn!("{}", what_is_lost(path, &aside, &contents));
    }
    if !is_tidy {
        match place::replace(path, |file| contents.write(identity, file)) {
            // Longer than need be, but right.
            Err(error) if is_usable => log::info!("{}: not made shorter: {error}", path.display()),
            replaced => replaced.map_err(say)?,
        }
    }
    Ok(contents.temporaries.into_iter().collect())
}

fn what_is_lost(path: &Path, aside: &Path, contents: &Contents) -> String {
    let which = if contents.records > 0 { "later " } else { "" };
    format!(
        "{}: is damaged or not of this server, and is kept as {}: {which}copies that earlier \
         mounts made by links are one file with their source, so writing to one changes both",
        path.display(),
        aside.display()
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Ours(Rest),
    Foreign,
}

fn read(file: &File, identity: &str, contents: &mut Contents) -> io::Result<Found> {
    let header = header(identity);
    if !begins_with(file, &header)? {
        return Ok(Found::Foreign);
    }
    let found = scan(file, header.len() as u64, |change| contents.take(change))?;
    Ok(Found::Ours(found.rest))
}
