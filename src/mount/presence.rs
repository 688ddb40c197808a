//! A locked file that tells `sftpfs umount` whether the process behind a mount is still there.
//!
//! The process holds the lock for as long as it lives, so that the kernel lets go of it however
//! the process ends: there is no process id to be mistaken for another's, and nothing to clean
//! up. The file's name is the device number of the mount, e.g. `/run/sftpfs/0:53`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, geteuid};

use crate::error::{Error, Result};

/// Held by the process that serves a mount; dropping it lets those who wait go on.
#[derive(Debug)]
pub(super) struct Presence {
    path: PathBuf,
    lock: Flock<File>,
}

impl Presence {
    /// Announces this process as the one behind a mount.
    pub(super) fn announce(device: &str) -> io::Result<Self> {
        let Some(folder) = own_folders().into_iter().next() else {
            return Err(io::Error::other(
                "neither a runtime directory nor /tmp can be written",
            ));
        };
        Self::announce_in(&folder, device)
    }

    fn announce_in(folder: &Path, device: &str) -> io::Result<Self> {
        let path = folder.join(device);
        // One that a killed process left behind: device numbers are used again.
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(hurry_note(&path));
        let open = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        let lock =
            Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        Ok(Self { path, lock })
    }

    /// Whether somebody wants the process to end at once: see [`hurry`].
    pub(super) fn is_in_hurry(&self) -> bool {
        fs::symlink_metadata(hurry_note(&self.path)).is_ok()
    }

    /// Ends the presence, and leaves a failure for those who wait.
    pub(super) fn leave(mut self, ended: &Result<()>) {
        if let Err(error) = ended {
            // The disk may be full; the log has it too.
            let _ = write!(self.lock, "{error}");
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Before the lock goes. Whoever waits has it open, and nobody else needs it.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(hurry_note(&self.path));
    }
}

/// Has the process behind a mount of this user end at once when it is unmounted, whatever is
/// unwritten. Whoever may not write beside its file, may not.
pub(super) fn hurry(device: &str, mounted_by: Uid) {
    let present = folders_of(mounted_by).into_iter().map(|f| f.join(device));
    for path in present.filter(|path| fs::symlink_metadata(path).is_ok()) {
        let note = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(hurry_note(&path));
        if let Err(error) = note {
            log::debug!("{}: {error}", hurry_note(&path).display());
        }
    }
}

/// A file beside a presence that says by being there that nothing is to be waited for.
fn hurry_note(presence: &Path) -> PathBuf {
    presence.with_extension("force")
}

/// Bytes of a failure that are shown.
const FAILURE_SIZE_MAX: u64 = 4096;

/// The other end: opened before unmounting, while the file is surely there.
#[derive(Debug)]
pub(super) struct Witness(File);

impl Witness {
    /// Finds the process behind a mount of this user; `None` if it has not announced itself.
    pub(super) fn find(device: &str, mounted_by: Uid) -> Option<Self> {
        folders_of(mounted_by)
            .iter()
            .find_map(|folder| Self::find_in(folder, device, mounted_by))
    }

    fn find_in(folder: &Path, device: &str, mounted_by: Uid) -> Option<Self> {
        // A user's folder is not trusted when root looks into it: no links, no waiting for pipes.
        // In /tmp the folder may be anybody's: only the file of the user who mounted counts.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(folder.join(device));
        file.ok()
            .filter(|file| {
                let about = file.metadata();
                about.is_ok_and(|about| about.is_file() && about.uid() == mounted_by.as_raw())
            })
            .map(Self)
    }

    /// Waits until the process has ended, which it does by itself, in bounded time. An error says
    /// what it could not write, or that it goes on.
    pub(super) fn wait(self) -> Result<()> {
        let (tell, told) = std::sync::mpsc::channel();
        let file = self.0;
        // The thread ends with the lock, or with us. Nobody listens any more only after a timeout.
        std::thread::spawn(move || tell.send(Flock::lock(file, FlockArg::LockShared).ok()));
        let Ok(locked) = told.recv_timeout(WAIT_MAX) else {
            return Err(Error::setup(format!(
                "unmounted, but the process behind it goes on after {} s",
                WAIT_MAX.as_secs()
            )));
        };
        // Only a signal can break it, and that ends us anyway.
        let Some(file) = locked else { return Ok(()) };
        let mut failure = Vec::new();
        // Only as much as a message has: the file may be a user's, and we root.
        let read = (&*file).take(FAILURE_SIZE_MAX).read_to_end(&mut failure);
        match read {
            Ok(1..) => Err(Error::setup(printable(&failure))),
            _ => Ok(()),
        }
    }
}

/// Another user's process may have written it: nothing in it may move a terminal's cursor.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

/// Longer than a process takes to write the rest (75 s) and to let go.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Those of this user that can be used.
pub(super) fn own_folders() -> Vec<PathBuf> {
    let mut folders = folders_of(geteuid());
    folders.retain(|folder| make_folder(folder));
    folders
}

/// Where a user's mounts are noted, best first.
pub(super) fn folders_of(user: Uid) -> Vec<PathBuf> {
    if user.is_root() {
        return vec!["/run/sftpfs".into()];
    }
    let mut folders = vec![PathBuf::from(format!("/run/user/{user}/sftpfs"))];
    if user == geteuid()
        && let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR")
    {
        folders.insert(0, Path::new(&runtime).join("sftpfs"));
    }
    // cron and su give no runtime directory. Whose folder this is, is checked before it is used.
    folders.push(format!("/tmp/.sftpfs-{user}").into());
    folders.retain(|folder| folder.is_absolute());
    folders
}

/// Makes the folder if it is not there; whether it is ours, and no one else can write in it.
fn make_folder(folder: &Path) -> bool {
    // Only a failure to be ours counts, and that is looked at next.
    let _ = DirBuilder::new().mode(0o700).create(folder);
    fs::symlink_metadata(folder).is_ok_and(|about| {
        about.is_dir() && about.uid() == geteuid().as_raw() && about.mode() & 0o022 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_locked(file: File) -> bool {
        Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
    }

    #[test]
    fn a_witness_waits_as_long_as_the_process_is_present() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::announce_in(folder.path(), "0:7").unwrap();
        let witness = Witness::find_in(folder.path(), "0:7", geteuid()).unwrap();
        assert!(is_locked(witness.0.try_clone().unwrap()));
        presence.leave(&Ok(()));
        assert_eq!(witness.wait(), Ok(()));
        assert!(Witness::find_in(folder.path(), "0:7", geteuid()).is_none());
    }

    #[test]
    fn a_witness_hears_what_could_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::announce_in(folder.path(), "0:7").unwrap();
        let witness = Witness::find_in(folder.path(), "0:7", geteuid()).unwrap();
        presence.leave(&Err(Error::setup("3 bytes are lost")));
        assert_eq!(witness.wait(), Err(Error::setup("3 bytes are lost")));
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0:7"), "").unwrap();
        Presence::announce_in(folder.path(), "0:7").unwrap();
    }

    #[test]
    fn a_file_of_another_user_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0:7"), "").unwrap();
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        assert!(Witness::find_in(folder.path(), "0:7", other).is_none());
    }

    #[test]
    fn a_note_that_there_is_a_hurry_goes_with_the_presence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0:7");
        let note = hurry_note(&path);
        fs::write(&note, "").unwrap();
        let presence = Presence::announce_in(folder.path(), "0:7").unwrap();
        assert!(!presence.is_in_hurry(), "an older mount's");
        fs::write(&note, "").unwrap();
        assert!(presence.is_in_hurry());
        drop(presence);
        assert!(!note.exists() && !path.exists());
    }

    #[test]
    fn what_is_heard_cannot_move_a_cursor() {
        assert_eq!(printable(b"lost\x1b[2J\n"), "lost?[2J\n");
    }

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("0:7")).unwrap();
        assert!(Witness::find_in(folder.path(), "0:7", geteuid()).is_none());
    }
}
