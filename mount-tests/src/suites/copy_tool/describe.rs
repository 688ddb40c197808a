//! Trees in words, so that two can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A line for each entry of a tree; times only where they were set.
pub(super) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    walk(root, root, &mut found, &mut inodes);
    for names in inodes.into_values().filter(|names| names.len() > 1) {
        let first = names.iter().min().unwrap().clone();
        for name in names {
            let line = found.get_mut(&name).unwrap();
            line.push_str(&format!(" = {}", first.display()));
        }
    }
    found
}

fn walk(
    root: &Path,
    dir: &Path,
    found: &mut BTreeMap<PathBuf, String>,
    inodes: &mut BTreeMap<u64, Vec<PathBuf>>,
) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let told = match meta.mtime() {
            // Set by the tests; the clock's own are not the same in two copies.
            time @ 0..1_000_000_000 => format!(" at {time}"),
            _ => String::new(),
        };
        let mode = meta.mode() & 0o7777;
        let line = if meta.is_symlink() {
            format!("link to {:?}{told}", fs::read_link(&path).unwrap())
        } else if meta.is_dir() {
            walk(root, &path, found, inodes);
            format!("directory {mode:o}{told}")
        } else {
            inodes.entry(meta.ino()).or_default().push(below.clone());
            let content = fs::read(&path).unwrap();
            let sum = content.iter().fold(content.len() as u64, |sum, byte| {
                sum.rotate_left(5)
                    .wrapping_add(u64::from(*byte))
                    .wrapping_mul(0x9e37_79b9)
            });
            format!("file {mode:o} {} {sum:x}{told}", content.len())
        };
        found.insert(below, line);
    }
}

pub(super) fn must_be_same(what: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) = (describe(ours), describe(theirs));
    let differs = |path: &&PathBuf| ours.get(*path) != theirs.get(*path);
    let all: BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    let different: Vec<_> = all.into_iter().filter(differs).collect();
    let told = different.iter().take(5).map(|path| {
        format!(
            "{}: ours {:?}, cp's {:?}",
            path.display(),
            ours.get(*path),
            theirs.get(*path)
        )
    });
    assert!(
        different.is_empty(),
        "{what}:\n{}",
        told.collect::<Vec<_>>().join("\n")
    );
}
