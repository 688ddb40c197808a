//! The kernel's side of the mount: mount(2), umount2(2), and how far it reads ahead.
//!
//! **Invariant:** only a mount that is still ours is taken away: what someone else has mounted at
//! the same place meanwhile stays.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{geteuid, getgid, getuid};

use super::place::Place;
use super::{Options, device, fusermount, mountinfo};
use crate::error::{Error, Result};

/// The largest READ that the kernel sends, in bytes: 256 pages, its own limit
/// (/proc/sys/fs/fuse/max_pages_limit), said so that a raised one is no surprise.
const READ_SIZE_MAX: usize = 1 << 20;

/// What the kernel reads ahead of a sequential reader, in KiB: larger requests mean fewer of them.
/// The kernel's own 128 KiB come from INIT, where a daemon can only lower them.
const READ_AHEAD_KIB: usize = 4096;

/// A mount, seen from outside.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// `None` if someone else has mounted (`/dev/fd/N`): then it is theirs to unmount.
    at: Option<(PathBuf, String)>,
}

/// Mounts, and returns the /dev/fuse through which the kernel asks.
pub(super) fn attach(options: &Options, place: &Place) -> Result<(OwnedFd, Mount)> {
    let path = match place {
        Place::OpenDevice(descriptor) => return Ok((inherit(*descriptor)?, Mount { at: None })),
        Place::Directory(path) => path,
    };
    let device = if geteuid().is_root() {
        mount_as_root(options, path)?
    } else {
        mount_as_user(options, path)?
    };
    let number = mountinfo::at(path)
        .ok()
        .flatten()
        .filter(mountinfo::Mounted::is_ours);
    let Some(number) = number.map(|mounted| mounted.device) else {
        return Err(Error::setup(format!(
            "{}: mounted, but not to be seen",
            path.display()
        )));
    };
    Ok((
        device,
        Mount {
            at: Some((path.clone(), number)),
        },
    ))
}

impl Mount {
    /// Takes the mount away, also if it is in use: then the kernel ends the session when the last
    /// open file is closed. A mount that is gone already is no error.
    pub(super) fn detach(&self) -> Result<()> {
        let Some((path, number)) = &self.at else {
            return Ok(());
        };
        let there = mountinfo::at(path).ok().flatten();
        if there.is_none_or(|mounted| mounted.device != *number) {
            return Ok(());
        }
        if geteuid().is_root() {
            umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(|errno| Error::setup(format!("umount {}: {errno}", path.display())))
        } else {
            fusermount::unmount(path, true)
        }
    }

    /// The number that names the mount in mountinfo, if we know where it is.
    pub(super) fn device(&self) -> Option<&str> {
        self.at.as_ref().map(|(_, number)| number.as_str())
    }

    /// Lets the kernel read further ahead; only root may, and it is only about speed.
    pub(super) fn raise_read_ahead(&self) {
        let Some(number) = self.device() else {
            return;
        };
        let file = format!("/sys/class/bdi/{number}/read_ahead_kb");
        if let Err(error) = std::fs::write(&file, READ_AHEAD_KIB.to_string()) {
            log::debug!("{file}: {error}; the kernel reads ahead less");
        }
    }
}

fn mount_as_root(options: &Options, path: &Path) -> Result<OwnedFd> {
    let device = OwnedFd::from(device::open()?);
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    for word in &options.mount_flags {
        flags |= flag(word)?;
    }
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},{}",
        device.as_raw_fd(),
        getuid(),
        getgid(),
        common_options(options),
    );
    let source = options.source.as_str();
    let mounted = mount(
        Some(source),
        path,
        Some(mountinfo::TYPE),
        flags,
        Some(data.as_str()),
    );
    mounted.map_err(|errno| {
        let advice = match errno {
            Errno::EPERM => "; a container needs --cap-add SYS_ADMIN for it",
            Errno::ENODEV => "; the kernel module is not loaded: modprobe fuse",
            _ => "",
        };
        Error::setup(format!(
            "mount on {}: {}{advice}",
            path.display(),
            errno.desc()
        ))
    })?;
    Ok(device)
}

fn mount_as_user(options: &Options, path: &Path) -> Result<OwnedFd> {
    let source = fusermount::escape(&options.source);
    let mut words = format!(
        "fsname={},subtype=sftpfs,nosuid,nodev",
        source.to_string_lossy()
    );
    if options.read_only {
        words.push_str(",ro");
    }
    for word in &options.mount_flags {
        words.push(',');
        words.push_str(word);
    }
    words.push(',');
    words.push_str(&common_options(options));
    fusermount::mount(path, &words)
}

/// What the kernel's FUSE and fusermount3 both understand.
fn common_options(options: &Options) -> String {
    let mut words = format!("max_read={READ_SIZE_MAX}");
    if options.allow_other {
        words.push_str(",allow_other");
    }
    if options.default_permissions {
        words.push_str(",default_permissions");
    }
    words
}

fn flag(word: &str) -> Result<MsFlags> {
    match word {
        "noexec" => Ok(MsFlags::MS_NOEXEC),
        "noatime" => Ok(MsFlags::MS_NOATIME),
        "nodiratime" => Ok(MsFlags::MS_NODIRATIME),
        "dirsync" => Ok(MsFlags::MS_DIRSYNC),
        "nosymfollow" => Ok(MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW)),
        _ => Err(Error::setup(format!("mount flag '{word}' is not known"))),
    }
}

/// Takes over a descriptor that mount.fuse3 has opened for us.
fn inherit(descriptor: RawFd) -> Result<OwnedFd> {
    let device = own(descriptor);
    let kept = fcntl(&device, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    match kept {
        Ok(_) => Ok(device),
        Err(errno) => {
            // Not ours to close: it is not open.
            std::mem::forget(device);
            Err(Error::setup(format!(
                "mountpoint /dev/fd/{descriptor}: {}",
                errno.desc()
            )))
        }
    }
}

#[expect(
    unsafe_code,
    reason = "mount.fuse3 hands the descriptor over as a number"
)]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the number was given to us as our mountpoint, and nothing else here uses it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_what_was_asked_for() {
        let mut options = Options::default();
        assert_eq!(common_options(&options), "max_read=1048576");
        (options.allow_other, options.default_permissions) = (true, true);
        assert_eq!(
            common_options(&options),
            "max_read=1048576,allow_other,default_permissions"
        );
    }

    #[test]
    fn a_mount_that_is_gone_needs_no_unmounting() {
        let gone = Mount {
            at: Some(("/".into(), "0:99999".into())),
        };
        assert_eq!(gone.detach(), Ok(()));
    }
}
