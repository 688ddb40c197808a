//! One run of `sftpfs cp`: what all its threads share, and what happens to an item when it is done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::attributes;
use super::item::{Batch, Files, Item, Place};
use super::links::{Links, Met};
use super::node::Node;
use super::options::Options;
use super::plan::{Id, Kind};
use super::pool::Pool;
use super::progress::{Speed, Tally};
use super::screen::Screen;
use crate::ioctl::Way;
use crate::tools::quote::quoted;

/// Why something was not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// For the user.
    Message(String),
    /// The user does not want it any more.
    Stopped,
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Message(text)
    }
}

/// What a copied item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// A file of this size, and how its content got there.
    File(Option<Way>, u64),
    /// A symbolic link, or another name of a file.
    Link,
    /// It was to be left as it is.
    Left,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) options: Options,
    /// The bits that new files and directories do not get.
    pub(super) umask: u32,
    pub(super) pool: Pool,
    pub(super) screen: Screen,
    tally: Mutex<Tally>,
    links: Mutex<Links>,
    /// Files whose content is on its way, by a number of their own.
    writing: Mutex<(u64, BTreeMap<u64, Vec<u8>>)>,
    /// Directories made for those named on the command line.
    made: Mutex<Vec<Id>>,
    /// Pairs of directories that are open.
    pub(super) open: Arc<AtomicUsize>,
    /// The mount does not know how to copy many files at once, or it is none.
    no_batches: AtomicBool,
    /// The directory to fill is on a mount of ours.
    is_mount: AtomicBool,
    has_failed: AtomicBool,
    is_stopped: AtomicBool,
    /// Set at the end, for the thread that shows progress.
    is_over: (Mutex<bool>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    pub(super) fn new(options: Options, umask: u32) -> Self {
        Self {
            screen: Screen::new(&options),
            options,
            umask,
            pool: Pool::default(),
            tally: Mutex::default(),
            links: Mutex::default(),
            writing: Mutex::default(),
            made: Mutex::default(),
            open: Arc::default(),
            no_batches: AtomicBool::new(false),
            is_mount: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            is_over: Default::default(),
        }
    }

    /// Says what is wrong; the exit code will say it too.
    pub(super) fn complain(&self, what: &str) {
        self.has_failed.store(true, Ordering::Relaxed);
        self.screen.complain(what);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Nothing new is begun from now on.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.pool.end();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    pub(super) fn no_batches(&self) -> bool {
        self.no_batches.load(Ordering::Relaxed)
    }

    pub(super) fn give_up_batches(&self) {
        self.no_batches.store(true, Ordering::Relaxed);
    }

    /// Whether the directory to fill is on a mount of ours.
    pub(super) fn found_mount(&self, is_mount: bool) {
        self.is_mount.store(is_mount, Ordering::Relaxed);
    }

    pub(super) fn is_mount(&self) -> bool {
        self.is_mount.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            is_complete: self.pool.is_all_known(),
            ..*lock(&self.tally)
        }
    }

    /// Shows progress until [`Job::progress_ends`], at most ten times a second.
    pub(super) fn show_progress(&self) {
        const PERIOD: Duration = Duration::from_millis(100);
        let begin = crate::clock::now();
        let mut speed = Speed::default();
        loop {
            let tally = self.tally();
            speed.note(crate::clock::now() - begin, &tally);
            self.screen.show(|columns| speed.line(&tally, columns));
            let is_running = |is_over: &mut bool| !*is_over;
            let waited =
                self.is_over
                    .1
                    .wait_timeout_while(lock(&self.is_over.0), PERIOD, is_running);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return self.screen.end();
            }
        }
    }

    /// Progress is not shown any more.
    pub(super) fn progress_ends(&self) {
        *lock(&self.is_over.0) = true;
        self.is_over.1.notify_all();
    }

    /// So many bytes more of some file are there.
    pub(super) fn count_bytes(&self, bytes: u64) {
        lock(&self.tally).bytes_done += bytes;
    }

    /// Whether a directory is one that this run made for a source named on the command line.
    pub(super) fn is_own(&self, id: Id) -> bool {
        lock(&self.made).contains(&id)
    }

    pub(super) fn note_own(&self, id: Id) {
        lock(&self.made).push(id);
    }

    /// From now on the file is incomplete, until the number is given back with [`Job::is_whole`].
    pub(super) fn begins(&self, path: Vec<u8>) -> u64 {
        let mut writing = lock(&self.writing);
        writing.0 += 1;
        let number = writing.0;
        writing.1.insert(number, path);
        number
    }

    pub(super) fn is_whole(&self, number: u64) {
        lock(&self.writing).1.remove(&number);
    }

    pub(super) fn incomplete(&self) -> Vec<Vec<u8>> {
        lock(&self.writing).1.values().cloned().collect()
    }

    /// Sends an item that is no directory on its way.
    pub(super) fn route(&self, item: Item, batch: &mut Batch) {
        {
            let mut tally = lock(&self.tally);
            tally.files_known += 1;
            tally.bytes_known += size_of(&item);
        }
        if let Kind::Special(kind) = item.look.kind {
            let name = quoted(&item.new_path());
            let why = format!("cannot create {kind} {name}: it cannot be made over SFTP");
            return self.done(&item, Err(why.into()));
        }
        if !self.options.preserve_links || item.look.links < 2 {
            return self.queue(item, batch);
        }
        let met = lock(&self.links).meet(item);
        match met {
            Met::First(item) => self.queue(item, batch),
            Met::Again(item, place) => self.pool.push_files(Files::Link(item, place)),
            Met::Waits => {}
        }
    }

    fn queue(&self, item: Item, batch: &mut Batch) {
        if !item.is_for_batch() || self.no_batches() {
            return self.pool.push_files(Files::One(item));
        }
        if let Some(full) = batch.add(item) {
            self.pool.push_files(Files::Batch(full));
        }
    }

    pub(super) fn flush(&self, batch: &mut Batch) {
        if let Some(items) = batch.take() {
            self.pool.push_files(Files::Batch(items));
        }
    }

    /// An item came to its end.
    pub(super) fn done(&self, item: &Item, result: Result<Done, Trouble>) {
        self.count(item, &result);
        if self.options.preserve_links && item.look.links > 1 {
            self.serve_waiting(item, &result);
        }
        match result {
            Ok(Done::Left) | Err(Trouble::Stopped) => {}
            Ok(Done::File(..) | Done::Link) => self.tell(&item.source_path(), &item.new_path()),
            Err(Trouble::Message(why)) => self.complain(&why),
        }
        if !self.is_stopped() {
            self.release(&item.node);
        }
    }

    fn count(&self, item: &Item, result: &Result<Done, Trouble>) {
        let mut tally = lock(&self.tally);
        match result {
            Ok(Done::File(way, size)) => tally.ways.add(*way, *size),
            Ok(Done::Link) => tally.ways.links += 1,
            Ok(Done::Left) | Err(_) => {}
        }
        match result {
            Ok(_) => tally.files_done += 1,
            Err(Trouble::Stopped) => return,
            // It will not come any more, so it is not waited for.
            Err(Trouble::Message(_)) => tally.files_known = tally.files_known.saturating_sub(1),
        }
        // What is left as it is, linked or refused is not copied.
        if !matches!(result, Ok(Done::File(..))) {
            tally.bytes_known = tally.bytes_known.saturating_sub(size_of(item));
        }
    }

    /// Those that waited for the first name of the same file.
    fn serve_waiting(&self, item: &Item, result: &Result<Done, Trouble>) {
        let place = || Place {
            node: Arc::clone(&item.node),
            name: item.to_name().to_vec(),
        };
        match result {
            Ok(Done::File(..) | Done::Link) => {
                let waiting = lock(&self.links).copied(item.look.id, place());
                for other in waiting {
                    self.pool.push_files(Files::Link(other, place()));
                }
            }
            Ok(Done::Left) | Err(_) => {
                let next = lock(&self.links).failed(item.look.id);
                next.into_iter()
                    .for_each(|next| self.pool.push_files(Files::One(next)));
            }
        }
    }

    /// With `-v`: what was copied where.
    pub(super) fn tell(&self, from: &[u8], to: &[u8]) {
        if self.options.verbose {
            let text = format!("{} -> {}", quoted(from), quoted(to));
            self.screen.tell(&text);
        }
    }

    /// One thing less to do in a directory; after the last, its attributes are set, and it is one
    /// thing less in the one above.
    pub(super) fn release(&self, node: &Arc<Node>) {
        let mut next = Some(node);
        while let Some(node) = next {
            if !node.is_last_done() {
                return;
            }
            if let Err(why) = attributes::finish(node) {
                self.complain(&why);
            }
            if node.parent().is_some() {
                node.close();
            }
            next = node.parent();
        }
    }
}

/// What counts as bytes to copy.
fn size_of(item: &Item) -> u64 {
    match item.look.kind {
        Kind::File => item.look.size,
        _ => 0,
    }
}

/// `what 'path': why`.
pub(super) fn failed(what: &str, path: &[u8], why: Errno) -> String {
    format!("{what} {}: {}", quoted(path), why.desc())
}
