//! Reading: what a reader will want next is asked for before it does.
//!
//! `pattern` sees how a file is read, `plan` what to ask for, both without knowing a server;
//! `flight` and `budget` say how much that may be altogether. Asking and waiting is here and, of what
//! nobody waits for yet, in `ahead`.
//!
//! **Invariants:** nothing is asked for beyond the end that is known, nor twice while it is here or
//! on its way. A short answer is never taken for the end of the file, an error never for data. What
//! somebody waits for is bounded by none of this.

mod ahead;
mod budget;
mod flight;
mod pattern;
mod plan;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;

use self::ahead::Ahead;
pub(super) use self::budget::Budget;
use self::pattern::StreamId;
pub(super) use self::plan::{Bounds, Reader};
use super::handles::OpenFile;
use super::shared_file::Moment;
use crate::cache::Block;
use crate::client::{Client, Handle};
use crate::clock;
use crate::error::Result;

/// What reading needs besides the file.
pub(super) struct Reading<'a> {
    pub(super) client: &'a Arc<Client>,
    /// The server's handle of the file.
    pub(super) handle: &'a Handle,
    /// Bytes that may be held ahead of all readers together.
    pub(super) budget: &'a Arc<Budget>,
    pub(super) bounds: Bounds,
}

/// Reads `wanted`: all of it, but for what lies beyond the end of the file.
///
/// # Errors
/// What the server answered, or the connection's end.
pub(super) async fn read(
    reading: &Reading<'_>,
    file: &Arc<OpenFile>,
    wanted: Range<u64>,
) -> Result<Bytes> {
    loop {
        let moment = file.shared.moment(&wanted);
        if moment.must_wait {
            file.shared.written().await;
            continue;
        }
        let Some(asked) = submit(reading, file, &wanted, moment) else {
            continue;
        };
        let data = collect(reading, file, &wanted, asked).await?;
        let is_short = (data.len() as u64) < wanted.end - wanted.start;
        if !is_short || moment.is_settled {
            return Ok(data);
        }
        // The file ends there on the server, but a write on its way may have moved the end. The
        // kernel would take a short answer for the new end of the file.
        file.shared.written().await;
    }
}

/// What the answer is made of.
struct Asked {
    /// The blocks that hold it, in order.
    blocks: Vec<Block>,
    stream: Option<StreamId>,
}

async fn collect(
    reading: &Reading<'_>,
    file: &OpenFile,
    wanted: &Range<u64>,
    asked: Asked,
) -> Result<Bytes> {
    let Asked { blocks, stream } = asked;
    let answers = join_all(blocks.iter().map(|block| block.fetch.clone())).await;
    let data = gather(reading, wanted, blocks.into_iter().zip(answers)).await;
    let len = wanted.end - wanted.start;
    let is_whole = data.as_ref().is_ok_and(|data| data.len() as u64 == len);
    file.reader().done(wanted, stream, is_whole);
    data
}

/// Asks for what the plan says. What is demanded is first polled, and so sent, by whoever waits for
/// it, and before anything is asked for ahead. `None` if the moment has passed: another reader of
/// this open has seen a later change.
fn submit(
    reading: &Reading<'_>,
    file: &Arc<OpenFile>,
    wanted: &Range<u64>,
    moment: Moment,
) -> Option<Asked> {
    let now = clock::now();
    let mut bounds = reading.bounds;
    let mut reader = file.reader();
    if !reader.renew(moment.version) {
        return None;
    }
    let share = reading.budget.share(reader.holder, bounds.ahead_max, now);
    // What is on its way may lie beside what is wanted: nothing else is read.
    bounds.ahead_max = if moment.is_settled { share.bytes } else { 0 };
    let plan = reader.plan(wanted, bounds);
    let stream = plan.stream;
    for range in plan.demand {
        let block = demand(reading, &range, stream);
        // Polled once it is sent, if there is a place for it.
        let _ = block.fetch.clone().now_or_never();
        reader.blocks.insert(block);
    }
    let blocks = blocks_of(&reader, wanted);
    if let Some(stream) = stream.filter(|_| !plan.ahead.is_empty()) {
        Client::expect_reads(
            reading.handle,
            reading.bounds.size.saturating_sub(wanted.end),
        );
        let ahead = Ahead {
            client: Arc::clone(reading.client),
            budget: Arc::clone(reading.budget),
            file: Arc::downgrade(file),
            stream,
            bounds: reading.bounds,
        };
        ahead.ask(reading.handle, file, &mut reader, &plan.ahead, share);
    }
    drop(reader);
    // For its next read: another reader's lock is not taken under this one's.
    reading.budget.make_room(now);
    Some(Asked { blocks, stream })
}

fn blocks_of(reader: &Reader, wanted: &Range<u64>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = wanted.start;
    while at < wanted.end
        && let Some(block) = reader.blocks.at(at)
    {
        at = block.end();
        blocks.push(block.clone());
    }
    blocks
}

/// A READ that somebody waits for; sent when first polled and there is a place for it.
fn demand(reading: &Reading<'_>, range: &Range<u64>, stream: Option<StreamId>) -> Block {
    let (client, handle) = (Arc::clone(reading.client), reading.handle.clone());
    let (start, len) = (range.start, request_len(range));
    let fetch = async move { client.read(&handle, start, len).await };
    Block {
        start,
        len: u64::from(len),
        fetch: fetch.boxed().shared(),
        stream: stream.map_or(0, |stream| stream.0),
        part: None,
    }
}

/// Puts the answer together. One block that holds all of it is handed on without a copy.
async fn gather(
    reading: &Reading<'_>,
    wanted: &Range<u64>,
    blocks: impl Iterator<Item = (Block, Result<Bytes>)>,
) -> Result<Bytes> {
    let mut blocks = blocks.peekable();
    let mut whole = BytesMut::new();
    let mut at = wanted.start;
    while let Some((block, answer)) = blocks.next() {
        let data = answer?;
        if data.is_empty() {
            // Only the end of the file is that.
            return Ok(whole.freeze());
        }
        let skip = usize::try_from(at - block.start)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let take = usize::try_from(wanted.end - at)
            .unwrap_or(usize::MAX)
            .min(data.len() - skip);
        let part = data.slice(skip..skip + take);
        at += part.len() as u64;
        if at == wanted.end && whole.is_empty() {
            return Ok(part);
        }
        whole.extend_from_slice(&part);
        let due = block.end().min(wanted.end);
        if at < due && !fill(reading, at..due, &mut whole).await? {
            return Ok(whole.freeze());
        }
        at = due;
        if blocks.peek().is_none() {
            break;
        }
    }
    fill(reading, at..wanted.end, &mut whole).await?;
    Ok(whole.freeze())
}

/// Reads what a short answer left out. False at the end of the file.
async fn fill(reading: &Reading<'_>, mut range: Range<u64>, whole: &mut BytesMut) -> Result<bool> {
    while range.start < range.end {
        let end = range.end.min(range.start + reading.bounds.request);
        let len = request_len(&(range.start..end));
        let data = reading
            .client
            .read(reading.handle, range.start, len)
            .await?;
        if data.is_empty() {
            return Ok(false);
        }
        range.start += data.len() as u64;
        whole.extend_from_slice(&data);
    }
    Ok(true)
}

/// A range's length for the wire; plans never exceed the limit of one request.
fn request_len(range: &Range<u64>) -> u32 {
    u32::try_from(range.end - range.start).unwrap_or(u32::MAX)
}
