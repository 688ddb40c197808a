//! `impl fuser::Filesystem`: convert, call, reply; no decisions.
//!
//! Each operation is polled once on the thread that read it from the kernel, where it finishes if
//! memory knows the answer; else it is handed to the runtime and this thread reads on. A reply that
//! is dropped unanswered (a panic in one operation) tells the program EIO.

mod convert;
mod ioctl;
mod notifier;

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use self::convert::{
    BLOCK, GENERATION, NOTHING, UNKNOWN, access, caller, errno, fh, file_attr, file_type, ino,
    owned, reply_attr, reply_data, reply_empty, reply_entry, seconds,
};
pub(crate) use self::notifier::start as start_notifier;
use crate::error::Error;
use crate::fs::{Access, Change, Creation, DirEntry, Filesystem, Opened, on_behalf_of};

/// The kernel's side of a mount.
pub(crate) struct Face {
    fs: Arc<Filesystem>,
    runtime: Handle,
}

impl Face {
    /// `runtime` drives what does not finish at once.
    pub(crate) const fn new(fs: Arc<Filesystem>, runtime: Handle) -> Self {
        Self { fs, runtime }
    }

    /// Runs an operation to its reply; one that may wait long is given up when the program that
    /// waits is interrupted.
    fn answer_to(&self, request: &Request, operation: impl Future<Output = ()> + Send + 'static) {
        self.answer(on_behalf_of(request.pid(), operation));
    }

    /// Runs an operation to its reply.
    fn answer(&self, operation: impl Future<Output = ()> + Send + 'static) {
        // A panic is reported by the panic hook; here it must not end the thread.
        let mut operation = Box::pin(AssertUnwindSafe(operation).catch_unwind());
        let _entered = self.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        if operation.as_mut().poll(&mut context).is_pending() {
            self.runtime.spawn(operation);
        }
    }

    fn fs(&self) -> Arc<Filesystem> {
        Arc::clone(&self.fs)
    }

    fn open_flags(&self, opened: Opened, access: Access) -> FopenFlags {
        let mut flags = FopenFlags::empty();
        if self.fs.config().direct_io {
            flags |= FopenFlags::FOPEN_DIRECT_IO;
        } else if opened.keep_pages {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        if !access.write {
            // Nothing to wait for at close(2).
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        flags
    }
}

impl fuser::Filesystem for Face {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for wanted in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Without AUTO: SFTP lists attributes anyway, and `find` asks for them later.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_NO_EXPORT_SUPPORT,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            // Not ASYNC_DIO, which sends the pieces of one appending write in any order; not
            // CACHE_SYMLINKS, which never asks again. An older kernel does without.
            let _ = config.add_capabilities(wanted);
        }
        // The kernel caps these; its nearest value is as good.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_time_granularity(Duration::from_secs(1));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs(), owned(name));
        self.answer(async move {
            match fs.lookup(ino(parent), &name).await {
                Err(Error::Errno(nix::errno::Errno::ENOENT)) => {
                    match fs.negative_ttl(ino(parent), &name) {
                        Duration::ZERO => reply.error(Errno::ENOENT),
                        ttl => reply.entry(&ttl, &NOTHING, GENERATION),
                    }
                }
                result => reply_entry(result, reply),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.fs.forget(ino(number), count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.fs();
        self.answer(async move {
            reply_attr(
                fs.resolve(ino(number)),
                fs.getattr(fs.resolve(ino(number))).await,
                reply,
            )
        });
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (Ok(atime), Ok(mtime)) = (seconds(atime), seconds(mtime)) else {
            // SFTP carries times from 1970 to 2106.
            return reply.error(Errno::EINVAL);
        };
        let permissions = mode.map(|mode| u16::try_from(mode & 0o7777).unwrap_or(0));
        let change = Change {
            permissions,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        let (fs, fh) = (self.fs(), handle.map(fh));
        self.answer_to(request, async move {
            reply_attr(
                fs.resolve(ino(number)),
                fs.setattr(fs.resolve(ino(number)), change, fh).await,
                reply,
            );
        });
    }

    fn access(&self, request: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (fs, caller) = (self.fs(), caller(request));
        let mask = u16::try_from(mask.bits() & 0o7).unwrap_or(0);
        self.answer(async move {
            reply_empty(
                fs.access(fs.resolve(ino(number)), mask, caller).await,
                reply,
            )
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let fs = self.fs();
        self.answer(async move { reply_data(fs.readlink(fs.resolve(ino(number))).await, reply) });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG && mode & libc::S_IFMT != 0 {
            // mknod(2): the file system does not support the type of node.
            return reply.error(Errno::EPERM);
        }
        let (fs, name, caller) = (self.fs(), owned(name), caller(request));
        self.answer(async move {
            reply_entry(fs.mknod(ino(parent), &name, mode, caller).await, reply);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (fs, name, caller) = (self.fs(), owned(name), caller(request));
        self.answer(async move {
            reply_entry(fs.mkdir(ino(parent), &name, mode, caller).await, reply);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs(), owned(name));
        self.answer_to(request, async move {
            reply_empty(fs.unlink(ino(parent), &name).await, reply)
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs(), owned(name));
        self.answer(async move { reply_empty(fs.rmdir(ino(parent), &name).await, reply) });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (fs, name, caller) = (self.fs(), owned(link_name), caller(request));
        let target = owned(target.as_os_str());
        self.answer(async move {
            reply_entry(fs.symlink(ino(parent), &name, &target, caller).await, reply);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (fs, name, newname) = (self.fs(), owned(name), owned(newname));
        self.answer_to(request, async move {
            let (from, to) = ((ino(parent), &*name), (ino(newparent), &*newname));
            reply_empty(fs.rename(from, to, keep).await, reply);
        });
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (fs, name) = (self.fs(), owned(newname));
        self.answer(async move {
            reply_entry(
                fs.link(fs.resolve(ino(number)), ino(newparent), &name)
                    .await,
                reply,
            );
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = access(flags.0);
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let (fs, face) = (self.fs(), Self::new(self.fs(), self.runtime.clone()));
        self.answer_to(request, async move {
            match fs.open(fs.resolve(ino(number)), access, truncate).await {
                Ok(opened) => {
                    reply.opened(FileHandle(opened.fh.0), face.open_flags(opened, access));
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let access = access(flags);
        let how = Creation {
            exclusive: flags & libc::O_EXCL != 0,
            truncate: flags & libc::O_TRUNC != 0,
        };
        let (fs, name, caller) = (self.fs(), owned(name), caller(request));
        let face = Self::new(self.fs(), self.runtime.clone());
        self.answer_to(request, async move {
            match fs
                .create(ino(parent), &name, mode, access, how, caller)
                .await
            {
                Ok((entry, opened)) => reply.created(
                    &entry.ttl.min(entry.known.ttl),
                    &file_attr(entry.ino, &entry.known),
                    GENERATION,
                    FileHandle(opened.fh.0),
                    face.open_flags(opened, access),
                ),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs();
        self.answer(async move { reply_data(fs.read(fh(handle), offset, size).await, reply) });
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Pages written back go to their place, whichever open file the kernel names.
        let is_page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let positioned = is_page || flags.0 & libc::O_APPEND == 0;
        let (fs, data) = (self.fs(), Bytes::copy_from_slice(data));
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.answer_to(request, async move {
            match fs.write(fh(handle), offset, data, positioned).await {
                Ok(()) => reply.written(len),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn flush(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.answer(async move { reply_empty(fs.flush(fh(handle)).await, reply) });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.answer(async move {
            fs.release(fh(handle));
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let fs = self.fs();
        self.answer(async move { reply_empty(fs.fsync(fh(handle)).await, reply) });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = self.fs();
        self.answer(async move {
            match fs.opendir(fs.resolve(ino(number))).await {
                Ok(fh) => reply.opened(FileHandle(fh.0), FopenFlags::empty()),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let fs = self.fs();
        self.answer(async move {
            let take = |entry: &DirEntry<'_>| {
                let name = OsStr::from_bytes(entry.name);
                reply.add(
                    INodeNo(entry.ino.0),
                    entry.next,
                    file_type(entry.kind),
                    name,
                )
            };
            match fs.readdir(fh(handle), offset, false, take).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let fs = self.fs();
        self.answer(async move {
            let take = |entry: &DirEntry<'_>| {
                let name = OsStr::from_bytes(entry.name);
                // The kernel takes no attributes from `.` and `..`, only their number and type.
                let nothing = FileAttr {
                    kind: file_type(entry.kind),
                    ..NOTHING
                };
                let attr = entry
                    .known
                    .map_or(nothing, |known| file_attr(entry.ino, &known));
                let ttl = entry.known.map_or(Duration::ZERO, |known| known.ttl);
                let attr = FileAttr {
                    ino: INodeNo(entry.ino.0),
                    ..attr
                };
                reply.add(
                    INodeNo(entry.ino.0),
                    entry.next,
                    name,
                    &ttl,
                    &attr,
                    GENERATION,
                )
            };
            match fs.readdir(fh(handle), offset, true, take).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.answer(async move {
            fs.releasedir(fh(handle)).await;
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs();
        self.answer(async move {
            match fs.statfs(fs.resolve(ino(number))).await {
                Ok(Some(space)) => reply.statfs(
                    space.blocks,
                    space.bfree,
                    space.bavail,
                    space.files,
                    space.ffree,
                    u32::try_from(space.bsize).unwrap_or(BLOCK),
                    u32::try_from(space.namemax).unwrap_or(u32::MAX),
                    u32::try_from(space.frsize).unwrap_or(BLOCK),
                ),
                // A server that cannot tell: large enough that no program refuses to write.
                Ok(None) => reply.statfs(UNKNOWN, UNKNOWN, UNKNOWN, 0, 0, BLOCK, 255, BLOCK),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    // Answered with ENOSYS once, the kernel asks for extended attributes no more; any other answer
    // costs a request before every write(2), for security.capability.

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = self.fs();
        let (from, to) = ((fh(handle_in), offset_in), (fh(handle_out), offset_out));
        self.answer_to(request, async move {
            match fs.copy_range(from, to, len).await {
                // No more than was asked for, which FUSE has in 32 bits.
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(COPIED_MAX)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn ioctl(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let (fs, data, caller) = (self.fs(), in_data.to_vec(), caller(request));
        self.answer_to(request, async move {
            let file = (fs.resolve(ino(number)), fh(handle));
            match ioctl::answer(&fs, file, command, &data, caller).await {
                Ok((value, mut told)) => {
                    told.truncate(out_size as usize);
                    reply.ioctl(value, &told);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let fs = self.fs();
        let Some(end) = offset.checked_add(length) else {
            return reply.error(Errno::EFBIG);
        };
        self.answer(async move {
            reply_empty(
                fs.grow(fs.resolve(ino(number)), fh(handle), end).await,
                reply,
            );
        });
    }
}

/// The kernel's own limit for one request (fs.fuse.max_pages_limit); said so that a raised one does
/// not surprise.
const MAX_WRITE: u32 = 1 << 20;
/// What a 32-bit answer holds in whole pages, and so all that the kernel asks for at once.
const COPIED_MAX: u32 = 0xffff_f000;
/// Requests that the kernel keeps under way for its read-ahead, its write-back, and reads through the
/// page cache: 64 programs that read one page each, and room for others.
const MAX_BACKGROUND: u16 = 128;
