//! What paths mean: names, dots, slashes and symbolic links, step by step as Linux takes them.

use bytes::Bytes;
use nix::errno::Errno;

use super::{Body, Ino, NAME_MAX, PATH_MAX, ROOT, Result, SEARCH, SYMLINKS_MAX, Tree};

/// Where a path leads: the directory and the name there, and what that name means so far.
pub(super) struct Spot {
    pub(super) directory: Ino,
    pub(super) name: Bytes,
    pub(super) ino: Option<Ino>,
    /// The path ends in a slash: only a directory may be meant.
    pub(super) slash: bool,
}

impl Spot {
    /// What is there. The last name on a path is looked at last, so its length is too.
    pub(super) fn found(&self) -> Result<Option<Ino>> {
        if self.name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(self.ino)
    }
}

impl Tree {
    /// What a path means. A symbolic link at its end is followed or not.
    pub(crate) fn find(&self, path: &[u8], follow: bool) -> Result<Ino> {
        self.walk(self.home, path, follow, &mut 0)?
            .found()?
            .ok_or(Errno::ENOENT)
    }

    /// As OpenSSH's own realpath, which works on the text: `..` takes the last name away whatever
    /// it means, and the last name may be missing if no slash follows it.
    pub(crate) fn realpath(&self, path: &[u8]) -> Result<Bytes> {
        let mut left = path.to_vec();
        let mut done = match path.first() {
            Some(b'/') => Vec::new(),
            Some(_) => self.path_of(self.home).to_vec(),
            None => return Err(Errno::ENOENT),
        };
        if done == b"/" {
            done.clear();
        }
        let mut hops = 0;
        while !left.is_empty() {
            let end = left.iter().position(|byte| *byte == b'/');
            let name = left[..end.unwrap_or(left.len())].to_vec();
            left.drain(..end.map_or(left.len(), |end| end + 1));
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    done.truncate(parent_len(&done));
                    continue;
                }
                name => done = [&done[..], b"/", name].concat(),
            }
            let ino = match self.find(&done, false) {
                Err(Errno::ENOENT) if end.is_none() => return Ok(done.into()),
                found => found?,
            };
            let Body::Symlink(target) = &self.inodes[&ino].body else {
                continue;
            };
            hops += 1;
            if hops > SYMLINKS_MAX {
                return Err(Errno::ELOOP);
            }
            done.truncate(if target.starts_with(b"/") {
                0
            } else {
                parent_len(&done)
            });
            let slash: &[u8] = if end.is_some() { b"/" } else { b"" };
            left = [target, slash, &left].concat();
        }
        Ok(if done.is_empty() {
            Bytes::from_static(b"/")
        } else {
            done.into()
        })
    }

    pub(super) fn walk(
        &self,
        from: Ino,
        path: &[u8],
        follow: bool,
        hops: &mut u32,
    ) -> Result<Spot> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut directory = if path.starts_with(b"/") { ROOT } else { from };
        let mut names = names(path).collect::<Vec<_>>();
        let last = names.pop().unwrap_or(b".");
        for name in names {
            let step = self.walk(directory, name, true, hops)?;
            directory = step.found()?.ok_or(Errno::ENOENT)?;
        }
        let ino = self.child(directory, last)?;
        let slash = path.ends_with(b"/");
        let mut spot = Spot {
            directory,
            name: Bytes::copy_from_slice(last),
            ino,
            slash,
        };
        if let Some(Body::Symlink(target)) = ino.map(|ino| &self.inodes[&ino].body)
            && (follow || slash)
        {
            *hops += 1;
            if *hops > SYMLINKS_MAX {
                return Err(Errno::ELOOP);
            }
            spot = self.walk(directory, target, true, hops)?;
        }
        if slash && spot.ino.is_some_and(|ino| !self.is_dir(ino)) {
            return Err(Errno::ENOTDIR);
        }
        Ok(spot)
    }

    /// The last name on a path itself, for changing what it names. A slash behind it does not lead
    /// through a symbolic link here.
    pub(super) fn entry(&self, path: &[u8]) -> Result<Spot> {
        let end = path
            .iter()
            .rposition(|byte| *byte != b'/')
            .map_or(path.len(), |last| last + 1);
        let (bare, slashes) = path.split_at(end);
        let spot = self.walk(self.home, bare, false, &mut 0)?;
        Ok(Spot {
            slash: !slashes.is_empty(),
            ..spot
        })
    }

    /// Where something new may be made.
    pub(super) fn free_spot(&self, path: &[u8], for_directory: bool) -> Result<Spot> {
        let spot = self.entry(path)?;
        if spot.found()?.is_some() {
            return Err(Errno::EEXIST);
        }
        if spot.slash && !for_directory {
            return Err(Errno::ENOENT);
        }
        Ok(spot)
    }

    fn child(&self, directory: Ino, name: &[u8]) -> Result<Option<Ino>> {
        let inode = &self.inodes[&directory];
        let Body::Directory { entries, parent } = &inode.body else {
            return Err(Errno::ENOTDIR);
        };
        self.allow(inode, SEARCH)?;
        match name {
            b"." => Ok(Some(directory)),
            b".." => Ok(Some(*parent)),
            _ => Ok(entries.get(name).copied()),
        }
    }

    fn path_of(&self, mut directory: Ino) -> Bytes {
        let mut path = Vec::new();
        while let Body::Directory { parent, .. } = &self.inodes[&directory].body
            && *parent != directory
            && let Body::Directory { entries, .. } = &self.inodes[parent].body
        {
            let Some((name, _)) = entries.iter().find(|(_, ino)| **ino == directory) else {
                break;
            };
            path = [b"/", &name[..], &path].concat();
            directory = *parent;
        }
        if path.is_empty() {
            Bytes::from_static(b"/")
        } else {
            path.into()
        }
    }
}

pub(super) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}

/// How long a path is without its last name.
fn parent_len(path: &[u8]) -> usize {
    path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}
