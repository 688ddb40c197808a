//! Requests: what a client sends (draft section 6; OpenSSH PROTOCOL section 4 for the extensions).

use bytes::Bytes;

use super::extensions::name;
use super::packet::kind;
use super::wire::{Reader, Writer};
use super::{Attrs, Encoded, Malformed, OpenFlags, RequestId};

/// Any packet that a client sends. Paths, names and handles are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are those of the draft and of OpenSSH's PROTOCOL"
)]
pub enum Request {
    /// The first packet; carries no id. Answer: VERSION.
    Init {
        version: u32,
        extensions: Vec<(Bytes, Bytes)>,
    },
    /// open(2). Answer: HANDLE.
    Open {
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    },
    /// close(2).
    Close { handle: Bytes },
    /// pread(2). Answer: DATA, at least a byte and perhaps fewer than `len`, or EOF.
    Read {
        handle: Bytes,
        offset: u64,
        len: u32,
    },
    /// pwrite(2) of all of `data`.
    Write {
        handle: Bytes,
        offset: u64,
        data: Bytes,
    },
    /// lstat(2). Answer: ATTRS.
    Lstat { path: Bytes },
    /// fstat(2). Answer: ATTRS.
    Fstat { handle: Bytes },
    /// truncate(2), chmod(2), utimes(2), chown(2) in this order on OpenSSH, each if asked.
    Setstat { path: Bytes, attrs: Attrs },
    /// The same on an open file.
    Fsetstat { handle: Bytes, attrs: Attrs },
    /// opendir(3). Answer: HANDLE.
    Opendir { path: Bytes },
    /// Some more entries. Answer: NAME, or EOF.
    Readdir { handle: Bytes },
    /// unlink(2).
    Remove { path: Bytes },
    /// mkdir(2).
    Mkdir { path: Bytes, attrs: Attrs },
    /// rmdir(2).
    Rmdir { path: Bytes },
    /// realpath(3). Answer: NAME with one entry.
    Realpath { path: Bytes },
    /// stat(2). Answer: ATTRS.
    Stat { path: Bytes },
    /// A rename that fails if there is something at `to`.
    Rename { from: Bytes, to: Bytes },
    /// readlink(2). Answer: NAME with one entry.
    Readlink { path: Bytes },
    /// symlink(2). The draft has the new link first, OpenSSH and most others the target; which of
    /// them this server follows is the caller's to know.
    Symlink { first: Bytes, second: Bytes },
    /// rename(2).
    PosixRename { from: Bytes, to: Bytes },
    /// statvfs(3). Answer: [`Statvfs`](super::Statvfs).
    Statvfs { path: Bytes },
    /// fstatvfs(3). Answer: [`Statvfs`](super::Statvfs).
    Fstatvfs { handle: Bytes },
    /// link(2).
    Hardlink { from: Bytes, to: Bytes },
    /// fsync(2).
    Fsync { handle: Bytes },
    /// SETSTAT of the link itself. OpenSSH refuses a size here.
    Lsetstat { path: Bytes, attrs: Attrs },
    /// Answer: [`Limits`](super::Limits).
    Limits,
    /// REALPATH that knows `~`. Answer: NAME with one entry.
    ExpandPath { path: Bytes },
    /// Copies `len` bytes (0: up to the end) between two open files.
    CopyData {
        from: Bytes,
        from_offset: u64,
        len: u64,
        to: Bytes,
        to_offset: u64,
    },
    /// The home directory of `user`, or our own if that is empty. Answer: NAME with one entry.
    HomeDirectory { user: Bytes },
    /// Answer: [`UserGroupNames`](super::UserGroupNames).
    UsersGroupsById { uids: Vec<u32>, gids: Vec<u32> },
    /// Any other extension, its fields not looked into.
    Extended { name: Bytes, data: Bytes },
}

impl Request {
    /// The frame to send. The data of WRITE is handed on without a copy.
    #[must_use]
    pub fn encode(&self, id: RequestId) -> Encoded {
        let start = |kind| Writer::frame(kind).u32(id.0);
        let writer = match self {
            Self::Init {
                version,
                extensions,
            } => Writer::frame(kind::INIT).u32(*version).pairs(extensions),
            Self::Open { path, flags, attrs } => {
                attrs.write(start(kind::OPEN).string(path).u32(flags.0))
            }
            Self::Close { handle } => start(kind::CLOSE).string(handle),
            Self::Read {
                handle,
                offset,
                len,
            } => start(kind::READ).string(handle).u64(*offset).u32(*len),
            Self::Write {
                handle,
                offset,
                data,
            } => {
                return start(kind::WRITE)
                    .string(handle)
                    .u64(*offset)
                    .finish_with(data);
            }
            Self::Lstat { path } => start(kind::LSTAT).string(path),
            Self::Fstat { handle } => start(kind::FSTAT).string(handle),
            Self::Setstat { path, attrs } => attrs.write(start(kind::SETSTAT).string(path)),
            Self::Fsetstat { handle, attrs } => attrs.write(start(kind::FSETSTAT).string(handle)),
            Self::Opendir { path } => start(kind::OPENDIR).string(path),
            Self::Readdir { handle } => start(kind::READDIR).string(handle),
            Self::Remove { path } => start(kind::REMOVE).string(path),
            Self::Mkdir { path, attrs } => attrs.write(start(kind::MKDIR).string(path)),
            Self::Rmdir { path } => start(kind::RMDIR).string(path),
            Self::Realpath { path } => start(kind::REALPATH).string(path),
            Self::Stat { path } => start(kind::STAT).string(path),
            Self::Rename { from, to } => start(kind::RENAME).string(from).string(to),
            Self::Readlink { path } => start(kind::READLINK).string(path),
            Self::Symlink { first, second } => start(kind::SYMLINK).string(first).string(second),
            extension => extension.write_extension(start(kind::EXTENDED)),
        };
        writer.finish()
    }

    fn write_extension(&self, writer: Writer) -> Writer {
        match self {
            Self::PosixRename { from, to } => {
                writer.string(name::POSIX_RENAME).string(from).string(to)
            }
            Self::Statvfs { path } => writer.string(name::STATVFS).string(path),
            Self::Fstatvfs { handle } => writer.string(name::FSTATVFS).string(handle),
            Self::Hardlink { from, to } => writer.string(name::HARDLINK).string(from).string(to),
            Self::Fsync { handle } => writer.string(name::FSYNC).string(handle),
            Self::Lsetstat { path, attrs } => {
                attrs.write(writer.string(name::LSETSTAT).string(path))
            }
            Self::Limits => writer.string(name::LIMITS),
            Self::ExpandPath { path } => writer.string(name::EXPAND_PATH).string(path),
            Self::CopyData {
                from,
                from_offset,
                len,
                to,
                to_offset,
            } => writer
                .string(name::COPY_DATA)
                .string(from)
                .u64(*from_offset)
                .u64(*len)
                .string(to)
                .u64(*to_offset),
            Self::HomeDirectory { user } => writer.string(name::HOME_DIRECTORY).string(user),
            Self::UsersGroupsById { uids, gids } => writer
                .string(name::USERS_GROUPS_BY_ID)
                .string(&pack(uids))
                .string(&pack(gids)),
            Self::Extended { name, data } => writer.string(name).raw(data),
            _ => unreachable!("encode() hands only extensions on"),
        }
    }

    /// Reads a frame that came without its length. INIT gets the id 0.
    ///
    /// # Errors
    /// A packet that ends early, or that no client sends.
    pub fn decode(frame: Bytes) -> Result<(RequestId, Self), Malformed> {
        let mut reader = Reader::new(frame);
        let kind = reader.u8()?;
        if kind == kind::INIT {
            let version = reader.u32()?;
            let extensions = reader.list_to_end(Reader::pair)?;
            return Ok((
                RequestId(0),
                Self::Init {
                    version,
                    extensions,
                },
            ));
        }
        let id = RequestId(reader.u32()?);
        let request = match kind {
            kind::EXTENDED => Self::read_extension(reader)?,
            kind => Self::read(kind, &mut reader)?,
        };
        Ok((id, request))
    }

    fn read(kind: u8, from: &mut Reader) -> Result<Self, Malformed> {
        Ok(match kind {
            kind::OPEN => Self::Open {
                path: from.string()?,
                flags: OpenFlags(from.u32()?),
                attrs: Attrs::read(from)?,
            },
            kind::CLOSE => Self::Close {
                handle: from.string()?,
            },
            kind::READ => Self::Read {
                handle: from.string()?,
                offset: from.u64()?,
                len: from.u32()?,
            },
            kind::WRITE => Self::Write {
                handle: from.string()?,
                offset: from.u64()?,
                data: from.string()?,
            },
            kind::LSTAT => Self::Lstat {
                path: from.string()?,
            },
            kind::FSTAT => Self::Fstat {
                handle: from.string()?,
            },
            kind::SETSTAT => Self::Setstat {
                path: from.string()?,
                attrs: Attrs::read(from)?,
            },
            kind::FSETSTAT => Self::Fsetstat {
                handle: from.string()?,
                attrs: Attrs::read(from)?,
            },
            kind::OPENDIR => Self::Opendir {
                path: from.string()?,
            },
            kind::READDIR => Self::Readdir {
                handle: from.string()?,
            },
            kind::REMOVE => Self::Remove {
                path: from.string()?,
            },
            kind::MKDIR => Self::Mkdir {
                path: from.string()?,
                attrs: Attrs::read(from)?,
            },
            kind::RMDIR => Self::Rmdir {
                path: from.string()?,
            },
            kind::REALPATH => Self::Realpath {
                path: from.string()?,
            },
            kind::STAT => Self::Stat {
                path: from.string()?,
            },
            kind::RENAME => Self::Rename {
                from: from.string()?,
                to: from.string()?,
            },
            kind::READLINK => Self::Readlink {
                path: from.string()?,
            },
            kind::SYMLINK => Self::Symlink {
                first: from.string()?,
                second: from.string()?,
            },
            _ => return Err(Malformed("a packet is of no type that a client sends")),
        })
    }

    fn read_extension(mut from: Reader) -> Result<Self, Malformed> {
        let name = from.string()?;
        Ok(match name.as_ref() {
            name::POSIX_RENAME => Self::PosixRename {
                from: from.string()?,
                to: from.string()?,
            },
            name::STATVFS => Self::Statvfs {
                path: from.string()?,
            },
            name::FSTATVFS => Self::Fstatvfs {
                handle: from.string()?,
            },
            name::HARDLINK => Self::Hardlink {
                from: from.string()?,
                to: from.string()?,
            },
            name::FSYNC => Self::Fsync {
                handle: from.string()?,
            },
            name::LSETSTAT => Self::Lsetstat {
                path: from.string()?,
                attrs: Attrs::read(&mut from)?,
            },
            name::LIMITS => Self::Limits,
            name::EXPAND_PATH => Self::ExpandPath {
                path: from.string()?,
            },
            name::COPY_DATA => Self::CopyData {
                from: from.string()?,
                from_offset: from.u64()?,
                len: from.u64()?,
                to: from.string()?,
                to_offset: from.u64()?,
            },
            name::HOME_DIRECTORY => Self::HomeDirectory {
                user: from.string()?,
            },
            name::USERS_GROUPS_BY_ID => Self::UsersGroupsById {
                uids: unpack(from.string()?)?,
                gids: unpack(from.string()?)?,
            },
            _ => Self::Extended {
                name,
                data: from.rest(),
            },
        })
    }
}

fn pack(ids: &[u32]) -> Bytes {
    ids.iter()
        .copied()
        .fold(Writer::body(), Writer::u32)
        .finish_body()
}

fn unpack(ids: Bytes) -> Result<Vec<u32>, Malformed> {
    Reader::new(ids).list_to_end(Reader::u32)
}
