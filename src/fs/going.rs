//! Names that go, by unlink(2) or rename(2), while what they lead to may be open: it is open on the
//! server at that moment, since nobody can open it by its name afterwards. If the connection is lost
//! before the name is gone, what was open is opened again first. Meanwhile a directory above may be
//! renamed, so that each try is made with the path of its moment.
//!
//! Not so where nothing is replaced in one step: a rename that is to keep what is there, and any on a
//! server without posix-rename. Who has a file open that is replaced then gets EIO after a loss.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::cow::{Announced, Held};
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
        let found = self.tables().inodes.find(parent, name);
        let (gates, mut moving) = self.hold_for_loss(found, None).await?;
        let mut losses = Losses::default();
        let tried = Tried::default();
        loop {
            let path = || self.path_below(parent, name);
            let remove = |path| self.client.try_remove(path, &tried);
            let (path, removed) = self.at_path(path, remove).await?;
            match removed {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                removed => return Ok((path, removed.map(|()| (gates, moving)))),
            }
            drop(moving);
            tokio::time::sleep(losses.rest()).await;
            moving = self.open_for_loss(found).await;
        }
    }

    /// Removes a directory. Gives its path.
    ///
    /// # Errors
    /// The server's, with the path.
    pub(super) async fn remove_directory(
        &self,
        parent: Ino,
        name: &[u8],
    ) -> Result<(Bytes, Result<()>)> {
        let mut losses = Losses::default();
        let tried = Tried::default();
        loop {
            let path = || self.path_below(parent, name);
            let remove = |path| self.client.try_rmdir(path, &tried);
            match self.at_path(path, remove).await? {
                (_, Err(error)) if error.is_of_connection() => losses.count(&error)?,
                removed => return Ok(removed),
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// A rename, or a link, that is about to be asked for.
    ///
    /// # Errors
    /// Those of writing down what shares storage.
    pub(super) async fn going(&self, (from, to): (Bytes, Bytes)) -> Result<Going> {
        let shares = self.tables().groups.share_storage(&from, &to);
        let announced = self.announce(&from, &to).await?;
        Ok(Going {
            from,
            to,
            shares,
            announced,
        })
    }

    /// Asks by the paths of the moment, which `paths` tells.
    pub(super) async fn at_paths<A: Future<Output = Result<()>>>(
        &self,
        going: &mut Going,
        paths: impl Fn() -> Result<(Bytes, Bytes)>,
        ask: impl Fn((Bytes, Bytes)) -> A,
    ) -> Result<()> {
        let (asked, answer) = self.at_path(paths, ask).await?;
        going.follow(asked);
        answer
    }

    /// Renames over what leads to `replaced`; gives what is to be held until that is taken in. `paths`
    /// tells those of both names.
    pub(super) async fn rename_held<'a>(
        &'a self,
        mut moving: Inmate<'a>,
        replaced: Option<Ino>,
        going: &mut Going,
        paths: impl Fn() -> Result<(Bytes, Bytes)>,
    ) -> (Inmate<'a>, Result<()>) {
        let mut losses = Losses::default();
        let tried = Tried::default();
        loop {
            let rename = async |(from, to)| self.client.try_rename(&from, &to, &tried).await;
            let renamed = self.at_paths(going, &paths, rename).await;
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

/// A rename, or a link, as it is asked for.
pub(super) struct Going {
    pub(super) from: Bytes,
    pub(super) to: Bytes,
    /// Both were names of one file on the server before.
    pub(super) shares: bool,
    pub(super) announced: Announced,
}

impl Going {
    /// Takes the paths that the names have by now. What was announced went with them.
    fn follow(&mut self, (from, to): (Bytes, Bytes)) {
        self.announced.follow((&self.from, &self.to), (&from, &to));
        (self.from, self.to) = (from, to);
    }
}
