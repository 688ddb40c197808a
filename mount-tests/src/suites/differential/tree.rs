//! A directory tree as lines of text, for comparing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A line for each entry: path, kind, mode, links, size, content, in the order of paths.
pub(in crate::suites) fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, Path::new(""), &mut lines);
    lines.sort();
    lines
}

fn walk(root: &Path, below: &Path, lines: &mut Vec<String>) {
    let dir = root.join(below);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(why) => {
            lines.push(format!("{}: cannot be listed: {why}", below.display()));
            return;
        }
    };
    for entry in entries {
        let path = below.join(entry.expect("an entry").file_name());
        lines.push(format!("{:?}: {}", path, entry_line(&root.join(&path))));
        if fs::symlink_metadata(root.join(&path)).is_ok_and(|meta| meta.is_dir()) {
            walk(root, &path, lines);
        }
    }
}

fn entry_line(path: &Path) -> String {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(why) => return format!("no attributes: {why}"),
    };
    let mtime = told_mtime(meta.mtime());
    if meta.is_symlink() {
        return format!("symlink to {:?}", fs::read_link(path));
    }
    let mode = meta.mode() & 0o7777;
    if meta.is_dir() {
        return format!("directory {mode:o} {mtime}");
    }
    let content = match fs::read(path) {
        Ok(bytes) => format!("{} bytes, sum {:x}", bytes.len(), sum(&bytes)),
        Err(why) => format!("unreadable: {why}"),
    };
    format!(
        "file {mode:o} links {} size {} {mtime}: {content}",
        meta.nlink(),
        meta.len()
    )
}

/// A time that an operation has set; the clock's own times differ between two directories.
pub(in crate::suites) fn told_mtime(seconds: i64) -> String {
    if seconds < 1_000_000 {
        format!("mtime {seconds}")
    } else {
        String::new()
    }
}

/// FNV-1a, 64 bits: tells contents apart without printing them.
pub(in crate::suites) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
