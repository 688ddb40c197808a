//! The forms that answers take, and how OpenSSH folds error numbers into statuses.

use bytes::Bytes;
use nix::errno::Errno;

use super::tree::{Ino, Tree};
use crate::sftp::{Attrs, NameEntry, Response, StatusCode};

/// An answer that is a status other than OK.
pub(super) struct Refusal(pub(super) StatusCode);

pub(super) type Answer = Result<Response, Refusal>;

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self(fold(errno))
    }
}

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Self {
        Self(code)
    }
}

/// `errno_to_portable`: ten numbers have a status, all others are FAILURE.
pub(super) fn fold(errno: Errno) -> StatusCode {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::EBADF | Errno::ELOOP => StatusCode::NO_SUCH_FILE,
        Errno::EPERM | Errno::EACCES | Errno::EFAULT => StatusCode::PERMISSION_DENIED,
        Errno::ENAMETOOLONG | Errno::EINVAL => StatusCode::BAD_MESSAGE,
        Errno::ENOSYS => StatusCode::OP_UNSUPPORTED,
        _ => StatusCode::FAILURE,
    }
}

/// A status with OpenSSH's text for it.
pub(crate) fn status(code: StatusCode) -> Response {
    let message = match code {
        StatusCode::OK => "Success",
        StatusCode::EOF => "End of file",
        StatusCode::NO_SUCH_FILE => "No such file",
        StatusCode::PERMISSION_DENIED => "Permission denied",
        StatusCode::FAILURE => "Failure",
        StatusCode::BAD_MESSAGE => "Bad message",
        StatusCode::OP_UNSUPPORTED => "Operation unsupported",
        _ => "Unknown error",
    };
    let message = Bytes::from_static(message.as_bytes());
    Response::Status {
        code,
        message,
        language: Bytes::new(),
    }
}

pub(super) fn done<T>(_: T) -> Response {
    status(StatusCode::OK)
}

/// One name, as REALPATH and READLINK answer.
pub(super) fn name(name: Bytes) -> Response {
    let longname = name.clone();
    Response::Names(vec![NameEntry {
        name,
        longname,
        attrs: Attrs::default(),
    }])
}

/// lseek(2) takes no offset above 2^63.
pub(super) fn seekable(offset: u64) -> Result<(), Errno> {
    i64::try_from(offset).map(|_| ()).map_err(|_| Errno::EINVAL)
}

/// SETSTAT: each part that is asked for, going on after an error and reporting the last one. What
/// is to be changed is looked up for each part, so that nothing to do is no error anywhere.
pub(super) fn change(
    tree: &mut Tree,
    find: impl Fn(&Tree) -> Result<Ino, Errno>,
    attrs: &Attrs,
    resize: impl FnOnce(&mut Tree, u64) -> Result<(), Errno>,
) -> StatusCode {
    let size = attrs
        .size
        .map(|size| seekable(size).and_then(|()| resize(tree, size)));
    let mode = attrs.permissions.map(|mode| tree.chmod(find(tree)?, mode));
    let times = attrs.times.map(|times| tree.set_times(find(tree)?, times));
    let owner = attrs.owner.map(|owner| tree.chown(find(tree)?, owner));
    let mut refusals = [size, mode, times, owner]
        .into_iter()
        .flatten()
        .filter_map(Result::err);
    refusals.next_back().map_or(StatusCode::OK, fold)
}
