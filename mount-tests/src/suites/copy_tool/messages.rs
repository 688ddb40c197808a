//! What is said, the exit code, and what becomes of files that are there, command line by command
//! line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::describe::{describe, must_be_same};
use super::{cp, lines};
use crate::case::Ctx;

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

pub(super) fn messages_and_exit_codes_are_those_of_cp(ctx: &Ctx) {
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

pub(super) fn existing_files_are_treated_as_cp_treats_them(ctx: &Ctx) {
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
