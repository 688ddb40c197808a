//! Copies: whether the server links them or copies them, they are files of their own; with
//! `copy_is_hardlink=shared` what was linked is one file.

use nix::errno::Errno;

use super::kernel::{Kernel, Open, ROOT_USER, at_home};
use super::reference::{File, Id, Path};
use crate::error::Error;
use crate::fs::{Access, CopyIsHardlink, Creation, Fh};
use crate::sftp::FileKind;

/// A file that was opened for a copy.
#[derive(Clone, Copy)]
struct End {
    fh: Fh,
    id: Id,
}

const READ: Access = Access {
    read: true,
    write: false,
    append: false,
    sync: false,
};
/// cp(1) opens its target so.
const WRITE: Access = Access {
    read: false,
    write: true,
    ..READ
};
/// An odd one, so that it shows whose mode a copy has.
const MODE: u16 = 0o651;
/// The kernel asks for this in one call.
const ALL: u64 = 0xffff_f000;

impl Kernel {
    pub(super) async fn copy(&mut self, path: usize, to: Path, keep_open: bool, clone: bool) {
        let Some((from, id)) = self.pick(path) else {
            return;
        };
        let there = self.model.at(&to);
        let is_file = |id: Id| self.model.files[id].kind == FileKind::Regular;
        // cp(1) says by itself that two names are one file.
        let is_same = there.is_some_and(|there| self.model.files.are_one(there, id));
        if !is_file(id) || there.is_some_and(|there| !is_file(there)) || is_same {
            return;
        }
        let ino = self.walk(&from).await;
        let fh = self.fs.open(ino, READ, false).await.unwrap().fh;
        let source = End { fh, id };
        let target = self.make_or_empty(&to, there).await;
        let is_to_link = self.is_to_link(source.id, target.id);
        let is_free = self.model.links(target.id) == 1;
        let mut is_copied = false;
        if clone {
            let cloned = self.fs.clone_range(ino, target.fh, (0, 0), 0).await;
            is_copied = cloned.is_ok();
            if !is_copied {
                assert_eq!(cloned, Err(Error::Errno(Errno::EOPNOTSUPP)));
            }
        }
        if !is_copied {
            let len = self.model.files[id].data.len() as u64;
            assert_eq!(
                self.copy_all((source.fh, 0), (target.fh, 0), ALL).await,
                len
            );
        }
        self.model.files[target.id].data = self.model.files[id].data.clone();
        self.model.files[target.id].mtime = None;
        let are_linked = self.are_linked(&from, &to);
        // Whether all its names are known from another mount's journal, only the mount knows; where
        // the mount is not sure that it knows them, after names were forgotten, it copies.
        let may_be_linked = is_to_link || is_free && self.model.has_twins(id);
        assert!(!are_linked || may_be_linked, "they share and must not");
        assert!(!clone || is_copied == are_linked, "a clone shares");
        if are_linked {
            self.linked(source.id, target.id);
        }
        self.opens.push(Open {
            fh: target.fh,
            id: self.model.at(&to).unwrap(),
            access: WRITE,
        });
        self.opens.push(Open {
            fh: source.fh,
            id,
            access: READ,
        });
        self.release(self.opens.len() - 1).await;
        if !keep_open {
            self.release(self.opens.len() - 1).await;
        }
        let ino = self.walk(&to).await;
        let known = self.fs.getattr(ino).await.unwrap();
        self.heard_attr(self.model.at(&to).unwrap(), &known);
    }

    async fn make_or_empty(&mut self, to: &Path, there: Option<Id>) -> End {
        let (parent, name) = self.place(to).await;
        let Some(id) = there else {
            let mode = MODE.into();
            let how = Creation::EXCLUSIVE;
            let made = self
                .fs
                .create(parent, name, mode, WRITE, how, ROOT_USER)
                .await;
            let (entry, opened) = made.unwrap();
            let file = File::new(FileKind::Regular, MODE, (0, 0));
            let id = self.model.add(to.clone(), file);
            self.heard(id, &entry);
            return End { fh: opened.fh, id };
        };
        let ino = self.walk(to).await;
        let opened = self.fs.open(ino, WRITE, true).await.unwrap();
        self.model.files[id].resize(0);
        End { fh: opened.fh, id }
    }

    /// Whether a copy of a whole file into an empty one is to be a link.
    fn is_to_link(&self, source: Id, target: Id) -> bool {
        let is_wanted = self.fs.config().copy_is_hardlink != CopyIsHardlink::Off;
        let can = self.has.hardlink && self.has.posix_rename;
        let fits = !self.model.files[source].data.is_empty() && self.model.links(target) == 1;
        // What has names that the mount does not know is copied.
        let is_known = !self.model.has_twins(source);
        // Nobody but root makes copies that are not his.
        let (owner, maker) = (
            self.model.files[source].owner.0,
            self.model.files[target].owner.0,
        );
        let is_his = maker == 0 || maker == owner;
        is_wanted && can && fits && is_known && is_his && self.model.links(source) > 0
    }

    /// Whether two names are of one file on the server.
    fn are_linked(&self, one: &[u8], other: &[u8]) -> bool {
        let [one, other] = [one, other].map(at_home);
        self.server
            .tree(|tree| tree.find(&one, false) == tree.find(&other, false))
    }

    /// The target became a link of the source on the server.
    fn linked(&mut self, source: Id, target: Id) {
        if self.fs.config().copy_is_hardlink == CopyIsHardlink::Cow {
            let copy = self.model.files[source].clone();
            self.model.files[target] = copy;
            return;
        }
        // It is the source from now on.
        for id in self.model.names.values_mut().filter(|id| **id == target) {
            *id = source;
        }
        for open in self.opens.iter_mut().filter(|open| open.id == target) {
            open.id = source;
        }
    }

    /// As a program does that copies in a loop; gives the number of bytes.
    async fn copy_all(&self, from: (Fh, u64), to: (Fh, u64), len: u64) -> u64 {
        let mut done = 0;
        while done < len {
            let (from, to) = ((from.0, from.1 + done), (to.0, to.1 + done));
            match self.fs.copy_range(from, to, len - done).await.unwrap() {
                0 => break,
                more => done += more,
            }
        }
        done
    }

    pub(super) async fn copy_range(
        &mut self,
        (from_open, from): (usize, u64),
        (to_open, to): (usize, u64),
        len: u64,
    ) {
        let source = self.pick_open(from_open, |access| access.read);
        let target = self.pick_open(to_open, |access| access.write && !access.append);
        let (Some((from_fh, source, _)), Some((to_fh, target, _))) = (source, target) else {
            return;
        };
        let data = &self.model.files[source].data;
        let begin = usize::try_from(from).unwrap().min(data.len());
        let end = data
            .len()
            .min(begin.saturating_add(usize::try_from(len).unwrap()));
        let data = data[begin..end].to_vec();
        // The kernel refuses to copy what overlaps; what is one file to us is not always to it.
        if self.model.files.are_one(source, target)
            && (source != target || from.abs_diff(to) < data.len() as u64)
        {
            return;
        }
        let is_whole = from == 0 && to == 0 && end == self.model.files[source].data.len();
        let is_into_empty = self.model.files[target].data.is_empty();
        if is_whole && is_into_empty && self.model.has_twins(source) {
            // See copy().
            return;
        }
        let is_to_link = is_whole && is_into_empty && self.is_to_link(source, target);
        // A file that is copied to its own end would never come to it.
        let len = if source == target {
            data.len() as u64
        } else {
            len
        };
        let copied = self.copy_all((from_fh, from), (to_fh, to), len).await;
        assert_eq!(copied, data.len() as u64, "copied");
        if data.is_empty() {
            return;
        }
        self.model.files[target].write(to, &data);
        let name_of = |id| {
            let mut names = self.model.names.iter();
            names.find(|(_, other)| **other == id).map(|(path, _)| path)
        };
        let names = name_of(source).zip(name_of(target));
        let are_linked =
            source != target && names.is_some_and(|(one, other)| self.are_linked(one, other));
        // They may have shared before; a range is copied then, and what is there already is not.
        assert!(
            !are_linked || is_to_link || !is_whole,
            "they share and must not"
        );
        if are_linked && is_to_link {
            self.linked(source, target);
        }
    }
}
