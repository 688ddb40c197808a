//! `sftpfs reflink` as a process among others: how it ends, what it passes on, what it leaves.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{MINUTE, Place, compile, must, reflink};
use crate::case::{Case, Ctx, case};
use crate::mount;
use crate::process;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(it_ends_as_the_program_ends),
        case(without_a_program_it_fails_as_env_does),
        case(where_the_kernel_refuses_it_says_what_and_runs_nothing),
        case(a_signal_sent_to_it_reaches_the_program),
        case(ctrl_c_ends_the_program_and_the_script_around_it),
        case(it_keeps_neither_a_pipe_nor_a_directory),
        case(a_killed_supervisor_ends_clones_and_no_program),
        case(the_mount_is_free_as_soon_as_the_program_has_ended),
    ]
}

fn it_ends_as_the_program_ends(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let before = supervisors();
    let ends = |script: &str| {
        let words = ["sh", "-c", script];
        let finished = process::run(&mut reflink(ctx, &ctx.dir, &words), MINUTE);
        let status = finished.status.unwrap();
        (status.code(), status.signal())
    };
    assert_eq!(ends("exit 0"), (Some(0), None));
    assert_eq!(ends("exit 7"), (Some(7), None));
    assert_eq!(ends("exit 255"), (Some(255), None));
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGKILL,
        Signal::SIGPIPE,
    ] {
        let number = signal as i32;
        assert_eq!(ends(&format!("kill -{number} $$")), (None, Some(number)));
    }
    // Not even one that has ended, for a parent that takes no note of it.
    assert_eq!(supervisors(), before);
}

fn without_a_program_it_fails_as_env_does(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let ends = |words: &[&str]| {
        let finished = process::run(&mut reflink(ctx, &ctx.dir, words), MINUTE);
        (finished.code().unwrap(), finished.err)
    };
    let (code, said) = ends(&[]);
    assert!(code == 125 && said.contains("no command"), "{code}: {said}");
    let (code, said) = ends(&["no-such-program"]);
    assert_eq!(
        (code, said.as_str()),
        (
            127,
            "sftpfs: reflink: no-such-program: No such file or directory\n"
        )
    );
    let (code, said) = ends(&["/etc/passwd"]);
    assert_eq!(
        (code, said.as_str()),
        (126, "sftpfs: reflink: /etc/passwd: Permission denied\n")
    );
}

fn where_the_kernel_refuses_it_says_what_and_runs_nothing(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let forbid = compile(ctx, include_str!("forbid.c"));
    let program = ctx.lab.program.command().get_program().to_owned();
    let (seccomp, pidfd_getfd) = (libc::SYS_seccomp, libc::SYS_pidfd_getfd);
    for (call, errno, said) in [
        (seccomp, Errno::ENOSYS, "Linux 5.6 or later is needed"),
        (pidfd_getfd, Errno::ENOSYS, "Linux 5.6 or later is needed"),
        (
            pidfd_getfd,
            Errno::EPERM,
            "not permitted to look at the program's open files",
        ),
        (-1, Errno::EPERM, "supervised already"),
    ] {
        let mut command = Command::new(&forbid);
        command
            .args([call.to_string(), (errno as i32).to_string()])
            .arg(&program);
        let finished = process::run(command.args(["reflink", "echo", "ran"]), MINUTE);
        let shown = format!("{call} {errno}: {}: {}", finished.ending(), finished.said());
        assert_eq!(
            (finished.code(), finished.out.as_str()),
            (Some(125), ""),
            "{shown}"
        );
        assert_eq!(finished.err.lines().count(), 1, "{shown}");
        assert!(finished.err.contains(said), "{shown}");
    }
    assert_nothing_is_left();
}

fn a_signal_sent_to_it_reaches_the_program(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let script = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let mut child = talking(&mut reflink(ctx, &ctx.dir, &["sh", "-c", script]));
    let mut lines = lines_of(&mut child);
    assert_eq!(lines.next().unwrap(), "ready");
    process::signal(child.id().cast_signed(), Signal::SIGTERM);
    assert_eq!(lines.next().unwrap(), "heard");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

fn ctrl_c_ends_the_program_and_the_script_around_it(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let program = ctx
        .lab
        .program
        .command()
        .get_program()
        .display()
        .to_string();
    // bash goes on after a program that exits, whatever its code, and not after one that SIGINT
    // has ended.
    let script = format!("{program} reflink sh -c 'echo ready; exec sleep 60'; echo went on");
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--return", "--command"])
        .arg(format!("exec bash -c {}", quoted(&script)));
    let mut child = talking(terminal.arg("/dev/null").stdin(Stdio::piped()));
    let mut keys = child.stdin.take().unwrap();
    let mut lines = lines_of(&mut child);
    assert_eq!(lines.next().unwrap().trim_end(), "ready");
    keys.write_all(b"\x03").unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(!rest.concat().contains("went on"), "{rest:?}");
    assert_eq!(
        child.wait().unwrap().code(),
        Some(128 + Signal::SIGINT as i32)
    );
}

fn it_keeps_neither_a_pipe_nor_a_directory(ctx: &Ctx) {
    let place = Place::new(ctx);
    // The program that is left has none of the three, so the output ends, and the mount is free.
    let script = "cd /; exec 3>&-; sleep 60 <&- >&- 2>&- & echo $!";
    let words = ["sh", "-c", script];
    let mut child = talking(reflink(ctx, place.mount.at(), &words).stderr(Stdio::null()));
    let lines: Vec<String> = lines_of(&mut child).collect();
    assert!(child.wait().unwrap().success());
    let left: i32 = lines.concat().parse().unwrap();
    place.end();
    process::signal(left, Signal::SIGKILL);
    assert_nothing_is_left();
}

fn a_killed_supervisor_ends_clones_and_no_program(ctx: &Ctx) {
    let place = Place::new(ctx);
    let script =
        "echo ready; read line; cp --reflink=always a b; cp --reflink=auto a c && echo copied";
    let mut command = reflink(ctx, place.mount.at(), &["sh", "-c", script]);
    let mut child = talking(command.stdin(Stdio::piped()).stderr(Stdio::piped()));
    let mut keys = child.stdin.take().unwrap();
    let mut lines = lines_of(&mut child);
    assert_eq!(lines.next().unwrap(), "ready");
    let supervisor = process::children_of(child.id());
    let (pid, _) = supervisor
        .iter()
        .find(|(_, name)| name == SUPERVISOR)
        .unwrap();
    process::signal(*pid, Signal::SIGKILL);
    assert_eq!(child.wait().unwrap().code(), Some(125));
    keys.write_all(b"\n").unwrap();
    assert_eq!(lines.next().as_deref(), Some("copied"));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(
        said.contains("supervisor was killed") && said.contains("not implemented"),
        "{said}"
    );
    place.end();
}

fn the_mount_is_free_as_soon_as_the_program_has_ended(ctx: &Ctx) {
    let place = Place::new(ctx);
    for number in 0..20 {
        must(ctx, &place, &format!("cp --reflink=always a b{number}"));
    }
    let at = place.mount.at().to_owned();
    must(
        ctx,
        &place,
        &format!(
            "cp --reflink=always a b && cd / && exec umount {}",
            quoted(&at.display().to_string())
        ),
    );
    assert!(!mount::is_mounted(&at));
    let Place { mut mount, .. } = place;
    mount.expect_end().unwrap();
    assert_nothing_is_left();
}

const SUPERVISOR: &str = "sftpfs-reflink";

/// How many of our children are or were supervisors.
fn supervisors() -> usize {
    let ours = format!("({SUPERVISOR}) ");
    let parent = format!(" {} ", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    // proc_pid_stat(5): the name, the state, the parent.
    let is_ours = |stat: &String| {
        let rest = stat.split_once(&ours).map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.get(1..).is_some_and(|rest| rest.starts_with(&parent)))
    };
    stats.filter(is_ours).count()
}

/// The supervisor ends when the last program has, and becomes our child before.
fn assert_nothing_is_left() {
    let end = Instant::now() + Duration::from_secs(10);
    let gone = process::wait_for(end, || {
        let mut left = process::children().into_iter();
        (!left.any(|(_, name)| name == SUPERVISOR)).then_some(())
    });
    assert!(gone.is_some(), "a supervisor without programs is left");
}

/// Started with pipes, so that it can be talked to while it runs.
fn talking(command: &mut Command) -> Child {
    command.stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
