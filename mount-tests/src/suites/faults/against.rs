//! What becomes of the same works under the same cuts in other mounts: told, never a failure.
//!
//! Every system is mounted anew for each work, has the same link (a relay of TCP to the same sshd)
//! and the same seeds; the cuts begin when it has answered and the work's directory is there, and
//! the pause between two of them when it has logged in again. What a system cannot do without any
//! cut is left out.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::look::{Links, look};
use super::place::{Net, Place};
use super::random::{Cutter, PAUSE, arena, cut, sources};
use super::watch::{HUNG, WRONG, attempted};
use super::works::{Arena, PROGRAM_MAX, Sources, WORKS, Work};
use crate::case::Ctx;
use crate::mount::mount_in_foreground;
use crate::process;
use crate::wire::{TcpMeter, Which};

/// Another mount, ready to be started.
struct System {
    name: &'static str,
    /// The command that mounts, in the foreground.
    command: fn(&Ctx, &TcpMeter, &Path) -> Option<Command>,
}

const SYSTEMS: [System; 3] = [
    System {
        name: "sftpfs",
        command: sftpfs,
    },
    System {
        name: "sshfs -o reconnect,ServerAliveInterval=15,ServerAliveCountMax=3",
        command: sshfs,
    },
    System {
        name: "rclone mount --vfs-cache-mode writes",
        command: rclone,
    },
];

/// How often the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuts {
    None,
    /// Once in the work, 50 to 500 ms after it began.
    One,
    /// 50 to 500 ms after it began, and after each login.
    Many,
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no cut",
            Self::One => "one cut",
            Self::Many => "cuts every 50 to 500 ms",
        })
    }
}

pub(super) fn what_others_make_of_the_same_cuts_is_told(ctx: &Ctx) {
    if !ctx.full {
        ctx.skip("compares with others: --full");
    }
    let sources = sources(ctx, &WORKS);
    for system in &SYSTEMS {
        let mut able = Vec::new();
        for work in &WORKS {
            match once(ctx, system, *work, &sources, ctx.seed, Cuts::None).map(|it| it.outcome) {
                None => break,
                Some(Outcome::Right) => able.push(*work),
                Some(other) => ctx.note(format!(
                    "{}: cannot do {} without any cut: {}",
                    system.name,
                    work.name,
                    other.line()
                )),
            }
        }
        if able.is_empty() {
            ctx.note(format!("{}: not installed, or does nothing", system.name));
            continue;
        }
        for cuts in [Cuts::One, Cuts::Many] {
            compare(ctx, system, &able, &sources, cuts);
        }
    }
}

/// Each work some times; tells what came of them.
fn compare(ctx: &Ctx, system: &System, works: &[Work], sources: &Sources, cuts: Cuts) {
    let mut sum = Sum::default();
    for turn in 0..TURNS {
        for work in works {
            let seed = ctx.seed.wrapping_add(turn);
            let Some(result) = once(ctx, system, *work, sources, seed, cuts) else {
                return;
            };
            sum.add(&result);
            if result.outcome != Outcome::Right {
                ctx.note(format!(
                    "  {} (seed {seed}), {} cuts, {} incomplete: {}",
                    work.name,
                    result.cuts,
                    result.incomplete,
                    result.outcome.line()
                ));
            }
        }
    }
    ctx.note(format!("{}, {cuts}: {sum}", system.name));
}

/// What came of several works.
#[derive(Default)]
struct Sum {
    works: u64,
    cuts: u64,
    right: u64,
    failed: u64,
    wrong: u64,
    hung: u64,
    incomplete: usize,
}

impl Sum {
    fn add(&mut self, result: &Tried) {
        self.works += 1;
        self.cuts += result.cuts;
        self.incomplete += result.incomplete;
        match result.outcome {
            Outcome::Right => self.right += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Wrong(_) => self.wrong += 1,
            Outcome::Hung(_) => self.hung += 1,
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} works, {} cuts: {} right, {} with an error at a program, {} wrong without any \
             error, {} hung; {} files left with other content than they should have",
            self.works, self.cuts, self.right, self.failed, self.wrong, self.hung, self.incomplete
        )
    }
}

/// A work, once.
struct Tried {
    outcome: Outcome,
    cuts: u64,
    /// Files on the server that are there and have not the content that was to be written.
    incomplete: usize,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Right,
    /// A program was told of an error.
    Failed(String),
    /// No program was, but the result is not as it should be.
    Wrong(String),
    Hung(String),
}

impl Outcome {
    fn of(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Right,
            Err(why) if why.contains(HUNG) || why.contains("did not end within") => Self::Hung(why),
            Err(why) if why.contains(WRONG) => Self::Wrong(why),
            Err(why) => Self::Failed(why),
        }
    }

    fn line(&self) -> String {
        let (Self::Failed(why) | Self::Wrong(why) | Self::Hung(why)) = self else {
            return "right".into();
        };
        let text: Vec<_> = why.split_whitespace().collect();
        text.join(" ").chars().take(240).collect()
    }
}

/// Does a work once in a mount of its own; none where the system is not installed.
fn once(
    ctx: &Ctx,
    system: &System,
    work: Work,
    sources: &Sources,
    seed: u64,
    cuts: Cuts,
) -> Option<Tried> {
    let relay = TcpMeter::new(&ctx.lab.server);
    let behind = ctx.lab.fresh("export/other");
    fs::create_dir(&behind).unwrap();
    let at = ctx.lab.fresh("mnt/other");
    let log = ctx.lab.fresh("log");
    let mut command = (system.command)(ctx, &relay, &behind)?;
    command.arg(&at).env_remove("SSH_AUTH_SOCK");
    let mut tried = Tried {
        outcome: Outcome::Right,
        cuts: 0,
        incomplete: 0,
    };
    let mount = match mount_in_foreground(&mut command, &at, &log) {
        Ok(mount) => mount,
        Err(why) => {
            tried.outcome = Outcome::Failed(why);
            return Some(tried);
        }
    };
    let mut place = Place::given(mount, &behind, &log);
    let arena = Arena {
        dir: place.dir.join("work"),
        behind: behind.join("work"),
        ..arena(&behind, &work, sources, seed)
    };
    // Some say that they are mounted before they are connected.
    let (dir, seen) = (arena.dir.clone(), arena.behind.clone());
    let ready = attempted(&mut place, PATIENCE, move |_| {
        fs::create_dir(&dir).map_err(|why| format!("not ready: {why}"))?;
        // Others upload when they like.
        let end = Instant::now() + PATIENCE;
        let there = process::wait_for(end, || seen.exists().then_some(()));
        there.ok_or_else(|| "not ready: mkdir does not come to the server".into())
    });
    if let Err(why) = ready {
        tried.outcome = Outcome::Failed(why);
        return Some(tried);
    }
    let count = Arc::new(AtomicU64::new(0));
    let net = Arc::new(Net::Tcp(relay));
    let cutter = cutter(&net, &count, seed, cuts);
    let its_arena = arena.clone();
    let result = attempted(&mut place, PATIENCE, move |steps| {
        (work.run)(&its_arena, steps)
    });
    if let Some(cutter) = cutter {
        cutter.stop();
    }
    place.kill();
    tried.cuts = count.load(Ordering::SeqCst);
    tried.outcome = Outcome::of(result);
    if tried.outcome != Outcome::Right {
        tried.incomplete = incomplete(&arena, work);
    }
    let _ = fs::remove_dir_all(&behind);
    Some(tried)
}

fn cutter(net: &Arc<Net>, count: &Arc<AtomicU64>, seed: u64, cuts: Cuts) -> Option<Cutter> {
    let (net, so_far, login) = (Arc::clone(net), Arc::clone(count), net.login());
    (cuts != Cuts::None).then(|| {
        Cutter::start(seed, Arc::clone(count), PAUSE, move |random| match cuts {
            Cuts::One => so_far.load(Ordering::SeqCst) == 0 && net.cut_now(Which::All, 0) > 0,
            _ => cut(&net, login, random),
        })
    })
}

/// Files of a tree that was copied that are there with other content than the original's.
fn incomplete(arena: &Arena, work: Work) -> usize {
    let copy = match work.name {
        "tar_x" => "out",
        "cp_a" => "in",
        _ => return 0,
    };
    let (Ok(expected), Ok(found)) = (
        look(&arena.sources.tree, Links::Ignored),
        look(&arena.behind.join(copy), Links::Ignored),
    ) else {
        return 0;
    };
    found
        .iter()
        .filter(|(path, entry)| {
            let original = expected.get(*path);
            entry.content.is_some() && original.is_none_or(|it| it.content != entry.content)
        })
        .count()
}

fn sftpfs(ctx: &Ctx, relay: &TcpMeter, behind: &Path) -> Option<Command> {
    ctx.lab.program.is_sftpfs().then(|| {
        let mut command = ctx.lab.program.command();
        command.args(["-o", "negative_timeout=0", "-F", "none"]);
        command.env("XDG_STATE_HOME", ctx.lab.dir.join("state"));
        ssh_options(&mut command, ctx, relay);
        command.arg("-f").arg(source(ctx, behind));
        command
    })
}

fn sshfs(ctx: &Ctx, relay: &TcpMeter, behind: &Path) -> Option<Command> {
    installed("sshfs").then(|| {
        let mut command = Command::new("sshfs");
        // As its manual recommends for connections that break.
        let options = "reconnect,ServerAliveInterval=15,ServerAliveCountMax=3";
        command.args(["-o", options, "-F", "none"]);
        ssh_options(&mut command, ctx, relay);
        command.arg("-f").arg(source(ctx, behind));
        command
    })
}

fn rclone(ctx: &Ctx, relay: &TcpMeter, behind: &Path) -> Option<Command> {
    if !installed("rclone") {
        return None;
    }
    let server = &ctx.lab.server;
    let config = ctx.lab.fresh("rclone.conf");
    let text = format!(
        "[lab]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {}\nkey_file = {}\n\
         known_hosts_file = {}\nshell_type = unix\n",
        relay.port,
        server.user,
        server.user_key().display(),
        relay.known_hosts(server, &ctx.lab.dir).display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("rclone");
    command.arg("mount").arg("--config").arg(config);
    command
        .arg("--cache-dir")
        .arg(ctx.lab.fresh("rclone-cache"));
    command.args(["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]);
    command.arg(format!("lab:{}", behind.display()));
    Some(command)
}

fn installed(program: &str) -> bool {
    let mut which = Command::new("sh");
    which.args(["-c", "command -v \"$1\"", "sh", program]);
    process::run(&mut which, Duration::from_secs(10)).ok()
}

fn ssh_options(command: &mut Command, ctx: &Ctx, relay: &TcpMeter) {
    let server = &ctx.lab.server;
    let known_hosts = relay.known_hosts(server, &ctx.lab.dir);
    command.args(["-p", &relay.port.to_string()]);
    for option in [
        format!("IdentityFile={}", server.user_key().display()),
        "IdentitiesOnly=yes".into(),
        format!("UserKnownHostsFile={}", known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=yes".into(),
        "BatchMode=yes".into(),
    ] {
        command.args(["-o", &option]);
    }
}

fn source(ctx: &Ctx, behind: &Path) -> String {
    format!("{}@127.0.0.1:{}", ctx.lab.server.user, behind.display())
}

/// Each work so often.
const TURNS: u64 = 3;
/// For one step, which may be a whole program: whoever needs longer hangs.
const PATIENCE: Duration = PROGRAM_MAX;
