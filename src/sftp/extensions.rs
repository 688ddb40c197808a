//! OpenSSH's extensions: which of them a server has, and what their answers say (OpenSSH PROTOCOL
//! section 4).

use bytes::Bytes;

use super::Malformed;
use super::wire::{Reader, Writer};

/// The names of the extensions on the wire.
pub(super) mod name {
    pub(in super::super) const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
    pub(in super::super) const STATVFS: &[u8] = b"statvfs@openssh.com";
    pub(in super::super) const FSTATVFS: &[u8] = b"fstatvfs@openssh.com";
    pub(in super::super) const HARDLINK: &[u8] = b"hardlink@openssh.com";
    pub(in super::super) const FSYNC: &[u8] = b"fsync@openssh.com";
    pub(in super::super) const LSETSTAT: &[u8] = b"lsetstat@openssh.com";
    pub(in super::super) const LIMITS: &[u8] = b"limits@openssh.com";
    pub(in super::super) const EXPAND_PATH: &[u8] = b"expand-path@openssh.com";
    pub(in super::super) const COPY_DATA: &[u8] = b"copy-data";
    pub(in super::super) const HOME_DIRECTORY: &[u8] = b"home-directory";
    pub(in super::super) const USERS_GROUPS_BY_ID: &[u8] = b"users-groups-by-id@openssh.com";
    /// GreenEND's: in which order the server takes the two paths of SYMLINK.
    pub(in super::super) const SYMLINK_ORDER: &[u8] = b"symlink-order@rjk.greenend.org.uk";
}

/// Which extensions VERSION advertised.
///
/// An extension counts only with the version string that OpenSSH gives it; with another one its
/// packets may differ, so it is among the `others`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// rename(2): replaces what is at the new path.
    pub posix_rename: bool,
    /// statvfs(3) by path.
    pub statvfs: bool,
    /// statvfs(3) by handle.
    pub fstatvfs: bool,
    /// link(2).
    pub hardlink: bool,
    /// fsync(2).
    pub fsync: bool,
    /// SETSTAT that does not follow a symbolic link.
    pub lsetstat: bool,
    /// The server says how large packets may be.
    pub limits: bool,
    /// REALPATH that knows `~`.
    pub expand_path: bool,
    /// Copies between two open files on the server.
    pub copy_data: bool,
    /// The home directory of a user.
    pub home_directory: bool,
    /// Names of users and groups by number.
    pub users_groups_by_id: bool,
    /// The data of `symlink-order@rjk.greenend.org.uk`: `targetpath-linkpath` or the other way.
    pub symlink_order: Option<Bytes>,
    /// All others, as advertised: name and data.
    pub others: Vec<(Bytes, Bytes)>,
}

impl Extensions {
    /// Reads the pairs of a [`Response::Version`](super::Response::Version).
    #[must_use]
    pub fn from_version(pairs: &[(Bytes, Bytes)]) -> Self {
        let mut known = Self::default();
        for (name, data) in pairs {
            match (known.flag(name), data.as_ref()) {
                (Some((flag, version)), data) if version == data => *flag = true,
                _ if name == name::SYMLINK_ORDER => known.symlink_order = Some(data.clone()),
                _ => known.others.push((name.clone(), data.clone())),
            }
        }
        known
    }

    /// The field of an extension and the version that it must have.
    fn flag(&mut self, name: &[u8]) -> Option<(&mut bool, &'static [u8])> {
        match name {
            name::POSIX_RENAME => Some((&mut self.posix_rename, b"1")),
            name::STATVFS => Some((&mut self.statvfs, b"2")),
            name::FSTATVFS => Some((&mut self.fstatvfs, b"2")),
            name::HARDLINK => Some((&mut self.hardlink, b"1")),
            name::FSYNC => Some((&mut self.fsync, b"1")),
            name::LSETSTAT => Some((&mut self.lsetstat, b"1")),
            name::LIMITS => Some((&mut self.limits, b"1")),
            name::EXPAND_PATH => Some((&mut self.expand_path, b"1")),
            name::COPY_DATA => Some((&mut self.copy_data, b"1")),
            name::HOME_DIRECTORY => Some((&mut self.home_directory, b"1")),
            name::USERS_GROUPS_BY_ID => Some((&mut self.users_groups_by_id, b"1")),
            _ => None,
        }
    }
}

/// The answer to `limits@openssh.com`: what the server takes. 0 means that it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a packet.
    pub packet_max: u64,
    /// Bytes that one READ gives.
    pub read_max: u64,
    /// Bytes that one WRITE takes.
    pub write_max: u64,
    /// Handles open at once on one connection.
    pub handles_max: u64,
}

impl Limits {
    /// The body of the EXTENDED_REPLY.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Writer::body()
            .u64(self.packet_max)
            .u64(self.read_max)
            .u64(self.write_max)
            .u64(self.handles_max)
            .finish_body()
    }

    /// Reads the body of the EXTENDED_REPLY.
    ///
    /// # Errors
    /// A body that is too short.
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        Ok(Self {
            packet_max: reader.u64()?,
            read_max: reader.u64()?,
            write_max: reader.u64()?,
            handles_max: reader.u64()?,
        })
    }
}

/// The answer to `statvfs@openssh.com`: the fields of statvfs(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "statvfs(3) names them")]
pub struct Statvfs {
    pub bsize: u64,
    pub frsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub favail: u64,
    pub fsid: u64,
    pub flag: u64,
    pub namemax: u64,
}

impl Statvfs {
    /// In `flag`: the filesystem is read-only.
    pub const FLAG_RDONLY: u64 = 1;
    /// In `flag`: set-user-id bits mean nothing there.
    pub const FLAG_NOSUID: u64 = 2;

    /// The body of the EXTENDED_REPLY.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        [
            self.bsize,
            self.frsize,
            self.blocks,
            self.bfree,
            self.bavail,
            self.files,
            self.ffree,
            self.favail,
            self.fsid,
            self.flag,
            self.namemax,
        ]
        .into_iter()
        .fold(Writer::body(), Writer::u64)
        .finish_body()
    }

    /// Reads the body of the EXTENDED_REPLY.
    ///
    /// # Errors
    /// A body that is too short.
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        Ok(Self {
            bsize: reader.u64()?,
            frsize: reader.u64()?,
            blocks: reader.u64()?,
            bfree: reader.u64()?,
            bavail: reader.u64()?,
            files: reader.u64()?,
            ffree: reader.u64()?,
            favail: reader.u64()?,
            fsid: reader.u64()?,
            flag: reader.u64()?,
            namemax: reader.u64()?,
        })
    }
}

/// The answer to `users-groups-by-id@openssh.com`: a name for each number asked, in that order;
/// empty if the server knows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserGroupNames {
    /// Names of the users.
    pub users: Vec<Bytes>,
    /// Names of the groups.
    pub groups: Vec<Bytes>,
}

impl UserGroupNames {
    /// The body of the EXTENDED_REPLY.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let pack = |names: &[Bytes]| {
            let packed = names
                .iter()
                .fold(Writer::body(), |writer, name| writer.string(name));
            packed.finish_body()
        };
        Writer::body()
            .string(&pack(&self.users))
            .string(&pack(&self.groups))
            .finish_body()
    }

    /// Reads the body of the EXTENDED_REPLY.
    ///
    /// # Errors
    /// A body or a list that is too short.
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        Ok(Self {
            users: unpack(reader.string()?)?,
            groups: unpack(reader.string()?)?,
        })
    }
}

fn unpack(names: Bytes) -> Result<Vec<Bytes>, Malformed> {
    Reader::new(names).list_to_end(Reader::string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static [u8], data: &'static [u8]) -> (Bytes, Bytes) {
        (Bytes::from_static(name), Bytes::from_static(data))
    }

    #[test]
    fn an_extension_counts_with_its_version_only() {
        let extensions = Extensions::from_version(&[
            pair(name::STATVFS, b"2"),
            pair(name::FSTATVFS, b"1"),
            pair(name::POSIX_RENAME, b"1"),
            pair(b"vendor-id", b"x"),
        ]);
        let expected = Extensions {
            statvfs: true,
            posix_rename: true,
            others: vec![pair(name::FSTATVFS, b"1"), pair(b"vendor-id", b"x")],
            ..Extensions::default()
        };
        assert_eq!(extensions, expected);
    }

    #[test]
    fn the_order_of_symlinks_arguments_is_kept() {
        let extensions = Extensions::from_version(&[pair(name::SYMLINK_ORDER, b"whatever")]);
        assert_eq!(extensions.symlink_order.as_deref(), Some(&b"whatever"[..]));
    }
}
