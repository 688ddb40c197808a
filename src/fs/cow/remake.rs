//! Makes the server file that takes the place of one that is shared: the same content, mode, owner
//! and times under a temporary name, open for all who have the old one open.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use nix::errno::Errno;

use crate::client::{CopyEnd, Handle};
use crate::error::{Operation, Result};
use crate::fs::Filesystem;
use crate::fs::files::open_flags;
use crate::fs::handles::{OpenFile, Serving};
use crate::fs::second_question::Refused;
use crate::sftp::{Attrs, OpenFlags};

impl Filesystem {
    /// Makes the new server file under its temporary name, in all that SFTP knows as the old one
    /// is, and opens it for all who have the old one open.
    pub(super) async fn make(
        &self,
        old: &Bytes,
        new: &Bytes,
        keep: u64,
        opens: &[Arc<OpenFile>],
        interested: &Weak<()>,
    ) -> Result<Vec<Serving>> {
        let private = Attrs {
            permissions: Some(0o600),
            ..Attrs::default()
        };
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::EXCL;
        let target = self.client.open(new.clone(), flags, private);
        let attrs = self.client.lstat(old.clone());
        let (target, attrs) = (target.await, attrs.await?);
        let target = match target {
            Ok(target) => target,
            Err(error) => return Err(self.refused_parting(new, 0, error).await),
        };
        let size = attrs.size.unwrap_or(0);
        if keep < size {
            self.may_write(old).await?;
        }
        let len = size.min(keep);
        if len > 0 {
            let copied = self.copy_over(old, (&target, new), len, interested).await;
            match copied {
                Ok(copied) if copied == len => {}
                Ok(_) if interested.strong_count() == 0 => return Err(Errno::EINTR.into()),
                // Shorter than it was a moment ago: somebody else is at it.
                Ok(_) => return Err(Errno::EIO.into()),
                Err(error) => return Err(self.refused_parting(new, len, error).await),
            }
        }
        // Opened before it gets a mode that may not let us.
        let mut servings = Vec::with_capacity(opens.len());
        for open in opens {
            servings.push(self.serve_by(open, new).await?);
        }
        self.dress(&target, &attrs).await?;
        // The old content was on the server's disk; the new one is, before it takes its place.
        self.client.fsync(&target).await?;
        Ok(servings)
    }

    async fn copy_over(
        &self,
        old: &Bytes,
        (target, new): (&Handle, &Bytes),
        len: u64,
        interested: &Weak<()>,
    ) -> Result<u64> {
        let source = self
            .client
            .open(old.clone(), OpenFlags::READ, Attrs::default());
        let source = CopyEnd {
            handle: source.await?,
            path: Some(old.clone()),
        };
        let target = CopyEnd {
            handle: target.clone(),
            path: Some(new.clone()),
        };
        let go_on = |_| interested.strong_count() > 0;
        let mut copied = 0;
        // After an error of which the bytes before it are told, the next call meets it again.
        while copied < len && go_on(copied) {
            let (offsets, left) = ((copied, copied), len - copied);
            let (more, _) = self
                .copy_bytes(&source, &target, offsets, left, go_on)
                .await?;
            if more == 0 {
                break;
            }
            copied += more;
        }
        Ok(copied)
    }

    /// Owner, mode and times, in this order: chown(2) takes set-ID bits away, and a write moves the
    /// times.
    async fn dress(&self, target: &Handle, attrs: &Attrs) -> Result<()> {
        let client = &self.client;
        let with = |owner, permissions: Option<u32>, times| Attrs {
            owner,
            permissions: permissions.map(|mode| mode & 0o7777),
            times,
            ..Attrs::default()
        };
        let mut mode = attrs.permissions;
        let owner = client.fsetstat(target, with(attrs.owner, None, None));
        if let Err(error) = owner.await {
            // As after `cp`: only root gives files away, and nobody makes another's program his own.
            log::debug!("a copy's owner stays the login user: {error}");
            mode = mode.map(|mode| mode & !0o6000);
        }
        client.fsetstat(target, with(None, mode, attrs.times)).await
    }

    async fn serve_by(&self, open: &OpenFile, path: &Bytes) -> Result<Serving> {
        let open_with = |flags| self.client.open(path.clone(), flags, Attrs::default());
        let pages = match open.pages() {
            Some(_) => Some(open_with(OpenFlags::WRITE).await?),
            None => None,
        };
        Ok(Serving::full(
            open_with(open_flags(open.access)).await?,
            pages,
        ))
    }

    /// What is to be cut short must be a file that the login user may write, as truncate(2) has it:
    /// the copy of a file that he may not write would be his.
    async fn may_write(&self, path: &Bytes) -> Result<()> {
        let opened = self
            .client
            .open(path.clone(), OpenFlags::WRITE, Attrs::default());
        match opened.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let (path, write) = (path.clone(), true);
                let refused = Refused::Open { path, write };
                Err(self.explain(Operation::Open, error, refused).await.into())
            }
        }
    }
}
