//! System calls that the standard library and nix have no safe face for.
//!
//! **Invariant:** beside `link/sys.rs`, the only file of this crate with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "each block is one system call with arguments checked here"
)]

use std::ffi::CStr;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Makes this process the parent of every orphan below it, so that a daemon is still ours to wait
/// for (prctl(2), PR_SET_CHILD_SUBREAPER).
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: takes no pointers.
    zero_or_errno(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// Becomes another user, in this thread only (setresuid(2), NOTES: the kernel's credentials are
/// per thread). The thread must end afterwards: there is no way back.
pub fn become_user_in_this_thread(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no groups are read from the null pointer, as their count is 0; the others take
    // numbers only.
    unsafe {
        zero_or_errno_long(libc::syscall(
            libc::SYS_setgroups,
            0,
            std::ptr::null::<libc::gid_t>(),
        ))?;
        zero_or_errno_long(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        zero_or_errno_long(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// From now on these signals are bytes on the stream, which must stay open for ever. Blocking them
/// instead would be inherited by every program that the tests start.
pub fn signals_become_bytes(signals: &[Signal], to: UnixStream) -> io::Result<()> {
    SIGNAL_STREAM.store(to.into_raw_fd(), Ordering::SeqCst);
    let action = SigAction::new(
        SigHandler::Handler(write_signal),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in signals {
        // SAFETY: the handler calls only write(2), which is async-signal-safe.
        unsafe { sigaction(*signal, &action)? };
    }
    Ok(())
}

extern "C" fn write_signal(signal: i32) {
    let byte = signal.to_ne_bytes();
    // SAFETY: writes from a live array to a stream that is never closed.
    unsafe {
        libc::write(
            SIGNAL_STREAM.load(Ordering::SeqCst),
            byte.as_ptr().cast(),
            1,
        )
    };
}

static SIGNAL_STREAM: AtomicI32 = AtomicI32::new(-1);

/// Makes the command run in a process group of its own, so that it can be ended with all its
/// children.
pub fn in_own_group(command: &mut Command) {
    command.process_group(0);
}

/// rename(2) with flags, on Linux (renameat2(2)).
pub fn rename_with(from: &Path, to: &Path, flags: u32) -> Result<(), Errno> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both strings end in NUL and outlive the call.
    let done = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            flags,
        )
    };
    Errno::result(done).map(drop)
}

/// fallocate(2).
pub fn fallocate(file: &impl AsRawFd, mode: i32, offset: i64, len: i64) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    Errno::result(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }).map(drop)
}

/// copy_file_range(2), both places given.
pub fn copy_file_range(
    from: &impl AsRawFd,
    mut place: i64,
    to: &impl AsRawFd,
    mut to_place: i64,
    len: usize,
) -> Result<usize, Errno> {
    // SAFETY: both pointers are to numbers that outlive the call.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut place,
            to.as_raw_fd(),
            &raw mut to_place,
            len,
            0,
        )
    };
    Errno::result(copied).map(|copied| usize::try_from(copied).expect("not negative"))
}

/// lseek(2), for SEEK_DATA and SEEK_HOLE.
pub fn seek(file: &impl AsRawFd, offset: i64, whence: i32) -> Result<i64, Errno> {
    // SAFETY: takes no pointers.
    Errno::result(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

/// A directory stream of readdir(3), for the calls that the standard library leaves out.
pub struct DirStream(*mut libc::DIR);

impl DirStream {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let path = c_path(path);
        // SAFETY: the string ends in NUL and outlives the call.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        if stream.is_null() {
            Err(Errno::last())
        } else {
            Ok(Self(stream))
        }
    }

    /// The next name and its inode number, or None at the end.
    pub fn next_entry(&mut self) -> Result<Option<(Vec<u8>, u64)>, Errno> {
        Errno::clear();
        // SAFETY: the stream is open until drop; the entry is copied before the next call.
        unsafe {
            let entry = libc::readdir(self.0);
            if entry.is_null() {
                return if Errno::last_raw() == 0 {
                    Ok(None)
                } else {
                    Err(Errno::last())
                };
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr());
            Ok(Some((name.to_bytes().to_vec(), (*entry).d_ino)))
        }
    }

    /// telldir(3).
    pub fn tell(&mut self) -> i64 {
        // SAFETY: the stream is open until drop.
        unsafe { libc::telldir(self.0) }
    }

    /// seekdir(3), to a place that `tell` gave.
    pub fn seek(&mut self, place: i64) {
        // SAFETY: the stream is open until drop.
        unsafe { libc::seekdir(self.0, place) }
    }

    /// rewinddir(3).
    pub fn rewind(&mut self) {
        // SAFETY: the stream is open until drop.
        unsafe { libc::rewinddir(self.0) }
    }
}

impl Drop for DirStream {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once.
        unsafe { libc::closedir(self.0) };
    }
}

/// A shared, writable mapping of the beginning of a file (mmap(2), MAP_SHARED).
pub struct SharedMap {
    start: *mut u8,
    len: usize,
}

impl SharedMap {
    /// Maps the first `len` bytes.
    pub fn new(file: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses the place; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Stores bytes through the mapping.
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "outside the mapping");
        // SAFETY: inside the mapping, as just checked, which lives until drop.
        unsafe {
            self.start
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Loads bytes through the mapping.
    pub fn load(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len, "outside the mapping");
        // SAFETY: inside the mapping, as just checked; nobody else writes while this copies.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len).to_vec() }
    }

    /// msync(2) with MS_SYNC.
    pub fn sync(&self) -> Result<(), Errno> {
        // SAFETY: the range is the mapping itself.
        Errno::result(unsafe { libc::msync(self.start.cast(), self.len, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

fn zero_or_errno(result: i32) -> io::Result<()> {
    zero_or_errno_long(i64::from(result))
}

fn zero_or_errno_long(result: i64) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
