//! The connections of one mount.
//!
//! The first one takes all requests that name a path, and opens the files; when it is lost it is
//! made anew ([`recovery`](super::recovery)), and so are all others. A file of which much is
//! read or written is opened once more on each of the connections for data ([`Pool`]), which are
//! dialled when that is worth it. Server-side copies have a connection of their own: a server
//! answers nothing else on a connection while it copies.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::task::AbortHandle;

use super::connection::{Connection, Ticket};
use super::health::Health;
use super::losses::Losses;
use super::moves::{Moment, Moves, moved_by};
use super::pending::Answer;
use super::pool::Pool;
use super::recovery::{self, Dial, Recovery};
use super::spread;
use super::turns::{Turn, Turns};
use super::{settle, wanted};
use crate::clock;
use crate::error::{Error, Result};
use crate::sftp::{Request, Response};
use crate::transport::Dialer;

/// The connections of one mount, and what must be known of all requests to use them.
pub(super) struct Lanes {
    metadata: Arc<Recovery>,
    /// Makes the first connection anew.
    keeper: AbortHandle,
    data: Arc<Pool>,
    copies: Arc<Copies>,
    moves: Mutex<Moves>,
    turns: Arc<Turns>,
    /// See [`spread::MUCH`].
    much: u64,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.keeper.abort();
        self.metadata().end(&Error::Lost("closed by us".into()));
    }
}

/// Who asks again what was not done when the connection was lost.
#[derive(Debug, Clone)]
pub(super) enum Again {
    Here,
    /// It fails as the connection did: something else comes first.
    ByCaller(Tried),
}

impl Again {
    fn was_asked(&self) -> bool {
        matches!(self, Self::ByCaller(tried) if tried.0.load(Ordering::Relaxed))
    }
}

/// Whether the server was asked for something before, on a connection that was lost: it may do it late,
/// and its refusal may mean that it has. What was never sent is not taken for done by us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried(Arc<AtomicBool>);

/// The connection for copies, dialled for the first large one and kept. One copy dials while the
/// others wait for it.
struct Copies {
    /// `None` where no further connection can be made.
    dialer: Option<Arc<Dialer>>,
    lane: tokio::sync::Mutex<CopyLane>,
    /// Counts how often all connections were ended: what failed before says nothing.
    round: AtomicU64,
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
        let data = Pool::new(Some(Arc::clone(&dialer)), further, Vec::new());
        let copies = Copies::new(Some(Arc::clone(&dialer)), CopyLane::Unused);
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
            turns: Arc::default(),
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
        let copies = copies.map_or(CopyLane::Unused, |copies| CopyLane::Open(Arc::new(copies)));
        let data = Pool::new(None, 0, data);
        Self::with(first, None, data, Copies::new(None, copies), much)
    }

    /// These connections, and whatever `dial` gives when the first is lost.
    #[cfg(test)]
    pub(super) fn kept(first: Connection, dial: Dial, data: Vec<Connection>, much: u64) -> Self {
        let data = data.into_iter().map(Arc::new).collect();
        let (data, copies) = (Pool::new(None, 0, data), CopyLane::Unused);
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

    /// Sends a request by path on the first connection. If that is lost before the answer, the
    /// request is settled on the next one. Also gives the connection that answered.
    pub(super) fn call(
        self: &Arc<Self>,
        request: Request,
        again: Again,
    ) -> impl Future<Output = Result<(Arc<Connection>, Response)>> + Send + use<> {
        let connection = self.metadata();
        let is_sent = !connection.is_lost();
        let is_change = wanted::changes(&request);
        // Before it is sent, so that what is sent later has a later turn.
        let (turn, must_wait) = self.turns.enter(&request, is_change, &connection);
        // It may have waited for something else until now, and nobody for it.
        let is_left = wanted::is_left(&request);
        let ticket = (!is_left && !must_wait).then(|| self.submit(&connection, &request));
        // Who waits keeps no client alive.
        let lanes = Arc::downgrade(self);
        async move {
            let (connection, is_sent, answer) = match ticket {
                Some(ticket) => (connection, is_sent, ticket.await),
                None if is_left => return Err(Errno::EINTR.into()),
                None => Box::pin(call_in_turn(&lanes, &request, &turn)).await?,
            };
            let answered = match answer {
                Err(error) if connection.is_lost() && error.is_of_connection() => {
                    let Some(lanes) = lanes.upgrade() else {
                        return Err(Error::Gone("closed by us".into()));
                    };
                    let lost = (connection, error);
                    let asked = (&request, is_sent);
                    // Seldom: no part of every future that asks something.
                    match again {
                        Again::Here => Box::pin(lanes.settle(asked, lost, &turn)).await?,
                        Again::ByCaller(tried) => {
                            tried.0.fetch_or(is_sent, Ordering::Relaxed);
                            Box::pin(lanes.find_out(asked, lost, &turn)).await?
                        }
                    }
                }
                Ok(answer) if again.was_asked() && settle::is_refusal(&answer) => {
                    let look = Box::pin(settle::was_done(&connection, &request));
                    match look.await? {
                        true => (connection, settle::ok()),
                        false => (connection, answer),
                    }
                }
                answer => (connection, answer?),
            };
            if is_change {
                wanted::note(&answered.1);
                if let Some(lanes) = lanes.upgrade() {
                    lanes.note_moves(&request);
                }
            }
            Ok(answered)
        }
    }

    /// Sends a request by path.
    fn submit(&self, connection: &Connection, request: &Request) -> Ticket {
        // Whoever opens a file between the two does not know which it is.
        self.note_moves(request);
        let ticket = connection.submit(request);
        self.note_moves(request);
        ticket
    }

    async fn settle(
        &self,
        (request, is_sent): (&Request, bool),
        lost: (Arc<Connection>, Error),
        turn: &Turn,
    ) -> Result<(Arc<Connection>, Response)> {
        let (mut connection, mut error) = lost;
        let mut may_be_done = is_sent;
        let mut losses = Losses::default();
        loop {
            losses.count(&error)?;
            connection = self.metadata.after(&connection).await?;
            tokio::time::sleep(losses.rest()).await;
            turn.comes(request, || Some(self.metadata())).await;
            self.note_moves(request);
            let answer = match may_be_done {
                true => settle::ask_again(&connection, request).await,
                false if wanted::is_left(request) => return Err(Errno::EINTR.into()),
                false => self.submit(&connection, request).await,
            };
            match answer {
                Err(again) if connection.is_lost() && again.is_of_connection() => error = again,
                answer => return Ok((connection, answer?)),
            }
            may_be_done = true;
        }
    }

    /// Finds out, on the next connection, whether something was done.
    ///
    /// # Errors
    /// That of the connection that was lost, if it was not.
    async fn find_out(
        &self,
        (request, is_sent): (&Request, bool),
        lost: (Arc<Connection>, Error),
        turn: &Turn,
    ) -> Result<(Arc<Connection>, Response)> {
        let (mut connection, error) = lost;
        loop {
            connection = self.metadata.after(&connection).await?;
            turn.comes(request, || Some(self.metadata())).await;
            if !is_sent {
                return Err(error);
            }
            match settle::was_done(&connection, request).await {
                Err(again) if connection.is_lost() && again.is_of_connection() => {}
                was_done => {
                    return match was_done? {
                        true => Ok((connection, settle::ok())),
                        false => Err(error),
                    };
                }
            }
        }
    }

    /// See [`Health`].
    pub(super) fn health(&self) -> Health {
        let (standing, notes) = self.metadata.standing();
        let mut connections = self.data.open();
        connections.extend(self.copies_now());
        let first = self.metadata();
        connections.extend((!first.is_lost()).then_some(first));
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
        let mut connections = self.data.open();
        connections.extend(self.copies_now());
        connections.push(self.metadata());
        for connection in connections {
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
    fn note_moves(&self, request: &Request) {
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
        let round = AtomicU64::new(0);
        Arc::new(Self {
            dialer,
            lane,
            round,
        })
    }

    /// Ends the connection, if there is one; the next copy has one made.
    fn end(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
        // One who dials has none yet.
        if let Ok(mut lane) = self.lane.try_lock()
            // Also where none was to be had: the server was away.
            && let CopyLane::Open(connection) = std::mem::replace(&mut *lane, CopyLane::Unused)
        {
            connection.end(&Error::Lost("the first connection was lost".into()));
        }
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
        let round = self.round.load(Ordering::Relaxed);
        match connect(dialer).await {
            Ok(connection) => {
                log::info!("one more connection to the server, for its copies");
                *lane = CopyLane::Open(Arc::clone(&connection));
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
    fn refuse(&self, lane: &mut CopyLane, round: u64) -> bool {
        if self.round.load(Ordering::Relaxed) != round {
            // It was away, and may be back.
            *lane = CopyLane::Unused;
            return false;
        }
        let is_news = !matches!(lane, CopyLane::Failed(_));
        *lane = CopyLane::Failed(clock::now());
        is_news
    }
}

/// Sends a request once nothing that was lost before has to do with it. Gives the connection on which it
/// was asked, and whether that was there.
async fn call_in_turn(
    lanes: &Weak<Lanes>,
    request: &Request,
    turn: &Turn,
) -> Result<(Arc<Connection>, bool, Answer)> {
    let newest = || lanes.upgrade().map(|lanes| lanes.metadata());
    turn.comes(request, newest).await;
    if wanted::is_left(request) {
        return Err(Errno::EINTR.into());
    }
    let lanes = lanes.upgrade();
    let lanes = lanes.ok_or_else(|| Error::Gone("closed by us".into()))?;
    let connection = lanes.metadata();
    let is_sent = !connection.is_lost();
    let ticket = lanes.submit(&connection, request);
    // Who waits keeps no client alive.
    drop(lanes);
    Ok((connection, is_sent, ticket.await))
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

/// What a server that is there may take to answer one who wants to know just that.
const CHECK_MAX: Duration = Duration::from_secs(5);

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
        let copies = Copies::new(None, CopyLane::Unused);
        // Who dials holds it.
        let mut lane = copies.lane.lock().await;
        copies.end();
        assert!(!copies.refuse(&mut lane, 0));
        assert!(matches!(*lane, CopyLane::Unused));
    }

    #[tokio::test]
    async fn that_no_connection_for_copies_is_to_be_had_is_told_once() {
        let copies = Copies::new(None, CopyLane::Unused);
        let refuse = async |round| copies.refuse(&mut *copies.lane.lock().await, round);
        assert!(refuse(0).await);
        assert!(!refuse(0).await);
        copies.end();
        assert!(refuse(1).await);
        assert!(!refuse(1).await);
    }
}
