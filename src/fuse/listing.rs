//! Entries of a directory, put into the kernel's replies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{FileAttr, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::convert::{GENERATION, NOTHING, file_attr, file_type};
use super::replies::Slot;
use crate::error::Result;
use crate::fs::{DirEntry, Fh, Filesystem, Ino};

/// Fills a reply with names.
pub(super) async fn names(
    fs: &Filesystem,
    fh: Fh,
    offset: u64,
    reply: Slot<ReplyDirectory>,
) -> Result<()> {
    let take = |entry: &DirEntry<'_>| {
        let (ino, kind) = (INodeNo(entry.ino.0), file_type(entry.kind));
        let name = OsStr::from_bytes(entry.name);
        let is_full = reply.fill(|reply| reply.add(ino, entry.next, kind, name));
        // Nobody wants more of one that is gone.
        is_full.unwrap_or(true)
    };
    fs.readdir(fh, offset, false, take).await
}

/// Fills a reply with names and attributes. Gives the files that the kernel takes for looked up.
pub(super) async fn entries(
    fs: &Filesystem,
    fh: Fh,
    offset: u64,
    reply: Slot<ReplyDirectoryPlus>,
) -> Result<Vec<Ino>> {
    let mut told = Vec::new();
    let take = |entry: &DirEntry<'_>| {
        let is_full = reply.fill(|reply| add(reply, entry)).unwrap_or(true);
        if !is_full && entry.known.is_some() {
            told.push(entry.ino);
        }
        is_full
    };
    fs.readdir(fh, offset, true, take).await?;
    Ok(told)
}

/// True if there is no room.
fn add(reply: &mut ReplyDirectoryPlus, entry: &DirEntry<'_>) -> bool {
    // The kernel takes no attributes from `.` and `..`, only their number and type.
    let nothing = FileAttr {
        kind: file_type(entry.kind),
        ..NOTHING
    };
    let attr = entry
        .known
        .map_or(nothing, |known| file_attr(entry.ino, &known));
    let ttl = entry.known.map_or(Duration::ZERO, |known| known.ttl);
    let ino = INodeNo(entry.ino.0);
    let attr = FileAttr { ino, ..attr };
    let name = OsStr::from_bytes(entry.name);
    reply.add(ino, entry.next, name, &ttl, &attr, GENERATION)
}
