//! What is open: files and directories by the kernel's number, and all opens of one inode.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Ino;
use super::dir::OpenDir;
use super::likeness::Look;
use super::read::Reader;
use super::shared_file::SharedFile;
use crate::client::Handle;
use crate::error::Result;

/// The kernel's number for one open(2). Never 0, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fh(pub(crate) u64);

/// How a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    /// O_SYNC or O_DSYNC: a write is on the server's disk when write(2) returns.
    pub(crate) sync: bool,
}

/// One open(2) of a file.
pub(super) struct OpenFile {
    pub(super) fh: Fh,
    pub(super) access: Access,
    /// Made by this open(2): it was not there before.
    pub(super) is_new: bool,
    serving: Mutex<Serving>,
    /// What all opens of this file share.
    pub(super) shared: Arc<SharedFile>,
    /// Where this reader is and what it asked for ahead.
    pub(super) reader: Arc<Mutex<Reader>>,
    /// The newest write error that this open was told.
    errors_told: AtomicU64,
    /// All of the file, fetched before it was opened.
    fetched: Mutex<Option<Whole>>,
    /// Its handle was lost, and its name leads to another file since.
    is_stale: AtomicBool,
}

struct Whole {
    /// Of this version of the file.
    version: u64,
    data: Bytes,
    /// Part of what all opens together may hold.
    _held: OwnedSemaphorePermit,
}

/// The server's handles that serve one open. They change when the file gets another server file:
/// see [`cow`](super::cow).
#[derive(Default)]
pub(super) struct Serving {
    /// `None` when the file that the server had open for us is no longer the one that the name
    /// leads to.
    handle: Option<Handle>,
    /// Whether `handle` was opened as the program opened the file; else it only reads.
    is_full: bool,
    /// For pages that the kernel writes back to a file that was opened to append: see
    /// [`Filesystem::write`](super::Filesystem::write).
    pages: Option<Handle>,
    /// What the server said last of what it has open.
    look: Option<Look>,
}

impl Serving {
    /// Served as the program asked for.
    pub(super) const fn full(handle: Handle, pages: Option<Handle>) -> Self {
        Self {
            handle: Some(handle),
            is_full: true,
            pages,
            look: None,
        }
    }

    /// Served for reading only.
    pub(super) const fn reading(handle: Handle) -> Self {
        Self {
            handle: Some(handle),
            is_full: false,
            pages: None,
            look: None,
        }
    }

    /// And looked at.
    pub(super) fn seen(self, look: Option<Look>) -> Self {
        Self { look, ..self }
    }
}

impl OpenFile {
    /// Not served yet.
    fn new(fh: Fh, access: Access, shared: Arc<SharedFile>) -> Self {
        let errors_told = AtomicU64::new(shared.error_count());
        Self {
            fh,
            access,
            is_new: false,
            serving: Mutex::default(),
            shared,
            reader: Arc::default(),
            errors_told,
            fetched: Mutex::default(),
            is_stale: AtomicBool::new(false),
        }
    }

    /// A range of what was fetched before the file was opened, if it is still that; less than was
    /// wanted at the end of the file.
    pub(super) fn fetched(&self, wanted: &Range<u64>) -> Option<Bytes> {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let Whole { version, data, .. } = fetched.as_ref()?;
        let moment = self.shared.moment(wanted);
        if moment.version != *version || !moment.is_settled {
            *fetched = None;
            return None;
        }
        let in_data = |at: u64| usize::try_from(at).map_or(data.len(), |at| at.min(data.len()));
        Some(data.slice(in_data(wanted.start)..in_data(wanted.end)))
    }

    /// The server's handle, if there is one.
    pub(super) fn handle(&self) -> Option<Handle> {
        let handle = self.serving().handle.clone();
        handle.filter(|handle| !handle.is_lost())
    }

    /// Whether the server's handle was lost with its connection.
    pub(super) fn is_lost(&self) -> bool {
        self.serving().handle.as_ref().is_some_and(Handle::is_lost)
    }

    /// What the server said last of what it has open for this open, or had.
    pub(super) fn look(&self) -> Option<Look> {
        self.serving().look
    }

    /// Notes what the server said of the file by `handle`.
    pub(super) fn saw(&self, handle: &Handle, look: Look) {
        let mut serving = self.serving();
        if serving.handle.as_ref() == Some(handle) {
            serving.look = Some(look);
        }
    }

    /// Its handle was lost, and its name leads to another file since.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    pub(super) fn set_stale(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// The server's handle, if it can do all that the program opened the file for.
    pub(super) fn full_handle(&self) -> Option<Handle> {
        let serving = self.serving();
        let full = serving.handle.clone().filter(|_| serving.is_full);
        full.filter(|handle| !handle.is_lost())
    }

    /// The handle for pages, if there is one.
    pub(super) fn pages(&self) -> Option<Handle> {
        let pages = self.serving().pages.clone();
        pages.filter(|handle| !handle.is_lost())
    }

    /// Notes a handle for pages; gives the one that is there if another was first.
    pub(super) fn set_pages(&self, handle: Handle) -> Handle {
        let mut serving = self.serving();
        let there = serving.pages.take().filter(|there| !there.is_lost());
        serving.pages.insert(there.unwrap_or(handle)).clone()
    }

    /// Is served by other handles from now on. The old ones are closed when nobody uses them any
    /// more.
    pub(super) fn serve(&self, by: Serving) {
        let old = std::mem::replace(&mut *self.serving(), by);
        // Closing sends a request, under no lock.
        drop(old);
    }

    /// As [`Self::serve`], but for one that has a handle, which stays. Gives the one that serves.
    pub(super) fn serve_unless_served(&self, by: Serving) -> Option<Handle> {
        let mut serving = self.serving();
        if serving.handle.as_ref().is_none_or(Handle::is_lost) {
            *serving = by;
        }
        serving.handle.clone()
    }

    /// The server's file is no longer the one that the name leads to.
    pub(super) fn lose(&self) {
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.serve(Serving::default());
    }

    /// Whether `handle` still is the one.
    pub(super) fn is_served_by(&self, handle: &Handle) -> bool {
        self.serving().handle.as_ref() == Some(handle)
    }

    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of an earlier write, if this open was not told yet.
    ///
    /// # Errors
    /// That error, once.
    pub(super) fn take_error(&self) -> Result<()> {
        let Some((count, error)) = self.shared.error() else {
            return Ok(());
        };
        if self.errors_told.swap(count, Ordering::Relaxed) == count {
            return Ok(());
        }
        Err(error)
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What serves a new open, and what was seen with it.
fn served(file: &OpenFile, handle: Handle, look: Option<Look>) -> Serving {
    if let Some(look) = &look {
        file.shared.saw(look);
    }
    Serving::full(handle, None).seen(look)
}

/// All that is open.
pub(super) struct Handles {
    last: AtomicU64,
    open: Mutex<Open>,
    /// Bytes of whole files that opens may hold.
    fetched_budget: Arc<Semaphore>,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            last: AtomicU64::default(),
            open: Mutex::default(),
            fetched_budget: Arc::new(Semaphore::new(FETCHED_MAX)),
        }
    }
}

/// Bytes of whole files that were fetched ahead and are open now.
const FETCHED_MAX: usize = 16 << 20;

#[derive(Default)]
struct Open {
    files: HashMap<Fh, Arc<OpenFile>>,
    dirs: HashMap<Fh, Arc<OpenDir>>,
    /// All opens of a file, while there is one.
    inodes: HashMap<Ino, Opens>,
}

struct Opens {
    shared: Arc<SharedFile>,
    files: Vec<Arc<OpenFile>>,
}

impl Opens {
    fn new(ino: Ino) -> Self {
        Self {
            shared: Arc::new(SharedFile::new(ino)),
            files: Vec::with_capacity(1),
        }
    }
}

impl Handles {
    /// `is_new`: the file was made by this open(2).
    pub(super) fn add_file(
        &self,
        ino: Ino,
        access: Access,
        (handle, look): (Handle, Option<Look>),
        is_new: bool,
    ) -> Fh {
        self.add(ino, access, |file, _| OpenFile {
            is_new,
            serving: Mutex::new(served(&file, handle, look)),
            ..file
        })
    }

    /// An open that no handle of the server's serves yet.
    pub(super) fn add_unserved(&self, ino: Ino, access: Access) -> Fh {
        self.add(ino, access, |file, _| file)
    }

    /// An open of a file of which all was fetched before.
    pub(super) fn add_fetched(
        &self,
        ino: Ino,
        access: Access,
        (handle, look): (Handle, Option<Look>),
        data: Bytes,
    ) -> Fh {
        let held = u32::try_from(data.len()).ok().and_then(|len| {
            Arc::clone(&self.fetched_budget)
                .try_acquire_many_owned(len)
                .ok()
        });
        self.add(ino, access, |file, others| {
            let version = file.shared.version();
            // Somebody may have written to it just now.
            let is_read_only = !others.iter().any(|other| other.access.write);
            // A file without a size may have content: those of /proc do.
            let is_something = is_read_only && !data.is_empty();
            let fetched = held.filter(|_| is_something).map(|held| Whole {
                version,
                data,
                _held: held,
            });
            OpenFile {
                serving: Mutex::new(served(&file, handle, look)),
                fetched: Mutex::new(fetched),
                ..file
            }
        })
    }

    fn add(
        &self,
        ino: Ino,
        access: Access,
        with: impl FnOnce(OpenFile, &[Arc<OpenFile>]) -> OpenFile,
    ) -> Fh {
        let fh = self.next();
        let mut open = self.open();
        let opens = open.inodes.entry(ino).or_insert_with(|| Opens::new(ino));
        let file = OpenFile::new(fh, access, Arc::clone(&opens.shared));
        let file = Arc::new(with(file, &opens.files));
        opens.files.push(Arc::clone(&file));
        open.files.insert(fh, file);
        fh
    }

    /// Makes all opens of one file opens of another. Gives their number.
    pub(super) fn move_files(&self, from: Ino, to: Ino) -> usize {
        let mut open = self.open();
        let Some(moved) = open.inodes.remove(&from) else {
            return 0;
        };
        let Open { files, inodes, .. } = &mut *open;
        let opens = inodes.entry(to).or_insert_with(|| Opens::new(to));
        for (_, file) in files.iter_mut().filter(|(_, file)| file.shared.ino == from) {
            *file = Arc::new(OpenFile {
                is_new: file.is_new,
                ..OpenFile::new(file.fh, file.access, Arc::clone(&opens.shared))
            });
            opens.files.push(Arc::clone(file));
        }
        moved.files.len()
    }

    pub(super) fn add_dir(&self, dir: OpenDir) -> Fh {
        let fh = self.next();
        self.open().dirs.insert(fh, Arc::new(dir));
        fh
    }

    pub(super) fn file(&self, fh: Fh) -> Option<Arc<OpenFile>> {
        self.open().files.get(&fh).cloned()
    }

    pub(super) fn dir(&self, fh: Fh) -> Option<Arc<OpenDir>> {
        self.open().dirs.get(&fh).cloned()
    }

    pub(super) fn remove_dir(&self, fh: Fh) -> Option<Arc<OpenDir>> {
        self.open().dirs.remove(&fh)
    }

    /// Takes one open out; what all opens of the file share goes with the last of them.
    pub(super) fn remove_file(&self, fh: Fh) -> Option<Arc<OpenFile>> {
        let mut open = self.open();
        let file = open.files.remove(&fh)?;
        let ino = file.shared.ino;
        if let Some(opens) = open.inodes.get_mut(&ino) {
            opens.files.retain(|other| !Arc::ptr_eq(other, &file));
            if opens.files.is_empty() {
                open.inodes.remove(&ino);
            }
        }
        Some(file)
    }

    /// What all opens of a file share, if it is open.
    pub(super) fn shared(&self, ino: Ino) -> Option<Arc<SharedFile>> {
        self.open()
            .inodes
            .get(&ino)
            .map(|opens| Arc::clone(&opens.shared))
    }

    /// Some open of a file that fits.
    pub(super) fn any_file(
        &self,
        ino: Ino,
        fits: impl Fn(&OpenFile) -> bool,
    ) -> Option<Arc<OpenFile>> {
        let open = self.open();
        open.inodes
            .get(&ino)?
            .files
            .iter()
            .find(|file| fits(file))
            .cloned()
    }

    /// All opens of a file.
    pub(super) fn files(&self, ino: Ino) -> Vec<Arc<OpenFile>> {
        let open = self.open();
        open.inodes
            .get(&ino)
            .map(|opens| opens.files.clone())
            .unwrap_or_default()
    }

    pub(super) fn all_shared(&self) -> Vec<Arc<SharedFile>> {
        self.open()
            .inodes
            .values()
            .map(|opens| Arc::clone(&opens.shared))
            .collect()
    }

    fn next(&self) -> Fh {
        Fh(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
