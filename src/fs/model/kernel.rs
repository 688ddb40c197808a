//! A kernel that asks the filesystem and knows from the model what it should hear.
//!
//! It asks only what Linux asks: names are looked up before they are changed, and what its VFS
//! refuses by itself (rmdir of a file, a rename to the same file) is not asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::ops::{NAMES, Op, TARGETS};
use super::reference::{Id, Path, ROOT, Reference, join, split};
use crate::client::Client;
use crate::error::Error;
use crate::fs::{Access, Caller, Config, Entry, Fh, Filesystem, Ino, Known};
use crate::sftp::{Extensions, FileKind};
use crate::testing::Server;

pub(super) struct Kernel {
    pub(super) fs: Arc<Filesystem>,
    pub(super) server: Server,
    /// Connections are lost: what is there already is not to be made, as the kernel sees to, since it
    /// may be taken for what was made.
    pub(super) has_cuts: bool,
    /// A name goes in several steps that may be the last one of a file that is open: nothing is cut,
    /// since between them it cannot be opened again.
    pub(super) takes_name: Arc<AtomicBool>,
    pub(super) model: Reference,
    pub(super) opens: Vec<Open>,
    pub(super) has: Extensions,
    /// Some files are two to this mount; then it must believe nothing for long.
    pub(super) has_twins: bool,
    /// What each file's number was when it was first seen.
    pub(super) numbers: HashMap<Id, Ino>,
    /// What the filesystem told us of, how often, and we have not forgotten.
    pub(super) lookups: BTreeMap<Ino, u64>,
}

pub(super) struct Open {
    pub(super) fh: Fh,
    pub(super) id: Id,
    pub(super) access: Access,
}

pub(super) const ROOT_USER: Caller = Caller { uid: 0, gid: 0 };
const ANN: Caller = Caller {
    uid: 1000,
    gid: 1000,
};

impl Kernel {
    pub(super) async fn mount(server: Server, config: &Config, model: Reference) -> Self {
        // A file is large from its first byte on: the first requests take the one connection, and
        // those after them the others.
        let data = vec![server.link(), server.link()];
        let again = server.clone();
        let client = Client::over_again(move || again.link(), data, 1);
        let client = client.await.unwrap();
        let has = client.features().extensions.clone();
        let fs = Filesystem::new(client, b"", config.clone()).await.unwrap();
        Self {
            fs,
            server,
            model,
            opens: Vec::new(),
            has,
            has_cuts: false,
            takes_name: Arc::default(),
            has_twins: false,
            numbers: HashMap::from([(ROOT, Ino::ROOT)]),
            lookups: BTreeMap::new(),
        }
    }

    /// Everything is closed, and the next mount knows no more than what was kept for it.
    pub(super) async fn remount(mut self, config: &Config) -> Self {
        while !self.opens.is_empty() {
            self.release(0).await;
        }
        self.quiet().await;
        drop(self.fs);
        let has_twins = self.model.forget_links();
        let mut mounted = Self::mount(self.server, config, self.model).await;
        mounted.has_twins = has_twins;
        mounted.has_cuts = self.has_cuts;
        mounted.takes_name = self.takes_name;
        mounted
    }

    /// Waits for tasks that write, list a directory, or look after a file that is being parted: they
    /// hold the filesystem a little longer.
    pub(super) async fn quiet(&self) {
        while Arc::strong_count(&self.fs) > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Does one thing to the filesystem and to the model, if it can be done.
    pub(super) async fn act(&mut self, op: &Op) {
        if self.has_twins {
            // What is done by one of them is as if others did it to the other: see act_foreign().
            self.flush_all().await;
            self.server.tree(|tree| tree.now += 1);
        }
        let takes_name = matches!(op, Op::Rename { .. }) && !self.has.posix_rename;
        let is_risky = takes_name && !self.opens.is_empty();
        self.takes_name.store(is_risky, Ordering::Relaxed);
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
            Op::Copy {
                path,
                dir,
                name,
                keep_open,
                clone,
            } => {
                let to = self.spot(dir, name);
                self.copy(path, to, keep_open, clone).await;
            }
            Op::CopyRange {
                from_open,
                to_open,
                from,
                to,
                len,
            } => {
                self.copy_range((from_open, from), (to_open, to), len).await;
            }
            Op::Remount => unreachable!("see run()"),
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

    // What is heard.

    pub(super) fn is_alive(&self, id: Id) -> bool {
        self.model.links(id) > 0 || self.opens.iter().any(|open| open.id == id)
    }

    /// A file has one number for its life, and no other file has it meanwhile.
    pub(super) fn heard_number(&mut self, id: Id, ino: Ino) {
        let number = *self.numbers.entry(id).or_insert(ino);
        assert_eq!(ino, number, "file {id} has another number than before");
        let mut others = self.numbers.iter().filter(|(_, its)| **its == ino);
        let other = others.find(|(other, _)| **other != id && self.is_alive(**other));
        assert_eq!(other, None, "two files have one number, {id} is the other");
    }

    pub(super) fn heard(&mut self, id: Id, entry: &Entry) {
        *self.lookups.entry(entry.ino).or_default() += 1;
        self.heard_number(id, entry.ino);
        self.heard_attr(id, &entry.known);
    }

    pub(super) fn heard_attr(&self, id: Id, known: &Known) {
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
    pub(super) async fn place<'a>(&mut self, path: &'a [u8]) -> (Ino, &'a [u8]) {
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
}

pub(super) fn at_home(path: &[u8]) -> Vec<u8> {
    [b".", path].concat()
}

const fn caller(by_ann: bool) -> Caller {
    if by_ann { ANN } else { ROOT_USER }
}
