//! The connection for copies on the server: one of their own, as a server answers nothing else on a
//! connection while it copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::clock;
use crate::error::{Error, Result};
use crate::transport::Dialer;

/// The connection for copies, dialled for the first large one and kept. One copy dials while the
/// others wait for it.
pub(super) struct Copies {
    /// `None` where no further connection can be made.
    dialer: Option<Arc<Dialer>>,
    lane: tokio::sync::Mutex<Lane>,
    /// Counts how often all connections were ended: what failed before says nothing.
    round: AtomicU64,
}

pub(super) enum Lane {
    Unused,
    Open(Arc<Connection>),
    /// None was to be had then.
    Failed(Instant),
}

impl Copies {
    pub(super) fn new(dialer: Option<Arc<Dialer>>, lane: Lane) -> Arc<Self> {
        let lane = tokio::sync::Mutex::new(lane);
        let round = AtomicU64::new(0);
        Arc::new(Self {
            dialer,
            lane,
            round,
        })
    }

    /// Ends the connection, if there is one; the next copy has one made.
    pub(super) fn end(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
        // One who dials has none yet.
        if let Ok(mut lane) = self.lane.try_lock()
            // Also where none was to be had: the server was away.
            && let Lane::Open(connection) = std::mem::replace(&mut *lane, Lane::Unused)
        {
            connection.end(&Error::Lost("the first connection was lost".into()));
        }
    }

    /// The connection, if it is there. Never waits.
    pub(super) fn now(&self) -> Option<Arc<Connection>> {
        match &*self.lane.try_lock().ok()? {
            Lane::Open(connection) if connection.lost().is_none() => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Has the connection dialled if it is not there. False: it is not there yet, or none is to be had.
    /// Never waits.
    pub(super) fn soon(self: &Arc<Self>) -> bool {
        if self.now().is_some() {
            return true;
        }
        let copies = Arc::clone(self);
        if copies.dialer.is_some() {
            tokio::spawn(async move { copies.connection().await });
        }
        false
    }

    /// The connection, dialled if it is not there; `None` if none is to be had.
    pub(super) async fn connection(&self) -> Option<Arc<Connection>> {
        let mut lane = self.lane.lock().await;
        match &*lane {
            Lane::Open(connection) if connection.lost().is_none() => {
                return Some(Arc::clone(connection));
            }
            Lane::Failed(when) if clock::now().duration_since(*when) < DIAL_AGAIN => {
                return None;
            }
            _ => {}
        }
        let dialer = self.dialer.as_ref()?;
        let round = self.round.load(Ordering::Relaxed);
        match connect(dialer).await {
            Ok(connection) => {
                log::info!("one more connection to the server, for its copies");
                *lane = Lane::Open(Arc::clone(&connection));
                Some(connection)
            }
            Err(error) => {
                let level = match self.refuse(&mut lane, round) {
                    true => log::Level::Warn,
                    false => log::Level::Debug,
                };
                log::log!(
                    level,
                    "no connection of their own for copies on the server: {error}"
                );
                None
            }
        }
    }

    /// A dial that began in `round` has failed. Says whether that is to be told: it is the first time
    /// since the server was away.
    fn refuse(&self, lane: &mut Lane, round: u64) -> bool {
        if self.round.load(Ordering::Relaxed) != round {
            // It was away, and may be back.
            *lane = Lane::Unused;
            return false;
        }
        let is_news = !matches!(lane, Lane::Failed(_));
        *lane = Lane::Failed(clock::now());
        is_news
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_for_copies_that_failed_while_the_server_was_away_keeps_no_later_one_from_being_made()
     {
        let copies = Copies::new(None, Lane::Unused);
        // Who dials holds it.
        let mut lane = copies.lane.lock().await;
        copies.end();
        assert!(!copies.refuse(&mut lane, 0));
        assert!(matches!(*lane, Lane::Unused));
    }

    #[tokio::test]
    async fn that_no_connection_for_copies_is_to_be_had_is_told_once() {
        let copies = Copies::new(None, Lane::Unused);
        let refuse = async |round| copies.refuse(&mut *copies.lane.lock().await, round);
        assert!(refuse(0).await);
        assert!(!refuse(0).await);
        copies.end();
        assert!(refuse(1).await);
        assert!(!refuse(1).await);
    }
}
