//! The machine can sleep while programs wait for a server that says nothing, and what is asked before
//! and afterwards is answered. No machine sleeps here: logind is one of ours on a private bus, and the
//! kernel freezes the programs of a group as it freezes all of them for a sleep.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::case::{Case, Ctx, Suite, case};
use crate::logind::{self, Bus, Peer};
use crate::mount::Mount;
use crate::process::{self, wait_for, wait_until};
use crate::server::sftp_server_path;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "sleeps",
        about: "before the machine sleeps, and when it is woken",
        every_transport: false,
        cases: cases().into_iter().map(Case::on_mount_only).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(a_lock_is_held_as_long_as_it_is_mounted),
        case(before_a_sleep_who_waits_is_ended_and_the_lock_given_back),
        case(what_the_server_answers_in_time_is_answered_before_a_sleep),
        case(while_the_machine_falls_asleep_nobody_waits_for_a_silent_server),
        case(when_it_is_woken_the_connection_is_checked_and_the_lock_taken_anew),
        case(a_program_that_reads_a_mapping_is_not_killed_for_a_sleep),
        case(who_is_not_logind_ends_nothing),
        case(without_a_lock_who_waits_is_ended_all_the_same),
        case(a_bus_may_come_late_and_go_and_come_again).within_s(60),
        case(a_bus_that_says_nothing_holds_nothing_up),
        case(all_programs_of_a_mount_can_be_frozen).within_s(60),
    ]
}

/// A mount with its own server below it, on a machine with a bus and logind.
struct Machine {
    mount: Option<Mount>,
    logind: Peer,
    bus: Bus,
    _dir: TempDir,
}

impl Machine {
    fn new(ctx: &Ctx) -> Self {
        Self::with(ctx, false)
    }

    fn with(ctx: &Ctx, refuses: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = bus(ctx, dir.path());
        let logind = Peer::logind(&bus, refuses);
        let mount = Some(mount(ctx, dir.path()));
        let machine = Self {
            mount,
            logind,
            bus,
            _dir: dir,
        };
        if !refuses {
            machine.is_locked(1);
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.as_ref().unwrap().at().join(name)
    }

    fn is_locked(&self, taken: usize) {
        self.logind.expect("a lock", SOON, |locks| {
            locks.taken == taken && locks.held == 1
        });
    }

    fn is_released(&self) {
        self.logind
            .expect("no lock", AT_ONCE, |locks| locks.held == 0);
    }

    fn server(&self) -> i32 {
        server_of(self.mount.as_ref().unwrap())
    }

    fn stop(&self) {
        process::signal(self.server(), Signal::SIGSTOP);
    }

    fn go_on(&self) {
        process::signal(self.server(), Signal::SIGCONT);
    }

    /// A program that waits for the server.
    fn waiting(&self, name: &str) -> Child {
        let mut command = Command::new("cat");
        command.arg(self.at(name));
        let program = process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        until_it_waits(&program);
        program
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            for server in servers_of(&mount) {
                process::signal(server, Signal::SIGCONT);
            }
        }
    }
}

fn bus(ctx: &Ctx, dir: &Path) -> Bus {
    Bus::start(dir).unwrap_or_else(|| ctx.skip("there is no dbus-daemon here"))
}

/// A server that is a child of the mount's process, whatever the transport of the run.
fn mount(ctx: &Ctx, bus: &Path) -> Mount {
    ctx.needs_sftpfs();
    let Some(server) = sftp_server_path() else {
        ctx.skip("there is no sftp-server here");
    };
    let plan = ctx.plan().sftp_command(&server.display().to_string());
    let plan = plan.env("DBUS_SYSTEM_BUS_ADDRESS", logind::address(bus));
    plan.mount().unwrap()
}

fn servers_of(mount: &Mount) -> Vec<i32> {
    let below = process::children_of(mount.daemon().unwrap().unsigned_abs());
    let servers = below.into_iter().filter(|(_, name)| name == "sftp-server");
    servers.map(|(pid, _)| pid).collect()
}

fn server_of(mount: &Mount) -> i32 {
    servers_of(mount)[0]
}

/// Waits until a program waits for the mount, or for another one that does and has locked the same
/// directory.
fn until_it_waits(program: &Child) {
    let about = |what: &str| fs::read_to_string(format!("/proc/{}/{what}", program.id()));
    let is_asking = || about("wchan").is_ok_and(|at| at.starts_with("request_wait"));
    // The name, which stands in brackets, is followed by the state.
    let is_asleep = || about("stat").is_ok_and(|stat| stat.contains(") D "));
    let waits = wait_for(Instant::now() + SOON, || {
        (is_asking() || is_asleep()).then_some(())
    });
    assert!(waits.is_some(), "it does not wait: {:?}", about("wchan"));
}

/// It ends with an error of its own, in the time that logind gives.
#[track_caller]
fn was_interrupted(mut program: Child) {
    let status = wait_until(&mut program, Instant::now() + AT_ONCE);
    let status = status.unwrap_or_else(|| panic!("still there after {AT_ONCE:?}"));
    let mut said = String::new();
    if let Some(mut pipe) = program.stderr.take() {
        std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    }
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Interrupted system call"), "{said}");
}

fn a_lock_is_held_as_long_as_it_is_mounted(ctx: &Ctx) {
    let mut machine = Machine::new(ctx);
    let [what, who, why, mode, _] = machine.logind.locks().last;
    assert_eq!((what.as_str(), mode.as_str()), ("sleep", "delay"));
    assert_eq!(who, "sftpfs");
    assert!(why.contains(ctx.behind.to_str().unwrap()), "{why}");
    machine.mount.take().unwrap().unmount().unwrap();
    machine.is_released();
}

fn before_a_sleep_who_waits_is_ended_and_the_lock_given_back(ctx: &Ctx) {
    fs::write(ctx.behind.join("a"), "content").unwrap();
    let machine = Machine::new(ctx);
    machine.stop();
    let programs = [machine.waiting("a"), machine.waiting("b")];
    machine.logind.prepare_for_sleep(true);
    programs.into_iter().for_each(was_interrupted);
    machine.is_released();
    machine.go_on();
    machine.logind.prepare_for_sleep(false);
    machine.is_locked(2);
    assert_eq!(fs::read(machine.at("a")).unwrap(), b"content");
}

/// Nor does a sleep wait longer than they do.
fn what_the_server_answers_in_time_is_answered_before_a_sleep(ctx: &Ctx) {
    fs::write(ctx.behind.join("a"), "content").unwrap();
    let machine = Machine::new(ctx);
    machine.stop();
    let program = machine.waiting("a");
    machine.logind.prepare_for_sleep(true);
    machine.go_on();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    machine.is_released();
    // Whoever asks a server that answers, asks on.
    assert_eq!(fs::read(machine.at("a")).unwrap(), b"content");
    fs::write(machine.at("new"), "written").unwrap();
    assert_eq!(fs::read(ctx.behind.join("new")).unwrap(), b"written");
}

fn while_the_machine_falls_asleep_nobody_waits_for_a_silent_server(ctx: &Ctx) {
    fs::write(ctx.behind.join("known"), "").unwrap();
    let machine = Machine::new(ctx);
    fs::metadata(machine.at("known")).unwrap();
    machine.stop();
    machine.logind.prepare_for_sleep(true);
    machine.is_released();
    for name in ["a", "b", "c"] {
        let mut stat = Command::new("stat");
        stat.arg(machine.at(name)).stderr(Stdio::piped());
        was_interrupted(process::start(&mut stat));
    }
    machine.logind.prepare_for_sleep(false);
    machine.is_locked(2);
    // Now one waits again.
    let mut program = machine.waiting("d");
    machine.go_on();
    let status = wait_until(&mut program, Instant::now() + SOON);
    assert_eq!(status.unwrap().code(), Some(1), "there is no such file");
}

fn when_it_is_woken_the_connection_is_checked_and_the_lock_taken_anew(ctx: &Ctx) {
    let machine = Machine::new(ctx);
    let before = machine.server();
    machine.logind.prepare_for_sleep(true);
    machine.is_released();
    // The server forgets us in our sleep, and nobody asks it anything afterwards.
    machine.stop();
    machine.logind.prepare_for_sleep(false);
    machine.is_locked(2);
    let mount = machine.mount.as_ref().unwrap();
    let is_new = || servers_of(mount).into_iter().find(|pid| *pid != before);
    let found = wait_for(Instant::now() + CHECKED_WITHIN, is_new);
    assert!(found.is_some(), "the dead connection is still used");
    fs::write(machine.at("after"), "written").unwrap();
    assert_eq!(fs::read(ctx.behind.join("after")).unwrap(), b"written");
}

/// An error would be a SIGBUS.
fn a_program_that_reads_a_mapping_is_not_killed_for_a_sleep(ctx: &Ctx) {
    fs::write(ctx.behind.join("mapped"), vec![b'm'; 1 << 20]).unwrap();
    let machine = Machine::new(ctx);
    let script = "import mmap,sys\n\
                  f=open(sys.argv[1],'rb')\n\
                  m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n\
                  print('mapped',flush=True)\nsys.stdin.readline()\nprint(m[0:1])";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(machine.at("mapped"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut program) = command.spawn() else {
        ctx.skip("there is no python3 here");
    };
    let mut line = [0; 7];
    let out = program.stdout.as_mut().unwrap();
    std::io::Read::read_exact(out, &mut line).unwrap();
    machine.stop();
    drop(program.stdin.take());
    until_it_waits(&program);
    let call = fs::read_to_string(format!("/proc/{}/syscall", program.id()));
    machine.logind.prepare_for_sleep(true);
    machine.is_released();
    let is_seen = call.is_ok_and(|call| call.starts_with("-1"));
    machine.go_on();
    machine.logind.prepare_for_sleep(false);
    let output = program.wait_with_output().unwrap();
    if !is_seen {
        ctx.skip("/proc does not tell page faults here");
    }
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"b'm'\n");
}

fn who_is_not_logind_ends_nothing(ctx: &Ctx) {
    let machine = Machine::new(ctx);
    machine.stop();
    let mut program = machine.waiting("a");
    let name = machine.logind.locks().last[4].clone();
    let somebody = Peer::somebody(&machine.bus);
    somebody.prepare_for_sleep(true);
    somebody.prepare_one_for_sleep(true, &name);
    // What comes after it is done after it.
    machine.logind.prepare_for_sleep(false);
    machine.is_locked(2);
    assert!(program.try_wait().unwrap().is_none());
    machine.logind.prepare_for_sleep(true);
    was_interrupted(program);
}

fn without_a_lock_who_waits_is_ended_all_the_same(ctx: &Ctx) {
    let machine = Machine::with(ctx, true);
    machine.stop();
    // When the mount listens is not seen here, so that the first may be said too early.
    let mut program = machine.waiting("a");
    let ended = wait_for(Instant::now() + SOON, || {
        machine.logind.prepare_for_sleep(true);
        program.try_wait().unwrap()
    });
    assert!(ended.is_some(), "it waits on");
    assert_eq!(machine.logind.locks().taken, 0);
}

fn a_bus_may_come_late_and_go_and_come_again(ctx: &Ctx) {
    let dir = tempfile::tempdir().unwrap();
    drop(bus(ctx, dir.path()));
    let mount = mount(ctx, dir.path());
    for _ in 0..2 {
        fs::write(mount.at().join("f"), "without a bus").unwrap();
        let bus = bus(ctx, dir.path());
        // logind may come later than the bus, too.
        let logind = Peer::logind(&bus, false);
        let has_one = |locks: &logind::Locks| locks.held == 1;
        logind.expect("a lock on the new bus", BACK_WITHIN, has_one);
        process::signal(server_of(&mount), Signal::SIGSTOP);
        let mut cat = Command::new("cat");
        cat.arg(mount.at().join("missing")).stderr(Stdio::piped());
        let program = process::start(&mut cat);
        until_it_waits(&program);
        logind.prepare_for_sleep(true);
        was_interrupted(program);
        logind.expect("no lock", AT_ONCE, |locks| locks.held == 0);
        process::signal(server_of(&mount), Signal::SIGCONT);
        // It goes before it says that the machine was woken.
        drop(bus);
        drop(logind);
    }
    // Nobody is ended any more: the bus that said so is gone.
    let is_open = || fs::read(mount.at().join("f")).ok();
    let read = wait_for(Instant::now() + SOON, is_open);
    assert_eq!(read.as_deref(), Some(&b"without a bus"[..]));
    mount.unmount().unwrap();
}

fn a_bus_that_says_nothing_holds_nothing_up(ctx: &Ctx) {
    let dir = tempfile::tempdir().unwrap();
    let _mute = UnixListener::bind(dir.path().join("bus")).unwrap();
    let mount = mount(ctx, dir.path());
    fs::write(mount.at().join("f"), "content").unwrap();
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"content");
    mount.unmount().unwrap();
}

/// With the process of the mount and its server, as a sleep does it.
fn all_programs_of_a_mount_can_be_frozen(ctx: &Ctx) {
    let Some(group) = Group::new() else {
        ctx.skip("there is no freezer of cgroups v1 that is ours (cgroup-v1/freezer-subsystem)");
    };
    (0..300).for_each(|n| fs::write(ctx.behind.join(format!("{n}")), "").unwrap());
    let machine = Machine::new(ctx);
    machine.stop();
    let quiet = |program: &str| {
        let mut command = Command::new(program);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut programs = vec![
        process::start(quiet("cat").arg(machine.at("missing"))),
        process::start(quiet("ls").arg("-l").arg(machine.at(""))),
        process::start(quiet("mkdir").arg(machine.at("made"))),
        process::start(quiet("cp").arg("/bin/sh").arg(machine.at("new"))),
    ];
    programs.iter().for_each(until_it_waits);
    // Programs that ask again and again, now and then.
    let script = "while :; do stat \"$1\"; sleep 0.1; done";
    let mut shell = quiet("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(machine.at("now-and-then"));
    programs.push(process::start(&mut shell));
    for program in &programs {
        group.take(program.id().cast_signed());
    }
    // The kernel cannot do it yet.
    assert!(!group.is_frozen_within(Duration::from_millis(300)));
    group.thaw();
    group.take(machine.mount.as_ref().unwrap().daemon().unwrap());
    machine.logind.prepare_for_sleep(true);
    machine.is_released();
    // A call that begins in the very moment of the freeze is in its way: then the next try counts.
    let is_frozen = (0..5).any(|_| {
        let is_frozen = group.is_frozen_within(SOON);
        if !is_frozen {
            ctx.note(format!("still awake: {:?}", group.awake()));
            group.thaw();
        }
        is_frozen
    });
    assert!(is_frozen, "never frozen");
    group.thaw();
    machine.go_on();
    machine.logind.prepare_for_sleep(false);
    machine.is_locked(2);
    drop(group);
    for program in &mut programs {
        process::signal(-program.id().cast_signed(), Signal::SIGKILL);
        process::signal(program.id().cast_signed(), Signal::SIGKILL);
        assert!(wait_until(program, Instant::now() + SOON).is_some());
    }
    fs::write(machine.at("after"), "written").unwrap();
    assert_eq!(fs::read(ctx.behind.join("after")).unwrap(), b"written");
}

/// Programs that the kernel freezes together: cgroup-v1/freezer-subsystem of its documentation.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let at = Path::new(FREEZER).join(format!("sftpfs-tests-{}", std::process::id()));
        fs::create_dir(&at).ok()?;
        let group = Self(at);
        group.0.join("freezer.state").exists().then_some(group)
    }

    fn take(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn is_frozen_within(&self, most: Duration) -> bool {
        let state = self.0.join("freezer.state");
        fs::write(&state, "FROZEN").unwrap();
        let is_frozen = || {
            let state = fs::read_to_string(&state).unwrap();
            (state.trim() == "FROZEN").then_some(())
        };
        wait_for(Instant::now() + most, is_frozen).is_some()
    }

    /// What is not frozen, and what it waits for.
    fn awake(&self) -> Vec<String> {
        let all = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let about = |pid: &str, what: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{what}"));
            text.unwrap_or_default().trim_end().to_owned()
        };
        let frozen = |pid: &&str| about(pid, "wchan") == "__refrigerator";
        let awake = all.lines().filter(|pid| !frozen(pid));
        awake
            .map(|pid| format!("{} in {}", about(pid, "comm"), about(pid, "wchan")))
            .collect()
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        let all = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in all.lines() {
            let _ = fs::write(Path::new(FREEZER).join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

const FREEZER: &str = "/sys/fs/cgroup/freezer";
const SOON: Duration = Duration::from_secs(10);
/// Of the 5 s that logind gives.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A server that says nothing for 5 s is given up.
const CHECKED_WITHIN: Duration = Duration::from_secs(10);
/// Pauses between tries get longer: 0.5, 1, 2, 4, 8 s.
const BACK_WITHIN: Duration = Duration::from_secs(20);
