//! Wires the layers together, mounts, goes to the background, and ends cleanly.

use std::path::PathBuf;

use crate::{client, fs, transport};

/// Everything a mount needs to know, as the command line understood it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source as typed; what `df` and /proc/self/mountinfo show.
    pub source: String,
    /// The server and how to reach it.
    pub target: transport::Target,
    /// The directory on the server, bytes as typed; empty for the login directory, relative to
    /// it if it does not start with `/`. `~` and `~user` are left to the server (expand-path).
    pub directory: Vec<u8>,
    /// Where to mount: a directory, or `/dev/fd/N` from mount.fuse3.
    pub mountpoint: PathBuf,
    /// Stay in the foreground (`-f`, `-d`).
    pub foreground: bool,
    /// `-o ro`.
    pub read_only: bool,
    /// `-o allow_other`; forces `default_permissions`.
    pub allow_other: bool,
    /// `-o default_permissions`.
    pub default_permissions: bool,
    /// `-o nonempty`.
    pub nonempty: bool,
    /// Flags of mount(2) beyond nosuid and nodev, e.g. noexec, noatime, dirsync.
    pub mount_flags: Vec<String>,
    /// How the files behave.
    pub fs: fs::Config,
    /// How the server is talked to.
    pub client: client::Config,
}
