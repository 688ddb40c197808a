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
    /// Connections for open files, dialled when the first file that would use one is opened.
    data: Arc<Mutex<Vec<Lane>>>,
    dialer: Arc<Dialer>,
    next: AtomicUsize,
}

enum Lane {
    Unused,
    Dialling,
    Open(Arc<Connection>),
}

impl Lanes {
    pub(super) fn new(dialer: Dialer, first: Connection, connections_max: usize) -> Self {
        let more = connections_max.saturating_sub(1);
        Self {
            metadata: Arc::new(first),
            data: Arc::new(Mutex::new((0..more).map(|_| Lane::Unused).collect())),
            dialer: Arc::new(dialer),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn metadata(&self) -> Arc<Connection> {
        Arc::clone(&self.metadata)
    }

    /// A connection for one more open file. Never waits: while a new connection is being dialled
    /// the first one serves.
    pub(super) fn data(&self) -> Arc<Connection> {
        let mut lanes = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lanes.len().max(1);
        let index = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let Some(lane) = lanes.get_mut(index) else {
            return self.metadata();
        };
        match lane {
            Lane::Open(connection) if connection.lost().is_none() => Arc::clone(connection),
            Lane::Dialling => self.metadata(),
            Lane::Unused | Lane::Open(_) => {
                *lane = Lane::Dialling;
                tokio::spawn(dial(
                    Arc::clone(&self.dialer),
                    Arc::clone(&self.data),
                    index,
                ));
                self.metadata()
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
