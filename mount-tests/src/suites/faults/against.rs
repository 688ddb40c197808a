//! What becomes of the same works under the same cuts in other mounts: told, never a failure.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::place::{Net, Place};
use super::random::{Cutter, arena, sources};
use super::watch::attempted;
use super::works::{Arena, WORKS, Work};
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
        name: "sshfs -o reconnect",
        command: sshfs,
    },
    System {
        name: "rclone mount --vfs-cache-mode writes",
        command: rclone,
    },
];

pub(super) fn what_others_make_of_the_same_cuts_is_told(ctx: &Ctx) {
    if !ctx.full {
        ctx.skip("compares with others: --full");
    }
    let sources = sources(ctx, &WORKS);
    for system in &SYSTEMS {
        let mut right = Vec::new();
        let mut wrong = Vec::new();
        let mut cannot = Vec::new();
        for work in &WORKS {
            let arena = |behind: &Path| arena(behind, work, &sources, ctx.seed);
            // What it cannot do without any cut says nothing about cuts.
            match once(ctx, system, *work, &arena, false) {
                Outcome::Missing => break,
                Outcome::Failed(_, why) => {
                    cannot.push(format!("{}: {why}", work.name));
                    continue;
                }
                Outcome::Right(_) => (),
            }
            match once(ctx, system, *work, &arena, true) {
                Outcome::Right(cuts) => right.push(format!("{} ({cuts} cuts)", work.name)),
                Outcome::Failed(cuts, why) => {
                    wrong.push(format!("{} ({cuts} cuts): {why}", work.name));
                }
                Outcome::Missing => (),
            }
        }
        let count = right.len() + wrong.len();
        if count + cannot.len() == 0 {
            ctx.note(format!("{}: not installed", system.name));
            continue;
        }
        ctx.note(format!(
            "{}: {} of {count} works came out right under cuts: {}",
            system.name,
            right.len(),
            right.join(", ")
        ));
        for (why, all) in [
            ("went wrong", wrong),
            ("impossible without any cut", cannot),
        ] {
            for line in all {
                ctx.note(format!(
                    "  {why}: {}",
                    line.lines().take(2).collect::<Vec<_>>().join(" ")
                ));
            }
        }
    }
}

enum Outcome {
    /// After so many cuts.
    Right(u64),
    Failed(u64, String),
    Missing,
}

fn once(
    ctx: &Ctx,
    system: &System,
    work: Work,
    arena: &dyn Fn(&Path) -> Arena,
    cut: bool,
) -> Outcome {
    let relay = TcpMeter::new(&ctx.lab.server);
    let behind = ctx.lab.fresh("export/other");
    fs::create_dir(&behind).unwrap();
    let at = ctx.lab.fresh("mnt/other");
    let log = ctx.lab.fresh("log");
    let Some(mut command) = (system.command)(ctx, &relay, &behind) else {
        return Outcome::Missing;
    };
    command.arg(&at).env_remove("SSH_AUTH_SOCK");
    let mount = match mount_in_foreground(&mut command, &at, &log) {
        Ok(mount) => mount,
        Err(why) => return Outcome::Failed(0, why),
    };
    let mut place = Place::given(mount, &behind, &log);
    // Some say that they are mounted before they are connected.
    let at = place.dir.clone();
    if let Err(why) = attempted(&mut place, PATIENCE, move |_| {
        fs::read_dir(&at).map(drop).map_err(|why| why.to_string())
    }) {
        return Outcome::Failed(0, why);
    }
    let net = Arc::new(Net::Tcp(relay));
    let cuts = Arc::new(AtomicU64::new(0));
    let cutter = cut.then(|| {
        let net = Arc::clone(&net);
        Cutter::start(ctx.seed, Arc::clone(&cuts), 50..501, move |random| {
            let which = *random.pick(&[Which::All, Which::One]);
            net.cut_now(which, random.next()) > 0
        })
    });
    let arena = Arena {
        dir: place.dir.join("work"),
        behind: behind.join("work"),
        ..arena(&behind)
    };
    // Others upload when they like: what is compared on the server waits for their end.
    let its_arena = arena.clone();
    let mut result = attempted(&mut place, PATIENCE, move |steps| {
        fs::create_dir(&its_arena.dir).map_err(|why| why.to_string())?;
        (work.run)(&its_arena, steps)
    });
    if let Some(cutter) = cutter {
        cutter.stop();
    }
    let cuts = cuts.load(Ordering::SeqCst);
    place.kill();
    if let Err(why) = &mut result {
        *why = why.chars().take(300).collect();
    }
    match result {
        Ok(()) => Outcome::Right(cuts),
        Err(why) => Outcome::Failed(cuts, why),
    }
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
        command.args(["-o", "reconnect,ServerAliveInterval=15", "-F", "none"]);
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

/// For one step: whoever needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
