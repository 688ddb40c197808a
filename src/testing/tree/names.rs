//! Making, moving and removing names.

use std::collections::BTreeMap;

use bytes::Bytes;
use nix::errno::Errno;

use super::lookup::Spot;
use super::{Body, Ino, Result, Tree};
use crate::sftp::FileKind;

impl Tree {
    pub(crate) fn mkdir(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let spot = self.free_spot(path, true)?;
        self.may_change(spot.directory)?;
        self.make_directory(spot.directory, spot.name, mode & 0o7777 & !self.umask);
        Ok(())
    }

    /// A directory that is another filesystem: links and renames into it give EXDEV.
    pub(crate) fn mount(&mut self, path: &[u8]) -> Result<()> {
        self.mkdir(path, 0o755)?;
        self.last_device += 1;
        let (ino, device) = (self.find(path, false)?, self.last_device);
        self.inode(ino).device = device;
        Ok(())
    }

    pub(crate) fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let spot = self.free_spot(path, false)?;
        let body = Body::Symlink(Bytes::copy_from_slice(target));
        self.insert(&spot, FileKind::Symlink.mode() | 0o777, body)?;
        Ok(())
    }

    pub(crate) fn link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let ino = self.find(from, false)?;
        let spot = self.free_spot(to, false)?;
        if self.inodes[&ino].device != self.inodes[&spot.directory].device {
            return Err(Errno::EXDEV);
        }
        if self.is_dir(ino) {
            return Err(Errno::EPERM);
        }
        self.may_change(spot.directory)?;
        self.inode(ino).links += 1;
        self.enter(spot.directory, spot.name, ino);
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &[u8]) -> Result<()> {
        let spot = self.entry(path)?;
        let ino = spot.found()?.ok_or(Errno::ENOENT)?;
        if self.is_dir(ino) {
            return Err(Errno::EISDIR);
        }
        if spot.slash {
            return Err(Errno::ENOTDIR);
        }
        self.may_change(spot.directory)?;
        self.leave(spot.directory, &spot.name);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, path: &[u8]) -> Result<()> {
        let spot = self.entry(path)?;
        let ino = spot.found()?.ok_or(Errno::ENOENT)?;
        match &spot.name[..] {
            b"." => return Err(Errno::EINVAL),
            b".." => return Err(Errno::ENOTEMPTY),
            _ => self.empty_directory(ino)?,
        }
        self.may_change(spot.directory)?;
        self.leave(spot.directory, &spot.name);
        Ok(())
    }

    /// rename(2).
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let source = self.entry(from)?;
        let target = self.entry(to)?;
        if is_dots(&source.name) || is_dots(&target.name) {
            return Err(Errno::EBUSY);
        }
        let ino = source.found()?.ok_or(Errno::ENOENT)?;
        target.found()?;
        if self.inodes[&ino].device != self.inodes[&target.directory].device {
            return Err(Errno::EXDEV);
        }
        if !self.is_dir(ino) && (source.slash || target.slash) {
            return Err(Errno::ENOTDIR);
        }
        if self.is_dir(ino) && self.is_within(target.directory, ino) {
            return Err(Errno::EINVAL);
        }
        if target.ino == Some(ino) {
            return Ok(());
        }
        if let Some(replaced) = target.ino {
            self.replaceable(ino, replaced, source.directory)?;
        }
        self.may_change(source.directory)?;
        self.may_change(target.directory)?;
        if target.ino.is_some() {
            self.leave(target.directory, &target.name);
        }
        // Held, so that it does not end while it has no name.
        self.inode(ino).links += 1;
        self.leave(source.directory, &source.name);
        self.enter(target.directory, target.name, ino);
        Ok(())
    }

    pub(super) fn insert(&mut self, spot: &Spot, mode: u32, body: Body) -> Result<Ino> {
        self.may_change(spot.directory)?;
        let device = self.inodes[&spot.directory].device;
        let ino = self.add(mode, device, 1, body);
        self.enter(spot.directory, spot.name.clone(), ino);
        Ok(ino)
    }

    pub(super) fn make_directory(&mut self, directory: Ino, name: Bytes, mode: u32) -> Ino {
        let body = Body::Directory {
            entries: BTreeMap::new(),
            parent: directory,
        };
        let device = self.inodes[&directory].device;
        let ino = self.add(FileKind::Directory.mode() | mode, device, 2, body);
        self.enter(directory, name, ino);
        ino
    }

    fn replaceable(&self, ino: Ino, replaced: Ino, source_directory: Ino) -> Result<()> {
        match (self.is_dir(ino), self.is_dir(replaced)) {
            (true, false) => Err(Errno::ENOTDIR),
            // What is being moved is in it, so it is not empty.
            (_, true) if self.is_within(source_directory, replaced) => Err(Errno::ENOTEMPTY),
            (false, true) => Err(Errno::EISDIR),
            (true, true) => self.empty_directory(replaced),
            (false, false) => Ok(()),
        }
    }

    fn empty_directory(&self, ino: Ino) -> Result<()> {
        match &self.inodes[&ino].body {
            Body::Directory { entries, .. } if entries.is_empty() => Ok(()),
            Body::Directory { .. } => Err(Errno::ENOTEMPTY),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Whether a directory is another one or below it.
    fn is_within(&self, mut directory: Ino, above: Ino) -> bool {
        loop {
            if directory == above {
                return true;
            }
            match &self.inodes[&directory].body {
                Body::Directory { parent, .. } if *parent != directory => directory = *parent,
                _ => return false,
            }
        }
    }

    /// Gives an inode a name. Its own links are the caller's to count.
    fn enter(&mut self, directory: Ino, name: Bytes, ino: Ino) {
        let now = self.now;
        let child_is_dir = match &mut self.inode(ino).body {
            Body::Directory { parent, .. } => {
                *parent = directory;
                true
            }
            _ => false,
        };
        let inode = self.inode(directory);
        inode.times.1 = now;
        inode.links += u32::from(child_is_dir);
        if let Body::Directory { entries, .. } = &mut inode.body {
            entries.insert(name, ino);
        }
    }

    /// Takes a name away, and with the last one the inode, if nobody has it open.
    fn leave(&mut self, directory: Ino, name: &[u8]) {
        let now = self.now;
        let inode = self.inode(directory);
        inode.times.1 = now;
        let Body::Directory { entries, .. } = &mut inode.body else {
            return;
        };
        let Some(ino) = entries.remove(name) else {
            return;
        };
        let child_is_dir = self.is_dir(ino);
        self.inode(directory).links -= u32::from(child_is_dir);
        self.inode(ino).links -= 1;
        self.forget_if_unused(ino);
    }
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}
