//! Making symbolic links, whose arguments servers take in two orders.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Client, done};
use crate::error::Result;
use crate::sftp::{Attrs, FileKind, Request, StatusCode};

impl Client {
    /// Makes a symbolic link at `link` that says `target`, and looks at it in the same round trip: what
    /// that gave is the result.
    ///
    /// OpenSSH takes SYMLINK's arguments as (target, link), the reverse of the draft (OpenSSH
    /// PROTOCOL, section 4.1), and most servers do as it does. Where the link is not there after
    /// an OK, the server took them as the draft has them: what it made is undone, and from then
    /// on the other order is used. The same where `target` exists and the server refuses. Until
    /// then such a server refuses targets where nothing can be made.
    pub(crate) async fn symlink(&self, target: Bytes, link: Bytes) -> Result<Result<Attrs>> {
        let order = self.symlink_order();
        let (first, second) = match order {
            SymlinkOrder::Draft => (link.clone(), target.clone()),
            SymlinkOrder::OpenSsh | SymlinkOrder::Unknown => (target.clone(), link.clone()),
        };
        let made = done(self.call(Request::Symlink { first, second }));
        let seen = self.lstat(link.clone());
        let (made, seen) = (made.await, seen.await);
        // What else is there is not what was made.
        let is_link = |seen: &Attrs| seen.kind() == Some(FileKind::Symlink);
        if order != SymlinkOrder::Unknown {
            return made.map(|()| seen);
        }
        if seen.as_ref().is_ok_and(is_link) {
            if made.is_ok() {
                self.set_symlink_order(SymlinkOrder::OpenSsh);
            }
            return made.map(|()| seen);
        }
        if !self.took_draft_order(&made, &target, &link).await? {
            return made.map(|()| seen);
        }
        let again = Request::Symlink {
            first: link.clone(),
            second: target,
        };
        let remade = done(self.call(again)).await;
        if remade.is_err() {
            // What was refused first says more.
            return made.and(remade).map(|()| seen);
        }
        self.set_symlink_order(SymlinkOrder::Draft);
        Ok(self.lstat(link).await)
    }

    /// Whether SYMLINK in OpenSSH's order, answered with `made` and without a link at `link`, may
    /// have been taken in the draft's order. What it made then is undone.
    async fn took_draft_order(
        &self,
        made: &Result<()>,
        target: &Bytes,
        link: &Bytes,
    ) -> Result<bool> {
        match made {
            Ok(()) => {
                let wrong = self.readlink(target.clone()).await;
                let is_wrong = wrong.is_ok_and(|says| says == link);
                if is_wrong {
                    self.remove(target.clone()).await?;
                }
                Ok(is_wrong)
            }
            // A link at `target` was refused because of what is there. In OpenSSH's order the
            // next try is refused for the same reason, so that it does no harm.
            Err(error)
                if error.is_refused_with(StatusCode::FAILURE)
                    || error.is_refused_with(StatusCode::FILE_ALREADY_EXISTS) =>
            {
                Ok(self.lstat(target.clone()).await.is_ok())
            }
            Err(_) => Ok(false),
        }
    }

    fn symlink_order(&self) -> SymlinkOrder {
        if self.features.extensions.symlink_order.as_deref() == Some(b"linkpath-targetpath") {
            return SymlinkOrder::Draft;
        }
        match self.symlink_order.load(Ordering::Relaxed) {
            order if order == SymlinkOrder::OpenSsh as u8 => SymlinkOrder::OpenSsh,
            order if order == SymlinkOrder::Draft as u8 => SymlinkOrder::Draft,
            _ => SymlinkOrder::Unknown,
        }
    }

    fn set_symlink_order(&self, order: SymlinkOrder) {
        self.symlink_order.store(order as u8, Ordering::Relaxed);
    }
}

/// The order of SYMLINK's arguments, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SymlinkOrder {
    Unknown,
    OpenSsh,
    Draft,
}
