//! Random operations on files that are copies of each other, in a mount that keeps copies as links
//! on the server and beside it on a plain directory, where copies are copies: what programs see is
//! the same, over several mounts one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::differential::operation::{How, Operation, World};
use super::differential::tree;
use super::random::Random;
use super::site::{COPY_DATA, Copying, Site, content};
use crate::case::{Case, Ctx, Suite, case};
use crate::wire::Manner;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "random_copies",
        about: "random operations on pairs and chains of copies, beside a plain directory",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    [
        case(copies_kept_as_links_behave_as_copies),
        case(copies_made_by_the_server_are_copies),
        case(copies_kept_as_links_behave_as_copies_without_copy_data),
    ]
    .into_iter()
    .map(|case| case.on_mount_only().within_s(600))
    .collect()
}

fn copies_kept_as_links_behave_as_copies(ctx: &Ctx) {
    let rounds = if ctx.full { 20 } else { 3 };
    let most = (0..rounds)
        .map(|round| side_by_side(ctx, Copying::Cow, &Manner::default(), ctx.seed + round))
        .max();
    assert!(
        most > Some(3),
        "hardly anything was ever shared on the server"
    );
}

fn copies_made_by_the_server_are_copies(ctx: &Ctx) {
    side_by_side(ctx, Copying::Off, &Manner::default(), ctx.seed + 100);
}

fn copies_kept_as_links_behave_as_copies_without_copy_data(ctx: &Ctx) {
    let manner = Manner {
        hidden: vec![COPY_DATA],
        ..Manner::default()
    };
    side_by_side(ctx, Copying::Cow, &manner, ctx.seed + 200);
}

/// What was done, for when it fails.
struct Log {
    seed: u64,
    lines: Vec<String>,
}

impl Log {
    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        let from = self.lines.len().saturating_sub(60);
        panic!(
            "--seed {}: {what}\nthe last operations, with the results of a plain directory:\n{}",
            self.seed,
            self.lines[from..].join("\n")
        );
    }
}

/// Gives how many names shared storage at a time, at most.
fn side_by_side(ctx: &Ctx, copying: Copying, manner: &Manner, seed: u64) -> usize {
    let steps = if ctx.full { 4000 } else { 600 };
    let behind = ctx.behind.join(format!("seed-{seed}"));
    let plain = ctx.lab.fresh("plain/copies");
    for dir in ["one", "two", "two/three"] {
        fs::create_dir_all(behind.join(dir)).unwrap();
        fs::create_dir_all(plain.join(dir)).unwrap();
    }
    for (number, name) in ["a", "b", "one/a", "two/b"].iter().enumerate() {
        let content = content("random", 70_000 * number + 1);
        for dir in [&behind, &plain] {
            fs::write(dir.join(name), &content).unwrap();
        }
    }
    let mut site = Site::at(ctx, &behind, copying, manner.clone());
    let (mut ours, mut model) = (World::new(site.dir.clone()), World::new(plain.clone()));
    let mut random = Random::new(seed);
    let (mut log, mut most) = (
        Log {
            seed,
            lines: Vec::new(),
        },
        0,
    );
    for step in 0..steps {
        if step % MOUNT_EVERY == MOUNT_EVERY - 1 {
            ours.close_all();
            model.close_all();
            one_name_each(&mut ours, &mut model, &mut log);
            compare(&site.dir, &plain, &log, "before the mount ends");
            site.remount();
            log.lines.push(format!("{step}: mounted anew"));
            compare(&site.dir, &plain, &log, "in the new mount");
        }
        let mut names = Vec::new();
        files(&plain, Path::new(""), &mut names);
        let operation = random_operation(&mut random, &names);
        let (got, expected) = (ours.apply(&operation), model.apply(&operation));
        log.lines
            .push(format!("{step}: {operation:?} -> {expected:?}"));
        if got != expected {
            log.fail(&format!("gave {got:?}"));
        }
        if step % LOOK_EVERY == 0 {
            compare(&site.dir, &plain, &log, "the tree differs");
            most = most.max(sharing(&behind));
        }
    }
    ours.close_all();
    model.close_all();
    compare(&site.dir, &plain, &log, "all files closed");
    site.end();
    compare_without_links(&behind, &plain, &log);
    fs::remove_dir_all(&plain).unwrap();
    most
}

/// Any operation on a few files in few places; often a copy.
fn random_operation(random: &mut Random, names: &[String]) -> Operation {
    let there = |random: &mut Random| {
        if names.is_empty() || random.below(10) == 0 {
            path(random)
        } else {
            random.pick(names).clone()
        }
    };
    let slot = usize::try_from(random.below(4)).unwrap();
    let fill = *random.pick(b"abcdefgh");
    let mode = *random.pick(&[0o600, 0o644, 0o755, 0o640]);
    let seconds = i64::try_from(random.below(999_999)).unwrap();
    match random.below(100) {
        0..30 => Operation::Copy {
            from: there(random),
            to: path(random),
            mode: (random.below(12) == 0).then_some(mode),
            seconds: (random.below(12) == 0).then_some(seconds),
        },
        30..36 => Operation::CopyRange {
            from: there(random),
            // Not from the start: the whole of a file would come with its mode and time.
            place: 1 + length(random) as u64,
            to: path(random),
            to_place: length(random) as u64,
            len: length(random),
        },
        36..40 => Operation::Write {
            path: path(random),
            len: length(random),
            fill,
        },
        40..43 => Operation::Truncate {
            path: there(random),
            len: length(random) as u64,
        },
        43..46 => Operation::Chmod {
            path: there(random),
            mode,
        },
        46..49 => Operation::SetMtime {
            path: there(random),
            seconds,
            follow: true,
        },
        49..55 => Operation::Rename {
            from: there(random),
            to: path(random),
            flags: 0,
        },
        55..57 => {
            let (from, to) =
                *random.pick(&[("two", "four"), ("four", "two"), ("one", "two/three")]);
            Operation::Rename {
                from: from.into(),
                to: to.into(),
                flags: 0,
            }
        }
        57..60 => Operation::Unlink {
            path: there(random),
        },
        60..64 => Operation::Stat {
            path: there(random),
        },
        64..67 => Operation::Link {
            from: there(random),
            to: path(random),
        },
        67..72 => Operation::Read {
            path: there(random),
        },
        72..74 => Operation::Stat {
            path: there(random),
        },
        74..84 => {
            let how = [How::Read, How::ReadWrite, How::CreateTruncate, How::Append];
            Operation::Open {
                slot,
                path: there(random),
                how: *random.pick(&how),
            }
        }
        84..86 => Operation::Close { slot },
        86..92 => Operation::WriteAt {
            slot,
            offset: length(random) as u64,
            len: length(random),
            fill,
        },
        92..96 => Operation::ReadAt {
            slot,
            offset: length(random) as u64,
            len: length(random),
        },
        96..98 => Operation::SetLen {
            slot,
            len: length(random) as u64,
        },
        98..99 => Operation::Fchmod { slot, mode },
        _ => Operation::Fsync { slot },
    }
}

fn path(random: &mut Random) -> String {
    let dir = *random.pick(&["", "", "one/", "two/", "two/three/", "four/"]);
    format!("{dir}{}", random.pick(&["a", "b", "c"]))
}

fn length(random: &mut Random) -> usize {
    let bound = *random.pick(&[1, 100, 5000, 70_000, 300_000]);
    usize::try_from(random.below(bound)).unwrap()
}

/// SFTP does not tell which names are one file, so the next mount could not know: of each file
/// with several names, all but one go.
fn one_name_each(ours: &mut World, model: &mut World, log: &mut Log) {
    let mut seen = BTreeMap::new();
    let mut names = Vec::new();
    files(&model.root, Path::new(""), &mut names);
    for path in names {
        let number = fs::metadata(model.root.join(&path)).unwrap().ino();
        if seen.insert(number, ()).is_some() {
            let operation = Operation::Unlink { path };
            let (got, expected) = (ours.apply(&operation), model.apply(&operation));
            log.lines
                .push(format!("before mounting: {operation:?} -> {expected:?}"));
            if got != expected {
                log.fail(&format!("gave {got:?}"));
            }
        }
    }
}

fn files(root: &Path, below: &Path, names: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(root.join(below))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files(root, &path, names);
        } else {
            names.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// How many names on the server share their file with others.
fn sharing(behind: &Path) -> usize {
    let mut names = Vec::new();
    files(behind, Path::new(""), &mut names);
    names
        .iter()
        .filter(|name| fs::metadata(behind.join(name)).is_ok_and(|meta| meta.nlink() > 1))
        .count()
}

#[track_caller]
fn compare(tested: &Path, plain: &Path, log: &Log, what: &str) {
    differ(tree::describe(tested), tree::describe(plain), log, what);
}

/// What the server has is as good as what programs saw, but for how it is stored.
#[track_caller]
fn compare_without_links(behind: &Path, plain: &Path, log: &Log) {
    let lines = |dir: &Path| {
        tree::describe(dir)
            .into_iter()
            .map(|line| match line.split_once(" links ") {
                None => line,
                Some((head, tail)) => {
                    let (_, tail) = tail.split_once(' ').unwrap_or_default();
                    format!("{head} {tail}")
                }
            })
            .collect()
    };
    differ(
        lines(behind),
        lines(plain),
        log,
        "the server's tree differs",
    );
}

#[track_caller]
fn differ(got: Vec<String>, expected: Vec<String>, log: &Log, what: &str) {
    if got == expected {
        return;
    }
    let lacks = expected.iter().filter(|line| !got.contains(line));
    let instead = got.iter().filter(|line| !expected.contains(line));
    let lines: Vec<String> = lacks
        .map(|line| format!("  missing {line}"))
        .chain(instead.map(|line| format!("  instead {line}")))
        .collect();
    log.fail(&format!("{what}:\n{}", lines.join("\n")));
}

/// A new mount now and then.
const MOUNT_EVERY: u32 = 150;
/// Looking at everything costs more than an operation.
const LOOK_EVERY: u32 = 7;
