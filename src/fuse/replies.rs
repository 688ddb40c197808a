//! The kernel's replies: each is sent once, an answer or a refusal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fuser::{
    Errno, FileHandle, FopenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite,
};

use super::convert::{BLOCK, GENERATION, NOTHING, UNKNOWN, file_attr};
use crate::fs::{Entry, Fh, Ino, Known};
use crate::sftp::Statvfs;

/// What can tell a program that something failed.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuses {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuses!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite
);

/// A reply that is filled piece by piece and may be taken away meanwhile.
pub(super) struct Slot<R>(Arc<Mutex<Option<R>>>);

impl<R> Slot<R> {
    pub(super) fn new(reply: R) -> Self {
        Self(Arc::new(Mutex::new(Some(reply))))
    }

    /// Another way to the same reply.
    pub(super) fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Adds to the reply, if it is still here.
    pub(super) fn fill<T>(&self, add: impl FnOnce(&mut R) -> T) -> Option<T> {
        let mut reply = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reply.as_mut().map(add)
    }

    /// Whoever comes first gets it.
    pub(super) fn take(&self) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Refuse> Refuse for Slot<R> {
    fn refuse(self, errno: Errno) {
        if let Some(reply) = self.take() {
            reply.refuse(errno);
        }
    }
}

/// What a name was found to be.
pub(super) enum Found {
    There(Entry),
    /// It leads nowhere, which may be believed for so long.
    Nowhere(Duration),
}

pub(super) fn found(reply: ReplyEntry, found: Found) {
    match found {
        Found::There(there) => entry(reply, there),
        Found::Nowhere(Duration::ZERO) => reply.error(Errno::ENOENT),
        Found::Nowhere(ttl) => reply.entry(&ttl, &NOTHING, GENERATION),
    }
}

pub(super) fn entry(reply: ReplyEntry, entry: Entry) {
    let attr = file_attr(entry.ino, &entry.known);
    reply.entry_with_ttls(&entry.known.ttl, &entry.ttl, &attr, GENERATION);
}

pub(super) fn attr(reply: ReplyAttr, (ino, known): (Ino, Known)) {
    reply.attr(&known.ttl, &file_attr(ino, &known));
}

pub(super) fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

pub(super) fn data(reply: ReplyData, data: Bytes) {
    reply.data(&data);
}

pub(super) fn opened(reply: ReplyOpen, (fh, flags): (Fh, FopenFlags)) {
    reply.opened(FileHandle(fh.0), flags);
}

pub(super) fn created(reply: ReplyCreate, (entry, fh, flags): (Entry, Fh, FopenFlags)) {
    let attr = file_attr(entry.ino, &entry.known);
    let ttl = entry.ttl.min(entry.known.ttl);
    reply.created(&ttl, &attr, GENERATION, FileHandle(fh.0), flags);
}

pub(super) fn space(reply: ReplyStatfs, space: Option<Statvfs>) {
    match space {
        Some(space) => reply.statfs(
            space.blocks,
            space.bfree,
            space.bavail,
            space.files,
            space.ffree,
            u32::try_from(space.bsize).unwrap_or(BLOCK),
            u32::try_from(space.namemax).unwrap_or(u32::MAX),
            u32::try_from(space.frsize).unwrap_or(BLOCK),
        ),
        // A server that cannot tell: large enough that no program refuses to write.
        None => reply.statfs(UNKNOWN, UNKNOWN, UNKNOWN, 0, 0, BLOCK, 255, BLOCK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_to_whoever_comes_first() {
        let slot = Slot::new(vec![1]);
        let other = slot.again();
        assert_eq!(slot.fill(|all| all.push(2)), Some(()));
        assert_eq!(other.take(), Some(vec![1, 2]));
        assert_eq!(slot.take(), None);
        assert_eq!(slot.fill(|all| all.len()), None);
    }
}
