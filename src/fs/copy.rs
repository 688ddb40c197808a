//! copy_file_range(2): a copy inside the mount is made by the server.
//!
//! In this order: a hard link, where the user wants that and a whole file is copied; copy-data by
//! the server; a pipelined copy through here, which needs nothing of the server. Each answers after
//! [`SLICE`] with what is done so far, as copy_file_range(2) may, so that a program that copies 100
//! GB can be interrupted. Never ENOSYS, which would end it for the whole mount, nor EXDEV or
//! EOPNOTSUPP, upon which the kernel would copy, 64 KiB a round trip.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;

use super::cow::Sharing;
use super::handles::{Fh, OpenFile};
use super::names::may_be_one_file;
use super::notices::Notice;
use super::second_question::Refused;
use super::{CopyIsHardlink, Filesystem, Ino, Symlinks};
use crate::client::{CopyData, CopyEnd, Span};
use crate::clock;
use crate::error::{Error, Operation, Result};
use crate::ioctl::Way;
use crate::sftp::{Attrs, FileKind};

/// What is known of a copy before it is made; all that decides about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    /// Where it begins, in the source and in the target.
    offsets: (u64, u64),
    len: u64,
    source_size: u64,
    target_size: u64,
    /// Names that are known to lead to the target.
    target_links: u32,
    /// Both are regular files.
    are_regular: bool,
    /// Set-user-ID or set-group-ID: a program that copies without `-p` takes these bits away.
    has_set_id: bool,
    /// The source belongs to somebody else than whoever made the target, who could not write to his
    /// own copy then; root can.
    is_of_another: bool,
    /// The target was there before, with another mode or owner than the source's, which a program
    /// that copies without `-p` leaves as they are.
    has_ways_of_its_own: bool,
}

/// What came of a link.
pub(super) struct Linked {
    /// Whether the server has made it. One that answers OK and does nothing fails here too, as
    /// there is nothing to rename then.
    pub(super) done: Result<()>,
    /// The source and the target, seen after it. Somebody may be writing to them.
    pub(super) old: Result<Attrs>,
    pub(super) new: Result<Attrs>,
}

impl Facts {
    /// Whether a program copies a whole file into an empty one that has no other name. The kernel
    /// asks for [`LEN_MAX`] bytes at most in one call.
    const fn is_whole_file(&self) -> bool {
        let whole = if self.source_size < LEN_MAX {
            self.source_size
        } else {
            LEN_MAX
        };
        self.offsets.0 == 0
            && self.offsets.1 == 0
            && self.source_size > 0
            && self.len >= whole
            && self.target_size == 0
            && self.target_links <= 1
            && self.are_regular
            && !self.has_set_id
            && !self.is_of_another
            && !self.has_ways_of_its_own
    }
}

impl Filesystem {
    /// Copies up to `len` bytes from one open file to another. Fewer means that there are no more,
    /// or that time was up.
    ///
    /// # Errors
    /// As read(2) and write(2), if nothing was copied.
    pub(crate) async fn copy_range(
        self: &Arc<Self>,
        (from, from_offset): (Fh, u64),
        (to, to_offset): (Fh, u64),
        len: u64,
    ) -> Result<u64> {
        let (source, target) = (self.open_file(from)?, self.open_file(to)?);
        source.shared.written().await;
        target.shared.written().await;
        target.take_error()?;
        let offsets = (from_offset, to_offset);
        let size = self.getattr(source.shared.ino).await?.attr.size;
        if from_offset >= size {
            return Ok(0);
        }
        let len = len.min(size - from_offset);
        if let Some(done) = self.is_there_already(&source, &target, offsets, len) {
            return Ok(done);
        }
        if from_offset == 0
            && to_offset == 0
            && let Some(size) = self
                .link_whole(source.shared.ino, target.shared.ino, len)
                .await
        {
            return Ok(size.min(len));
        }
        self.copy_slice(&source, &target, offsets, len).await
    }

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

    /// Bytes that need no copying, since both names share their storage: the rest of a file that
    /// was linked, of which the kernel can ask for 4 GiB at a time.
    fn is_there_already(
        &self,
        source: &OpenFile,
        target: &OpenFile,
        (from, to): (u64, u64),
        len: u64,
    ) -> Option<u64> {
        let (source, target) = (source.shared.ino, target.shared.ino);
        let tables = self.tables();
        let one = tables.inodes.path(source)?;
        let other = tables.inodes.path(target)?;
        let is_shared = source == target || tables.groups.share_storage(&one, &other);
        (is_shared && from == to && from > 0).then_some(len)
    }

    /// Makes the target a hard link of the source, if that is wanted and a whole file is copied.
    /// Gives its size; `None` where it is to be copied.
    async fn link_whole(self: &Arc<Self>, source: Ino, target: Ino, len: u64) -> Option<u64> {
        let has = &self.client.features().extensions;
        let is_wanted = match self.config.copy_is_hardlink {
            CopyIsHardlink::Off => false,
            CopyIsHardlink::Cow => self.cow.can_link(),
            CopyIsHardlink::Shared => true,
        };
        // Where the server follows symbolic links, a file has more paths than we know.
        let is_known_by_path = self.config.symlinks != Symlinks::Follow;
        let is_possible = has.hardlink && has.posix_rename && is_known_by_path;
        if !is_wanted || !is_possible || source == target {
            return None;
        }
        let closed = self.close_gates(&[source, target]).await;
        let (from, to) = {
            let tables = self.tables();
            (tables.inodes.path(source)?, tables.inodes.path(target)?)
        };
        let is_apart = self.config.copy_is_hardlink != CopyIsHardlink::Shared;
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
        let linked = match self.config.copy_is_hardlink {
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
        let names = self.tables().inodes.paths(source.0);
        for new in names.into_iter().filter(|name| name != source.1) {
            let existing = source.1.clone();
            self.sharing_changed(&Sharing::Linked { existing, new });
        }
        // What was taken over before it was known that the two would share.
        if let Some(shared) = self.handles.shared(source.0) {
            shared.written().await;
        }
        let linked = self.link_and_look(source.1, target.1).await;
        match linked.done {
            Ok(()) => {}
            // It tells nothing: the two may be linked.
            Err(error @ Error::Lost(_)) => return Err(error),
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
        Linked {
            done: replaced,
            old,
            new,
        }
    }

    /// Copies for a while.
    async fn copy_slice(
        self: &Arc<Self>,
        source: &Arc<OpenFile>,
        target: &Arc<OpenFile>,
        offsets: (u64, u64),
        len: u64,
    ) -> Result<u64> {
        let (from, to) = (source.shared.ino, target.shared.ino);
        let _passes = self.pass_as_owner(&[from, to], to, u64::MAX).await?;
        let source_end = CopyEnd {
            handle: self.handle(source).await?,
            path: self.path(from).ok(),
        };
        let target_end = CopyEnd {
            handle: self.full_handle(target).await?,
            path: self.path(to).ok(),
        };
        self.tables().changed(to);
        let until = clock::now() + SLICE;
        let go_on = |_| clock::now() < until;
        let copied = self
            .copy_bytes(&source_end, &target_end, offsets, len, go_on)
            .await;
        let end = copied
            .as_ref()
            .map_or(0, |(copied, _)| offsets.1.saturating_add(*copied));
        self.note_written(&target.shared, end);
        target.shared.content_changed();
        self.tell_aliases(to);
        match copied {
            Ok((copied, way)) => {
                let size = self.tables().attrs.last(from).map_or(0, |attr| attr.size);
                let is_end = offsets.0.saturating_add(copied) >= size;
                self.copies.note(to, way, copied, is_end);
                Ok(copied)
            }
            Err(error) => {
                let path = self.path(to).unwrap_or_else(|_| self.root());
                log::warn!("copying to \"{}\": {error}", path.escape_ascii());
                let len = len.min(ROOM_ASKED_FOR);
                Err(self
                    .explain(Operation::Write, error, Refused::Write { path, len })
                    .await
                    .into())
            }
        }
    }

    /// Copies by the server, and what it does not do through here. The way is that of most.
    pub(super) async fn copy_bytes(
        &self,
        source: &CopyEnd,
        target: &CopyEnd,
        (from, to): (u64, u64),
        len: u64,
        mut go_on: impl FnMut(u64) -> bool + Send,
    ) -> Result<(u64, Way)> {
        let span = |done: u64| Span {
            source_offset: from + done,
            target_offset: to + done,
            len: len - done,
        };
        let done = match self
            .client
            .copy_data(source, target, span(0), &mut go_on)
            .await?
        {
            CopyData::Copied(copied) => return Ok((copied, Way::Copied)),
            CopyData::Unable(copied) => copied.min(len),
        };
        let streamed = self
            .client
            .stream(&source.handle, &target.handle, span(done), |more| {
                go_on(done + more)
            })
            .await;
        match streamed {
            Ok(streamed) if streamed < done => Ok((done + streamed, Way::Copied)),
            Ok(streamed) => Ok((done + streamed, Way::Streamed)),
            Err(_) if done > 0 => Ok((done, Way::Copied)),
            Err(error) => Err(error),
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

/// How long one call works: short enough for Ctrl-C, long against a round trip.
const SLICE: Duration = Duration::from_millis(500);
/// What the kernel asks for at most: MAX_RW_COUNT is 2 GiB for read(2), but copy_file_range(2) is
/// cut to what fits FUSE's 32-bit answer, in whole pages.
const LEN_MAX: u64 = 0xffff_f000;
/// How much room a full disk is asked for: some free blocks are no room for a large copy.
const ROOM_ASKED_FOR: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Facts = Facts {
        offsets: (0, 0),
        len: 10,
        source_size: 10,
        target_size: 0,
        target_links: 1,
        are_regular: true,
        has_set_id: false,
        is_of_another: false,
        has_ways_of_its_own: false,
    };

    #[test]
    fn a_whole_file_into_an_empty_one_may_be_a_link() {
        assert!(WHOLE.is_whole_file());
        assert!(
            Facts {
                len: u64::MAX,
                ..WHOLE
            }
            .is_whole_file()
        );
    }

    #[test]
    fn a_file_of_more_than_the_kernel_asks_for_is_whole_with_all_that_it_asks_for() {
        let large = Facts {
            source_size: 9 << 30,
            len: LEN_MAX,
            ..WHOLE
        };
        assert!(large.is_whole_file());
        assert!(
            !Facts {
                len: LEN_MAX - 1,
                ..large
            }
            .is_whole_file()
        );
    }

    #[test]
    fn all_else_is_copied() {
        for facts in [
            Facts { len: 9, ..WHOLE },
            Facts {
                offsets: (1, 0),
                ..WHOLE
            },
            Facts {
                offsets: (0, 1),
                ..WHOLE
            },
            Facts {
                source_size: 0,
                ..WHOLE
            },
            Facts {
                target_size: 1,
                ..WHOLE
            },
            Facts {
                target_links: 2,
                ..WHOLE
            },
            Facts {
                are_regular: false,
                ..WHOLE
            },
            Facts {
                has_set_id: true,
                ..WHOLE
            },
            Facts {
                is_of_another: true,
                ..WHOLE
            },
            Facts {
                has_ways_of_its_own: true,
                ..WHOLE
            },
        ] {
            assert!(!facts.is_whole_file(), "{facts:?}");
        }
    }
}
