//! Works that tell by themselves whether every byte is right: each compares what it made with what
//! it should be, as seen in the mount and as the server has it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::super::random::Random;
use super::super::tools::git;
use super::look::{Links, look, same};
use super::watch::{Steps, Told, hold};
use crate::process;

/// Where a work is done, once.
#[derive(Clone)]
pub(super) struct Arena {
    /// An empty directory, in the mount.
    pub(super) dir: PathBuf,
    /// The same as the server has it.
    pub(super) behind: PathBuf,
    /// What all works read from; see [`Sources`].
    pub(super) sources: Sources,
    pub(super) seed: u64,
}

/// What the works work with, on the local disk; made once.
#[derive(Clone)]
pub(super) struct Sources {
    /// A tree of real files.
    pub(super) tree: PathBuf,
    /// The same in one file.
    pub(super) archive: PathBuf,
    /// A repository of git, with the same files.
    pub(super) repository: PathBuf,
    /// For what must not be in the mount.
    pub(super) scratch: PathBuf,
    /// fsx, if it is to be had.
    pub(super) fsx: Option<PathBuf>,
    /// Whether there is a fio.
    pub(super) fio: bool,
}

/// A work.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) name: &'static str,
    pub(super) run: fn(&Arena, &Steps) -> Result<(), String>,
}

/// All of them.
pub(super) const WORKS: [Work; 10] = [
    Work {
        name: "git_clone",
        run: git_clone,
    },
    Work {
        name: "tar_x",
        run: tar_x,
    },
    Work {
        name: "sqlite",
        run: sqlite,
    },
    Work {
        name: "cp_a",
        run: cp_a,
    },
    Work {
        name: "verified_writes",
        run: verified_writes,
    },
    Work {
        name: "an_appending_logger",
        run: logger,
    },
    Work {
        name: "names",
        run: names,
    },
    Work {
        name: "large_files",
        run: large_files,
    },
    Work {
        name: "fsx",
        run: fsx,
    },
    Work {
        name: super::fio::NAME,
        run: super::fio::fio_verify,
    },
];

impl Sources {
    /// Gathers and packs the files; `from` has real ones, in directories.
    pub(super) fn make(scratch: &Path, from: &Path, fsx: Option<PathBuf>) -> Result<Self, String> {
        let tree = scratch.join("tree");
        fs::create_dir_all(&tree).told("tree")?;
        command("cp", &["-a"], &[from, &tree.join("real")])?;
        let awkward = tree.join("awkward");
        fs::create_dir(&awkward).told("awkward")?;
        fs::write(awkward.join("empty"), b"").told("empty")?;
        fs::write(awkward.join("long"), Random::new(7).bytes(1_200_000)).told("long")?;
        fs::hard_link(awkward.join("long"), awkward.join("its other name")).told("link")?;
        std::os::unix::fs::symlink("long", awkward.join("sym")).told("symlink")?;
        fs::create_dir(awkward.join("empty directory")).told("mkdir")?;
        // SFTP has times in whole seconds, and `look` compares those of long ago.
        let touch = "find . -exec touch -h -d '2020-02-02 02:02:02' {} +";
        let mut find = Command::new("sh");
        must(find.args(["-c", touch]).current_dir(&tree))?;
        let archive = scratch.join("tree.tar");
        let mut tar = Command::new("tar");
        must(tar.arg("-cf").arg(&archive).arg("-C").arg(&tree).arg("."))?;
        let repository = scratch.join("repository");
        command("cp", &["-a"], &[&tree, &repository])?;
        for words in [
            &["init", "--quiet"][..],
            &["add", "--all"],
            &["commit", "--quiet", "--message", "All of it"],
        ] {
            must(git(&repository).args(words))?;
        }
        Ok(Self {
            tree,
            archive,
            repository,
            scratch: scratch.to_owned(),
            fsx,
            fio: super::fio::is_installed(),
        })
    }
}

impl Arena {
    /// Holds that the tree in the mount and the server's are as the source.
    fn same_tree(&self, steps: &Steps, source: &Path, name: &str) -> Result<(), String> {
        let expected = look(source, Links::Counted)?;
        steps.next(format!("compare {name} on the server"));
        same(
            "on the server",
            &expected,
            &look(&self.behind.join(name), Links::Counted)?,
        )?;
        steps.next(format!("compare {name} in the mount"));
        let expected = look(source, Links::Ignored)?;
        same(
            "in the mount",
            &expected,
            &look(&self.dir.join(name), Links::Ignored)?,
        )
    }
}

fn git_clone(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let clone = arena.dir.join("clone");
    steps.next("git clone");
    let mut command = git(&arena.dir);
    // As from another machine: nothing is linked or copied.
    command.args(["clone", "--quiet", "--no-local"]);
    must(command.arg(&arena.sources.repository).arg(&clone))?;
    steps.next("git status");
    let changed = must(git(&clone).args(["status", "--porcelain"]))?;
    hold(changed.is_empty(), format!("git status: {changed}"))?;
    steps.next("git commit");
    fs::write(clone.join("added"), "added\n").told("write added")?;
    must(git(&clone).args(["add", "added"]))?;
    must(git(&clone).args(["commit", "--quiet", "--message", "Add one"]))?;
    steps.next("git fsck");
    must(git(&clone).args(["fsck", "--strict", "--no-dangling"]))?;
    let behind = arena.behind.join("clone");
    steps.next("git fsck on the server");
    must(git(&behind).args(["fsck", "--strict", "--no-dangling"]))?;
    let count = must(git(&behind).args(["rev-list", "--count", "HEAD"]))?;
    hold(count == "2\n", format!("{count} commits"))?;
    steps.next("git status on the server");
    let changed = must(git(&behind).args(["status", "--porcelain"]))?;
    hold(changed.is_empty(), format!("on the server: {changed}"))?;
    steps.next("compare files");
    let mut expected = look(&arena.sources.repository, Links::Ignored)?;
    let mut found = look(&behind, Links::Ignored)?;
    for tree in [&mut expected, &mut found] {
        tree.retain(|path, entry| !path.starts_with(".git") && entry.content.is_some());
        // git keeps no times.
        for entry in tree.values_mut() {
            entry.line.clear();
        }
    }
    found.remove(Path::new("added"));
    same("after git clone", &expected, &found)
}

fn tar_x(arena: &Arena, steps: &Steps) -> Result<(), String> {
    steps.next("tar x");
    let out = arena.dir.join("out");
    fs::create_dir(&out).told("mkdir out")?;
    let mut tar = Command::new("tar");
    tar.arg("-xpf").arg(&arena.sources.archive);
    must(tar.arg("-C").arg(&out))?;
    arena.same_tree(steps, &arena.sources.tree, "out")
}

fn cp_a(arena: &Arena, steps: &Steps) -> Result<(), String> {
    steps.next("cp -a into the mount");
    let tree = &arena.sources.tree;
    command("cp", &["-a"], &[tree, &arena.dir.join("in")])?;
    arena.same_tree(steps, tree, "in")?;
    steps.next("cp -a inside the mount");
    command(
        "cp",
        &["-a"],
        &[&arena.dir.join("in"), &arena.dir.join("twice")],
    )?;
    steps.next("rm -r in the mount");
    command("rm", &["-r"], &[&arena.dir.join("in")])?;
    hold(!arena.behind.join("in").exists(), "rm -r left something")?;
    steps.next("cp -a out of the mount");
    let out = arena.sources.scratch.join(format!("out {}", arena.seed));
    command("cp", &["-a"], &[&arena.dir.join("twice"), &out])?;
    let expected = look(tree, Links::Ignored)?;
    let found = look(&out, Links::Ignored)?;
    let _ = fs::remove_dir_all(&out);
    same("copied out", &expected, &found)
}

/// Transactions, some taken back; the same statements on the local disk must give the same.
fn sqlite(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let local = arena
        .sources
        .scratch
        .join(format!("local {}.db", arena.seed));
    // Of a run with the same seed that failed.
    let _ = fs::remove_file(&local);
    let database = arena.dir.join("data.db");
    let mut random = Random::new(arena.seed);
    let make = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX i ON t(text);";
    let both = |steps: &Steps, what: &str, statements: &str| {
        for path in [&local, &database] {
            steps.next(what);
            sql(path, statements)?;
        }
        Ok::<(), String>(())
    };
    both(steps, "create the tables", make)?;
    for round in 0..12 {
        let (rows, end) = (
            20 + random.below(150),
            *random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]),
        );
        let statements = format!(
            "BEGIN; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<{rows}) \
             INSERT INTO t(text) SELECT 'round {round} row ' || x || hex(zeroblob(x % 90)) FROM n; \
             UPDATE t SET text = text || '!' WHERE id % 7 = {}; {end};",
            random.below(7)
        );
        both(steps, &format!("transaction {round}"), &statements)?;
    }
    both(steps, "VACUUM", "DELETE FROM t WHERE id % 5 = 0; VACUUM;")?;
    let expected = sql(&local, ".dump")?;
    for (place, path) in [
        ("in the mount", &database),
        ("on the server", &arena.behind.join("data.db")),
    ] {
        steps.next(format!("check the database {place}"));
        let checked = sql(path, "PRAGMA integrity_check;")?;
        hold(checked == "ok\n", format!("{place}: {checked}"))?;
        hold(
            sql(path, ".dump")? == expected,
            format!("{place}: another content"),
        )?;
    }
    let _ = fs::remove_file(&local);
    Ok(())
}

/// As fio(1) does: blocks at random places, each telling where it belongs and which
/// write of it this was; read back at once, later, and at the end.
fn verified_writes(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let path = arena.dir.join("blocks");
    let mut random = Random::new(arena.seed ^ 0xb10c);
    let mut written: BTreeMap<u64, u64> = BTreeMap::new();
    let mut file = open_both(&path)?;
    for number in 1..=WRITES {
        let place = random.below(BLOCKS);
        steps.next(format!("write {number}, to block {place}"));
        file.write_all_at(&block(place, number), place * BLOCK)
            .told("pwrite")?;
        written.insert(place, number);
        match random.below(20) {
            0 => file.sync_data().told("fdatasync")?,
            1 => {
                steps.next(format!("close and open after write {number}"));
                drop(file);
                file = open_both(&path)?;
            }
            2..=6 => {
                let places: Vec<u64> = written.keys().copied().collect();
                let place = *random.pick(&places);
                steps.next(format!("read block {place} after write {number}"));
                // From the server, not from the page cache, where that can be had.
                let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
                verify(&file, place, written[&place])?;
            }
            _ => (),
        }
    }
    steps.next("fsync");
    file.sync_all().told("fsync")?;
    let behind = File::open(arena.behind.join("blocks")).told("the server's file")?;
    for file in [&file, &behind] {
        for (place, number) in &written {
            steps.next(format!("verify block {place}"));
            verify(file, *place, *number)?;
        }
    }
    Ok(())
}

fn open_both(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).told("open")
}

fn block(place: u64, number: u64) -> Vec<u8> {
    let mut block = format!("block {place} write {number}\n").into_bytes();
    let len = usize::try_from(BLOCK).expect("small");
    block.extend(Random::new(place << 32 | number).bytes(len - block.len()));
    block
}

fn verify(file: &File, place: u64, number: u64) -> Result<(), String> {
    let mut found = vec![0; usize::try_from(BLOCK).expect("small")];
    file.read_exact_at(&mut found, place * BLOCK)
        .told("pread")?;
    let expected = block(place, number);
    hold(
        found == expected,
        format!(
            "block {place} of write {number}: {}",
            super::look::different(Some(&found), Some(&expected))
        ),
    )
}

/// Lines one by one, each a write(2) of its own to a file that is appended to, sometimes opened
/// anew: none is lost, doubled, torn or out of order.
fn logger(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let path = arena.dir.join("log");
    let mut random = Random::new(arena.seed ^ 0x109);
    let open = || {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        options.open(&path).told("open the log")
    };
    let mut expected = Vec::new();
    let mut file = open()?;
    for number in 0..LINES {
        steps.next(format!("append line {number}"));
        let line = format!("{number} {}\n", "y".repeat(random.below(120) as usize));
        file.write_all(line.as_bytes()).told("append")?;
        expected.extend(line.as_bytes());
        match random.below(30) {
            0 => file.sync_all().told("fsync")?,
            1 => {
                steps.next(format!("close and open after line {number}"));
                drop(file);
                file = open()?;
            }
            2..=9 => std::thread::sleep(Duration::from_millis(random.below(20))),
            _ => (),
        }
    }
    steps.next("close the log");
    drop(file);
    for (place, path) in [
        ("in the mount", &path),
        ("on the server", &arena.behind.join("log")),
    ] {
        steps.next(format!("read the log {place}"));
        let now = fs::read(path).told("read the log")?;
        hold(
            now == expected,
            format!(
                "{place}: {}; {}",
                super::look::different(Some(&now), Some(&expected)),
                lines(&now)
            ),
        )?;
    }
    Ok(())
}

/// Which lines of a log are missing or doubled.
fn lines(log: &[u8]) -> String {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut torn = 0;
    for line in String::from_utf8_lossy(log).lines() {
        let number = line.split(' ').next().and_then(|word| word.parse().ok());
        match number {
            Some(number) => *seen.entry(number).or_default() += 1,
            None => torn += 1,
        }
    }
    let lost: Vec<u64> = (0..LINES)
        .filter(|number| !seen.contains_key(number))
        .collect();
    let doubled: Vec<u64> = seen
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(number, _)| *number)
        .collect();
    format!("lost {lost:?}, doubled {doubled:?}, torn {torn}")
}

/// What can be done once and not twice: each must succeed, and be seen at once.
fn names(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let at = |name: &str| arena.dir.join(name);
    let there = |name: &str| fs::symlink_metadata(arena.dir.join(name)).is_ok();
    let mut random = Random::new(arena.seed ^ 0x4a4e5);
    fs::write(at("kept"), "kept").told("write kept")?;
    for round in 0..60_u64 {
        steps.next(format!("round {round}: O_EXCL"));
        let mut lock = File::create_new(at("lock")).told("O_EXCL")?;
        lock.write_all(round.to_string().as_bytes())
            .told("write the lock")?;
        drop(lock);
        steps.next(format!("round {round}: mkdir"));
        fs::create_dir(at("dir")).told("mkdir")?;
        steps.next(format!("round {round}: rename into it"));
        fs::rename(at("lock"), at("dir/moved")).told("rename")?;
        hold(!there("lock") && there("dir/moved"), "after rename")?;
        steps.next(format!("round {round}: link"));
        fs::hard_link(at("dir/moved"), at("dir/twin")).told("link")?;
        steps.next(format!("round {round}: symlink"));
        std::os::unix::fs::symlink("moved", at("dir/sym")).told("symlink")?;
        steps.next(format!("round {round}: rename over"));
        fs::write(at("new"), round.to_string()).told("write new")?;
        fs::rename(at("new"), at("saved")).told("rename over")?;
        let saved = fs::read_to_string(at("saved")).told("read saved")?;
        hold(saved == round.to_string(), format!("saved {saved}"))?;
        if random.below(2) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(30)));
        }
        for name in ["dir/sym", "dir/twin", "dir/moved"] {
            steps.next(format!("round {round}: unlink {name}"));
            fs::remove_file(at(name)).told(format!("unlink {name}"))?;
            hold(!there(name), format!("{name} is still there"))?;
        }
        steps.next(format!("round {round}: rmdir"));
        fs::remove_dir(at("dir")).told("rmdir")?;
        hold(!there("dir"), "dir is still there")?;
    }
    let mut left: Vec<_> = fs::read_dir(&arena.behind)
        .told("the server's directory")?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .told("the server's directory")?;
    left.sort();
    hold(left == ["kept", "saved"], format!("left: {left:?}"))
}

/// Large files, of which several connections carry parts.
fn large_files(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let original = Random::new(arena.seed ^ 0x1a46e).bytes(LARGE);
    let path = arena.dir.join("large");
    steps.next("create the large file");
    let mut file = File::create(&path).told("create")?;
    for (number, part) in original.chunks(1 << 20).enumerate() {
        steps.next(format!("write MiB {number}"));
        file.write_all(part).told("write")?;
    }
    steps.next("close the large file");
    drop(file);
    let same = |steps: &Steps, what: &str, path: &Path| {
        steps.next(what);
        let file = File::open(path).told(what)?;
        let mut found = Vec::with_capacity(LARGE);
        let mut part = vec![0; 1 << 20];
        loop {
            steps.next(format!("{what}, byte {}", found.len()));
            let len = std::io::Read::read(&mut &file, &mut part).told(what)?;
            if len == 0 {
                break;
            }
            found.extend(&part[..len]);
        }
        hold(
            found == original,
            format!(
                "{what}: {}",
                super::look::different(Some(&found), Some(&original))
            ),
        )
    };
    same(steps, "read it on the server", &arena.behind.join("large"))?;
    drop_pages(&path)?;
    same(steps, "read it in the mount", &path)?;
    steps.next("copy it in the mount");
    command("cp", &[], &[&path, &arena.dir.join("copy")])?;
    same(
        steps,
        "read the copy on the server",
        &arena.behind.join("copy"),
    )?;
    drop_pages(&arena.dir.join("copy"))?;
    same(steps, "read the copy in the mount", &arena.dir.join("copy"))
}

fn drop_pages(path: &Path) -> Result<(), String> {
    let file = File::open(path).told("open")?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).told("fadvise")
}

fn fsx(arena: &Arena, steps: &Steps) -> Result<(), String> {
    let Some(program) = &arena.sources.fsx else {
        return Ok(());
    };
    steps.next("fsx");
    let config = arena.sources.scratch.join("fsx.toml");
    fs::write(&config, FSX).told("fsx.toml")?;
    let mut command = Command::new(program);
    command.arg("-f").arg(config);
    command.args(["-N", FSX_OPERATIONS, "-S", &arena.seed.to_string(), "-P"]);
    command
        .arg(&arena.sources.scratch)
        .arg(arena.dir.join("exercised"));
    must(&mut command)?;
    let here = fs::read(arena.dir.join("exercised")).told("read in the mount")?;
    let there = fs::read(arena.behind.join("exercised")).told("read on the server")?;
    hold(here == there, "the server has other bytes")
}

fn sql(database: &Path, statements: &str) -> Result<String, String> {
    let mut command = Command::new("sqlite3");
    must(command.arg("-batch").arg(database).arg(statements))
}

fn command(program: &str, words: &[&str], paths: &[&Path]) -> Result<String, String> {
    must(Command::new(program).args(words).args(paths))
}

/// Runs a program that must say nothing but success.
pub(super) fn must(command: &mut Command) -> Result<String, String> {
    let finished = process::run(command.env("LC_ALL", "C"), PROGRAM_MAX);
    if finished.ok() {
        return Ok(finished.out);
    }
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    Err(format!(
        "{}: {}: {} ({})",
        command.get_program().display(),
        finished.ending(),
        process::tail(&finished.said(), 12),
        words.join(" ").chars().take(200).collect::<String>()
    ))
}

const BLOCK: u64 = 16 << 10;
/// 8 MiB: more than the 2 MiB from which on a file is carried by several connections.
const BLOCKS: u64 = 512;
const WRITES: u64 = 900;
const LINES: u64 = 400;
const LARGE: usize = 24 << 20;
const FSX_OPERATIONS: &str = "2500";
/// A program of many steps, each of which may wait for a connection.
pub(super) const PROGRAM_MAX: Duration = Duration::from_secs(170);

/// As in `fsx.rs`, with more of what goes to the server.
const FSX: &str = "\
flen = 600000
[opsize]
max = 80000
[weights]
close_open = 4
read = 10
write = 10
mapread = 5
mapwrite = 5
invalidate = 2
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 1
sendfile = 2
copy_file_range = 3
";
