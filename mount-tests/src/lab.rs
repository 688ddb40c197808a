//! What the cases work with: one folder, one server, the program under test.
//!
//! **Invariant:** everything the tests make is below the folder, or a process below this one, so
//! that [`clean_up`] finds it from anywhere, a signal's thread included.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mount::{self, Plan, Program, Transport};
use crate::process;
use crate::server::Server;

/// The place where everything happens.
pub struct Lab {
    /// The folder.
    pub dir: PathBuf,
    /// The server that all usual mounts go to.
    pub server: Server,
    /// What mounts.
    pub program: Program,
    /// The repository's root, for what the tests read from it.
    pub source: PathBuf,
    counter: AtomicU32,
}

impl Lab {
    /// Makes the folder and starts the server.
    pub fn new(program: Program, source: PathBuf) -> Result<Self, String> {
        let dir = make_folder(&std::env::temp_dir(), "sftpfs-tests-")?;
        for part in ["export", "plain", "mnt"] {
            fs::create_dir(dir.join(part)).map_err(|why| format!("{part}: {why}"))?;
            set_mode(&dir.join(part), 0o755)?;
        }
        let server = Server::start(&dir.join("sshd"))?;
        Ok(Self {
            dir,
            server,
            program,
            source,
            counter: AtomicU32::new(0),
        })
    }

    /// The directory of the server that is mounted.
    pub fn export(&self) -> PathBuf {
        self.dir.join("export")
    }

    /// A name below the folder that nobody used before.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{name}-{number}"))
    }

    /// A plan for a mount of `directory` at a fresh mountpoint, which exists already.
    pub fn plan(&self, transport: Transport, directory: &Path) -> Plan {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let at = self.dir.join("mnt").join(format!("{number}"));
        fs::create_dir(&at).expect("a mountpoint");
        Plan::new(&self.program, &self.server, transport, directory, &at)
            // What a mount remembers must not meet what the user's own mounts remember.
            .env("XDG_STATE_HOME", self.dir.join("state"))
    }
}

/// Makes the folder that [`clean_up`] removes.
pub fn make_folder(parent: &Path, prefix: &str) -> Result<PathBuf, String> {
    let dir = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(|why| format!("no temporary folder: {why}"))?
        .keep();
    *lock_dir() = Some(dir.clone());
    // Cases become other users, who must be able to reach their files.
    set_mode(&dir, 0o755)?;
    Ok(dir)
}

/// Ends every process, unmounts everything, and removes the folder unless it is to be kept.
pub fn clean_up(keep: bool) {
    // Held to the end: whoever comes second waits, and does not end the program meanwhile.
    let mut guard = lock_dir();
    let Some(dir) = guard.take() else { return };
    process::start_no_more();
    mount::detach(&dir);
    process::end_all();
    mount::detach(&dir);
    if keep {
        eprintln!("kept: {}", dir.display());
    } else if mount::mounts_below(&dir).is_empty() {
        // Nothing is mounted below it any more, so this removes only what the tests made. A case
        // that was interrupted may still be writing for a moment.
        let end = Instant::now() + Duration::from_secs(10);
        process::wait_for(end, || {
            let _ = fs::remove_dir_all(&dir);
            (!dir.exists()).then_some(())
        });
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|why| format!("{}: {why}", path.display()))
}

fn lock_dir() -> std::sync::MutexGuard<'static, Option<PathBuf>> {
    DIR.lock().unwrap_or_else(PoisonError::into_inner)
}

static DIR: Mutex<Option<PathBuf>> = Mutex::new(None);
