//! A case is a function whose name is a claim; a suite is a list of cases. A case fails by a panic
//! and is skipped by [`Ctx::skip`].

use std::panic::panic_any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::mount::{Plan, Transport};
use crate::process::wait_for;

/// What a case is given.
#[derive(Clone)]
pub struct Ctx {
    /// An empty directory of the case's own, on the mount or plain.
    pub dir: PathBuf,
    /// The same directory as the server sees it; `dir` itself on the plain run.
    pub behind: PathBuf,
    /// Whether `dir` is on a mount.
    pub on_mount: bool,
    /// The way the mount goes.
    pub transport: Transport,
    /// For random choices; printed with a failure.
    pub seed: u64,
    /// Take the time a thorough run needs (`--full`).
    pub full: bool,
    /// The lab.
    pub lab: Arc<Lab>,
}

impl Ctx {
    /// Ends the case as neither passed nor failed.
    pub fn skip(&self, reason: impl Into<String>) -> ! {
        panic_any(Skipped(reason.into()))
    }

    /// Tells something worth knowing that is neither success nor failure.
    pub fn note(&self, text: impl std::fmt::Display) {
        println!("         note: {text}");
    }

    /// Skips the case unless root runs it.
    pub fn needs_root(&self, what_for: &str) {
        if !nix::unistd::getuid().is_root() {
            self.skip(format!("needs root, {what_for}"));
        }
    }

    /// Skips the case unless sftpfs itself is under test.
    pub fn needs_sftpfs(&self) {
        if !self.lab.program.is_sftpfs() {
            self.skip("is about sftpfs' own command line");
        }
    }

    /// Makes a file on the server, and waits until the mount shows its name: that there was none may
    /// be believed for a while.
    #[track_caller]
    pub fn put_behind(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.behind.join(name), content).unwrap();
        self.wait_for_name(name);
    }

    /// Waits until the mount shows a name that was made on the server.
    #[track_caller]
    pub fn wait_for_name(&self, name: &str) {
        let is_shown = || self.dir.join(name).symlink_metadata().ok();
        let end = Instant::now() + NAMES_APPEAR_WITHIN;
        assert!(
            wait_for(end, is_shown).is_some(),
            "{name} was made on the server and is not seen within {NAMES_APPEAR_WITHIN:?}"
        );
    }

    /// A plan for another mount of this case's directory on the server.
    pub fn plan(&self) -> Plan {
        self.lab.plan(self.transport, &self.behind)
    }
}

/// The longest of the timeouts, and some patience (sshfs: 20 s).
const NAMES_APPEAR_WITHIN: Duration = Duration::from_secs(22);

/// The payload of the panic that skips.
pub struct Skipped(pub String);

/// Where a case makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// On a mount, and on a plain directory to prove the case itself.
    Both,
    /// Only where there is a mount: it is about mounting.
    Mount,
}

/// With which transports a case makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// All.
    Any,
    /// Those that are SSH.
    Ssh,
    /// The first only: the claim has nothing to do with the transport.
    Once,
}

/// One claim and how it is tried.
#[derive(Clone)]
pub struct Case {
    /// The function's name.
    pub name: String,
    /// The claim.
    pub run: Arc<dyn Fn(&Ctx) + Send + Sync>,
    /// When it counts as hung.
    pub limit: Duration,
    /// Where it runs.
    pub places: Places,
    /// With which transports it runs.
    pub ways: Ways,
}

impl Case {
    /// With a name of its own: one function tries several claims.
    pub fn called(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With another deadline.
    pub fn within_s(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// With SSH transports only.
    pub fn over_ssh(mut self) -> Self {
        self.ways = Ways::Ssh;
        self
    }

    /// With the first transport only.
    pub fn once(mut self) -> Self {
        self.ways = Ways::Once;
        self
    }

    /// Without the run on a plain directory.
    pub fn on_mount_only(mut self) -> Self {
        self.places = Places::Mount;
        self
    }
}

/// A case from its function, whose name it takes.
pub fn case<F: Fn(&Ctx) + Send + Sync + 'static>(run: F) -> Case {
    let path = std::any::type_name::<F>();
    let name = path.rsplit("::").next().unwrap_or(path).to_owned();
    Case {
        name,
        run: Arc::new(run),
        limit: Duration::from_secs(30),
        places: Places::Both,
        ways: Ways::Any,
    }
}

/// Cases that belong together.
pub struct Suite {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is about, for `--list`.
    pub about: &'static str,
    /// Whether it is run once for each transport, or only for the one that users get.
    pub every_transport: bool,
    /// The cases, in the order they run.
    pub cases: Vec<Case>,
}
