//! `sftpfs status` and `sftpfs reconnect`: what a mount says of itself, also when it cannot do anything
//! else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::case::{Case, Ctx, Suite, case};
use crate::mount::Mount;
use crate::process::{self, Finished};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "status",
        about: "sftpfs status and sftpfs reconnect, whatever the mount and its server do",
        every_transport: false,
        cases: cases().into_iter().map(Case::on_mount_only).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(a_mount_is_known_by_any_path_in_it),
        case(scripts_get_json),
        case(where_nothing_is_mounted_the_exit_code_is_2),
        case(status_answers_while_the_server_is_stopped_and_a_program_waits),
        case(the_control_socket_is_its_users_and_goes_with_the_mount),
        case(other_users_are_told_nothing),
        case(a_stopped_process_is_said_in_time),
        case(a_killed_process_is_said_in_one_line),
        case(reconnect_replaces_a_connection_that_is_lost),
        case(super::asked::reconnect_asks_once_on_its_terminal_and_ctrl_c_ends_it).within_s(180),
    ]
}

/// A server that is a child of the mount's process, whatever the transport of the run.
fn mount(ctx: &Ctx) -> Mount {
    ctx.needs_sftpfs();
    let Some(server) = crate::server::sftp_server_path() else {
        ctx.skip("there is no sftp-server here");
    };
    let command = server.display().to_string();
    ctx.plan().sftp_command(&command).mount().unwrap()
}

/// What answers within this time answers also a person who wonders why all hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn sftpfs(ctx: &Ctx, words: &[&str]) -> Finished {
    process::run(ctx.lab.program.command().args(words), PATIENCE)
}

fn status(ctx: &Ctx, path: &Path) -> Finished {
    sftpfs(ctx, &["status", path.to_str().unwrap()])
}

/// A value of the object that `--json` prints, as it stands there.
fn field(ctx: &Ctx, mount: &Mount, key: &str) -> String {
    let told = sftpfs(ctx, &["status", "--json", mount.at().to_str().unwrap()]);
    let key = format!("\"{key}\": ");
    let rest = told.out.split(&key).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {key}in {}", told.said()));
    rest.split([',', '}']).next().unwrap().to_owned()
}

fn is_connected(told: &Finished, mount: &Mount) -> bool {
    let at = mount.at().display().to_string();
    let state = told
        .out
        .lines()
        .find(|line| line.trim().starts_with("state:"));
    told.code() == Some(0)
        && told
            .out
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(&at))
        && state.is_some_and(|line| line.contains("connected since"))
}

fn a_mount_is_known_by_any_path_in_it(ctx: &Ctx) {
    let mount = mount(ctx);
    let link = ctx.lab.fresh("link");
    symlink(mount.at(), &link).unwrap();
    for path in [
        mount.at().to_owned(),
        mount.at().join("not/there"),
        mount.at().join("."),
        link.join("x"),
    ] {
        let told = status(ctx, &path);
        assert!(
            is_connected(&told, &mount),
            "{}: {}",
            path.display(),
            told.said()
        );
    }
    let mut inside = ctx.lab.program.command();
    let told = process::run(
        inside.args(["status", "."]).current_dir(mount.at()),
        PATIENCE,
    );
    assert!(is_connected(&told, &mount), "{}", told.said());
    // Without a path: a line for each.
    let all = sftpfs(ctx, &["status"]);
    let at = mount.at().display().to_string();
    let line = all.out.lines().find(|line| line.starts_with(&at));
    assert!(
        line.is_some_and(|line| line.contains("connected for")),
        "{}",
        all.said()
    );
    mount.unmount().unwrap();
}

fn scripts_get_json(ctx: &Ctx) {
    let mount = mount(ctx);
    let daemon = mount.daemon().unwrap().to_string();
    for (key, value) in [
        ("connected", "true"),
        ("state", "\"connected\""),
        ("reconnects", "0"),
        ("unwritten", "0"),
        ("last_error", "null"),
        ("process", &daemon),
    ] {
        assert_eq!(field(ctx, &mount, key), value, "{key}");
    }
    mount.unmount().unwrap();
}

fn where_nothing_is_mounted_the_exit_code_is_2(ctx: &Ctx) {
    ctx.needs_sftpfs();
    for command in ["status", "reconnect"] {
        let told = sftpfs(ctx, &[command, "/proc"]);
        assert_eq!(told.code(), Some(2), "{}", told.said());
        let expected = format!("sftpfs: {command}: /proc: not in a mount of sftpfs\n");
        assert_eq!(told.err, expected);
    }
}

/// The processes that the mount's process has started: its server.
fn servers(mount: &Mount) -> Vec<i32> {
    let daemon = u32::try_from(mount.daemon().unwrap()).unwrap();
    let children = process::children_of(daemon);
    assert!(!children.is_empty(), "no server below {daemon}");
    children.into_iter().map(|(pid, _)| pid).collect()
}

fn signal(processes: &[i32], signal: Signal) {
    processes
        .iter()
        .for_each(|pid| process::signal(*pid, signal));
}

/// A program that waits for the server; returned when it does.
fn stuck(ctx: &Ctx, mount: &Mount) -> Child {
    let mut stat = Command::new("stat");
    let child = process::start(
        stat.arg(mount.at().join("who/knows"))
            .stderr(std::process::Stdio::null()),
    );
    let end = Instant::now() + PATIENCE;
    let waits = process::wait_for(end, || {
        (field(ctx, mount, "outstanding") != "0").then_some(())
    });
    assert!(waits.is_some(), "no request of it is under way");
    child
}

fn status_answers_while_the_server_is_stopped_and_a_program_waits(ctx: &Ctx) {
    let mount = mount(ctx);
    let servers = servers(&mount);
    signal(&servers, Signal::SIGSTOP);
    let mut children: Vec<_> = (0..12).map(|_| stuck(ctx, &mount)).collect();
    let told = status(ctx, &mount.at().join("deep/below"));
    signal(&servers, Signal::SIGCONT);
    assert!(is_connected(&told, &mount), "{}", told.said());
    // The kernel has the others wait for the first one's lookup of the same name.
    for part in [
        " unanswered, the oldest for ",
        " call waits, the longest for ",
    ] {
        assert!(told.out.contains(part), "{}", told.out);
    }
    for child in &mut children {
        let ended = process::wait_until(child, Instant::now() + PATIENCE);
        assert!(ended.is_some(), "a program still waits");
    }
    mount.unmount().unwrap();
}

/// The control socket, found by its name in what the kernel knows of sockets.
fn socket(mount: &Mount) -> PathBuf {
    let device = fs::metadata(mount.at()).unwrap().dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let name = format!("/{major}:{minor}.control");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let path = sockets.lines().find(|line| line.ends_with(&name));
    let path = path.and_then(|line| line.split_whitespace().last());
    PathBuf::from(path.unwrap_or_else(|| panic!("no socket {name}")))
}

fn the_control_socket_is_its_users_and_goes_with_the_mount(ctx: &Ctx) {
    let mount = mount(ctx);
    let socket = socket(&mount);
    let about = fs::symlink_metadata(&socket).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o7777, 0o600);
    assert_eq!(about.uid(), geteuid().as_raw());
    mount.unmount().unwrap();
    assert!(!socket.exists(), "{} stays", socket.display());
}

fn other_users_are_told_nothing(ctx: &Ctx) {
    ctx.needs_root("to be somebody else");
    let mount = mount(ctx);
    let socket = socket(&mount);
    // Even if the socket were open to them.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let script = "import socket,sys\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.settimeout(10)\n\
                  s.connect(sys.argv[1])\n\
                  s.send(b'status\\n')\n\
                  sys.stdout.write(str(s.recv(100)))\n";
    let ask = |user: &[&str]| {
        let mut words = Command::new("setpriv");
        words
            .args(user)
            .args(["python3", "-c", script])
            .arg(&socket);
        process::run(&mut words, PATIENCE).out
    };
    let ours = ask(&["--reuid=0"]);
    let theirs = ask(&["--reuid=65534", "--clear-groups"]);
    mount.unmount().unwrap();
    if ours.is_empty() {
        ctx.skip("there is no setpriv or python3 here");
    }
    assert!(ours.contains("state connected"), "{ours}");
    assert!(!theirs.contains("state"), "{theirs}");
}

fn a_stopped_process_is_said_in_time(ctx: &Ctx) {
    let mount = mount(ctx);
    signal(mount.daemons(), Signal::SIGSTOP);
    let told = status(ctx, mount.at());
    signal(mount.daemons(), Signal::SIGCONT);
    assert_eq!(told.code(), Some(1), "{}", told.said());
    assert!(
        told.out.contains("does not answer (stopped?)"),
        "{}",
        told.said()
    );
    mount.unmount().unwrap();
}

fn a_killed_process_is_said_in_one_line(ctx: &Ctx) {
    let mount = mount(ctx);
    let at = mount.at().to_owned();
    signal(mount.daemons(), Signal::SIGKILL);
    let mut told = None;
    let end = Instant::now() + PATIENCE;
    let gone = process::wait_for(end, || {
        let said = status(ctx, &at);
        let gone = said.out.contains("is gone (killed?)").then_some(());
        told = Some(said);
        gone
    });
    let told = told.unwrap();
    assert!(gone.is_some(), "{}", told.said());
    assert_eq!(told.code(), Some(1));
    assert_eq!(told.said().lines().count(), 1, "{}", told.said());
    mount.abort();
}

fn reconnect_replaces_a_connection_that_is_lost(ctx: &Ctx) {
    let mount = mount(ctx);
    fs::write(ctx.behind.join("f"), "content").unwrap();
    signal(&servers(&mount), Signal::SIGKILL);
    let mut words = ctx.lab.program.command();
    words.arg("reconnect").arg(mount.at());
    let told = process::run(&mut words, Duration::from_secs(60));
    assert_eq!(told.code(), Some(0), "{}", told.said());
    assert!(told.out.contains(": connected for "), "{}", told.said());
    assert_ne!(field(ctx, &mount, "reconnects"), "0");
    assert_ne!(field(ctx, &mount, "last_error"), "null");
    assert_eq!(fs::read(mount.at().join("f")).unwrap(), b"content");
    mount.unmount().unwrap();
}
