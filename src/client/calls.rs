//! Requests by path: sent on the first connection, in the order in which they were asked for, and
//! settled on the next one if that is lost before the answer.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use nix::errno::Errno;

use super::connection::{Connection, Ticket};
use super::lanes::Lanes;
use super::losses::Losses;
use super::pending::Answer;
use super::turns::Turn;
use super::{settle, wanted};
use crate::error::{Error, Result};
use crate::sftp::{Request, Response};

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

impl Lanes {
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
            let asked = match ticket {
                Some(ticket) => (connection, is_sent, ticket.await),
                None if is_left => return Err(Errno::EINTR.into()),
                None => Box::pin(call_in_turn(&lanes, &request, &turn)).await?,
            };
            let answered = settled(&lanes, &request, asked, again, &turn).await?;
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
                true => settle::ask_again(&connection, request, self.modes()).await,
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

/// The answer to a request that was asked on a connection; `is_sent`: which was there.
async fn settled(
    lanes: &Weak<Lanes>,
    request: &Request,
    (connection, is_sent, answer): (Arc<Connection>, bool, Answer),
    again: Again,
    turn: &Turn,
) -> Result<(Arc<Connection>, Response)> {
    match answer {
        Err(error) if connection.is_lost() && error.is_of_connection() => {
            let lanes = lanes.upgrade();
            let lanes = lanes.ok_or_else(|| Error::Gone("closed by us".into()))?;
            let (asked, lost) = ((request, is_sent), (connection, error));
            // Seldom: no part of every future that asks something.
            match again {
                Again::Here => Box::pin(lanes.settle(asked, lost, turn)).await,
                Again::ByCaller(tried) => {
                    tried.0.fetch_or(is_sent, Ordering::Relaxed);
                    Box::pin(lanes.find_out(asked, lost, turn)).await
                }
            }
        }
        Ok(answer) if again.was_asked() && settle::is_refusal(&answer) => {
            match Box::pin(settle::was_done(&connection, request)).await? {
                true => Ok((connection, settle::ok())),
                false => Ok((connection, answer)),
            }
        }
        answer => Ok((connection, answer?)),
    }
}
