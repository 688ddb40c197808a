//! What a tree looks like, byte by byte, and how two differ.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::watch::{Told, WRONG};

/// Each path below a directory, with what it is and holds.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Type, mode, who shares it; a link's target; and mtime where it was set long ago.
    pub(super) line: String,
    /// Of a file.
    pub(super) content: Option<Vec<u8>>,
}

/// Which of the things that are seen are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Who shares an inode: as the server's file system sees it.
    Counted,
    /// As a mount sees it: SFTP has no inode numbers.
    Ignored,
}

/// Looks at everything below a directory. Times are told only if they lie more than a year back:
/// the others are of the moment at which the work was done.
pub(super) fn look(root: &Path, links: Links) -> Result<Tree, String> {
    let mut found = Tree::new();
    let mut names_of_inode: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(&below)).told(below.display())? {
            names.push(entry.told(below.display())?.file_name());
        }
        names.sort();
        let count = names.len();
        names.dedup();
        if names.len() != count {
            return Err(format!("{}: a name is listed twice", below.display()));
        }
        for name in names {
            let path = below.join(name);
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full).told(path.display())?;
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let mut entry =
                entry(&full, &meta).map_err(|why| format!("{}: {why}", path.display()))?;
            if meta.is_file() && links == Links::Counted {
                let first = names_of_inode
                    .entry(meta.ino())
                    .or_insert_with(|| path.clone());
                entry.line += &format!(", {} names, first {}", meta.nlink(), first.display());
            }
            found.insert(path, entry);
        }
    }
    Ok(found)
}

fn entry(path: &Path, meta: &fs::Metadata) -> Result<Entry, String> {
    let mode = meta.permissions().mode() & 0o7777;
    let old = if meta.mtime() < RECENT {
        format!(", of {}", meta.mtime())
    } else {
        String::new()
    };
    if meta.is_symlink() {
        let target = fs::read_link(path).told("readlink")?;
        return Ok(Entry {
            line: format!("symlink to {}", target.display()),
            content: None,
        });
    }
    if meta.is_dir() {
        return Ok(Entry {
            line: format!("directory {mode:o}{old}"),
            content: None,
        });
    }
    let content = fs::read(path).told("read")?;
    if content.len() as u64 != meta.len() {
        return Err(format!("size {}, but {} bytes", meta.len(), content.len()));
    }
    Ok(Entry {
        line: format!("file {mode:o}{old}"),
        content: Some(content),
    })
}

/// Says where the second is not as the first.
pub(super) fn same(place: &str, expected: &Tree, got: &Tree) -> Result<(), String> {
    let mut differences = Vec::new();
    for (path, wanted) in expected {
        let name = path.display();
        match got.get(path) {
            None => differences.push(format!("{name} is missing")),
            Some(entry) if entry.line != wanted.line => {
                differences.push(format!("{name}: {} instead of {}", entry.line, wanted.line))
            }
            Some(entry) if entry.content != wanted.content => differences.push(format!(
                "{name}: {}",
                different(entry.content.as_deref(), wanted.content.as_deref())
            )),
            Some(_) => (),
        }
    }
    for path in got.keys().filter(|path| !expected.contains_key(*path)) {
        differences.push(format!("{} is there and should not", path.display()));
    }
    let count = differences.len();
    differences.truncate(6);
    if count == 0 {
        Ok(())
    } else {
        Err(format!(
            "{WRONG}: {count} differences {place}: {}",
            differences.join("; ")
        ))
    }
}

/// The same as a mount sees it.
pub(super) fn without_links(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for entry in tree.values_mut() {
        if let Some((line, _)) = entry.line.rsplit_once(" names, first")
            && let Some((line, _)) = line.rsplit_once(", ")
        {
            entry.line = line.to_owned();
        }
    }
    tree
}

/// Where two contents part, and what is there.
pub(super) fn different(now: Option<&[u8]>, expected: Option<&[u8]>) -> String {
    let (now, expected) = (now.unwrap_or_default(), expected.unwrap_or_default());
    let pairs = now.iter().zip(expected);
    let place = pairs
        .clone()
        .position(|(one, other)| one != other)
        .unwrap_or_else(|| now.len().min(expected.len()));
    let wrong = pairs.filter(|(one, other)| one != other).count();
    let shown = |bytes: &[u8]| {
        let part = bytes.get(place..).unwrap_or_default();
        String::from_utf8_lossy(&part[..part.len().min(24)]).into_owned()
    };
    format!(
        "{} bytes instead of {}, {wrong} of them wrong, from byte {place} on: {:?} instead of {:?}",
        now.len(),
        expected.len(),
        shown(now),
        shown(expected)
    )
}

/// 2025-01-01: the cases set times of 2020, and run later than this.
const RECENT: i64 = 1_735_689_600;
