//! Does what [`walk`](super::walk) says: lists directories and fetches small files before a program
//! asks for them, and gives them to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::config::Symlinks;
use super::listings::Me;
use super::survive::surviving;
use super::walk::{Ahead, Fetch, Fetched, Job, Why};
use super::{Filesystem, Ino, same_content};
use crate::client::Handle;
use crate::clock;
use crate::error::Result;
use crate::sftp::{Attrs, FileKind, OpenFlags};

impl Filesystem {
    /// A program lists a directory.
    pub(super) fn visited(&self, ino: Ino, has_waited: bool) {
        let mut tables = self.tables();
        let tables = &mut *tables;
        let now = clock::now();
        tables
            .walk
            .visited(ino, has_waited, &mut tables.inodes, &mut tables.dirs, now);
    }

    /// A directory's listing is remembered now.
    pub(super) fn is_listed(&self, ino: Ino) {
        let mut tables = self.tables();
        let tables = &mut *tables;
        let now = clock::now();
        tables
            .walk
            .is_listed(ino, &tables.inodes, &mut tables.dirs, now);
    }

    /// Asks for what programs will want next. Nobody waits.
    pub(super) fn go_ahead(&self) {
        if self.config.attr_timeout.is_zero() || self.config.entry_timeout.is_zero() {
            return;
        }
        let Some(filesystem) = self.me.upgrade() else {
            return;
        };
        let (mut listings, mut fetches) = (Vec::new(), Vec::new());
        let must_sweep = {
            let mut tables = self.tables();
            let tables = &mut *tables;
            let now = clock::now();
            let jobs = tables
                .walk
                .next(&mut tables.inodes, &mut tables.dirs, &tables.attrs, now);
            for job in jobs {
                match job {
                    Job::List(ino) => listings.push(ino),
                    Job::Fetch(fetch) => {
                        let filesystem = Arc::clone(&filesystem);
                        let fetching = async move { filesystem.fetch(fetch).await };
                        let fetching = fetching.boxed().shared();
                        // In one step with the choice: what we change from now on drops it.
                        tables
                            .walk
                            .begin(fetch, fetching.clone(), &mut tables.inodes, now);
                        fetches.push(fetching);
                    }
                }
            }
            let is_something = !(listings.is_empty() && fetches.is_empty());
            let must_sweep = is_something && !tables.walk.is_swept;
            tables.walk.is_swept |= must_sweep;
            must_sweep
        };
        for ino in listings {
            self.list_soon(ino);
        }
        for fetching in fetches {
            tokio::spawn(fetching);
        }
        if must_sweep {
            tokio::spawn(sweep(self.me.clone()));
        }
    }

    async fn fetch(&self, fetch: Fetch) {
        let began = clock::now();
        let fetched = surviving(self.fetch_whole(fetch.ino, fetch.len, fetch.why)).await;
        if let Err(error) = &fetched {
            log::debug!("a file is not fetched ahead: {error}");
        }
        let took = clock::now().saturating_duration_since(began);
        let unwanted = {
            let mut tables = self.tables();
            let tables = &mut *tables;
            let fetched = fetched.ok().flatten();
            let unwanted = tables.walk.end(fetch, fetched, took, &mut tables.inodes);
            (unwanted, tables.walk.take_dropped())
        };
        // Closes handles, which sends requests, under no lock.
        drop(unwanted);
        self.go_ahead();
    }

    /// A file as it is at one moment; nothing if it is not what is known of it, or if its name leads
    /// elsewhere by then.
    async fn fetch_whole(&self, ino: Ino, len: u64, why: Why) -> Result<Option<Fetched>> {
        let path = self.path(ino)?;
        #[cfg(test)]
        super::survive::trip(&path);
        let mut asked = self.now();
        let open = self
            .client
            .open(path.clone(), OpenFlags::READ, Attrs::default());
        let handle = open.await?;
        let is_again = why != Why::Walk;
        if is_again {
            // What counts is how old it is now, and so the name is looked at once more.
            asked = self.now();
        }
        let named = async {
            match is_again {
                true => self.look(path).await.map(Some),
                false => Ok(None),
            }
        };
        let data = self.read_whole(&handle, len);
        let (data, attrs, named) = tokio::join!(data, self.client.fstat(&handle), named);
        let (data, attrs) = (data?, attrs?);
        let attr = self.translator.local(&attrs)?;
        let is_whole =
            attr.kind == FileKind::Regular && attrs.size == Some(len) && data.len() as u64 == len;
        let is_named = match named? {
            Some(named) => self.translator.local(&named)?.says_as(&attr),
            None => true,
        };
        Ok((is_whole && is_named).then_some(Fetched {
            handle,
            attr,
            data,
            asked,
        }))
    }

    async fn read_whole(&self, handle: &Handle, len: u64) -> Result<Bytes> {
        let request_max = self.client.features().read_max;
        let pieces = (0..len).step_by(request_max.max(1) as usize).map(|offset| {
            let rest = u32::try_from(len - offset).unwrap_or(u32::MAX);
            self.client.read(handle, offset, rest.min(request_max))
        });
        let mut whole = BytesMut::with_capacity(usize::try_from(len).unwrap_or(0));
        for piece in join_all(pieces).await {
            // Copied: a slice would hold on to all that came with it.
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.freeze())
    }

    /// A file that was fetched ahead, for the program that opens it now to read, if that may still
    /// be believed.
    pub(super) async fn take_ahead(&self, ino: Ino) -> Option<Fetched> {
        let again_life = self.again_life();
        let opened = clock::now();
        {
            let mut tables = self.tables();
            let tables = &mut *tables;
            tables.walk.opened(ino, again_life, &tables.inodes, opened);
        }
        let mut has_waited = false;
        loop {
            let ahead = {
                let mut tables = self.tables();
                let tables = &mut *tables;
                tables.walk.take(ino, &mut tables.inodes, opened)
            };
            self.go_ahead();
            match ahead? {
                // It was dropped, and is being fetched once more: the server can be asked as well.
                Ahead::UnderWay(_) if has_waited => return None,
                Ahead::UnderWay(fetching) => fetching.await,
                Ahead::Here(fetched) => return self.is_believed(ino, &fetched).then_some(fetched),
            }
            has_waited = true;
        }
    }

    /// For how long what was fetched because it was opened before in the same order may be opened without
    /// asking: so long that programs find it there, and far shorter than what is fetched ahead of a walk.
    /// Nothing where the server is near or is not asked at each open, or where one file has names that we do
    /// not see.
    fn again_life(&self) -> Duration {
        let round_trip = self.client.round_trip().unwrap_or_default();
        let follows = self.config.symlinks == Symlinks::Follow;
        if self.config.nocto || follows || round_trip < FAR {
            return Duration::ZERO;
        }
        (round_trip * AGAIN_ROUND_TRIPS).min(self.config.attr_timeout)
    }

    /// Whether what was fetched is still what is known of the file.
    pub(super) fn is_believed(&self, ino: Ino, fetched: &Fetched) -> bool {
        let age = clock::now().saturating_duration_since(fetched.asked.at);
        let last = self.tables().attrs.last(ino);
        // Somebody may have asked for the attributes since.
        age < self.config.attr_timeout && last.is_none_or(|last| same_content(&last, &fetched.attr))
    }
}

/// Drops what nobody comes for, until there is nothing left.
async fn sweep(me: Me) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(filesystem) = me.upgrade() else {
            return;
        };
        let mut guard = filesystem.tables();
        let tables = &mut *guard;
        let life = filesystem.config.attr_timeout.min(LIFE_MAX);
        let is_done = tables.walk.sweep(life, &mut tables.inodes, clock::now());
        tables.walk.is_swept = !is_done;
        let dropped = tables.walk.take_dropped();
        drop(guard);
        drop(dropped);
        if is_done {
            return;
        }
    }
}

/// What nobody came for so long is in the way of what is ahead of others.
const LIFE_MAX: Duration = Duration::from_secs(10);
/// Nearer servers answer sooner than a program comes back.
const FAR: Duration = Duration::from_millis(2);
/// A fetch is answered after one of these. To have something changed on the server by a new connection of
/// ssh(1) takes more than four.
const AGAIN_ROUND_TRIPS: u32 = 2;
const SWEEP: Duration = Duration::from_secs(1);
