//! With `copy_is_hardlink`, many files "copied" by making hard links, in two round trips: see
//! [`super::copy_entries`], which copies those that are left.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use nix::errno::Errno;

use super::attributes::may_by_mode;
use super::copy_entries::{Job, Outcome, READ};
use super::cow::{Joining, Sharing};
use super::link_whole::Linked;
use super::may_link::Facts;
use super::second_question::Refused;
use super::{CopyIsHardlink, Filesystem, Ino};
use crate::error::{Error, Operation, Result};
use crate::ioctl::Way;
use crate::sftp::{Attrs, FileKind, StatusCode};

/// A name that may become a link.
struct Candidate<'a> {
    /// Its place among the names.
    at: usize,
    name: &'a [u8],
    from: Bytes,
    to: Bytes,
    /// The source, held by one count more.
    ino: Ino,
    size: u64,
}

impl Filesystem {
    /// Makes links where that is wanted: an outcome for each name, or none where it is to be
    /// copied.
    pub(super) async fn link_entries(self: &Arc<Self>, job: &Job<'_>) -> Vec<Option<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; job.wanted.names.len()];
        let wanted = self.links_wanted();
        if wanted == CopyIsHardlink::Off {
            return outcomes;
        }
        let mut candidates = Vec::new();
        for (outcome, candidate) in outcomes.iter_mut().zip(self.candidates(job).await) {
            match candidate {
                Ok(candidate) => candidates.extend(candidate),
                Err(why) => *outcome = Some(Err(why)),
            }
        }
        if wanted == CopyIsHardlink::Cow {
            self.drop_named_elsewhere(job, &mut candidates).await;
        }
        let linked = match wanted {
            CopyIsHardlink::Shared => {
                let mut sent = Vec::with_capacity(candidates.len());
                for candidate in &candidates {
                    sent.push(self.link_one_inode(job, candidate));
                }
                join_all(sent).await
            }
            _ => self.link_apart_all(job, &candidates).await,
        };
        for (candidate, linked) in candidates.iter().zip(linked) {
            self.forget(candidate.ino, 1);
            if let Some(outcome) = outcomes.get_mut(candidate.at) {
                *outcome = linked;
            }
        }
        outcomes
    }

    /// Looks at all, in one round trip: which may be linked, and which are there already.
    async fn candidates<'a>(&self, job: &'a Job<'_>) -> Vec<Result<Option<Candidate<'a>>, Errno>> {
        let asked = self.now();
        let mut looks = Vec::with_capacity(job.wanted.names.len());
        for (at, name) in job.wanted.names.iter().enumerate() {
            // Sent here, before any is waited for.
            let looked = self.paths_of(job, name).map(|(from, to)| {
                let looks = (
                    self.client.lstat(from.clone()),
                    self.client.lstat(to.clone()),
                );
                (from, to, looks)
            });
            looks.push(async move {
                let (from, to, (source, target)) = looked?;
                let (source, target) = (source.await, target.await);
                match target {
                    Ok(_) => return Err(Errno::EEXIST),
                    Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => {}
                    Err(_) => return Ok(None),
                }
                let Ok(source) = source else { return Ok(None) };
                if !self.may_link(job, &source) {
                    return Ok(None);
                }
                let size = source.size.unwrap_or(0);
                let entered = self.enter(job.wanted.source, name, &source, asked);
                let held = entered.ok().map(|entry| entry.ino);
                Ok(held.map(|ino| Candidate {
                    at,
                    name,
                    from,
                    to,
                    ino,
                    size,
                }))
            });
        }
        join_all(looks).await
    }

    /// Names that others made would show what is written to a copy. Who copies a directory has
    /// listed it, which tells how many names its files have; else it is listed now.
    async fn drop_named_elsewhere(&self, job: &Job<'_>, candidates: &mut Vec<Candidate<'_>>) {
        let is_listed =
            |candidate: &Candidate<'_>| self.tables().inodes.links_listed(candidate.ino).is_some();
        if !candidates.iter().all(is_listed)
            && let Ok(listing) = self.opendir(job.wanted.source).await
        {
            let mut from = Some(0);
            // Page by page, until all are seen.
            while let Some(start) = from.take() {
                let listed = self.readdir(listing, start, true, |entry| {
                    from = Some(entry.next);
                    false
                });
                let listed = listed.await;
                log::debug!("listed for the number of names: {listed:?}");
                if candidates.iter().all(is_listed) || start > LOOKED_THROUGH_MAX {
                    break;
                }
            }
            self.releasedir(listing);
        }
        candidates.retain(|candidate| {
            let is_elsewhere = self.is_named_elsewhere(candidate.ino, &candidate.from);
            if is_elsewhere {
                self.forget(candidate.ino, 1);
            }
            !is_elsewhere
        });
    }

    fn may_link(&self, job: &Job<'_>, source: &Attrs) -> bool {
        let Ok(attr) = self.translator.local(source) else {
            return false;
        };
        let may_read = !self.config.default_permissions || may_by_mode(&attr, job.caller, READ);
        // As with a copy of one file: nobody but root makes copies that are not his.
        let maker = self.translator.maker(job.caller.uid);
        let facts = Facts {
            source_size: attr.size,
            are_regular: attr.kind == FileKind::Regular,
            has_set_id: attr.permissions & 0o6000 != 0,
            is_of_another: maker != 0 && source.owner.is_none_or(|(user, _)| user != maker),
            ..Facts::INTO_NEW
        };
        facts.is_whole_file() && may_read
    }

    /// One server file, two files in the mount: as `link_whole.rs` does it for one.
    async fn link_apart_all(
        self: &Arc<Self>,
        job: &Job<'_>,
        candidates: &[Candidate<'_>],
    ) -> Vec<Option<Outcome>> {
        let files: Vec<Ino> = candidates.iter().map(|candidate| candidate.ino).collect();
        let closed = self.close_gates(&files).await;
        let joined = self.join_those(candidates).await;
        for candidate in candidates {
            // What was taken over before it was known that the two would share.
            if let Some(shared) = self.handles.shared(candidate.ino) {
                shared.written().await;
            }
        }
        let mut sent = Vec::with_capacity(candidates.len());
        for (candidate, joined) in candidates.iter().zip(joined) {
            // Sent here, before any is waited for.
            let linked = joined.then(|| self.link_and_see(candidate));
            sent.push(async move { self.settle_link(job, candidate, linked?.await).await });
        }
        let outcomes = join_all(sent).await;
        drop(closed);
        outcomes
    }

    /// Writes down that these are about to share their storage; for which of them that is so.
    async fn join_those(&self, candidates: &[Candidate<'_>]) -> Vec<bool> {
        let mut fresh = Vec::new();
        let mut joining = Vec::new();
        for candidate in candidates {
            // A name that shares storage is taken by somebody who is making it just now, or was,
            // when a copy that finds it free will say so.
            let is_fresh = !self.tables().groups.shares(&candidate.to);
            fresh.push(is_fresh);
            joining.extend(is_fresh.then(|| Joining {
                files: vec![candidate.ino],
                source: candidate.from.clone(),
                copy: candidate.to.clone(),
            }));
        }
        if joining.is_empty() {
            return fresh;
        }
        let joined = match self.join_all(&joining).await {
            Ok(joined) => joined,
            Err(error) => {
                log::debug!("copied instead of linked: {error}");
                let left =
                    |joining: &Joining| self.sharing_changed(&Sharing::Left(joining.copy.clone()));
                joining.iter().for_each(left);
                return vec![false; candidates.len()];
            }
        };
        let mut joined = joined.into_iter();
        let of_each = fresh
            .into_iter()
            .map(|is_fresh| is_fresh && joined.next() == Some(true));
        let of_each: Vec<bool> = of_each.collect();
        for (candidate, _) in candidates
            .iter()
            .zip(&of_each)
            .filter(|(_, joined)| **joined)
        {
            self.other_names_share(candidate.ino, &candidate.from);
        }
        of_each
    }

    /// Sends the link and looks at both names behind it.
    fn link_and_see(
        &self,
        candidate: &Candidate<'_>,
    ) -> impl Future<Output = Linked> + Send + use<> {
        let done = self
            .client
            .hardlink(candidate.from.clone(), candidate.to.clone());
        let old = self.client.lstat(candidate.from.clone());
        let new = self.client.lstat(candidate.to.clone());
        async move {
            Linked {
                done: done.await,
                old: old.await,
                new: new.await,
            }
        }
    }

    async fn settle_link(
        &self,
        job: &Job<'_>,
        candidate: &Candidate<'_>,
        linked: Linked,
    ) -> Option<Outcome> {
        let (from, to) = (candidate.from.clone(), candidate.to.clone());
        match linked.done {
            Ok(()) => {}
            // The two may be linked.
            Err(error) if error.may_be_done() => return Some(Err(Errno::EIO)),
            Err(error) => {
                self.sharing_changed(&Sharing::Left(to.clone()));
                log::debug!("copied instead of linked: {error}");
                let why = self
                    .explain(Operation::Link, error, Refused::Link { from, to })
                    .await;
                return (why == Errno::EEXIST).then_some(Err(why));
            }
        }
        let attrs = match linked.new {
            Ok(attrs) => attrs,
            Err(error) if error.is_refused_with(StatusCode::NO_SUCH_FILE) => {
                log::debug!("the server said that it made a hard link, and did not");
                self.sharing_changed(&Sharing::Left(to));
                return None;
            }
            Err(_) => return Some(Err(Errno::EIO)),
        };
        self.hear();
        let shares = self.tables().groups.share_storage(&from, &to);
        if !shares
            && let Err(error) = self
                .join((candidate.ino, &from), (candidate.ino, &to))
                .await
        {
            // Another mount has just parted the two, before they were linked.
            log::error!(
                "\"{}\" is a hard link and not known as such: {error}",
                to.escape_ascii()
            );
        }
        log::info!(
            "\"{}\" is a link of \"{}\"",
            to.escape_ascii(),
            from.escape_ascii()
        );
        let size = attrs.size.unwrap_or(candidate.size);
        {
            let mut tables = self.tables();
            // A number that an earlier file of that name had is not told that file's story.
            if let Some(old) = tables.gone(job.target, candidate.name) {
                tables.attrs.forget(old);
            }
            tables.made(job.target, candidate.name, FileKind::Regular);
        }
        let asked = self.now();
        if let Ok(entry) = self.enter(job.target, candidate.name, &attrs, asked) {
            self.made_copy(job.target, candidate.name, entry.ino, (Way::Linked, size));
        }
        Some(Ok((Way::Linked, size)))
    }

    /// `copy_is_hardlink=shared`: one more name, as by link(2).
    async fn link_one_inode(&self, job: &Job<'_>, candidate: &Candidate<'_>) -> Option<Outcome> {
        match self.link(candidate.ino, job.target, candidate.name).await {
            Ok(entry) => {
                let way = (Way::Linked, candidate.size);
                self.made_copy(job.target, candidate.name, entry.ino, way);
                Some(Ok(way))
            }
            Err(Error::Errno(Errno::EEXIST)) => Some(Err(Errno::EEXIST)),
            Err(_) => None,
        }
    }
}

/// Entries of a directory that are listed to learn how many names its files have.
const LOOKED_THROUGH_MAX: u64 = 8192;
