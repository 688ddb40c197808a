//! The connections of one mount.
//!
//! The first one takes all requests that name a path, and opens the files. A file of which much is
//! read or written is opened once more on each of the connections for data ([`Pool`]), which are
//! dialled when that is worth it. Server-side copies have a connection of their own: a server
//! answers nothing else on a connection while it copies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::moves::{Moment, Moves};
use super::pool::Pool;
use super::spread;
use crate::clock;
use crate::error::{Error, Result};
use crate::transport::Dialer;

/// The connections of one mount, and what must be known of all requests to use them.
pub(super) struct Lanes {
    metadata: Arc<Connection>,
    data: Arc<Pool>,
    copies: Arc<Copies>,
    moves: Mutex<Moves>,
    /// See [`spread::MUCH`].
    much: u64,
}

/// The connection for copies, dialled for the first large one and kept. One copy dials while the
/// others wait for it.
struct Copies {
    /// `None` where no further connection can be made.
    dialer: Option<Arc<Dialer>>,
    lane: tokio::sync::Mutex<CopyLane>,
}

enum CopyLane {
    Unused,
    Open(Arc<Connection>),
    /// None was to be had then.
    Failed(Instant),
}

impl Lanes {
    /// The first connection, and up to `connections_max` altogether beside that for copies.
    pub(super) fn new(first: Connection, dialer: Dialer, connections_max: usize) -> Self {
        let dialer = Arc::new(dialer);
        let further = connections_max.saturating_sub(1);
        Self {
            metadata: Arc::new(first),
            data: Arc::new(Pool::new(Some(Arc::clone(&dialer)), further, Vec::new())),
            copies: Copies::new(Some(dialer), CopyLane::Unused),
            moves: Mutex::default(),
            much: spread::MUCH,
        }
    }

    /// These connections and no others.
    #[cfg(test)]
    pub(super) fn given(
        first: Connection,
        data: Vec<Connection>,
        copies: Option<Connection>,
        much: u64,
    ) -> Self {
        let data = data.into_iter().map(Arc::new).collect();
        let copies = copies.map_or(CopyLane::Unused, |copies| CopyLane::Open(Arc::new(copies)));
        Self {
            metadata: Arc::new(first),
            data: Arc::new(Pool::new(None, 0, data)),
            copies: Copies::new(None, copies),
            moves: Mutex::default(),
            much,
        }
    }

    /// From how many bytes on much of a file is read or written.
    pub(super) const fn much(&self) -> u64 {
        self.much
    }

    pub(super) const fn metadata(&self) -> &Arc<Connection> {
        &self.metadata
    }

    /// The connections for data.
    pub(super) const fn data(&self) -> &Arc<Pool> {
        &self.data
    }

    /// Notes that a path leads elsewhere: see [`Moves::note`].
    pub(super) fn note_move(&self, path: &Bytes) {
        self.moves().note(path.clone());
    }

    pub(super) fn moment(&self) -> Moment {
        self.moves().now()
    }

    pub(super) fn is_moved(&self, path: &[u8], since: Moment) -> bool {
        self.moves().is_moved(path, since)
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for copies, if it is there. Never waits.
    pub(super) fn copies_now(&self) -> Option<Arc<Connection>> {
        match &*self.copies.lane.try_lock().ok()? {
            CopyLane::Open(connection) if connection.lost().is_none() => {
                Some(Arc::clone(connection))
            }
            _ => None,
        }
    }

    /// Has the connection for copies dialled if it is not there. False: it is not there yet, or
    /// none is to be had. Never waits.
    pub(super) fn copies_soon(&self) -> bool {
        if self.copies_now().is_some() {
            return true;
        }
        let copies = Arc::clone(&self.copies);
        if copies.dialer.is_some() {
            tokio::spawn(async move { copies.connection().await });
        }
        false
    }

    /// The connection for copies, dialled if it is not there; `None` if none is to be had.
    pub(super) async fn copies(&self) -> Option<Arc<Connection>> {
        self.copies.connection().await
    }
}

impl Copies {
    fn new(dialer: Option<Arc<Dialer>>, lane: CopyLane) -> Arc<Self> {
        let lane = tokio::sync::Mutex::new(lane);
        Arc::new(Self { dialer, lane })
    }

    async fn connection(&self) -> Option<Arc<Connection>> {
        let mut lane = self.lane.lock().await;
        match &*lane {
            CopyLane::Open(connection) if connection.lost().is_none() => {
                return Some(Arc::clone(connection));
            }
            CopyLane::Failed(when) if clock::now().duration_since(*when) < DIAL_AGAIN => {
                return None;
            }
            _ => {}
        }
        let dialer = self.dialer.as_ref()?;
        match connect(dialer).await {
            Ok(connection) => {
                log::info!("one more connection to the server, for its copies");
                *lane = CopyLane::Open(Arc::clone(&connection));
                Some(connection)
            }
            Err(error) => {
                log::warn!("no connection of their own for copies on the server: {error}");
                *lane = CopyLane::Failed(clock::now());
                None
            }
        }
    }
}

/// One more connection, within a time.
///
/// # Errors
/// Why there is none.
pub(super) async fn connect(dialer: &Dialer) -> Result<Arc<Connection>> {
    let dialled = tokio::time::timeout(DIAL_WAIT, async {
        let (connection, _) = Connection::open(dialer.dial().await?).await?;
        Ok(Arc::new(connection))
    });
    let late = || Error::setup(format!("not within {} s", DIAL_WAIT.as_secs()));
    dialled.await.unwrap_or_else(|_| Err(late()))
}

/// A program waits meanwhile and cannot be interrupted; its copy can be made without.
const DIAL_WAIT: Duration = Duration::from_secs(10);
/// A server that has just refused one more connection is left alone for so long: to be refused may
/// take seconds, and copies go on without.
const DIAL_AGAIN: Duration = Duration::from_secs(60);
