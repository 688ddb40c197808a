//! The kernel's terms and ours, there and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, Request, TimeOrNow,
};

use crate::clock;
use crate::error::Error;
use crate::fs::{Access, Attr, Caller, Config, Fh, Ino, Known, Opened};
use crate::sftp::FileKind;

/// Errors that come here have their number already, but for a connection's end.
pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno(crate::error::Operation::Stat) as i32)
}

pub(super) fn file_attr(ino: Ino, known: &Known) -> FileAttr {
    let Attr {
        kind,
        permissions,
        uid,
        gid,
        size,
        atime,
        mtime,
        ctime,
    } = known.attr;
    let time = |seconds: clock::Seconds| UNIX_EPOCH + Duration::from_secs(seconds.into());
    FileAttr {
        ino: INodeNo(ino.0),
        size,
        // Rounded up: cp(1) and tar(1) take fewer blocks than the size needs for a hole.
        blocks: size.div_ceil(512),
        atime: time(atime),
        mtime: time(mtime),
        ctime: time(ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: permissions,
        nlink: known.links,
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) const fn access(flags: i32) -> Access {
    let mode = flags & libc::O_ACCMODE;
    Access {
        read: mode != libc::O_WRONLY,
        write: mode != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        // O_SYNC contains O_DSYNC.
        sync: flags & libc::O_DSYNC != 0,
    }
}

pub(super) fn open_flags(config: &Config, opened: Opened, access: Access) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if config.direct_io {
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

/// Whole seconds; an error for what SFTP cannot carry.
pub(super) fn seconds(time: Option<TimeOrNow>) -> Result<Option<clock::Seconds>, ()> {
    match time {
        None => Ok(None),
        Some(TimeOrNow::Now) => Ok(Some(clock::wall())),
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).map_err(|_| ())?;
            clock::Seconds::try_from(since.as_secs())
                .map(Some)
                .map_err(|_| ())
        }
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

pub(super) fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

pub(super) const fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) const fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

/// Numbers are never given to two files of one mount.
pub(super) const GENERATION: Generation = Generation(0);
/// An entry with number 0 tells the kernel that a name leads nowhere, and for how long.
pub(super) const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
/// st_blksize: the size that programs read and write by.
pub(super) const BLOCK: u32 = 4096;
/// 1 PiB of blocks.
pub(super) const UNKNOWN: u64 = 1 << 38;
