//! What a filesystem is, as simply as it can be said: paths that lead to files.

use std::collections::BTreeMap;

use crate::fs::Change;
use crate::sftp::FileKind;

/// Which file it is, whatever its names.
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
    pub(super) files: Vec<File>,
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
            files: vec![root],
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
        u32::try_from(self.names.values().filter(|other| **other == id).count()).unwrap()
    }

    pub(super) fn add(&mut self, path: Path, file: File) -> Id {
        self.files.push(file);
        self.names.insert(path, self.files.len() - 1);
        self.files.len() - 1
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
