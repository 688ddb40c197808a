//! What somebody else does to the files on the server meanwhile.

use super::kernel::{Kernel, at_home};
use super::ops::Op;
use super::reference::{File, Id};
use crate::sftp::FileKind;

impl Kernel {
    pub(super) async fn act_foreign(&mut self, op: &Op) {
        // Writes on their way and writes of others have no order that could be known.
        self.flush_all().await;
        // SFTP tells changes by whole seconds: others are never in the same one.
        self.server.tree(|tree| tree.now += 1);
        match *op {
            Op::ForeignWrite { path, len, fill } => self.others_write(path, &vec![fill; len]),
            Op::ForeignPut { dir, name, len } => {
                let path = self.spot(dir, name);
                if self.model.at(&path).is_none() {
                    self.server
                        .tree(|tree| tree.put(&at_home(&path), &vec![7; len]));
                    let mut file = File::new(FileKind::Regular, 0o644, (0, 0));
                    file.data = vec![7; len];
                    self.model.add(path, file);
                }
            }
            Op::ForeignMkdir { dir, name } => {
                let path = self.spot(dir, name);
                if self.model.at(&path).is_none() {
                    self.server
                        .tree(|tree| tree.mkdir(&at_home(&path), 0o755))
                        .unwrap();
                    let file = File::new(FileKind::Directory, 0o755, (0, 0));
                    self.model.add(path, file);
                }
            }
            Op::ForeignRemove { path } => {
                let Some((path, id)) = self.pick(path) else {
                    return;
                };
                if self.is_only_there(id) {
                    self.server
                        .tree(|tree| tree.unlink(&at_home(&path)))
                        .unwrap();
                    self.model.names.remove(&path);
                }
            }
            Op::ForeignRename { path, dir, name } => {
                let (Some((from, id)), to) = (self.pick(path), self.spot(dir, name)) else {
                    return;
                };
                let shares = self.sharers(&from).len() > 1;
                if self.is_only_there(id) && self.model.at(&to).is_none() && !shares {
                    let renamed = self
                        .server
                        .tree(|tree| tree.rename(&at_home(&from), &at_home(&to)));
                    renamed.unwrap();
                    // Nobody can tell that it is the same file, not even its copies.
                    let file = self.model.files[id].clone();
                    self.model.names.remove(&from);
                    self.model.add(to, file);
                }
            }
            Op::ForeignChmod { path, mode } => {
                let Some((path, id)) = self.pick(path) else {
                    return;
                };
                if self.model.files[id].kind != FileKind::Symlink {
                    let sharers = self.sharers(&path);
                    let path = at_home(&path);
                    self.server.tree(|tree| {
                        let ino = tree.find(&path, false).unwrap();
                        tree.chmod(ino, mode.into()).unwrap();
                    });
                    for id in sharers {
                        self.model.files[id].mode = mode;
                    }
                }
            }
            _ => unreachable!("all others are ours"),
        }
    }

    fn others_write(&mut self, path: usize, data: &[u8]) {
        let Some((path, id)) = self.pick(path) else {
            return;
        };
        if self.model.files[id].kind == FileKind::Regular {
            let sharers = self.sharers(&path);
            self.server.tree(|tree| tree.put(&at_home(&path), data));
            for id in sharers {
                let file = &mut self.model.files[id];
                (file.data, file.mtime) = (data.to_vec(), None);
            }
        }
    }

    /// The files that are one on the server: whoever works there changes all of them.
    fn sharers(&self, path: &[u8]) -> Vec<Id> {
        let names = self.model.names.iter();
        self.server.tree(|tree| {
            let ino = tree.find(&at_home(path), false);
            names
                .filter(|(path, _)| tree.find(&at_home(path), false) == ino)
                .map(|(_, id)| *id)
                .collect()
        })
    }

    /// No directory, one name, and not open: what is there instead later is another file.
    fn is_only_there(&self, id: Id) -> bool {
        let is_open = self.opens.iter().any(|open| open.id == id);
        !self.model.is_dir(id) && !is_open && self.model.links(id) == 1
    }
}
