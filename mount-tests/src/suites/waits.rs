//! Nobody waits for a server that says nothing longer than he wants to: it is stopped (SIGSTOP)
//! under the mount, and goes on later.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::case::{Case, Ctx, Suite, case};
use crate::mount::{Mount, Plan, is_mounted};
use crate::process::{self, wait_for, wait_until};
use crate::server::Server;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "waits",
        about: "programs, umount and the mount itself while the server says nothing",
        every_transport: true,
        cases: cases().into_iter().map(Case::on_mount_only).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(a_program_that_waits_ends_by_ctrl_c).within_s(180),
        case(a_program_that_waits_ends_by_sigkill).within_s(180),
        case(a_writer_that_waits_ends_with_its_file_open).within_s(90),
        case(with_soft_every_call_returns_in_time_and_works_later).within_s(180),
        case(umount_ends_in_time).within_s(180),
        case(umount_ends_in_time_while_the_mount_reconnects)
            .over_ssh()
            .within_s(180),
        case(sftpfs_umount_ends_in_time_and_says_what_is_lost).within_s(180),
        case(sigterm_ends_in_time_also_while_programs_wait).within_s(180),
        case(sftpfs_umount_f_ends_at_once_with_all_that_waits).within_s(180),
        case(a_killed_daemon_leaves_a_mount_that_umount_removes).within_s(90),
        case(sigusr1_interrupts_all_that_wait_and_the_mount_goes_on).within_s(90),
    ]
}

/// A mount, and the processes that serve it.
struct Served {
    mount: Option<Mount>,
    /// Those of other mounts.
    others: Vec<i32>,
}

impl Served {
    fn new(ctx: &Ctx, options: &[&str]) -> Self {
        ctx.needs_sftpfs();
        let others = sftp_servers();
        let plan = options
            .iter()
            .fold(ctx.plan(), |plan, option| plan.option(*option));
        let mount = Some(plan.mount().unwrap());
        Self { mount, others }
    }

    fn at(&self) -> &Path {
        self.mount.as_ref().unwrap().at()
    }

    fn signal(&self, signal: Signal) {
        let all = sftp_servers().into_iter();
        for pid in all.filter(|pid| !self.others.contains(pid)) {
            process::signal(pid, signal);
        }
    }

    fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// The daemon has ended, with what was not written.
    fn expect_loss(&mut self) {
        let mut mount = self.mount.take().unwrap();
        let said = mount.expect_end().unwrap_err();
        assert!(said.contains("not clean"), "{said}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            self.go_on();
            drop(mount);
        }
        // A stopped server hears of nothing.
        self.signal(Signal::SIGCONT);
    }
}

/// Of this machine's processes those below this one.
fn sftp_servers() -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for (pid, name) in process::children_of(parent) {
            parents.push(pid.unsigned_abs());
            if name == "sftp-server" {
                found.push(pid);
            }
        }
    }
    found
}

/// Does once more, twice at most, what took longer than is promised: the machine may have had other
/// things to do.
#[track_caller]
fn in_time(promised: Duration, mut act: impl FnMut() -> Duration) {
    let mut all = Vec::new();
    for _ in 0..3 {
        let took = act();
        if took < promised {
            return;
        }
        all.push(took);
    }
    panic!("it took {all:.1?}, promised are {promised:?}");
}

/// Waits until a program waits for the mount.
fn until_it_waits(program: &mut Child) {
    let wchan = format!("/proc/{}/wchan", program.id());
    let waits = wait_for(Instant::now() + PATIENCE, || {
        let at = fs::read_to_string(&wchan).unwrap_or_default();
        let is_waiting = at.starts_with("request_wait") || at.starts_with("folio_wait");
        let is_over = program.try_wait().ok().flatten().is_some();
        (is_waiting || is_over).then_some(!is_over)
    });
    assert_eq!(waits, Some(true), "it does not wait for the mount");
}

/// Ends a program that waits by a signal; how long that took.
#[track_caller]
fn ends_by(mut program: Child, signal: Signal, what: &str) -> Duration {
    until_it_waits(&mut program);
    let asked = Instant::now();
    process::signal(program.id().cast_signed(), signal);
    let status = wait_until(&mut program, asked + PATIENCE);
    let Some(status) = status else {
        panic!("{what}: still there {PATIENCE:?} after {signal}");
    };
    assert_eq!(status.signal(), Some(signal as i32), "{what}: {status}");
    asked.elapsed()
}

/// Programs that each wait for something else, on a mount whose server is stopped.
fn all_end_by(ctx: &Ctx, signal: Signal) {
    let content = vec![7_u8; 3 << 20];
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(ctx.behind.join(name), &content).unwrap();
    }
    fs::create_dir(ctx.behind.join("dir")).unwrap();
    (0..300).for_each(|n| fs::write(ctx.behind.join(format!("dir/{n}")), "").unwrap());
    let served = Served::new(ctx, &[]);
    let at = |name: &str| served.at().join(name).display().to_string();
    let commands = [
        vec!["cat".into(), at("a")],
        vec!["ls".into(), "-l".into(), at("dir")],
        vec!["cp".into(), at("b"), at("new")],
        vec!["mkdir".into(), at("made")],
        vec!["rm".into(), "-f".into(), at("c")],
        vec!["mv".into(), at("d"), at("moved")],
        vec!["truncate".into(), "-s".into(), "5".into(), at("d")],
        vec![
            "dd".into(),
            format!("if={}", at("e")),
            "of=/dev/null".into(),
        ],
        vec!["stat".into(), at("missing")],
    ];
    served.stop();
    for command in commands {
        in_time(A_MOMENT, || {
            let program = process::start(Command::new(&command[0]).args(&command[1..]));
            ends_by(program, signal, &command.join(" "))
        });
    }
    served.go_on();
    assert!(fs::read(served.at().join("a")).unwrap() == content);
    assert_eq!(fs::read_dir(served.at().join("dir")).unwrap().count(), 300);
    fs::write(served.at().join("after"), "written").unwrap();
    assert_eq!(fs::read(ctx.behind.join("after")).unwrap(), b"written");
}

fn a_program_that_waits_ends_by_ctrl_c(ctx: &Ctx) {
    all_end_by(ctx, Signal::SIGINT);
}

fn a_program_that_waits_ends_by_sigkill(ctx: &Ctx) {
    all_end_by(ctx, Signal::SIGKILL);
}

/// Its end closes the file, for which the kernel asks us too.
fn a_writer_that_waits_ends_with_its_file_open(ctx: &Ctx) {
    let served = Served::new(ctx, &["write_behind=1M"]);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        in_time(A_MOMENT, || {
            let out = File::create(served.at().join("out")).unwrap();
            served.stop();
            let mut command = Command::new("cat");
            command.arg("/dev/zero").stdin(Stdio::null()).stdout(out);
            let program = command.spawn().unwrap();
            // Ours is closed with it: that would wait.
            drop(command_is_done(command));
            let took = ends_by(program, signal, "a writer");
            served.go_on();
            took
        });
    }
    fs::write(served.at().join("after"), "written").unwrap();
    assert_eq!(fs::read(ctx.behind.join("after")).unwrap(), b"written");
}

/// A `Command` holds on to the file that it has given away; whoever drops it closes the file, which
/// waits until what is written of it is on the server, and so is done aside.
fn command_is_done(command: Command) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || drop(command))
}

fn with_soft_every_call_returns_in_time_and_works_later(ctx: &Ctx) {
    fs::write(ctx.behind.join("f"), "content").unwrap();
    let served = Served::new(ctx, &["soft=2"]);
    let mut open = File::create(served.at().join("open")).unwrap();
    served.stop();
    let at = served.at();
    let calls: [(&str, &dyn Fn() -> std::io::Result<()>); 6] = [
        ("open", &|| File::open(at.join("f")).map(drop)),
        ("mkdir", &|| fs::create_dir(at.join("d"))),
        ("create", &|| File::create(at.join("new")).map(drop)),
        ("unlink", &|| fs::remove_file(at.join("f"))),
        ("readdir", &|| fs::read_dir(at).map(drop)),
        ("rename", &|| fs::rename(at.join("f"), at.join("g"))),
    ];
    for (name, call) in calls {
        in_time(SOFT_MAX, || {
            let begun = Instant::now();
            let error = call().expect_err(name);
            let errno = error.raw_os_error();
            assert_eq!(errno, Some(libc::EIO), "{name}: {error}");
            begun.elapsed()
        });
    }
    open.write_all(b"kept").unwrap();
    assert!(open.sync_all().is_err());
    served.go_on();
    open.sync_all().unwrap();
    assert_eq!(fs::read(ctx.behind.join("open")).unwrap(), b"kept");
    fs::create_dir(at.join("later")).unwrap();
}

/// Has some data taken over that the stopped server does not get, and leaves nothing open. Written by
/// a program that closes nothing, which would wait for the server.
fn leave_unwritten(served: &Served) {
    let out = File::create(served.at().join("f")).unwrap();
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(out);
    let mut writer = command.spawn().unwrap();
    // Closes the file here.
    drop(command);
    served.stop();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(&[7; UNWRITTEN]).unwrap();
    let io = format!("/proc/{}/io", writer.id());
    let is_written = || {
        let io = fs::read_to_string(&io).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
        (line.parse() == Ok(UNWRITTEN)).then_some(())
    };
    let written = wait_for(Instant::now() + PATIENCE, is_written);
    assert!(written.is_some(), "the data is not taken over");
    writer.kill().unwrap();
    let ended = wait_until(&mut writer, Instant::now() + PATIENCE);
    assert!(ended.is_some(), "a killed writer stays");
}

fn umount_ends_in_time(ctx: &Ctx) {
    ctx.needs_root("as umount(8) does for a mount that is not in fstab");
    in_time(UMOUNT_MAX, || {
        let mut served = Served::new(ctx, &["attr_timeout=0"]);
        leave_unwritten(&served);
        let begun = Instant::now();
        let done = process::run(Command::new("umount").arg(served.at()), PATIENCE);
        assert!(done.ok(), "{}: {}", done.ending(), done.said());
        served.expect_loss();
        begun.elapsed()
    });
}

/// Nobody listens at the server's port, or who does says nothing.
fn umount_ends_in_time_while_the_mount_reconnects(ctx: &Ctx) {
    ctx.needs_root("as umount(8) does for a mount that is not in fstab");
    ctx.needs_sftpfs();
    for is_mute in [false, true] {
        in_time(UMOUNT_MAX, || {
            let mut server = Server::start(&ctx.lab.fresh("sshd")).unwrap();
            let at = ctx.lab.fresh("mnt/leaving");
            fs::create_dir(&at).unwrap();
            let plan = Plan::new(&ctx.lab.program, &server, ctx.transport, &ctx.behind, &at);
            let plan = plan.env("XDG_STATE_HOME", ctx.lab.dir.join("state"));
            let mut mount = plan.mount().unwrap();
            fs::write(at.join("f"), "written").unwrap();
            if is_mute {
                process::signal(server.pid(), Signal::SIGSTOP);
                server.signal_sessions(Signal::SIGKILL);
            } else {
                server.kill();
            }
            let reconnects = wait_for(Instant::now() + PATIENCE, || {
                let mut status = ctx.lab.program.command();
                let told = process::run(status.args(["status", "--json"]).arg(&at), PATIENCE);
                told.out.contains("\"connected\": false").then_some(())
            });
            assert!(reconnects.is_some(), "it takes itself for connected");
            let begun = Instant::now();
            let done = process::run(Command::new("umount").arg(&at), PATIENCE);
            assert!(done.ok(), "{}: {}", done.ending(), done.said());
            mount.expect_end().unwrap();
            let took = begun.elapsed();
            process::signal(server.pid(), Signal::SIGCONT);
            took
        });
    }
}

fn sftpfs_umount_ends_in_time_and_says_what_is_lost(ctx: &Ctx) {
    in_time(UMOUNT_MAX, || {
        let mut served = Served::new(ctx, &[]);
        leave_unwritten(&served);
        let mut command = ctx.lab.program.command();
        let done = process::run(command.arg("umount").arg(served.at()), PATIENCE);
        assert_eq!(done.code(), Some(32), "{}: {}", done.ending(), done.said());
        let said = "5000 bytes could not be written";
        assert!(done.err.contains(said), "{}", done.err);
        assert!(done.err.contains("/f\""), "{}", done.err);
        served.expect_loss();
        done.took
    });
}

/// A program that waits for a mount, and what it says when it ends.
fn waiting(served: &Served) -> Child {
    let mut command = Command::new("cat");
    // The kernel has a second one that looks up the same name wait for the first, not for us.
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    command.arg(served.at().join(format!("nothing-{number}")));
    let mut program = command.stderr(Stdio::piped()).spawn().unwrap();
    until_it_waits(&mut program);
    program
}

fn ends_soon(mut program: Child) {
    let ended = wait_until(&mut program, Instant::now() + PATIENCE);
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
}

fn sigterm_ends_in_time_also_while_programs_wait(ctx: &Ctx) {
    in_time(UMOUNT_MAX, || {
        let mut served = Served::new(ctx, &[]);
        leave_unwritten(&served);
        let program = waiting(&served);
        let daemon = served.mount.as_ref().unwrap().daemon().unwrap();
        let begun = Instant::now();
        process::signal(daemon, Signal::SIGTERM);
        served.expect_loss();
        let took = begun.elapsed();
        ends_soon(program);
        took
    });
}

fn sftpfs_umount_f_ends_at_once_with_all_that_waits(ctx: &Ctx) {
    in_time(A_MOMENT, || {
        let mut served = Served::new(ctx, &[]);
        leave_unwritten(&served);
        let program = waiting(&served);
        let at = served.at().to_owned();
        let mut command = ctx.lab.program.command();
        let done = process::run(command.args(["umount", "-f"]).arg(&at), PATIENCE);
        assert_eq!(done.code(), Some(32), "{}: {}", done.ending(), done.said());
        assert!(done.err.contains("5000 bytes"), "{}", done.err);
        assert!(!is_mounted(&at));
        ends_soon(program);
        served.expect_loss();
        done.took
    });
}

fn a_killed_daemon_leaves_a_mount_that_umount_removes(ctx: &Ctx) {
    ctx.needs_root("as umount(8) does for a mount that is not in fstab");
    let mut served = Served::new(ctx, &[]);
    served.stop();
    let program = waiting(&served);
    let at = served.at().to_owned();
    process::signal(
        served.mount.as_ref().unwrap().daemon().unwrap(),
        Signal::SIGKILL,
    );
    ends_soon(program);
    let done = process::run(Command::new("umount").arg(&at), PATIENCE);
    assert!(done.ok(), "{}: {}", done.ending(), done.said());
    assert!(!is_mounted(&at));
    served.expect_loss();
}

fn sigusr1_interrupts_all_that_wait_and_the_mount_goes_on(ctx: &Ctx) {
    fs::write(ctx.behind.join("f"), "content").unwrap();
    let served = Served::new(ctx, &[]);
    served.stop();
    let programs = [waiting(&served), waiting(&served)];
    // In the kernel's queue they do not wait for us yet.
    are_with_us(ctx, &served, programs.len());
    process::signal(
        served.mount.as_ref().unwrap().daemon().unwrap(),
        Signal::SIGUSR1,
    );
    programs.into_iter().for_each(ends_soon);
    served.go_on();
    assert_eq!(fs::read(served.at().join("f")).unwrap(), b"content");
}

/// Waits until the mount knows of so many calls that wait.
fn are_with_us(ctx: &Ctx, served: &Served, calls: usize) {
    let key = format!("\"waiting\": {calls},");
    let is_known = || {
        let mut command = ctx.lab.program.command();
        let told = process::run(
            command.args(["status", "--json"]).arg(served.at()),
            PATIENCE,
        );
        told.out.contains(&key).then_some(())
    };
    let known = wait_for(Instant::now() + PATIENCE, is_known);
    assert!(known.is_some(), "the mount does not know who waits");
}

/// How many names were looked up.
static NAMES: AtomicU32 = AtomicU32::new(0);
/// Bytes that the server does not get.
const UNWRITTEN: usize = 5000;
/// Who needs longer hangs, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(20);
/// As long as Ctrl-C may take.
const A_MOMENT: Duration = Duration::from_secs(1);
/// With soft=2.
const SOFT_MAX: Duration = Duration::from_secs(3);
/// As long as an unmount may take.
const UMOUNT_MAX: Duration = Duration::from_secs(5);
