//! The system calls that neither std nor nix offers, each as a function that cannot be misused.
#![expect(
    unsafe_code,
    reason = "system calls; each block says why its arguments are what the kernel expects"
)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null;

use libc::{c_int, c_long, c_ulong, sock_filter};
use nix::Result;
use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use crate::ioctl::{CLONE, CLONE_SIZE};

/// An ioctl(2) that one supervisor answers, and that the kernel refuses (EBADF): so a program finds
/// out that it runs below one.
pub(super) const PROBE: u64 = 0x5346_5450;

/// fork(2).
pub(super) fn fork() -> Result<ForkResult> {
    // SAFETY: no process here has a second thread when it forks (`mod.rs`).
    unsafe { nix::unistd::fork() }
}

/// Whether a supervisor of ours answers this process already.
pub(super) fn is_answered_already() -> bool {
    // SAFETY: the number -1 is no file, and the argument is no pointer.
    let result = unsafe { libc::ioctl(-1, libc::FICLONE, PROBE) };
    Errno::result(result) == Err(Errno::EALREADY)
}

/// seccomp(2): puts the filter on this process and all that it will start.
///
/// EACCES: only with `PR_SET_NO_NEW_PRIVS`. EBUSY: there is a listener already. EINVAL, ENOSYS: the
/// kernel cannot.
pub(super) fn listen(filter: &[sock_filter]) -> Result<OwnedFd> {
    // Otherwise kernels before 5.16 slow the program down, against attacks that need untrusted code.
    let least = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Signals that do not kill the program wait for the answer, as they wait for FICLONE itself.
    // Since Linux 5.19; before, the program may ask a second time.
    let full = least | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match set_filter(full, filter) {
        Err(Errno::EINVAL) => set_filter(least, filter),
        other => other,
    }
}

fn set_filter(flags: c_ulong, filter: &[sock_filter]) -> Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` describes `filter`, which the kernel copies; both live until it returns.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    own(fd)
}

/// Whether the kernel's notifications fit into our buffer: it may know longer ones one day.
pub(super) fn notifications_fit() -> bool {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    let operation = libc::SECCOMP_GET_NOTIF_SIZES;
    // SAFETY: the kernel writes one `seccomp_notif_sizes`.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, &raw mut sizes) };
    result == 0
        && usize::from(sizes.seccomp_notif) <= size_of::<Buffer>()
        && usize::from(sizes.seccomp_notif_resp) <= size_of::<AnswerBuffer>()
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notification {
    pub(super) id: u64,
    /// The thread that waits, as seen here; 0 if it is not seen.
    pub(super) thread: Pid,
    pub(super) args: [u64; 6],
}

#[repr(C)]
struct Buffer {
    notification: libc::seccomp_notif,
    spare: [u64; 64],
}

#[repr(C)]
struct AnswerBuffer {
    answer: libc::seccomp_notif_resp,
    spare: [u64; 64],
}

/// SECCOMP_IOCTL_NOTIF_RECV. ENOENT: who asked has gone.
pub(super) fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    // SAFETY: all of it is integers. The kernel insists on zeros.
    let mut buffer: Buffer = unsafe { std::mem::zeroed() };
    let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
    // SAFETY: `notifications_fit` has been asked.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut buffer) };
    Errno::result(result)?;
    Ok(Notification {
        id: buffer.notification.id,
        thread: Pid::from_raw(buffer.notification.pid.cast_signed()),
        args: buffer.notification.data.args,
    })
}

/// SECCOMP_IOCTL_NOTIF_ID_VALID: whether the system call still waits.
pub(super) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
    // SAFETY: the kernel reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw const id) == 0 }
}

/// What a system call that waits returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the kernel says, as if nobody had been asked.
    Kernel,
    /// Success, or this error.
    Ours(Result<()>),
}

/// SECCOMP_IOCTL_NOTIF_SEND. ENOENT: who asked has gone.
pub(super) fn send(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<()> {
    let (error, flags) = match answer {
        Answer::Kernel => (0, 1), // SECCOMP_USER_NOTIF_FLAG_CONTINUE
        Answer::Ours(Ok(())) => (0, 0),
        Answer::Ours(Err(errno)) => (-(errno as c_int), 0),
    };
    let mut buffer = AnswerBuffer {
        answer: libc::seccomp_notif_resp {
            id,
            val: 0,
            error,
            flags,
        },
        spare: [0; 64],
    };
    let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
    // SAFETY: `notifications_fit` has been asked.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut buffer) };
    Errno::result(result).map(drop)
}

/// What a pidfd stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A process.
    Process,
    /// Any thread. Since Linux 6.9; EINVAL before.
    Thread,
}

/// pidfd_open(2).
pub(super) fn pidfd_open(pid: Pid, of: Of) -> Result<OwnedFd> {
    let flags = match of {
        Of::Process => 0,
        Of::Thread => libc::O_EXCL, // PIDFD_THREAD
    };
    // SAFETY: two integers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) })
}

/// pidfd_getfd(2): the same open file. EPERM: we may not look at that process.
pub(super) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: three integers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// pidfd_send_signal(2), as kill(2) sends it.
pub(super) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    let info = null::<libc::siginfo_t>();
    // SAFETY: without a siginfo_t the kernel makes one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// kcmp(2): whether two threads have one table of open files.
pub(super) fn share_files(one: Pid, other: Pid) -> bool {
    const KCMP_FILES: c_int = 2;
    let (one, other) = (one.as_raw(), other.as_raw());
    // SAFETY: integers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) == 0 }
}

/// What an open file is. Nobody but this kernel is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Major and minor number.
    pub(super) device: (u32, u32),
    pub(super) ino: u64,
    pub(super) is_regular: bool,
}

/// statx(2), from what the kernel remembers: a mount must not ask its server for it.
pub(super) fn stat(file: BorrowedFd<'_>) -> Result<Stat> {
    // SAFETY: all of it is integers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let mask = libc::STATX_TYPE | libc::STATX_INO;
    // SAFETY: an empty path, and a place for the one `statx` that the kernel writes.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut found) };
    Errno::result(result)?;
    Ok(Stat {
        device: (found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        is_regular: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
    })
}

/// What is to be cloned, as [`CLONE`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clone {
    pub(super) source: u64,
    pub(super) source_offset: u64,
    /// 0 is to the source's end.
    pub(super) length: u64,
    pub(super) offset: u64,
}

/// [`CLONE`] on a file of a mount of ours. ENOTTY: the mount does not know it.
pub(super) fn clone(file: BorrowedFd<'_>, what: Clone) -> Result<()> {
    let layout = [what.source, what.source_offset, what.length, what.offset];
    const { assert!(size_of::<[u64; 4]>() == CLONE_SIZE as usize) }
    // SAFETY: the kernel reads as many bytes as `CLONE` says, and no driver is trusted with more.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), CLONE as libc::Ioctl, layout.as_ptr()) };
    Errno::result(result).map(drop)
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With this exit code.
    Exited(c_int),
    /// By this signal, which may be a real-time signal.
    Killed(c_int),
}

/// waitpid(2): waits for any child's end. ECHILD: there is no child.
pub(super) fn wait_any() -> Result<(Pid, End)> {
    let (pid, end) = wait_for_any(0)?;
    // 0 is for those who do not wait.
    if pid == Pid::from_raw(0) {
        return Err(Errno::EINTR);
    }
    Ok((pid, end))
}

/// Whether there is a child, not counting those that have ended.
pub(super) fn has_children() -> bool {
    loop {
        match wait_for_any(libc::WNOHANG) {
            Ok((pid, _)) if pid == Pid::from_raw(0) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn wait_for_any(flags: c_int) -> Result<(Pid, End)> {
    let mut status = 0;
    let flags = flags | libc::__WALL;
    // SAFETY: the kernel writes one int.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, flags) })?;
    let end = if libc::WIFSIGNALED(status) {
        End::Killed(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    };
    Ok((Pid::from_raw(pid), end))
}

/// Gives a signal its default effect.
pub(super) fn reset_signal(signal: c_int) {
    // SAFETY: no handler. An error means that there is no such signal: nothing to reset.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ends this process by a signal, or returns if that signal does not end processes.
pub(super) fn die_of(signal: c_int) {
    reset_signal(signal);
    // SAFETY: the set is initialised by sigemptyset(3) before it is used; raise(3) is always safe.
    unsafe {
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::raise(signal);
    }
}

fn own(fd: c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_open_file_is_found_by_its_number_in_a_process() {
        let file = tempfile::tempfile().unwrap();
        let this = pidfd_open(Pid::this(), Of::Process).unwrap();
        let again = pidfd_getfd(this.as_fd(), file.as_raw_fd()).unwrap();
        assert_eq!(stat(again.as_fd()), stat(file.as_fd()));
        assert!(stat(file.as_fd()).unwrap().is_regular);
        assert!(!stat(this.as_fd()).unwrap().is_regular);
    }

    #[test]
    fn a_file_that_is_on_no_mount_of_ours_knows_no_clone() {
        let file = tempfile::tempfile().unwrap();
        let what = Clone {
            source: 1,
            source_offset: 0,
            length: 0,
            offset: 0,
        };
        assert_eq!(clone(file.as_fd(), what), Err(Errno::ENOTTY));
    }

    #[test]
    fn nobody_answers_these_tests() {
        assert!(!is_answered_already());
    }
}
