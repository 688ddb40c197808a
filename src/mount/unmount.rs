//! `sftpfs umount DIR`: unmounts, and waits until the process behind the mount has written
//! everything and ended.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{Uid, geteuid};

use super::fusermount;
use super::mountinfo::{self, Mounted};
use super::presence::{self, Witness};
use crate::error::{Error, Result};

/// As the options of umount(8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnmountHow {
    /// Detach now, clean up when it is no longer in use; nothing is waited for.
    pub lazy: bool,
    /// Give up what waits for the server and what is unwritten, and detach.
    pub force: bool,
}

/// Unmounts what is mounted at a directory.
///
/// # Errors
/// Nothing of ours is mounted there, it is in use, or we may not.
pub(crate) fn unmount(directory: &Path, how: UnmountHow) -> Result<()> {
    let shown = directory.display();
    // realpath(3) reads links and no attributes: it passes over a dead mount.
    let path = std::fs::canonicalize(directory)
        .map_err(|error| Error::setup(format!("{shown}: {error}")))?;
    let mounted = mountinfo::at(&path)
        .map_err(|error| Error::setup(format!("/proc/self/mountinfo: {error}")))?;
    let Some(mounted) = mounted else {
        return Err(Error::setup(format!("{shown}: nothing is mounted there")));
    };
    if !mounted.is_ours() {
        return Err(Error::setup(format!(
            "{shown}: not ours but {} of type {}; use umount {shown}",
            mounted.source, mounted.kind
        )));
    }
    let mounted_by = mounted.user_id().map_or_else(geteuid, Uid::from_raw);
    let witness = Witness::find(&mounted.device, mounted_by);
    if how.force {
        presence::hurry(&mounted.device, mounted_by);
        abort(&mounted.device);
    }
    detach(&path, &mounted, how)?;
    // After a lazy one the process ends when the last file is closed, which may be never.
    if how.lazy {
        return Ok(());
    }
    let Some(witness) = witness else {
        eprintln!(
            "sftpfs: umount: {shown}: unmounted; whether everything is written cannot be told, \
             since the process behind it could not announce itself"
        );
        return Ok(());
    };
    witness
        .wait()
        .map_err(|why| Error::setup(format!("{shown}: unmounted, but {why}")))
}

/// Has the kernel answer all that waits, and take no more: whoever has mounted may, and root.
fn abort(device: &str) {
    let number = device.split(':').next_back().unwrap_or_default();
    let file = format!("/sys/fs/fuse/connections/{number}/abort");
    if let Err(error) = std::fs::write(&file, "1") {
        // Not mounted in some containers. What follows does it too, if root does it.
        log::debug!("{file}: {error}");
    }
}

fn detach(path: &Path, mounted: &Mounted, how: UnmountHow) -> Result<()> {
    match detach_as_who_we_are(path, mounted, how) {
        // The process behind it, which takes an abort for the end, may have been quicker.
        Err(_) if how.force && !is_there(path, mounted) => Ok(()),
        detached => detached,
    }
}

fn is_there(path: &Path, mounted: &Mounted) -> bool {
    let there = mountinfo::at(path).ok().flatten();
    there.is_some_and(|there| there.device == mounted.device)
}

fn detach_as_who_we_are(path: &Path, mounted: &Mounted, how: UnmountHow) -> Result<()> {
    let shown = path.display();
    // Nobody can use any more what was given up.
    let lazily = how.lazy || how.force;
    if !geteuid().is_root() {
        let unmounted = fusermount::unmount(path, lazily);
        return unmounted.map_err(|why| match users_of(path, std::process::id()).as_slice() {
            [] => why,
            users => Error::setup(format!("{why}\n{}", in_use(path, users))),
        });
    }
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, lazily);
    flags.set(MntFlags::MNT_FORCE, how.force);
    match umount2(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(Error::setup(in_use(
            path,
            &users_of(path, std::process::id()),
        ))),
        Err(errno) => Err(Error::setup(format!(
            "{shown} ({}): {}",
            mounted.source,
            errno.desc()
        ))),
    }
}

fn in_use(path: &Path, users: &[String]) -> String {
    let by = if users.is_empty() {
        String::new()
    } else {
        format!(" by {}", users.join(", "))
    };
    format!(
        "{}: in use{by}; end that first, or detach it now with -l",
        path.display()
    )
}

/// Which processes have something open in a mount, e.g. `bash (1234)`. Links in /proc are read and
/// not followed, so that a dead mount does not hold us up. Left out is `except`: ourselves, to whom
/// a file in it may have been handed, are in nobody's way.
fn users_of(mountpoint: &Path, except: u32) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut users = Vec::new();
    for process in processes.flatten() {
        let folder = process.path();
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid == except {
            continue;
        }
        if links_of(&folder).any(|target| target.starts_with(mountpoint)) {
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", name.trim_end()));
        }
        if users.len() == USERS_MAX {
            break;
        }
    }
    users
}

/// More names do not help.
const USERS_MAX: usize = 8;

fn links_of(process: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let fixed = ["cwd", "root", "exe"].map(|name| process.join(name));
    let open = std::fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let links = fixed.into_iter().chain(open.map(|entry| entry.path()));
    links.filter_map(|link| std::fs::read_link(link).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_of_ours_is_unmounted() {
        let plain = tempfile::tempdir().unwrap();
        let error = unmount(plain.path(), UnmountHow::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("nothing is mounted there"), "{error}");
        let error = unmount(Path::new("/proc"), UnmountHow::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("of type proc; use umount /proc"), "{error}");
        let error = unmount(Path::new("/none"), UnmountHow::default())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("/none: "), "{error}");
    }

    #[test]
    fn who_has_a_file_open_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(folder.path()).unwrap();
        let _open = std::fs::File::create(path.join("file")).unwrap();
        let me = format!("({})", std::process::id());
        assert!(users_of(&path, 0).iter().any(|user| user.ends_with(&me)));
    }
}
