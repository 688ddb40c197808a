//! Does what [`walk`](super::walk) says: lists directories and fetches small files before a program
//! asks for them, and gives them to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::listings::Me;
use super::survive::surviving;
use super::walk::{Ahead, Fetched, Job};
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
            for job in tables.walk.next(&mut tables.inodes, &mut tables.dirs, now) {
                match job {
                    Job::List(ino) => listings.push(ino),
                    Job::Fetch { ino, len, number } => {
                        let filesystem = Arc::clone(&filesystem);
                        let fetching = async move { filesystem.fetch(ino, len, number).await };
                        let fetching = fetching.boxed().shared();
                        // In one step with the choice: what we change from now on drops it.
                        tables.walk.begin(ino, (len, number), fetching.clone(), now);
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

    async fn fetch(&self, ino: Ino, len: u64, number: u64) {
        let began = clock::now();
        let fetched = surviving(self.fetch_whole(ino, len)).await;
        if let Err(error) = &fetched {
            log::debug!("a file is not fetched ahead: {error}");
        }
        let took = clock::now().saturating_duration_since(began);
        let unwanted = {
            let mut tables = self.tables();
            let tables = &mut *tables;
            let fetched = fetched.ok().flatten();
            let unwanted = tables
                .walk
                .end((ino, number), fetched, took, &mut tables.inodes);
            (unwanted, tables.walk.take_dropped())
        };
        // Closes handles, which sends requests, under no lock.
        drop(unwanted);
        self.go_ahead();
    }

    /// A file as it is at one moment; nothing if it is not what the listing said.
    async fn fetch_whole(&self, ino: Ino, len: u64) -> Result<Option<Fetched>> {
        let path = self.path(ino)?;
        #[cfg(test)]
        super::survive::trip(&path);
        let asked = self.now();
        let handle = self
            .client
            .open(path, OpenFlags::READ, Attrs::default())
            .await?;
        let (data, attrs) = tokio::join!(self.read_whole(&handle, len), self.client.fstat(&handle));
        let (data, attrs) = (data?, attrs?);
        let attr = self.translator.local(&attrs)?;
        let is_whole =
            attr.kind == FileKind::Regular && attrs.size == Some(len) && data.len() as u64 == len;
        Ok(is_whole.then_some(Fetched {
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
        loop {
            let ahead = {
                let mut tables = self.tables();
                let tables = &mut *tables;
                tables.walk.opened(ino, &tables.inodes, clock::now());
                tables.walk.take(ino, &mut tables.inodes)
            };
            self.go_ahead();
            match ahead? {
                Ahead::UnderWay(fetching) => fetching.await,
                Ahead::Here(fetched) => return self.is_believed(ino, &fetched).then_some(fetched),
            }
        }
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
const SWEEP: Duration = Duration::from_secs(1);
