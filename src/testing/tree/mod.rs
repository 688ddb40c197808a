//! A POSIX filesystem in memory: what the test server serves.
//!
//! Behaves as Linux does where a server can see it, with the same error numbers; what no SFTP
//! request can tell apart (change times, sticky directories, set-id bits) is left out.

mod lookup;
mod names;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use nix::errno::Errno;

use crate::sftp::{Attrs, FileKind, OpenFlags, Statvfs};

pub(crate) type Ino = u64;
type Result<T> = std::result::Result<T, Errno>;

/// The files. Paths that are not absolute begin at [`Tree::home`].
pub(crate) struct Tree {
    inodes: HashMap<Ino, Inode>,
    last_ino: Ino,
    last_device: u64,
    home: Ino,
    /// Bytes in all files.
    used: u64,
    /// What time it is. Stands still until a test moves it.
    pub(crate) now: u32,
    /// Who acts: user and group. 0 may do everything.
    pub(crate) user: (u32, u32),
    /// Permission bits that new files do not get.
    pub(crate) umask: u32,
    /// Bytes that all files together may have.
    pub(crate) quota: Option<u64>,
    /// Bytes that one file may have.
    pub(crate) file_size_max: u64,
    /// Every change fails with EROFS.
    pub(crate) read_only: bool,
}

struct Inode {
    mode: u32,
    owner: (u32, u32),
    /// Accessed (never moved by reading, as with noatime) and modified.
    times: (u32, u32),
    links: u32,
    /// Handles that hold it alive.
    opens: u32,
    device: u64,
    body: Body,
}

enum Body {
    File(Vec<u8>),
    Directory {
        entries: BTreeMap<Bytes, Ino>,
        parent: Ino,
    },
    Symlink(Bytes),
}

const ROOT: Ino = 1;
const SYMLINKS_MAX: u32 = 40;
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;
/// No test needs more, and a hostile size must not take the machine's memory.
const FILE_SIZE_MAX: u64 = 1 << 30;

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

impl Tree {
    /// A tree with nothing but the directories of an absolute path, the last of them our home.
    pub(crate) fn new(home: &[u8]) -> Self {
        let mut tree = Self {
            inodes: HashMap::new(),
            last_ino: 0,
            last_device: 1,
            home: ROOT,
            used: 0,
            now: 1_700_000_000,
            user: (0, 0),
            umask: 0o022,
            quota: None,
            file_size_max: FILE_SIZE_MAX,
            read_only: false,
        };
        let body = Body::Directory {
            entries: BTreeMap::new(),
            parent: ROOT,
        };
        tree.add(FileKind::Directory.mode() | 0o755, 1, 2, body);
        for name in lookup::names(home) {
            tree.home = tree.make_directory(tree.home, Bytes::copy_from_slice(name), 0o755);
        }
        tree
    }

    // Looking.

    pub(crate) fn attrs(&self, ino: Ino) -> Attrs {
        let inode = &self.inodes[&ino];
        let size = match &inode.body {
            Body::File(data) => data.len() as u64,
            Body::Directory { .. } => 4096,
            Body::Symlink(target) => target.len() as u64,
        };
        Attrs {
            size: Some(size),
            owner: Some(inode.owner),
            permissions: Some(inode.mode),
            times: Some(inode.times),
            extended: Vec::new(),
        }
    }

    /// Its number of links: for a directory two and one for each directory in it.
    pub(crate) fn links(&self, ino: Ino) -> u32 {
        self.inodes[&ino].links
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.inodes[&ino].body, Body::Directory { .. })
    }

    /// The names in a directory, `.` and `..` among them.
    pub(crate) fn list(&self, ino: Ino) -> Result<Vec<Bytes>> {
        let inode = &self.inodes[&ino];
        let Body::Directory { entries, .. } = &inode.body else {
            return Err(Errno::ENOTDIR);
        };
        self.allow(inode, READ)?;
        let dots = [Bytes::from_static(b"."), Bytes::from_static(b"..")];
        Ok(dots.into_iter().chain(entries.keys().cloned()).collect())
    }

    pub(crate) fn readlink(&self, path: &[u8]) -> Result<Bytes> {
        match &self.inodes[&self.find(path, false)?].body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn statvfs(&self, ino: Ino) -> Statvfs {
        let blocks = self.quota.map_or(1 << 30, |quota| quota / 4096);
        let free = blocks.saturating_sub(self.used.div_ceil(4096));
        let files = 1 << 20;
        let ffree = files - self.inodes.len() as u64;
        Statvfs {
            bsize: 4096,
            frsize: 4096,
            blocks,
            bfree: free,
            bavail: free,
            files,
            ffree,
            favail: ffree,
            fsid: self.inodes[&ino].device,
            flag: if self.read_only {
                Statvfs::FLAG_RDONLY
            } else {
                0
            },
            namemax: NAME_MAX as u64,
        }
    }

    // Files.

    /// open(2): makes and cuts the file as the flags say. The caller holds it with
    /// [`Tree::hold`].
    pub(crate) fn open(&mut self, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Ino> {
        let create = flags.contains(OpenFlags::CREAT);
        let exclusive = create && flags.contains(OpenFlags::EXCL);
        if let (true, Some(file)) = (create, path.strip_suffix(b"/")) {
            self.walk(self.home, file, false, &mut 0)?;
            return Err(Errno::EISDIR);
        }
        let spot = self.walk(self.home, path, !exclusive, &mut 0)?;
        let Some(ino) = spot.found()? else {
            if !create {
                return Err(Errno::ENOENT);
            }
            let mode = FileKind::Regular.mode() | (mode & 0o7777 & !self.umask);
            return self.insert(&spot, mode, Body::File(Vec::new()));
        };
        if exclusive {
            return Err(Errno::EEXIST);
        }
        let writes = flags.contains(OpenFlags::WRITE);
        if self.is_dir(ino) && (writes || create || flags.contains(OpenFlags::TRUNC)) {
            return Err(Errno::EISDIR);
        }
        let inode = &self.inodes[&ino];
        if matches!(inode.body, Body::Symlink(_)) {
            return Err(Errno::ELOOP);
        }
        if writes {
            self.changeable()?;
            self.allow(inode, WRITE)?;
        }
        if !writes || flags.contains(OpenFlags::READ) {
            self.allow(inode, READ)?;
        }
        if flags.contains(OpenFlags::TRUNC) {
            self.resize(ino, 0)?;
        }
        Ok(ino)
    }

    /// Keeps an inode alive, whatever becomes of its names.
    pub(crate) fn hold(&mut self, ino: Ino) {
        self.inode(ino).opens += 1;
    }

    /// Ends a [`Tree::hold`].
    pub(crate) fn release(&mut self, ino: Ino) {
        self.inode(ino).opens -= 1;
        self.forget_if_unused(ino);
    }

    /// Nothing at and behind the end.
    pub(crate) fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes> {
        let Body::File(data) = &self.inodes[&ino].body else {
            return Err(Errno::EISDIR);
        };
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let end = start.saturating_add(len).min(data.len());
        Ok(Bytes::copy_from_slice(&data[start..end]))
    }

    /// Where the file ends: where an append goes.
    pub(crate) fn end(&self, ino: Ino) -> u64 {
        self.attrs(ino).size.unwrap_or_default()
    }

    /// How many bytes were written: fewer than given when the quota or the largest size that a file
    /// may have is reached among them.
    pub(crate) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let old_end = self.end(ino);
        let room = self
            .quota
            .map_or(u64::MAX, |quota| quota.saturating_sub(self.used));
        let wanted = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if offset >= self.file_size_max {
            return Err(Errno::EFBIG);
        }
        let wanted = wanted.min(self.file_size_max);
        let end = wanted
            .min(old_end.saturating_add(room))
            .max(old_end.min(wanted));
        if end <= offset {
            return Err(Errno::ENOSPC);
        }
        if end > old_end {
            self.resize(ino, end)?;
        }
        let now = self.now;
        let inode = self.inode(ino);
        inode.times.1 = now;
        let Body::File(content) = &mut inode.body else {
            return Err(Errno::EISDIR);
        };
        let (start, end) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(end).unwrap(),
        );
        content[start..end].copy_from_slice(&data[..end - start]);
        Ok(end - start)
    }

    pub(crate) fn resize(&mut self, ino: Ino, size: u64) -> Result<()> {
        self.changeable()?;
        let (now, quota, used) = (self.now, self.quota, self.used);
        let file_size_max = self.file_size_max;
        let inode = self.inode(ino);
        let Body::File(data) = &mut inode.body else {
            return Err(Errno::EISDIR);
        };
        if size > file_size_max {
            return Err(Errno::EFBIG);
        }
        let used = used - data.len() as u64 + size;
        if size > data.len() as u64 && quota.is_some_and(|quota| used > quota) {
            return Err(Errno::ENOSPC);
        }
        data.resize(usize::try_from(size).unwrap(), 0);
        inode.times.1 = now;
        self.used = used;
        Ok(())
    }

    // Attributes.

    pub(crate) fn truncate(&mut self, path: &[u8], size: u64) -> Result<()> {
        let ino = self.find(path, true)?;
        self.allow(&self.inodes[&ino], WRITE)?;
        self.resize(ino, size)
    }

    pub(crate) fn chmod(&mut self, ino: Ino, mode: u32) -> Result<()> {
        self.owned(ino)?;
        let inode = self.inode(ino);
        inode.mode = inode.mode & libc::S_IFMT | mode & 0o7777;
        Ok(())
    }

    pub(crate) fn chown(&mut self, ino: Ino, owner: (u32, u32)) -> Result<()> {
        self.owned(ino)?;
        if self.user.0 != 0 && owner != self.inodes[&ino].owner {
            return Err(Errno::EPERM);
        }
        self.inode(ino).owner = owner;
        Ok(())
    }

    pub(crate) fn set_times(&mut self, ino: Ino, times: (u32, u32)) -> Result<()> {
        self.owned(ino)?;
        self.inode(ino).times = times;
        Ok(())
    }

    // For tests: what somebody else does to the files.

    /// Makes or replaces a file's content.
    pub(crate) fn put(&mut self, path: &[u8], data: &[u8]) {
        let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::TRUNC;
        let ino = self.open(path, flags, 0o644).unwrap();
        self.write(ino, 0, data).unwrap();
    }

    /// How many files and directories there are, those without a name among them.
    pub(crate) fn count(&self) -> usize {
        self.inodes.len()
    }

    /// How many handles hold files and directories.
    pub(crate) fn opens(&self) -> u32 {
        self.inodes.values().map(|inode| inode.opens).sum()
    }

    /// Whether a handle holds what has no name any more.
    pub(crate) fn has_nameless(&self) -> bool {
        self.inodes
            .values()
            .any(|inode| inode.opens > 0 && inode.links == 0)
    }

    /// A file's content, if there is one.
    pub(crate) fn content(&self, path: &[u8]) -> Option<Bytes> {
        self.read(self.find(path, true).ok()?, 0, usize::MAX).ok()
    }
}

/// The steps that the operations share.
impl Tree {
    fn inode(&mut self, ino: Ino) -> &mut Inode {
        self.inodes
            .get_mut(&ino)
            .expect("a name or a handle holds it")
    }

    /// Whether the one who acts may do this to it.
    fn allow(&self, inode: &Inode, wanted: u32) -> Result<()> {
        let (user, group) = self.user;
        let class = match inode.owner {
            (owner, _) if owner == user => 6,
            (_, owner) if owner == group => 3,
            _ => 0,
        };
        if user == 0 || (inode.mode >> class) & wanted == wanted {
            return Ok(());
        }
        Err(Errno::EACCES)
    }

    fn owned(&self, ino: Ino) -> Result<()> {
        self.changeable()?;
        if self.user.0 == 0 || self.inodes[&ino].owner.0 == self.user.0 {
            return Ok(());
        }
        Err(Errno::EPERM)
    }

    fn changeable(&self) -> Result<()> {
        if self.read_only {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    fn may_change(&self, directory: Ino) -> Result<()> {
        self.changeable()?;
        self.allow(&self.inodes[&directory], WRITE | SEARCH)
    }

    fn add(&mut self, mode: u32, device: u64, links: u32, body: Body) -> Ino {
        self.last_ino += 1;
        let times = (self.now, self.now);
        let inode = Inode {
            mode,
            owner: self.user,
            times,
            links,
            opens: 0,
            device,
            body,
        };
        self.inodes.insert(self.last_ino, inode);
        self.last_ino
    }

    fn forget_if_unused(&mut self, ino: Ino) {
        let inode = &self.inodes[&ino];
        // A directory's own `.` counts as one.
        if inode.opens > 0 || inode.links > u32::from(self.is_dir(ino)) {
            return;
        }
        if let Body::File(data) = &inode.body {
            self.used -= data.len() as u64;
        }
        self.inodes.remove(&ino);
    }
}
