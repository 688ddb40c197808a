//! Gives a file that shares its storage a server file of its own: a copy, made by the server under a
//! temporary name and renamed over the file's name. Who has the file open follows it.
//!
//! At every moment the name leads to the old server file or to the new one, whole. What fails or
//! is given up half way leaves the old one, and a temporary name at most, which the journal knows.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::join_all;
use nix::errno::Errno;

use super::{Sharing, temporary_beside};
use crate::client::{CopyEnd, Handle};
use crate::error::{Error, Operation, Result};
use crate::fs::files::open_flags;
use crate::fs::handles::{OpenFile, Serving};
use crate::fs::interrupt::interrupted;
use crate::fs::names::may_be_one_file;
use crate::fs::second_question::{Refused, parent};
use crate::fs::{Filesystem, Ino};
use crate::sftp::{Attrs, OpenFlags, StatusCode};

/// Which names are to lead to another server file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parting {
    /// The file that must not share its storage any more.
    path: Bytes,
    /// All names that get the new server file.
    movers: Vec<Bytes>,
    /// Whether `movers` are the others, and the file itself stays where it is.
    others_move: bool,
    /// Names of others, to be looked at.
    others: Vec<Bytes>,
    /// The inodes of all of these that are known here.
    files: Vec<Ino>,
}

impl Filesystem {
    /// Gives a file its storage for itself; `keep` bytes of its content are needed. Goes on in a
    /// task, and is given up when nobody waits for it any more.
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
        let Some(planned) = self.plan_parting(ino).await else {
            return Ok(());
        };
        let closed = self.close_gates(&planned.files).await;
        // Others may have been at work before the gates were closed; then once more.
        if self.plan_parting(ino).await.as_ref() != Some(&planned) {
            return Ok(());
        }
        if !self.may_share(&planned).await? {
            self.sharing_changed(&Sharing::Left(planned.path));
            return Ok(());
        }
        self.part(&planned, keep, interested).await?;
        let path = planned.path.clone();
        self.sharing_changed(&match planned.others_move {
            true => Sharing::OthersLeft(path),
            false => Sharing::Left(path),
        });
        drop(closed);
        let shown = planned.path.escape_ascii();
        log::info!("\"{shown}\" no longer shares its storage with its copies");
        Ok(())
    }

    /// Who gets the new server file: the file itself, or all others if it has further names, made
    /// by link(2), that must go on leading to one file.
    async fn plan_parting(&self, ino: Ino) -> Option<Parting> {
        let (path, names, others, is_original) = {
            let tables = self.tables();
            let mut paths = tables.inodes.paths(ino).into_iter();
            let path = paths.find(|path| tables.groups.shares(path))?;
            let names = tables.groups.names_of_member(&path);
            let others: Vec<Bytes> = tables
                .groups
                .other_members(&path)
                .into_iter()
                .flatten()
                .collect();
            let is_original = tables.groups.is_original(&path);
            (path, names, others, is_original)
        };
        let known = names.len() + others.len();
        let has_further = names.len() > 1
            || is_original
                && self
                    .links_at(&path)
                    .await
                    .is_some_and(|links| links > known);
        let movers = if has_further { others.clone() } else { names };
        let tables = self.tables();
        let mut files: Vec<Ino> = movers
            .iter()
            .filter_map(|path| tables.inodes.at_path(path))
            .collect();
        files.push(ino);
        files.sort_unstable();
        files.dedup();
        Some(Parting {
            path,
            movers,
            others_move: has_further,
            others,
            files,
        })
    }

    /// Whether any of the others may still be the same server file. Somebody may have replaced them
    /// there.
    ///
    /// # Errors
    /// If the file itself cannot be looked at.
    async fn may_share(&self, parting: &Parting) -> Result<bool> {
        let this = self.client.lstat(parting.path.clone());
        let others = parting.others.iter().take(LOOKS_MAX);
        let others: Vec<_> = others.map(|path| self.client.lstat(path.clone())).collect();
        let this = match this.await {
            Ok(this) => this,
            Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut is_shared = parting.others.len() > LOOKS_MAX;
        for other in join_all(others).await {
            is_shared |= match other {
                Ok(other) => may_be_one_file(&this, &other),
                Err(error) => !error.is_refused_with(StatusCode::NO_SUCH_FILE),
            };
        }
        Ok(is_shared)
    }

    async fn part(&self, parting: &Parting, keep: u64, interested: &Weak<()>) -> Result<()> {
        let Some((first, further)) = parting.movers.split_first() else {
            return Ok(());
        };
        let keep = if parting.others_move { u64::MAX } else { keep };
        let opens: Vec<Arc<OpenFile>> = {
            let tables = self.tables();
            let files = parting
                .movers
                .iter()
                .filter_map(|path| tables.inodes.at_path(path));
            let files: Vec<Ino> = files.collect();
            drop(tables);
            files
                .into_iter()
                .flat_map(|ino| self.handles.files(ino))
                .collect()
        };
        let temporary = temporary_beside(first);
        self.temporary(&temporary, false);
        let made = self
            .make(&parting.path, &temporary, keep, &opens, interested)
            .await;
        let (mut temporary, mut first) = (temporary, first.clone());
        let renamed = match made {
            Ok(servings) => match self.rename_made(&mut temporary, &mut first).await {
                Ok(()) => Ok(servings),
                Err(error) => Err(self.refused_parting(&first, 0, error).await),
            },
            Err(error) => Err(error),
        };
        let servings = match renamed {
            Ok(servings) => servings,
            Err(error) => {
                if self.client.remove(temporary.clone()).await.is_ok() {
                    self.temporary(&temporary, true);
                }
                return Err(error);
            }
        };
        self.temporary(&temporary, true);
        let linked = self.link_over(&first, further).await;
        for (file, serving) in opens.iter().zip(servings) {
            file.serve(serving);
            file.shared.content_changed();
        }
        let mut tables = self.tables();
        parting
            .files
            .iter()
            .for_each(|ino| tables.attrs.changed(*ino));
        drop(tables);
        linked
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
            let last = temporary
                .iter()
                .rposition(|byte| *byte == b'/')
                .unwrap_or(0);
            *temporary = [parent(&now), temporary.slice(last..)].concat().into();
            self.temporary(temporary, false);
            *name = now;
        }
    }

    /// Makes the new server file under its temporary name, in all that SFTP knows as the old one
    /// is, and opens it for all who have the old one open.
    async fn make(
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
        let len = attrs.size.unwrap_or(0).min(keep);
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
        let owner = client.fsetstat(target, with(attrs.owner, None, None));
        let rest = client.fsetstat(target, with(None, attrs.permissions, attrs.times));
        if let Err(error) = owner.await {
            // As after `cp`: only root gives files away.
            log::debug!("a copy's owner stays the login user: {error}");
        }
        rest.await
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

    async fn refused_parting(&self, path: &Bytes, len: u64, error: Error) -> Error {
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

/// Other names that are looked at, or replaced, in one round trip.
const LOOKS_MAX: usize = 64;
