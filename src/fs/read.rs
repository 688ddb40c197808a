//! Reading: what a reader will want next is asked for before it does. The plan is pure; asking and
//! waiting follow below it.
//!
//! **Invariants:** nothing is asked for beyond the end that is known, nor twice while it is here or
//! on its way. A short answer is never taken for the end of the file, an error never for data.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::handles::OpenFile;
use super::shared_file::Moment;
use crate::cache::{Block, Blocks};
use crate::client::{Client, Handle};
use crate::error::Result;

/// One reader: where it is, how far it has come in one go, and what was asked for ahead of it.
#[derive(Default)]
pub(super) struct Reader {
    /// Where a sequential reader would go on.
    at: u64,
    /// Bytes read in one go.
    run: u64,
    /// The last read went on where the one before it ended, or began at the file's start.
    is_sequential: bool,
    blocks: Blocks,
    /// The file's version that the blocks are of.
    version: u64,
}

/// What bounds the plan, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The file's size, as far as it is known.
    pub(super) size: u64,
    /// One request.
    pub(super) request: u64,
    /// What may be asked for ahead of this reader.
    pub(super) ahead_max: u64,
}

/// What to ask for, in requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Needed for the answer.
    pub(super) demand: Vec<Range<u64>>,
    /// Likely to be needed next.
    pub(super) ahead: Vec<Range<u64>>,
}

impl Reader {
    /// Plans a read of `wanted` and notes it.
    pub(super) fn plan(&mut self, wanted: &Range<u64>, bounds: Bounds) -> Plan {
        let is_sequential = wanted.start.abs_diff(self.at) <= SLACK;
        self.is_sequential = is_sequential;
        if !is_sequential {
            // What was fetched for another place is not waited for there any more.
            self.blocks.clear();
        }
        self.run = if is_sequential { self.run } else { 0 } + (wanted.end - wanted.start);
        self.at = if is_sequential {
            self.at.max(wanted.end)
        } else {
            wanted.end
        };
        let mut plan = Plan::default();
        self.demand(wanted, bounds, is_sequential, &mut plan.demand);
        if is_sequential {
            let from = plan
                .demand
                .last()
                .map_or(wanted.end, |last| last.end.max(wanted.end));
            self.ahead(from, bounds, &mut plan.ahead);
        }
        plan
    }

    /// What of `wanted` is neither here nor on its way. A sequential reader gets whole requests.
    fn demand(&self, wanted: &Range<u64>, bounds: Bounds, whole: bool, out: &mut Vec<Range<u64>>) {
        let mut from = self.blocks.missing_from(wanted.start);
        while from < wanted.end {
            let mut to = from + bounds.request;
            if !whole || bounds.ahead_max == 0 {
                to = to.min(wanted.end);
            }
            // What lies beyond the known size is asked for only if it is wanted.
            to = to.min(bounds.size.max(wanted.end));
            to = self.blocks.next_start(from).map_or(to, |next| to.min(next));
            out.push(from..to);
            from = self.blocks.missing_from(to);
        }
    }

    /// Twice as much ahead as was read in one go, so that little is wasted on one who stops.
    fn ahead(&self, from: u64, bounds: Bounds, out: &mut Vec<Range<u64>>) {
        let window = (self.run * 2).max(bounds.request * 2).min(bounds.ahead_max);
        let limit = from.saturating_add(window).min(bounds.size);
        let mut from = self.blocks.missing_from(from);
        // Whole requests only, but for the last one of the file.
        let is_worth_it = |from| limit - from >= bounds.request || limit == bounds.size;
        while bounds.ahead_max > 0 && from < limit && is_worth_it(from) {
            let to = (from + bounds.request).min(limit);
            let to = self.blocks.next_start(from).map_or(to, |next| to.min(next));
            out.push(from..to);
            from = self.blocks.missing_from(to);
        }
    }

    /// Drops what was fetched of an earlier version of the file. False if `version` is the
    /// earlier one.
    fn renew(&mut self, version: u64) -> bool {
        if self.version < version {
            self.blocks.clear();
            self.version = version;
        }
        self.version == version
    }
}

/// What reading needs besides the file.
pub(super) struct Reading<'a> {
    pub(super) client: &'a Arc<Client>,
    /// The server's handle of the file.
    pub(super) handle: &'a Handle,
    /// Bytes that may be held ahead of all readers together.
    pub(super) budget: &'a Arc<Semaphore>,
    pub(super) bounds: Bounds,
}

/// Reads `wanted`: all of it, but for what lies beyond the end of the file.
///
/// # Errors
/// What the server answered, or the connection's end.
pub(super) async fn read(
    reading: &Reading<'_>,
    file: &OpenFile,
    wanted: Range<u64>,
) -> Result<Bytes> {
    loop {
        let moment = file.shared.moment(&wanted);
        if moment.must_wait {
            file.shared.written().await;
            continue;
        }
        let Some(blocks) = submit(reading, file, &wanted, moment) else {
            continue;
        };
        let data = collect(reading, file, &wanted, blocks).await?;
        let is_short = (data.len() as u64) < wanted.end - wanted.start;
        if !is_short || moment.is_settled {
            return Ok(data);
        }
        // The file ends there on the server, but a write on its way may have moved the end. The
        // kernel would take a short answer for the new end of the file.
        file.shared.written().await;
    }
}

async fn collect(
    reading: &Reading<'_>,
    file: &OpenFile,
    wanted: &Range<u64>,
    blocks: Vec<Block>,
) -> Result<Bytes> {
    let answers = join_all(blocks.iter().map(|block| block.fetch.clone())).await;
    let data = gather(reading, wanted, blocks.into_iter().zip(answers)).await;
    let mut reader = file.reader();
    let done = reader.at.saturating_sub(SLACK).min(wanted.end);
    reader.blocks.remove_before(done);
    let len = wanted.end - wanted.start;
    let is_whole = data.as_ref().is_ok_and(|data| data.len() as u64 == len);
    if !is_whole || !reader.is_sequential {
        // What failed or ended there may be otherwise next time; a random reader does not come
        // back.
        reader.blocks.remove(wanted.clone());
    }
    data
}

/// Asks for what the plan says; gives the blocks that hold `wanted`, in order. The demanded ones
/// are first polled, and so sent, by whoever waits for them. `None` if the moment has passed:
/// another reader of this open has seen a later change.
fn submit(
    reading: &Reading<'_>,
    file: &OpenFile,
    wanted: &Range<u64>,
    moment: Moment,
) -> Option<Vec<Block>> {
    let mut bounds = reading.bounds;
    if !moment.is_settled {
        // What is on its way may lie beside what is wanted: nothing else is read.
        bounds.ahead_max = 0;
    }
    let mut reader = file.reader();
    if !reader.renew(moment.version) {
        return None;
    }
    let plan = reader.plan(wanted, bounds);
    for range in plan.demand {
        let (client, handle) = (Arc::clone(reading.client), reading.handle.clone());
        let (start, len) = (range.start, request_len(&range));
        let fetch = async move { client.read(&handle, start, len).await }
            .boxed()
            .shared();
        reader.blocks.insert(Block {
            start,
            len: range.end - start,
            fetch,
            _budget: None,
        });
    }
    let mut blocks = Vec::new();
    let mut at = wanted.start;
    while at < wanted.end
        && let Some(block) = reader.blocks.at(at)
    {
        at = block.end();
        blocks.push(block.clone());
    }
    for range in plan.ahead {
        let Some(block) = ask_ahead(reading, &range) else {
            break;
        };
        reader.blocks.insert(block);
    }
    Some(blocks)
}

/// Sends a READ that nobody waits for, if there is memory and a place for it.
fn ask_ahead(reading: &Reading<'_>, range: &Range<u64>) -> Option<Block> {
    let len = request_len(range);
    let budget = Arc::clone(reading.budget)
        .try_acquire_many_owned(len)
        .ok()?;
    let fetch = reading
        .client
        .read_ahead(reading.handle, range.start, len)?;
    Some(Block {
        start: range.start,
        len: range.end - range.start,
        fetch: fetch.boxed().shared(),
        _budget: Some(Arc::new(budget)),
    })
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

/// How far a sequential reader's requests may come out of order: the kernel's read-ahead is spread
/// over several threads, and its largest request is 1 MiB.
const SLACK: u64 = 1 << 20;

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a plan is a list of ranges, also when it is one"
)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const KIB: u64 = 1 << 10;
    const BOUNDS: Bounds = Bounds {
        size: 100_000 * KIB,
        request: 256 * KIB,
        ahead_max: 4096 * KIB,
    };

    /// Plans a read and carries the plan out, with nothing behind it.
    fn step(reader: &mut Reader, wanted: Range<u64>, bounds: Bounds) -> Plan {
        let plan = reader.plan(&wanted, bounds);
        for range in plan.demand.iter().chain(&plan.ahead) {
            for at in [range.start, range.end - 1] {
                assert!(
                    reader.blocks.at(at).is_none(),
                    "{range:?} is asked for twice"
                );
            }
            let fetch = async { Ok(Bytes::new()) }.boxed().shared();
            let len = range.end - range.start;
            reader.blocks.insert(Block {
                start: range.start,
                len,
                fetch,
                _budget: None,
            });
        }
        plan
    }

    #[test]
    fn a_sequential_reader_is_never_asked_to_wait_after_its_first_read() {
        let mut reader = Reader::default();
        let first = step(&mut reader, 0..128 * KIB, BOUNDS);
        assert_eq!(first.demand, [0..256 * KIB]);
        assert!(!first.ahead.is_empty());
        for n in 1..200 {
            let plan = step(&mut reader, n * 128 * KIB..(n + 1) * 128 * KIB, BOUNDS);
            assert_eq!(plan.demand, [], "read {n}");
        }
    }

    #[test]
    fn the_distance_ahead_grows_with_what_was_read_up_to_its_bound() {
        let mut reader = Reader::default();
        let mut distance = 0;
        for n in 0..100 {
            let at = n * 256 * KIB;
            step(&mut reader, at..at + 256 * KIB, BOUNDS);
            let ahead = reader.blocks.missing_from(at) - (at + 256 * KIB);
            assert!(ahead <= BOUNDS.ahead_max);
            distance = distance.max(ahead);
        }
        assert!(distance > BOUNDS.ahead_max - BOUNDS.request);
    }

    #[test]
    fn a_random_reader_gets_exactly_what_it_wants() {
        let mut reader = Reader::default();
        step(&mut reader, 50_000 * KIB..50_004 * KIB, BOUNDS);
        let plan = step(&mut reader, 9_000 * KIB..9_004 * KIB, BOUNDS);
        assert_eq!(
            plan,
            Plan {
                demand: vec![9_000 * KIB..9_004 * KIB],
                ahead: vec![]
            }
        );
    }

    #[test]
    fn nothing_is_asked_for_beyond_the_end_but_what_is_wanted() {
        let bounds = Bounds {
            size: 300 * KIB,
            ..BOUNDS
        };
        let plan = step(&mut Reader::default(), 0..128 * KIB, bounds);
        assert_eq!(plan.demand, [0..256 * KIB]);
        assert_eq!(plan.ahead, [256 * KIB..300 * KIB]);
        let grown = step(&mut Reader::default(), 290 * KIB..310 * KIB, bounds);
        assert_eq!(grown.demand.last().unwrap().end, 310 * KIB);
    }

    #[test]
    fn without_read_ahead_only_what_is_wanted_is_asked_for() {
        let bounds = Bounds {
            ahead_max: 0,
            ..BOUNDS
        };
        let plan = step(&mut Reader::default(), 0..4 * KIB, bounds);
        assert_eq!(
            plan,
            Plan {
                demand: vec![0..4 * KIB],
                ahead: vec![]
            }
        );
    }

    #[test]
    fn what_is_held_is_bounded_whichever_way_the_reader_goes() {
        let len = 128 * KIB;
        for step_back in [1, 3, 40] {
            let mut reader = Reader::default();
            for n in (0..2000 / step_back).rev() {
                let start = n * step_back * len;
                step(&mut reader, start..start + len, BOUNDS);
                assert!(reader.blocks.bytes() <= BOUNDS.ahead_max + 2 * SLACK);
            }
        }
    }

    #[test]
    fn another_version_of_the_file_drops_what_was_fetched() {
        let mut reader = Reader::default();
        step(&mut reader, 0..4 * KIB, BOUNDS);
        assert!(reader.renew(1));
        assert_eq!(reader.blocks.bytes(), 0);
        assert!(!reader.renew(0), "an earlier moment must be taken anew");
    }
}
