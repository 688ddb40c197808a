//! A session of everything that a program does to files, each step of which must succeed and be
//! seen at once; it is run again and again with one cut somewhere in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::super::site::{LONG_AGO, content};
use super::look::different;
use super::watch::{Steps, Told, hold};
use crate::process;

/// Makes what the session finds: a directory of 300 entries and two files that stay open.
pub(super) fn prepare(behind: &Path) {
    fs::create_dir_all(behind.join("many")).unwrap();
    for number in 0..MANY {
        fs::write(behind.join(format!("many/entry {number:03}")), b"").unwrap();
    }
    fs::write(behind.join("read"), content("read", READ_LEN)).unwrap();
    fs::write(behind.join("written"), content("written", WRITTEN_LEN)).unwrap();
}

/// The session. What is open is open from its beginning to its end.
pub(super) fn run(dir: &Path, steps: &Steps) -> Result<(), String> {
    let session = Session {
        dir: dir.to_owned(),
        steps: steps.clone(),
    };
    session.step("open for reading");
    let read = File::open(session.at("read")).told("open read")?;
    session.step("open for writing");
    let path = session.at("written");
    let written = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .told("open written")?;
    let mut held = Held {
        read,
        written,
        model: content("written", WRITTEN_LEN),
        turn: 0,
    };
    type Part = fn(&Session) -> Result<(), String>;
    let parts: [(&str, Part); 9] = [
        ("make", make),
        ("append", append),
        ("overwrite and cut short", overwrite),
        ("rename", rename),
        ("link", link),
        ("lock", lock),
        ("copy", copy),
        ("attributes", attributes),
        ("list", list),
    ];
    for (name, part) in parts {
        part(&session)?;
        session.step(format!("use what is open, after {name}"));
        held.go_on()?;
    }
    session.step("the end of what is open");
    held.end(dir)
}

struct Session {
    dir: PathBuf,
    steps: Steps,
}

impl Session {
    fn step(&self, what: impl std::fmt::Display) {
        self.steps.next(what);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What a program reads there is this.
    fn holds(&self, name: &str, expected: &[u8]) -> Result<(), String> {
        self.step(format!("read {name}"));
        let now = fs::read(self.at(name)).told(name)?;
        hold(
            now == expected,
            format!("{name}: {}", different(Some(&now), Some(expected))),
        )
    }

    /// Nothing is there.
    fn is_gone(&self, name: &str) -> Result<(), String> {
        self.step(format!("look for {name}"));
        match fs::symlink_metadata(self.at(name)) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Err(format!("{name} should be gone: {:?}", other.map(|_| ()))),
        }
    }
}

/// Files that stay open across everything.
struct Held {
    read: File,
    written: File,
    /// What `written` must hold.
    model: Vec<u8>,
    turn: usize,
}

impl Held {
    fn go_on(&mut self) -> Result<(), String> {
        let expected = content("read", READ_LEN);
        let (from, len) = (self.turn * 40_000, 30_000);
        let mut bytes = vec![0; len];
        self.read
            .read_exact_at(&mut bytes, from as u64)
            .told("read what is open")?;
        hold(
            bytes == expected[from..from + len],
            format!(
                "what is open: {}",
                different(Some(&bytes), Some(&expected[from..from + len]))
            ),
        )?;
        let piece = content(&format!("piece {}", self.turn), 9_000);
        // Each overlaps the one before.
        let place = self.turn * 8_000;
        self.written
            .write_all_at(&piece, place as u64)
            .told("write what is open")?;
        self.model[place..place + piece.len()].copy_from_slice(&piece);
        if self.turn % 3 == 1 {
            self.written.sync_all().told("fsync")?;
        }
        let mut back = vec![0; 20_000];
        self.written
            .read_exact_at(&mut back, place as u64)
            .told("read what was written")?;
        hold(
            back == self.model[place..place + 20_000],
            "what was written reads back as something else",
        )?;
        self.turn += 1;
        Ok(())
    }

    fn end(self, dir: &Path) -> Result<(), String> {
        self.written.sync_data().told("fdatasync")?;
        drop(self.written);
        let now = fs::read(dir.join("written")).told("written")?;
        hold(
            now == self.model,
            format!("written: {}", different(Some(&now), Some(&self.model))),
        )
    }
}

fn make(session: &Session) -> Result<(), String> {
    session.step("mkdir a");
    fs::create_dir(session.at("a")).told("mkdir a")?;
    session.step("mkdir a/b");
    fs::create_dir(session.at("a/b")).told("mkdir a/b")?;
    session.step("create a/new");
    let mut file = File::create_new(session.at("a/new")).told("create a/new")?;
    session.step("write a/new");
    file.write_all(&content("new", 5000)).told("write a/new")?;
    session.step("close a/new");
    drop(file);
    session.holds("a/new", &content("new", 5000))?;
    session.step("create a/big");
    let file = File::create(session.at("a/big")).told("create a/big")?;
    session.step("write a/big");
    file.write_all_at(&content("big", BIG), 0)
        .told("write a/big")?;
    session.step("fsync a/big");
    file.sync_all().told("fsync a/big")?;
    hold(
        file.metadata().told("fstat a/big")?.len() == BIG as u64,
        "a/big has another size",
    )?;
    session.step("close a/big");
    drop(file);
    session.step("mkdir and rmdir a/tmp");
    fs::create_dir(session.at("a/tmp")).told("mkdir a/tmp")?;
    fs::remove_dir(session.at("a/tmp")).told("rmdir a/tmp")?;
    session.is_gone("a/tmp")
}

fn append(session: &Session) -> Result<(), String> {
    session.step("open a/log to append");
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(session.at("a/log"))
        .told("open a/log")?;
    let mut expected = Vec::new();
    for number in 0..LINES {
        session.step(format!("append line {number}"));
        let line = format!("line {number} of the log, {}\n", "x".repeat(number % 40));
        log.write_all(line.as_bytes()).told("append")?;
        expected.extend(line.as_bytes());
        if number % 5 == 4 {
            session.step(format!("fsync after line {number}"));
            log.sync_all().told("fsync a/log")?;
        }
    }
    session.step("close a/log");
    drop(log);
    session.holds("a/log", &expected)?;
    session.step("append by another open");
    let mut log = OpenOptions::new()
        .append(true)
        .open(session.at("a/log"))
        .told("open a/log again")?;
    log.write_all(b"and the end\n").told("append the end")?;
    drop(log);
    expected.extend(b"and the end\n");
    session.holds("a/log", &expected)
}

fn overwrite(session: &Session) -> Result<(), String> {
    let mut model = content("big", BIG);
    session.step("open a/big for both");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(session.at("a/big"))
        .told("open a/big")?;
    for place in [3, 262_140, 300_000, BIG - 7] {
        session.step(format!("overwrite at {place}"));
        file.write_all_at(b"written", place as u64).told("pwrite")?;
        model[place..place + 7].copy_from_slice(b"written");
    }
    session.step("ftruncate a/big");
    file.set_len(500_001).told("ftruncate")?;
    model.truncate(500_001);
    session.step("write behind the end");
    file.write_all_at(b"behind", 500_100)
        .told("pwrite behind")?;
    model.resize(500_100, 0);
    model.extend(b"behind");
    drop(file);
    session.holds("a/big", &model)?;
    session.step("truncate a/new");
    nix::unistd::truncate(&session.at("a/new"), 100).told("truncate")?;
    nix::unistd::truncate(&session.at("a/new"), 9000).told("truncate to more")?;
    let mut model = content("new", 100);
    model.copy_from_slice(&content("new", 5000)[..100]);
    model.resize(9000, 0);
    session.holds("a/new", &model)?;
    session.step("open with O_TRUNC");
    fs::write(session.at("a/short"), "long enough").told("write a/short")?;
    fs::write(session.at("a/short"), "short").told("overwrite a/short")?;
    session.holds("a/short", b"short")
}

fn rename(session: &Session) -> Result<(), String> {
    session.step("rename a/new");
    fs::rename(session.at("a/new"), session.at("a/b/renamed")).told("rename")?;
    session.is_gone("a/new")?;
    session.step("rename over");
    fs::write(session.at("a/x"), "the new one").told("write a/x")?;
    fs::write(session.at("a/y"), "the old one").told("write a/y")?;
    fs::rename(session.at("a/x"), session.at("a/y")).told("rename over")?;
    session.is_gone("a/x")?;
    session.holds("a/y", b"the new one")?;
    session.step("rename of a directory");
    fs::create_dir(session.at("a/from")).told("mkdir a/from")?;
    fs::write(session.at("a/from/inside"), "inside").told("write inside")?;
    fs::rename(session.at("a/from"), session.at("a/to")).told("rename a directory")?;
    session.holds("a/to/inside", b"inside")?;
    session.step("save as an editor does, with the old one open");
    fs::write(session.at("a/text"), "version 1").told("write a/text")?;
    let mut old = File::open(session.at("a/text")).told("open a/text")?;
    let mut file = File::create(session.at("a/text.new")).told("create a/text.new")?;
    file.write_all(b"version 2").told("write a/text.new")?;
    file.sync_all().told("fsync a/text.new")?;
    fs::rename(session.at("a/text.new"), session.at("a/text")).told("rename while open")?;
    file.write_all(b", and more")
        .told("write after the rename")?;
    drop(file);
    let mut text = String::new();
    // Its file may have been lost with a connection: then it is an error, never other bytes.
    let _ = old.read_to_string(&mut text);
    hold(
        text == "version 1" || text.is_empty(),
        format!("the old one reads {text:?}"),
    )?;
    session.holds("a/text", b"version 2, and more")
}

fn link(session: &Session) -> Result<(), String> {
    session.step("link");
    fs::hard_link(session.at("a/big"), session.at("a/link")).told("link")?;
    session.step("link once more");
    fs::hard_link(session.at("a/big"), session.at("a/link 2")).told("link once more")?;
    session.step("unlink");
    fs::remove_file(session.at("a/link 2")).told("unlink")?;
    session.is_gone("a/link 2")?;
    session.step("symlink");
    symlink("big", session.at("a/sym")).told("symlink")?;
    let target = fs::read_link(session.at("a/sym")).told("readlink")?;
    hold(target == Path::new("big"), "the symlink leads elsewhere")?;
    session.step("size through the symlink");
    let len = fs::metadata(session.at("a/sym")).told("stat a/sym")?.len();
    hold(len == 500_106, format!("{len} bytes through the symlink"))
}

/// As programs do that must be alone.
fn lock(session: &Session) -> Result<(), String> {
    for round in 0..3 {
        session.step(format!("take the lock, round {round}"));
        let file = File::create_new(session.at("lock")).told("O_EXCL")?;
        session.step("a second one does not get it");
        match File::create_new(session.at("lock")) {
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => (),
            other => {
                return Err(format!(
                    "O_EXCL of a file that is there: {:?}",
                    other.map(|_| ())
                ));
            }
        }
        drop(file);
        session.step("give the lock back");
        fs::remove_file(session.at("lock")).told("unlink lock")?;
        session.is_gone("lock")?;
    }
    Ok(())
}

fn copy(session: &Session) -> Result<(), String> {
    let original = fs::read(session.at("a/big")).told("read a/big")?;
    for (how, name) in [("cp", "copy"), ("--reflink=auto", "clone"), ("-a", "all")] {
        session.step(format!("cp {how}"));
        let mut command = Command::new("cp");
        if how != "cp" {
            command.arg(how);
        }
        command.arg(session.at("a/big")).arg(session.at(name));
        let finished = process::run(&mut command, COMMAND_MAX);
        hold(
            finished.ok(),
            format!("cp: {}: {}", finished.ending(), finished.said()),
        )?;
        session.holds(name, &original)?;
    }
    session.step("cp over a file that is there");
    let mut command = Command::new("cp");
    command.arg(session.at("a/y")).arg(session.at("copy"));
    let finished = process::run(&mut command, COMMAND_MAX);
    hold(finished.ok(), format!("cp: {}", finished.said()))?;
    session.holds("copy", b"the new one")
}

fn attributes(session: &Session) -> Result<(), String> {
    let path = session.at("a/b/renamed");
    session.step("chmod");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).told("chmod")?;
    session.step("utimes");
    let time = TimeSpec::new(LONG_AGO, 0);
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, flags).told("utimes")?;
    session.step("stat");
    let meta = fs::metadata(&path).told("stat")?;
    hold(
        (meta.mode() & 0o7777, meta.mtime()) == (0o640, LONG_AGO),
        format!("mode {:o}, mtime {}", meta.mode(), meta.mtime()),
    )
}

fn list(session: &Session) -> Result<(), String> {
    session.step("list 300 entries");
    let mut names = Vec::new();
    for entry in fs::read_dir(session.at("many")).told("opendir")? {
        names.push(entry.told("readdir")?.file_name());
    }
    names.sort();
    let expected: Vec<_> = (0..MANY)
        .map(|number| std::ffi::OsString::from(format!("entry {number:03}")))
        .collect();
    hold(
        names == expected,
        format!("{} names instead of {MANY}", names.len()),
    )
}

const MANY: usize = 300;
const LINES: usize = 20;
const READ_LEN: usize = 400_000;
const WRITTEN_LEN: usize = 100_000;
/// Three requests of 255 KiB.
const BIG: usize = 700_000;
const COMMAND_MAX: Duration = Duration::from_secs(60);
