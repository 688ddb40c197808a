//! In which order requests by path are settled that were lost with one connection. A server does what
//! it is asked on one connection as if in the order of the requests, and callers count on it: a file is
//! made and looked at in one round trip. So what was lost together is found out and asked again in that
//! order, as far as the paths have to do with each other; all else at once.
//!
//! What is asked for later waits for its turn too: a directory that is renamed on the new connection would
//! have what was lost looked for where it cannot be any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::connection::Connection;
use super::moves::{is_at_or_below, renamed_by};
use crate::sftp::Request;

/// The requests of one mount that change something and have no answer.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// Rung when one of them is done.
    done: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    changes: BTreeMap<u64, Change>,
}

struct Change {
    paths: Paths,
    /// What leads elsewhere when it is done.
    renamed: Option<Bytes>,
    /// On which it was to be asked first.
    connection: Arc<Connection>,
    /// It was not sent at once: what comes behind it must not be either.
    has_waited: bool,
}

type Paths = [Option<Bytes>; 2];

/// The place of one request; gone with its answer, or when nobody waits for that.
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
    is_change: bool,
}

impl Turns {
    /// The turn of a request that is to be sent on `connection`, and whether it has to wait for it:
    /// a change that has to do with it was lost with an earlier connection, or waits for one that was.
    pub(super) fn enter(
        self: &Arc<Self>,
        request: &Request,
        is_change: bool,
        connection: &Arc<Connection>,
    ) -> (Turn, bool) {
        let mut state = self.state();
        let mut unsent = state
            .changes
            .values()
            .filter(|change| change.has_waited || !Arc::ptr_eq(&change.connection, connection));
        let must_wait = unsent.any(|change| concern(&paths(request), is_change, &change.paths));
        state.last += 1;
        let number = state.last;
        if is_change {
            let change = Change {
                paths: paths(request),
                renamed: renamed_by(request).next().cloned(),
                connection: Arc::clone(connection),
                has_waited: must_wait,
            };
            state.changes.insert(number, change);
        }
        drop(state);
        let turn = Turn {
            turns: Arc::clone(self),
            number,
            is_change,
        };
        (turn, must_wait)
    }

    /// Waits until no rename of what is at a path or above it is without an answer.
    pub(super) async fn no_rename_above(&self, path: &[u8]) {
        loop {
            let done = self.done.notified();
            let is_renamed = |change: &Change| {
                let renamed = change.renamed.as_ref();
                renamed.is_some_and(|renamed| is_at_or_below(path, renamed))
            };
            if !self.state().changes.values().any(is_renamed) {
                return;
            }
            done.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until no change that was asked for earlier concerns the same paths, but not for ever while
    /// one connection, which `newest` tells, is there.
    pub(super) async fn comes(
        &self,
        request: &Request,
        newest: impl Fn() -> Option<Arc<Connection>>,
    ) {
        let ours = paths(request);
        loop {
            let before = newest();
            let waiting = tokio::time::timeout(TURN_MAX, self.is_first(&ours));
            if waiting.await.is_ok() {
                return;
            }
            let is_same = before
                .zip(newest())
                .is_none_or(|(before, now)| Arc::ptr_eq(&before, &now) && !now.is_lost());
            if is_same {
                log::debug!("asked again before what was asked for earlier");
                return;
            }
        }
    }

    async fn is_first(&self, ours: &Paths) {
        loop {
            let done = self.turns.done.notified();
            if self.is_next(ours) {
                return;
            }
            done.await;
        }
    }

    fn is_next(&self, ours: &Paths) -> bool {
        let state = self.turns.state();
        let mut earlier = state.changes.range(..self.number);
        !earlier.any(|(_, change)| concern(ours, self.is_change, &change.paths))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_change {
            self.turns.state().changes.remove(&self.number);
            self.turns.done.notify_waiters();
        }
    }
}

fn paths(request: &Request) -> Paths {
    match request {
        Request::Open { path, .. }
        | Request::Setstat { path, .. }
        | Request::Lsetstat { path, .. }
        | Request::Remove { path }
        | Request::Mkdir { path, .. }
        | Request::Rmdir { path }
        | Request::Opendir { path }
        | Request::Lstat { path }
        | Request::Stat { path }
        | Request::Readlink { path }
        | Request::Statvfs { path }
        | Request::Realpath { path } => [Some(path.clone()), None],
        Request::Rename { from, to }
        | Request::PosixRename { from, to }
        | Request::Hardlink { from, to } => [Some(from.clone()), Some(to.clone())],
        Request::Symlink { first, second } => [Some(first.clone()), Some(second.clone())],
        _ => [None, None],
    }
}

/// Whether what is asked of `ones` has to do with a change of `others`: a path of it is one of those, or
/// below, or it changes something above.
fn concern(ones: &Paths, is_change: bool, others: &Paths) -> bool {
    ones.iter().flatten().any(|one| {
        let mut others = others.iter().flatten();
        others.any(|other| is_at_or_below(one, other) || (is_change && is_at_or_below(other, one)))
    })
}

/// Who asked earlier may be waiting for something else, and not for the answer.
pub(super) const TURN_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::Error;
    use crate::testing::{Options, Server};

    fn remove(path: &'static str) -> Request {
        let path = Bytes::from_static(path.as_bytes());
        Request::Remove { path }
    }

    async fn connection() -> Arc<Connection> {
        let link = Server::new(Options::default()).link();
        Arc::new(Connection::open(link).await.unwrap().0)
    }

    #[tokio::test]
    async fn what_has_to_do_with_an_earlier_change_waits_for_it_and_nothing_else_does() {
        let (turns, connection) = (Arc::new(Turns::default()), connection().await);
        let (early, _) = turns.enter(&remove("/a/b"), true, &connection);
        let is_free = |path, is_change| {
            let (turn, _) = turns.enter(&remove(path), is_change, &connection);
            let request = remove(path);
            turn.comes(&request, || None).now_or_never().is_some()
        };
        for path in ["/a/b", "/a/b/c"] {
            assert!(!is_free(path, true) && !is_free(path, false), "{path}");
        }
        // Who only looks at what is above sees it with or without the change.
        for path in ["/a", "/"] {
            assert!(!is_free(path, true) && is_free(path, false), "{path}");
        }
        for path in ["/a/bc", "/a/c", "/b"] {
            assert!(is_free(path, true), "{path}");
        }
        drop(early);
        assert!(is_free("/a/b", true));
    }

    #[tokio::test]
    async fn nobody_waits_for_what_was_asked_for_later() {
        let (turns, connection) = (Arc::new(Turns::default()), connection().await);
        let (early, _) = turns.enter(&remove("/a"), true, &connection);
        let _late = turns.enter(&remove("/a"), true, &connection);
        let request = remove("/a");
        assert!(early.comes(&request, || None).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes_what_has_only_the_servers_absence_to_wait_for() {
        let (turns, connection) = (Arc::new(Turns::default()), connection().await);
        let _early = turns.enter(&remove("/a"), true, &connection);
        let (late, _) = turns.enter(&remove("/a"), true, &connection);
        let newest = || Some(Arc::clone(&connection));
        let request = remove("/a");
        let coming = late.comes(&request, newest);
        assert!(tokio::time::timeout(TURN_MAX * 2, coming).await.is_ok());
        connection.end(&Error::Lost("reset".into()));
        let coming = late.comes(&request, newest);
        assert!(tokio::time::timeout(TURN_MAX * 9, coming).await.is_err());
    }

    #[tokio::test]
    async fn only_what_was_lost_with_an_earlier_connection_has_others_wait_before_they_are_sent() {
        let turns = Arc::new(Turns::default());
        let (lost, next) = (connection().await, connection().await);
        let early = turns.enter(&remove("/a/b"), true, &lost);
        let must_wait = |path, connection| turns.enter(&remove(path), true, connection).1;
        assert!(!must_wait("/a/b", &lost));
        assert!(must_wait("/a", &next) && !must_wait("/c", &next));
        drop(early);
        assert!(!must_wait("/a", &next));
    }

    #[tokio::test]
    async fn below_a_directory_that_is_being_renamed_its_answer_can_be_waited_for() {
        let (turns, connection) = (Arc::new(Turns::default()), connection().await);
        let (from, to) = (Bytes::from_static(b"/a"), Bytes::from_static(b"/b"));
        let rename = turns.enter(&Request::PosixRename { from, to }, true, &connection);
        let is_free = |path: &[u8]| turns.no_rename_above(path).now_or_never().is_some();
        assert!(!is_free(b"/a/f") && is_free(b"/b/f") && is_free(b"/ab"));
        drop(rename);
        assert!(is_free(b"/a/f"));
    }

    #[tokio::test]
    async fn what_comes_behind_a_change_that_waits_waits_too() {
        let turns = Arc::new(Turns::default());
        let (lost, next) = (connection().await, connection().await);
        let _early = turns.enter(&remove("/a/f"), true, &lost);
        let (from, to) = (Bytes::from_static(b"/a/f"), Bytes::from_static(b"/c/f"));
        let link = turns.enter(&Request::Hardlink { from, to }, true, &next);
        assert!(link.1);
        assert!(turns.enter(&remove("/c/f"), false, &next).1);
        drop(link);
        assert!(!turns.enter(&remove("/c/f"), false, &next).1);
    }
}
