//! Sending what is unwritten of a file, also when the connection is lost: then what has no answer is
//! sent again in the order of the writes, by the handle that serves the file from then on.
//!
//! WRITEs say where their data goes, so that one that was done does no harm when it is done again.
//! What goes to the end of a file does: how much of it arrived is looked up first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Filesystem;
use super::rooms::Work;
use super::unwritten::{Outgoing, Via, What};
use crate::client::{Handle, LossesTogether};
use crate::clock;
use crate::error::{Error, Result};
use crate::sftp::{Attrs, OpenFlags};

/// What became of a request.
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) what: Answered,
}

pub(super) enum Answered {
    /// A WRITE of so many bytes.
    Data(u64, Result<()>),
    /// Whether a program asked for it, and what became of it.
    Change(bool, Result<()>),
    /// When it was asked.
    Look(Instant, Result<Attrs>),
}

/// What came back of a request that was sent.
pub(super) enum Came {
    Back(Answer),
    /// The connection was lost before the answer.
    Lost(Outgoing, Error),
    /// The connection was lost before it was sent.
    Unsent(Outgoing),
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// By its own handle, or not.
    First,
    /// By whatever handle serves the file, if its own is lost.
    ByAny,
    /// The same, and it may have been done already.
    Again,
}

/// What is to be sent again, in the order of the writes. Pure state.
#[derive(Default)]
pub(super) struct Again {
    lost: BTreeMap<u64, (Outgoing, Attempt)>,
    /// Which of them have been sent again and have no answer.
    resent: BTreeSet<u64>,
    /// Behind the first of these, by whose handle: what acts in order may follow on its connection.
    batch: Batch,
    losses: LossesTogether,
}

/// What was sent again together.
#[derive(Default)]
struct Batch {
    by: Option<Handle>,
    /// A change is the last of it.
    is_closed: bool,
}

/// A request that was sent, or not.
pub(super) struct Placed {
    /// The handle that it was sent by.
    pub(super) by: Option<Handle>,
    pub(super) answer: BoxFuture<'static, Came>,
}

impl Placed {
    fn not(came: Came) -> Self {
        Self {
            by: None,
            answer: Box::pin(async move { came }),
        }
    }
}

impl Again {
    pub(super) fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }

    /// Keeps what was lost; gives all else back.
    pub(super) fn take_in(&mut self, came: Came) -> Option<Answer> {
        match came {
            Came::Back(answer) => {
                let was_lost = self.resent.remove(&answer.number);
                if !matches!(&answer.what, Answered::Look(_, Err(_))) {
                    self.losses.answered(was_lost);
                }
                Some(answer)
            }
            Came::Lost(outgoing, error) => {
                let number = outgoing.number;
                self.resent.remove(&number);
                if let Err(error) = self.losses.count(&error) {
                    let what = failed(&outgoing.what, error);
                    return Some(Answer { number, what });
                }
                self.lost.insert(number, (outgoing, Attempt::Again));
                None
            }
            Came::Unsent(outgoing) => {
                let number = outgoing.number;
                self.resent.remove(&number);
                self.lost.insert(number, (outgoing, Attempt::ByAny));
                None
            }
        }
    }

    /// Something was sent by this handle, on a connection that was there; or nothing.
    pub(super) fn sent(&mut self, by: Option<Handle>) {
        let Some(by) = by else { return };
        self.losses.sent();
        if !self.resent.is_empty() {
            self.batch.by.get_or_insert(by);
        }
    }

    /// How long to wait before the next one is sent; told once for each lost connection.
    pub(super) fn rest(&mut self) -> Duration {
        self.losses.rest()
    }

    /// The next one to be sent, if `unanswered` is nothing that it must wait for: what was sent before
    /// the loss comes back first, and only WRITEs with a place of their own are sent together.
    ///
    /// A change may follow them, where the server acts in order and on their connection only. A
    /// server that is slow to do what was on its way on a lost connection does both then; a WRITE that
    /// it does alone, behind what was sent again, would take the file's time back.
    pub(super) fn next(
        &mut self,
        unanswered: usize,
        in_order: bool,
    ) -> Option<(Outgoing, Attempt)> {
        if unanswered == 0 {
            self.resent.clear();
            self.batch = Batch::default();
        }
        let (_, (first, _)) = self.lost.first_key_value()?;
        let is_free = matches!(first.what, What::Data { .. }) && !first.via.appends;
        let is_change = matches!(first.what, What::Change { .. });
        let behind = self
            .batch
            .by
            .as_ref()
            .filter(|by| in_order && !by.is_lost());
        let may_follow = is_free || (is_change && behind.is_some());
        let is_apart = unanswered == self.resent.len() && !self.batch.is_closed;
        if unanswered > 0 && !(may_follow && is_apart) {
            return None;
        }
        let behind = behind.filter(|_| is_change).cloned();
        let (number, (mut first, mut attempt)) = self.lost.pop_first()?;
        self.resent.insert(number);
        self.batch.is_closed = !is_free;
        if let Some(by) = behind {
            first.via.handle = by;
            attempt = Attempt::First;
        }
        Some((first, attempt))
    }
}

/// Sends a request when there is a place for it; the future inside waits for the answer.
pub(super) async fn place(filesystem: Arc<Filesystem>, next: Outgoing, attempt: Attempt) -> Placed {
    if next.via.handle.is_lost() && attempt == Attempt::First {
        // In front of it come those that went with the connection, which may not be known yet.
        return Placed::not(Came::Unsent(next));
    }
    let Outgoing { number, via, what } = next;
    let via = match via.handle.is_lost() {
        true => filesystem.via_again(&via).await,
        false => Ok(via),
    };
    let via = match via {
        Ok(via) => via,
        Err(error) => {
            let what = failed(&what, error);
            return Placed::not(back(number, what));
        }
    };
    let client = &filesystem.client;
    let by = Some(via.handle.clone());
    let answer: BoxFuture<'static, Came> = match what {
        What::Data {
            offset,
            data,
            budget,
        } => {
            let len = data.len() as u64;
            let missing = match attempt == Attempt::Again && via.appends {
                true => filesystem.missing(&via, offset, &data).await,
                false => Ok(data.clone()),
            };
            let answer = match missing {
                Ok(missing) if missing.is_empty() => Ok(None),
                Ok(missing) => Ok(Some(client.write(&via.handle, offset, missing).await)),
                Err(error) => Err(error),
            };
            let sent = clock::of_timers();
            Box::pin(async move {
                let done = match answer {
                    Ok(Some(answer)) => answer.await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if done.is_ok() {
                    filesystem.pace.confirmed(sent, clock::of_timers());
                }
                match done {
                    Err(error) if error.is_of_connection() => {
                        let what = What::Data {
                            offset,
                            data,
                            budget,
                        };
                        Came::Lost(Outgoing { number, via, what }, error)
                    }
                    done => back(number, Answered::Data(len, done)),
                }
            })
        }
        What::Change { attrs, is_asked } => {
            let answer = client.fsetstat(&via.handle, attrs.clone());
            Box::pin(async move {
                match answer.await {
                    Err(error) if error.is_of_connection() => {
                        let what = What::Change { attrs, is_asked };
                        Came::Lost(Outgoing { number, via, what }, error)
                    }
                    done => back(number, Answered::Change(is_asked, done)),
                }
            })
        }
        What::Look => {
            let (asked, answer) = (clock::now(), client.fstat(&via.handle));
            Box::pin(async move { back(number, Answered::Look(asked, answer.await)) })
        }
    };
    Placed { by, answer }
}

const fn back(number: u64, what: Answered) -> Came {
    Came::Back(Answer { number, what })
}

fn failed(what: &What, error: Error) -> Answered {
    match what {
        What::Data { data, .. } => Answered::Data(data.len() as u64, Err(error)),
        What::Change { is_asked, .. } => Answered::Change(*is_asked, Err(error)),
        What::Look => Answered::Look(clock::now(), Err(error)),
    }
}

impl Filesystem {
    /// The handle that a write takes whose own was lost.
    async fn via_again(&self, via: &Via) -> Result<Via> {
        let (fh, is_for_pages) = via.id;
        let file = self.open_file(fh)?;
        self.via(&file, fh, is_for_pages).await
    }

    /// What of an append is not on the server. It began at `offset` if nobody else has appended.
    ///
    /// Somebody else may have, in front of it: then its bytes are looked for in what was added, and
    /// others' bytes that are the same are taken for them.
    async fn missing(&self, via: &Via, offset: u64, data: &Bytes) -> Result<Bytes> {
        let size = self.client.fstat(&via.handle).await?.size.unwrap_or(0);
        if size <= offset {
            return Ok(data.clone());
        }
        let file = self.open_file(via.id.0)?;
        // Or its name would lead to what is renamed over it meanwhile.
        let no_name_moves = self.rooms.enter(Work::OpeningAgain).await;
        let opened = match self.path(file.shared.ino) {
            Ok(path) => {
                let open = self.client.open(path, OpenFlags::READ, Attrs::default());
                open.await
            }
            // It was removed meanwhile, and is open.
            Err(error) => Err(error),
        };
        drop(no_name_moves);
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) if error.is_of_connection() => return Err(error),
            // Also a log that may be written and not read: its size must do.
            Err(_) => {
                let there = usize::try_from(size - offset).unwrap_or(usize::MAX);
                return Ok(data.slice(there.min(data.len())..));
            }
        };
        let added = self.added(&reader, offset..size).await?;
        Ok(data.slice(arrived(data, &added)..))
    }

    /// What was added to a file, as much of it as is looked through.
    async fn added(&self, reader: &Handle, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let mut added = Vec::new();
        let mut at = range.start;
        while at < range.end && added.len() < LOOKED_THROUGH_MAX {
            let len = u32::try_from(range.end - at).unwrap_or(u32::MAX);
            let len = len.min(self.client.features().read_max);
            let data = self.client.read(reader, at, len).await?;
            if data.is_empty() {
                break;
            }
            at += data.len() as u64;
            added.extend_from_slice(&data);
        }
        Ok(added)
    }
}

/// How many of the first bytes of `data` are among what was added to a file.
fn arrived(data: &[u8], added: &[u8]) -> usize {
    if added.starts_with(data) {
        return data.len();
    }
    if data.starts_with(added) {
        // A full disk: the rest may fit now.
        return added.len();
    }
    match added.windows(data.len()).any(|part| part == data) {
        true => data.len(),
        false => 0,
    }
}

/// Much more than one write, since others may have appended meanwhile.
const LOOKED_THROUGH_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_of_an_append_is_not_appended_again() {
        assert_eq!(arrived(b"line", b""), 0);
        assert_eq!(arrived(b"line", b"line"), 4);
        assert_eq!(arrived(b"line", b"li"), 2);
        assert_eq!(arrived(b"line", b"another's\nline"), 4);
        assert_eq!(arrived(b"line", b"another's\n"), 0);
        assert_eq!(arrived(b"line", b"linger"), 0);
    }
}
