//! Names that go, by unlink(2) or rename(2), while what they lead to may be open: it is open on the
//! server at that moment, since nobody can open it by its name afterwards. If the connection is lost
//! before the name is gone, what was open is opened again first.

use std::sync::Arc;

use bytes::Bytes;

use super::cow::Held;
use super::rooms::Inmate;
use super::{Filesystem, Ino};
use crate::client::Losses;
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
        let mut losses = Losses::default();
        let mut was_asked = false;
        loop {
            let path = self.path_below(parent, name)?;
            let found = self.tables().inodes.find(parent, name);
            let held = self.hold_for_loss(found, None).await?;
            match self.client.try_remove(path.clone(), was_asked).await {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                removed => return Ok((path, removed.map(|()| held))),
            }
            drop(held);
            was_asked = true;
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// Renames what leads to `moved` over what leads to `replaced`, which is `held`.
    pub(super) async fn rename_held<'a>(
        self: &'a Arc<Self>,
        mut held: Holding<'a>,
        (moved, replaced): (Option<Ino>, Option<Ino>),
        (from, to): (&Bytes, &Bytes),
    ) -> Result<(Holding<'a>, Result<()>)> {
        let mut losses = Losses::default();
        let mut was_asked = false;
        loop {
            let renamed = self.client.try_rename(from.clone(), to.clone(), was_asked);
            match renamed.await {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                renamed => return Ok((held, renamed)),
            }
            drop(held);
            was_asked = true;
            tokio::time::sleep(losses.rest()).await;
            held = self.hold_for_loss(replaced, moved).await?;
        }
    }
}
