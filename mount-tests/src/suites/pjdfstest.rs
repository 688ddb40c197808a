//! pjdfstest, the POSIX file system test suite of FreeBSD, in its Rust version from crates.io:
//! what passes on a directory of the same machine must pass on the mount, but for what SFTP cannot
//! express, which `mount-tests/pjdfstest-excluded.txt` lists with the reasons.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::tools;
use crate::case::{Case, Ctx, Suite, case};
use crate::mount::{Mount, Plan};
use crate::process;
use crate::server::ORDINARY_USER;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "pjdfstest",
        about: "FreeBSD's POSIX file system tests pass as on a directory, but for what SFTP lacks",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(what_passes_on_a_directory_passes_on_the_mount_as_root)
            .within_s(900)
            .on_mount_only(),
        case(what_passes_on_a_directory_passes_on_the_mount_as_a_user)
            .within_s(900)
            .on_mount_only(),
    ]
}

fn what_passes_on_a_directory_passes_on_the_mount_as_root(ctx: &Ctx) {
    ctx.needs_root("to become several users");
    let tested = mount(ctx, ctx.plan());
    let plain = ctx.lab.fresh("plain/pjdfstest");
    fs::create_dir(&plain).unwrap();
    let expected = run(ctx, &plain, As::Root, NAP_DIRECTORY_S);
    let got = run(ctx, tested.at(), As::Root, NAP_MOUNT_S);
    tested.unmount().unwrap();
    judge(ctx, "as root", &expected, &got);
}

fn what_passes_on_a_directory_passes_on_the_mount_as_a_user(ctx: &Ctx) {
    ctx.needs_root("to become an ordinary user");
    let user = nix::unistd::User::from_name(ORDINARY_USER)
        .unwrap()
        .expect("the ordinary user");
    let plain = ctx.lab.fresh("plain/pjdfstest");
    fs::create_dir(&plain).unwrap();
    for dir in [&plain, &ctx.behind] {
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let plan = ctx.plan().host(format!("{ORDINARY_USER}@127.0.0.1"));
    let tested = mount(ctx, plan);
    let expected = run(ctx, &plain, As::User, NAP_DIRECTORY_S);
    let got = run(ctx, tested.at(), As::User, NAP_MOUNT_S);
    tested.unmount().unwrap();
    judge(ctx, "as a user", &expected, &got);
}

/// For all users, at a longer path than the directory has on the server: pjdfstest makes paths of
/// the greatest length (PATH_MAX, 4096 bytes), which must not be longer still over there.
fn mount(ctx: &Ctx, mut plan: Plan) -> Mount {
    plan.at = ctx
        .lab
        .dir
        .join("mnt")
        .join("a mountpoint with a long name".repeat(3));
    plan.option("allow_other")
        .option("default_permissions")
        .mount()
        .unwrap()
}

/// Who runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Root,
    User,
}

/// How each case of pjdfstest ended, and what it said.
type Results = BTreeMap<String, (String, String)>;

fn run(ctx: &Ctx, dir: &Path, user: As, nap_s: f64) -> Results {
    let program = tools::installed(ctx, "pjdfstest", "0.2.2");
    let config = ctx.lab.fresh("pjdfstest.toml");
    // Two users with groups of their own, as every Debian has them.
    let entries = r#"[["nobody", "nogroup"], ["daemon", "daemon"]]"#;
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = {nap_s}\nallow_remount = false\n[dummy_auth]\nentries = {entries}\n"
    );
    fs::write(&config, text).unwrap();
    // The program may stand where an ordinary user cannot go.
    let copy = ctx.lab.fresh("pjdfstest");
    fs::copy(program, &copy).unwrap();
    let mut command = match user {
        As::Root => Command::new(&copy),
        As::User => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
                .arg(&copy);
            command
        }
    };
    command.arg("-c").arg(&config).arg("-p").arg(dir);
    command.current_dir("/").env("RUST_BACKTRACE", "0");
    let finished = process::run(&mut command, RUN_LIMIT);
    let results = parse(&finished.out);
    assert!(
        results.len() > 100,
        "pjdfstest: {}, {} results: {}",
        finished.ending(),
        results.len(),
        process::tail(&finished.said(), 10)
    );
    results
}

/// Lines of a name, spaces and a word or two; more about it follows after tabs.
fn parse(out: &str) -> Results {
    let mut results = Results::new();
    let mut last = String::new();
    for line in without_colours(out).lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let Some((_, said)) = results.get_mut(&last) {
                said.push_str(more.trim());
            }
        } else if let Some((name, ending)) = line.split_once(char::is_whitespace)
            && name.contains("::")
        {
            name.clone_into(&mut last);
            results.insert(name.to_owned(), (ending.trim().to_owned(), String::new()));
        }
    }
    results
}

fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

fn judge(ctx: &Ctx, who: &str, expected: &Results, got: &Results) {
    let excluded = exclusions(&ctx.lab.source.join("mount-tests/pjdfstest-excluded.txt"));
    let passes =
        |results: &Results, name: &str| results.get(name).is_some_and(|(ending, _)| ending == "ok");
    let local: Vec<&String> = expected
        .keys()
        .filter(|name| passes(expected, name))
        .collect();
    let (good, bad): (Vec<&&String>, Vec<&&String>) =
        local.iter().partition(|name| passes(got, name));
    let (known, new): (Vec<&&String>, Vec<&&String>) = bad
        .iter()
        .partition(|name| excluded.iter().any(|pattern| matches(pattern, name)));
    ctx.note(format!(
        "pjdfstest {who}: {} pass on a directory, {} of them on the mount; {} of the others are excluded",
        local.len(),
        good.len(),
        known.len()
    ));
    for name in good
        .iter()
        .filter(|name| excluded.iter().any(|pattern| matches(pattern, name)))
    {
        ctx.note(format!("{name} passes although it is excluded"));
    }
    let said = |name: &str| got.get(name).map_or("did not run", |(_, said)| said);
    let lines: Vec<String> = new
        .iter()
        .map(|name| format!("{name}: {}", said(name)))
        .collect();
    assert!(
        new.is_empty(),
        "{} pass on a directory but not on the mount:\n{}",
        new.len(),
        lines.join("\n")
    );
}

/// The first words of all lines; the rest is the reason. `#` begins a comment.
fn exclusions(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            assert!(
                !reason.trim().is_empty(),
                "{}: {name} has no reason",
                path.display()
            );
            name.to_owned()
        })
        .collect()
}

/// `*` stands for anything, once.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

/// It takes two minutes, most of them naps; what did not run by then counts as not passed.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Long enough for a local file system's clock to tick.
const NAP_DIRECTORY_S: f64 = 0.05;
/// SFTP's times are whole seconds, so less would not show.
const NAP_MOUNT_S: f64 = 1.05;
