//! Opens /dev/fuse and says what to do if that fails.

use std::fs::{File, OpenOptions};
use std::io;

use crate::error::{Error, Result};

const PATH: &str = "/dev/fuse";

/// Opens the device for a new mount.
pub(super) fn open() -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(PATH);
    opened.map_err(|error| Error::setup(advice(&error)))
}

/// Whether this process may open it: then each of fuser's threads can have its own.
pub(super) fn is_openable() -> bool {
    open().is_ok()
}

fn advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => format!(
            "{PATH} is missing: load the kernel module ('modprobe fuse' as root), \
             or let the container have it (--device {PATH})"
        ),
        Some(libc::ENODEV | libc::ENXIO) => {
            format!("{PATH}: the kernel module is not loaded; as root: modprobe fuse")
        }
        Some(libc::EACCES | libc::EPERM) => format!(
            "{PATH}: permission denied; root can allow it with 'chmod 666 {PATH}', which most \
             systems do (in a container: --device {PATH} --cap-add SYS_ADMIN)"
        ),
        _ => format!("{PATH}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_to_do() {
        for (errno, message) in [
            (libc::ENOENT, "modprobe fuse"),
            (libc::ENODEV, "not loaded"),
            (libc::EACCES, "chmod 666"),
            (libc::EMFILE, "Too many open files"),
        ] {
            let text = advice(&io::Error::from_raw_os_error(errno));
            assert!(text.contains(message), "{text}");
        }
    }
}
