//! Which connection a request takes.
//!
//! The first connection takes all requests that name a path. Open files share it, until more
//! connections are allowed; then each new open file takes the next of those that carry data.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Connection;
use crate::transport::Dialer;

/// The connections of one mount.
pub(super) struct Lanes {
    metadata: Arc<Connection>,
    more: Option<More>,
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
        }
    }

    /// The first connection, and up to `connections_max` altogether.
    pub(super) fn new(first: Connection, dialer: Dialer, connections_max: usize) -> Self {
        let more = (connections_max > 1).then(|| More {
            dialer: Arc::new(dialer),
            lanes: Arc::new(Mutex::new(
                (1..connections_max).map(|_| Lane::Unused).collect(),
            )),
            next: AtomicUsize::new(0),
        });
        Self {
            metadata: Arc::new(first),
            more,
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
    let opened = match dialer.dial().await {
        Ok(link) => Connection::open(link).await,
        Err(error) => Err(error),
    };
    let lane = match opened {
        Ok((connection, _)) => Lane::Open(Arc::new(connection)),
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
