//! The ioctl(2)s that a mounted sftpfs answers: their numbers and layouts, for the driver and for
//! the commands that call them. Beside the layers, as the errors are. Documented in sftpfs(1).
//!
//! Numbers are those of `_IOW` and `_IOWR` (asm-generic/ioctl.h) with the type 0xF5; integers are in
//! the machine's own order, as for any ioctl(2).

/// On the file to be written, which is open for writing: its content becomes that of the source, as
/// FICLONERANGE (ioctl_ficlonerange(2)) has it, but that the source is named by its inode number in
/// the same mount. A length of 0 means to the source's end.
///
/// Answers 0, or EOPNOTSUPP where nothing would be shared: without `copy_is_hardlink`, for a part of
/// a file, or where the server makes no hard link.
pub(crate) const CLONE: u32 = number(WRITE, 1, CLONE_SIZE);
/// `u64` source inode, `u64` source offset, `u64` length, `u64` offset in the file.
pub(crate) const CLONE_SIZE: u32 = 32;

/// On a directory: tells about the file of a name in it. The buffer holds the name, ended by a NUL
/// (`.` is the directory itself); it comes back with texts, each ended by a NUL, a key and a value
/// in turn: see [`info`]. The return value is the number of bytes used.
pub(crate) const INFO: u32 = number(WRITE | READ, 2, INFO_SIZE);
pub(crate) const INFO_SIZE: u32 = 8192;

/// On a directory: copies regular files of another directory of the mount into it, under their
/// names, by the server. Names that are there already are left (EEXIST).
///
/// In: [`CopyHeader`], then the names, each ended by a NUL. Out: one [`CopyResult`] for each name,
/// in order. The return value is their number. A name may be refused that can be copied by
/// copy_file_range(2): a file that would take long (EFBIG), one with set-ID bits (EOPNOTSUPP), one of
/// a directory that only the kernel can judge (EACCES). After half a second no further file is
/// begun: the others are EAGAIN, and to be asked for again.
pub(crate) const COPY: u32 = number(WRITE | READ, 3, COPY_SIZE);
pub(crate) const COPY_SIZE: u32 = 16000;
/// Names in one call at most.
pub(crate) const COPY_NAMES_MAX: usize = 256;
/// In [`CopyHeader::flags`]: mode, times, and owner where the login user may give files away.
/// Without it the mode is that of the source without what the caller's umask takes.
pub(crate) const COPY_PRESERVE: u32 = 1;

/// Keys of [`INFO`]'s answer. One that does not apply is left out; `SHARES` may come repeatedly.
pub(crate) mod info {
    /// The absolute path on the server.
    pub(crate) const PATH: &str = "path";
    /// How the content came to be there: `written`, `linked`, `copied on the server`, `streamed`,
    /// or `unknown`.
    pub(crate) const CONTENT: &str = "content";
    /// The absolute path on the server of another file that shares the storage.
    pub(crate) const SHARES: &str = "shares";
    /// For the root of the mount: how many copies were made in each way, as decimal numbers.
    pub(crate) const LINKED: &str = "copies linked";
    pub(crate) const COPIED: &str = "copies made by the server";
    pub(crate) const STREAMED: &str = "copies streamed";
    /// For the root of the mount: bytes that were copied and did not cross the network.
    pub(crate) const BYTES_SAVED: &str = "bytes saved";
    /// For the root of the mount: listings and files fetched before a program asked for them, how many
    /// of each were used and how many in vain.
    pub(crate) const DIRECTORIES_USED: &str = "directories ahead used";
    pub(crate) const DIRECTORIES_WASTED: &str = "directories ahead wasted";
    pub(crate) const FILES_USED: &str = "files ahead used";
    pub(crate) const FILES_WASTED: &str = "files ahead wasted";
}

/// What [`COPY`] starts with: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyHeader {
    /// The directory to copy from, by its inode number in the mount.
    pub(crate) source: u64,
    pub(crate) flags: u32,
    pub(crate) umask: u32,
    pub(crate) names: u32,
}

/// How one file was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The server made a hard link.
    Linked,
    /// The server copied the data.
    Copied,
    /// The data came here and went back.
    Streamed,
}

/// What became of one name: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyResult {
    /// Bytes copied, and how; or an error number (errno(3)).
    pub(crate) outcome: Result<(Way, u64), i32>,
}

impl CopyHeader {
    pub(crate) const SIZE: usize = 24;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (source, rest) = bytes.split_at_mut(8);
        source.copy_from_slice(&self.source.to_ne_bytes());
        for (field, value) in rest
            .chunks_exact_mut(4)
            .zip([self.flags, self.umask, self.names])
        {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    /// The header, and what follows it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (source, rest) = bytes.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (umask, rest) = rest.split_first_chunk()?;
        let (names, rest) = rest.split_first_chunk()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let header = Self {
            source: u64::from_ne_bytes(*source),
            flags: u32::from_ne_bytes(*flags),
            umask: u32::from_ne_bytes(*umask),
            names: u32::from_ne_bytes(*names),
        };
        Some((header, rest))
    }
}

impl CopyResult {
    pub(crate) const SIZE: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let (errno, way, len) = match self.outcome {
            Ok((way, len)) => (0, way as u32, len),
            Err(errno) => (errno, 0, 0),
        };
        let mut bytes = [0; Self::SIZE];
        let (first, last) = bytes.split_at_mut(8);
        let (errno_at, way_at) = first.split_at_mut(4);
        errno_at.copy_from_slice(&errno.to_ne_bytes());
        way_at.copy_from_slice(&way.to_ne_bytes());
        last.copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    /// `None` for bytes that are no result.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (errno, rest) = bytes.split_first_chunk()?;
        let (way, rest) = rest.split_first_chunk()?;
        let len = u64::from_ne_bytes(*rest.first_chunk()?);
        let outcome = match (i32::from_ne_bytes(*errno), u32::from_ne_bytes(*way)) {
            (0, 0) => Ok((Way::Linked, len)),
            (0, 1) => Ok((Way::Copied, len)),
            (0, 2) => Ok((Way::Streamed, len)),
            (0, _) => return None,
            (errno, _) => Err(errno),
        };
        Some(Self { outcome })
    }
}

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn number(direction: u32, nr: u32, size: u32) -> u32 {
    direction << 30 | size << 16 | 0xF5 << 8 | nr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_headers() {
        // _IOW(0xF5, 1, char[32]), _IOWR(0xF5, 2, char[8192]), _IOWR(0xF5, 3, char[16000])
        assert_eq!([CLONE, INFO, COPY], [0x4020_F501, 0xE000_F502, 0xFE80_F503]);
    }

    #[test]
    fn a_header_and_a_result_are_read_as_they_were_written() {
        let header = CopyHeader {
            source: 1 << 52,
            flags: COPY_PRESERVE,
            umask: 0o22,
            names: 3,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(b"a\0");
        assert_eq!(CopyHeader::decode(&bytes), Some((header, &b"a\0"[..])));
        for outcome in [Ok((Way::Copied, 7)), Ok((Way::Streamed, 0)), Err(17)] {
            let result = CopyResult { outcome };
            assert_eq!(CopyResult::decode(&result.encode()), Some(result));
        }
        assert_eq!(CopyResult::decode(&[0; 15]), None);
    }
}
