//! What programs have written to one file and the server has not answered yet: small writes that
//! follow each other become one request, requests go out in the order of the writes. Pure state.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::handles::Fh;
use crate::client::Handle;

/// Data for one WRITE request, or for the next few while it still grows.
struct Extent {
    number: u64,
    via: Via,
    offset: u64,
    data: BytesMut,
    budget: OwnedSemaphorePermit,
}

/// Which open handle a write takes: writes through different handles are never merged, since one
/// may append where the other does not.
#[derive(Clone)]
pub(super) struct Via {
    pub(super) handle: Handle,
    /// Tells handles apart: which open, and whether it is its second handle, for pages.
    pub(super) id: (Fh, bool),
}

struct Sent {
    range: Range<u64>,
    via: (Fh, bool),
}

/// A WRITE to send now.
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) handle: Handle,
    pub(super) offset: u64,
    pub(super) data: Bytes,
    /// These bytes' part of what may be unwritten altogether; to be dropped with the answer.
    pub(super) budget: OwnedSemaphorePermit,
}

/// A moment in the order of a file's writes; see [`Unwritten::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// The unanswered writes of one file.
#[derive(Default)]
pub(super) struct Unwritten {
    next_number: u64,
    /// Complete requests that wait for their turn.
    ready: VecDeque<Extent>,
    /// The newest data, to which the next write may be added.
    growing: Option<Extent>,
    /// Sent, not answered.
    sent: BTreeMap<u64, Sent>,
}

impl Unwritten {
    /// Takes `data` over. Cuts it into requests of `request_max` bytes.
    pub(super) fn add(
        &mut self,
        via: &Via,
        mut offset: u64,
        mut data: &[u8],
        request_max: usize,
        mut budget: OwnedSemaphorePermit,
    ) {
        while !data.is_empty() {
            let room = self.room(via, offset, request_max);
            let (now, later) = data.split_at(room.min(data.len()));
            let part = budget.split(now.len().min(budget.num_permits()));
            self.append(via, offset, now, request_max, part);
            offset += now.len() as u64;
            data = later;
        }
    }

    /// The next request to send. What still grows is sent when nothing is on its way (so that
    /// nothing waits without a reason, and what comes meanwhile is merged) or when `hurry` is set.
    pub(super) fn next(&mut self, hurry: bool) -> Option<Outgoing> {
        if self.ready.is_empty() && (hurry || self.sent.is_empty()) {
            self.ready.extend(self.growing.take());
        }
        if self.must_wait(self.ready.front()?) {
            return None;
        }
        let extent = self.ready.pop_front()?;
        let via = extent.via.id;
        let end = extent.offset.saturating_add(extent.data.len() as u64);
        let range = extent.offset..end;
        self.sent.insert(extent.number, Sent { range, via });
        Some(Outgoing {
            number: extent.number,
            handle: extent.via.handle,
            offset: extent.offset,
            data: extent.data.freeze(),
            budget: extent.budget,
        })
    }

    /// Notes the answer to a request.
    pub(super) fn answered(&mut self, number: u64) {
        self.sent.remove(&number);
    }

    /// A mark behind all writes so far: they are done when [`Self::is_done`] says so.
    pub(super) const fn mark(&self) -> Mark {
        Mark(self.next_number)
    }

    /// Whether all writes before `mark` were answered.
    pub(super) fn is_done(&self, mark: Mark) -> bool {
        let waiting = self
            .ready
            .front()
            .or(self.growing.as_ref())
            .map(|extent| extent.number);
        let oldest = self
            .sent
            .keys()
            .next()
            .copied()
            .into_iter()
            .chain(waiting)
            .min();
        oldest.is_none_or(|oldest| oldest >= mark.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.growing.is_none() && self.sent.is_empty()
    }

    /// Whether a read of `range` would miss something.
    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let hits = |start: u64, end: u64| start < range.end && range.start < end;
        let waiting = self.ready.iter().chain(self.growing.as_ref());
        self.sent
            .values()
            .any(|sent| hits(sent.range.start, sent.range.end))
            || waiting
                .map(|extent| (extent.offset, extent.offset + extent.data.len() as u64))
                .any(|(start, end)| hits(start, end))
    }

    /// Two handles may be on two connections, between which nothing is in order; and a server may do
    /// two writes at once, which must not be of the same bytes.
    fn must_wait(&self, extent: &Extent) -> bool {
        let end = extent.offset.saturating_add(extent.data.len() as u64);
        self.sent.values().any(|sent| {
            sent.via != extent.via.id || (sent.range.start < end && extent.offset < sent.range.end)
        })
    }

    /// How much of a write at `offset` goes into the next request.
    fn room(&mut self, via: &Via, offset: u64, request_max: usize) -> usize {
        if let Some(growing) = &self.growing {
            let continues = growing.offset + growing.data.len() as u64 == offset;
            if continues && growing.via.id == via.id && growing.data.len() < request_max {
                return request_max - growing.data.len();
            }
            self.ready.extend(self.growing.take());
        }
        request_max
    }

    fn append(
        &mut self,
        via: &Via,
        offset: u64,
        data: &[u8],
        request_max: usize,
        budget: Option<OwnedSemaphorePermit>,
    ) {
        match &mut self.growing {
            Some(growing) => {
                // A second write: more are likely to follow.
                growing
                    .data
                    .reserve(request_max.saturating_sub(growing.data.len()));
                growing.data.extend_from_slice(data);
                if let Some(budget) = budget {
                    growing.budget.merge(budget);
                }
            }
            None => {
                let Some(budget) = budget else { return };
                let number = self.next_number;
                self.next_number += 1;
                let via = via.clone();
                self.growing = Some(Extent {
                    number,
                    via,
                    offset,
                    data: data.into(),
                    budget,
                });
            }
        }
        if self
            .growing
            .as_ref()
            .is_some_and(|growing| growing.data.len() >= request_max)
        {
            self.ready.extend(self.growing.take());
        }
    }
}
