//! Is this a place where something can be mounted? Asked before anything else is tried.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::mountinfo;
use crate::error::{Error, Result};

/// Where to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An absolute path without symbolic links.
    Directory(PathBuf),
    /// `/dev/fd/N`: mount.fuse3 has opened /dev/fuse and mounted already (`-o drop_privileges`).
    OpenDevice(RawFd),
}

impl Place {
    pub(super) fn is_open_device(&self) -> bool {
        matches!(self, Self::OpenDevice(_))
    }
}

/// Checks a mountpoint as typed. A mount that is there already, perhaps a dead one, is recognised
/// from mountinfo and not touched.
pub(super) fn check(mountpoint: &Path, nonempty: bool) -> Result<Place> {
    if let Some(fd) = open_device(mountpoint) {
        check_device(fd)?;
        return Ok(Place::OpenDevice(fd));
    }
    let shown = mountpoint.display();
    // realpath(3) reads links and no attributes, so that it passes over a dead mount.
    let path = fs::canonicalize(mountpoint).map_err(|error| missing(mountpoint, &error))?;
    let mounted = mountinfo::at(&path)
        .map_err(|error| Error::setup(format!("/proc/self/mountinfo: {error}; is /proc there?")))?;
    if let Some(ours) = mounted.filter(mountinfo::Mounted::is_ours) {
        return Err(Error::setup(format!(
            "mountpoint {shown}: {} is mounted there already, perhaps by a process that has died; \
             unmount it first: sftpfs umount {shown}",
            ours.source
        )));
    }
    let about = fs::metadata(&path).map_err(|error| missing(mountpoint, &error))?;
    if !about.is_dir() {
        return Err(Error::setup(format!("mountpoint {shown}: not a directory")));
    }
    if !nonempty && !is_empty(&path)? {
        return Err(Error::setup(format!(
            "mountpoint {shown}: not empty; what is in it would be hidden. \
             Take an empty directory, or -o nonempty"
        )));
    }
    Ok(Place::Directory(path))
}

fn is_empty(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // A directory that one may enter but not list can still be mounted on.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(Error::setup(format!(
            "mountpoint {}: {error}",
            path.display()
        ))),
    }
}

fn missing(mountpoint: &Path, error: &io::Error) -> Error {
    let shown = mountpoint.display();
    let why = match error.kind() {
        io::ErrorKind::NotFound => format!("does not exist; make it first: mkdir -p {shown}"),
        io::ErrorKind::NotConnected => {
            format!(
                "another program's mount there is dead; unmount it first: fusermount3 -u {shown}"
            )
        }
        _ => error.to_string(),
    };
    Error::setup(format!("mountpoint {shown}: {why}"))
}

fn open_device(mountpoint: &Path) -> Option<RawFd> {
    mountpoint.to_str()?.strip_prefix("/dev/fd/")?.parse().ok()
}

/// Checked before anything else is opened, or the number could be one of ours.
fn check_device(fd: RawFd) -> Result<()> {
    let leads_to = fs::read_link(format!("/proc/self/fd/{fd}"));
    if fd > 2 && leads_to.is_ok_and(|path| path == Path::new("/dev/fuse")) {
        return Ok(());
    }
    Err(Error::setup(format!(
        "mountpoint /dev/fd/{fd}: not an open /dev/fuse; only mount.fuse3 passes such a name"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(mountpoint: &Path, nonempty: bool) -> String {
        check(mountpoint, nonempty).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_is_taken_and_its_links_resolved() {
        let scratch = tempfile::tempdir().unwrap();
        let (real, link) = (scratch.path().join("real"), scratch.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let expected = Place::Directory(fs::canonicalize(&real).unwrap());
        assert_eq!(check(&link, false), Ok(expected));
    }

    #[test]
    fn a_descriptor_that_is_no_fuse_device_is_refused() {
        for fd in ["-1", "0", "3", "999"] {
            let said = refusal(Path::new(&format!("/dev/fd/{fd}")), false);
            assert!(said.contains("not an open /dev/fuse"), "{said}");
        }
    }

    #[test]
    fn each_wrong_place_says_what_is_wrong() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(refusal(&scratch.path().join("none"), false).contains("does not exist"));
        assert!(refusal(&file, false).contains("not a directory"));
        assert!(refusal(scratch.path(), false).contains("-o nonempty"));
        assert!(check(scratch.path(), true).is_ok());
    }

    #[test]
    fn a_device_that_mount_fuse3_opened_is_recognised() {
        // Where it may not be opened, mount.fuse3 cannot hand it over either.
        let Ok(device) = fs::File::open("/dev/fuse") else {
            return;
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
        assert_eq!(
            check(Path::new(&format!("/dev/fd/{fd}")), false),
            Ok(Place::OpenDevice(fd))
        );
    }
}
