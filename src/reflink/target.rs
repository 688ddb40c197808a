//! A thread whose system call waits: its open files and its memory. Whatever is read of it counts
//! only if its call still waits afterwards, for a number may have passed to another thread.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::kernel::{self, Of};

/// The thread.
pub(super) struct Target {
    thread: Pid,
    pidfd: OwnedFd,
}

impl Target {
    /// EPERM and the like: it is not seen, or its files are not surely found.
    pub(super) fn open(thread: Pid) -> Result<Self> {
        let pidfd = match kernel::pidfd_open(thread, Of::Thread) {
            // Before Linux 6.9 a pidfd stands for a process.
            Err(Errno::EINVAL) => of_process(thread)?,
            other => other?,
        };
        Ok(Self { thread, pidfd })
    }

    /// The open file that has this number there.
    pub(super) fn file(&self, number: RawFd) -> Result<OwnedFd> {
        kernel::pidfd_getfd(self.pidfd.as_fd(), number)
    }

    /// Four integers of its memory.
    pub(super) fn words(&self, at: u64) -> Result<[u64; 4]> {
        let mut bytes = [0; 32];
        let base = usize::try_from(at).map_err(|_| Errno::EFAULT)?;
        let len = bytes.len();
        let read = process_vm_readv(
            self.thread,
            &mut [IoSliceMut::new(&mut bytes)],
            &[RemoteIoVec { base, len }],
        )?;
        if read != len {
            return Err(Errno::EFAULT);
        }
        let (words, _) = bytes.as_chunks();
        let mut words = words.iter().copied().map(u64::from_ne_bytes);
        Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
    }
}

/// The process of a thread, if the thread has the same open files.
fn of_process(thread: Pid) -> Result<OwnedFd> {
    match kernel::pidfd_open(thread, Of::Process) {
        // It is not the first of its process.
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        other => return other,
    }
    let process = process_of(thread).ok_or(Errno::ESRCH)?;
    if !kernel::share_files(thread, process) {
        return Err(Errno::ENOTSUP);
    }
    kernel::pidfd_open(process, Of::Process)
}

/// proc_pid_status(5).
fn process_of(thread: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn memory_is_read_as_it_is_and_not_past_its_end() {
        let words = [1, u64::MAX, 0, 1 << 40];
        let this = Target::open(nix::unistd::gettid()).unwrap();
        assert_eq!(this.words(words.as_ptr().addr() as u64), Ok(words));
        assert_eq!(this.words(8), Err(Errno::EFAULT));
    }

    #[test]
    fn files_are_found_by_any_thread_of_a_process() {
        let file = tempfile::tempfile().unwrap();
        let of = |pidfd: OwnedFd| {
            let found = kernel::pidfd_getfd(pidfd.as_fd(), file.as_raw_fd()).unwrap();
            kernel::stat(found.as_fd()).unwrap()
        };
        let here = kernel::stat(file.as_fd()).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let thread = nix::unistd::gettid();
                assert_ne!(thread, Pid::this());
                assert_eq!(process_of(thread), Some(Pid::this()));
                assert!(kernel::share_files(thread, Pid::this()));
                assert_eq!(of(of_process(thread).unwrap()), here);
                of(Target::open(thread).unwrap().pidfd)
            });
            assert_eq!(other.join().unwrap(), here);
        });
    }

    #[test]
    fn a_file_that_is_not_open_is_not_found() {
        let this = Target::open(Pid::this()).unwrap();
        assert_eq!(this.file(-1).unwrap_err(), Errno::EBADF);
    }
}
