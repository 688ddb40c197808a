//! Where journals are kept, and that nobody else can write there.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::record::checksum;

/// The name of the journal of `identity`: what can be read of it, and a checksum, so that no two
/// identities have one file.
pub(super) fn file_name(identity: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@:.-_".contains(c);
    let readable = identity.chars().map(|c| if plain(c) { c } else { '_' });
    // 100: a name may have 255 bytes, and there are endings.
    let readable: String = readable.take(100).collect();
    format!("{readable}-{:016x}", checksum(identity.as_bytes()))
}

/// Makes the directory if there is none.
pub(super) fn make_directory(directory: &Path) -> Result<(), String> {
    let say = |error| format!("{}: {error}", directory.display());
    // Those above it too are for this user alone, as the specification has it.
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(say)?;
    let about = fs::symlink_metadata(directory).map_err(say)?;
    if !about.is_dir() {
        return Err(format!("{}: is not a directory", directory.display()));
    }
    check_ours(&about, directory)
}

/// Opens a file to read it and to append to it; with `create`, makes it if there is none.
/// `None`: there is none.
pub(super) fn open(path: &Path, create: bool) -> Result<Option<File>, String> {
    let say = |error| format!("{}: {error}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(create).mode(0o600);
    // std adds O_CLOEXEC.
    match options.custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            Err(format!("{}: must not be a symbolic link", path.display()))
        }
        Err(error) => Err(say(error)),
        Ok(file) => {
            let about = file.metadata().map_err(say)?;
            if !about.is_file() {
                return Err(format!("{}: is not a file", path.display()));
            }
            check_ours(&about, path)?;
            Ok(Some(file))
        }
    }
}

/// Whoever can write here decides which names a write changes.
fn check_ours(about: &Metadata, path: &Path) -> Result<(), String> {
    let path = path.display();
    if about.uid() != geteuid().as_raw() {
        return Err(format!(
            "{path}: belongs to user {}, not to you",
            about.uid()
        ));
    }
    if about.mode() & 0o022 != 0 {
        return Err(format!("others may write {path}; try chmod go-w"));
    }
    Ok(())
}

/// Whether `path` still leads to this open file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Replaces the file at `path`, durably and at once. Only for who is alone.
pub(super) fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let new = with_ending(path, ".new");
    // One that a killed process left.
    remove(&new)?;
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = write(&file).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        // The first error is the one to tell; what is left of it is removed the next time.
        let _ = remove(&new);
        return Err(error);
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Keeps what is at `path` under another name too, and returns that name.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_ending(path, ".damaged");
    remove(&aside)?;
    // A link, so that the name is never without a file. Some file systems have none.
    fs::hard_link(path, &aside).or_else(|_| fs::copy(path, &aside).map(drop))?;
    Ok(aside)
}

/// `path` with some more characters.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(ending);
    longer.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_journals_can_be_read_and_do_not_meet() {
        let first = file_name("user@host:22");
        assert!(first.starts_with("user@host:22-"));
        assert!(file_name("../..//x").starts_with(".._..__x-"));
        assert_ne!(file_name("a/b"), file_name("a_b"));
        let long = [file_name(&"x".repeat(500)), file_name(&"x".repeat(501))];
        assert_ne!(long[0], long[1]);
        assert!(long[0].len() < 200);
    }
}
