//! What is asked for ahead of a reader: when it reads, and again whenever an answer to that comes.
//! While the reader waits for one slow answer, of several connections, the others would run dry.
//!
//! **Invariant:** an answer has nothing asked for that its stream of reads does not reach: a reader
//! that has stopped, left, or closed the file gets nothing more.

use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use nix::errno::Errno;

use super::budget::{Budget, Share};
use super::pattern::StreamId;
use super::{Bounds, OpenFile, Reader, request_len};
use crate::cache::Block;
use crate::client::{Client, Handle};
use crate::clock;

/// For whom, and of what, something is asked for ahead.
#[derive(Clone)]
pub(super) struct Ahead {
    pub(super) client: Arc<Client>,
    pub(super) budget: Arc<Budget>,
    /// Closed when its last user is gone, whatever is on its way.
    pub(super) file: Weak<OpenFile>,
    pub(super) stream: StreamId,
    /// With all that the option allows; what the budget gives is found out each time.
    pub(super) bounds: Bounds,
}

impl Ahead {
    /// Sends READs that nobody waits for, in this order, as long as there is memory and a place.
    pub(super) fn ask(
        &self,
        handle: &Handle,
        file: &OpenFile,
        reader: &mut Reader,
        ranges: &[Range<u64>],
        share: Share,
    ) {
        self.budget.carried_by(self.client.connections());
        for range in ranges {
            let Some(block) = self.ask_one(handle, file, reader, range, share) else {
                return;
            };
            reader.blocks.insert(block);
        }
    }

    fn ask_one(
        &self,
        handle: &Handle,
        file: &OpenFile,
        reader: &mut Reader,
        range: &Range<u64>,
        share: Share,
    ) -> Option<Block> {
        let len = request_len(range);
        let (holder, now) = (&mut reader.holder, clock::now());
        let part = self
            .budget
            .take(holder, &file.reader, len.into(), share, now)?;
        let part = Arc::new(part);
        let Some(fetch) = self.client.read_ahead(handle, range.start, len) else {
            part.arrived(false, now);
            return None;
        };
        // A task of its own, so that the moment of the answer is known, and what is under way is
        // counted until then also where the block was given up.
        let (under_way, ahead) = (Arc::clone(&part), self.clone());
        let task = tokio::spawn(async move {
            let answer = fetch.await;
            under_way.arrived(answer.is_ok(), clock::now());
            // Before the place of this answer is somebody else's; what failed is not gone on with.
            if answer.as_ref().is_ok_and(|data| !data.is_empty()) {
                ahead.refill();
            }
            answer.map(own)
        });
        let fetch = async {
            // A panic in there is ours, and not the server's: nobody tries again.
            task.await.unwrap_or(Err(Errno::EIO.into()))
        };
        Some(Block {
            start: range.start,
            len: range.end - range.start,
            fetch: fetch.boxed().shared(),
            stream: self.stream.0,
            part: Some(part),
        })
    }

    /// Asks for what the reader's latest read would have asked for, had there been room for it.
    fn refill(&self) {
        let Some(file) = self.file.upgrade() else {
            return;
        };
        // The handle first: what was asked of one that serves no more is of an earlier version.
        let Some(handle) = file.handle() else {
            return;
        };
        let moment = file.shared.moment(&(0..0));
        let mut reader = file.reader();
        if !moment.is_settled || !reader.is_of(moment.version) {
            return;
        }
        let (most, now) = (self.bounds.ahead_max, clock::now());
        let share = reader
            .holder
            .and_then(|holder| self.budget.share_of(holder, most, now));
        let Some(share) = share else {
            return;
        };
        let bounds = Bounds {
            ahead_max: share.bytes,
            ..self.bounds
        };
        let mut more = reader.more(self.stream, bounds);
        if more.is_empty() && self.budget.has_room(bounds.request) {
            reader.widen(self.stream, bounds);
            more = reader.more(self.stream, bounds);
        }
        self.ask(&handle, &file, &mut reader, &more, share);
    }
}

/// Data that keeps no larger buffer alive.
fn own(data: Bytes) -> Bytes {
    match data.len() < COPIED_BELOW {
        true => Bytes::copy_from_slice(&data),
        false => data,
    }
}

/// A smaller answer is copied out of the buffer that it came in, which may be much larger and would
/// be held with it.
const COPIED_BELOW: usize = 1 << 16;
