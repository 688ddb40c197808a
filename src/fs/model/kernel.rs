//! A kernel that asks the filesystem and knows from the model what it should hear.
//!
//! It asks only what Linux asks: names are looked up before they are changed, and what its VFS
//! refuses by itself (rmdir of a file, a rename to the same file) is not asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::ops::{NAMES, Op, TARGETS};
use super::reference::{File, Id, Path, ROOT, Reference, is_within, join, split};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::fs::{Access, Caller, Change, Config, Creation, Entry, Fh, Filesystem, Ino, Known};
use crate::sftp::{Extensions, FileKind};
use crate::testing::Server;
use crate::transport::{Diagnosis, Link};

pub(super) struct Kernel {
    pub(super) fs: Arc<Filesystem>,
    pub(super) server: Server,
    pub(super) model: Reference,
    pub(super) opens: Vec<Open>,
    has: Extensions,
    /// What each file's number was when it was first seen.
    numbers: HashMap<Id, Ino>,
    /// What the filesystem told us of, how often, and we have not forgotten.
    lookups: BTreeMap<Ino, u64>,
}

pub(super) struct Open {
    fh: Fh,
    pub(super) id: Id,
    access: Access,
}

/// An entry of a listing.
struct Shown {
    next: u64,
    ino: Ino,
    name: Vec<u8>,
    kind: FileKind,
    known: Option<Known>,
}

const ROOT_USER: Caller = Caller { uid: 0, gid: 0 };
const ANN: Caller = Caller {
    uid: 1000,
    gid: 1000,
};

impl Kernel {
    pub(super) async fn mount(server: Server, config: &Config) -> Self {
        let stream = Box::new(server.connect());
        let diagnosis = Diagnosis::default();
        let client = Client::over(Link {
            stream,
            peer: "the model".into(),
            diagnosis,
        })
        .await;
        let client = client.unwrap();
        let has = client.features().extensions.clone();
        let fs = Filesystem::new(client, b"", config.clone()).await.unwrap();
        Self {
            fs,
            server,
            model: Reference::new(),
            opens: Vec::new(),
            has,
            numbers: HashMap::from([(ROOT, Ino::ROOT)]),
            lookups: BTreeMap::new(),
        }
    }

    /// Does one thing to the filesystem and to the model, if it can be done.
    pub(super) async fn act(&mut self, op: &Op) {
        match *op {
            Op::Lookup { dir, name } => self.lookup(&self.spot(dir, name)).await,
            Op::Getattr { path } => self.getattr(path).await,
            Op::Setattr {
                path,
                change,
                via_open: None,
            } => self.setattr(path, change).await,
            Op::Setattr {
                change,
                via_open: Some(open),
                ..
            } => self.fsetattr(open, change).await,
            Op::Create {
                dir,
                name,
                mode,
                access,
                exclusive,
                by_ann,
            } => {
                let path = self.spot(dir, name);
                self.create(path, mode, access, exclusive, caller(by_ann))
                    .await;
            }
            Op::Open {
                path,
                access,
                truncate,
            } => self.open(path, access, truncate).await,
            Op::Write {
                open,
                offset,
                len,
                fill,
                page,
            } => {
                self.write(open, offset, vec![fill; len], page).await;
            }
            Op::Read { open, offset, len } => self.read(open, offset, len).await,
            Op::Flush { open } => self.flush(open).await,
            Op::Fsync { open } => self.fsync(open).await,
            Op::Release { open } => self.release(open).await,
            Op::Grow { open, end } => self.grow(open, end).await,
            Op::Mkdir {
                dir,
                name,
                mode,
                by_ann,
            } => {
                self.mkdir(self.spot(dir, name), mode, caller(by_ann)).await;
            }
            Op::Rmdir { path } => self.rmdir(path).await,
            Op::Unlink { path } => self.unlink(path).await,
            Op::Rename {
                path,
                dir,
                name,
                keep,
            } => {
                self.rename(path, self.spot(dir, name), keep).await;
            }
            Op::Link { path, dir, name } => self.link(path, self.spot(dir, name)).await,
            Op::Symlink {
                dir,
                name,
                target,
                by_ann,
            } => {
                let path = self.spot(dir, name);
                self.symlink(path, TARGETS[target], caller(by_ann)).await;
            }
            Op::Readlink { path } => self.readlink(path).await,
            Op::Readdir {
                dir,
                plus,
                at_a_time,
            } => {
                let dirs = self.model.dirs();
                self.readdir(&dirs[dir % dirs.len()], plus, at_a_time).await;
            }
            Op::Forget { known, half } => self.forget(known, half),
            _ => self.act_foreign(op).await,
        }
    }

    // What there is to choose from.

    pub(super) fn spot(&self, dir: usize, name: usize) -> Path {
        let dirs = self.model.dirs();
        join(&dirs[dir % dirs.len()], NAMES[name])
    }

    pub(super) fn pick(&self, index: usize) -> Option<(Path, Id)> {
        let paths = self.model.paths();
        let path = paths.get(index % paths.len().max(1))?.clone();
        let id = self.model.at(&path)?;
        Some((path, id))
    }

    fn pick_open(&self, index: usize, fits: impl Fn(&Access) -> bool) -> Option<(Fh, Id, Access)> {
        let open = self.opens.get(index % self.opens.len().max(1))?;
        fits(&open.access).then_some((open.fh, open.id, open.access))
    }

    // What is heard.

    fn is_alive(&self, id: Id) -> bool {
        self.model.links(id) > 0 || self.opens.iter().any(|open| open.id == id)
    }

    /// A file has one number for its life, and no other file has it meanwhile.
    fn heard_number(&mut self, id: Id, ino: Ino) {
        let number = *self.numbers.entry(id).or_insert(ino);
        assert_eq!(ino, number, "file {id} has another number than before");
        let mut others = self.numbers.iter().filter(|(_, its)| **its == ino);
        let other = others.find(|(other, _)| **other != id && self.is_alive(**other));
        assert_eq!(other, None, "two files have one number, {id} is the other");
    }

    fn heard(&mut self, id: Id, entry: &Entry) {
        *self.lookups.entry(entry.ino).or_default() += 1;
        self.heard_number(id, entry.ino);
        self.heard_attr(id, &entry.known);
    }

    fn heard_attr(&self, id: Id, known: &Known) {
        let (file, attr) = (&self.model.files[id], known.attr);
        assert_eq!(attr.kind, file.kind);
        if file.kind != FileKind::Symlink {
            assert_eq!(attr.permissions, file.mode, "mode of file {id}");
        }
        assert_eq!((attr.uid, attr.gid), file.owner, "owner of file {id}");
        if file.kind == FileKind::Directory {
            return;
        }
        assert_eq!(attr.size, file.data.len() as u64, "size of file {id}");
        assert!(
            file.mtime.is_none_or(|mtime| attr.mtime == mtime),
            "mtime {attr:?}, {file:?}"
        );
        assert!(
            file.atime.is_none_or(|atime| attr.atime == atime),
            "atime {attr:?}, {file:?}"
        );
    }

    /// The number of what a path leads to, looked up name by name.
    pub(super) async fn walk(&mut self, path: &[u8]) -> Ino {
        if path.is_empty() {
            return Ino::ROOT;
        }
        let (dir, name) = split(path);
        let parent = Box::pin(self.walk(dir)).await;
        let entry = self.fs.lookup(parent, name).await;
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
        self.heard(self.model.at(path).unwrap(), &entry);
        entry.ino
    }

    /// A place's directory and name, and what the kernel finds out about it on the way.
    async fn place<'a>(&mut self, path: &'a [u8]) -> (Ino, &'a [u8]) {
        let (dir, name) = split(path);
        let parent = self.walk(dir).await;
        match self.model.at(path) {
            Some(_) => drop(self.walk(path).await),
            None => {
                let missing = self.fs.lookup(parent, name).await;
                assert_eq!(missing.err(), Some(Error::Errno(Errno::ENOENT)));
            }
        }
        (parent, name)
    }

    // Operations on names.

    async fn lookup(&mut self, path: &[u8]) {
        self.place(path).await;
    }

    async fn getattr(&mut self, path: usize) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        let ino = self.walk(&path).await;
        let known = self.fs.getattr(ino).await.unwrap();
        self.heard_attr(id, &known);
    }

    async fn setattr(&mut self, path: usize, mut change: Change) {
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

    async fn fsetattr(&mut self, open: usize, change: Change) {
        let writes = |access: &Access| change.size.is_none() || access.write;
        let Some((fh, id, _)) = self.pick_open(open, writes) else {
            return;
        };
        let changed = self
            .fs
            .setattr(self.numbers[&id], change, Some(fh))
            .await
            .unwrap();
        self.model.files[id].change(&change);
        self.heard_attr(id, &changed);
    }

    async fn mkdir(&mut self, path: Path, mode: u32, caller: Caller) {
        let (parent, name) = self.place(&path).await;
        let made = self.fs.mkdir(parent, name, mode, caller).await;
        self.made(&path, FileKind::Directory, mode, caller, made);
    }

    async fn symlink(&mut self, path: Path, target: &[u8], caller: Caller) {
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
    fn made(
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

    async fn rmdir(&mut self, path: usize) {
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

    async fn unlink(&mut self, path: usize) {
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

    async fn rename(&mut self, from: usize, to: Path, keep: bool) {
        let Some((from, id)) = self.pick(from) else {
            return;
        };
        let there = self.model.at(&to);
        let is_other_kind = there.is_some_and(|it| self.model.is_dir(it) != self.model.is_dir(id));
        if there == Some(id) || is_other_kind {
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

    async fn link(&mut self, path: usize, to: Path) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.is_dir(id) {
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

    async fn readlink(&mut self, path: usize) {
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
        self.fs.releasedir(fh).await;
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

    fn forget(&mut self, known: usize, half: bool) {
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

    // Operations on content.

    async fn create(
        &mut self,
        path: Path,
        mode: u32,
        access: Access,
        exclusive: bool,
        caller: Caller,
    ) {
        let there = self.model.at(&path);
        let is_file = |id: Id| self.model.files[id].kind == FileKind::Regular;
        if there.is_some_and(|id| !exclusive && !is_file(id)) {
            return;
        }
        let (parent, name) = self.place(&path).await;
        let made = self
            .fs
            .create(
                parent,
                name,
                mode,
                access,
                Creation {
                    exclusive,
                    truncate: false,
                },
                caller,
            )
            .await;
        let id = match (there, made) {
            (Some(_), made) if exclusive => {
                return assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
            }
            (Some(id), made) => {
                let (entry, opened) = made.unwrap();
                self.heard(id, &entry);
                (id, opened)
            }
            (None, made) => {
                let (entry, opened) = made.unwrap();
                let id = self.made(&path, FileKind::Regular, mode, caller, Ok(entry));
                (id.unwrap(), opened)
            }
        };
        self.opens.push(Open {
            fh: id.1.fh,
            id: id.0,
            access,
        });
    }

    async fn open(&mut self, path: usize, access: Access, truncate: bool) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.files[id].kind != FileKind::Regular {
            return;
        }
        let ino = self.walk(&path).await;
        let truncate = truncate && access.write;
        let opened = self.fs.open(ino, access, truncate).await.unwrap();
        if truncate {
            self.model.files[id].resize(0);
        }
        self.opens.push(Open {
            fh: opened.fh,
            id,
            access,
        });
    }

    async fn write(&mut self, open: usize, offset: u64, data: Vec<u8>, page: bool) {
        let Some((fh, id, access)) = self.pick_open(open, |access| access.write) else {
            return;
        };
        // Pages are written back through an open that may append only where a mapping was made.
        let page = page && access.read && self.model.links(id) > 0;
        let appends = access.append && !page;
        let known = self.fs.getattr(self.numbers[&id]).await.unwrap();
        self.heard_attr(id, &known);
        let offset = if appends { known.attr.size } else { offset };
        self.fs
            .write(fh, offset, Bytes::from(data.clone()), !appends)
            .await
            .unwrap();
        self.model.files[id].write(offset, &data);
    }

    async fn read(&mut self, open: usize, offset: u64, len: u32) {
        let Some((fh, id, _)) = self.pick_open(open, |access| access.read) else {
            return;
        };
        // Where attributes are not believed any more the kernel asks for them first.
        let known = self.fs.getattr(self.numbers[&id]).await.unwrap();
        self.heard_attr(id, &known);
        let read = self.fs.read(fh, offset, len).await.unwrap();
        let data = &self.model.files[id].data;
        let start = usize::try_from(offset).unwrap().min(data.len());
        let end = data.len().min(start + usize::try_from(len).unwrap());
        assert_eq!(
            read.len(),
            end - start,
            "bytes at {offset} of {}",
            data.len()
        );
        assert!(
            read == data[start..end],
            "other bytes at {offset} of {}",
            data.len()
        );
    }

    async fn flush(&mut self, open: usize) {
        let Some((fh, ..)) = self.pick_open(open, |_| true) else {
            return;
        };
        assert_eq!(self.fs.flush(fh).await, Ok(()));
    }

    async fn fsync(&mut self, open: usize) {
        let Some((fh, id, _)) = self.pick_open(open, |_| true) else {
            return;
        };
        assert_eq!(self.fs.fsync(fh).await, Ok(()));
        if let Some((path, _)) = self.model.names.iter().find(|(_, its)| **its == id) {
            assert!(
                self.on_server(path).1 == self.model.files[id].data,
                "not there after fsync"
            );
        }
    }

    async fn release(&mut self, open: usize) {
        if self.opens.is_empty() {
            return;
        }
        let open = self.opens.swap_remove(open % self.opens.len());
        assert_eq!(self.fs.flush(open.fh).await, Ok(()));
        self.fs.release(open.fh);
    }

    async fn grow(&mut self, open: usize, end: u64) {
        let Some((fh, id, _)) = self.pick_open(open, |access| access.write) else {
            return;
        };
        self.fs.grow(self.numbers[&id], fh, end).await.unwrap();
        if (self.model.files[id].data.len() as u64) < end {
            self.model.files[id].resize(end);
        }
    }

    // Everything.

    pub(super) async fn flush_all(&mut self) {
        for open in &self.opens {
            assert_eq!(self.fs.flush(open.fh).await, Ok(()));
        }
    }

    /// The whole tree, by the filesystem's word and on the server.
    pub(super) async fn look_at_everything(&mut self) {
        for dir in self.model.dirs() {
            self.readdir(&dir, true, 100).await;
        }
        for (path, id) in self.model.names.clone() {
            let ino = self.walk(&path).await;
            let known = self.fs.getattr(ino).await.unwrap();
            self.heard_attr(id, &known);
        }
        self.flush_all().await;
        for (path, id) in self.model.names.clone() {
            self.compare_content(&path, id).await;
            let (attr, data) = self.on_server(&path);
            let file = &self.model.files[id];
            assert_eq!(attr.kind(), Some(file.kind));
            assert_eq!(attr.owner, Some(file.owner));
            assert!(
                data == file.data,
                "other bytes on the server in {}",
                path.escape_ascii()
            );
            let names = self.server.tree(|tree| {
                let ino = tree.find(&at_home(&path), false).unwrap();
                tree.list(ino).map_or(0, |names| names.len() - 2)
            });
            assert_eq!(
                names,
                self.model.children(&path).len(),
                "in {}",
                path.escape_ascii()
            );
        }
    }

    async fn compare_content(&mut self, path: &[u8], id: Id) {
        let ino = self.walk(path).await;
        match self.model.files[id].kind {
            FileKind::Regular => {
                let access = Access {
                    read: true,
                    write: false,
                    append: false,
                    sync: false,
                };
                let opened = self.fs.open(ino, access, false).await.unwrap();
                let read = self.fs.read(opened.fh, 0, 1 << 20).await.unwrap();
                assert!(read == self.model.files[id].data, "{}", path.escape_ascii());
                self.fs.release(opened.fh);
            }
            FileKind::Symlink => {
                assert_eq!(
                    self.fs.readlink(ino).await.unwrap(),
                    self.model.files[id].data
                );
            }
            _ => {}
        }
    }

    /// What the server has at a path: attributes, and content or target.
    fn on_server(&self, path: &[u8]) -> (crate::sftp::Attrs, Bytes) {
        self.server.tree(|tree| {
            let path = at_home(path);
            let ino = tree.find(&path, false).expect("not on the server");
            let data = tree
                .readlink(&path)
                .or_else(|_| tree.read(ino, 0, usize::MAX));
            (tree.attrs(ino), data.unwrap_or_default())
        })
    }

    /// Everything is closed and forgotten; then the server holds nothing for us.
    pub(super) async fn end(mut self) {
        while !self.opens.is_empty() {
            self.release(0).await;
        }
        for (ino, count) in std::mem::take(&mut self.lookups) {
            self.fs.forget(ino, count);
        }
        // Closing is not waited for; an answer to what is asked after it comes after it.
        let fh = self.fs.opendir(Ino::ROOT).await.unwrap();
        self.fs.readdir(fh, 0, false, |_| false).await.unwrap();
        let left = self.server.tree(|tree| tree.count());
        let named: std::collections::BTreeSet<_> = self.model.names.values().collect();
        // The server has `/` and `/home` besides.
        assert_eq!(left, named.len() + 2, "files that nobody has a name for");
    }
}

pub(super) fn at_home(path: &[u8]) -> Vec<u8> {
    [b".", path].concat()
}

const fn caller(by_ann: bool) -> Caller {
    if by_ann { ANN } else { ROOT_USER }
}
