//! One connection's conversation with the [`Tree`]: what OpenSSH's sftp-server answers.
//!
//! `honesty.rs` holds it against the real one. Where the comments name a line of behaviour, it is
//! that of sftp-server.c in OpenSSH 9.2.

use bytes::Bytes;
use nix::errno::Errno;

use super::longname::longname;
use super::server::Options;
use super::tree::{Ino, Tree};
use crate::sftp::{
    Attrs, FileKind, Limits, NameEntry, OpenFlags, Request, Response, StatusCode, UserGroupNames,
};

/// The handles that one client has open.
pub(super) struct Session {
    handles: Vec<Option<Open>>,
    /// Closed ones, the last one first: the next to be given out.
    unused: Vec<usize>,
}

struct Open {
    ino: Ino,
    path: Bytes,
    kind: Kind,
}

enum Kind {
    File(OpenFlags),
    /// The names that READDIR has still to give, the next one last.
    Directory(Vec<Bytes>),
}

/// An answer that is a status other than OK.
struct Refusal(StatusCode);

type Answer = Result<Response, Refusal>;

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
fn fold(errno: Errno) -> StatusCode {
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

fn done<T>(_: T) -> Response {
    status(StatusCode::OK)
}

/// One name, as REALPATH and READLINK answer.
fn name(name: Bytes) -> Response {
    let longname = name.clone();
    Response::Names(vec![NameEntry {
        name,
        longname,
        attrs: Attrs::default(),
    }])
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            handles: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// Does what a request asks for. INIT is answered as any other.
    pub(super) fn answer(
        &mut self,
        tree: &mut Tree,
        options: &Options,
        request: Request,
    ) -> Response {
        let answer = match options.lacks(&request) {
            true => Err(Refusal(StatusCode::OP_UNSUPPORTED)),
            false => self.file(tree, options, request),
        };
        answer.unwrap_or_else(|Refusal(code)| status(code))
    }

    /// Lets go of all that is open.
    pub(super) fn end(&mut self, tree: &mut Tree) {
        for open in self.handles.drain(..).flatten() {
            tree.release(open.ino);
        }
    }

    /// Requests that name a handle; all others are [`path`]'s and [`extension`]'s.
    fn file(&mut self, tree: &mut Tree, options: &Options, request: Request) -> Answer {
        match request {
            Request::Open { path, flags, attrs } => self.open(tree, options, path, flags, &attrs),
            Request::Opendir { path } => self.opendir(tree, options, path),
            Request::Close { handle } => self.close(tree, &handle),
            Request::Read {
                handle,
                offset,
                len,
            } => {
                let len = usize::try_from(len).unwrap().min(options.read_max);
                self.read(tree, &handle, offset, len)
            }
            Request::Write {
                handle,
                offset,
                data,
            } => self.write(tree, &handle, offset, &data),
            Request::Readdir { handle } => self.readdir(tree, options, &handle),
            Request::Fstat { handle } => {
                let (ino, _) = self.of_file(&handle)?;
                Ok(Response::Attrs(tree.attrs(ino)))
            }
            Request::Fsetstat { handle, attrs } => {
                let (ino, flags) = self.of_file(&handle)?;
                let resize = |tree: &mut Tree, size| {
                    // ftruncate(2) of what is not open for writing.
                    if !flags.contains(OpenFlags::WRITE) {
                        return Err(Errno::EINVAL);
                    }
                    tree.resize(ino, size)
                };
                Ok(status(change(tree, |_| Ok(ino), &attrs, resize)))
            }
            Request::Fstatvfs { handle } => {
                let (ino, _) = self.of_file(&handle)?;
                Ok(Response::Extended(tree.statvfs(ino).encode()))
            }
            Request::Fsync { handle } => {
                self.of_file(&handle)
                    .map_err(|_| StatusCode::NO_SUCH_FILE)?;
                Ok(status(StatusCode::OK))
            }
            Request::CopyData {
                from,
                from_offset,
                len,
                to,
                to_offset,
            } => self.copy(tree, (&from, from_offset), (&to, to_offset), len),
            request => path(tree, options, request),
        }
    }

    fn open(
        &mut self,
        tree: &mut Tree,
        options: &Options,
        path: Bytes,
        flags: OpenFlags,
        attrs: &Attrs,
    ) -> Answer {
        let ino = tree.open(&path, flags, attrs.permissions.unwrap_or(0o666))?;
        self.keep(
            tree,
            options,
            Open {
                ino,
                path,
                kind: Kind::File(flags),
            },
        )
    }

    fn opendir(&mut self, tree: &mut Tree, options: &Options, path: Bytes) -> Answer {
        let ino = tree.find(&path, true)?;
        let mut names = tree.list(ino)?;
        names.reverse();
        self.keep(
            tree,
            options,
            Open {
                ino,
                path,
                kind: Kind::Directory(names),
            },
        )
    }

    /// A handle is a place's number; the place closed last is taken first.
    fn keep(&mut self, tree: &mut Tree, options: &Options, open: Open) -> Answer {
        let count = self.handles.len() - self.unused.len();
        if count >= options.handles_max {
            return Err(StatusCode::FAILURE.into());
        }
        tree.hold(open.ino);
        let place = self.unused.pop().unwrap_or(self.handles.len());
        if place == self.handles.len() {
            self.handles.push(None);
        }
        self.handles[place] = Some(open);
        let place = u32::try_from(place).unwrap();
        Ok(Response::Handle(Bytes::copy_from_slice(
            &place.to_be_bytes(),
        )))
    }

    fn place(&self, handle: &[u8]) -> Option<usize> {
        let place = usize::try_from(u32::from_be_bytes(handle.try_into().ok()?)).ok()?;
        self.handles.get(place)?.as_ref()?;
        Some(place)
    }

    fn close(&mut self, tree: &mut Tree, handle: &[u8]) -> Answer {
        let place = self.place(handle).ok_or(StatusCode::NO_SUCH_FILE)?;
        if let Some(open) = self.handles[place].take() {
            tree.release(open.ino);
        }
        self.unused.push(place);
        Ok(status(StatusCode::OK))
    }

    fn get(&mut self, handle: &[u8]) -> Result<&mut Open, Refusal> {
        let place = self.place(handle).ok_or(StatusCode::FAILURE)?;
        Ok(self.handles[place].as_mut().expect("place() looked"))
    }

    /// An open file. A directory's handle is not one.
    fn of_file(&mut self, handle: &[u8]) -> Result<(Ino, OpenFlags), Refusal> {
        match self.get(handle)? {
            Open {
                ino,
                kind: Kind::File(flags),
                ..
            } => Ok((*ino, *flags)),
            _ => Err(StatusCode::FAILURE.into()),
        }
    }

    fn read(&mut self, tree: &Tree, handle: &[u8], offset: u64, len: usize) -> Answer {
        let (ino, flags) = self.of_file(handle)?;
        seekable(offset)?;
        if len == 0 {
            return Ok(Response::Data(Bytes::new()));
        }
        let data = read(tree, ino, flags, offset, len)?;
        if data.is_empty() {
            return Err(StatusCode::EOF.into());
        }
        Ok(Response::Data(data))
    }

    fn write(&mut self, tree: &mut Tree, handle: &[u8], offset: u64, data: &[u8]) -> Answer {
        let (ino, flags) = self.of_file(handle)?;
        if write(tree, ino, flags, offset, data)? < data.len() {
            return Err(StatusCode::FAILURE.into());
        }
        Ok(status(StatusCode::OK))
    }

    fn readdir(&mut self, tree: &Tree, options: &Options, handle: &[u8]) -> Answer {
        let Open {
            path,
            kind: Kind::Directory(names),
            ..
        } = self.get(handle)?
        else {
            return Err(StatusCode::FAILURE.into());
        };
        let mut page = Vec::new();
        while let Some(name) = names.pop() {
            // Looked up by path, so that a directory that was renamed since gives nothing.
            let Ok(ino) = tree.find(&[&path[..], b"/", &name].concat(), false) else {
                continue;
            };
            let attrs = tree.attrs(ino);
            let longname = longname(options, &name, tree.links(ino), &attrs);
            page.push(NameEntry {
                name,
                longname,
                attrs,
            });
            if page.len() == PAGE {
                break;
            }
        }
        if page.is_empty() {
            return Err(StatusCode::EOF.into());
        }
        Ok(Response::Names(page))
    }

    /// copy-data, with what is odd about it: the answer never says how much was copied, an error
    /// in the last piece of a copy of a given length is lost, and one path given twice is refused
    /// even when it means two files by now.
    fn copy(
        &mut self,
        tree: &mut Tree,
        (from, from_offset): (&[u8], u64),
        (to, to_offset): (&[u8], u64),
        len: u64,
    ) -> Answer {
        let (source, source_flags) = self.of_file(from)?;
        let (target, target_flags) = self.of_file(to)?;
        if from == to || self.get(from)?.path.clone() == self.get(to)?.path {
            return Err(StatusCode::FAILURE.into());
        }
        seekable(from_offset)?;
        if !target_flags.contains(OpenFlags::APPEND) {
            seekable(to_offset)?;
        }
        let to_end = len == 0;
        let mut left = if to_end { u64::MAX - from_offset } else { len };
        let mut copied = 0;
        let ended = loop {
            if left == 0 {
                break StatusCode::OK;
            }
            let piece = left.min(COPY_PIECE);
            left -= piece;
            let piece_len = usize::try_from(piece).unwrap();
            let data = read(
                tree,
                source,
                source_flags,
                from_offset.saturating_add(copied),
                piece_len,
            );
            let data = match data {
                Err(errno) => break fold(errno),
                Ok(data) if data.is_empty() && to_end => break StatusCode::OK,
                Ok(data) if data.is_empty() => break StatusCode::EOF,
                Ok(data) => data,
            };
            match write(
                tree,
                target,
                target_flags,
                to_offset.saturating_add(copied),
                &data,
            ) {
                Err(errno) => break fold(errno),
                Ok(written) if written < data.len() => break StatusCode::FAILURE,
                Ok(written) => copied += written as u64,
            }
        };
        Ok(status(if left == 0 { StatusCode::OK } else { ended }))
    }
}

/// Entries of one READDIR at most.
const PAGE: usize = 100;

/// Bytes that copy-data moves at a time.
const COPY_PIECE: u64 = 64 * 1024;

/// lseek(2) takes no offset above 2^63.
fn seekable(offset: u64) -> Result<(), Errno> {
    i64::try_from(offset).map(|_| ()).map_err(|_| Errno::EINVAL)
}

fn read(tree: &Tree, ino: Ino, flags: OpenFlags, offset: u64, len: usize) -> Result<Bytes, Errno> {
    if flags.contains(OpenFlags::WRITE) && !flags.contains(OpenFlags::READ) {
        return Err(Errno::EBADF);
    }
    tree.read(ino, offset, len)
}

fn write(
    tree: &mut Tree,
    ino: Ino,
    flags: OpenFlags,
    offset: u64,
    data: &[u8],
) -> Result<usize, Errno> {
    let append = flags.contains(OpenFlags::APPEND);
    if !append {
        seekable(offset)?;
    }
    if !flags.contains(OpenFlags::WRITE) {
        return Err(Errno::EBADF);
    }
    let offset = if append { tree.end(ino) } else { offset };
    tree.write(ino, offset, data)
}

/// SETSTAT: each part that is asked for, going on after an error and reporting the last one. What
/// is to be changed is looked up for each part, so that nothing to do is no error anywhere.
fn change(
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
    let refusals = [size, mode, times, owner]
        .into_iter()
        .flatten()
        .filter_map(Result::err);
    refusals.last().map_or(StatusCode::OK, fold)
}

/// Requests that name paths.
fn path(tree: &mut Tree, options: &Options, request: Request) -> Answer {
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
