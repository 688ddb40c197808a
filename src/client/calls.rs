//! Requests by path: sent on the first connection, in the order in which they were asked for, and
//! settled on the next one if that is lost before the answer.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use nix::errno::Errno;

use super::connection::{Connection, Ticket};
use super::lanes::Lanes;
use super::losses::Losses;
use super::moves::{Moment, directories_of, renamed_by};
use super::pending::Answer;
use super::turns::{TURN_MAX, Turn};
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
        let since = self.renames().now();
        // Before it is sent, so that what is sent later has a later turn.
        let (turn, must_wait) = self.turns.enter(&request, is_change, &connection);
        // It may have waited for something else until now, and nobody for it.
        let is_left = wanted::is_left(&request);
        let ticket = (!is_left && !must_wait).then(|| self.submit(&connection, &request));
        // Who waits keeps no client alive.
        let lanes = Arc::downgrade(self);
        async move {
            let asking = Asking {
                request: &request,
                turn: &turn,
                since,
            };
            let asked = match ticket {
                Some(ticket) => (connection, is_sent, ticket.await),
                None if is_left => return Err(Errno::EINTR.into()),
                None => Box::pin(call_in_turn(&lanes, &asking)).await?,
            };
            let answered = settled(&lanes, &asking, asked, again).await?;
            if is_change {
                wanted::note(&answered.1);
                if let Some(lanes) = lanes.upgrade() {
                    lanes.note_done(&request, &answered.1);
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

    /// Notes what a request that was answered has moved.
    fn note_done(&self, request: &Request, answer: &Response) {
        self.note_moves(request);
        if !settle::is_refusal(answer) {
            renamed_by(request).for_each(|path| self.renames().note(path.clone()));
        }
    }

    async fn settle(
        &self,
        asking: &Asking<'_>,
        is_sent: bool,
        lost: (Arc<Connection>, Error),
    ) -> Result<(Arc<Connection>, Response)> {
        let (mut connection, mut error) = lost;
        let request = asking.request;
        let (mut may_be_done, mut was_there) = (is_sent, is_sent);
        let mut losses = Losses::default();
        loop {
            // What was not sent has not brought the connection down.
            if was_there {
                losses.count(&error)?;
            }
            self.metadata.after(&connection).await?;
            tokio::time::sleep(losses.rest()).await;
            asking.turn.comes(request, || Some(self.metadata())).await;
            // It may be another one by now.
            connection = self.metadata();
            was_there = !connection.is_lost();
            self.note_moves(request);
            // By another path its caller may ask again.
            let answer = match may_be_done && !self.is_elsewhere(asking) {
                true => settle::ask_again(&connection, request, self.modes()).await,
                false if wanted::is_left(request) => return Err(Errno::EINTR.into()),
                false => self.submit(&connection, request).await,
            };
            match answer {
                Err(again) if connection.is_lost() && again.is_of_connection() => error = again,
                answer => return Ok((connection, answer?)),
            }
            may_be_done |= was_there;
        }
    }

    /// Finds out, on the next connection, whether something was done.
    ///
    /// # Errors
    /// That of the connection that was lost, if it was not, or that cannot be told by this path.
    async fn find_out(
        &self,
        asking: &Asking<'_>,
        is_sent: bool,
        lost: (Arc<Connection>, Error),
    ) -> Result<(Arc<Connection>, Response)> {
        let (mut connection, error) = lost;
        let request = asking.request;
        loop {
            connection = self.metadata.after(&connection).await?;
            asking.turn.comes(request, || Some(self.metadata())).await;
            if !is_sent {
                return Err(Error::Lost("the connection was lost before".into()));
            }
            match settle::was_done(&connection, request).await {
                Err(again) if connection.is_lost() && again.is_of_connection() => {}
                was_done => {
                    return match was_done? && !self.is_elsewhere(asking) {
                        true => Ok((connection, settle::ok())),
                        false => Err(error),
                    };
                }
            }
        }
    }

    /// Waits until no directory above a path is being renamed, as far as that was asked for here.
    pub(super) async fn stays(&self, path: &[u8]) {
        let waiting = self.turns.no_rename_above(path);
        if tokio::time::timeout(TURN_MAX, waiting).await.is_err() {
            log::debug!("a directory is being renamed for long");
        }
    }

    /// Whether a directory above has another name by now: that nothing is there is no sign then.
    fn is_elsewhere(&self, asking: &Asking<'_>) -> bool {
        let renames = self.renames();
        directories_of(asking.request).any(|above| renames.is_moved(above, asking.since))
    }
}

/// One request that is asked for.
struct Asking<'a> {
    request: &'a Request,
    turn: &'a Turn,
    /// When its paths were right.
    since: Moment,
}

/// Sends a request once nothing that was lost before has to do with it. Gives the connection on which it
/// was asked, and whether that was there.
async fn call_in_turn(
    lanes: &Weak<Lanes>,
    asking: &Asking<'_>,
) -> Result<(Arc<Connection>, bool, Answer)> {
    let request = asking.request;
    let newest = || lanes.upgrade().map(|lanes| lanes.metadata());
    asking.turn.comes(request, newest).await;
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
    asking: &Asking<'_>,
    (connection, is_sent, answer): (Arc<Connection>, bool, Answer),
    again: Again,
) -> Result<(Arc<Connection>, Response)> {
    let present = || {
        lanes
            .upgrade()
            .ok_or_else(|| Error::Gone("closed by us".into()))
    };
    match answer {
        Err(error) if connection.is_lost() && error.is_of_connection() => {
            let (lanes, lost) = (present()?, (connection, error));
            // Seldom: no part of every future that asks something.
            match again {
                Again::Here => Box::pin(lanes.settle(asking, is_sent, lost)).await,
                Again::ByCaller(tried) => {
                    tried.0.fetch_or(is_sent, Ordering::Relaxed);
                    Box::pin(lanes.find_out(asking, is_sent, lost)).await
                }
            }
        }
        Ok(answer) if again.was_asked() && settle::is_refusal(&answer) => {
            let was_done = Box::pin(settle::was_done(&connection, asking.request)).await?;
            match was_done {
                true if present()?.is_elsewhere(asking) => {
                    Err(Error::Lost("a directory above was renamed".into()))
                }
                true => Ok((connection, settle::ok())),
                false => Ok((connection, answer)),
            }
        }
        answer => Ok((connection, answer?)),
    }
}
