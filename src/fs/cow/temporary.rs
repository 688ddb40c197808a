//! Names for files on the server that are to replace others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

use crate::fs::second_question::parent;

/// A name beside `path` that nobody else has: in the same directory, so that it can be renamed over
/// it.
pub(in crate::fs) fn temporary_beside(path: &Bytes) -> Bytes {
    let directory = parent(path);
    let mut name = BytesMut::with_capacity(directory.len() + PREFIX.len() + 17);
    name.put_slice(&directory);
    if !directory.ends_with(b"/") {
        name.put_u8(b'/');
    }
    name.put_slice(PREFIX);
    // Each of these is seeded anew by the system's random numbers.
    let random = RandomState::new().build_hasher().finish();
    name.put_slice(format!("{random:016x}").as_bytes());
    name.freeze()
}

/// Hidden from `ls`, and says whose it is.
const PREFIX: &[u8] = b".sftpfs.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_in_the_same_directory_and_never_the_same() {
        for (path, start) in [("/a", "/.sftpfs."), ("/d/e/f", "/d/e/.sftpfs.")] {
            let path = Bytes::from_static(path.as_bytes());
            let (one, other) = (temporary_beside(&path), temporary_beside(&path));
            assert!(one.starts_with(start.as_bytes()), "{one:?}");
            assert_ne!(one, other);
            assert_eq!(parent(&one), parent(&path));
        }
    }
}
