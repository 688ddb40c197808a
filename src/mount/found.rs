//! The mounts of sftpfs, as who asks about them finds them: by any path inside, and without touching
//! what is mounted, which may hang.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, geteuid};

use super::mountinfo::{self, Mounted};
use super::presence::{folders_of, own_folders};
use crate::control::Place;
use crate::error::{Error, Result};

/// One mount.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// What was mounted, as typed.
    pub(crate) source: String,
    pub(crate) mountpoint: PathBuf,
    /// Where it is asked how it is.
    pub(crate) control: Place,
}

/// All mounts of this user; for root, everybody's.
///
/// # Errors
/// /proc is not there.
pub(crate) fn all() -> Result<Vec<Found>> {
    let user = geteuid();
    let found = table()?.into_iter().filter(Mounted::is_ours).map(found);
    Ok(found
        .filter(|found| user.is_root() || found.control.owner == user)
        .collect())
}

/// The mount that a path is in.
///
/// # Errors
/// It is in none of ours.
pub(crate) fn holding(path: &Path) -> Result<Found> {
    let shown = path.display();
    let refused = |error: io::Error| Error::setup(format!("{shown}: {error}"));
    let from = std::env::current_dir().map_err(refused)?;
    let table = table()?;
    let is_ours = |path: &Path| top(&table, path).is_some_and(Mounted::is_ours);
    let inside = resolve(&from.join(path), is_ours, |link| std::fs::read_link(link));
    let inside = inside.map_err(refused)?;
    match inside.ancestors().find_map(|path| top(&table, path)) {
        Some(mounted) if mounted.is_ours() => Ok(found(mounted.clone())),
        _ => Err(Error::setup(format!("{shown}: not in a mount of sftpfs"))),
    }
}

/// Where the process behind a mount of this user may be asked how it is.
pub(super) fn control_of(device: &str) -> Place {
    Place {
        sockets: sockets(own_folders(), device),
        owner: geteuid(),
    }
}

fn found(mounted: Mounted) -> Found {
    let owner = mounted.user_id().map_or_else(geteuid, Uid::from_raw);
    Found {
        source: mounted.source,
        mountpoint: mounted.mountpoint,
        control: Place {
            sockets: sockets(folders_of(owner), &mounted.device),
            owner,
        },
    }
}

fn sockets(folders: Vec<PathBuf>, device: &str) -> Vec<PathBuf> {
    let name = format!("{device}.control");
    folders
        .into_iter()
        .map(|folder| folder.join(&name))
        .collect()
}

fn table() -> Result<Vec<Mounted>> {
    mountinfo::all().map_err(|error| Error::setup(format!("/proc/self/mountinfo: {error}")))
}

/// What is visible at a mountpoint.
fn top<'a>(table: &'a [Mounted], mountpoint: &Path) -> Option<&'a Mounted> {
    table
        .iter()
        .rev()
        .find(|mounted| mounted.mountpoint == mountpoint)
}

/// An absolute path without links, `.` and `..`, as far as it leads outside what `is_ours`; nothing in
/// there is looked at. What does not exist stays as it is typed.
fn resolve(
    path: &Path,
    is_ours: impl Fn(&Path) -> bool,
    read_link: impl Fn(&Path) -> io::Result<PathBuf>,
) -> io::Result<PathBuf> {
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&part);
        if is_ours(&next) {
            // Whether a link in there leads out, only the server knows.
            return Ok(next);
        }
        let Ok(target) = read_link(&next) else {
            resolved = next;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(resolved)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// As the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a path leads, with a mount at /mnt/a and links; what is asked inside it fails the test.
    fn resolved(path: &str) -> io::Result<PathBuf> {
        let is_ours = |path: &Path| path == Path::new("/mnt/a");
        let read_link = |link: &Path| {
            assert!(!link.starts_with("/mnt/a"), "{} is touched", link.display());
            let target = match link.to_str().unwrap() {
                "/home/link" => "../mnt/a/deep",
                "/home/up" => "/mnt",
                "/loop" => "loop",
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            Ok(PathBuf::from(target))
        };
        resolve(Path::new(path), is_ours, read_link)
    }

    #[test]
    fn a_mount_is_found_from_any_path_inside_without_being_touched() {
        for path in [
            "/mnt/a",
            "/mnt/a/",
            "/mnt/./a/b/c",
            "/mnt/b/../a/x",
            "/home/link",
            "/home/up/a/x/../../..",
        ] {
            assert_eq!(resolved(path).unwrap(), Path::new("/mnt/a"), "{path}");
        }
    }

    #[test]
    fn what_is_outside_is_resolved_to_its_end() {
        assert_eq!(resolved("/home/up/b/../c").unwrap(), Path::new("/mnt/c"));
        assert_eq!(resolved("/../..").unwrap(), Path::new("/"));
        assert!(resolved("/loop/x").is_err());
    }

    #[test]
    fn a_path_elsewhere_is_in_no_mount_of_ours() {
        let error = holding(Path::new("/proc")).unwrap_err().to_string();
        assert_eq!(error, "/proc: not in a mount of sftpfs");
    }
}
