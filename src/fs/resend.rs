//! Sending what is unwritten of a file, also when the connection is lost: then what has no answer is
//! sent again in the order of the writes, by the handle that serves the file from then on.
//!
//! WRITEs say where their data goes, so that one that was done does no harm when it is done again.
//! What goes to the end of a file does: how much of it arrived is looked up first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Filesystem;
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
}

/// What is to be sent again, in the order of the writes. Pure state.
#[derive(Default)]
pub(super) struct Again {
    lost: BTreeMap<u64, Outgoing>,
    /// How many of them have been sent again and have no answer.
    resent: usize,
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
        self.resent = self.resent.saturating_sub(1);
        match came {
            Came::Back(answer) => {
                if !matches!(&answer.what, Answered::Look(_, Err(_))) {
                    self.losses.answered();
                }
                Some(answer)
            }
            Came::Lost(outgoing, error) => {
                let number = outgoing.number;
                if let Err(error) = self.losses.count(&error) {
                    let what = failed(&outgoing.what, error);
                    return Some(Answer { number, what });
                }
                self.lost.insert(number, outgoing);
                None
            }
        }
    }

    /// Something was sent, on a connection that was there.
    pub(super) fn sent(&mut self, by: Option<Handle>) {
        self.losses.sent();
        if self.resent > 0 {
            self.batch.by = self.batch.by.take().or(by);
        }
    }

    /// How long to wait before the next one is sent; told once for each lost connection.
    pub(super) fn rest(&mut self) -> Duration {
        self.losses.rest()
    }

    /// The next one to be sent, if `unanswered` is nothing that it must wait for, and whether it may
    /// have been done: what was sent before the loss comes back first, and only WRITEs with a place of
    /// their own are sent together.
    ///
    /// A change may follow them, where the server acts in order and on their connection only. A
    /// server that is slow to do what was on its way on a lost connection does both then; a WRITE that
    /// it does alone, behind what was sent again, would take the file's time back.
    pub(super) fn next(&mut self, unanswered: usize, in_order: bool) -> Option<(Outgoing, bool)> {
        if unanswered == 0 {
            (self.resent, self.batch) = (0, Batch::default());
        }
        let (_, first) = self.lost.first_key_value()?;
        let is_free = matches!(first.what, What::Data { .. }) && !first.via.appends;
        let is_change = matches!(first.what, What::Change { .. });
        let behind = self
            .batch
            .by
            .as_ref()
            .filter(|by| in_order && !by.is_lost());
        let may_follow = is_free || (is_change && behind.is_some());
        if unanswered > 0 && !(may_follow && unanswered == self.resent && !self.batch.is_closed) {
            return None;
        }
        let behind = behind.filter(|_| is_change).cloned();
        let (_, mut first) = self.lost.pop_first()?;
        self.resent = unanswered + 1;
        self.batch.is_closed = !is_free;
        let is_again = behind.is_none();
        if let Some(by) = behind {
            first.via.handle = by;
        }
        Some((first, is_again))
    }
}

/// Sends a request when there is a place for it; the future inside waits for the answer. `is_again`:
/// it may have been done already.
pub(super) async fn place(filesystem: Arc<Filesystem>, next: Outgoing, is_again: bool) -> Placed {
    if next.via.handle.is_lost() && !is_again {
        // In front of it come those that went with the connection, which may not be known yet.
        let error = Error::Lost("the connection was lost before".into());
        return Placed::not(Came::Lost(next, error));
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
            let missing = match is_again && via.appends {
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
        let path = self.path(file.shared.ino)?;
        let opened = self
            .client
            .open(path, OpenFlags::READ, Attrs::default())
            .await;
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) if error.is_of_connection() => return Err(error),
            // A log that may be written and not read: its size must do.
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
