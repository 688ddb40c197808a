//! Operations on names and attributes.

use nix::errno::Errno;

use super::kernel::{Kernel, ROOT_USER};
use super::reference::{File, Id, Path, is_within, join};
use crate::error::{Error, Result};
use crate::fs::{Caller, Change, Entry, Ino, Known};
use crate::sftp::FileKind;

/// An entry of a listing.
struct Shown {
    next: u64,
    ino: Ino,
    name: Vec<u8>,
    kind: FileKind,
    known: Option<Known>,
}

impl Kernel {
    pub(super) async fn lookup(&mut self, path: &[u8]) {
        self.place(path).await;
    }

    pub(super) async fn getattr(&mut self, path: usize) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        let ino = self.walk(&path).await;
        let known = self.fs.getattr(ino).await.unwrap();
        self.heard_attr(id, &known);
    }

    pub(super) async fn setattr(&mut self, path: usize, mut change: Change) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        let kind = self.model.files[id].kind;
        if kind != FileKind::Regular {
            change.size = None;
        }
        if kind == FileKind::Symlink {
            change.permissions = None;
        }
        let ino = self.walk(&path).await;
        let changed = self.fs.setattr(ino, change, None).await;
        if kind == FileKind::Symlink && !self.has.lsetstat && change != Change::default() {
            return assert_eq!(changed.err(), Some(Error::Errno(Errno::EOPNOTSUPP)));
        }
        self.model.files[id].change(&change);
        self.heard_attr(id, &changed.unwrap());
    }

    pub(super) async fn mkdir(&mut self, path: Path, mode: u32, caller: Caller) {
        if self.has_cuts && self.model.at(&path).is_some() {
            return;
        }
        let (parent, name) = self.place(&path).await;
        let made = self.fs.mkdir(parent, name, mode, caller).await;
        self.made(&path, FileKind::Directory, mode, caller, made);
    }

    pub(super) async fn symlink(&mut self, path: Path, target: &[u8], caller: Caller) {
        let there = self.model.at(&path).map(|id| self.model.files[id].kind);
        if there == Some(FileKind::Symlink) {
            // The kernel says EEXIST by itself; here it may be taken for what was made.
            return;
        }
        let (parent, name) = self.place(&path).await;
        let made = self.fs.symlink(parent, name, target, caller).await;
        if self.model.at(&path).is_some() {
            return assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
        }
        let owner = if self.has.lsetstat { caller } else { ROOT_USER };
        let mut file = File::new(FileKind::Symlink, 0o777, (owner.uid, owner.gid));
        file.data = target.to_vec();
        let id = self.model.add(path, file);
        self.heard(id, &made.unwrap());
    }

    /// Takes in what became of making something; gives its number in the model.
    pub(super) fn made(
        &mut self,
        path: &[u8],
        kind: FileKind,
        mode: u32,
        caller: Caller,
        made: Result<Entry>,
    ) -> Option<Id> {
        if self.model.at(path).is_some() {
            assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
            return None;
        }
        let mode = u16::try_from(mode).unwrap();
        let file = File::new(kind, mode, (caller.uid, caller.gid));
        let id = self.model.add(path.to_vec(), file);
        self.heard(id, &made.unwrap());
        Some(id)
    }

    pub(super) async fn rmdir(&mut self, path: usize) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if !self.model.is_dir(id) {
            return;
        }
        let (parent, name) = self.place(&path).await;
        let removed = self.fs.rmdir(parent, name).await;
        if !self.model.children(&path).is_empty() {
            return assert_eq!(removed, Err(Error::Errno(Errno::ENOTEMPTY)));
        }
        assert_eq!(removed, Ok(()));
        self.model.names.remove(&path);
    }

    pub(super) async fn unlink(&mut self, path: usize) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        let (parent, name) = self.place(&path).await;
        let removed = self.fs.unlink(parent, name).await;
        if self.model.is_dir(id) {
            return assert_eq!(removed, Err(Error::Errno(Errno::EISDIR)));
        }
        assert_eq!(removed, Ok(()));
        self.model.names.remove(&path);
    }

    pub(super) async fn rename(&mut self, from: usize, to: Path, keep: bool) {
        let Some((from, id)) = self.pick(from) else {
            return;
        };
        let there = self.model.at(&to);
        let is_other_kind = there.is_some_and(|it| self.model.is_dir(it) != self.model.is_dir(id));
        // The server does nothing where both are one file, which SFTP does not tell.
        let is_same = there.is_some_and(|it| self.model.files.are_one(it, id));
        if is_same || is_other_kind {
            return;
        }
        let (parent, name) = self.place(&from).await;
        let (new_parent, new_name) = self.place(&to).await;
        let renamed = self
            .fs
            .rename((parent, name), (new_parent, new_name), keep)
            .await;
        let expected = match there {
            _ if is_within(&to, &from) && there.is_none() => Err(Errno::EINVAL),
            Some(_) if keep => Err(Errno::EEXIST),
            _ if is_within(&to, &from) => Err(Errno::EINVAL),
            Some(_) if !self.model.children(&to).is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        };
        if is_within(&to, &from) && there.is_some() {
            // The kernel says EINVAL by itself.
            assert!(renamed.is_err());
            return;
        }
        assert_eq!(renamed, expected.map_err(Error::Errno));
        if expected.is_ok() {
            self.model.rename(&from, &to);
        }
    }

    pub(super) async fn link(&mut self, path: usize, to: Path) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.is_dir(id) {
            return;
        }
        if self.has_cuts && self.model.at(&to).is_some() {
            return;
        }
        let ino = self.walk(&path).await;
        let (parent, name) = self.place(&to).await;
        let linked = self.fs.link(ino, parent, name).await;
        if !self.has.hardlink {
            return assert_eq!(linked.err(), Some(Error::Errno(Errno::EPERM)));
        }
        if self.model.at(&to).is_some() {
            return assert_eq!(linked.err(), Some(Error::Errno(Errno::EEXIST)));
        }
        self.model.names.insert(to, id);
        let linked = linked.unwrap();
        self.heard(id, &linked);
        assert!(linked.known.links >= 2, "{linked:?}");
    }

    pub(super) async fn readlink(&mut self, path: usize) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.files[id].kind == FileKind::Symlink {
            let ino = self.walk(&path).await;
            assert_eq!(
                self.fs.readlink(ino).await.unwrap(),
                self.model.files[id].data
            );
        }
    }

    /// Lists a directory, some entries at a time, as a kernel with a small buffer does.
    pub(super) async fn readdir(&mut self, path: &[u8], plus: bool, at_a_time: usize) {
        let ino = self.walk(path).await;
        let fh = self.fs.opendir(ino).await.unwrap();
        let mut entries: Vec<Shown> = Vec::new();
        loop {
            let mut some = Vec::new();
            let offset = entries.last().map_or(0, |entry| entry.next);
            // True is for an entry that does not fit any more.
            let take = |entry: &crate::fs::DirEntry<'_>| {
                let is_full = some.len() == at_a_time;
                if !is_full {
                    some.push(Shown {
                        next: entry.next,
                        ino: entry.ino,
                        name: entry.name.to_vec(),
                        kind: entry.kind,
                        known: entry.known,
                    });
                }
                is_full
            };
            self.fs.readdir(fh, offset, plus, take).await.unwrap();
            if some.is_empty() {
                break;
            }
            entries.extend(some);
        }
        self.fs.releasedir(fh);
        let mut expected = self.model.children(path);
        let shown = entries.into_iter().skip(2);
        let mut names = Vec::new();
        for Shown {
            ino,
            name,
            kind,
            known,
            ..
        } in shown
        {
            let id = self
                .model
                .at(&join(path, &name))
                .expect("a name that is not there");
            assert_eq!(kind, self.model.files[id].kind);
            self.heard_number(id, ino);
            if plus {
                *self.lookups.entry(ino).or_default() += 1;
                let known = known.expect("OpenSSH lists all attributes");
                self.heard_attr(id, &known);
                let links = if self.model.is_dir(id) {
                    1
                } else {
                    self.model.links(id)
                };
                assert_eq!(known.links, links, "links of {}", name.escape_ascii());
            }
            names.push(name);
        }
        expected.sort();
        names.sort();
        assert_eq!(
            names,
            expected
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        );
    }

    pub(super) fn forget(&mut self, known: usize, half: bool) {
        let Some((&ino, &count)) = self.lookups.iter().nth(known % self.lookups.len().max(1))
        else {
            return;
        };
        let is_open = self
            .opens
            .iter()
            .any(|open| self.numbers.get(&open.id) == Some(&ino));
        if is_open {
            return;
        }
        let forgotten = if half { count.div_ceil(2) } else { count };
        self.fs.forget(ino, forgotten);
        match count - forgotten {
            0 => drop(self.lookups.remove(&ino)),
            left => drop(self.lookups.insert(ino, left)),
        }
    }
}
