//! Requests that name paths and no handles, as OpenSSH's sftp-server answers them.

use bytes::Bytes;
use nix::errno::Errno;

use super::answer::{Answer, change, done, fold, name, status};
use super::server::Options;
use super::tree::Tree;
use crate::sftp::{Attrs, FileKind, Limits, Request, Response, StatusCode, UserGroupNames};

/// Answers any request that names no handle.
pub(super) fn path(tree: &mut Tree, options: &Options, request: Request) -> Answer {
    Ok(match request {
        Request::Stat { path } => Response::Attrs(tree.attrs(tree.find(&path, true)?)),
        Request::Lstat { path } => Response::Attrs(tree.attrs(tree.find(&path, false)?)),
        Request::Setstat { path, attrs } => {
            let find = |tree: &Tree| tree.find(&path, true);
            status(change(tree, find, &attrs, |tree, size| {
                tree.truncate(&path, size)
            }))
        }
        Request::Remove { path } => done(tree.unlink(&path)?),
        Request::Mkdir { path, attrs } => {
            done(tree.mkdir(&path, attrs.permissions.unwrap_or(0o777))?)
        }
        Request::Rmdir { path } => done(tree.rmdir(&path)?),
        Request::Realpath { path } => name(tree.realpath(or_here(&path))?),
        Request::Rename { from, to } => rename(tree, &from, &to)?,
        Request::Readlink { path } => name(tree.readlink(&path)?),
        Request::Symlink { first, second } if options.symlink_has_link_first => {
            done(tree.symlink(&second, &first)?)
        }
        Request::Symlink { first, second } => done(tree.symlink(&first, &second)?),
        request => extension(tree, options, request)?,
    })
}

/// Extensions that name no handle.
fn extension(tree: &mut Tree, options: &Options, request: Request) -> Answer {
    Ok(match request {
        Request::Init { .. } => Response::Version {
            version: 3,
            extensions: options.extensions.clone(),
        },
        Request::PosixRename { from, to } => done(tree.rename(&from, &to)?),
        Request::Statvfs { path } => {
            Response::Extended(tree.statvfs(tree.find(&path, true)?).encode())
        }
        Request::Hardlink { from, to } => done(tree.link(&from, &to)?),
        Request::Lsetstat { path, attrs } => lsetstat(tree, &path, &attrs)?,
        Request::Limits => Response::Extended(limits(options).encode()),
        Request::ExpandPath { path } => expand(tree, options, &path)?,
        Request::HomeDirectory { user } => name(options.home_of(&user).ok_or(StatusCode::FAILURE)?),
        Request::UsersGroupsById { uids, gids } => {
            let named = |ids: Vec<u32>| ids.into_iter().map(|id| options.name_of(id)).collect();
            let names = UserGroupNames {
                users: named(uids),
                groups: named(gids),
            };
            Response::Extended(names.encode())
        }
        _ => return Err(StatusCode::OP_UNSUPPORTED.into()),
    })
}

/// A regular file is linked and unlinked, so that nothing is replaced; anything else is renamed
/// when there is nothing at the new path.
fn rename(tree: &mut Tree, from: &[u8], to: &[u8]) -> Answer {
    let ino = tree.find(from, false)?;
    if tree.attrs(ino).kind() == Some(FileKind::Regular) {
        match tree.link(from, to) {
            Ok(()) => tree.unlink(from)?,
            // Filesystems without links, and rename(2) will say EXDEV again.
            Err(Errno::EXDEV | Errno::EPERM) if tree.find(to, true).is_err() => {
                tree.rename(from, to)?;
            }
            Err(errno) => return Err(errno.into()),
        }
        return Ok(status(StatusCode::OK));
    }
    if tree.find(to, true).is_ok() {
        return Err(StatusCode::FAILURE.into());
    }
    Ok(done(tree.rename(from, to)?))
}

fn lsetstat(tree: &mut Tree, path: &[u8], attrs: &Attrs) -> Answer {
    if attrs.size.is_some() {
        return Err(StatusCode::BAD_MESSAGE.into());
    }
    let is_link = |tree: &Tree, ino| tree.attrs(ino).kind() == Some(FileKind::Symlink);
    let find = |tree: &Tree| tree.find(path, false);
    // Linux has no permissions on a link; fchmodat(2) says so.
    let refused = attrs.permissions.is_some() && find(tree).is_ok_and(|ino| is_link(tree, ino));
    let kept = attrs.permissions.filter(|_| !refused);
    let rest = change(
        tree,
        find,
        &Attrs {
            permissions: kept,
            ..attrs.clone()
        },
        |_, _| Ok(()),
    );
    Ok(status(if refused && rest == StatusCode::OK {
        fold(Errno::EOPNOTSUPP)
    } else {
        rest
    }))
}

fn limits(options: &Options) -> Limits {
    Limits {
        packet_max: options.packet_max as u64,
        read_max: options.read_max as u64,
        write_max: options.read_max as u64,
        handles_max: options.handles_max as u64,
    }
}

/// `~` is the directory where the server was started, `~user` a home directory.
fn expand(tree: &Tree, options: &Options, path: &[u8]) -> Answer {
    let Some(rest) = path.strip_prefix(b"~") else {
        return Ok(name(tree.realpath(or_here(path))?));
    };
    let end = rest
        .iter()
        .position(|byte| *byte == b'/')
        .unwrap_or(rest.len());
    let (user, below) = rest.split_at(end);
    let home = match user {
        b"" => Some(tree.realpath(b".")?),
        user => options.home_of(user),
    };
    let Some(home) = home else {
        let (code, message) = (
            StatusCode::NO_SUCH_FILE,
            Bytes::from_static(b"no such user"),
        );
        return Ok(Response::Status {
            code,
            message,
            language: Bytes::new(),
        });
    };
    Ok(name(tree.realpath(&[&home[..], below].concat())?))
}

fn or_here(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}
