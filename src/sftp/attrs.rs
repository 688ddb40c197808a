//! File attributes as version 3 knows them (draft section 5). There is no link count, no inode
//! number and no nanosecond in them.

use bytes::Bytes;

use super::Malformed;
use super::wire::{Reader, Writer, length};

/// ATTRS: each field is there or not. In a response: what the server knows; in a request: what to
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Bytes.
    pub size: Option<u64>,
    /// User and group number on the server.
    pub owner: Option<(u32, u32)>,
    /// st_mode: permission bits and, in responses, the file's type.
    pub permissions: Option<u32>,
    /// Access and modification time: seconds since 1970, unsigned.
    pub times: Option<(u32, u32)>,
    /// Attributes that only the two sides understand: type and data.
    pub extended: Vec<(Bytes, Bytes)>,
}

impl Attrs {
    /// The file's type, if the permissions say one.
    #[must_use]
    pub fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.permissions?)
    }

    /// Bits of the flags that are none of ours are ignored, as OpenSSH does.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let flags = reader.u32()?;
        let mut attrs = Self::default();
        if flags & SIZE != 0 {
            attrs.size = Some(reader.u64()?);
        }
        if flags & OWNER != 0 {
            attrs.owner = Some((reader.u32()?, reader.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attrs.permissions = Some(reader.u32()?);
        }
        if flags & TIMES != 0 {
            attrs.times = Some((reader.u32()?, reader.u32()?));
        }
        if flags & EXTENDED != 0 {
            let count = reader.u32()?;
            attrs.extended = reader.list(count, PAIR_SIZE_MIN, Reader::pair)?;
        }
        Ok(attrs)
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        let mut writer = writer.u32(self.flags());
        if let Some(size) = self.size {
            writer = writer.u64(size);
        }
        if let Some((user, group)) = self.owner {
            writer = writer.u32(user).u32(group);
        }
        if let Some(permissions) = self.permissions {
            writer = writer.u32(permissions);
        }
        if let Some((accessed, modified)) = self.times {
            writer = writer.u32(accessed).u32(modified);
        }
        if !self.extended.is_empty() {
            writer = writer
                .u32(length(self.extended.len()))
                .pairs(&self.extended);
        }
        writer
    }

    fn flags(&self) -> u32 {
        let flag = |is_there: bool, bit| if is_there { bit } else { 0 };
        flag(self.size.is_some(), SIZE)
            | flag(self.owner.is_some(), OWNER)
            | flag(self.permissions.is_some(), PERMISSIONS)
            | flag(self.times.is_some(), TIMES)
            | flag(!self.extended.is_empty(), EXTENDED)
    }
}

const SIZE: u32 = 0x01;
const OWNER: u32 = 0x02;
const PERMISSIONS: u32 = 0x04;
const TIMES: u32 = 0x08;
const EXTENDED: u32 = 0x8000_0000;

/// Two empty strings.
const PAIR_SIZE_MIN: usize = 8;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file with bytes in it.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    /// The type bits of an st_mode (inode(7)); `None` if there are none or they mean nothing.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Some(Self::Regular),
            libc::S_IFDIR => Some(Self::Directory),
            libc::S_IFLNK => Some(Self::Symlink),
            libc::S_IFIFO => Some(Self::Fifo),
            libc::S_IFSOCK => Some(Self::Socket),
            libc::S_IFCHR => Some(Self::CharDevice),
            libc::S_IFBLK => Some(Self::BlockDevice),
            _ => None,
        }
    }

    /// The type bits of an st_mode.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_bits_of_a_mode_name_the_kind_of_file() {
        let directory = Attrs {
            permissions: Some(0o040_755),
            ..Attrs::default()
        };
        assert_eq!(directory.kind(), Some(FileKind::Directory));
        let typeless = Attrs {
            permissions: Some(0o755),
            ..Attrs::default()
        };
        assert_eq!(typeless.kind(), None);
        assert_eq!(Attrs::default().kind(), None);
    }

    #[test]
    fn every_kind_is_found_again_in_its_mode() {
        use FileKind::{BlockDevice, CharDevice, Directory, Fifo, Regular, Socket, Symlink};
        for kind in [
            Regular,
            Directory,
            Symlink,
            Fifo,
            Socket,
            CharDevice,
            BlockDevice,
        ] {
            assert_eq!(FileKind::from_mode(kind.mode() | 0o7777), Some(kind));
        }
    }
}
