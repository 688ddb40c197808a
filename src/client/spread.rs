//! One open file on several connections: which of them a READ or WRITE takes, and how the file gets
//! there.
//!
//! The first handle, on the first connection, serves until much was read or written by it. Then the
//! file is opened once more on each connection for data, in the background, and READs and WRITEs go
//! there; everything else stays with the first handle.
//!
//! A server does what it is asked on several connections in any order. So whatever is asked of a file
//! that is written on several, other than to read or write it, waits for the answers to its WRITEs, and
//! later WRITEs wait for the answer to that.
//!
//! **Invariant:** a further handle serves only after it was seen to be of the same file. It is opened
//! by path, and a path may lead to another file by then.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select_all};
use tokio::sync::{OwnedSemaphorePermit, RwLock};

use super::connection::{Connection, SMALL};
use super::files::{Handle, Open, open_on};
use super::lanes::Lanes;
use super::moves::Moment;
use super::pending::{Answer, Unanswered};
use super::pool::Pool;
use super::same_file::{self, FirstLook};
use crate::error::{Error, Result};
use crate::sftp::{OpenFlags, Request};

/// What requests do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    Write,
}

/// How a file was opened, so that it can be opened once more.
pub(super) struct Origin {
    pub(super) path: Bytes,
    pub(super) flags: OpenFlags,
    /// When that was.
    pub(super) since: Moment,
    pub(super) lanes: Weak<Lanes>,
    /// From so many bytes on, much of it is read or written.
    pub(super) much: u64,
}

/// Further handles of one open file, for one kind of work.
#[derive(Default)]
pub(super) struct Spread {
    state: Mutex<State>,
    /// Held to be shared until a WRITE on several connections is answered, and alone for what must
    /// come before or after it. Fair: who asks first gets it first.
    order: Arc<RwLock<()>>,
}

#[derive(Default)]
struct State {
    /// Bytes that were asked for.
    asked: u64,
    /// With how many of them it was last looked for more connections.
    looked: u64,
    /// So many more are expected to be asked for.
    expected: u64,
    /// Where further handles are being opened.
    opening: Vec<Arc<Connection>>,
    /// A task waits for connections that are being dialled.
    is_awaiting: bool,
    /// How often a further handle was not to be had.
    failures: u32,
    /// Requests, other than WRITEs, of which order matters.
    others: u64,
    /// There are handles, or were.
    is_spread: bool,
    /// How often a handle was chosen.
    turns: usize,
    handles: Vec<Handle>,
}

/// Connections on which a file is opened at once.
struct Batch {
    lanes: Vec<Arc<Connection>>,
    /// [`State::others`] when that began.
    others: u64,
}

impl Spread {
    /// Notes that so many more bytes are asked for. True if it is time to look for more connections.
    fn note(&self, len: usize, much: u64) -> bool {
        let mut state = self.state();
        state.asked = state.asked.saturating_add(len as u64);
        let is_due = state.asked >= much
            && state.asked - state.looked >= much / 2
            && state.failures < FAILURES_MAX;
        if is_due {
            state.looked = state.asked;
        }
        is_due
    }

    /// True if nothing was expected before, of a file of which something was asked for.
    fn expect(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.expected, bytes);
        before == 0 && bytes > 0 && state.asked > 0
    }

    fn expected(&self) -> u64 {
        self.state().expected
    }

    /// The handles that serve, if the first one does not.
    fn handles(&self) -> Vec<Handle> {
        let mut state = self.state();
        let mut lost = Vec::new();
        if state
            .handles
            .iter()
            .any(|handle| handle.connection().lost().is_some())
        {
            let all = std::mem::take(&mut state.handles);
            (lost, state.handles) = all
                .into_iter()
                .partition(|handle| handle.connection().lost().is_some());
        }
        let mut handles = state.handles.clone();
        // Of those that do nothing, another one comes first each time.
        state.turns = state.turns.wrapping_add(1);
        let first = state.turns.checked_rem(handles.len()).unwrap_or(0);
        drop(state);
        handles.rotate_left(first);
        // Closing sends a request, under no lock.
        drop(lost);
        handles
    }

    /// Those of `lanes` where the file is not open yet, if it is to be opened there now.
    fn begin(&self, lanes: Vec<Arc<Connection>>) -> Option<Batch> {
        let mut state = self.state();
        if state.failures >= FAILURES_MAX {
            return None;
        }
        let is_new = |lane: &Arc<Connection>| {
            let is_opening = state.opening.iter().any(|other| Arc::ptr_eq(other, lane));
            !is_opening && state.handles.iter().all(|handle| !handle.is_on(lane))
        };
        let lanes: Vec<_> = lanes.into_iter().filter(is_new).collect();
        state.opening.extend(lanes.iter().cloned());
        let others = state.others;
        (!lanes.is_empty()).then_some(Batch { lanes, others })
    }

    /// Takes in what came of a batch.
    fn end(&self, lanes: &[Arc<Connection>], handles: Vec<Option<Handle>>, others: u64) {
        let mut state = self.state();
        let is_of_batch = |lane: &Arc<Connection>| lanes.iter().any(|one| Arc::ptr_eq(one, lane));
        state.opening.retain(|lane| !is_of_batch(lane));
        if handles.iter().any(Option::is_none) {
            state.failures += 1;
        }
        if state.others != others {
            // May still be on its way on the first connection, and WRITEs must not pass it.
            drop(state);
            return drop(handles);
        }
        state.handles.extend(handles.into_iter().flatten());
        state.is_spread |= !state.handles.is_empty();
    }

    /// True if nobody waits for connections that are being dialled: the caller does from now on.
    fn begin_waiting(&self) -> bool {
        !std::mem::replace(&mut self.state().is_awaiting, true)
    }

    /// What a request that must stay in order with WRITEs waits for; `None` if that is nothing.
    pub(super) fn turn(&self) -> Option<Arc<RwLock<()>>> {
        let mut state = self.state();
        state.others += 1;
        state.is_spread.then(|| Arc::clone(&self.order))
    }

    /// To be had before a WRITE may take any connection, and held until its answer.
    async fn unanswered(&self) -> Option<Unanswered> {
        let is_spread = self.state().is_spread;
        match is_spread {
            true => Some(Arc::clone(&self.order).read_owned().await),
            false => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle with a place for one READ or WRITE.
pub(super) struct Seat {
    pub(super) handle: Handle,
    pub(super) place: OwnedSemaphorePermit,
    /// Of a WRITE on several connections.
    pub(super) unanswered: Option<Unanswered>,
}

/// Which of a file's handles the next READ or WRITE takes: the one whose connection has the smallest
/// part of its places taken.
pub(super) async fn seat(handle: &Handle, work: Work, len: usize) -> Seat {
    note(handle, work, len);
    let mut unanswered = None;
    let handles = match (work, handle.open().spread(work)) {
        (Work::Write, Some((spread, _))) => {
            unanswered = spread.unanswered().await;
            // Without it, what is to come after this WRITE would not wait for one elsewhere.
            let is_free = unanswered.is_some();
            serving(handle, is_free.then_some(spread))
        }
        (_, spread) => serving(handle, spread.map(|(spread, _)| spread)),
    };
    let small = match work {
        Work::Read if len <= SMALL => place_on(&handles, Connection::place_small),
        _ => None,
    };
    if let Some((handle, place)) = small.or_else(|| place_on(&handles, Connection::place_now)) {
        return Seat {
            handle,
            place,
            unanswered,
        };
    }
    let places = handles
        .iter()
        .map(|handle| Box::pin(handle.connection().place()));
    let (place, index, _) = select_all(places).await;
    let handle = handles.into_iter().nth(index);
    let handle = handle.unwrap_or_else(|| unreachable!("a place is of one of the handles"));
    Seat {
        handle,
        place,
        unanswered,
    }
}

/// As [`seat`], for a READ that nobody waits for; `None` if there is no room.
pub(super) fn seat_ahead(handle: &Handle, len: usize) -> Option<Seat> {
    note(handle, Work::Read, len);
    let spread = handle.open().spread(Work::Read);
    let handles = serving(handle, spread.map(|(spread, _)| spread));
    let (handle, place) = place_on(&handles, Connection::place_ahead)?;
    Some(Seat {
        handle,
        place,
        unanswered: None,
    })
}

fn place_on(
    handles: &[Handle],
    place: impl Fn(&Connection) -> Option<OwnedSemaphorePermit>,
) -> Option<(Handle, OwnedSemaphorePermit)> {
    let mut handles: Vec<_> = handles.iter().collect();
    handles.sort_by_key(|handle| handle.connection().load());
    handles
        .into_iter()
        .find_map(|handle| Some((handle.clone(), place(handle.connection())?)))
}

/// The handles that serve, never none: the further ones, if there are any. Until these carry as much
/// together as the first one does, it goes on beside them: TCP begins slowly on each.
fn serving(handle: &Handle, spread: Option<&Spread>) -> Vec<Handle> {
    let mut handles = spread.map(Spread::handles).unwrap_or_default();
    let rate = |handle: &Handle| handle.connection().flow().rate;
    let further = handles.iter().map(rate).fold(0, u64::saturating_add);
    if handles.is_empty() || further < rate(handle) {
        handles.push(handle.clone());
    }
    handles
}

/// Notes what is asked for. From time to time has more connections made if that is worth it, and the
/// file opened on those that are there.
fn note(handle: &Handle, work: Work, len: usize) {
    let open = handle.open();
    let Some((spread, much)) = open.spread(work) else {
        return;
    };
    if spread.note(len, much) {
        look_for_more(open, spread, work);
    }
}

/// Notes that so many bytes more will probably be read or written. What was not expected before is
/// looked after at once, as nothing may be asked for until an answer has come.
pub(super) fn expect(handle: &Handle, work: Work, bytes: u64) {
    let open = handle.open();
    if let Some((spread, _)) = open.spread(work)
        && spread.expect(bytes)
    {
        look_for_more(open, spread, work);
    }
}

fn look_for_more(open: &Arc<Open>, spread: &Spread, work: Work) {
    let Some(lanes) = open.lanes() else {
        return;
    };
    let pool = lanes.data();
    pool.grow(&lanes.metadata(), spread.expected());
    open_on_new(open, spread, work, pool);
    if pool.is_dialling() && spread.begin_waiting() {
        tokio::spawn(await_dials(Arc::downgrade(open), work, Arc::clone(pool)));
    }
}

fn open_on_new(open: &Arc<Open>, spread: &Spread, work: Work, pool: &Pool) {
    if let Some(batch) = spread.begin(pool.open()) {
        tokio::spawn(open_further(Arc::downgrade(open), work, batch));
    }
}

/// Opens a file on each connection that is being dialled as soon as it is there: what is asked for
/// until then, and has such connections looked for, may be little.
async fn await_dials(open: Weak<Open>, work: Work, pool: Arc<Pool>) {
    let mut ends = pool.ends_of_dials();
    loop {
        // Asked first: what is there when the last dial has ended is then seen below.
        let is_dialling = pool.is_dialling();
        let Some(open) = open.upgrade() else {
            return;
        };
        let Some((spread, _)) = open.spread(work) else {
            return;
        };
        open_on_new(&open, spread, work, &pool);
        if !is_dialling {
            spread.state().is_awaiting = false;
            return;
        }
        drop(open);
        if ends.changed().await.is_err() {
            return;
        }
    }
}

/// Sends what must be done behind the WRITEs that were asked for before, and before those that come
/// later. At once, unless the file is written on several connections.
pub(super) fn in_order(handle: &Handle, request: Request) -> impl Future<Output = Answer> + use<> {
    let writes = handle.open().spread(Work::Write);
    let Some(order) = writes.and_then(|(spread, _)| spread.turn()) else {
        return Either::Left(handle.connection().submit(&request));
    };
    // Asked for once here, so that its turn is before that of what the caller asks for next.
    let mut turn = Box::pin(order.write_owned());
    let ready = (&mut turn).now_or_never();
    let handle = handle.clone();
    let answer = tokio::spawn(async move {
        let _turn = match ready {
            Some(turn) => turn,
            None => turn.await,
        };
        handle.connection().submit(&request).await
    });
    Either::Right(async move {
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Lost("the client is stopping".into())),
        }
    })
}

/// Opens a file on further connections. Holds no handle while it waits, so that the file may be
/// closed meanwhile.
async fn open_further(open: Weak<Open>, work: Work, batch: Batch) {
    let Batch { lanes, others } = batch;
    let first = same_file::look(&open, work);
    let tries = lanes.iter().map(|lane| async {
        let opened = open_one(&open, work, lane, first.clone()).await;
        opened.unwrap_or_else(|error| {
            log::debug!("a file is not opened on one more connection: {error}");
            None
        })
    });
    // All serve at once: by what the first handle writes it is seen that the others are of its file.
    let handles = join_all(tries).await;
    if let Some(open) = open.upgrade()
        && let Some((spread, _)) = open.spread(work)
    {
        spread.end(&lanes, handles, others);
    }
}

/// `None` if what is there now may be another file, or if nobody needs it any more.
async fn open_one(
    open: &Weak<Open>,
    work: Work,
    lane: &Arc<Connection>,
    first: FirstLook,
) -> Result<Option<Handle>> {
    let Some(path) = open.upgrade().and_then(|open| open.path()) else {
        return Ok(None);
    };
    let flags = match work {
        Work::Read => OpenFlags::READ,
        Work::Write => OpenFlags::WRITE,
    };
    let handle = open_on(lane, path, flags).await?;
    let is_same = match work {
        Work::Read => same_file::is_same_to_read(&handle, first).await?,
        Work::Write => same_file::is_same_to_write(open, &handle, first).await?,
    };
    // Whatever we moved until here, the handle was opened before it, or is not believed.
    let is_there = open.upgrade().is_some_and(|open| !open.is_moved());
    Ok((is_same && is_there).then_some(handle))
}

/// From so many bytes on a file is one of which much is read or written. Less than that goes with
/// the metadata, in order and without a further round trip.
pub(super) const MUCH: u64 = 2 << 20;
/// After so many tries in vain a file stays on one connection.
const FAILURES_MAX: u32 = 3;
