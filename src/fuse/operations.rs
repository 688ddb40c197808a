//! `impl fuser::Filesystem`: convert, call, reply; no decisions. Long, since a trait is implemented in
//! one piece.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{access, caller, fh, ino, open_flags, owned, seconds};
use super::replies::{self, Found, Slot};
use super::waiting::Then;
use super::{Face, ioctl, listing};
use crate::error::Error;
use crate::fs::{Change, Creation, Entry, Fh, Filesystem, Ino};

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

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs(), owned(name));
        self.look(request, reply, replies::found, async move {
            match fs.lookup(ino(parent), &name).await {
                Ok(entry) => Ok(Found::There(entry)),
                Err(Error::Errno(nix::errno::Errno::ENOENT)) => {
                    Ok(Found::Nowhere(fs.negative_ttl(ino(parent), &name)))
                }
                Err(error) => Err(error),
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.fs.forget(ino(number), count);
    }

    fn getattr(&self, request: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.fs();
        self.look(request, reply, replies::attr, async move {
            let ino = fs.resolve(ino(number));
            Ok((ino, fs.getattr(ino).await?))
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
        self.change(request, reply, replies::attr, async move {
            let ino = fs.resolve(ino(number));
            Ok((ino, fs.setattr(ino, change, fh).await?))
        });
    }

    fn access(&self, request: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (fs, caller) = (self.fs(), caller(request));
        let mask = u16::try_from(mask.bits() & 0o7).unwrap_or(0);
        self.look(request, reply, replies::done, async move {
            fs.access(fs.resolve(ino(number)), mask, caller).await
        });
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        let fs = self.fs();
        self.look(request, reply, replies::data, async move {
            fs.readlink(fs.resolve(ino(number))).await
        });
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
        self.give(request, reply, replies::entry, forget, async move {
            fs.mknod(ino(parent), &name, mode, caller).await
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
        self.give(request, reply, replies::entry, forget, async move {
            fs.mkdir(ino(parent), &name, mode, caller).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs(), owned(name));
        self.change(request, reply, replies::done, async move {
            fs.unlink(ino(parent), &name).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs(), owned(name));
        self.change(request, reply, replies::done, async move {
            fs.rmdir(ino(parent), &name).await
        });
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
        self.give(request, reply, replies::entry, forget, async move {
            fs.symlink(ino(parent), &name, &target, caller).await
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
        self.change(request, reply, replies::done, async move {
            let (from, to) = ((ino(parent), &*name), (ino(newparent), &*newname));
            fs.rename(from, to, keep).await
        });
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (fs, name) = (self.fs(), owned(newname));
        self.give(request, reply, replies::entry, forget, async move {
            let ino = fs.resolve(ino(number));
            fs.link(ino, self::ino(newparent), &name).await
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = access(flags.0);
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let fs = self.fs();
        let operation = async move {
            let opened = fs.open(fs.resolve(ino(number)), access, truncate).await?;
            Ok((opened.fh, open_flags(fs.config(), opened, access)))
        };
        match truncate {
            true => self.give(request, reply, replies::opened, release, operation),
            false => self.look(request, reply, replies::opened, operation),
        }
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
        let operation = async move {
            let parent = ino(parent);
            let created = fs.create(parent, &name, mode, access, how, caller);
            let (entry, opened) = created.await?;
            let flags = open_flags(fs.config(), opened, access);
            Ok((entry, opened.fh, flags))
        };
        let undo = forget_and_release;
        self.give(request, reply, replies::created, undo, operation);
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs();
        let operation = async move { fs.read(fh(handle), offset, size).await };
        let (thread, then) = (request.pid(), Then::Read);
        self.waiting
            .run(thread, reply, then, operation, replies::data);
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
        let taken = Arc::new(AtomicBool::new(false));
        let then = match is_page {
            true => Then::Page,
            false => Then::Write(Arc::clone(&taken)),
        };
        let operation = async move {
            fs.take_over(fh(handle), offset, data, positioned).await?;
            taken.store(true, Ordering::Relaxed);
            fs.write_through(fh(handle)).await
        };
        // Who writes pages back is no program.
        let thread = if is_page { 0 } else { request.pid() };
        let tell = move |reply: ReplyWrite, ()| reply.written(len);
        self.waiting.run(thread, reply, then, operation, tell);
    }

    fn flush(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.look(request, reply, replies::done, async move {
            fs.flush(fh(handle)).await
        });
    }

    fn release(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.look(request, reply, replies::done, async move {
            fs.release(fh(handle));
            Ok(())
        });
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let fs = self.fs();
        self.look(request, reply, replies::done, async move {
            fs.fsync(fh(handle)).await
        });
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = self.fs();
        self.give(
            request,
            reply,
            replies::opened,
            release_directory,
            async move {
                let fh = fs.opendir(fs.resolve(ino(number))).await?;
                Ok((fh, FopenFlags::empty()))
            },
        );
    }

    fn readdir(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let (fs, slot) = (self.fs(), Slot::new(reply));
        let filled = slot.again();
        let tell = |slot: Slot<ReplyDirectory>, ()| {
            slot.take().into_iter().for_each(ReplyDirectory::ok);
        };
        self.look(request, slot, tell, async move {
            listing::names(&fs, fh(handle), offset, filled).await
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (fs, slot) = (self.fs(), Slot::new(reply));
        let filled = slot.again();
        let tell = |slot: Slot<ReplyDirectoryPlus>, _| {
            slot.take().into_iter().for_each(ReplyDirectoryPlus::ok);
        };
        self.give(request, slot, tell, forget_all, async move {
            listing::entries(&fs, fh(handle), offset, filled).await
        });
    }

    fn releasedir(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.look(request, reply, replies::done, async move {
            fs.releasedir(fh(handle));
            Ok(())
        });
    }

    fn statfs(&self, request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs();
        self.look(request, reply, replies::space, async move {
            fs.statfs(fs.resolve(ino(number))).await
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
        // No more than was asked for, which FUSE has in 32 bits.
        let tell = |reply: ReplyWrite, copied: u64| {
            reply.written(u32::try_from(copied).unwrap_or(COPIED_MAX));
        };
        self.change(request, reply, tell, async move {
            fs.copy_range(from, to, len).await
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
        let tell = move |reply: ReplyIoctl, (value, mut told): (i32, Vec<u8>)| {
            told.truncate(out_size as usize);
            reply.ioctl(value, &told);
        };
        self.change(request, reply, tell, async move {
            let file = (fs.resolve(ino(number)), fh(handle));
            ioctl::answer(&fs, file, command, &data, caller).await
        });
    }

    fn fallocate(
        &self,
        request: &Request,
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
        self.change(request, reply, replies::done, async move {
            let ino = fs.resolve(ino(number));
            fs.grow(ino, fh(handle), end).await
        });
    }
}

fn forget(fs: &Arc<Filesystem>, entry: Entry) {
    fs.forget(entry.ino, 1);
}

fn release(fs: &Arc<Filesystem>, (fh, _): (Fh, FopenFlags)) {
    fs.release(fh);
}

fn forget_and_release(fs: &Arc<Filesystem>, (entry, fh, _): (Entry, Fh, FopenFlags)) {
    fs.release(fh);
    fs.forget(entry.ino, 1);
}

fn release_directory(fs: &Arc<Filesystem>, (fh, _): (Fh, FopenFlags)) {
    fs.releasedir(fh);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "results of operations are handed on"
)]
fn forget_all(fs: &Arc<Filesystem>, told: Vec<Ino>) {
    told.iter().for_each(|ino| fs.forget(*ino, 1));
}

/// The kernel's own limit for one request (fs.fuse.max_pages_limit); said so that a raised one does
/// not surprise.
const MAX_WRITE: u32 = 1 << 20;
/// What a 32-bit answer holds in whole pages, and so all that the kernel asks for at once.
const COPIED_MAX: u32 = 0xffff_f000;
/// Requests that the kernel keeps under way for its read-ahead, its write-back, and reads through the
/// page cache: 64 programs that read one page each, and room for others.
const MAX_BACKGROUND: u16 = 128;
