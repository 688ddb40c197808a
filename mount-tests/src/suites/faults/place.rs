//! Where a case works: a mount over something that can be cut, or a plain directory, on which no
//! fault happens and all must pass as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::case::Ctx;
use crate::mount::{Mount, Plan, mount_in_foreground};
use crate::process;
use crate::wire::{Manner, TcpMeter, Way, Which, Wire};

/// The place.
pub(super) struct Place {
    /// Where programs work.
    pub(super) dir: PathBuf,
    /// The same on the server.
    pub(super) behind: PathBuf,
    /// What leads to the server; none on a plain directory.
    pub(super) net: Option<Arc<Net>>,
    /// What the daemon logs.
    log: PathBuf,
    mount: Option<Mount>,
}

/// What leads to the server.
pub(super) enum Net {
    /// SFTP's packets, one by one.
    Wire(Wire),
    /// TCP's bytes, to a real sshd.
    Tcp(TcpMeter),
}

impl Net {
    /// Cuts one connection, chosen by this number, or all; new ones are taken at once.
    pub(super) fn cut_now(&self, which: Which, number: u64) -> usize {
        match self {
            Self::Wire(wire) => wire.cut_now(which, number),
            Self::Tcp(relay) => relay.cut_now(which, number),
        }
    }

    /// Asked when a mount has just come about: what it takes to be logged in, for
    /// [`Net::is_logged_in`].
    pub(super) fn login(&self) -> u64 {
        match self {
            Self::Wire(_) => 0,
            // Where a later login needs less, what programs wait for makes up for it.
            Self::Tcp(relay) => relay.bytes(),
        }
    }

    /// Whether there is a connection that is of use.
    pub(super) fn is_logged_in(&self, login: u64) -> bool {
        match self {
            Self::Wire(_) => true,
            Self::Tcp(relay) => relay.has_carried(login),
        }
    }

    /// How many connections there have been so far.
    pub(super) fn connections(&self) -> u64 {
        match self {
            Self::Wire(wire) => wire.connections(),
            Self::Tcp(relay) => relay.connections(),
        }
    }

    /// Whether the planned cut has happened; it does not happen any more after this.
    pub(super) fn has_happened(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.has_happened(),
            Self::Tcp(relay) => relay.has_happened(),
        }
    }

    /// Plans one cut of everything, at this packet or byte, counted from now on.
    pub(super) fn plan_cut(&self, way: Way, place: u64, which: Which) {
        match self {
            Self::Wire(wire) => wire.cut_once_before(way, place, which),
            Self::Tcp(relay) => relay.cut_after(way, place),
        }
    }
}

/// What a mount leads through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Wire,
    Tcp,
}

impl Place {
    /// A mount of the case's own directory.
    pub(super) fn new(ctx: &Ctx, kind: Kind) -> Self {
        Self::at(ctx, kind, &ctx.behind, &[])
    }

    /// A mount of any directory that the server has, with more options.
    pub(super) fn at(ctx: &Ctx, kind: Kind, behind: &Path, options: &[&str]) -> Self {
        let mut place = Self {
            dir: behind.to_owned(),
            behind: behind.to_owned(),
            net: None,
            log: ctx.lab.fresh("log"),
            mount: None,
        };
        if !ctx.on_mount {
            return place;
        }
        let mut plan = ctx.lab.plan(ctx.transport, behind);
        place.net = Some(Arc::new(match kind {
            Kind::Wire => {
                ctx.needs_sftpfs();
                let wire = Wire::new(&ctx.lab, Manner::default());
                plan = plan.sftp_command(wire.command());
                Net::Wire(wire)
            }
            Kind::Tcp => {
                let relay = TcpMeter::new(&ctx.lab.server);
                let known_hosts = relay.known_hosts(&ctx.lab.server, &ctx.lab.dir);
                plan = plan.port(relay.port).known_hosts(known_hosts);
                Net::Tcp(relay)
            }
        }));
        if ctx.lab.program.is_sftpfs() {
            // The cases make files on the server: that there was none is not to be believed.
            plan = plan.option("negative_timeout=0");
            // For whoever looks into a failure: FAULTS_LOG=debug.
            if let Ok(level) = std::env::var("FAULTS_LOG") {
                plan = plan.option(format!("log_level={level}"));
            }
        }
        for option in options {
            plan = plan.option(*option);
        }
        place.dir.clone_from(&plan.at);
        place.mount = Some(mount_and_log(&plan, &place.log));
        place
    }

    /// The case's own directory, without any mount.
    pub(super) fn plain(ctx: &Ctx) -> Self {
        Self {
            dir: ctx.behind.clone(),
            behind: ctx.behind.clone(),
            net: None,
            log: ctx.lab.fresh("log"),
            mount: None,
        }
    }

    /// A mount that is there already.
    pub(super) fn given(mount: Mount, behind: &Path, log: &Path) -> Self {
        Self {
            dir: mount.at().to_owned(),
            behind: behind.to_owned(),
            net: None,
            log: log.to_owned(),
            mount: Some(mount),
        }
    }

    /// Whether this is a mount.
    pub(super) fn is_mount(&self) -> bool {
        self.mount.is_some()
    }

    /// What leads to the server; there is nothing on a plain directory.
    pub(super) fn net(&self) -> &Net {
        self.net.as_ref().expect("a mount")
    }

    /// The wire of a place made with [`Kind::Wire`].
    pub(super) fn wire(&self) -> &Wire {
        match self.net() {
            Net::Wire(wire) => wire,
            Net::Tcp(_) => panic!("this place has no wire"),
        }
    }

    /// The process that serves the mount.
    pub(super) fn daemon(&self) -> Option<i32> {
        self.mount.as_ref().and_then(Mount::daemon)
    }

    /// The end of what the daemon said, and how it stands: for whoever looks into a failure.
    pub(super) fn diagnosis(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let connections = self.net.as_ref().map_or(0, |net| net.connections());
        format!(
            "\n--- {connections} connections so far; the daemon's last lines:\n{}",
            process::tail(&log, 30)
        )
    }

    /// Ends the mount as SIGKILL does, so that everything that hangs in it gets an error.
    pub(super) fn kill(&mut self) {
        self.mount.take().into_iter().for_each(Mount::abort);
    }

    /// Fails, with what the daemon said.
    #[track_caller]
    pub(super) fn fail(&mut self, why: &str) -> ! {
        let diagnosis = self.diagnosis();
        self.kill();
        panic!("{why}{diagnosis}");
    }

    /// The most memory that the daemon ever had, in MiB (proc(5), VmHWM).
    pub(super) fn peak_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024)
    }

    /// Holds that nothing is left: no file of ours on the server, no handle open there, no more
    /// memory than a bound; then unmounts, which must be clean.
    #[track_caller]
    pub(super) fn end(mut self, ctx: &Ctx) {
        if !self.is_mount() {
            return;
        }
        if let Err(why) = self.nothing_left() {
            self.fail(&why);
        }
        if let Some(mib) = self.peak_mib() {
            ctx.note(format!("the daemon had {mib} MiB at most"));
            if mib > MEMORY_MAX_MIB && ctx.lab.program.is_sftpfs() {
                self.fail(&format!("more than {MEMORY_MAX_MIB} MiB: {mib}"));
            }
        }
        let diagnosis = self.diagnosis();
        if let Some(mount) = self.mount.take()
            && let Err(why) = mount.unmount()
        {
            panic!("{why}{diagnosis}");
        }
    }

    /// Whether the server is as if nobody had been there: no temporary name, no open handle.
    pub(super) fn nothing_left(&self) -> Result<(), String> {
        let left = temporary(&self.behind);
        if !left.is_empty() {
            return Err(format!("left on the server: {left:?}"));
        }
        let end = Instant::now() + HANDLES_CLOSE_WITHIN;
        let mut open = Vec::new();
        let closed = process::wait_for(end, || {
            open = open_on_server(&self.behind);
            open.is_empty().then_some(())
        });
        closed.ok_or_else(|| {
            format!(
                "still open on the server {HANDLES_CLOSE_WITHIN:?} after the last close: {open:?}"
            )
        })
    }
}

/// Mounts in the foreground, so that what is logged can be shown with a failure.
pub(super) fn mount_and_log(plan: &Plan, log: &Path) -> Mount {
    let plan = plan.clone().argument("-f").env("RUST_BACKTRACE", "1");
    match mount_in_foreground(&mut plan.command(), &plan.at, log) {
        Ok(mount) => mount,
        Err(why) => panic!("{why}"),
    }
}

/// Names of ours that are to be gone.
fn temporary(dir: &Path) -> Vec<PathBuf> {
    let all = super::super::site::everything(dir).into_iter();
    all.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".sftpfs")
    })
    .collect()
}

/// Files below a directory that SFTP servers of ours have open, with whose they are.
pub(super) fn open_on_server(behind: &Path) -> Vec<(i32, PathBuf)> {
    let servers = process::descendants_called("sftp-server");
    let mut found = Vec::new();
    for pid in servers {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in descriptors.into_iter().flatten().flatten() {
            match fs::read_link(entry.path()) {
                Ok(path) if path.starts_with(behind) => found.push((pid, path)),
                _ => (),
            }
        }
    }
    found
}

/// What is fetched ahead of a program may be held for the attribute timeout (20 s at most by
/// default is what others have; ours is far shorter).
const HANDLES_CLOSE_WITHIN: Duration = Duration::from_secs(25);

/// Far below what a machine has, far above what was seen.
pub(super) const MEMORY_MAX_MIB: u64 = 256;
