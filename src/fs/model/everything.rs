//! The whole tree, seen through the filesystem and on the server.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::kernel::{Kernel, at_home};
use super::reference::Id;
use crate::fs::Access;
use crate::sftp::{Attrs, FileKind};

impl Kernel {
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
    pub(super) fn on_server(&self, path: &[u8]) -> (Attrs, Bytes) {
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
        self.quiet().await;
        // What was fetched ahead and nobody came for.
        let dropped = {
            let mut tables = self.fs.tables();
            let tables = &mut *tables;
            let (now, inodes) = (crate::clock::now(), &mut tables.inodes);
            tables.walk.sweep(std::time::Duration::ZERO, inodes, now);
            tables.walk.take_dropped()
        };
        drop(dropped);
        // Closing is not waited for; an answer to what is asked after it comes after it.
        let root = self.fs.root();
        self.fs.client.stat(root).await.unwrap();
        let paths = self.model.names.keys().map(|path| at_home(path));
        let (left, opens, named) = self.server.tree(|tree| {
            // Copies may share what is there.
            let named: BTreeSet<_> = paths.map(|path| tree.find(&path, false).unwrap()).collect();
            (tree.count(), tree.opens(), named)
        });
        // The server has `/` and `/home` besides.
        assert_eq!(left, named.len() + 2, "files that nobody has a name for");
        assert_eq!(opens, 0, "open on the server");
    }
}
