//! With `copy_is_hardlink`, a whole file "copied" by a hard link: a copy in `copy.rs` that may be
//! one, and FICLONE. Nothing is copied here; what may not be a link is left as it was.

use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::cow::Sharing;
use super::handles::Fh;
use super::may_link::{self, Facts};
use super::names::may_be_one_file;
use super::notices::Notice;
use super::{CopyIsHardlink, Filesystem, Ino};
use crate::error::{Error, Result};
use crate::ioctl::Way;
use crate::sftp::{Attrs, FileKind};

/// What came of a link.
pub(super) struct Linked {
    /// Whether the server has made it. One that answers OK and does nothing fails here too, as
    /// there is nothing to rename then.
    pub(super) done: Result<()>,
    /// The source and the target, seen after it. Somebody may be writing to them.
    pub(super) old: Result<Attrs>,
    pub(super) new: Result<Attrs>,
}

impl Filesystem {
    /// FICLONE and FICLONERANGE (ioctl_ficlonerange(2)) of a whole file.
    ///
    /// # Errors
    /// EOPNOTSUPP where the two would not share their storage after it.
    pub(crate) async fn clone_range(
        self: &Arc<Self>,
        source: Ino,
        to: Fh,
        (from_offset, to_offset): (u64, u64),
        len: u64,
    ) -> Result<()> {
        let target = self.open_file(to)?;
        if !target.access.write {
            return Err(Errno::EBADF.into());
        }
        target.shared.written().await;
        target.take_error()?;
        if let Some(shared) = self.handles.shared(source) {
            shared.written().await;
        }
        if (from_offset, to_offset) != (0, 0) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let len = if len == 0 { u64::MAX } else { len };
        match self.link_whole(source, target.shared.ino, len).await {
            Some(_) => Ok(()),
            None => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// How copies become hard links in this mount.
    pub(super) fn links_wanted(&self) -> CopyIsHardlink {
        let server = &self.client.features().extensions;
        may_link::wanted(&self.config, server, self.cow.can_link())
    }

    /// Makes the target a hard link of the source, if that is wanted and a whole file is copied.
    /// Gives its size; `None` where it is to be copied.
    pub(super) async fn link_whole(
        self: &Arc<Self>,
        source: Ino,
        target: Ino,
        len: u64,
    ) -> Option<u64> {
        let wanted = self.links_wanted();
        let can_replace = self.client.features().extensions.posix_rename;
        if wanted == CopyIsHardlink::Off || !can_replace || source == target {
            return None;
        }
        let closed = self.close_gates(&[source, target]).await;
        let (from, to) = {
            let tables = self.tables();
            (tables.inodes.path(source)?, tables.inodes.path(target)?)
        };
        let is_apart = wanted != CopyIsHardlink::Shared;
        let (facts, is_named_elsewhere, is_seen_elsewhere) = tokio::join!(
            self.facts((source, &from), (target, &to), len),
            async { is_apart && self.has_unknown_names(source, &from).await },
            // A link would replace only the one name.
            self.has_unknown_names(target, &to),
        );
        let facts = facts?;
        let is_linked_elsewhere = is_named_elsewhere || is_seen_elsewhere;
        if !facts.is_whole_file() || is_linked_elsewhere || !self.is_own(target) {
            return None;
        }
        let linked = match wanted {
            CopyIsHardlink::Shared => self.link_shared((source, &from), (target, &to)).await,
            _ => self.link_apart((source, &from), (target, &to)).await,
        };
        drop(closed);
        match linked {
            Ok(attrs) => {
                let size = attrs.size.unwrap_or(facts.source_size);
                self.copies.note(target, Way::Linked, size, true);
                log::info!(
                    "\"{}\" is a link of \"{}\"",
                    to.escape_ascii(),
                    from.escape_ascii()
                );
                Some(size)
            }
            Err(error) => {
                log::debug!("copied instead of linked: {error}");
                None
            }
        }
    }

    async fn facts(
        &self,
        (source, from): (Ino, &Bytes),
        (target, to): (Ino, &Bytes),
        len: u64,
    ) -> Option<Facts> {
        let looked = (
            self.client.lstat(from.clone()),
            self.client.lstat(to.clone()),
        );
        let known = self.ask_attributes(target).await.ok()?;
        let (attrs, target_attrs) = (looked.0.await.ok()?, looked.1.await.ok()?);
        let user = |attrs: &Attrs| attrs.owner.map(|(user, _)| user);
        let is_new = self.handles.any_file(target, |file| file.is_new).is_some();
        // Not what a symbolic link leads to: it would be replaced itself.
        let is_regular = |attrs: &Attrs| attrs.kind() == Some(FileKind::Regular);
        let sizes = (target_attrs.size?, known.attr.size);
        // What is unwritten would not be in the link: a writer is at work on the source.
        let is_settled = self
            .handles
            .shared(source)
            .is_none_or(|shared| shared.is_written());
        Some(Facts {
            offsets: (0, 0),
            len,
            source_size: attrs.size?,
            target_size: sizes.0.max(sizes.1),
            target_links: known.links,
            are_regular: is_settled && is_regular(&attrs) && is_regular(&target_attrs),
            has_set_id: attrs.permissions.is_some_and(|mode| mode & 0o6000 != 0),
            has_ways_of_its_own: !is_new
                && (attrs.permissions, attrs.owner)
                    != (target_attrs.permissions, target_attrs.owner),
            is_of_another: user(&target_attrs) != Some(0) && user(&target_attrs) != user(&attrs),
        })
    }

    /// One server file, two files in the mount.
    async fn link_apart(&self, source: (Ino, &Bytes), target: (Ino, &Bytes)) -> Result<Attrs> {
        self.join(source, target).await?;
        self.other_names_share(source.0, source.1);
        // What was taken over before it was known that the two would share.
        if let Some(shared) = self.handles.shared(source.0) {
            shared.written().await;
        }
        let linked = self.link_and_look(source.1, target.1).await;
        match linked.done {
            Ok(()) => {}
            // The two may be linked.
            Err(error) if error.may_be_done() => return Err(error),
            Err(error) => {
                self.sharing_changed(&Sharing::Left(target.1.clone()));
                return Err(error);
            }
        }
        self.lose(target.0);
        self.hear();
        let shares = self.tables().groups.share_storage(source.1, target.1);
        if !shares {
            // Another mount found the source changed before it was linked, and parted the two.
            self.join(source, target).await?;
        }
        let (old, new) = (linked.old?, linked.new?);
        if !may_be_one_file(&old, &new) {
            return Err(Error::setup("the source is being written to"));
        }
        self.refresh(target.0, &new);
        Ok(new)
    }

    /// Links, and looks at both names behind it, in one round trip.
    pub(super) async fn link_and_look(&self, from: &Bytes, to: &Bytes) -> Linked {
        let client = &self.client;
        // The first is polled first, and so sent.
        let (replaced, old, new) = tokio::join!(
            biased;
            self.replace_by_link(from, to),
            async { client.lstat(from.clone()).await },
            async { client.lstat(to.clone()).await },
        );
        if let (Ok(()), Ok(before), Ok(after)) = (&replaced, &old, &new)
            && !may_be_one_file(before, after)
        {
            // The looks may have passed it where the connection was lost.
            let (old, new) = (client.lstat(from.clone()), client.lstat(to.clone()));
            return Linked {
                done: replaced,
                old: old.await,
                new: new.await,
            };
        }
        Linked {
            done: replaced,
            old,
            new,
        }
    }

    /// Takes in what was just seen of a file that was changed, and tells the kernel.
    pub(super) fn refresh(&self, ino: Ino, attrs: &Attrs) {
        self.tables().changed(ino);
        let asked = self.now();
        if let Err(error) = self.learn(ino, attrs, asked) {
            log::debug!("{error}");
        }
        self.notices.tell(Notice::Attributes(ino));
    }
}
