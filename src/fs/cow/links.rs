//! How many names a file has on the server, which only a listing of a directory tells.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::fs::second_question::parent;
use crate::fs::{Filesystem, Ino};
use crate::sftp::LongName;

impl Filesystem {
    /// Whether a file has names, made by others, that we do not know. A copy that shared its storage
    /// would show what is written by such a name. False where the server does not tell.
    pub(in crate::fs) async fn has_unknown_names(&self, ino: Ino, path: &Bytes) -> bool {
        let (listed, known) = self.names_listed_and_known(ino, path);
        let links = match listed {
            Some(links) => Some(links),
            None => self.links_at(path).await,
        };
        links.is_some_and(|links| links > known)
    }

    /// The same for a file that should have been listed; true if it was not.
    pub(in crate::fs) fn is_named_elsewhere(&self, ino: Ino, path: &Bytes) -> bool {
        let (listed, known) = self.names_listed_and_known(ino, path);
        // limits@openssh.com stands for "lists st_nlink": OpenSSH and AsyncSSH advertise it, and both
        // do. Where nobody tells, every file would seem to have other names.
        let tells = self.client.features().extensions.limits;
        listed.map_or(tells, |links| links > known)
    }

    /// The link count of the last listing, if there was one, and how many names we know.
    fn names_listed_and_known(&self, ino: Ino, path: &Bytes) -> (Option<usize>, usize) {
        let tables = self.tables();
        let copies = tables.groups.other_members(path);
        let copies = copies.into_iter().flatten().count();
        let mut names = tables.groups.names_of_member(path);
        names.extend(tables.inodes.paths(ino));
        names.sort_unstable();
        names.dedup();
        // A listing is taken in without the copies.
        let listed = tables.inodes.links_listed(ino);
        let listed = listed.map(|links| (links as usize).saturating_add(copies));
        (listed, names.len() + copies)
    }

    /// st_nlink as a listing of the directory shows it; `None` if it does not, the most there can be
    /// if the directory is too large to be looked through: OpenSSH gives 100 entries a page.
    pub(super) async fn links_at(&self, path: &Bytes) -> Option<usize> {
        let directory = parent(path);
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        let handle = self.client.opendir(directory).await.ok()?;
        for at_once in [1, 4, 16, 64] {
            // Asked for one behind the other, in one round trip.
            let pages: Vec<_> = (0..at_once).map(|_| self.client.readdir(&handle)).collect();
            for page in join_all(pages).await {
                let page = page.ok()??;
                if let Some(entry) = page.iter().find(|entry| entry.name == name) {
                    let links = LongName::parse(&entry.longname)?.links;
                    return usize::try_from(links).ok();
                }
            }
        }
        // Too many to look through: as if there were others.
        Some(usize::MAX)
    }
}
