//! `copy_is_hardlink=shared`: a copy that is a hard link is the source's inode, as a listing of the
//! server would show it, and a change of one name shows under the other.
//!
//! The program that copies has the target open under the number that it had before. That number
//! becomes another one for the source's file, for as long as the kernel knows it.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::notices::Notice;
use super::{Filesystem, Ino};
use crate::error::Result;
use crate::sftp::Attrs;

impl Filesystem {
    /// The file that a number of the kernel means.
    pub(crate) fn resolve(&self, ino: Ino) -> Ino {
        if !self.has_aliases.load(Ordering::Relaxed) {
            return ino;
        }
        self.tables().inodes.resolve(ino)
    }

    /// Makes the target a hard link of the source, and both one inode.
    pub(super) async fn link_shared(
        &self,
        source: (Ino, &Bytes),
        target: (Ino, &Bytes),
    ) -> Result<Attrs> {
        let linked = self.link_and_look(source.1, target.1).await;
        linked.done?;
        let attrs = linked.new.or(linked.old)?;
        let places = {
            let mut tables = self.tables();
            let places = tables.inodes.merge(target.0, source.0);
            tables.attrs.forget(target.0);
            tables.changed(source.0);
            tables.relinked();
            places
        };
        self.has_aliases.store(true, Ordering::Relaxed);
        let moved = self.handles.move_files(target.0, source.0);
        let mut tables = self.tables();
        for _ in 0..moved {
            tables.inodes.opened(source.0);
            tables.inodes.closed(target.0);
        }
        drop(tables);
        self.refresh(source.0, &attrs);
        self.touch(source.0);
        for (parent, name) in places {
            self.notices.tell(Notice::Name(parent, name));
        }
        self.tell_aliases(source.0);
        Ok(attrs)
    }

    /// The kernel has pages and attributes of a file under each of its numbers: what was changed
    /// by one of them is changed under the others.
    pub(super) fn tell_aliases(&self, ino: Ino) {
        if !self.has_aliases.load(Ordering::Relaxed) {
            return;
        }
        let aliases = self.tables().inodes.aliases(ino);
        if aliases.is_empty() {
            return;
        }
        for number in aliases.into_iter().chain([ino]) {
            self.notices.tell(Notice::Content(number));
        }
    }
}
