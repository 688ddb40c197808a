//! The connections of one mount.
//!
//! The first one takes all requests that name a path, and opens the files; when it is lost it is
//! made anew ([`recovery`](super::recovery)), and so are all others. A file of which much is
//! read or written is opened once more on each of the connections for data ([`Pool`]), which are
//! dialled when that is worth it. Server-side copies have a connection of their own: a server
//! answers nothing else on a connection while it copies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::connection::Connection;
use super::copy_lane::{Copies, Lane};
use super::health::Health;
use super::moves::{Moment, Moves, moved_by};
use super::pool::Pool;
use super::recovery::{self, Dial, Recovery};
use super::settle::{self, Modes};
use super::spread;
use super::turns::Turns;
use crate::clock;
use crate::error::Error;
use crate::sftp::{Attrs, Request};
use crate::transport::Dialer;

/// The connections of one mount, and what must be known of all requests to use them.
pub(super) struct Lanes {
    pub(super) metadata: Arc<Recovery>,
    /// Makes the first connection anew.
    keeper: AbortHandle,
    data: Arc<Pool>,
    copies: Arc<Copies>,
    moves: Mutex<Moves>,
    /// Renames that were answered.
    renames: Mutex<Moves>,
    pub(super) turns: Arc<Turns>,
    /// Whether a file was made with other permissions than those that were asked for.
    gives_its_own_modes: AtomicBool,
    /// See [`spread::MUCH`].
    much: u64,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.keeper.abort();
        self.metadata().end(&Error::Lost("closed by us".into()));
    }
}

impl Lanes {
    /// The first connection, and up to `connections_max` altogether beside that for copies.
    pub(super) fn new(first: Connection, dialer: Dialer, connections_max: usize) -> Self {
        let dialer = Arc::new(dialer);
        let further = connections_max.saturating_sub(1);
        let data = Pool::new(Some(Arc::clone(&dialer)), further, Vec::new());
        let copies = Copies::new(Some(Arc::clone(&dialer)), Lane::Unused);
        let asked_by = Arc::clone(&dialer);
        let dial = Dial {
            connect: Box::new(move || {
                let dialer = Arc::clone(&dialer);
                Box::pin(async move { Ok(Connection::open(dialer.dial().await?).await?.0) })
            }),
            is_asking: Box::new(move || asked_by.is_asking()),
        };
        Self::with(first, Some(dial), data, copies, spread::MUCH)
    }

    fn with(
        first: Connection,
        dial: Option<Dial>,
        data: Pool,
        copies: Arc<Copies>,
        much: u64,
    ) -> Self {
        let metadata = Arc::new(Recovery::new(Arc::new(first)));
        let data = Arc::new(data);
        let of_data = Arc::clone(&data);
        let of_copies = Arc::clone(&copies);
        // What ends one connection ends the others sooner or later: later is too late.
        let renew = move || {
            of_data.end();
            of_copies.end();
        };
        let keeper = recovery::keep(Arc::clone(&metadata), dial, renew);
        Self {
            metadata,
            keeper: tokio::spawn(keeper).abort_handle(),
            data,
            copies,
            moves: Mutex::default(),
            renames: Mutex::default(),
            turns: Arc::default(),
            gives_its_own_modes: AtomicBool::new(false),
            much,
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
        let copies = copies.map_or(Lane::Unused, |copies| Lane::Open(Arc::new(copies)));
        let data = Pool::new(None, 0, data);
        Self::with(first, None, data, Copies::new(None, copies), much)
    }

    /// These connections, and whatever `dial` gives when the first is lost.
    #[cfg(test)]
    pub(super) fn kept(first: Connection, dial: Dial, data: Vec<Connection>, much: u64) -> Self {
        let data = data.into_iter().map(Arc::new).collect();
        let (data, copies) = (Pool::new(None, 0, data), Lane::Unused);
        Self::with(first, Some(dial), data, Copies::new(None, copies), much)
    }

    /// From how many bytes on much of a file is read or written.
    pub(super) const fn much(&self) -> u64 {
        self.much
    }

    /// The first connection, which may be lost by now.
    pub(super) fn metadata(&self) -> Arc<Connection> {
        self.metadata.connection()
    }

    /// Notes what the server has made of a new file.
    pub(super) fn note_made(&self, seen: &Attrs, asked: &Attrs) {
        if !settle::has_mode_asked_for(seen, asked) {
            self.gives_its_own_modes.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn modes(&self) -> Modes {
        match self.gives_its_own_modes.load(Ordering::Relaxed) {
            true => Modes::ItsOwn,
            false => Modes::AsAsked,
        }
    }

    /// See [`Client::round_trip`](super::Client::round_trip).
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.metadata().flow().round_trip
    }

    /// All connections that are there.
    fn open(&self) -> Vec<Arc<Connection>> {
        let mut connections = self.data.open();
        connections.extend(self.copies.now());
        let first = self.metadata();
        connections.extend((!first.is_lost()).then_some(first));
        connections
    }

    /// See [`Health`].
    pub(super) fn health(&self) -> Health {
        let (standing, notes) = self.metadata.standing();
        let connections = self.open();
        let waiting: Vec<_> = connections
            .iter()
            .map(|connection| connection.outstanding())
            .collect();
        let oldest = waiting.iter().filter_map(|(_, oldest)| *oldest).min();
        Health {
            standing,
            since: notes.since,
            reconnects: notes.reconnects,
            connections: connections.len(),
            outstanding: waiting.iter().map(|(count, _)| count).sum(),
            oldest: oldest.map(|oldest| clock::of_timers().saturating_duration_since(oldest)),
            last_error: notes.last_error,
        }
    }

    /// See [`Client::check`](super::Client::check).
    pub(super) fn check(&self) {
        self.metadata.ask_for();
        for connection in self.open() {
            tokio::spawn(async move {
                let path = Bytes::from_static(b".");
                let asked = connection.submit(&Request::Realpath { path });
                if tokio::time::timeout(CHECK_MAX, asked).await.is_err() {
                    let why = format!("no answer within {} s", CHECK_MAX.as_secs());
                    connection.end(&Error::Lost(why.into()));
                }
            });
        }
    }

    /// Nobody waits for the server any longer.
    pub(super) fn give_up(&self) {
        let why: Arc<str> = "the mount is ending".into();
        self.metadata.end(Arc::clone(&why));
        self.metadata().end(&Error::Lost(why));
    }

    /// The connections for data.
    pub(super) const fn data(&self) -> &Arc<Pool> {
        &self.data
    }

    /// Notes the paths that a request has lead elsewhere: see [`Moves::note`].
    pub(super) fn note_moves(&self, request: &Request) {
        moved_by(request).for_each(|path| self.note_move(path));
    }

    pub(super) fn note_move(&self, path: &Bytes) {
        self.moves().note(path.clone());
    }

    pub(super) fn moment(&self) -> Moment {
        self.moves().now()
    }

    pub(super) fn is_moved(&self, path: &[u8], since: Moment) -> bool {
        self.moves().is_moved(path, since)
    }

    pub(super) fn renames(&self) -> MutexGuard<'_, Moves> {
        self.renames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for copies.
    pub(super) const fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }
}

/// What a server that is there may take to answer one who wants to know just that.
const CHECK_MAX: Duration = Duration::from_secs(5);
