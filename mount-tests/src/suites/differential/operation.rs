//! One random operation, and doing it below a root.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::tree::{sum, told_mtime};
use crate::suites::random::Random;
use crate::sys;

/// Something a program can do to files. Paths are relative, handles are slots.
#[derive(Debug, Clone)]
pub(in crate::suites) enum Operation {
    Write {
        path: String,
        len: usize,
        fill: u8,
    },
    Read {
        path: String,
    },
    CreateNew {
        path: String,
        mode: u32,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Rmdir {
        path: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        flags: u32,
    },
    Symlink {
        target: String,
        path: String,
    },
    Link {
        from: String,
        to: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Truncate {
        path: String,
        len: u64,
    },
    SetMtime {
        path: String,
        seconds: i64,
        follow: bool,
    },
    Stat {
        path: String,
    },
    Lstat {
        path: String,
    },
    Readlink {
        path: String,
    },
    List {
        path: String,
    },
    Open {
        slot: usize,
        path: String,
        how: How,
    },
    Close {
        slot: usize,
    },
    WriteAt {
        slot: usize,
        offset: u64,
        len: usize,
        fill: u8,
    },
    ReadAt {
        slot: usize,
        offset: u64,
        len: usize,
    },
    SetLen {
        slot: usize,
        len: u64,
    },
    Allocate {
        slot: usize,
        offset: i64,
        len: i64,
    },
    Fsync {
        slot: usize,
    },
    Fstat {
        slot: usize,
    },
    Fchmod {
        slot: usize,
        mode: u32,
    },
    /// The whole file, with mode and time as `cp -p` has them or with others.
    Copy {
        from: String,
        to: String,
        mode: Option<u32>,
        seconds: Option<i64>,
    },
    CopyRange {
        from: String,
        place: u64,
        to: String,
        to_place: u64,
        len: usize,
    },
}

/// The flags of an open.
#[derive(Debug, Clone, Copy)]
pub(in crate::suites) enum How {
    Read,
    ReadWrite,
    Create,
    CreateTruncate,
    Append,
    WriteOnly,
}

impl Operation {
    /// Any operation, on few enough names that they meet each other.
    pub(in crate::suites) fn random(random: &mut Random) -> Self {
        let slot = small(random, SLOTS);
        let mode = *random.pick(&[0o600, 0o644, 0o755, 0o777, 0o640, 0o444]);
        let fill = *random.pick(b"abcdefgh");
        match random.below(100) {
            0..8 => Self::Write {
                path: path(random),
                len: length(random),
                fill,
            },
            8..14 => Self::Read { path: path(random) },
            14..17 => Self::CreateNew {
                path: path(random),
                mode,
            },
            17..24 => Self::Mkdir {
                path: path(random),
                mode: mode | 0o700,
            },
            24..28 => Self::Rmdir { path: path(random) },
            28..33 => Self::Unlink { path: path(random) },
            33..40 => {
                let flags = *random.pick(&[0, 0, 0, libc::RENAME_NOREPLACE]);
                Self::Rename {
                    from: path(random),
                    to: path(random),
                    flags,
                }
            }
            40..43 => Self::Symlink {
                target: path(random),
                path: path(random),
            },
            43..46 => Self::Link {
                from: path(random),
                to: path(random),
            },
            46..49 => Self::Chmod {
                path: path(random),
                mode: mode | 0o400,
            },
            49..52 => Self::Truncate {
                path: path(random),
                len: length(random) as u64,
            },
            52..55 => {
                let seconds = i64::try_from(random.below(999_999)).expect("a small number");
                Self::SetMtime {
                    path: path(random),
                    seconds,
                    follow: random.below(2) == 0,
                }
            }
            55..59 => Self::Stat { path: path(random) },
            59..62 => Self::Lstat { path: path(random) },
            62..64 => Self::Readlink { path: path(random) },
            64..67 => Self::List { path: path(random) },
            67..74 => {
                let how = [
                    How::Read,
                    How::ReadWrite,
                    How::Create,
                    How::CreateTruncate,
                    How::Append,
                    How::WriteOnly,
                ];
                Self::Open {
                    slot,
                    path: path(random),
                    how: *random.pick(&how),
                }
            }
            74..77 => Self::Close { slot },
            77..85 => Self::WriteAt {
                slot,
                offset: length(random) as u64,
                len: length(random),
                fill,
            },
            85..91 => Self::ReadAt {
                slot,
                offset: length(random) as u64,
                len: length(random),
            },
            91..93 => Self::SetLen {
                slot,
                len: length(random) as u64,
            },
            93..94 => {
                let bytes = |number: usize| i64::try_from(number).expect("a small number");
                let (offset, len) = (bytes(length(random)), bytes(length(random)));
                Self::Allocate { slot, offset, len }
            }
            94..96 => Self::Fsync { slot },
            96..98 => Self::Fstat { slot },
            _ => Self::Fchmod {
                slot,
                mode: mode | 0o400,
            },
        }
    }
}

/// A root directory and the files open below it.
pub(in crate::suites) struct World {
    pub(in crate::suites) root: PathBuf,
    slots: Vec<Option<File>>,
}

/// What an operation gave, as text.
type Answer = Result<String, Errno>;

impl World {
    pub(in crate::suites) fn new(root: PathBuf) -> Self {
        Self {
            root,
            slots: (0..SLOTS).map(|_| None).collect(),
        }
    }

    /// Closes every file.
    pub(in crate::suites) fn close_all(&mut self) {
        self.slots.iter_mut().for_each(|slot| drop(slot.take()));
    }

    /// Does it.
    pub(in crate::suites) fn apply(&mut self, operation: &Operation) -> Answer {
        match operation {
            Operation::Open { slot, path, how } => {
                self.slots[*slot] = None;
                self.slots[*slot] = Some(open(&self.root.join(path), *how)?);
                Ok("opened".into())
            }
            Operation::Close { slot } => {
                self.slots[*slot] = None;
                Ok("closed".into())
            }
            Operation::WriteAt { slot, .. }
            | Operation::ReadAt { slot, .. }
            | Operation::SetLen { slot, .. }
            | Operation::Allocate { slot, .. }
            | Operation::Fsync { slot }
            | Operation::Fstat { slot }
            | Operation::Fchmod { slot, .. } => match &self.slots[*slot] {
                None => Ok("not open".into()),
                Some(file) => on_file(operation, file),
            },
            _ => on_path(operation, &self.root),
        }
    }
}

fn on_file(operation: &Operation, file: &File) -> Answer {
    match operation {
        Operation::WriteAt {
            offset, len, fill, ..
        } => done(file.write_all_at(&pattern(*len, *fill), *offset)),
        Operation::ReadAt { offset, len, .. } => {
            let mut buffer = vec![0; *len];
            let mut have = 0;
            while have < *len {
                match io(file.read_at(&mut buffer[have..], offset + have as u64))? {
                    0 => break,
                    count => have += count,
                }
            }
            Ok(format!("{have} bytes, sum {:x}", sum(&buffer[..have])))
        }
        Operation::SetLen { len, .. } => done(file.set_len(*len)),
        Operation::Allocate { offset, len, .. } => {
            sys::fallocate(file, 0, *offset, *len).map(|()| "allocated".into())
        }
        Operation::Fsync { .. } => done(file.sync_all()),
        Operation::Fstat { .. } => io(file.metadata()).map(|meta| attributes(&meta)),
        Operation::Fchmod { mode, .. } => {
            done(file.set_permissions(fs::Permissions::from_mode(*mode)))
        }
        other => unreachable!("{other:?} needs no open file"),
    }
}

fn on_path(operation: &Operation, root: &Path) -> Answer {
    let at = |path: &str| root.join(path);
    match operation {
        Operation::Write { path, len, fill } => done(fs::write(at(path), pattern(*len, *fill))),
        Operation::Read { path } => io(fs::read(at(path)))
            .map(|bytes| format!("{} bytes, sum {:x}", bytes.len(), sum(&bytes))),
        Operation::CreateNew { path, mode } => done(
            File::options()
                .write(true)
                .create_new(true)
                .mode(*mode)
                .open(at(path)),
        ),
        Operation::Mkdir { path, mode } => {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, *mode);
            done(builder.create(at(path)))
        }
        Operation::Rmdir { path } => done(fs::remove_dir(at(path))),
        Operation::Unlink { path } => done(fs::remove_file(at(path))),
        Operation::Rename { from, to, flags } => {
            sys::rename_with(&at(from), &at(to), *flags).map(|()| "renamed".into())
        }
        Operation::Symlink { target, path } => done(symlink(target, at(path))),
        Operation::Link { from, to } => done(fs::hard_link(at(from), at(to))),
        Operation::Chmod { path, mode } => done(fs::set_permissions(
            at(path),
            fs::Permissions::from_mode(*mode),
        )),
        Operation::Truncate { path, len } => {
            let len = i64::try_from(*len).expect("a small number");
            nix::unistd::truncate(&at(path), len).map(|()| "truncated".into())
        }
        Operation::SetMtime {
            path,
            seconds,
            follow,
        } => set_mtime(&at(path), *seconds, *follow),
        Operation::Stat { path } => io(fs::metadata(at(path))).map(|meta| attributes(&meta)),
        Operation::Lstat { path } => {
            io(fs::symlink_metadata(at(path))).map(|meta| attributes(&meta))
        }
        Operation::Readlink { path } => {
            io(fs::read_link(at(path))).map(|target| format!("{target:?}"))
        }
        Operation::List { path } => list(&at(path)),
        Operation::Copy {
            from,
            to,
            mode,
            seconds,
        } => copy(&at(from), &at(to), *mode, *seconds),
        Operation::CopyRange {
            from,
            place,
            to,
            to_place,
            len,
        } => {
            let (from, to) = (io(File::open(at(from)))?, open(&at(to), How::WriteOnly)?);
            copy_range(&from, *place, &to, *to_place, *len)
        }
        other => unreachable!("{other:?} needs an open file"),
    }
}

/// As cp(1) does it: one file for the other, by copy_file_range(2) until there is no more.
fn copy(from: &Path, to: &Path, mode: Option<u32>, seconds: Option<i64>) -> Answer {
    let source = io(File::open(from))?;
    let before = io(source.metadata())?;
    if fs::metadata(to).is_ok_and(|meta| meta.ino() == before.ino()) {
        return Ok("are the same file".into());
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    let target = io(options.mode(before.mode() & 0o700).open(to))?;
    let answer = copy_range(&source, 0, &target, 0, 1 << 40)?;
    let mode = mode.unwrap_or_else(|| before.mode() & 0o7777);
    io(target.set_permissions(fs::Permissions::from_mode(mode)))?;
    drop(target);
    let seconds = seconds.unwrap_or_else(|| before.mtime());
    let (atime, mtime) = (TimeSpec::UTIME_OMIT, TimeSpec::new(seconds, 0));
    utimensat(AT_FDCWD, to, &atime, &mtime, UtimensatFlags::FollowSymlink)?;
    Ok(answer)
}

fn copy_range(from: &File, place: u64, to: &File, to_place: u64, len: usize) -> Answer {
    let mut done = 0;
    loop {
        let at = |place: u64| i64::try_from(place).expect("a small number") + done;
        let left = len - usize::try_from(done).expect("not negative");
        match sys::copy_file_range(from, at(place), to, at(to_place), left)? {
            0 => return Ok(format!("{done} bytes copied")),
            copied => done += i64::try_from(copied).expect("a small number"),
        }
    }
}

fn set_mtime(path: &Path, seconds: i64, follow: bool) -> Answer {
    let flags = if follow {
        UtimensatFlags::FollowSymlink
    } else {
        UtimensatFlags::NoFollowSymlink
    };
    let time = TimeSpec::new(seconds, 0);
    utimensat(AT_FDCWD, path, &time, &time, flags).map(|()| "set".into())
}

fn list(path: &Path) -> Answer {
    let mut names = Vec::new();
    for entry in io(fs::read_dir(path))? {
        names.push(format!("{:?}", io(entry)?.file_name()));
    }
    names.sort();
    Ok(names.join(" "))
}

fn open(path: &Path, how: How) -> Result<File, Errno> {
    let mut options = File::options();
    match how {
        How::Read => options.read(true),
        How::ReadWrite => options.read(true).write(true),
        How::Create => options.read(true).write(true).create(true),
        How::CreateTruncate => options.read(true).write(true).create(true).truncate(true),
        How::Append => options.read(true).append(true).create(true),
        How::WriteOnly => options.write(true),
    };
    io(options.open(path))
}

/// What stat says that is the same for the same operations in any directory.
fn attributes(meta: &fs::Metadata) -> String {
    let mode = meta.mode() & 0o7777;
    if meta.is_dir() {
        return format!("directory {mode:o} {}", told_mtime(meta.mtime()));
    }
    let kind = if meta.is_symlink() { "symlink" } else { "file" };
    let (links, size) = (meta.nlink(), meta.len());
    format!(
        "{kind} {mode:o} links {links} size {size} {}",
        told_mtime(meta.mtime())
    )
}

fn io<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|why| Errno::from_raw(why.raw_os_error().unwrap_or(0)))
}

fn done<T>(result: std::io::Result<T>) -> Answer {
    io(result).map(|_| "done".into())
}

/// Bytes that differ by place, so that a shifted write shows.
fn pattern(len: usize, fill: u8) -> Vec<u8> {
    (0..len)
        .map(|place| fill ^ u8::try_from(place % 251).expect("below 251"))
        .collect()
}

fn small(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("a small number")
}

/// One to three names out of a few; sometimes one that is too long.
fn path(random: &mut Random) -> String {
    if random.below(100) == 0 {
        return "x".repeat(256);
    }
    let depth = 1 + small(random, 3).min(small(random, 3));
    let names: Vec<&str> = (0..depth)
        .map(|_| *random.pick(&["a", "b", "c", "d", "e"]))
        .collect();
    names.join("/")
}

/// Mostly small, sometimes across pages, sometimes across SFTP requests.
fn length(random: &mut Random) -> usize {
    match random.below(10) {
        0 => 0,
        1..6 => small(random, 100),
        6..9 => small(random, 20_000),
        _ => small(random, 700_000),
    }
}

/// Files open at a time.
const SLOTS: usize = 6;
