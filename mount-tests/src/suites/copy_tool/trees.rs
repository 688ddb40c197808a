//! Whole trees: random ones, copied by both programs, a deep one, and one that SFTP cannot make.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::describe::must_be_same;
use super::{MINUTE, cp, lines};
use crate::case::Ctx;
use crate::process::must_run;
use crate::suites::random::Random;

/// Names that programs stumble over.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"-r",
    b"two words",
    b"it's",
    b"\xff\xfe",
    b"line\nfeed",
    b"\xc3\xa4",
    b"...",
];

/// Modes of files and of directories.
struct Modes(&'static [u32], &'static [u32]);

const MODES: Modes = Modes(
    &[0o644, 0o600, 0o755, 0o444, 0o666, 0o777, 0o4711],
    &[0o1777, 0o755, 0o700, 0o775, 0o555],
);

/// Where cp(1) sets a mode by an ACL, it leaves set-ID and sticky bits that were there before, so
/// that what is there already has none.
const MODES_THERE: Modes = Modes(&[0o644, 0o600, 0o755, 0o444], &[0o755, 0o700, 0o555]);

/// A tree of random shape.
fn grow(random: &mut Random, dir: &Path, depth: u32, modes: &Modes, files: &mut Vec<PathBuf>) {
    fs::create_dir_all(dir).unwrap();
    for _ in 0..random.below(6) + u64::from(depth == 3) * 3 {
        let path = dir.join(OsStr::from_bytes(random.pick::<&[u8]>(&NAMES)));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match random.below(10) {
            0..3 if depth > 0 => grow(random, &path, depth - 1, modes, files),
            3 => {
                let target = ["a", "../b", "nowhere", "/etc/passwd", ".", "c"];
                symlink(random.pick(&target), &path).unwrap();
            }
            4 if !files.is_empty() => fs::hard_link(random.pick(files), &path).unwrap(),
            _ => {
                let len = usize::try_from(random.below(40_000)).unwrap() * 3 / 4;
                fs::write(&path, random.bytes(len)).unwrap();
                let mode = *random.pick(modes.0);
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                set_time(&path, random);
                files.push(path);
            }
        }
    }
    let mode = *random.pick(modes.1);
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    set_time(dir, random);
}

fn set_time(path: &Path, random: &mut Random) {
    let time = Duration::from_secs(random.below(999_999_999));
    let time = std::time::UNIX_EPOCH + time;
    let file = fs::File::open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))
        .unwrap();
}

/// Options, and what is copied to what: directories `src` and `was`, files `f`, and `t`, which may
/// be there.
const WAYS: [&[&str]; 14] = [
    &["-r", "src", "t"],
    &["-a", "src", "t"],
    &["-rT", "src", "t"],
    &["-aT", "src", "t"],
    &["-rp", "src", "t"],
    &["-rd", "src", "t"],
    &["-rL", "src/a", "src/b", "src/c", "t"],
    &["-rH", "src/a", "src/b", "src/c", "t"],
    &["-t", "t", "src/a", "src/b", "src/c"],
    &["-p", "src/a", "src/b", "src/a", "t"],
    &["-a", "src/.", "t"],
    &["-an", "src/.", "t"],
    &["-ru", "src/.", "t"],
    &["-af", "src/a/", "src/b", "t"],
];

/// Those that keep mode and times.
const WAYS_KEEPING: [&[&str]; 7] = [
    &["-a", "src", "t"],
    &["-aT", "src", "t"],
    &["-rp", "src", "t"],
    &["-a", "src/.", "t"],
    &["-an", "src/.", "t"],
    &["-af", "src/a/", "src/b", "t"],
    &["-p", "-t", "t", "src/a", "src/b", "src/c"],
];

pub(super) fn random_trees_are_copied_as_cp_copies_them(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ctx.needs_root("as directories may be closed to others");
    compare_random_trees(ctx, &ctx.dir, &WAYS);
}

pub(super) fn random_trees_are_copied_as_with_cp_where_copies_are_links(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ctx.needs_root("as directories may be closed to others");
    let mount = ctx.plan().option("copy_is_hardlink").mount().unwrap();
    // A linked file has its source's mode and times, as with -p.
    compare_random_trees(ctx, mount.at(), &WAYS_KEEPING);
    mount.unmount().unwrap();
}

fn compare_random_trees(ctx: &Ctx, at: &Path, ways: &[&[&str]]) {
    let rounds = if ctx.full { 200 } else { 25 };
    for round in 0..rounds {
        let seed = ctx.seed.wrapping_add(round);
        let mut random = Random::new(seed);
        let source = at.join("src");
        grow(&mut random, &source, 3, &MODES, &mut Vec::new());
        let words = *random.pick(ways);
        let there = random.below(3);
        let mut runs = Vec::new();
        for is_ours in [true, false] {
            let (dir, mut random) = (at.join(format!("{is_ours}")), random.clone());
            fs::create_dir(&dir).unwrap();
            symlink("../src", dir.join("src")).unwrap();
            match there {
                0 => {}
                1 => fs::create_dir(dir.join("t")).unwrap(),
                _ => grow(
                    &mut random,
                    &dir.join("t"),
                    2,
                    &MODES_THERE,
                    &mut Vec::new(),
                ),
            }
            // `src` is a link here, which cp follows only with a slash at its end.
            let words: Vec<String> = words
                .iter()
                .map(|word| {
                    if *word == "src" {
                        "src/".into()
                    } else {
                        (*word).to_owned()
                    }
                })
                .collect();
            let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
            if is_ours {
                // A link that is followed leads to this machine's files.
                words.insert(0, "--stream");
            }
            let done = cp(ctx, is_ours, &dir, &words);
            runs.push((dir, done));
        }
        let what = format!("seed {seed}, round {round}: cp {}", words.join(" "));
        let [(ours, done), (theirs, expected)] = runs.as_slice() else {
            unreachable!("two runs")
        };
        assert_eq!(
            done.code(),
            expected.code(),
            "{what}: {} / {}",
            done.said(),
            expected.said()
        );
        assert_eq!(lines(&done.err), lines(&expected.err), "{what}");
        must_be_same(&what, ours, theirs);
        for dir in [&source, ours, theirs] {
            must_run(Command::new("rm").arg("-rf").arg(dir), MINUTE);
        }
    }
}

pub(super) fn a_deep_tree_is_copied_with_few_descriptors(ctx: &Ctx) {
    ctx.needs_sftpfs();
    // A path of a server has 4095 bytes at most.
    const DEPTH: usize = 1000;
    let names = vec!["d"; DEPTH].join("/");
    let build = format!("mkdir -p src/{names} && echo deep > src/{names}/file");
    must_run(
        Command::new("sh")
            .args(["-c", &build])
            .current_dir(&ctx.dir),
        MINUTE,
    );
    let mut command = Command::new("sh");
    let program = ctx.lab.program.command();
    command
        .args(["-c", "ulimit -n 900; exec \"$0\" cp -a src copy"])
        .arg(program.get_program())
        .current_dir(&ctx.dir);
    must_run(&mut command, MINUTE);
    let copy = ctx.behind.join(format!("copy/{names}/file"));
    assert_eq!(fs::read_to_string(copy).unwrap(), "deep\n");
    for dir in ["src", "copy"] {
        must_run(
            Command::new("rm").arg("-rf").arg(ctx.behind.join(dir)),
            MINUTE,
        );
    }
}

pub(super) fn what_sftp_cannot_make_is_named_and_left_out(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let source = ctx.behind.join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    must_run(Command::new("mkfifo").arg(source.join("fifo")), MINUTE);
    ctx.wait_for_name("src");
    let done = cp(ctx, true, &ctx.dir, &["-a", "src", "copy"]);
    let said = "sftpfs cp: cannot create fifo 'copy/fifo': it cannot be made over SFTP\n";
    assert_eq!((done.code(), done.err.as_str()), (Some(1), said));
    assert_eq!(fs::read(ctx.dir.join("copy/file")).unwrap(), b"x");
    assert_eq!(fs::read_dir(ctx.dir.join("copy")).unwrap().count(), 1);
}
