//! Where everything happens: one folder, in memory if there is room, the link, and the server
//! behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cli::Cli;
use super::host::Host;
use super::size::Size;
use crate::lab;
use crate::link::{Link, Shape};

/// The place. The parts of `dir`: `server` is what the server serves, `local` is where programs
/// read from and write to here, `mnt` is where it is mounted.
pub struct Site {
    pub dir: PathBuf,
    pub link: Link,
    pub host: Host,
    pub size: Size,
    /// Round trip time of the link.
    pub rtt: Duration,
    /// Whether the folder is in memory, so that no disk is measured.
    pub is_in_memory: bool,
}

impl Site {
    /// Makes the folder, the link and the server.
    pub fn start(cli: &Cli) -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let size = Size::of(cli);
        let is_in_memory = has_room(memory, (size.big_mib << 20) * LARGE_FILES);
        let parent = if is_in_memory {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let dir = lab::make_folder(&parent, "sftpfs-bench-")?;
        for part in ["server", "local", "mnt", "home"] {
            fs::create_dir(dir.join(part)).map_err(|why| format!("{part}: {why}"))?;
        }
        let shape = Shape {
            rtt: cli.rtt,
            mbit: cli.mbit,
            loss: cli.loss,
            seed: 1,
        };
        let link = Link::new(shape).map_err(|why| format!("no link: {why}"))?;
        let host = Host::start(&dir.join("sshd"), &link)?;
        Ok(Self {
            dir,
            link,
            host,
            rtt: cli.rtt,
            size,
            is_in_memory,
        })
    }

    /// The directory that the server serves.
    pub fn server(&self) -> PathBuf {
        self.dir.join("server")
    }

    /// The directory that is here without any network.
    pub fn local(&self) -> PathBuf {
        self.dir.join("local")
    }

    /// The mountpoint.
    pub fn mountpoint(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// A shell command, with the names that the works use; `at` is where the work is done.
    pub fn shell(&self, script: &str, at: &Path) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        let size = &self.size;
        let shared = self.host.shared_ssh_config().display().to_string();
        command
            .env("AT", at)
            .env("SERVER", self.server())
            .env("LOCAL", self.local())
            .env("SSH", format!("ssh -F {shared} bench"))
            .env("SFTP", format!("sftp -q -F {shared}"))
            .env("SCP", format!("scp -q -F {shared}"))
            .env("BENCH", std::env::current_exe().unwrap_or_default())
            .env("SINGLE_READS", size.single_reads.to_string())
            .env("SHARED_READS", size.shared_reads.to_string());
        self.at_home(&mut command);
        command
    }

    /// No program shall look at the settings of whoever runs this, or change what they keep.
    pub fn at_home(&self, command: &mut Command) {
        let home = self.dir.join("home");
        command
            .env("HOME", &home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .env_remove("SSH_AUTH_SOCK");
    }

    /// Removes what the works made, before the next one.
    pub fn tidy_up(&self, keep: bool) -> Result<(), String> {
        if keep {
            return Ok(());
        }
        for dir in [self.server(), self.local()] {
            empty(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
        }
        Ok(())
    }
}

/// Removes everything in a directory.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// Removes a file or a tree; one that is not there is no error.
pub fn remove(path: &Path) -> std::io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if meta.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Whether a directory is in memory and has so much room.
fn has_room(dir: &Path, room: u64) -> bool {
    let Ok(fs) = nix::sys::statfs::statfs(dir) else {
        return false;
    };
    let free = fs
        .blocks_available()
        .saturating_mul(fs.block_size().unsigned_abs());
    fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC && free > room
}

/// There are four of the largest file at most, and the mount's page cache.
const LARGE_FILES: u64 = 5;
