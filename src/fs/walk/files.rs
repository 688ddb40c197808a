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
    walk: UnderWay,
    again: UnderWay,
    last_number: u64,
    /// Files that may be ahead, by the handles that the server has.
    max: usize,
    dropped: Vec<Handle>,
    pace: Pace,
}

struct AheadFile {
    state: State,
    since: Instant,
    fetch: Fetch,
    is_used: bool,
}

/// A file that is to be fetched whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) struct Fetch {
    pub(in crate::fs) ino: Ino,
    /// Bytes that it should have.
    pub(in crate::fs) len: u64,
    /// Tells fetches of one file apart.
    pub(in crate::fs) number: u64,
    pub(in crate::fs) why: Why,
}

/// Why a file is fetched ahead: which says for how long it may be opened without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fs) enum Why {
    /// It is next in a tree that a program walks through: as long as attributes are believed, and once.
    Walk,
    /// It was opened here before when the program did the same, and will be again, perhaps several
    /// times: for so short a time that what is done elsewhere meanwhile can hardly be known here.
    Again { life: Duration },
}

/// What is under way for one reason.
#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    files: usize,
    bytes: u64,
    /// Files that nobody came for.
    vain: u64,
}

impl UnderWay {
    const fn begins(&mut self, len: u64) {
        self.files += 1;
        self.bytes += len;
    }

    const fn ends(&mut self, len: u64) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(len);
    }
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

impl Fetched {
    /// How long ago it was as it is.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked.at)
    }
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
            walk: UnderWay::default(),
            again: UnderWay::default(),
            last_number: 0,
            max,
            dropped: Vec::new(),
            pace: Pace::new(FILES_FIRST, FILES_FIRST, FILES_UNDER_WAY_MAX),
        }
    }

    /// What is ahead of a program that opened a file at this moment. What is here is given away, or shared
    /// with those who open it again soon.
    pub(super) fn take(&mut self, ino: Ino, inodes: &mut Inodes, opened: Instant) -> Option<Ahead> {
        let file = self.files.get_mut(&ino)?;
        let fetched = match &file.state {
            State::UnderWay(fetching) => {
                if file.fetch.why == Why::Walk {
                    self.pace.late();
                }
                return Some(Ahead::UnderWay(fetching.clone()));
            }
            State::Here(fetched) => fetched.clone(),
        };
        match file.fetch.why {
            Why::Again { life } if fetched.age(opened) < life => file.is_used = true,
            Why::Again { .. } => {
                self.give_up(ino, inodes);
                return None;
            }
            Why::Walk => drop(self.remove(ino, inodes)),
        }
        Some(Ahead::Here(fetched))
    }

    /// Whether one more may be asked for. What a walk has ahead leaves some room for other things, and so
    /// does what it has under way.
    pub(super) fn has_room(&self, why: Why) -> bool {
        let (has_way, max) = match why {
            Why::Walk => (
                self.walk.files < self.pace.now()
                    && self.walk.bytes < self.pace.now() as u64 * BYTES_EACH,
                self.max - self.max / 4,
            ),
            Why::Again { .. } => (
                self.again.files < AGAIN_UNDER_WAY_MAX && self.again.bytes < AGAIN_BYTES_MAX,
                self.max,
            ),
        };
        has_way && self.files.len() < max && self.bytes < BYTES_MAX
    }

    fn under_way(&mut self, why: Why) -> &mut UnderWay {
        match why {
            Why::Walk => &mut self.walk,
            Why::Again { .. } => &mut self.again,
        }
    }

    /// The fetch of a file of `len` bytes, for which [`Self::begin`] is called under the same lock.
    pub(super) fn plan(&mut self, ino: Ino, len: u64, why: Why) -> Fetch {
        self.last_number += 1;
        self.under_way(why).begins(len);
        Fetch {
            ino,
            len,
            number: self.last_number,
            why,
        }
    }

    /// As [`Walk::begin`](super::Walk::begin).
    pub(super) fn begin(
        &mut self,
        fetch: Fetch,
        fetching: Fetching,
        inodes: &mut Inodes,
        now: Instant,
    ) {
        // Two names of one file may have been planned.
        self.drop(fetch.ino, inodes);
        self.bytes += fetch.len;
        let file = AheadFile {
            state: State::UnderWay(fetching),
            since: now,
            fetch,
            is_used: false,
        };
        self.files.insert(fetch.ino, file);
    }

    /// As [`Walk::end`](super::Walk::end).
    pub(super) fn end(
        &mut self,
        fetch: Fetch,
        fetched: Option<Fetched>,
        took: Duration,
        inodes: &mut Inodes,
    ) -> Option<Fetched> {
        let is_awaited = |file: &&mut AheadFile| {
            file.fetch.number == fetch.number && matches!(file.state, State::UnderWay(_))
        };
        let Some(file) = self.files.get_mut(&fetch.ino).filter(is_awaited) else {
            return fetched;
        };
        match fetched {
            Some(fetched) => {
                file.state = State::Here(fetched);
                let Fetch { len, why, .. } = file.fetch;
                self.under_way(why).ends(len);
                if why == Why::Walk {
                    self.pace.has_taken(took);
                }
            }
            None => {
                match fetch.why {
                    // The server may have no handle left: a program that opens a file needs it more.
                    Why::Walk => self.pace.wasted(),
                    Why::Again { .. } => self.again.vain += 1,
                }
                self.drop(fetch.ino, inodes);
            }
        }
        None
    }

    /// Drops what nobody came for within `life`, or within its own.
    pub(super) fn sweep(&mut self, life: Duration, inodes: &mut Inodes, now: Instant) {
        let is_old = |file: &&AheadFile| match (&file.state, file.fetch.why) {
            (State::Here(_), Why::Walk) => now.duration_since(file.since) >= life,
            (State::Here(fetched), Why::Again { life }) => fetched.age(now) >= life,
            (State::UnderWay(_), _) => false,
        };
        let old = self.files.values().filter(is_old);
        let old: Vec<Fetch> = old.map(|file| file.fetch).collect();
        if old.iter().any(|fetch| fetch.why == Why::Walk) {
            self.pace.wasted();
        }
        for fetch in &old {
            self.give_up(fetch.ino, inodes);
        }
    }

    /// Drops what was opened again and will not be once more in time, where it is in the way of others.
    pub(super) fn expire(&mut self, inodes: &mut Inodes, now: Instant) {
        if self.files.len() >= self.max / 4 {
            self.sweep(Duration::MAX, inodes, now);
        }
    }

    /// Drops a file that is too old, and counts it if nobody came for it.
    fn give_up(&mut self, ino: Ino, inodes: &mut Inodes) {
        if let Some(file) = self.files.get(&ino)
            && !file.is_used
        {
            let why = file.fetch.why;
            self.under_way(why).vain += 1;
        }
        self.drop(ino, inodes);
    }

    /// Drops a file: what was fetched of it is not wanted, or out of date.
    pub(super) fn drop(&mut self, ino: Ino, inodes: &mut Inodes) {
        let file = self.remove(ino, inodes);
        if let Some(State::Here(fetched)) = file.map(|file| file.state) {
            self.dropped.push(fetched.handle);
        }
    }

    /// How many files nobody came for, since this was asked last: of a walk, and of those opened again.
    pub(super) fn take_vain(&mut self) -> (u64, u64) {
        let walk = std::mem::take(&mut self.walk.vain);
        (walk, std::mem::take(&mut self.again.vain))
    }

    fn remove(&mut self, ino: Ino, inodes: &mut Inodes) -> Option<AheadFile> {
        let file = self.files.remove(&ino)?;
        self.bytes -= file.fetch.len;
        if !matches!(file.state, State::Here(_)) {
            self.under_way(file.fetch.why).ends(file.fetch.len);
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

    /// Drops a file that will soon be too old, so that it can be fetched anew. Whether it is not ahead now.
    pub(super) fn make_way(&mut self, ino: Ino, inodes: &mut Inodes, now: Instant) -> bool {
        let Some(file) = self.files.get(&ino) else {
            return true;
        };
        let is_aging = match (&file.state, file.fetch.why) {
            (State::Here(fetched), Why::Again { life }) => fetched.age(now) >= life * 3 / 4,
            _ => false,
        };
        if is_aging {
            self.give_up(ino, inodes);
        }
        is_aging
    }

    pub(super) fn why(&self, ino: Ino) -> Option<Why> {
        self.files.get(&ino).map(|file| file.fetch.why)
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
/// The same of what was opened before in the same order: a program that comes back gets it all at once.
const AGAIN_UNDER_WAY_MAX: usize = 32;
const AGAIN_BYTES_MAX: u64 = 1 << 20;
/// Files ahead, each with a handle of the server's: a quarter of the handles that it has, and fewer
/// where it does not say how many.
const FILES_MAX: usize = 256;
const FILES_MAX_UNTOLD: usize = 64;
/// Bytes of them: may go beyond by one file.
const BYTES_MAX: u64 = 16 << 20;
