//! What requests and responses have in common: packet types, ids, and a packet ready to be sent.

use std::fmt;
use std::ops::BitOr;

use bytes::{Bytes, BytesMut};

use super::wire::{Reader, Writer};
use super::{Attrs, Malformed};

/// Ties a response to its request. INIT and VERSION carry none; for them it is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A frame to send, its length included: `head`, then `payload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Everything, or everything before the payload.
    pub head: Bytes,
    /// The data of WRITE or DATA, the caller's own buffer.
    pub payload: Option<Bytes>,
}

impl Encoded {
    /// Bytes on the wire, the length before the frame included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.len() + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The frame in one piece; copies if there is a payload.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        let Some(payload) = self.payload else {
            return self.head;
        };
        let mut whole = BytesMut::with_capacity(self.head.len() + payload.len());
        whole.extend_from_slice(&self.head);
        whole.extend_from_slice(&payload);
        whole.freeze()
    }
}

/// How OPEN opens: `SSH_FXF_*` (draft section 6.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(0x01);
    /// For writing.
    pub const WRITE: Self = Self(0x02);
    /// Every write goes to the end, whatever its offset.
    pub const APPEND: Self = Self(0x04);
    /// Makes the file if there is none.
    pub const CREAT: Self = Self(0x08);
    /// Cuts the file to nothing.
    pub const TRUNC: Self = Self(0x10);
    /// With CREAT: fails if there is a file.
    pub const EXCL: Self = Self(0x20);

    /// Whether all of `flags` are set.
    #[must_use]
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// All but these.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One entry of NAME (draft section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEntry {
    /// READDIR: the name within its directory. REALPATH and READLINK: a path.
    pub name: Bytes,
    /// READDIR: a line as `ls -l` writes it; see [`LongName`](super::LongName).
    pub longname: Bytes,
    /// READDIR: as LSTAT would say. Elsewhere usually empty.
    pub attrs: Attrs,
}

impl NameEntry {
    /// Two empty strings and the flags of no attributes.
    pub(super) const SIZE_MIN: usize = 12;

    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: reader.string()?,
            longname: reader.string()?,
            attrs: Attrs::read(reader)?,
        })
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        self.attrs
            .write(writer.string(&self.name).string(&self.longname))
    }
}

/// `SSH_FXP_*`: the first byte of a packet (draft section 3).
pub(super) mod kind {
    pub(in super::super) const INIT: u8 = 1;
    pub(in super::super) const VERSION: u8 = 2;
    pub(in super::super) const OPEN: u8 = 3;
    pub(in super::super) const CLOSE: u8 = 4;
    pub(in super::super) const READ: u8 = 5;
    pub(in super::super) const WRITE: u8 = 6;
    pub(in super::super) const LSTAT: u8 = 7;
    pub(in super::super) const FSTAT: u8 = 8;
    pub(in super::super) const SETSTAT: u8 = 9;
    pub(in super::super) const FSETSTAT: u8 = 10;
    pub(in super::super) const OPENDIR: u8 = 11;
    pub(in super::super) const READDIR: u8 = 12;
    pub(in super::super) const REMOVE: u8 = 13;
    pub(in super::super) const MKDIR: u8 = 14;
    pub(in super::super) const RMDIR: u8 = 15;
    pub(in super::super) const REALPATH: u8 = 16;
    pub(in super::super) const STAT: u8 = 17;
    pub(in super::super) const RENAME: u8 = 18;
    pub(in super::super) const READLINK: u8 = 19;
    pub(in super::super) const SYMLINK: u8 = 20;
    pub(in super::super) const STATUS: u8 = 101;
    pub(in super::super) const HANDLE: u8 = 102;
    pub(in super::super) const DATA: u8 = 103;
    pub(in super::super) const NAME: u8 = 104;
    pub(in super::super) const ATTRS: u8 = 105;
    pub(in super::super) const EXTENDED: u8 = 200;
    pub(in super::super) const EXTENDED_REPLY: u8 = 201;
}
