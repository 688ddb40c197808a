//! Where the control socket of a mount is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Where the control socket of one mount is, or may be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Best first.
    pub(crate) sockets: Vec<PathBuf>,
    /// Whose mount it is: nobody else is believed to answer for it, nor answered.
    pub(crate) owner: Uid,
}

/// Which socket a path led to at one moment.
pub(super) type Identity = (u64, u64);

/// The socket at a path, and whose it is; links are not followed.
pub(super) fn look(path: &Path) -> io::Result<(Identity, Uid)> {
    let about = fs::symlink_metadata(path)?;
    if !about.file_type().is_socket() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(((about.dev(), about.ino()), Uid::from_raw(about.uid())))
}
