//! After a copy was made, one of the two files is changed in every way there is; the other one
//! stays what it was, to the last attribute. With `shared` both change.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::programs::{PROGRAMS, cp};
use crate::case::Ctx;
use crate::suites::site::{
    Copying, Look, Site, content, inode, make_old, same, same_content, set_mtime,
};
use crate::sys;
use crate::wire::Manner;

/// Something done to a file by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::suites) enum Change {
    WriteInside,
    WriteAtStart,
    Append,
    WriteBeyond,
    Shorten,
    Lengthen,
    Empty,
    Overwrite,
    Allocate,
    Chmod,
    Utimens,
    OpenForNothing,
    RenameOver,
    Rename,
    Unlink,
}

/// All of them.
const CHANGES: &[Change] = &[
    Change::WriteInside,
    Change::WriteAtStart,
    Change::Append,
    Change::WriteBeyond,
    Change::Shorten,
    Change::Lengthen,
    Change::Empty,
    Change::Overwrite,
    Change::Allocate,
    Change::Chmod,
    Change::Utimens,
    Change::OpenForNothing,
    Change::RenameOver,
    Change::Rename,
    Change::Unlink,
];

impl Change {
    /// Does it to the file and to what it should then hold. `None`: there is no file any more.
    pub(super) fn apply(self, path: &Path, model: &[u8]) -> Option<Vec<u8>> {
        let mut model = model.to_vec();
        let middle = model.len() / 2;
        let beside = |name: &str| path.with_file_name(name);
        match self {
            Self::WriteInside => write_at(path, middle, b"inside", &mut model),
            Self::WriteAtStart => write_at(path, 0, b"start", &mut model),
            Self::Append => {
                let mut file = File::options().append(true).open(path).unwrap();
                file.write_all(b"more").unwrap();
                model.extend(b"more");
            }
            Self::WriteBeyond => {
                let place = model.len() + 70_000;
                write_at(path, place, b"far out", &mut model);
            }
            Self::Shorten => set_len(path, middle, &mut model),
            Self::Lengthen => {
                let len = model.len() + 4097;
                set_len(path, len, &mut model);
            }
            Self::Empty => set_len(path, 0, &mut model),
            Self::Overwrite => {
                model = b"something else".to_vec();
                fs::write(path, &model).unwrap();
            }
            Self::Allocate => {
                let file = File::options().write(true).open(path).unwrap();
                let len = model.len() + 5000;
                sys::fallocate(&file, 0, 0, i64::try_from(len).unwrap()).unwrap();
                model.resize(len, 0);
            }
            Self::Chmod => fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
            Self::Utimens => set_mtime(path, 1_234_567_890),
            Self::OpenForNothing => drop(File::options().write(true).open(path).unwrap()),
            Self::RenameOver => {
                model = b"renamed over".to_vec();
                fs::write(beside("new"), &model).unwrap();
                fs::rename(beside("new"), path).unwrap();
            }
            Self::Rename => {
                fs::rename(path, beside("renamed")).unwrap();
                return None;
            }
            Self::Unlink => {
                fs::remove_file(path).unwrap();
                return None;
            }
        }
        Some(model)
    }

    /// Whether the name has the same file afterwards.
    fn keeps_the_file(self) -> bool {
        !matches!(self, Self::RenameOver | Self::Rename | Self::Unlink)
    }
}

fn write_at(path: &Path, place: usize, bytes: &[u8], model: &mut Vec<u8>) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, place as u64).unwrap();
    model.resize(model.len().max(place + bytes.len()), 0);
    model[place..place + bytes.len()].copy_from_slice(bytes);
}

fn set_len(path: &Path, len: usize, model: &mut Vec<u8>) {
    nix::unistd::truncate(path, i64::try_from(len).unwrap()).unwrap();
    model.resize(len, 0);
}

/// The case: every change, to the copy and to the source, and one change after every program.
pub(in crate::suites) fn do_not_show_in_the_other(
    ctx: &Ctx,
    copying: Copying,
    manner: &Manner,
    full: bool,
) {
    let site = Site::new(ctx, copying, manner.clone());
    let sizes: &[usize] = if full || ctx.full {
        &[1, 65_537, 300_000]
    } else {
        &[70_000]
    };
    let mut number = 0;
    let mut fresh = |size: usize| {
        number += 1;
        let dir = site.dir.join(number.to_string());
        fs::create_dir(&dir).unwrap();
        let behind = site.behind.join(number.to_string());
        make_old(&behind.join("source"), &content("changes", size));
        (dir, behind)
    };
    for size in sizes {
        for change in CHANGES {
            for to_copy in [true, false] {
                let (dir, behind) = fresh(*size);
                cp(&dir.join("source"), &dir.join("copy"));
                let linked = inode(&behind.join("source")) == inode(&behind.join("copy"));
                assert_eq!(linked, site.links(), "one file on the server");
                one(&site, *change, &dir, &behind, to_copy);
            }
        }
    }
    if copying != Copying::Shared {
        for program in PROGRAMS {
            for (change, to_copy) in [(Change::WriteInside, true), (Change::Append, false)] {
                let (dir, behind) = fresh(sizes[0]);
                program.run(&dir.join("source"), &dir.join("copy"));
                one(&site, change, &dir, &behind, to_copy);
            }
        }
    }
    site.end();
}

fn one(site: &Site, change: Change, dir: &Path, behind: &Path, to_copy: bool) {
    let names = if to_copy {
        ["copy", "source"]
    } else {
        ["source", "copy"]
    };
    let [changed, other]: [PathBuf; 2] = names.map(|name| dir.join(name));
    let (before, other_before) = (Look::at(&changed), Look::at(&other));
    let what = format!(
        "{change:?} of the {} of {} bytes",
        names[0],
        before.content.len()
    );
    let shared = site.links() && site.copying == Copying::Shared;
    let expected = change.apply(&changed, &before.content);
    if shared && change.keeps_the_file() {
        let model = expected.as_ref().expect("a file");
        let (one, two) = (Look::at(&changed), Look::at(&other));
        same_content(&what, &one.content, model);
        same(&format!("{what}: both names"), &two, &one);
        same_content(&what, &fs::read(behind.join(names[1])).unwrap(), model);
        return;
    }
    let mut other_expected = other_before.clone();
    if shared && change != Change::Rename {
        other_expected.links = 1;
    }
    same(
        &format!("{what}: the other"),
        &Look::at(&other),
        &other_expected,
    );
    let on_server = fs::read(behind.join(names[1])).unwrap();
    same_content(
        &format!("{what}: the other, on the server"),
        &on_server,
        &other_before.content,
    );
    if let Some(model) = expected {
        check_changed(&what, change, &before, &Look::at(&changed), &model);
        let on_server = fs::read(behind.join(names[0])).unwrap();
        same_content(&format!("{what}, on the server"), &on_server, &model);
    } else if change == Change::Rename {
        let renamed = before;
        same(
            &format!("{what}: renamed"),
            &Look::at(&dir.join("renamed")),
            &renamed,
        );
        let appended = Change::Append.apply(&dir.join("renamed"), &renamed.content);
        if shared {
            other_expected.content = appended.expect("a file");
            other_expected.mtime = Look::at(&other).mtime;
        }
        same(
            &format!("{what}, then written: the other"),
            &Look::at(&other),
            &other_expected,
        );
    }
}

fn check_changed(what: &str, change: Change, before: &Look, now: &Look, model: &[u8]) {
    same_content(what, &now.content, model);
    assert_eq!(now.links, 1, "{what}: links");
    if change.keeps_the_file() {
        assert_eq!(now.ino, before.ino, "{what}: the inode of the changed file");
        assert_eq!(now.owner, before.owner, "{what}: the owner");
    }
    match change {
        Change::Chmod => assert_eq!(now.mode, 0o600, "{what}: the mode"),
        Change::RenameOver => (),
        _ => assert_eq!(now.mode, before.mode, "{what}: the mode"),
    }
    match change {
        Change::Utimens => assert_eq!(now.mtime, 1_234_567_890, "{what}: the time"),
        Change::Chmod | Change::OpenForNothing => {
            assert_eq!(now.mtime, before.mtime, "{what}: the time");
        }
        _ => (),
    }
}
