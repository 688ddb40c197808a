//! Mounts and unmounts for an ordinary user, through the setuid program fusermount3(1).

use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::{Error, Result};

/// Looked through after PATH: a daemon may have been started without one.
const USUAL_FOLDERS: &str = "/usr/local/bin:/usr/bin:/bin";

/// Mounts, and returns the /dev/fuse that belongs to the mount.
pub(super) fn mount(mountpoint: &Path, options: &str) -> Result<OwnedFd> {
    let no_socket = |error| Error::setup(format!("cannot make a socket pair: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(no_socket)?;
    // As its standard input, because Command hands that over by itself: other descriptors would
    // have to be made inheritable, and then every program started meanwhile has them too.
    let child = Command::new(find()?)
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_start)?;
    let received = receive_device(&ours);
    let output = child.wait_with_output().map_err(cannot_start)?;
    match received {
        Ok(device) => Ok(device),
        Err(errno) => Err(Error::setup(complaint(
            &output,
            &format!("no descriptor: {errno}"),
        ))),
    }
}

/// Unmounts; `lazily` also if something in it is still open.
pub(super) fn unmount(mountpoint: &Path, lazily: bool) -> Result<()> {
    let output = Command::new(find()?)
        .arg("-u")
        .args(lazily.then_some("-z"))
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(cannot_start)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::setup(complaint(&output, &output.status.to_string())))
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::setup(format!("fusermount3: {error}"))
}

/// What it said, without its own name in front, or else the fallback.
fn complaint(output: &Output, fallback: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        // "/usr/bin/fusermount3: ..." says no more than we do.
        .map(|line| {
            line.split_once("fusermount3: ")
                .map_or(line, |(_, said)| said)
                .trim()
        })
        .filter(|line| !line.is_empty())
        .collect();
    let said = if lines.is_empty() {
        fallback.to_owned()
    } else {
        lines.join("; ")
    };
    let advice = if said.contains("user_allow_other") {
        " (root adds the line 'user_allow_other' there, or leave allow_other out)"
    } else {
        ""
    };
    format!("fusermount3: {said}{advice}")
}

fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in([&path, OsStr::new(USUAL_FOLDERS)]).ok_or_else(|| {
        Error::setup(
            "fusermount3 is not installed; an ordinary user needs it to mount \
             (package fuse3), root does not",
        )
    })
}

fn find_in(paths: [&OsStr; 2]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = paths.into_iter().flat_map(std::env::split_paths).collect();
    ["fusermount3", "fusermount"].into_iter().find_map(|name| {
        // A relative folder in PATH is someone else's chance to be run by us.
        let files = folders
            .iter()
            .filter(|folder| folder.is_absolute())
            .map(|f| f.join(name));
        files.into_iter().find(|file| is_program(file))
    })
}

fn is_program(file: &Path) -> bool {
    let about = std::fs::metadata(file);
    about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// fusermount3 sends the opened /dev/fuse over the socket, as SCM_RIGHTS (unix(7)), or nothing.
fn receive_device(socket: &UnixStream) -> nix::Result<OwnedFd> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            return Ok(own(descriptor));
        }
    }
    Err(Errno::ENOMSG)
}

#[expect(unsafe_code, reason = "nix hands received descriptors over as numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Escapes a value for `-o NAME=VALUE` of fusermount3.
pub(super) fn escape(value: &str) -> OsString {
    value.replace('\\', "\\\\").replace(',', "\\,").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_add_options() {
        assert_eq!(escape(r"h:/a,allow_other\"), r"h:/a\,allow_other\\");
    }

    #[test]
    fn the_program_is_looked_for_in_path_and_in_the_usual_folders() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("fusermount3");
        std::fs::write(&file, "").unwrap();
        let here = scratch.path().as_os_str();
        assert_eq!(find_in([OsStr::new(""), here]), None, "it cannot be run");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find_in([OsStr::new(""), here]), Some(file));
        assert_eq!(find_in([OsStr::new("."), OsStr::new("")]), None);
    }
}
