//! Opens that ask the server nothing (`-o nocto`, as nfs(5) has it): of a file that is to be read and
//! whose attributes are still believed. It is opened on the server when data is first needed, which
//! may be never; see [`Filesystem::handle`].
//!
//! Before we remove or replace the name of such a file it is opened there, as is every open file that
//! no handle serves (`hold_for_loss`, in [`cow`](super::cow)). What others do meanwhile is not seen: that
//! is what the option asks for.

use super::files::Opened;
use super::handles::Access;
use super::{Attr, Filesystem, Ino};
use crate::clock;
use crate::sftp::FileKind;

impl Filesystem {
    /// Answers an open of a file that is to be read and not changed, if `nocto` allows that.
    pub(super) fn open_lazily(&self, ino: Ino, access: Access) -> Option<Opened> {
        if !self.config.nocto || access.write || access.append {
            return None;
        }
        let attr = self.believed(ino)?;
        if attr.kind != FileKind::Regular || !self.lets_us_read(&attr) {
            return None;
        }
        self.tables().inodes.opened(ino);
        let fh = self.handles.add_unserved(ino, access);
        let (now, wall) = (clock::now(), clock::wall());
        let are_good = self.tables().attrs.opened_unasked(ino, now, wall);
        let keep_pages = self.config.kernel_cache || are_good;
        Some(Opened { fh, keep_pages })
    }

    fn believed(&self, ino: Ino) -> Option<Attr> {
        if let Some(known) = self.known(ino) {
            return Some(known.attr);
        }
        let (attr, asked, sighting) = self.listed_attr(ino)?;
        Some(self.learn_listed(ino, attr, asked, sighting).attr)
    }

    /// Whether the server will let the user that we are there read a file, as far as its mode tells:
    /// nobody is to be told of a refusal by read(2) that was open(2)'s to tell.
    fn lets_us_read(&self, attr: &Attr) -> bool {
        let everybody = 0o444;
        let owner = 0o400;
        let is_ours = self.translator.is_shown_as_ours(attr.uid);
        attr.permissions & everybody == everybody || (is_ours && attr.permissions & owner != 0)
    }
}
