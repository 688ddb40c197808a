//! Names that go, by unlink(2) or rename(2), while what they lead to may be open: it is open on the
//! server at that moment, since nobody can open it by its name afterwards. If the connection is lost
//! before the name is gone, what was open is opened again first.

use std::sync::Arc;

use bytes::Bytes;

use super::cow::Held;
use super::rooms::Inmate;
use super::{Filesystem, Ino};
use crate::client::{Losses, Tried};
use crate::error::Result;

/// What is held while a name goes.
pub(super) type Holding<'a> = (Option<Held>, Inmate<'a>);

impl Filesystem {
    /// Removes a name. Gives its path, and what is to be held until that is taken in.
    ///
    /// # Errors
    /// The server's, with the path.
    pub(super) async fn remove_held(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
    ) -> Result<(Bytes, Result<Holding<'_>>)> {
        let path = self.path_below(parent, name)?;
        let found = self.tables().inodes.find(parent, name);
        let (gates, mut moving) = self.hold_for_loss(found, None).await?;
        let mut losses = Losses::default();
        let tried = Tried::default();
        loop {
            match self.client.try_remove(path.clone(), &tried).await {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                removed => return Ok((path, removed.map(|()| (gates, moving)))),
            }
            drop(moving);
            tokio::time::sleep(losses.rest()).await;
            moving = self.open_for_loss(found).await;
        }
    }

    /// Renames over what leads to `replaced`; gives what is to be held until that is taken in.
    pub(super) async fn rename_held<'a>(
        &'a self,
        mut moving: Inmate<'a>,
        replaced: Option<Ino>,
        (from, to): (&Bytes, &Bytes),
    ) -> (Inmate<'a>, Result<()>) {
        let mut losses = Losses::default();
        let tried = Tried::default();
        loop {
            let renamed = self.client.try_rename(from.clone(), to.clone(), &tried);
            let renamed = renamed.await;
            match &renamed {
                Err(error) if error.is_of_connection() && losses.count(error).is_ok() => {}
                _ => return (moving, renamed),
            }
            drop(moving);
            tokio::time::sleep(losses.rest()).await;
            moving = self.open_for_loss(replaced).await;
        }
    }
}
