//! Operations on open files.

use bytes::Bytes;
use nix::errno::Errno;

use super::kernel::{Kernel, Open};
use super::reference::{Id, Path};
use crate::error::Error;
use crate::fs::{Access, Caller, Change, Creation, Fh};
use crate::sftp::FileKind;

impl Kernel {
    pub(super) fn pick_open(
        &self,
        index: usize,
        fits: impl Fn(&Access) -> bool,
    ) -> Option<(Fh, Id, Access)> {
        let open = self.opens.get(index % self.opens.len().max(1))?;
        fits(&open.access).then_some((open.fh, open.id, open.access))
    }

    pub(super) async fn fsetattr(&mut self, open: usize, change: Change) {
        let writes = |access: &Access| change.size.is_none() || access.write;
        let Some((fh, id, _)) = self.pick_open(open, writes) else {
            return;
        };
        let changed = self
            .fs
            .setattr(self.numbers[&id], change, Some(fh))
            .await
            .unwrap();
        self.model.files[id].change(&change);
        self.heard_attr(id, &changed);
    }

    pub(super) async fn create(
        &mut self,
        path: Path,
        mode: u32,
        access: Access,
        exclusive: bool,
        caller: Caller,
    ) {
        let there = self.model.at(&path);
        let is_file = |id: Id| self.model.files[id].kind == FileKind::Regular;
        if there.is_some_and(|id| self.has_cuts || !exclusive && !is_file(id)) {
            return;
        }
        let (parent, name) = self.place(&path).await;
        let made = self
            .fs
            .create(
                parent,
                name,
                mode,
                access,
                Creation {
                    exclusive,
                    truncate: false,
                },
                caller,
            )
            .await;
        let id = match (there, made) {
            (Some(_), made) if exclusive => {
                return assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
            }
            (Some(id), made) => {
                let (entry, opened) = made.unwrap();
                self.heard(id, &entry);
                (id, opened)
            }
            (None, made) => {
                let (entry, opened) = made.unwrap();
                let id = self.made(&path, FileKind::Regular, mode, caller, Ok(entry));
                (id.unwrap(), opened)
            }
        };
        self.opens.push(Open {
            fh: id.1.fh,
            id: id.0,
            access,
        });
    }

    pub(super) async fn open(&mut self, path: usize, access: Access, truncate: bool) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.files[id].kind != FileKind::Regular {
            return;
        }
        let ino = self.walk(&path).await;
        let truncate = truncate && access.write;
        let opened = self.fs.open(ino, access, truncate).await.unwrap();
        if truncate {
            self.model.files[id].resize(0);
        }
        self.opens.push(Open {
            fh: opened.fh,
            id,
            access,
        });
    }

    pub(super) async fn write(&mut self, open: usize, offset: u64, data: Vec<u8>, page: bool) {
        let Some((fh, id, access)) = self.pick_open(open, |access| access.write) else {
            return;
        };
        // Pages are written back through an open that may append only where a mapping was made.
        let page = page && access.read && self.model.links(id) > 0;
        let appends = access.append && !page;
        let known = self.fs.getattr(self.numbers[&id]).await.unwrap();
        self.heard_attr(id, &known);
        let offset = if appends { known.attr.size } else { offset };
        self.fs
            .write(fh, offset, Bytes::from(data.clone()), !appends)
            .await
            .unwrap();
        self.model.files[id].write(offset, &data);
        if self.model.has_twins(id) {
            // Two files to this mount, one on the server: the other shows it once it is there.
            self.fs.flush(fh).await.unwrap();
        }
    }

    pub(super) async fn read(&mut self, open: usize, offset: u64, len: u32) {
        let Some((fh, id, _)) = self.pick_open(open, |access| access.read) else {
            return;
        };
        // Where attributes are not believed any more the kernel asks for them first.
        let known = self.fs.getattr(self.numbers[&id]).await.unwrap();
        self.heard_attr(id, &known);
        let read = self.fs.read(fh, offset, len).await.unwrap();
        let data = &self.model.files[id].data;
        let start = usize::try_from(offset).unwrap().min(data.len());
        let end = data.len().min(start + usize::try_from(len).unwrap());
        assert_eq!(
            read.len(),
            end - start,
            "bytes at {offset} of {}",
            data.len()
        );
        assert!(
            read == data[start..end],
            "other bytes at {offset} of {}",
            data.len()
        );
    }

    pub(super) async fn flush(&mut self, open: usize) {
        let Some((fh, ..)) = self.pick_open(open, |_| true) else {
            return;
        };
        assert_eq!(self.fs.flush(fh).await, Ok(()));
    }

    pub(super) async fn fsync(&mut self, open: usize) {
        let Some((fh, id, _)) = self.pick_open(open, |_| true) else {
            return;
        };
        assert_eq!(self.fs.fsync(fh).await, Ok(()));
        if let Some((path, _)) = self.model.names.iter().find(|(_, its)| **its == id) {
            assert!(
                self.on_server(path).1 == self.model.files[id].data,
                "not there after fsync"
            );
        }
    }

    pub(super) async fn release(&mut self, open: usize) {
        if self.opens.is_empty() {
            return;
        }
        let open = self.opens.swap_remove(open % self.opens.len());
        assert_eq!(self.fs.flush(open.fh).await, Ok(()));
        self.fs.release(open.fh);
    }

    pub(super) async fn grow(&mut self, open: usize, end: u64) {
        let Some((fh, id, _)) = self.pick_open(open, |access| access.write) else {
            return;
        };
        self.fs.grow(self.numbers[&id], fh, end).await.unwrap();
        // Also where nothing grows the file counts as changed.
        let len = self.model.files[id].data.len() as u64;
        self.model.files[id].resize(end.max(len));
    }
}
