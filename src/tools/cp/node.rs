//! A pair of directories, the one read and the one filled, and what is below it that is not done.
//!
//! **Invariant:** a pair is kept open only while there are few. A closed one is opened again from
//! the nearest open one above, name by name, and must be the same two directories then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::operands::join;
use super::plan::{Id, Look};

/// Pairs kept open: half of what the usual limit of 1024 descriptors allows.
const OPEN_MAX: usize = 256;
/// Pairs right above a new one that are left open, as they are needed next.
const NEAR: usize = 16;
/// Every so deep a pair stays open, so that to open one again takes fewer steps than this.
const STEP: usize = 64;

/// The descriptors of a pair.
#[derive(Debug)]
pub(super) struct Fds {
    /// O_PATH: it costs no request to open one, and it is enough to start from.
    from: OwnedFd,
    to: OwnedFd,
    count: Arc<AtomicUsize>,
}

impl Fds {
    pub(super) fn new(from: OwnedFd, to: OwnedFd, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        let count = Arc::clone(count);
        Self { from, to, count }
    }

    pub(super) fn from(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    pub(super) fn to(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is done to a directory when all in it is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finish {
    Nothing,
    /// This mode.
    Mode(u32),
    /// Owner, times and mode of the source.
    Preserve(Look),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    parent: Option<Arc<Self>>,
    depth: usize,
    /// For a pair without a parent, the paths as they were typed.
    from_name: Vec<u8>,
    to_name: Vec<u8>,
    /// Whether the source is reached through a symbolic link.
    follow: bool,
    pub(super) from_id: Id,
    pub(super) to_id: Id,
    pub(super) finish: Finish,
    fds: Mutex<Option<Arc<Fds>>>,
    /// Entries that are not done, and one for the reading of the directory.
    pending: AtomicUsize,
}

/// How a pair is named below its parent, or typed.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    pub(super) follow: bool,
}

impl Node {
    /// A pair that was opened just now. Where many are open already, some above it are closed.
    pub(super) fn new(
        parent: Option<Arc<Self>>,
        names: Names,
        fds: Fds,
        finish: Finish,
    ) -> Result<Arc<Self>, Errno> {
        let (from_id, to_id) = (id_of(fds.from())?, id_of(fds.to())?);
        let is_much = fds.count.load(Ordering::Relaxed) > OPEN_MAX;
        let node = Arc::new(Self {
            depth: parent.as_ref().map_or(0, |parent| parent.depth + 1),
            parent,
            from_name: names.from,
            to_name: names.to,
            follow: names.follow,
            from_id,
            to_id,
            finish,
            fds: Mutex::new(Some(Arc::new(fds))),
            pending: AtomicUsize::new(1),
        });
        if is_much {
            // Not the first of all, whose path may lead elsewhere by now.
            let is_far = |above: &&Arc<Self>| !above.depth.is_multiple_of(STEP);
            let far = node.above().skip(NEAR).filter(is_far);
            far.for_each(|above| above.close());
        }
        Ok(node)
    }

    /// Those above it, nearest first.
    pub(super) fn above(&self) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(self.parent.as_ref(), |node| node.parent.as_ref())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Fds>>> {
        self.fds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever needs it again opens it again.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }

    /// Its descriptors, opened again if need be. ESTALE if it is not the same pair any more.
    pub(super) fn fds(self: &Arc<Self>) -> Result<Arc<Fds>, Errno> {
        if let Some(fds) = self.lock().clone() {
            return Ok(fds);
        }
        let mut closed = vec![self];
        let mut nearest = None;
        for above in self.above() {
            nearest = above.lock().clone();
            if nearest.is_some() {
                break;
            }
            closed.push(above);
        }
        let mut fds = nearest.ok_or(Errno::ESTALE)?;
        for (left, node) in closed.iter().enumerate().rev() {
            fds = Arc::new(node.open_below(&fds)?);
            // Most likely those near it are needed next, on the way up.
            if left < STEP {
                *node.lock() = Some(Arc::clone(&fds));
            }
        }
        Ok(fds)
    }

    fn open_below(&self, parent: &Fds) -> Result<Fds, Errno> {
        let from = open_from(parent.from(), &self.from_name, self.follow)?;
        let to = open_to(parent.to(), &self.to_name)?;
        let fds = Fds::new(from, to, &parent.count);
        if id_of(fds.from())? != self.from_id || id_of(fds.to())? != self.to_id {
            return Err(Errno::ESTALE);
        }
        Ok(fds)
    }

    /// One more thing to be done in it.
    pub(super) fn expect_one(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing less. True for the last: then it is to be finished, once.
    pub(super) fn is_last_done(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The path of the source as the user would type it.
    pub(super) fn source_path(&self) -> Vec<u8> {
        self.path(|node| &node.from_name)
    }

    pub(super) fn new_path(&self) -> Vec<u8> {
        self.path(|node| &node.to_name)
    }

    fn path(&self, name: impl Fn(&Self) -> &Vec<u8>) -> Vec<u8> {
        let mut names = vec![name(self)];
        names.extend(self.above().map(|node| name(node)));
        let mut path = Vec::new();
        for (at, name) in names.into_iter().rev().enumerate() {
            path = match at {
                0 => name.clone(),
                _ => join(&path, name),
            };
        }
        path
    }
}

/// A deep tree is a long chain, which must not be dropped by recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(node) = next {
            next = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

/// Opens a directory to start from.
pub(super) fn open_from(dir: impl AsFd, name: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_NOFOLLOW, !follow);
    openat(dir, name, flags, Mode::empty())
}

/// Opens a directory to fill.
pub(super) fn open_to(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn id_of(fd: BorrowedFd<'_>) -> Result<Id, Errno> {
    Ok(Look::from(&fstat(fd)?).id)
}

/// What a name is, itself or what it leads to.
pub(super) fn look_at(dir: impl AsFd, name: &[u8], follow: bool) -> Result<Look, Errno> {
    let flags = match follow {
        true => AtFlags::empty(),
        false => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    Ok(Look::from(&fstatat(dir, name, flags)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use nix::fcntl::AT_FDCWD;
    use nix::unistd::{UnlinkatFlags, unlinkat};

    use super::*;

    fn names(from: &[u8], to: &[u8]) -> Names {
        Names {
            from: from.to_vec(),
            to: to.to_vec(),
            follow: false,
        }
    }

    /// A chain of pairs `d/d/d...`, deepest last, the first being the temporary directory itself.
    fn chain(dir: &std::path::Path, depth: usize, count: &Arc<AtomicUsize>) -> Vec<Arc<Node>> {
        let path = dir.as_os_str().as_bytes();
        let open = |fd: BorrowedFd<'_>, name: &[u8]| {
            let (from, to) = (open_from(fd, name, false), open_to(fd, name));
            Fds::new(from.unwrap(), to.unwrap(), count)
        };
        let fds = open(AT_FDCWD, path);
        let mut nodes = vec![Node::new(None, names(path, path), fds, Finish::Nothing).unwrap()];
        for _ in 0..depth {
            let above = Arc::clone(nodes.last().unwrap());
            let to = above.fds().unwrap();
            nix::sys::stat::mkdirat(to.to(), "d", Mode::S_IRWXU).unwrap();
            let fds = open(to.to(), b"d");
            nodes.push(Node::new(Some(above), names(b"d", b"d"), fds, Finish::Nothing).unwrap());
        }
        nodes
    }

    #[test]
    fn a_deep_chain_keeps_few_descriptors_and_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let nodes = chain(dir.path(), 1500, &count);
        let most = OPEN_MAX + nodes.len() / STEP + 2;
        assert!(count.load(Ordering::Relaxed) <= most);
        // std::fs::remove_dir_all takes a descriptor for each level.
        for node in nodes.iter().rev().skip(1) {
            let fds = node.fds().unwrap();
            assert!(count.load(Ordering::Relaxed) <= most + STEP);
            unlinkat(fds.to(), "d", UnlinkatFlags::RemoveDir).unwrap();
            node.close();
        }
        drop(nodes);
        assert_eq!(
            count.load(Ordering::Relaxed),
            0,
            "all are closed at the end"
        );
    }

    #[test]
    fn a_pair_that_was_exchanged_is_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = chain(dir.path(), 1, &Arc::default());
        nodes[1].close();
        fs::rename(dir.path().join("d"), dir.path().join("e")).unwrap();
        assert_eq!(nodes[1].fds().unwrap_err(), Errno::ENOENT);
        fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(nodes[1].fds().unwrap_err(), Errno::ESTALE);
    }
}
