//! One connection's conversation with the [`Tree`]: what OpenSSH's sftp-server answers.
//!
//! `honesty.rs` holds it against the real one. Where the comments name a line of behaviour, it is
//! that of sftp-server.c in OpenSSH 9.2.

use bytes::Bytes;
use nix::errno::Errno;

use super::answer::{Answer, Refusal, change, fold, seekable, status};
use super::longname::longname;
use super::paths::path;
use super::server::Options;
use super::tree::{Ino, Tree};
use crate::sftp::{Attrs, NameEntry, OpenFlags, Request, Response, StatusCode};

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

    /// Requests that name a handle; all others are [`path`]'s.
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
