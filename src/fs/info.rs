//! What there is to tell about a file that stat(2) does not: for `sftpfs info`.

use bytes::Bytes;
use nix::errno::Errno;

use super::copies::Origin;
use super::{CopyIsHardlink, Filesystem, Ino};
use crate::error::Result;
use crate::ioctl::{Way, info};

/// A key of [`info`], and its value.
pub(crate) type Fact = (&'static str, Bytes);

impl Filesystem {
    /// Tells about the file of a name, or about the directory itself (`.`).
    ///
    /// # Errors
    /// As lookup's; EINVAL for what is no name.
    pub(crate) async fn info(&self, parent: Ino, name: &[u8]) -> Result<Vec<Fact>> {
        if name.is_empty() || name == b".." || name.contains(&b'/') {
            return Err(Errno::EINVAL.into());
        }
        if name == b"." {
            let mut facts = vec![(info::PATH, self.path(parent)?)];
            if parent == Ino::ROOT {
                facts.extend(self.totals());
            }
            return Ok(facts);
        }
        let entry = self.lookup(parent, name).await?;
        let facts = self
            .path_below(parent, name)
            .map(|path| self.facts_of(entry.ino, path));
        self.forget(entry.ino, 1);
        facts
    }

    fn facts_of(&self, ino: Ino, path: Bytes) -> Vec<Fact> {
        // Another mount may have linked or parted it.
        self.hear();
        let tables = self.tables();
        let members = tables.groups.other_members(&path);
        let names = tables
            .inodes
            .paths(ino)
            .into_iter()
            .filter(|name| *name != path);
        // Further names of the file itself share its storage too.
        let mut others: Vec<Bytes> = members.iter().flatten().cloned().chain(names).collect();
        let is_original = tables.groups.is_original(&path);
        drop(tables);
        others.sort_unstable();
        others.dedup();
        let is_one_inode = self.config().copy_is_hardlink == CopyIsHardlink::Shared;
        let content = match self.copies.origin(ino) {
            _ if !members.is_empty() && !is_original => "linked",
            Some(Origin::Copied(Way::Linked)) if is_one_inode => "linked",
            Some(Origin::Copied(Way::Copied)) => "copied on the server",
            Some(Origin::Copied(Way::Streamed)) => "streamed",
            // Or it was linked, and parted since.
            Some(Origin::Written | Origin::Copied(Way::Linked)) => "written",
            None => "unknown",
        };
        let mut facts = vec![
            (info::PATH, path),
            (info::CONTENT, Bytes::from_static(content.as_bytes())),
        ];
        facts.extend(others.into_iter().map(|other| (info::SHARES, other)));
        facts
    }

    fn totals(&self) -> Vec<Fact> {
        let totals = self.copies.totals();
        let ahead = self.tables().walk.tally;
        let number = |number: u64| Bytes::from(number.to_string());
        vec![
            (info::LINKED, number(totals.linked)),
            (info::COPIED, number(totals.copied)),
            (info::STREAMED, number(totals.streamed)),
            (info::BYTES_SAVED, number(totals.bytes_saved)),
            (info::DIRECTORIES_USED, number(ahead.directories_used)),
            (info::DIRECTORIES_WASTED, number(ahead.directories_wasted)),
            (info::FILES_USED, number(ahead.files_used)),
            (info::FILES_WASTED, number(ahead.files_wasted)),
        ]
    }
}
