//! What a filesystem is, as simply as it can be said: paths that lead to files.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use crate::fs::Change;
use crate::sftp::FileKind;

/// Which file it is for the mount, whatever its names. Hard links that a mount knows nothing of are
/// files of their own to it: then several of these mean one file on the server.
pub(super) type Id = usize;

/// Empty for the root, else `/a/b`.
pub(super) type Path = Vec<u8>;

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) kind: FileKind,
    pub(super) mode: u16,
    pub(super) owner: (u32, u32),
    /// A file's content, or what a symbolic link says.
    pub(super) data: Vec<u8>,
    /// Where they were set, and nothing happened that moves them.
    pub(super) atime: Option<u32>,
    pub(super) mtime: Option<u32>,
}

pub(super) struct Reference {
    pub(super) names: BTreeMap<Path, Id>,
    pub(super) files: Files,
}

/// What files are, by their [`Id`].
pub(super) struct Files {
    /// Where in `all` each one is.
    places: Vec<usize>,
    all: Vec<File>,
}

impl Files {
    fn push(&mut self, file: File) -> Id {
        self.all.push(file);
        self.places.push(self.all.len() - 1);
        self.places.len() - 1
    }

    /// Whether two are one file on the server, as link(2) makes it.
    pub(super) fn are_one(&self, one: Id, other: Id) -> bool {
        self.places[one] == self.places[other]
    }

    fn another_of(&mut self, id: Id) -> Id {
        self.places.push(self.places[id]);
        self.places.len() - 1
    }
}

impl Index<Id> for Files {
    type Output = File;

    fn index(&self, id: Id) -> &File {
        &self.all[self.places[id]]
    }
}

impl IndexMut<Id> for Files {
    fn index_mut(&mut self, id: Id) -> &mut File {
        &mut self.all[self.places[id]]
    }
}

pub(super) const ROOT: Id = 0;

impl File {
    pub(super) const fn new(kind: FileKind, mode: u16, owner: (u32, u32)) -> Self {
        Self {
            kind,
            mode,
            owner,
            data: Vec::new(),
            atime: None,
            mtime: None,
        }
    }

    pub(super) fn resize(&mut self, size: u64) {
        self.data.resize(usize::try_from(size).unwrap(), 0);
        self.mtime = None;
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        self.data.resize(self.data.len().max(end), 0);
        self.data[start..end].copy_from_slice(data);
        self.mtime = None;
    }

    pub(super) fn change(&mut self, change: &Change) {
        if let Some(size) = change.size {
            self.resize(size);
        }
        self.mode = change.permissions.unwrap_or(self.mode);
        self.owner = (
            change.uid.unwrap_or(self.owner.0),
            change.gid.unwrap_or(self.owner.1),
        );
        self.atime = change.atime.or(self.atime);
        self.mtime = change.mtime.or(self.mtime);
    }
}

impl Reference {
    pub(super) fn new() -> Self {
        let root = File::new(FileKind::Directory, 0o755, (0, 0));
        Self {
            names: BTreeMap::from([(Path::new(), ROOT)]),
            files: Files {
                places: vec![0],
                all: vec![root],
            },
        }
    }

    pub(super) fn at(&self, path: &[u8]) -> Option<Id> {
        self.names.get(path).copied()
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        self.files[id].kind == FileKind::Directory
    }

    pub(super) fn dirs(&self) -> Vec<Path> {
        let dirs = self.names.iter().filter(|(_, id)| self.is_dir(**id));
        dirs.map(|(path, _)| path.clone()).collect()
    }

    /// All paths but the root's.
    pub(super) fn paths(&self) -> Vec<Path> {
        self.names
            .keys()
            .filter(|path| !path.is_empty())
            .cloned()
            .collect()
    }

    /// What is in a directory: names and files.
    pub(super) fn children(&self, dir: &[u8]) -> Vec<(Vec<u8>, Id)> {
        let below = self
            .names
            .iter()
            .filter(|(path, _)| !path.is_empty() && split(path).0 == dir);
        below
            .map(|(path, id)| (split(path).1.to_vec(), *id))
            .collect()
    }

    pub(super) fn links(&self, id: Id) -> u32 {
        let names = self.names.values();
        u32::try_from(
            names
                .filter(|other| self.files.are_one(**other, id))
                .count(),
        )
        .unwrap()
    }

    /// Whether the mount knows only some names of a file.
    pub(super) fn has_twins(&self, id: Id) -> bool {
        let mut names = self.names.values();
        names.any(|other| *other != id && self.files.are_one(*other, id))
    }

    /// A new mount knows nothing of hard links: each name is a file of its own to it. True if there
    /// are any.
    pub(super) fn forget_links(&mut self) -> bool {
        let mut seen = std::collections::BTreeSet::new();
        let mut any = false;
        for id in self.names.values_mut() {
            if !seen.insert(*id) {
                *id = self.files.another_of(*id);
                any = true;
            }
        }
        any
    }

    pub(super) fn add(&mut self, path: Path, file: File) -> Id {
        let id = self.files.push(file);
        self.names.insert(path, id);
        id
    }

    /// Moves a path and all below it.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        self.names.remove(to);
        let moved: Vec<Path> = self
            .names
            .keys()
            .filter(|path| is_within(path, from))
            .cloned()
            .collect();
        for path in moved {
            let id = self.names.remove(&path).unwrap();
            self.names.insert([to, &path[from.len()..]].concat(), id);
        }
    }
}

/// Whether a path is another or below it.
pub(super) fn is_within(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Path {
    [dir, b"/", name].concat()
}

/// A path's directory and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap();
    (&path[..slash], &path[slash + 1..])
}
