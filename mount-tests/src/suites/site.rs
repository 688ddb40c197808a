//! A mount for cases about copies: with a choice of `copy_is_hardlink`, over a [`Wire`], with a
//! state directory of its own; and what files look like, before and after.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::random::Random;
use crate::case::Ctx;
use crate::mount::{Mount, Plan};
use crate::wire::{Manner, Wire};

/// The choice of `copy_is_hardlink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    Off,
    Cow,
    Shared,
}

impl Copying {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Cow => "cow",
            Self::Shared => "shared",
        }
    }
}

/// Where a case works: a mount, or a plain directory on which copies are copies anyway.
pub(super) struct Site {
    /// Where programs work.
    pub(super) dir: PathBuf,
    /// The same on the server.
    pub(super) behind: PathBuf,
    /// `XDG_STATE_HOME`.
    pub(super) state: PathBuf,
    pub(super) copying: Copying,
    manner: Manner,
    plan: Option<Plan>,
    wire: Option<Wire>,
    mount: Option<Mount>,
}

impl Site {
    /// A site in the case's directory, which is mounted.
    pub(super) fn new(ctx: &Ctx, copying: Copying, manner: Manner) -> Self {
        Self::at(ctx, &ctx.behind, copying, manner)
    }

    /// A site in any directory that the server has.
    pub(super) fn at(ctx: &Ctx, behind: &Path, copying: Copying, manner: Manner) -> Self {
        let mut site = Self::planned(ctx, behind, copying, manner);
        site.mount();
        site
    }

    /// As [`Self::at`], not mounted yet.
    pub(super) fn planned(ctx: &Ctx, behind: &Path, copying: Copying, manner: Manner) -> Self {
        let state = ctx.lab.fresh("state");
        let mut site = Self {
            dir: behind.to_owned(),
            behind: behind.to_owned(),
            state,
            copying,
            manner,
            plan: None,
            wire: None,
            mount: None,
        };
        if !ctx.on_mount {
            return site;
        }
        ctx.needs_sftpfs();
        let wire = Wire::new(&ctx.lab, site.manner.clone());
        let mut plan = ctx.lab.plan(ctx.transport, behind);
        plan = plan.sftp_command(wire.command());
        plan = plan.env("XDG_STATE_HOME", &site.state);
        // The cases make files on the server: that there was none is not to be believed meanwhile.
        plan = plan.option("negative_timeout=0");
        plan = match copying {
            Copying::Off => plan,
            other => plan.option(format!("copy_is_hardlink={}", other.word())),
        };
        site.dir.clone_from(&plan.at);
        site.plan = Some(plan);
        site.wire = Some(wire);
        site
    }

    /// With one more mount option, from the next mount on.
    pub(super) fn option(&mut self, option: &str) {
        self.plan = self.plan.take().map(|plan| plan.option(option));
    }

    /// Mounts.
    pub(super) fn mount(&mut self) {
        if let Some(plan) = &self.plan {
            self.mount = Some(plan.mount().unwrap());
        }
    }

    /// Unmounts; the daemon's end must be clean.
    #[track_caller]
    pub(super) fn unmount(&mut self) {
        if let Some(mount) = self.mount.take() {
            mount.unmount().unwrap();
        }
    }

    /// Ends the daemon and leaves the mount, which answers every call with an error then.
    pub(super) fn kill_daemon(&self) {
        self.mount.iter().for_each(Mount::kill_daemons);
    }

    /// Ends the mount without asking it, as a power cut does.
    pub(super) fn kill(&mut self) {
        self.mount.take().into_iter().for_each(Mount::abort);
    }

    /// A new mount, which knows only what the state directory tells it.
    pub(super) fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    /// The process that serves the mount.
    pub(super) fn daemon(&self) -> Option<i32> {
        self.mount.as_ref().and_then(Mount::daemon)
    }

    /// The wire; there is none on a plain directory.
    pub(super) fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("a mount")
    }

    /// Whether this is a mount.
    pub(super) fn is_mount(&self) -> bool {
        self.wire.is_some()
    }

    /// Whether the server can have a copy as a link, safely: made, looked at, and put in place.
    pub(super) fn links(&self) -> bool {
        let hidden = &self.manner.hidden;
        self.is_mount()
            && self.copying != Copying::Off
            && !self.manner.lies
            && !hidden.contains(&HARDLINK)
            && !hidden.contains(&POSIX_RENAME)
    }

    /// The end: unmounted cleanly, no temporary name left.
    #[track_caller]
    pub(super) fn end(mut self) {
        self.unmount();
        nothing_temporary(&self.behind);
    }
}

/// Holds that no name of ours is left on the server.
#[track_caller]
pub(super) fn nothing_temporary(behind: &Path) {
    let left: Vec<PathBuf> = everything(behind)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains("sftpfs")
        })
        .collect();
    assert!(left.is_empty(), "left on the server: {left:?}");
}

pub(super) fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(everything(&entry.path()));
        }
        all.push(entry.path());
    }
    all
}

/// What a program can see of a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) owner: (u32, u32),
    pub(super) ino: u64,
    pub(super) links: u64,
}

impl Look {
    #[track_caller]
    pub(super) fn at(path: &Path) -> Self {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(why) => panic!("{}: {why}", path.display()),
        };
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(why) => panic!("{}: {why}", path.display()),
        };
        assert_eq!(
            content.len() as u64,
            meta.len(),
            "{}: length and size",
            path.display()
        );
        Self {
            content,
            mode: meta.mode() & 0o7777,
            mtime: meta.mtime(),
            owner: (meta.uid(), meta.gid()),
            ino: meta.ino(),
            links: meta.nlink(),
        }
    }

    /// Without the content, for a person.
    pub(super) fn text(&self) -> String {
        format!(
            "{} bytes, mode {:o}, mtime {}, owner {:?}, inode {}, links {}",
            self.content.len(),
            self.mode,
            self.mtime,
            self.owner,
            self.ino,
            self.links
        )
    }
}

/// Holds that two looks are the same.
#[track_caller]
pub(super) fn same(what: &str, now: &Look, before: &Look) {
    same_content(what, &now.content, &before.content);
    assert!(
        now == before,
        "{what}: {} instead of {}",
        now.text(),
        before.text()
    );
}

/// Holds that two contents are the same, and says where they are not.
#[track_caller]
pub(super) fn same_content(what: &str, now: &[u8], expected: &[u8]) {
    if now == expected {
        return;
    }
    let place = now
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other)
        .unwrap_or_else(|| now.len().min(expected.len()));
    panic!(
        "{what}: {} bytes instead of {}, different from byte {place} on",
        now.len(),
        expected.len()
    );
}

/// The server's own number of a file.
#[track_caller]
pub(super) fn inode(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) => meta.ino(),
        Err(why) => panic!("{}: {why}", path.display()),
    }
}

/// Writes a file that no clock has made: mode 0664 and a time long ago.
pub(super) fn make_old(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o664)).unwrap();
    set_mtime(path, LONG_AGO);
}

/// Sets both times.
#[track_caller]
pub(super) fn set_mtime(path: &Path, seconds: i64) {
    let time = TimeSpec::new(seconds, 0);
    let flags = UtimensatFlags::NoFollowSymlink;
    if let Err(why) = utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags) {
        panic!("utimensat {}: {why}", path.display());
    }
}

/// Bytes that do not compress and do not repeat; the same for the same name and length.
pub(super) fn content(name: &str, len: usize) -> Vec<u8> {
    let seed = name
        .bytes()
        .fold(len as u64, |sum, byte| sum * 31 + u64::from(byte));
    Random::new(seed).bytes(len)
}

/// Opens for reading and writing.
#[track_caller]
pub(super) fn open_both(path: &Path) -> File {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(why) => panic!("open {}: {why}", path.display()),
    }
}

/// Servers to try copies on: the full one, one without each extension, one without any, and one
/// that lies. Where only copy-data is used, or links as they come, those without what is rarely
/// needed are one.
pub(super) fn manners(copying: Copying) -> Vec<(&'static str, Manner)> {
    let without = |hidden: &[&'static str]| Manner {
        hidden: hidden.to_vec(),
        ..Manner::default()
    };
    let statvfs = ["statvfs@openssh.com", "fstatvfs@openssh.com"];
    let mut all = vec![
        HARDLINK,
        POSIX_RENAME,
        COPY_DATA,
        "limits@openssh.com",
        "fsync@openssh.com",
        "lsetstat@openssh.com",
        "users-groups-by-id@openssh.com",
        "expand-path@openssh.com",
        "home-directory",
    ];
    all.extend(statvfs);
    let mut servers = vec![
        ("full", Manner::default()),
        ("without_copy_data", without(&[COPY_DATA])),
        ("without_any", without(&all)),
    ];
    if copying != Copying::Off {
        servers.extend([
            ("without_hardlink", without(&[HARDLINK])),
            ("without_posix_rename", without(&[POSIX_RENAME])),
            (
                "that_lies",
                Manner {
                    lies: true,
                    ..Manner::default()
                },
            ),
        ]);
    }
    if copying == Copying::Cow {
        servers.extend([
            ("without_limits", without(&["limits@openssh.com"])),
            ("without_fsync", without(&["fsync@openssh.com"])),
            ("without_statvfs", without(&statvfs)),
        ]);
    } else {
        let rest = [
            "limits@openssh.com",
            "fsync@openssh.com",
            statvfs[0],
            statvfs[1],
        ];
        servers.push(("without_limits_fsync_statvfs", without(&rest)));
    }
    servers
}

pub(super) const HARDLINK: &str = "hardlink@openssh.com";
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";
pub(super) const COPY_DATA: &str = "copy-data";
/// 2020-02-02 02:02:02 UTC.
pub(super) const LONG_AGO: i64 = 1_580_608_922;
