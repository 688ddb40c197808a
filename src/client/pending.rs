//! Which requests await an answer, and who waits for each. Pure state: no I/O and no locks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, oneshot};

use crate::error::{Error, Result};
use crate::sftp::{Request, RequestId, Response, StatusCode};

/// What a waiter gets in the end.
pub(super) type Answer = Result<Response>;

/// The requests of one connection that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last_id: u32,
    waiters: HashMap<RequestId, Waiter>,
    /// Why the connection ended, once it has. Nothing is registered after that.
    lost: Option<Error>,
}

#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Answer>,
    asked: Asked,
}

/// What is known of a request when its answer comes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) when: Instant,
    /// What may answer it.
    pub(super) expects: Expects,
    /// Of READ and WRITE.
    pub(super) data: Option<Data>,
}

/// What may answer a request, beside a STATUS that refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expects {
    Ok,
    Handle,
    /// So many bytes at most.
    Data(u32),
    Names,
    Attrs,
    Extended,
    Anything,
}

impl Expects {
    /// By draft-ietf-secsh-filexfer-02, section 7, and OpenSSH's PROTOCOL.
    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Open { .. } | Request::Opendir { .. } => Self::Handle,
            Request::Read { len, .. } => Self::Data(*len),
            Request::Lstat { .. } | Request::Stat { .. } | Request::Fstat { .. } => Self::Attrs,
            Request::Readdir { .. }
            | Request::Realpath { .. }
            | Request::Readlink { .. }
            | Request::ExpandPath { .. }
            | Request::HomeDirectory { .. } => Self::Names,
            Request::Statvfs { .. }
            | Request::Fstatvfs { .. }
            | Request::Limits
            | Request::UsersGroupsById { .. } => Self::Extended,
            Request::Init { .. } | Request::Extended { .. } => Self::Anything,
            _ => Self::Ok,
        }
    }

    /// # Errors
    /// An answer that the protocol does not allow: who sends it has lost the thread.
    fn check(self, response: &Response) -> Result<()> {
        let fits = match (self, response) {
            (Self::Data(len), Response::Data(data)) if data.len() as u64 > u64::from(len) => {
                return Err(Error::Protocol("DATA longer than asked for"));
            }
            (Self::Anything, _)
            | (Self::Handle, Response::Handle(_))
            | (Self::Data(_), Response::Data(_))
            | (Self::Names, Response::Names(_))
            | (Self::Attrs, Response::Attrs(_))
            | (Self::Extended, Response::Extended(_)) => true,
            (expects, Response::Status { code, .. }) => {
                let is_ok = code.0 == StatusCode::OK.0;
                !is_ok || matches!(expects, Self::Ok)
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(Error::Protocol("an answer of the wrong type")),
        }
    }
}

/// A READ's or WRITE's part of the window.
#[derive(Debug)]
pub(super) struct Data {
    /// Given back with the answer.
    pub(super) place: OwnedSemaphorePermit,
    /// Bytes that the request carries: of WRITE.
    pub(super) carried: usize,
    /// Of a file that is written on several connections.
    pub(super) _unanswered: Option<Unanswered>,
}

/// Held until the answer: what must come after it waits for this to go.
pub(super) type Unanswered = OwnedRwLockReadGuard<()>;

impl Pending {
    /// A number for a new request, and where its answer will arrive.
    ///
    /// # Errors
    /// The connection's end, once it has ended.
    pub(super) fn register(
        &mut self,
        asked: Asked,
    ) -> Result<(RequestId, oneshot::Receiver<Answer>)> {
        if let Some(error) = &self.lost {
            return Err(error.clone());
        }
        let id = self.free_id()?;
        let (tell, told) = oneshot::channel();
        self.waiters.insert(id, Waiter { tell, asked });
        Ok((id, told))
    }

    /// Hands an answer to its waiter. A waiter that gave up is no error; an id we never used is.
    /// Gives what was known of the request, and the answer back if nobody waits for it.
    pub(super) fn complete(
        &mut self,
        id: RequestId,
        response: Response,
    ) -> Result<(Asked, Option<Response>)> {
        let Entry::Occupied(waiter) = self.waiters.entry(id) else {
            return Err(Error::Protocol("answer nobody asked for"));
        };
        // If it does not fit the waiter stays, and hears of the connection's end.
        waiter.get().asked.expects.check(&response)?;
        let waiter = waiter.remove();
        let unheard = waiter.tell.send(Ok(response)).err();
        Ok((waiter.asked, unheard.and_then(Result::ok)))
    }

    /// Ends every wait, present and future, with the same error.
    pub(super) fn lose(&mut self, error: &Error) {
        let error = self.lost.get_or_insert_with(|| error.clone());
        for (_, waiter) in self.waiters.drain() {
            let _ = waiter.tell.send(Err(error.clone()));
        }
    }

    /// Why the connection ended, if it has.
    pub(super) const fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many there are, and since when the oldest waits.
    pub(super) fn outstanding(&self) -> (usize, Option<Instant>) {
        let oldest = self.waiters.values().map(|waiter| waiter.asked.when).min();
        (self.waiters.len(), oldest)
    }

    /// Another number than before: something was asked meanwhile.
    pub(super) const fn last_id(&self) -> u32 {
        self.last_id
    }

    /// The next number that no unanswered request has; the counter wraps after 4 billion.
    fn free_id(&mut self) -> Result<RequestId> {
        if self.waiters.len() >= WAITERS_MAX {
            return Err(Error::Protocol("too many requests without an answer"));
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.waiters.contains_key(&RequestId(self.last_id)) {
                return Ok(RequestId(self.last_id));
            }
        }
    }
}

/// Far above what the kernel keeps waiting; reached only if a server swallows requests.
const WAITERS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Asked {
        Asked {
            when: crate::clock::now(),
            expects: Expects::Anything,
            data: None,
        }
    }

    #[test]
    fn an_answer_reaches_the_one_who_asked() {
        let mut pending = Pending::default();
        let (first, mut told_first) = pending.register(small()).unwrap();
        let (second, mut told_second) = pending.register(small()).unwrap();
        pending
            .complete(second, Response::Data(b"2"[..].into()))
            .unwrap();
        assert!(told_first.try_recv().is_err());
        assert_eq!(
            told_second.try_recv().unwrap(),
            Ok(Response::Data(b"2"[..].into()))
        );
        pending
            .complete(first, Response::Data(b"1"[..].into()))
            .unwrap();
        assert_eq!(
            told_first.try_recv().unwrap(),
            Ok(Response::Data(b"1"[..].into()))
        );
        assert!(pending.is_empty());
    }

    #[test]
    fn an_answer_nobody_asked_for_breaks_the_protocol() {
        let mut pending = Pending::default();
        let answer = Response::Data(b""[..].into());
        assert!(matches!(
            pending.complete(RequestId(7), answer),
            Err(Error::Protocol(_))
        ));
    }

    #[test]
    fn a_lost_connection_fails_those_waiting_and_those_to_come() {
        let mut pending = Pending::default();
        let (_, mut told) = pending.register(small()).unwrap();
        let lost = Error::Lost("the server hung up".into());
        pending.lose(&lost);
        assert_eq!(told.try_recv().unwrap(), Err(lost.clone()));
        assert_eq!(pending.register(small()).unwrap_err(), lost);
    }

    #[test]
    fn a_number_is_not_given_twice_while_its_first_owner_waits() {
        let mut pending = Pending::default();
        let (first, _told) = pending.register(small()).unwrap();
        pending.last_id = first.0.wrapping_sub(1);
        let (second, _told) = pending.register(small()).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn an_answer_to_a_waiter_that_gave_up_is_no_error_and_comes_back() {
        let mut pending = Pending::default();
        let (id, told) = pending.register(small()).unwrap();
        drop(told);
        let answer = Response::Data(b""[..].into());
        let (_, unheard) = pending.complete(id, answer.clone()).unwrap();
        assert_eq!(unheard, Some(answer));
    }
}
