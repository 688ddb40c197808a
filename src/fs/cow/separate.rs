//! Gives a file that shares its storage a server file of its own: a copy, made by the server under a
//! temporary name and renamed over the file's name. Who has the file open follows it.
//!
//! At every moment the name leads to the old server file or to the new one, whole. What fails or
//! is given up half way leaves the old one, and a temporary name at most, which the journal knows.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::join_all;
use nix::errno::Errno;

use super::parting::{LOOKS_MAX, Parting};
use super::{Sharing, temporary_beside};
use crate::client::Losses;
use crate::error::{Error, Operation, Result};
use crate::fs::handles::{OpenFile, Serving};
use crate::fs::interrupt::interrupted;
use crate::fs::second_question::{Refused, parent};
use crate::fs::{Filesystem, Ino};
use crate::sftp::StatusCode;

/// A new server file under its temporary name.
struct Made {
    temporary: Bytes,
    /// The opens that are to follow, and by what they are served then.
    opens: Vec<(Arc<OpenFile>, Serving)>,
    /// The file of the first name that gets it.
    mover: Option<Ino>,
}

impl Filesystem {
    /// Gives a file its storage for itself; `keep` bytes of its content are needed. Goes on in a
    /// task, and is given up when nobody waits for it any more. Who finds others at work returns,
    /// and is to be asked again while the file shares.
    ///
    /// # Errors
    /// What the server said. Then nothing has changed.
    pub(super) async fn separate(self: &Arc<Self>, ino: Ino, keep: u64) -> Result<()> {
        let interest = Arc::new(());
        let (filesystem, interested) = (Arc::clone(self), Arc::downgrade(&interest));
        let task =
            tokio::spawn(async move { filesystem.separate_for(ino, keep, &interested).await });
        let result = tokio::select! {
            // A panic in there.
            result = task => result.unwrap_or(Err(Error::Errno(Errno::EIO))),
            () = interrupted() => Err(Error::Errno(Errno::EINTR)),
        };
        drop(interest);
        result
    }

    async fn separate_for(&self, ino: Ino, keep: u64, interested: &Weak<()>) -> Result<()> {
        let mut losses = Losses::default();
        loop {
            match self.separate_once(ino, keep, interested).await {
                // Nothing has changed, and the server is there again.
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                done => return done,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    async fn separate_once(&self, ino: Ino, keep: u64, interested: &Weak<()>) -> Result<()> {
        let must_stay = self.must_stay(ino).await;
        let Some(parting) = self.plan_parting(ino, must_stay) else {
            return Ok(());
        };
        let _closed = self.close_gates(&parting.files).await;
        if self.plan_parting(ino, must_stay).as_ref() != Some(&parting) {
            return Ok(());
        }
        let looked = self.look_at_group(&parting.path, &parting.others).await?;
        let Some(looked) = looked else {
            self.lost(Some(ino), &parting.path);
            return Ok(());
        };
        let is_alone = looked.sharing.is_empty();
        if is_alone && !self.has_several_names(&parting).await {
            // It may be this one that was replaced, and what has it open still has the storage that
            // the others share.
            self.lost(Some(ino), &parting.path);
            return Ok(());
        }
        for path in looked.apart.iter().filter(|_| !is_alone) {
            let other = self.tables().inodes.at_path(path);
            self.lost(other, path);
        }
        let movers = match parting.others_move && !is_alone {
            true => looked.sharing,
            false => parting.names.clone(),
        };
        let parted = self.part(&parting, movers, keep, interested).await;
        if parted.is_err() && self.tables().inodes.at_path(&parting.path) != Some(ino) {
            // A directory above was renamed meanwhile; whoever asked for this asks again.
            return Ok(());
        }
        parted
    }

    /// Whether the server counts more names of a file than we know as its own: it shares with
    /// somebody, be it others than we think.
    async fn has_several_names(&self, parting: &Parting) -> bool {
        let links = self.links_at(&parting.path).await;
        !parting.others_move && links.is_some_and(|links| links > parting.names.len())
    }

    /// Makes the new server file and puts it in its place.
    async fn part(
        &self,
        parting: &Parting,
        movers: Vec<Bytes>,
        keep: u64,
        interested: &Weak<()>,
    ) -> Result<()> {
        let keep = if parting.others_move { u64::MAX } else { keep };
        let Some(first) = movers.first() else {
            return Ok(());
        };
        let mover = self.tables().inodes.at_path(first);
        let temporary = temporary_beside(first);
        self.temporary(&temporary, false);
        let opens = self.opens_of(&movers);
        let made = self
            .make(&parting.path, &temporary, keep, &opens, interested)
            .await;
        let put = match made {
            Ok(servings) => {
                let opens = opens.into_iter().zip(servings).collect();
                let made = Made {
                    temporary,
                    opens,
                    mover,
                };
                self.put(parting, movers, made).await
            }
            Err(error) => {
                self.discard(&temporary, mover).await;
                Err(error)
            }
        };
        if put.is_ok() {
            let mut tables = self.tables();
            for ino in &parting.files {
                tables.changed(*ino);
                tables.relinked();
            }
        }
        put
    }

    fn opens_of(&self, names: &[Bytes]) -> Vec<Arc<OpenFile>> {
        let files: Vec<Ino> = {
            let tables = self.tables();
            let files = names.iter().filter_map(|path| tables.inodes.at_path(path));
            files.collect()
        };
        let opens = files.into_iter().flat_map(|ino| self.handles.files(ino));
        opens.collect()
    }

    /// Puts the new server file in the place of the old one, for all names that still are of the
    /// group: meanwhile another mount, or another parting here, may have been at them.
    async fn put(&self, parting: &Parting, mut movers: Vec<Bytes>, made: Made) -> Result<()> {
        let _renaming = self.cow.renaming.lock().await;
        self.hear();
        {
            let groups = &self.tables().groups;
            movers.retain(|name| groups.share_storage(&parting.path, name));
        }
        let Made {
            mut temporary,
            opens,
            mover,
        } = made;
        let Some((first, further)) = movers.split_first() else {
            self.discard(&temporary, mover).await;
            return Ok(());
        };
        let mut first = first.clone();
        if let Err(error) = self.rename_made(&mut temporary, &mut first).await {
            let error = self.refused_parting(&first, 0, error).await;
            self.discard(&temporary, mover).await;
            return Err(error);
        }
        self.temporary(&temporary, true);
        let linked = self.link_over(&first, further).await;
        let late = self.opens_of(&movers);
        let is_late =
            |file: &&Arc<OpenFile>| !opens.iter().any(|(open, _)| Arc::ptr_eq(open, file));
        for file in late.iter().filter(is_late) {
            file.lose();
            file.shared.is_another();
        }
        for (file, serving) in opens {
            file.serve(serving);
            file.shared.is_another();
            file.shared.content_changed();
        }
        linked?;
        let path = parting.path.clone();
        let shown = path.escape_ascii().to_string();
        self.sharing_changed(&match parting.others_move {
            true => Sharing::OthersLeft(path),
            false => Sharing::Left(path),
        });
        log::info!("\"{shown}\" no longer shares its storage with its copies");
        Ok(())
    }

    /// Removes what was made for nothing, beside the file `mover`: its directory may have been
    /// renamed since.
    async fn discard(&self, temporary: &Bytes, mover: Option<Ino>) {
        let mut removed = self.client.remove(temporary.clone()).await;
        if let Err(error) = &removed
            && error.is_refused_with(StatusCode::NO_SUCH_FILE)
            && let Some(now) = mover.and_then(|ino| self.tables().inodes.path(ino))
            && parent(&now) != parent(temporary)
        {
            removed = self.client.remove(moved_beside(temporary, &now)).await;
        }
        let is_gone = match removed {
            Ok(()) => true,
            Err(error) => error.is_refused_with(StatusCode::NO_SUCH_FILE),
        };
        if is_gone {
            self.temporary(temporary, true);
        }
    }

    /// Renames the new server file over the old one, also if a directory above was renamed while it
    /// was made, and both with it.
    async fn rename_made(&self, temporary: &mut Bytes, name: &mut Bytes) -> Result<()> {
        let ino = self.tables().inodes.at_path(name);
        loop {
            let error = match self.client.rename(temporary.clone(), name.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let now = ino.and_then(|ino| self.tables().inodes.path(ino));
            let Some(now) = now.filter(|now| parent(now) != parent(name)) else {
                return Err(error);
            };
            *temporary = moved_beside(temporary, &now);
            self.temporary(temporary, false);
            *name = now;
        }
    }

    /// Makes further names lead to where `first` does.
    async fn link_over(&self, first: &Bytes, further: &[Bytes]) -> Result<()> {
        for names in further.chunks(LOOKS_MAX) {
            let sent = names.iter().map(|name| self.replace_by_link(first, name));
            for done in join_all(sent).await {
                done?;
            }
        }
        Ok(())
    }

    /// Makes `name` one more name of the server file at `first`, in place of what it led to.
    pub(in crate::fs) async fn replace_by_link(&self, first: &Bytes, name: &Bytes) -> Result<()> {
        let temporary = temporary_beside(name);
        self.temporary(&temporary, false);
        let client = &self.client;
        // One round trip. A rename whose link failed finds nothing to rename; one of two names of
        // one file does nothing, and the temporary name would stay.
        let linked = client.hardlink(first.clone(), temporary.clone());
        let renamed = client.rename_over(temporary.clone(), name.clone());
        let removed = client.remove(temporary.clone());
        let (linked, renamed, removed) = (linked.await, renamed.await, removed.await);
        let is_gone = match &removed {
            Ok(()) => true,
            Err(error) => error.is_refused_with(StatusCode::NO_SUCH_FILE),
        };
        if is_gone {
            self.temporary(&temporary, true);
        }
        linked.and(renamed)
    }

    pub(super) async fn refused_parting(&self, path: &Bytes, len: u64, error: Error) -> Error {
        if error.is_of_connection() {
            return error;
        }
        log::warn!(
            "no server file of its own for \"{}\": {error}",
            path.escape_ascii()
        );
        let (path, len) = (parent(path), len.max(1));
        self.explain(Operation::Write, error, Refused::Write { path, len })
            .await
            .into()
    }
}

/// The path of a temporary file whose directory is now that of `file`.
fn moved_beside(temporary: &Bytes, file: &Bytes) -> Bytes {
    let last = temporary
        .iter()
        .rposition(|byte| *byte == b'/')
        .unwrap_or(0);
    [parent(file), temporary.slice(last..)].concat().into()
}
