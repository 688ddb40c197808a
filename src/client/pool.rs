//! The connections for data: as many as a link needs, dialled in the background, closed again when
//! nothing was asked of them for long.
//!
//! **Invariant:** nobody waits for a connection of the pool to be made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection::Connection;
use super::copy_lane::connect;
use super::window::Flow;
use crate::clock;
use crate::error::Error;
use crate::transport::Dialer;

/// The connections for data of one mount.
pub(super) struct Pool {
    /// `None` where no further connection can be made.
    dialer: Option<Arc<Dialer>>,
    connections_max: usize,
    lanes: Mutex<Lanes>,
    /// Told of the end of each dial.
    dial_ended: watch::Sender<()>,
}

#[derive(Default)]
struct Lanes {
    open: Vec<Lane>,
    dialling: usize,
    /// When the server would not have one more.
    refused: Option<Instant>,
    /// How often all connections were ended: what a dial of before comes to tells nothing.
    round: u64,
    /// Somebody closes what rests.
    is_watched: bool,
}

struct Lane {
    connection: Arc<Connection>,
    /// What [`Connection::rests`] said when it was last looked at.
    rested: Option<u32>,
}

impl Pool {
    pub(super) fn new(
        dialer: Option<Arc<Dialer>>,
        connections_max: usize,
        open: Vec<Arc<Connection>>,
    ) -> Self {
        let open = open.into_iter().map(Lane::new).collect();
        Self {
            dialer,
            connections_max,
            lanes: Mutex::new(Lanes {
                open,
                ..Lanes::default()
            }),
            dial_ended: watch::Sender::default(),
        }
    }

    /// The connections that are there, which may be none.
    pub(super) fn open(&self) -> Vec<Arc<Connection>> {
        let mut lanes = self.lanes();
        lanes.open.retain(|lane| lane.connection.lost().is_none());
        lanes
            .open
            .iter()
            .map(|lane| Arc::clone(&lane.connection))
            .collect()
    }

    /// Ends all connections. What is wanted later is dialled anew, also by a server that would not
    /// have one more before.
    pub(super) fn end(&self) {
        let mut lanes = self.lanes();
        lanes.refused = None;
        lanes.round += 1;
        let open = std::mem::take(&mut lanes.open);
        drop(lanes);
        for lane in open {
            let why = Error::Lost("the first connection was lost".into());
            lane.connection.end(&why);
        }
    }

    /// Has more connections dialled if what `first` and they carry together asks for more, or what is
    /// `expected` to be carried, in bytes.
    pub(super) fn grow(self: &Arc<Self>, first: &Connection, expected: u64) {
        let open = self.open();
        let flows = open.iter().map(|lane| lane.flow());
        let wanted = wanted(first.flow(), flows, expected).min(self.connections_max);
        let mut lanes = self.lanes();
        let is_refused = lanes
            .refused
            .is_some_and(|when| clock::now().duration_since(when) < DIAL_AGAIN);
        let there = lanes.open.len() + lanes.dialling;
        let more = wanted.saturating_sub(there);
        let Some(dialer) = self.dialer.as_ref().filter(|_| !is_refused) else {
            return;
        };
        lanes.dialling += more;
        drop(lanes);
        for _ in 0..more {
            let round_trip = first.flow().round_trip;
            tokio::spawn(dial(Arc::clone(self), Arc::clone(dialer), round_trip));
        }
    }

    /// Changes at the end of each dial, after [`Self::open`] and [`Self::is_dialling`].
    pub(super) fn ends_of_dials(&self) -> watch::Receiver<()> {
        self.dial_ended.subscribe()
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.lanes().dialling > 0
    }

    fn add(self: &Arc<Self>, connection: Arc<Connection>) {
        let mut lanes = self.lanes();
        lanes.dialling -= 1;
        lanes.open.push(Lane::new(connection));
        let count = lanes.open.len();
        let must_watch = !std::mem::replace(&mut lanes.is_watched, true);
        drop(lanes);
        self.dial_ended.send_replace(());
        log::info!("connections for data: {count}");
        if must_watch {
            tokio::spawn(watch(Arc::clone(self)));
        }
    }

    /// A dial that began in `round` has failed. Says whether that is to be told: it is the first
    /// time.
    fn refuse(&self, round: u64) -> bool {
        let mut lanes = self.lanes();
        lanes.dialling -= 1;
        // Otherwise the server was away, and may be back.
        let is_news = lanes.round == round && lanes.refused.replace(clock::now()).is_none();
        drop(lanes);
        self.dial_ended.send_replace(());
        is_news
    }

    /// Closes what nothing was asked of since the last time. False when no connection is left.
    pub(super) fn sweep(&self) -> bool {
        let mut lanes = self.lanes();
        let mut gone = Vec::new();
        for mut lane in std::mem::take(&mut lanes.open) {
            let rests = lane.connection.rests();
            // A file that is open on it keeps the connection, which goes on counting.
            let is_free = Arc::strong_count(&lane.connection) == 1;
            if is_free && rests.is_some() && rests == lane.rested {
                gone.push(lane);
            } else {
                lane.rested = rests;
                lanes.open.push(lane);
            }
        }
        lanes.is_watched = !lanes.open.is_empty();
        let is_watched = lanes.is_watched;
        drop(lanes);
        if !gone.is_empty() {
            log::info!("{} connections for data closed, which rested", gone.len());
        }
        is_watched
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    const fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            rested: None,
        }
    }
}

async fn dial(pool: Arc<Pool>, dialer: Arc<Dialer>, round_trip: Option<Duration>) {
    let round = pool.lanes().round;
    match connect(&dialer).await {
        Ok(connection) => {
            round_trip.inspect(|round_trip| connection.expect(*round_trip));
            pool.add(connection);
        }
        Err(error) if pool.refuse(round) => {
            log::warn!("no further connection to the server for data: {error}");
        }
        Err(error) => log::debug!("no further connection to the server for data: {error}"),
    }
}

async fn watch(pool: Arc<Pool>) {
    loop {
        tokio::time::sleep(REST_MAX).await;
        if !pool.sweep() {
            return;
        }
    }
}

/// How many connections for data the work under way is worth: one, so that data and metadata do not
/// wait for each other, and one more for each part of what is on its way that a connection carries
/// with ease. What is on its way is rate x round trip, so that a slow link, or a near server, gets
/// one. A long way that fills gets all that it may need at once.
fn wanted(first: Flow, lanes: impl Iterator<Item = Flow>, expected: u64) -> usize {
    let (mut rate, mut round_trip) = (first.rate, first.round_trip);
    for lane in lanes {
        rate = rate.saturating_add(lane.rate);
        round_trip = match (round_trip, lane.round_trip) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    let micros = round_trip.map_or(0, |round_trip| round_trip.as_micros());
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    let on_its_way = |rate: u64| rate.saturating_mul(micros) / 1_000_000;
    let now = on_its_way(rate);
    let soon = match now >= PROMISING || expected >= LONG_WORK {
        true => now.max(on_its_way(FAST)),
        false => now,
    };
    usize::try_from(soon.div_ceil(CARRIED)).map_or(usize::MAX, |lanes| lanes.max(1))
}

/// A connection to OpenSSH carries 2 MiB on its way to the server, which is its window, and some 3 MiB
/// back, which is TCP's: one that carries three quarters of that may be held back by it before long.
/// 1 Gbit/s at 20 ms gets 2 connections by this; more only make each other's queues longer.
const CARRIED: u64 = 3 << 19;
/// TCP doubles what is on its way with each round trip, and a connection takes ten to be made. Where so
/// much is on its way already, as many are made as a link of [`FAST`] needs, and all at once.
const PROMISING: u64 = 1 << 20;
/// What takes a second of a fast link, and so as long as a dial over a long way: the connections for it
/// are made before anything is known of the link.
const LONG_WORK: u64 = 128 << 20;
/// 1 Gbit/s, in bytes a second.
const FAST: u64 = 125_000_000;
/// A server that would not have one more connection (MaxStartups, MaxSessions, a firewall) is left
/// alone for so long.
const DIAL_AGAIN: Duration = Duration::from_secs(600);
/// A connection of which nothing was asked for so long, or up to twice that, is closed.
const REST_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn flow(round_trip_ms: u64, rate: u64) -> Flow {
        Flow {
            round_trip: Some(Duration::from_millis(round_trip_ms)),
            rate,
        }
    }

    fn alone(round_trip_ms: u64, rate: u64) -> usize {
        wanted(flow(round_trip_ms, rate), std::iter::empty(), 0)
    }

    #[test]
    fn a_dial_that_failed_while_the_server_was_away_keeps_no_later_one_from_being_made() {
        let pool = Pool::new(None, 8, Vec::new());
        let fails = |round| {
            pool.lanes().dialling += 1;
            pool.refuse(round);
            pool.lanes().refused.is_some()
        };
        pool.end();
        assert!(!fails(0));
        assert!(fails(1));
    }

    #[test]
    fn a_near_server_and_a_slow_link_get_one_connection_for_data() {
        assert_eq!(alone(0, 500 * MB), 1);
        assert_eq!(alone(1, 500 * MB), 1);
        assert_eq!(alone(30, 2 * MB), 1);
        assert_eq!(wanted(Flow::default(), std::iter::empty(), u64::MAX), 1);
    }

    #[test]
    fn long_work_over_a_long_way_gets_its_connections_before_it_is_under_way() {
        let at_first =
            |round_trip, expected| wanted(flow(round_trip, 0), std::iter::empty(), expected);
        assert_eq!(at_first(100, LONG_WORK), 8);
        assert_eq!(at_first(20, LONG_WORK), 2);
        assert_eq!(at_first(100, LONG_WORK - 1), 1);
        assert_eq!(at_first(1, u64::MAX), 1);
    }

    #[test]
    fn a_long_way_that_fills_gets_all_that_a_fast_link_needs_at_once() {
        assert_eq!(alone(100, 9 * MB), 1);
        assert_eq!(alone(100, 11 * MB), 8);
    }

    #[test]
    fn a_connection_that_is_held_back_by_its_window_gets_more_beside_it() {
        assert_eq!(alone(20, 119 * MB), 2);
        let first = alone(100, 20 * MB);
        assert!(first >= 2);
        let lanes = std::iter::repeat_n(flow(100, 25 * MB), first);
        assert!(wanted(flow(100, 0), lanes, 0) > first);
    }
}
