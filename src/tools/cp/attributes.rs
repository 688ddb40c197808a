//! Owner, times and mode of what was copied, by what cp(1) does with them.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, futimens, utimensat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::job::failed;
use super::node::{Finish, Node};
use super::plan::Look;

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// Gives an open file the attributes of its source. `path` is for messages.
pub(super) fn preserve(
    fd: BorrowedFd<'_>,
    source: &Look,
    path: impl Fn() -> Vec<u8>,
) -> Result<(), String> {
    let now = fstat(fd).map_err(|why| failed("cannot stat", &path(), why))?;
    let now = Look::from(&now);
    let is_owner_kept = (now.uid, now.gid) == (source.uid, source.gid)
        || give(source, |uid, gid| fchown(fd, uid, gid));
    // Whoever cannot give a file away must not make it run as somebody else.
    let mode = match is_owner_kept {
        true => source.mode,
        false => source.mode & !SET_ID,
    };
    let times = futimens(fd, &source.atime, &source.mtime);
    times.map_err(|why| failed("preserving times for", &path(), why))?;
    // chown(2) takes the set-id bits away.
    if mode == now.mode && mode & SET_ID == 0 {
        return Ok(());
    }
    let set = fchmod(fd, Mode::from_bits_truncate(mode));
    set.map_err(|why| failed("preserving permissions for", &path(), why))
}

/// Owner and group, or the group alone; whether both are as they were. Only root can give files
/// away, and on a server only its root: as with cp(1) it is no error.
fn give(source: &Look, chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>) -> bool {
    let (uid, gid) = (Uid::from_raw(source.uid), Gid::from_raw(source.gid));
    if chown(Some(uid), Some(gid)).is_ok() {
        return true;
    }
    let _ = chown(None, Some(gid));
    false
}

/// Gives a symbolic link the owner and times of its source.
pub(super) fn preserve_link(
    dir: impl AsFd,
    name: &[u8],
    source: &Look,
    path: impl Fn() -> Vec<u8>,
) -> Result<(), String> {
    let dir = dir.as_fd();
    give(source, |uid, gid| {
        fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
    });
    let flag = UtimensatFlags::NoFollowSymlink;
    match utimensat(dir, name, &source.atime, &source.mtime, flag) {
        // A server that can change only what a link leads to: nobody can have it.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(why) => Err(failed("preserving times for", &path(), why)),
    }
}

/// The last thing done to a directory.
pub(super) fn finish(node: &Arc<Node>) -> Result<(), String> {
    let open = || {
        let fds = node.fds();
        fds.map_err(|why| failed("cannot open", &node.new_path(), why))
    };
    match node.finish {
        Finish::Nothing => Ok(()),
        Finish::Mode(mode) => {
            let set = fchmod(open()?.to(), Mode::from_bits_truncate(mode));
            set.map_err(|why| failed("setting permissions for", &node.new_path(), why))
        }
        Finish::Preserve(source) => preserve(open()?.to(), &source, || node.new_path()),
    }
}
