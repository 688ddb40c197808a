//! What the user may choose about how the files behave.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::Trust;

/// Choices for the filesystem, all with a default.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// How long attributes are believed without asking the server, at least, and how long the kernel
    /// is told to.
    pub attr_timeout: Duration,
    /// How long a name is believed to mean the same file, at least.
    pub entry_timeout: Duration,
    /// How long attributes and names are believed at most that were seen unchanged for as long. If it
    /// is not said, a while, or no longer than the two above where those are not the usual ones.
    pub timeout_max: Option<Duration>,
    /// How long a name is believed not to exist.
    pub negative_timeout: Duration,
    /// Whether anything is remembered beyond what a request needs (`-o dir_cache=no`).
    pub cache: bool,
    /// An open to read does not ask the server for attributes that are believed (`-o nocto`).
    pub nocto: bool,
    /// Every read(2) and write(2) goes to the server, none through the page cache (`-o direct_io`).
    pub direct_io: bool,
    /// Pages stay over an open even if the file changed (`-o kernel_cache`).
    pub kernel_cache: bool,
    /// write(2) returns when the server has answered (`-o sync`, `-o sshfs_sync`).
    pub sync: bool,
    /// A program is told EIO when it has waited so long for a server that does not answer
    /// (`-o soft=SECONDS`); without, it waits until the server is back (`-o hard`).
    pub soft: Option<Duration>,
    /// Bytes held and on their way ahead of one open file at most; 0 reads nothing ahead.
    pub readahead_max: usize,
    /// Bytes written but not yet answered by the server, over all files, at most.
    pub write_behind_max: usize,
    /// The server's users and groups against ours.
    pub id_map: IdMap,
    /// All files seem to belong to this user (`-o uid=N`).
    pub uid: Option<u32>,
    /// All files seem to belong to this group (`-o gid=N`).
    pub gid: Option<u32>,
    /// Permission bits taken from every file (`-o umask=`, octal).
    pub umask: Option<u32>,
    /// Permission bits taken from every file that is no directory (`-o fmask=`).
    pub fmask: Option<u32>,
    /// Permission bits taken from every directory (`-o dmask=`).
    pub dmask: Option<u32>,
    /// Nothing is to be changed (`-o ro`); the kernel sees to it, but for our own ioctl(2)s.
    pub read_only: bool,
    /// Who may do what is judged by modes, as the kernel does it (`-o default_permissions`).
    pub default_permissions: bool,
    /// What to do with symbolic links.
    pub symlinks: Symlinks,
    /// link(2) is refused (`-o disable_hardlink`).
    pub disable_hardlink: bool,
    /// What a whole-file copy inside the mount becomes.
    pub copy_is_hardlink: CopyIsHardlink,
    /// Where it is remembered which files share storage; without, for as long as the mount lives.
    pub state: Option<State>,
}

/// A place on this machine where a mount keeps what the next one must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// The user's own, e.g. `~/.local/state/sftpfs`.
    pub directory: PathBuf,
    /// Which server and login it is about, e.g. `user@host:22`.
    pub identity: String,
}

/// How user and group numbers of the server become ours, and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdMap {
    /// The server's numbers are shown as they are.
    None,
    /// The user we are logged in as there is the user who mounts here; other numbers unchanged.
    User {
        /// The user who mounts.
        uid: u32,
        /// That user's group.
        gid: u32,
    },
    /// By tables of server number -> our number.
    Table {
        /// Users.
        uids: HashMap<u32, u32>,
        /// Groups.
        gids: HashMap<u32, u32>,
        /// A number that is in no table is an error (EPERM), not passed through.
        strict: bool,
    },
}

/// What becomes of symbolic links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// Targets are shown as the server says them (`-o symlinks=raw`), as NFS does: a link that is
    /// copied or compared is the same on both sides.
    #[default]
    Raw,
    /// Absolute targets below the mounted directory are made relative, so that they work here
    /// (`-o transform_symlinks`, `-o symlinks=rebase`); other targets are shown as they are.
    Rebase,
    /// As `Rebase`; targets that leave the mounted directory are refused with EPERM
    /// (`-o contain_symlinks`, `-o symlinks=contain`).
    Contain,
    /// Links are followed by the server and never shown (`-o follow_symlinks`).
    Follow,
}

/// What a whole-file copy inside the mount becomes (`-o copy_is_hardlink[=...]`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CopyIsHardlink {
    /// A copy.
    #[default]
    Off,
    /// A hard link that a write breaks.
    Cow,
    /// A hard link.
    Shared,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attr_timeout: TIMEOUT,
            entry_timeout: TIMEOUT,
            timeout_max: None,
            negative_timeout: Duration::from_secs(2),
            cache: true,
            nocto: false,
            direct_io: false,
            kernel_cache: false,
            sync: false,
            soft: None,
            readahead_max: 64 << 20,
            write_behind_max: 64 << 20,
            id_map: IdMap::None,
            uid: None,
            gid: None,
            umask: None,
            fmask: None,
            dmask: None,
            read_only: false,
            symlinks: Symlinks::default(),
            disable_hardlink: false,
            default_permissions: false,
            copy_is_hardlink: CopyIsHardlink::default(),
            state: None,
        }
    }
}

impl Config {
    /// How long attributes are believed.
    pub(super) fn attr_trust(&self) -> Trust {
        self.trust(self.attr_timeout)
    }

    /// How long names are believed, and listings but for what they do not tell of.
    pub(super) fn entry_trust(&self) -> Trust {
        self.trust(self.entry_timeout)
    }

    fn trust(&self, least: Duration) -> Trust {
        let most = self.timeout_max.unwrap_or(least).max(least);
        Trust { least, most }
    }
}

/// What is used now may have been changed by others a moment ago.
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_how_long_means_just_that_unless_he_also_says_how_long_at_most() {
        let second = Duration::from_secs(1);
        let most = |attr_timeout, timeout_max| {
            let config = Config {
                attr_timeout,
                timeout_max,
                ..Config::default()
            };
            config.attr_trust().most
        };
        assert_eq!(most(TIMEOUT, None), TIMEOUT);
        assert_eq!(most(second, None), second);
        assert_eq!(most(second, Some(second * 9)), second * 9);
        assert_eq!(most(second * 9, Some(second)), second * 9);
    }
}
