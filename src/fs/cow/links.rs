//! How many names a file has on the server, which only a listing of a directory tells.

use bytes::Bytes;

use crate::fs::second_question::parent;
use crate::fs::{Filesystem, Ino};
use crate::sftp::LongName;

impl Filesystem {
    /// Whether a file has names, made by others, that we do not know. A copy that shared its storage
    /// would show what is written by such a name. False where the server does not tell.
    pub(in crate::fs) async fn has_unknown_names(&self, ino: Ino, path: &Bytes) -> bool {
        let (listed, known) = {
            let tables = self.tables();
            let copies = tables
                .groups
                .other_members(path)
                .into_iter()
                .flatten()
                .count();
            let mut names = tables.groups.names_of_member(path);
            names.extend(tables.inodes.paths(ino));
            names.sort_unstable();
            names.dedup();
            // A listing is taken in without the copies.
            let listed = tables
                .inodes
                .links_listed(ino)
                .map(|links| links as usize + copies);
            (listed, names.len() + copies)
        };
        let links = match listed {
            Some(links) => Some(links),
            None => self.links_at(path).await,
        };
        links.is_some_and(|links| links > known)
    }

    /// st_nlink as a listing of the directory shows it; `None` if it does not, the most there can be
    /// if the directory is too large to be looked through.
    pub(super) async fn links_at(&self, path: &Bytes) -> Option<usize> {
        let directory = parent(path);
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        let handle = self.client.opendir(directory).await.ok()?;
        for _ in 0..PAGES_MAX {
            let page = self.client.readdir(&handle).await.ok()??;
            if let Some(entry) = page.iter().find(|entry| entry.name == name) {
                let links = LongName::parse(&entry.longname)?.links;
                return usize::try_from(links).ok();
            }
        }
        // Too many to look through: as if there were others.
        Some(usize::MAX)
    }
}

/// Pages of a listing that are read for a link count: with OpenSSH's 100 entries a page, the names of
/// a large directory.
const PAGES_MAX: usize = 100;
