//! A tree of thousands of real files, copied in with `cp -a` and out again, is identical.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::site::{Copying, Site};
use crate::case::{Case, Ctx, Suite, case};
use crate::process;
use crate::wire::Manner;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "tree",
        about: "thousands of real files copied in and out with cp -a are identical",
        every_transport: true,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(a_tree_copied_in_and_out_is_identical).within_s(400),
        case(small_files_copied_in_take_two_round_trips_each).on_mount_only(),
    ]
}

fn a_tree_copied_in_and_out_is_identical(ctx: &Ctx) {
    let original = ctx.lab.fresh("tree");
    gather(&original);
    let expected = describe(&original);
    let files = expected
        .values()
        .filter(|line| line.starts_with("file"))
        .count();
    assert!(files >= FILES_MIN, "only {files} files found to copy");
    let (inside, outside) = (ctx.dir.join("tree"), ctx.lab.fresh("tree-back"));
    copy(&original, &inside);
    same(
        "on the server",
        &expected,
        &describe(&ctx.behind.join("tree")),
    );
    same("in the mount", &expected, &describe(&inside));
    copy(&inside, &outside);
    same("copied out", &expected, &describe(&outside));
    if ctx.on_mount {
        // Once more by a mount that remembers nothing of the copying in.
        let mount = ctx.plan().mount().unwrap();
        fs::remove_dir_all(&outside).unwrap();
        copy(&mount.at().join("tree"), &outside);
        same(
            "copied out cold",
            &without_links(&expected),
            &without_links(&describe(&outside)),
        );
        mount.unmount().unwrap();
    }
    process::must_run(Command::new("rm").arg("-rf").arg(&inside), COPY_LIMIT);
    assert_eq!(
        fs::read_dir(&ctx.behind).unwrap().count(),
        0,
        "rm -rf left something"
    );
    for dir in [original, outside] {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// A delay that keeps apart what waits and what does not.
const LATENCY: Duration = Duration::from_millis(30);
const SMALL_FILES: u64 = 40;

/// One to make a file, one to close it; mode, owner and times wait for nobody.
fn small_files_copied_in_take_two_round_trips_each(ctx: &Ctx) {
    let original = ctx.lab.fresh("small");
    fs::create_dir(&original).unwrap();
    for number in 0..SMALL_FILES {
        let path = original.join(format!("f{number}"));
        fs::write(&path, vec![1; 5000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    let archive = ctx.lab.fresh("small.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(&original);
    process::must_run(tar.arg("."), COPY_LIMIT);
    let manner = Manner {
        latency: LATENCY,
        ..Manner::default()
    };
    let mut site = Site::planned(ctx, &ctx.behind, Copying::Off, manner);
    // As it is by default: no look before each file is made.
    site.option("negative_timeout=2");
    site.mount();
    let count = |how: &str, work: &dyn Fn()| {
        site.wire().reset();
        work();
        let counts = site.wire().counts();
        let (trips, requests) = (counts.trips, counts.requests);
        let said = format!("{how} of {SMALL_FILES} files: {trips} round trips, {requests:?}");
        ctx.note(said.clone());
        // What belongs to the directory, and what is waited for once, comes on top.
        assert!(trips <= SMALL_FILES * 12 / 5 + 20, "{said}");
    };
    count("cp -a", &|| copy(&original, &site.dir.join("copied")));
    count("tar x", &|| {
        let to = site.dir.join("unpacked");
        fs::create_dir(&to).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(&to);
        process::must_run(&mut tar, COPY_LIMIT);
    });
    let described = describe(&original);
    for made in ["copied", "unpacked"] {
        same(made, &described, &describe(&site.behind.join(made)));
    }
    site.end();
}

fn copy(from: &Path, to: &Path) {
    process::must_run(Command::new("cp").arg("-a").arg(from).arg(to), COPY_LIMIT);
}

/// Real files of this machine, whatever it has, and the awkward ones that it may not have. Times
/// are cut to whole seconds, as SFTP has no finer ones.
fn gather(to: &Path) {
    fs::create_dir(to).unwrap();
    let mut left = FILES_MIN + 100;
    for (index, source) in sources().iter().enumerate() {
        if left == 0 {
            break;
        }
        let into = to.join(format!("{index}"));
        fs::create_dir(&into).unwrap();
        left = take(source, &into, left);
    }
    let awkward = to.join("awkward");
    fs::create_dir(&awkward).unwrap();
    for (number, mode) in [0o444, 0o755, 0o600, 0o4711, 0o2755, 0o1777]
        .into_iter()
        .enumerate()
    {
        let path = awkward.join(format!("mode {number}"));
        fs::write(&path, vec![b'x'; number * 70_000]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(awkward.join("two names"), "content").unwrap();
    fs::hard_link(awkward.join("two names"), awkward.join("other name")).unwrap();
    symlink("nowhere", awkward.join("dangling")).unwrap();
    symlink("mode 1", awkward.join("link")).unwrap();
    symlink("..", awkward.join("up")).unwrap();
    fs::create_dir(awkward.join("empty")).unwrap();
    set_whole_seconds(to);
}

fn sources() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = [
        "/usr/include",
        "/usr/lib/python3",
        "/usr/share/perl",
        "/usr/share/doc",
        "/usr/share/zoneinfo",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    // Whoever compiles this has sources of crates.
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    all.push(cargo.join("registry/src"));
    all.push("/usr/share".into());
    all.retain(|dir| dir.is_dir());
    all
}

/// Copies up to `left` files with what leads to them; gives how many may still follow.
fn take(from: &Path, to: &Path, mut left: usize) -> usize {
    let Ok(entries) = fs::read_dir(from) else {
        return left;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let (Ok(meta), Some(name)) = (fs::symlink_metadata(&path), path.file_name()) else {
            continue;
        };
        if left == 0 {
            return 0;
        }
        let target = to.join(name);
        if meta.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else if meta.is_dir() {
            fs::create_dir(&target).unwrap();
            left = take(&path, &target, left);
        } else if meta.is_file() && meta.len() < FILE_MAX && fs::copy(&path, &target).is_ok() {
            left -= 1;
        }
    }
    left
}

/// Gives every entry an mtime of its own; a directory's after its entries'.
fn set_whole_seconds(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            set_whole_seconds(&path);
        } else {
            set_mtime(&path);
        }
    }
    set_mtime(dir);
}

fn set_mtime(path: &Path) {
    use nix::sys::stat::{UtimensatFlags, utimensat};
    let place = path.as_os_str().len() as i64;
    let time = nix::sys::time::TimeSpec::new(1_200_000_000 + place * 7919, 0);
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags).unwrap();
}

/// Each path with everything `cp -a` promises to keep. Hard links are told by who shares an inode.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut names_of_inode: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let mut names: Vec<_> = fs::read_dir(root.join(&below))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let path = below.join(name);
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let mut line = line(&root.join(&path), &meta);
            if meta.is_file() && meta.nlink() > 1 {
                let first = names_of_inode
                    .entry(meta.ino())
                    .or_insert_with(|| path.clone());
                line = format!("{line} same as {}", first.display());
            }
            found.insert(path, line);
        }
    }
    found
}

fn line(path: &Path, meta: &fs::Metadata) -> String {
    let (mode, mtime) = (meta.mode() & 0o7777, meta.mtime());
    let owner = format!("{}:{}", meta.uid(), meta.gid());
    if meta.is_symlink() {
        let target = fs::read_link(path).unwrap();
        return format!("symlink {owner} {mtime} to {}", target.display());
    }
    if meta.is_dir() {
        return format!("directory {mode:o} {owner} {mtime}");
    }
    let bytes = fs::read(path).unwrap();
    let (links, size) = (meta.nlink(), meta.len());
    assert_eq!(
        bytes.len() as u64,
        size,
        "{} read to another length than its size",
        path.display()
    );
    let sum = bytes
        .chunks(8)
        .map(|part| {
            part.iter()
                .fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        })
        .fold(0u64, |sum, word| {
            (sum ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(17)
        });
    format!("file {mode:o} {owner} {mtime} links {links} size {size} sum {sum:x}")
}

/// As a mount sees it that did not make the hard links itself: SFTP has no inode numbers, so it
/// cannot know which names are one file.
fn without_links(tree: &BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let content_only = |line: &String| {
        let line = line.split(" same as ").next().unwrap_or_default();
        line.replace(" links 2 ", " links 1 ")
    };
    tree.iter()
        .map(|(path, line)| (path.clone(), content_only(line)))
        .collect()
}

#[track_caller]
fn same(place: &str, expected: &BTreeMap<PathBuf, String>, got: &BTreeMap<PathBuf, String>) {
    let mut differences = Vec::new();
    for (path, line) in expected {
        match got.get(path) {
            Some(other) if other == line => (),
            other => differences.push(format!(
                "{}: {line}, but {place}: {other:?}",
                path.display()
            )),
        }
    }
    differences.extend(
        got.keys()
            .filter(|path| !expected.contains_key(*path))
            .map(|path| format!("{} is new {place}", path.display())),
    );
    let count = differences.len();
    differences.truncate(5);
    assert!(
        count == 0,
        "{count} differences {place}:\n{}",
        differences.join("\n")
    );
}

/// As many as the issue of the mount asks for.
const FILES_MIN: usize = 5000;
/// A tree of 5,000 files is about names, not about bytes.
const FILE_MAX: u64 = 300_000;
const COPY_LIMIT: Duration = Duration::from_secs(200);
