//! What is open: files and directories by the kernel's number, and all opens of one inode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Ino;
use super::dir::OpenDir;
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
    pub(super) access: Access,
    pub(super) handle: Handle,
    /// For pages that the kernel writes back to a file that was opened to append: see
    /// [`Filesystem::write`](super::Filesystem::write).
    pub(super) pages: OnceLock<Handle>,
    /// What all opens of this file share.
    pub(super) shared: Arc<SharedFile>,
    /// Where this reader is and what it asked for ahead.
    pub(super) reader: Mutex<Reader>,
    /// The newest write error that this open was told.
    errors_told: AtomicU64,
}

impl OpenFile {
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

/// All that is open.
#[derive(Default)]
pub(super) struct Handles {
    last: AtomicU64,
    open: Mutex<Open>,
}

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

impl Handles {
    pub(super) fn add_file(&self, ino: Ino, access: Access, handle: Handle) -> Fh {
        let fh = self.next();
        let mut open = self.open();
        let opens = open.inodes.entry(ino).or_insert_with(|| Opens {
            shared: Arc::new(SharedFile::new(ino)),
            files: Vec::with_capacity(1),
        });
        let shared = Arc::clone(&opens.shared);
        let errors_told = AtomicU64::new(shared.error_count());
        let file = Arc::new(OpenFile {
            access,
            handle,
            pages: OnceLock::new(),
            shared,
            reader: Mutex::default(),
            errors_told,
        });
        opens.files.push(Arc::clone(&file));
        open.files.insert(fh, file);
        fh
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
        fits: impl Fn(&Access) -> bool,
    ) -> Option<Arc<OpenFile>> {
        let open = self.open();
        open.inodes
            .get(&ino)?
            .files
            .iter()
            .find(|file| fits(&file.access))
            .cloned()
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
