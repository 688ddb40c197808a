//! `sftpfs cp` and `sftpfs info`: what cp(1) does, on a plain directory and on the server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::{Case, Ctx, Suite, case};
use crate::process::{self, Finished, must_run};
use crate::suites::random::Random;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "copy_tool",
        about: "sftpfs cp does what cp does, on the server; sftpfs info tells how",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(random_trees_are_copied_as_cp_copies_them).within_s(300),
        case(random_trees_are_copied_as_with_cp_where_copies_are_links)
            .on_mount_only()
            .within_s(300),
        case(messages_and_exit_codes_are_those_of_cp).within_s(120),
        case(existing_files_are_treated_as_cp_treats_them).within_s(120),
        case(hundreds_of_small_files_are_copied_by_the_server).within_s(120),
        case(a_large_file_is_copied_by_the_server).within_s(120),
        case(with_hard_links_a_tree_takes_no_space_and_stays_apart)
            .on_mount_only()
            .within_s(120),
        case(another_file_system_is_refused_unless_it_is_streamed).within_s(120),
        case(ctrl_c_ends_a_copy_at_once_and_names_what_is_incomplete).within_s(120),
        case(progress_is_shown_and_taken_away),
        case(a_deep_tree_is_copied_with_few_descriptors).within_s(120),
        case(what_sftp_cannot_make_is_named_and_left_out),
        case(info_tells_the_path_and_how_the_content_came),
    ]
}

const MINUTE: Duration = Duration::from_secs(60);

fn needs_mount(ctx: &Ctx) {
    ctx.needs_sftpfs();
    if !ctx.on_mount {
        ctx.skip("is about what the mount does");
    }
}

/// `sftpfs cp`, or cp(1), in a directory.
fn cp(ctx: &Ctx, is_ours: bool, dir: &Path, words: &[&str]) -> Finished {
    let mut command = match is_ours {
        true => ctx.lab.program.command(),
        false => Command::new("cp"),
    };
    if is_ours {
        command.arg("cp");
    }
    command
        .args(words)
        .current_dir(dir)
        .env("LC_ALL", "C.UTF-8");
    process::run(&mut command, MINUTE)
}

/// What a person reads, without whose it is; order is nobody's promise.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.replace("sftpfs cp", "cp"));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// A line for each entry of a tree; times only where they were set.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    walk(root, root, &mut found, &mut inodes);
    for names in inodes.into_values().filter(|names| names.len() > 1) {
        let first = names.iter().min().unwrap().clone();
        for name in names {
            let line = found.get_mut(&name).unwrap();
            line.push_str(&format!(" = {}", first.display()));
        }
    }
    found
}

fn walk(
    root: &Path,
    dir: &Path,
    found: &mut BTreeMap<PathBuf, String>,
    inodes: &mut BTreeMap<u64, Vec<PathBuf>>,
) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let told = match meta.mtime() {
            // Set by the tests; the clock's own are not the same in two copies.
            time @ 0..1_000_000_000 => format!(" at {time}"),
            _ => String::new(),
        };
        let mode = meta.mode() & 0o7777;
        let line = if meta.is_symlink() {
            format!("link to {:?}{told}", fs::read_link(&path).unwrap())
        } else if meta.is_dir() {
            walk(root, &path, found, inodes);
            format!("directory {mode:o}{told}")
        } else {
            inodes.entry(meta.ino()).or_default().push(below.clone());
            let content = fs::read(&path).unwrap();
            let sum = content.iter().fold(content.len() as u64, |sum, byte| {
                sum.rotate_left(5)
                    .wrapping_add(u64::from(*byte))
                    .wrapping_mul(0x9e37_79b9)
            });
            format!("file {mode:o} {} {sum:x}{told}", content.len())
        };
        found.insert(below, line);
    }
}

fn must_be_same(what: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) = (describe(ours), describe(theirs));
    let differs = |path: &&PathBuf| ours.get(*path) != theirs.get(*path);
    let all: std::collections::BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    let different: Vec<_> = all.into_iter().filter(differs).collect();
    let told = different.iter().take(5).map(|path| {
        format!(
            "{}: ours {:?}, cp's {:?}",
            path.display(),
            ours.get(*path),
            theirs.get(*path)
        )
    });
    assert!(
        different.is_empty(),
        "{what}:\n{}",
        told.collect::<Vec<_>>().join("\n")
    );
}

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

fn random_trees_are_copied_as_cp_copies_them(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ctx.needs_root("as directories may be closed to others");
    compare_random_trees(ctx, &ctx.dir, &WAYS);
}

fn random_trees_are_copied_as_with_cp_where_copies_are_links(ctx: &Ctx) {
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

/// A directory with a bit of everything.
fn furnish(dir: &Path) {
    fs::create_dir_all(dir.join("d/sub")).unwrap();
    fs::create_dir_all(dir.join("e/f")).unwrap();
    fs::create_dir_all(dir.join("one")).unwrap();
    fs::create_dir_all(dir.join("two")).unwrap();
    for name in ["f", "g", "d/x", "one/k", "two/k", "it's"] {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::write(dir.join("e/x"), "old").unwrap();
    fs::hard_link(dir.join("f"), dir.join("h")).unwrap();
    symlink("f", dir.join("link")).unwrap();
    symlink("d", dir.join("dirlink")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
}

fn compare(ctx: &Ctx, lists: &[&[&str]]) {
    for words in lists {
        let mut runs = Vec::new();
        for is_ours in [true, false] {
            let dir = ctx.dir.join(format!("{is_ours}"));
            furnish(&dir);
            runs.push((cp(ctx, is_ours, &dir, words), dir));
        }
        let [(ours, our_dir), (theirs, their_dir)] = runs.as_slice() else {
            unreachable!("two runs")
        };
        let what = format!("cp {}", words.join(" "));
        assert_eq!(
            ours.code(),
            theirs.code(),
            "{what}: {} / {}",
            ours.said(),
            theirs.said()
        );
        let without_help = |text: &str| {
            let lines = lines(text).into_iter();
            lines
                .filter(|line| !line.starts_with("Try "))
                .collect::<Vec<_>>()
        };
        // The last line of -v is ours alone.
        let mut said = without_help(&ours.err);
        said.retain(|line| line.starts_with("cp: "));
        assert_eq!(said, without_help(&theirs.err), "{what}");
        assert_eq!(lines(&ours.out), lines(&theirs.out), "{what}");
        must_be_same(&what, our_dir, their_dir);
        fs::remove_dir_all(our_dir).unwrap();
        fs::remove_dir_all(their_dir).unwrap();
    }
}

fn messages_and_exit_codes_are_those_of_cp(ctx: &Ctx) {
    ctx.needs_sftpfs();
    compare(
        ctx,
        &[
            &[],
            &["f"],
            &["f", "f"],
            &["f", "h"],
            &["f", "link"],
            &["-P", "link", "f"],
            &["gone", "x"],
            &["gone", "f", "e"],
            &["it's gone", "x"],
            &["two words", "x"],
            &["", "x"],
            &["d", "x"],
            &["d/", "f", "e"],
            &["f", "d", "gone"],
            &["f", "d", "g"],
            &["-r", "d", "f"],
            &["-T", "f", "d"],
            &["-T", "f", "d", "e"],
            &["-t", "gone", "f"],
            &["-t", "f", "d"],
            &["-t", "e", "-T", "f"],
            &["f", "f", "e"],
            &["-r", "d", "d/../d", "e"],
            &["f", "gone/x"],
            &["-r", "d", "gone/x"],
            &["f", "gone/"],
            &["f", "dangling"],
            &["-r", "d", "dangling"],
            &["-rT", "d", "dirlink"],
            &["one/k", "two/k", "e"],
            &["-v", "f", "e"],
            &["-v", "f", "link", "e"],
            &["-rv", "d", "new"],
            &["-r", "d/", "e"],
            &["-rv", "d/.", "e"],
            &["-av", "d", "link", "f", "h", "e"],
            &["-aL", "link", "dirlink", "e"],
            &["-rH", "dirlink", "e"],
        ],
    );
    // A directory is not copied into itself; ours does not even begin.
    let dir = ctx.dir.join("itself");
    furnish(&dir);
    for words in [
        ["-r", "d", "d"],
        ["-r", "d", "d/sub"],
        ["-r", "d", "d/new"],
        ["-r", ".", "d"],
    ] {
        let before = describe(&dir);
        let done = cp(ctx, true, &dir, &words);
        assert_eq!(done.code(), Some(1), "{words:?}");
        assert!(
            done.err.contains("cannot copy a directory, "),
            "{words:?}: {}",
            done.err
        );
        assert_eq!(describe(&dir), before, "{words:?}");
    }
}

fn existing_files_are_treated_as_cp_treats_them(ctx: &Ctx) {
    ctx.needs_sftpfs();
    compare(
        ctx,
        &[
            &["f", "g"],
            &["-n", "f", "g"],
            &["-u", "f", "g"],
            &["-p", "f", "g"],
            &["-f", "f", "g"],
            &["d/x", "e"],
            &["-n", "d/x", "e"],
            &["-a", "d/x", "h"],
            &["d/x", "h"],
            &["d/x", "link"],
            &["-a", "d/x", "link"],
            &["-P", "link", "g"],
            &["-P", "link", "e/f"],
            &["-a", "link", "dangling", "e"],
            &["-T", "-a", "link", "dangling"],
            &["-rT", "d", "e"],
            &["-rvT", "d", "e"],
            &["-anT", "d", "e"],
        ],
    );
}

/// So many small files in directories of a hundred.
fn many(at: &Path, count: usize) {
    for number in 0..count {
        let dir = at.join(format!("{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file {number}")), vec![b'x'; number * 7]).unwrap();
    }
}

fn hundreds_of_small_files_are_copied_by_the_server(ctx: &Ctx) {
    needs_mount(ctx);
    many(&ctx.behind.join("src"), 700);
    let done = cp(ctx, true, &ctx.dir, &["-rv", "src", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = done.err.lines().last().unwrap_or_default();
    assert!(
        summary.starts_with("700 files, 1.6 MiB: 700 copied on the server; "),
        "{summary}"
    );
    assert!(
        summary.ends_with("1.6 MiB did not cross the network"),
        "{summary}"
    );
    // 700 files and 8 directories.
    assert_eq!(done.out.lines().count(), 708);
    must_be_same(
        "in the mount",
        &ctx.dir.join("copy"),
        &ctx.behind.join("src"),
    );
    must_be_same(
        "on the server",
        &ctx.behind.join("copy"),
        &ctx.behind.join("src"),
    );
    // Again: all are there, and copied one by one.
    fs::write(ctx.dir.join("copy/0/file 5"), "changed").unwrap();
    let again = cp(ctx, true, &ctx.dir, &["-r", "src/.", "copy"]);
    assert!(again.ok() && again.said().is_empty(), "{}", again.said());
    must_be_same(
        "the second time",
        &ctx.dir.join("copy"),
        &ctx.behind.join("src"),
    );
}

fn a_large_file_is_copied_by_the_server(ctx: &Ctx) {
    needs_mount(ctx);
    let content = Random::new(ctx.seed).bytes(40 << 20);
    fs::write(ctx.behind.join("large"), &content).unwrap();
    let done = cp(ctx, true, &ctx.dir, &["-v", "large", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = "1 file, 40.0 MiB: 1 copied on the server; 40.0 MiB did not cross the network\n";
    assert_eq!(done.err, summary);
    assert!(fs::read(ctx.behind.join("copy")).unwrap() == content);
}

fn with_hard_links_a_tree_takes_no_space_and_stays_apart(ctx: &Ctx) {
    ctx.needs_sftpfs();
    many(&ctx.behind.join("src"), 300);
    let mount = ctx.plan().option("copy_is_hardlink").mount().unwrap();
    let done = cp(ctx, true, mount.at(), &["-av", "src", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = done.err.lines().last().unwrap_or_default();
    // An empty file shares nothing.
    let expected = "300 files, 307 KiB: 299 linked, 1 copied on the server; ";
    assert!(summary.starts_with(expected), "{summary}");
    must_be_same(
        "in the mount",
        &mount.at().join("copy"),
        &mount.at().join("src"),
    );
    let inode = |name: &str| fs::metadata(ctx.behind.join(name)).unwrap().ino();
    assert_eq!(inode("src/1/file 107"), inode("copy/1/file 107"));
    fs::write(mount.at().join("copy/1/file 107"), "mine").unwrap();
    assert_eq!(
        fs::read(ctx.behind.join("src/1/file 107")).unwrap(),
        vec![b'x'; 749]
    );
    assert_eq!(
        fs::read(ctx.behind.join("copy/1/file 107")).unwrap(),
        b"mine"
    );
    let mut info = ctx.lab.program.command();
    let told = must_run(
        info.arg("info").arg(mount.at().join("copy/1/file 108")),
        MINUTE,
    );
    let shared = format!(
        "shared with:    '{}'",
        ctx.behind.join("src/1/file 108").display()
    );
    assert!(
        told.contains("content:        linked") && told.contains(&shared),
        "{told}"
    );
    mount.unmount().unwrap();
}

fn another_file_system_is_refused_unless_it_is_streamed(ctx: &Ctx) {
    needs_mount(ctx);
    let local = ctx.lab.fresh("local");
    many(&local, 30);
    let from = local.to_str().unwrap();
    let refused = cp(ctx, true, &ctx.dir, &["-r", from, "copy"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.err.contains("use --stream") && refused.err.contains("cp(1)"),
        "{refused:?}"
    );
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    assert!(!ctx.behind.join("copy").exists());
    let streamed = cp(ctx, true, &ctx.dir, &["-av", "--stream", from, "copy"]);
    assert!(streamed.ok(), "{}", streamed.said());
    let summary = streamed.err.lines().last().unwrap_or_default();
    assert!(summary.ends_with(": 30 streamed"), "{summary}");
    must_be_same("streamed in", &ctx.behind.join("copy"), &local);
    let back = ctx.lab.fresh("back");
    let done = cp(
        ctx,
        true,
        &ctx.dir,
        &["-a", "--stream", "copy", back.to_str().unwrap()],
    );
    assert!(done.ok(), "{}", done.said());
    must_be_same("streamed out", &back, &local);
    for dir in [local, back] {
        fs::remove_dir_all(dir).unwrap();
    }
}

fn ctrl_c_ends_a_copy_at_once_and_names_what_is_incomplete(ctx: &Ctx) {
    needs_mount(ctx);
    // Nothing but holes, which copy-data fills: enough for some seconds.
    let large = fs::File::create(ctx.behind.join("large")).unwrap();
    large.set_len(8 << 30).unwrap();
    let mut command = ctx.lab.program.command();
    let said = ctx.dir.with_extension("said");
    command
        .args(["cp", "large", "copy"])
        .current_dir(&ctx.dir)
        .stderr(fs::File::create(&said).unwrap());
    let mut child = process::start(&mut command);
    let copy = ctx.behind.join("copy");
    let has_begun = || {
        fs::metadata(&copy)
            .is_ok_and(|meta| meta.len() > 0)
            .then_some(())
    };
    assert!(
        process::wait_for(Instant::now() + MINUTE, has_begun).is_some(),
        "it has begun"
    );
    let begin = Instant::now();
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let status = process::wait_until(&mut child, begin + MINUTE).expect("it ends");
    let took = begin.elapsed();
    let text = fs::read_to_string(&said).unwrap();
    fs::remove_file(&said).unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(took < Duration::from_secs(3), "it took {took:.1?}");
    assert!(
        text.contains("sftpfs cp: interrupted: copied 0 of 1 files"),
        "{text}"
    );
    assert!(text.contains("'copy' is incomplete"), "{text}");
    ctx.note(format!("ended {took:.1?} after Ctrl-C"));
    fs::remove_file(ctx.dir.join("copy")).unwrap();
}

fn progress_is_shown_and_taken_away(ctx: &Ctx) {
    ctx.needs_sftpfs();
    many(&ctx.dir.join("src"), 400);
    let done = cp(
        ctx,
        true,
        &ctx.dir,
        &["-r", "--progress=always", "src", "copy"],
    );
    assert!(done.ok(), "{}", done.said());
    let (line, last) = done
        .err
        .rsplit_once("\r\u{1b}[K")
        .expect("a line that was taken away");
    assert!(
        line.starts_with('\r') && line.contains("files, "),
        "{line:?}"
    );
    assert!(last.starts_with("400 files, 546 KiB"), "{last:?}");
    let quiet = cp(ctx, true, &ctx.dir, &["-r", "src", "quiet"]);
    assert_eq!(quiet.said(), "", "no terminal, no progress");
}

fn a_deep_tree_is_copied_with_few_descriptors(ctx: &Ctx) {
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

fn what_sftp_cannot_make_is_named_and_left_out(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let source = ctx.behind.join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    must_run(Command::new("mkfifo").arg(source.join("fifo")), MINUTE);
    let done = cp(ctx, true, &ctx.dir, &["-a", "src", "copy"]);
    let said = "sftpfs cp: cannot create fifo 'copy/fifo': it cannot be made over SFTP\n";
    assert_eq!((done.code(), done.err.as_str()), (Some(1), said));
    assert_eq!(fs::read(ctx.dir.join("copy/file")).unwrap(), b"x");
    assert_eq!(fs::read_dir(ctx.dir.join("copy")).unwrap().count(), 1);
}

fn info_tells_the_path_and_how_the_content_came(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fs::write(ctx.dir.join("a"), "hello").unwrap();
    let info = |file: &Path| {
        let mut command = ctx.lab.program.command();
        process::run(command.arg("info").arg(file), MINUTE)
    };
    let told = info(&ctx.dir.join("a"));
    if !ctx.on_mount {
        assert_eq!(told.code(), Some(1));
        let name = ctx.dir.join("a");
        let said = format!(
            "sftpfs info: '{}' is not on an sftpfs mount\n",
            name.display()
        );
        return assert_eq!(told.err, said);
    }
    let path = format!("on the server:  '{}'", ctx.behind.join("a").display());
    assert!(told.ok() && told.out.contains(&path), "{}", told.said());
    must_run(
        Command::new("cp").args(["a", "b"]).current_dir(&ctx.dir),
        MINUTE,
    );
    let told = info(&ctx.dir.join("b"));
    assert!(
        told.out.contains("content:        copied on the server"),
        "{}",
        told.said()
    );
    assert_eq!(info(&ctx.dir.join("gone")).code(), Some(1));
    let mount = ctx.plan().mount().unwrap();
    must_run(
        Command::new("cp").args(["a", "c"]).current_dir(mount.at()),
        MINUTE,
    );
    let told = info(mount.at());
    let copies = "copies:         0 linked, 1 made by the server, 0 streamed";
    assert!(
        told.out.contains(copies) && told.out.contains("5 B did not cross"),
        "{}",
        told.out
    );
    mount.unmount().unwrap();
}
