//! Which connection a request takes.
//!
//! The first connection takes all requests that name a path. Open files share it, until more
//! connections are allowed; then each new open file takes the next of those that carry data.
//! Server-side copies have a connection of their own: a server answers nothing else on a connection
//! while it copies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::clock;
use crate::error::{Error, Result};
use crate::transport::Dialer;

/// The connections of one mount.
pub(super) struct Lanes {
    metadata: Arc<Connection>,
    more: Option<More>,
    copies: Arc<Copies>,
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

/// Connections for open files, dialled when the first file that would use one is opened.
struct More {
    dialer: Arc<Dialer>,
    lanes: Arc<Mutex<Vec<Lane>>>,
    next: AtomicUsize,
}

enum Lane {
    Unused,
    Dialling,
    Open(Arc<Connection>),
}

impl Lanes {
    /// One connection for everything.
    #[cfg(test)]
    pub(super) fn one(connection: Connection) -> Self {
        Self {
            metadata: Arc::new(connection),
            more: None,
            copies: Copies::new(None, CopyLane::Unused),
        }
    }

    /// One connection for everything but copies, and one for those.
    #[cfg(test)]
    pub(super) fn two(connection: Connection, copies: Connection) -> Self {
        let lane = CopyLane::Open(Arc::new(copies));
        Self {
            copies: Copies::new(None, lane),
            ..Self::one(connection)
        }
    }

    /// The first connection, and up to `connections_max` altogether beside that for copies.
    pub(super) fn new(first: Connection, dialer: Dialer, connections_max: usize) -> Self {
        let dialer = Arc::new(dialer);
        let more = (connections_max > 1).then(|| More {
            dialer: Arc::clone(&dialer),
            lanes: Arc::new(Mutex::new(
                (1..connections_max).map(|_| Lane::Unused).collect(),
            )),
            next: AtomicUsize::new(0),
        });
        Self {
            metadata: Arc::new(first),
            more,
            copies: Copies::new(Some(dialer), CopyLane::Unused),
        }
    }

    pub(super) fn metadata(&self) -> Arc<Connection> {
        Arc::clone(&self.metadata)
    }

    /// A connection for one more open file. Never waits: while a new connection is being dialled
    /// the first one serves.
    pub(super) fn data(&self) -> Arc<Connection> {
        self.more
            .as_ref()
            .and_then(More::next)
            .unwrap_or_else(|| self.metadata())
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
        let dialled = tokio::time::timeout(DIAL_WAIT, connect(dialer)).await;
        let late = || Error::setup(format!("not within {} s", DIAL_WAIT.as_secs()));
        match dialled.unwrap_or_else(|_| Err(late())) {
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

impl More {
    /// The connection whose turn it is, if it is there.
    fn next(&self) -> Option<Arc<Connection>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.next.fetch_add(1, Ordering::Relaxed) % lanes.len().max(1);
        let lane = lanes.get_mut(index)?;
        match lane {
            Lane::Open(connection) if connection.lost().is_none() => Some(Arc::clone(connection)),
            Lane::Dialling => None,
            Lane::Unused | Lane::Open(_) => {
                *lane = Lane::Dialling;
                tokio::spawn(dial(
                    Arc::clone(&self.dialer),
                    Arc::clone(&self.lanes),
                    index,
                ));
                None
            }
        }
    }
}

async fn dial(dialer: Arc<Dialer>, lanes: Arc<Mutex<Vec<Lane>>>, index: usize) {
    let lane = match connect(&dialer).await {
        Ok(connection) => Lane::Open(connection),
        Err(error) => {
            log::warn!("no further connection to the server: {error}");
            Lane::Unused
        }
    };
    let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(slot) = lanes.get_mut(index) {
        *slot = lane;
    }
}

async fn connect(dialer: &Dialer) -> Result<Arc<Connection>> {
    let (connection, _) = Connection::open(dialer.dial().await?).await?;
    Ok(Arc::new(connection))
}

/// A program waits meanwhile and cannot be interrupted; its copy can be made without.
const DIAL_WAIT: Duration = Duration::from_secs(10);
/// A server that has just refused one more connection is left alone for so long: to be refused may
/// take seconds, and copies go on without.
const DIAL_AGAIN: Duration = Duration::from_secs(60);
