//! What programs have done to one open file and the server has not answered yet: small writes that
//! follow each other become one request, requests go out in the order of the writes, and changes of
//! attributes keep their place among them. Pure state.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::handles::Fh;
use crate::client::Handle;
use crate::sftp::Attrs;

/// A part of what may be unwritten; given back when it is dropped.
pub(super) struct Budget {
    /// Of what one file may have.
    pub(super) of_file: OwnedSemaphorePermit,
    /// Of what all files may have together.
    pub(super) of_all: OwnedSemaphorePermit,
}

impl Budget {
    /// Takes what is for `len` bytes out, or all that is left.
    fn split(&mut self, len: usize) -> Option<Self> {
        let take = |permit: &mut OwnedSemaphorePermit| permit.split(len.min(permit.num_permits()));
        let of_file = take(&mut self.of_file)?;
        let of_all = take(&mut self.of_all)?;
        Some(Self { of_file, of_all })
    }

    fn merge(&mut self, other: Self) {
        self.of_file.merge(other.of_file);
        self.of_all.merge(other.of_all);
    }
}

/// The newest data, for one WRITE request while it still grows.
struct Extent {
    number: u64,
    via: Via,
    offset: u64,
    data: BytesMut,
    budget: Budget,
}

/// Which open handle a request takes: writes through different handles are never merged, since one
/// may append where the other does not.
#[derive(Clone)]
pub(super) struct Via {
    pub(super) handle: Handle,
    /// Tells handles apart: which open, and whether it is its second handle, for pages.
    pub(super) id: (Fh, bool),
    /// What goes through it goes to the end of the file, wherever that is.
    pub(super) appends: bool,
}

/// A request to send now.
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) via: Via,
    pub(super) what: What,
}

/// What is asked of the server.
pub(super) enum What {
    /// WRITE.
    Data {
        offset: u64,
        data: Bytes,
        /// To be dropped with the answer.
        budget: Budget,
    },
    /// FSETSTAT.
    Change {
        attrs: Attrs,
        /// A program asked for it, and is to be told what goes wrong.
        is_asked: bool,
    },
    /// FSTAT: what all before it came to.
    Look,
}

impl What {
    const fn is_data(&self) -> bool {
        matches!(self, Self::Data { .. })
    }

    /// The bytes of the file that it is about.
    fn range(&self) -> Range<u64> {
        match self {
            Self::Data { offset, data, .. } => *offset..offset.saturating_add(data.len() as u64),
            Self::Change { .. } | Self::Look => 0..0,
        }
    }
}

struct Sent {
    /// The bytes that are written; none for what is no WRITE.
    range: Range<u64>,
    is_data: bool,
    is_change: bool,
    via: (Fh, bool),
}

/// A moment in the order of a file's writes; see [`Unwritten::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// What is unanswered of one file.
#[derive(Default)]
pub(super) struct Unwritten {
    next_number: u64,
    /// Complete requests that wait for their turn.
    ready: VecDeque<Outgoing>,
    /// The newest data, to which the next write may be added.
    growing: Option<Extent>,
    /// Sent, not answered.
    sent: BTreeMap<u64, Sent>,
    /// What the newest of all these goes through.
    newest: Option<Via>,
    /// Whether the newest of all these is a look.
    ends_in_look: bool,
    /// How many of these are changes of attributes.
    changes: usize,
    /// Bytes taken over so far, answered or not.
    taken: u64,
}

impl Unwritten {
    /// Takes `data` over. Cuts it into requests of `request_max` bytes.
    pub(super) fn add(
        &mut self,
        via: &Via,
        mut offset: u64,
        mut data: Bytes,
        request_max: usize,
        mut budget: Budget,
    ) {
        self.comes(via, false);
        self.taken += data.len() as u64;
        while !data.is_empty() {
            let room = self.room(via, offset, request_max);
            let now = data.split_to(room.min(data.len()));
            let (len, part) = (now.len(), budget.split(now.len()));
            match part {
                // Without a copy.
                Some(budget) if self.growing.is_none() && len >= request_max => {
                    let data = now;
                    self.push(
                        via,
                        What::Data {
                            offset,
                            data,
                            budget,
                        },
                    );
                }
                part => self.append(via, offset, &now, request_max, part),
            }
            offset += len as u64;
        }
    }

    /// Puts a change of attributes behind all that was taken over. False if there are too many
    /// already.
    pub(super) fn change(&mut self, via: &Via, requests: Vec<Attrs>, is_asked: bool) -> bool {
        if self.changes + requests.len() > CHANGES_MAX {
            return false;
        }
        self.comes(via, false);
        self.end_growing();
        self.changes += requests.len();
        for attrs in requests {
            self.push(via, What::Change { attrs, is_asked });
        }
        true
    }

    /// Has the server asked what all this came to, if there is anything, nobody asks yet, and the
    /// question can be sent behind it at once.
    pub(super) fn look(&mut self, in_order: bool) {
        if self.ends_in_look || self.is_empty() || !(in_order && self.is_small()) {
            return;
        }
        let Some(via) = self.newest.clone() else {
            return;
        };
        self.comes(&via, true);
        self.end_growing();
        self.push(&via, What::Look);
    }

    /// The next request to send. What still grows is sent when nothing is on its way (so that
    /// nothing waits without a reason, and what comes meanwhile is merged) or when `hurry` is set.
    /// `in_order`: the server acts on one connection's requests in the order in which it gets them.
    pub(super) fn next(&mut self, hurry: bool, in_order: bool) -> Option<Outgoing> {
        if self.ready.is_empty() && (hurry || self.sent.is_empty()) {
            self.end_growing();
        }
        if self.must_wait(self.ready.front()?, in_order && self.is_small()) {
            return None;
        }
        let next = self.ready.pop_front()?;
        let sent = Sent {
            range: next.what.range(),
            is_data: next.what.is_data(),
            is_change: matches!(next.what, What::Change { .. }),
            via: next.via.id,
        };
        self.sent.insert(next.number, sent);
        Some(next)
    }

    /// Notes the answer to a request; where it ended, if it was a WRITE.
    pub(super) fn answered(&mut self, number: u64) -> Option<u64> {
        let sent = self.sent.remove(&number);
        self.changes -= usize::from(sent.as_ref().is_some_and(|sent| sent.is_change));
        if self.is_empty() {
            self.newest = None;
            self.ends_in_look = false;
        }
        sent.filter(|sent| sent.is_data).map(|sent| sent.range.end)
    }

    /// Whether nothing but this request is unanswered.
    pub(super) fn is_only(&self, number: u64) -> bool {
        self.ready.is_empty()
            && self.growing.is_none()
            && self.sent.keys().all(|sent| *sent == number)
    }

    /// The open of the newest request, if there is one.
    pub(super) fn newest(&self) -> Option<Fh> {
        self.newest.as_ref().map(|via| via.id.0)
    }

    /// A mark behind all writes so far: they are done when [`Self::is_done`] says so.
    pub(super) const fn mark(&self) -> Mark {
        Mark(self.next_number)
    }

    /// Whether all writes before `mark` were answered.
    pub(super) fn is_done(&self, mark: Mark) -> bool {
        let ready = self.ready.front().map(|next| next.number);
        let growing = self.growing.as_ref().map(|extent| extent.number);
        let waiting = ready.or(growing);
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

    /// Bytes taken over and not answered.
    pub(super) fn bytes(&self) -> u64 {
        let growing = self.growing.as_ref().map(|extent| extent.data.len() as u64);
        let waiting = self.ready.iter().map(|next| next.what.range());
        let sent = self.sent.values().map(|sent| sent.range.clone());
        let under_way = waiting.chain(sent).map(|range| range.end - range.start);
        under_way.chain(growing).sum()
    }

    /// Whether a read of `range` would miss something.
    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let growing = self
            .growing
            .as_ref()
            .map(|extent| extent.offset..extent.offset + extent.data.len() as u64);
        let waiting = self.ready.iter().map(|next| next.what.range());
        let sent = self.sent.values().map(|sent| sent.range.clone());
        waiting
            .chain(growing)
            .chain(sent)
            .any(|other| other.start < range.end && range.start < other.end)
    }

    /// Two handles may be on two connections, between which nothing is in order; and a server may do
    /// two writes at once, which must not be of the same bytes. One that hands writes to several
    /// threads would set a time before the data that was sent before.
    fn must_wait(&self, next: &Outgoing, in_order: bool) -> bool {
        let range = next.what.range();
        self.sent.values().any(|sent| {
            sent.via != next.via.id
                || (sent.range.start < range.end && range.start < sent.range.end)
                || (!in_order && sent.is_data != next.what.is_data())
        })
    }

    /// A larger file may take several connections, which keep no order among them.
    pub(super) const fn is_small(&self) -> bool {
        self.taken <= SMALL
    }

    /// How much of a write at `offset` goes into the next request.
    fn room(&mut self, via: &Via, offset: u64, request_max: usize) -> usize {
        if let Some(growing) = &self.growing {
            let continues = growing.offset + growing.data.len() as u64 == offset;
            if continues && growing.via.id == via.id && growing.data.len() < request_max {
                return request_max - growing.data.len();
            }
            self.end_growing();
        }
        request_max
    }

    fn append(
        &mut self,
        via: &Via,
        offset: u64,
        data: &[u8],
        request_max: usize,
        budget: Option<Budget>,
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
                let (number, via) = (self.number(), via.clone());
                self.growing = Some(Extent {
                    number,
                    via,
                    offset,
                    data: data.into(),
                    budget,
                });
            }
        }
        let len = self
            .growing
            .as_ref()
            .map_or(0, |growing| growing.data.len());
        if len >= request_max {
            self.end_growing();
        }
    }

    /// What still grows is complete.
    fn end_growing(&mut self) {
        let Some(extent) = self.growing.take() else {
            return;
        };
        self.ready.push_back(Outgoing {
            number: extent.number,
            via: extent.via,
            what: What::Data {
                offset: extent.offset,
                data: extent.data.freeze(),
                budget: extent.budget,
            },
        });
    }

    fn push(&mut self, via: &Via, what: What) {
        let (number, via) = (self.number(), via.clone());
        self.ready.push_back(Outgoing { number, via, what });
    }

    const fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn comes(&mut self, via: &Via, is_look: bool) {
        self.newest = Some(via.clone());
        self.ends_in_look = is_look;
    }
}

/// So much of a file goes over one connection: the client takes more for a file of which twice as
/// much was written. A round trip more does not show beside it.
const SMALL: u64 = 1 << 20;
/// Changes of attributes that one file may have unanswered: `tar x` and `cp -a` make three of each.
/// Who makes more waits for the answers.
const CHANGES_MAX: usize = 16;
