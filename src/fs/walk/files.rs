//! The small files that are ahead of programs, under way or here, bounded in number and in bytes.
//! Each holds its inode number and, once here, a handle of the server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Shared};

use super::pace::Pace;
use crate::cache::Attr;
use crate::client::Handle;
use crate::fs::inodes::Inodes;
use crate::fs::{Asked, Ino};

/// Small files ahead of the programs that will open them.
pub(super) struct FilesAhead {
    files: HashMap<Ino, AheadFile>,
    bytes: u64,
    under_way: usize,
    bytes_under_way: u64,
    last_number: u64,
    /// Files that may be ahead, by the handles that the server has.
    max: usize,
    dropped: Vec<Handle>,
    pace: Pace,
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
pub(in crate::fs) type Fetching = Shared<BoxFuture<'static, ()>>;

/// A whole file, and the server's handle of it.
#[derive(Clone)]
pub(in crate::fs) struct Fetched {
    pub(in crate::fs) handle: Handle,
    pub(in crate::fs) attr: Attr,
    pub(in crate::fs) data: Bytes,
    pub(in crate::fs) asked: Asked,
}

/// A file that is ahead of the program that opens it.
pub(in crate::fs) enum Ahead {
    Here(Fetched),
    UnderWay(Fetching),
}

impl FilesAhead {
    /// `handles_max`: how many handles the server gives at once, if it says.
    pub(super) fn new(handles_max: Option<u64>) -> Self {
        let max = handles_max.map_or(FILES_MAX_UNTOLD, |max| {
            usize::try_from(max / 4).map_or(FILES_MAX, |max| max.min(FILES_MAX))
        });
        Self {
            files: HashMap::new(),
            bytes: 0,
            under_way: 0,
            bytes_under_way: 0,
            last_number: 0,
            max,
            dropped: Vec::new(),
            pace: Pace::new(FILES_FIRST, FILES_FIRST, FILES_UNDER_WAY_MAX),
        }
    }

    /// What is ahead of a program that opens a file. What is here is given away.
    pub(super) fn take(&mut self, ino: Ino, inodes: &mut Inodes) -> Option<Ahead> {
        match &self.files.get(&ino)?.state {
            State::UnderWay(fetching) => {
                self.pace.late();
                Some(Ahead::UnderWay(fetching.clone()))
            }
            State::Here(_) => match self.remove(ino, inodes)?.state {
                State::Here(fetched) => Some(Ahead::Here(fetched)),
                State::UnderWay(_) => None,
            },
        }
    }

    /// Whether one more may be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < self.pace.now()
            && self.bytes_under_way < self.pace.now() as u64 * BYTES_EACH
            && self.files.len() < self.max
            && self.bytes < BYTES_MAX
    }

    /// A number for the fetch of a file of `len` bytes, for which [`Self::begin`] is called under the
    /// same lock.
    pub(super) fn plan(&mut self, len: u64) -> u64 {
        self.last_number += 1;
        self.under_way += 1;
        self.bytes_under_way += len;
        self.last_number
    }

    /// As [`Walk::begin`](super::Walk::begin).
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

    /// As [`Walk::end`](super::Walk::end).
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
                self.pace.has_taken(took);
            }
            None => {
                // The server may have no handle left: a program that opens a file needs it more.
                self.pace.wasted();
                self.drop(ino, inodes);
            }
        }
        None
    }

    /// Drops what nobody came for within `life`, and says how many files these were.
    pub(super) fn sweep(&mut self, life: Duration, inodes: &mut Inodes, now: Instant) -> u64 {
        let is_old = |file: &AheadFile| {
            now.duration_since(file.since) >= life && matches!(file.state, State::Here(_))
        };
        let old = self.files.iter().filter(|(_, file)| is_old(file));
        let old: Vec<Ino> = old.map(|(ino, _)| *ino).collect();
        if !old.is_empty() {
            self.pace.wasted();
        }
        for ino in &old {
            self.drop(*ino, inodes);
        }
        old.len() as u64
    }

    /// Drops a file: what was fetched of it is not wanted, or out of date.
    pub(super) fn drop(&mut self, ino: Ino, inodes: &mut Inodes) {
        let file = self.remove(ino, inodes);
        if let Some(State::Here(fetched)) = file.map(|file| file.state) {
            self.dropped.push(fetched.handle);
        }
    }

    fn remove(&mut self, ino: Ino, inodes: &mut Inodes) -> Option<AheadFile> {
        let file = self.files.remove(&ino)?;
        self.bytes -= file.len;
        if !matches!(file.state, State::Here(_)) {
            self.under_way = self.under_way.saturating_sub(1);
            self.bytes_under_way = self.bytes_under_way.saturating_sub(file.len);
        }
        inodes.closed(ino);
        Some(file)
    }

    /// Handles of what was dropped.
    pub(super) fn take_dropped(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.dropped)
    }

    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.files.contains_key(&ino)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Bytes under way for each file that may be: little at first, for slow links.
const BYTES_EACH: u64 = 16 << 10;
/// Files under way, at first and at most: at 100 ms and two round trips each, 640 files a second.
const FILES_FIRST: usize = 8;
const FILES_UNDER_WAY_MAX: usize = 128;
/// Files ahead, each with a handle of the server's: a quarter of the handles that it has, and fewer
/// where it does not say how many.
const FILES_MAX: usize = 256;
const FILES_MAX_UNTOLD: usize = 64;
/// Bytes of them: may go beyond by one file.
const BYTES_MAX: u64 = 16 << 20;
