//! Wires the layers together, mounts, goes to the background, and ends cleanly.
//!
//! **Invariant:** the connection comes first and the mount last, so that whatever is wrong is said
//! on the terminal and leaves no mount behind; and nothing that was written is given up without a
//! word when the mount ends.

mod background;
mod device;
mod found;
mod fusermount;
mod kernel;
mod logging;
mod mountinfo;
mod panics;
mod place;
mod presence;
mod process;
mod resume;
mod serve;
mod signals;
#[cfg(feature = "logind")]
mod sleep;
mod state;
mod terminal;
mod unmount;

pub(crate) use found::{Found, all, holding};
pub(crate) use mountinfo::is_ours;
pub(crate) use process::harden;
pub(crate) use unmount::{UnmountHow, unmount};

use std::path::PathBuf;

use log::LevelFilter;

use crate::error::Result;
use crate::{client, fs, transport};
use background::Side;

/// Everything a mount needs to know, as the command line understood it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
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
    /// Flags of mount(2) beyond nosuid and nodev: noexec, noatime, nodiratime, dirsync,
    /// nosymfollow.
    pub mount_flags: Vec<String>,
    /// `-o setuid=USER`: become this user before anything else.
    pub run_as: Option<String>,
    /// What is logged: to standard error in the foreground, else to syslog(3).
    pub log_level: LevelFilter,
    /// How the files behave.
    pub fs: fs::Config,
    /// How the server is talked to.
    pub client: client::Config,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: String::new(),
            target: transport::Target::default(),
            directory: Vec::new(),
            mountpoint: PathBuf::new(),
            foreground: false,
            read_only: false,
            allow_other: false,
            default_permissions: false,
            nonempty: false,
            mount_flags: Vec::new(),
            run_as: None,
            log_level: LevelFilter::Warn,
            fs: fs::Config::default(),
            client: client::Config::default(),
        }
    }
}

/// Mounts. In the foreground it returns when the mount has ended; else when it answers, while a
/// process in the background goes on, which never returns from here.
///
/// # Errors
/// What failed, for a person; then nothing stays mounted.
pub(crate) fn run(options: Options) -> Result<()> {
    harden();
    logging::start(options.log_level);
    panics::log();
    process::become_user(options.run_as.as_deref())?;
    let place = place::check(&options.mountpoint, options.nonempty)?;
    if !place.is_open_device() {
        device::open()?;
    }
    let terminal = terminal::Terminal::save();
    // Before the first thread and before anything that starts one: only the thread that forks
    // lives on in the child.
    match background::split(options.foreground)? {
        Side::Waiting(child) => child.wait(&terminal),
        Side::Serving(mut report) => {
            let ended = serve::serve(options, place, terminal, &mut report);
            report.end(ended)
        }
    }
}
