//! The system calls that neither std nor nix has in the form that is needed here.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// One of our ioctl(2)s (`ioctl.rs`): the buffer goes there and comes back. Gives the return value.
///
/// EINVAL for a buffer that is smaller than the number says; ENOTTY where nobody knows the number.
pub(super) fn ioctl(fd: BorrowedFd<'_>, number: u32, buffer: &mut [u8]) -> Result<usize, Errno> {
    // asm-generic/ioctl.h: 14 bits from the 16th are the size.
    let size = usize::try_from(number >> 16 & 0x3FFF).map_err(|_| Errno::EINVAL)?;
    if buffer.len() < size {
        return Err(Errno::EINVAL);
    }
    #[expect(
        unsafe_code,
        reason = "nix has ioctls by macros only; the kernel touches no more bytes than the number \
                  says, and these are ours"
    )]
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), number.into(), buffer.as_mut_ptr()) };
    let answer = Errno::result(answer)?;
    usize::try_from(answer).map_err(|_| Errno::EINVAL)
}

/// copy_file_range(2) at the files' own positions. Gives how much was copied; 0 at the end.
pub(super) fn copy_file_range(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize, Errno> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let null = std::ptr::null_mut();
    #[expect(
        unsafe_code,
        reason = "nix has it behind a feature that is not used otherwise; the offsets are null"
    )]
    let copied = unsafe { libc::copy_file_range(from, null, to, null, len, 0) };
    let copied = Errno::result(copied)?;
    usize::try_from(copied).map_err(|_| Errno::EIO)
}

/// How many characters fit on a line of the terminal behind standard error.
pub(super) fn columns() -> usize {
    const USUAL: usize = 80;
    let stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return USUAL;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    #[expect(unsafe_code, reason = "TIOCGWINSZ fills a winsize, ioctl_tty(2)")]
    let answer = unsafe { libc::ioctl(stderr.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    match (answer, size.ws_col) {
        (0, 1..) => usize::from(size.ws_col),
        _ => USUAL,
    }
}

/// Lets this process have as many descriptors as it may. Where that fails, those it has must do.
pub(super) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Seconds since 1970 as this process's time zone writes them: `2026-11-23 14:02:11`.
pub(super) fn local_time(seconds: u64) -> String {
    let Ok(time) = libc::time_t::try_from(seconds) else {
        return seconds.to_string();
    };
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    #[expect(
        unsafe_code,
        reason = "localtime_r(3) fills a tm of ours, or says that it did not"
    )]
    let parts = unsafe {
        if libc::localtime_r(&raw const time, parts.as_mut_ptr()).is_null() {
            return seconds.to_string();
        }
        parts.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(parts.tm_year) + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioctl::{INFO, INFO_SIZE};

    #[test]
    fn a_moment_is_written_with_date_and_time() {
        // Whatever the time zone is, the day is this one or the one before or after.
        let written = local_time(1_763_856_000);
        assert!(
            written.starts_with("2025-11-2") && written.len() == 19,
            "{written}"
        );
    }

    #[test]
    fn a_number_that_a_filesystem_does_not_know_is_enotty() {
        let dir = std::fs::File::open("/").unwrap();
        let mut buffer = vec![0; INFO_SIZE as usize];
        assert_eq!(ioctl(dir.as_fd(), INFO, &mut buffer), Err(Errno::ENOTTY));
        assert_eq!(
            ioctl(dir.as_fd(), INFO, &mut buffer[1..]),
            Err(Errno::EINVAL)
        );
    }
}
