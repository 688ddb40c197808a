//! The first connection, which is made anew when it is lost.
//!
//! ```text
//! Up ---- it ended ----> Away ---- a dial went well ----> Up
//!                         | tries: at once, then after 0.25, 0.5, 1, ... 30 s, or 5 while somebody
//!                         | waits; when somebody asks anew at once, but not twice within 1 s
//!                         '-- refused as who we are: a try only for who waits or asks anew,
//!                             and not twice within some minutes
//! any ---- given up ----> Ended
//! ```
//!
//! One task ([`keep`]) makes the steps; everybody else looks at the phase, or waits for another one.
//! No lock is held while it dials.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use super::connection::Connection;
use super::health::Standing;
use crate::clock;
use crate::error::{Error, Result};

/// Makes connections to the server.
pub(super) struct Dial {
    /// Makes one.
    pub(super) connect: Box<dyn Fn() -> BoxFuture<'static, Result<Connection>> + Send + Sync>,
    /// Whether a person is being asked something for one.
    pub(super) is_asking: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The first connection of a mount, whichever it is now.
pub(super) struct Recovery {
    phase: watch::Sender<Phase>,
    /// Rung when somebody needs the server, or wants it to be looked at.
    needed: Notify,
    /// Rung when a person wants a try.
    asked_for: Notify,
    notes: Mutex<Notes>,
}

#[derive(Clone)]
enum Phase {
    Up(Arc<Connection>),
    /// The one that was lost.
    Away(Arc<Connection>),
    Ended(Arc<Connection>, Arc<str>),
}

/// For people.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) since: SystemTime,
    pub(super) reconnects: u64,
    pub(super) is_denied: bool,
    pub(super) last_error: Option<(SystemTime, Arc<str>)>,
}

impl Recovery {
    pub(super) fn new(first: Arc<Connection>) -> Self {
        Self {
            phase: watch::Sender::new(Phase::Up(first)),
            needed: Notify::new(),
            asked_for: Notify::new(),
            notes: Mutex::new(Notes {
                since: clock::date(),
                reconnects: 0,
                is_denied: false,
                last_error: None,
            }),
        }
    }

    /// The connection, which may have ended by now.
    pub(super) fn connection(&self) -> Arc<Connection> {
        match &*self.phase.borrow() {
            Phase::Up(connection) | Phase::Away(connection) | Phase::Ended(connection, _) => {
                Arc::clone(connection)
            }
        }
    }

    /// Waits for another connection than one that was lost.
    ///
    /// # Errors
    /// [`Error::Gone`]: there will be none.
    pub(super) async fn after(&self, lost: &Arc<Connection>) -> Result<Arc<Connection>> {
        self.needed.notify_one();
        let mut phase = self.phase.subscribe();
        loop {
            match &*phase.borrow_and_update() {
                Phase::Up(connection) if !Arc::ptr_eq(connection, lost) => {
                    return Ok(Arc::clone(connection));
                }
                Phase::Ended(_, why) => return Err(Error::Gone(Arc::clone(why))),
                Phase::Up(_) | Phase::Away(_) => {}
            }
            if phase.changed().await.is_err() {
                return Err(Error::Gone("the mount is ending".into()));
            }
        }
    }

    /// Whoever waits for the server, or will, is told that it does not come back.
    pub(super) fn end(&self, why: Arc<str>) {
        self.phase.send_modify(|phase| {
            if let Phase::Up(connection) | Phase::Away(connection) = phase {
                *phase = Phase::Ended(Arc::clone(connection), why);
            }
        });
        self.notes().since = clock::date();
        // Who dials looks.
        self.needed.notify_one();
    }

    /// Somebody asks for a try: the next one need not wait even if the last one was denied.
    pub(super) fn ask_for(&self) {
        self.asked_for.notify_one();
    }

    pub(super) fn standing(&self) -> (Standing, Notes) {
        let notes = self.notes().clone();
        let standing = match &*self.phase.borrow() {
            Phase::Up(connection) if connection.lost().is_none() => Standing::Connected,
            Phase::Ended(..) => Standing::Ended,
            Phase::Up(_) | Phase::Away(_) if notes.is_denied => Standing::Denied,
            Phase::Up(_) | Phase::Away(_) => Standing::Reconnecting,
        };
        (standing, notes)
    }

    /// Whether somebody waits for another connection.
    fn is_waited_for(&self) -> bool {
        self.phase.receiver_count() > 0
    }

    fn is_ended(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ended(..))
    }

    fn went_away(&self, connection: Arc<Connection>, why: &Error) {
        log::warn!("{why}; reconnecting");
        let now = clock::date();
        let mut notes = self.notes();
        notes.since = now;
        notes.last_error = Some((now, why.to_string().into()));
        drop(notes);
        self.set(Phase::Away(connection));
    }

    fn came_back(&self, connection: Arc<Connection>) {
        let mut notes = self.notes();
        notes.reconnects += 1;
        notes.since = clock::date();
        notes.is_denied = false;
        let reconnects = notes.reconnects;
        drop(notes);
        log::warn!("connected to the server again (reconnects so far: {reconnects})");
        self.set(Phase::Up(connection));
    }

    fn failed(&self, error: &Error) {
        let text: Arc<str> = error.to_string().into();
        let mut notes = self.notes();
        notes.is_denied = matches!(error, Error::Denied(_));
        let is_news = notes.last_error.as_ref().is_none_or(|last| last.1 != text);
        notes.last_error = Some((clock::date(), Arc::clone(&text)));
        drop(notes);
        let level = if is_news {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        log::log!(level, "the server cannot be reached: {text}");
    }

    fn set(&self, to: Phase) {
        self.phase.send_modify(|phase| {
            if !matches!(phase, Phase::Ended(..)) {
                *phase = to;
            }
        });
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the connection anew whenever it ends, until none is wanted any more. `renew` is called
/// after each end, and once more when the server is back: what was tried between says nothing.
pub(super) async fn keep(recovery: Arc<Recovery>, dial: Option<Dial>, renew: impl Fn() + Send) {
    let mut barren = 0;
    loop {
        let connection = recovery.connection();
        let why = connection.ended().await;
        // Otherwise a server that logs us in and then ends would be logged in to without a rest.
        barren = match connection.has_answered() {
            true => 0,
            false => barren + 1,
        };
        renew();
        let Some(dial) = dial.as_ref().filter(|_| !recovery.is_ended()) else {
            return recovery.end(match why {
                Error::Lost(why) => why,
                other => other.to_string().into(),
            });
        };
        recovery.went_away(connection, &why);
        let tries = Tries::after(barren, clock::of_timers());
        let Some(connection) = redial(&recovery, dial, tries).await else {
            return;
        };
        renew();
        recovery.came_back(Arc::new(connection));
    }
}

/// Dials until one dial goes well; `None` when no connection is wanted any more. A dial that hangs keeps no later one from being made: a network
/// that comes back answers the next one at once, and the old one when TCP tries again.
async fn redial(recovery: &Recovery, dial: &Dial, mut tries: Tries) -> Option<Connection> {
    let mut dials = Dials::default();
    while !recovery.is_ended() {
        // Who types an answer is not to be asked again by the next dial, nor the one ended that asks.
        let is_asking = dials.count() > 0 && (dial.is_asking)();
        let due = match is_asking {
            true => Due::Later,
            false => tries.due(dials.count(), dials.oldest(), recovery.is_waited_for()),
        };
        tokio::select! {
            dialled = dials.next() => match dialled {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tries.failed(matches!(error, Error::Denied(_)));
                    recovery.failed(&error);
                }
            },
            () = sleep_until(due), if due != Due::Later => {
                let now = clock::of_timers();
                tries.began(now);
                dials.add(now, one_dial(dial));
            }
            () = tokio::time::sleep(TICK), if is_asking => {}
            () = recovery.needed.notified() => tries.needed(),
            () = recovery.asked_for.notified() => tries.asked_for(),
        }
    }
    None
}

/// The dials that are under way, oldest first.
#[derive(Default)]
struct Dials<'a>(VecDeque<(Instant, BoxFuture<'a, Result<Connection>>)>);

impl<'a> Dials<'a> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|(began, _)| *began)
    }

    /// Adds one; where there are enough, the oldest makes room.
    fn add(&mut self, began: Instant, dial: impl Future<Output = Result<Connection>> + Send + 'a) {
        if self.count() == DIALS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((began, Box::pin(dial)));
    }

    /// What the next one to end comes to.
    async fn next(&mut self) -> Result<Connection> {
        poll_fn(|context| {
            for index in 0..self.0.len() {
                if let Some((_, dial)) = self.0.get_mut(index)
                    && let Poll::Ready(dialled) = dial.as_mut().poll(context)
                {
                    self.0.remove(index);
                    return Poll::Ready(dialled);
                }
            }
            Poll::Pending
        })
        .await
    }
}

async fn one_dial(dial: &Dial) -> Result<Connection> {
    let mut dialling = (dial.connect)();
    let (mut of_network, mut of_person) = (Duration::ZERO, Duration::ZERO);
    loop {
        if let Ok(dialled) = tokio::time::timeout(TICK, &mut dialling).await {
            return dialled;
        }
        let (time, most) = match (dial.is_asking)() {
            true => (&mut of_person, ASKING_MAX),
            false => (&mut of_network, DIAL_MAX),
        };
        *time += TICK;
        if *time >= most {
            let text = format!("no answer within {} s", most.as_secs());
            return Err(Error::setup(text));
        }
    }
}

async fn sleep_until(due: Due) {
    if let Due::At(when) = due {
        tokio::time::sleep_until(when.into()).await;
    }
}

/// When the next try is made. Pure.
#[derive(Debug, Default)]
struct Tries {
    /// When the latest one began.
    latest: Option<Instant>,
    began: u32,
    is_denied: bool,
    /// Somebody has needed the server since the latest one began.
    is_needed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    /// Not before something else happens.
    Later,
}

impl Tries {
    /// After so many connections in a row on which nothing was answered, of which the last has just
    /// ended: each was no more than a try.
    fn after(barren: u32, now: Instant) -> Self {
        Self {
            latest: (barren > 0).then_some(now),
            began: barren,
            ..Self::default()
        }
    }

    /// `under_way`: how many have not ended, of which the oldest began at `oldest`. `is_waited_for`:
    /// programs wait for the server.
    fn due(&self, under_way: usize, oldest: Option<Instant>, is_waited_for: bool) -> Due {
        let Some(latest) = self.latest else {
            return Due::Now;
        };
        let room = match oldest {
            Some(_) if under_way >= DIALS_MAX && !self.is_needed && !is_waited_for => {
                return Due::Later;
            }
            Some(oldest) if under_way >= DIALS_MAX => oldest + DIAL_OLD,
            _ => latest,
        };
        let doubled = REST_FIRST.saturating_mul(1 << (self.began - 1).min(10));
        let rest = match (self.is_denied, self.is_needed) {
            (true, true) => DENIED_REST,
            (true, false) if is_waited_for => DENIED_REST * 2,
            (true, false) => return Due::Later,
            (false, true) => doubled.min(REST_NEEDED),
            (false, false) if is_waited_for => doubled.min(REST_WAITED),
            (false, false) => doubled.min(REST_MAX),
        };
        Due::At(room.max(latest + rest))
    }

    fn began(&mut self, now: Instant) {
        self.latest = Some(now);
        self.began += 1;
        self.is_needed = false;
    }

    fn failed(&mut self, is_denied: bool) {
        self.is_denied = is_denied;
    }

    fn needed(&mut self) {
        self.is_needed = true;
    }

    fn asked_for(&mut self) {
        (self.is_needed, self.is_denied) = (true, false);
    }
}

/// Between the first two tries: a login may have been cut, and the next one not be.
const REST_FIRST: Duration = Duration::from_millis(250);
/// Between two tries at most, if somebody needs the server.
const REST_NEEDED: Duration = Duration::from_secs(1);
/// Between two tries at most, while a program waits.
const REST_WAITED: Duration = Duration::from_secs(5);
/// Between two tries otherwise: what a server, a log and a battery can bear for days.
const REST_MAX: Duration = Duration::from_secs(30);
/// Between two tries after the server refused who we are: servers count those, and lock out whom
/// they see too often (fail2ban's default is 5 in 10 minutes).
const DENIED_REST: Duration = Duration::from_secs(150);
/// Dials under way at once: in a network that swallows packets each takes all of its time.
const DIALS_MAX: usize = 3;
/// From when on a dial makes room for one that somebody needs: TCP tries again in a network that is
/// back only when it has waited once more as long as before.
const DIAL_OLD: Duration = Duration::from_secs(10);
/// What a dial may take: a slow server's login, and TCP's first three or four tries.
const DIAL_MAX: Duration = Duration::from_secs(40);
/// And beside that the person who is asked for a password.
const ASKING_MAX: Duration = Duration::from_secs(300);
/// How exactly the two are measured.
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::{Options, Server};

    /// In milliseconds.
    fn at(start: Instant, due: Due) -> u128 {
        match due {
            Due::At(when) => (when - start).as_millis(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether one dial comes to its end that takes so many seconds.
    async fn dials_for(seconds: u64, is_asking: bool) -> bool {
        let server = Server::new(Options::default());
        let dial = Dial {
            connect: Box::new(move || {
                let link = server.link();
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    Ok(Connection::open(link).await?.0)
                })
            }),
            is_asking: Box::new(move || is_asking),
        };
        one_dial(&dial).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_person_takes_to_answer_is_not_the_networks() {
        assert!(dials_for(38, false).await);
        assert!(!dials_for(42, false).await);
        assert!(dials_for(200, true).await);
        assert!(!dials_for(310, true).await);
    }

    #[test]
    fn the_first_try_is_made_at_once_and_later_ones_after_longer_and_longer_rests() {
        let mut now = clock::now();
        let mut tries = Tries::default();
        assert_eq!(tries.due(0, None, false), Due::Now);
        let mut rests = Vec::new();
        for _ in 0..8 {
            tries.began(now);
            tries.failed(false);
            let rest = at(now, tries.due(0, None, false));
            rests.push(rest);
            now += Duration::from_millis(u64::try_from(rest).unwrap());
        }
        assert_eq!(rests, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_each_connection_at_once_is_not_tried_without_a_rest() {
        let dials = Arc::new(AtomicUsize::new(0));
        let (count, server) = (Arc::clone(&dials), Server::new(Options::default()));
        let dial = Dial {
            connect: Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                let server = server.clone();
                Box::pin(async move {
                    let (connection, _) = Connection::open(server.link()).await?;
                    server.hang_up();
                    Ok(connection)
                })
            }),
            is_asking: Box::new(|| false),
        };
        let first = Arc::new((dial.connect)().await.unwrap());
        let keeping = keep(Arc::new(Recovery::new(first)), Some(dial), || {});
        let within = tokio::time::timeout(Duration::from_secs(60), keeping).await;
        assert!(within.is_err());
        let dials = dials.load(Ordering::Relaxed);
        assert!((5..12).contains(&dials), "{dials}");
    }

    #[test]
    fn who_needs_the_server_is_tried_for_at_once_but_not_twice_within_a_second() {
        let start = clock::now();
        let mut tries = Tries::default();
        for _ in 0..9 {
            tries.began(start);
        }
        assert_eq!(at(start, tries.due(0, None, false)), 30_000);
        tries.needed();
        assert_eq!(at(start, tries.due(0, None, false)), 1000);
    }

    #[test]
    fn a_program_that_waits_waits_no_longer_than_a_few_seconds_for_the_next_try() {
        let start = clock::now();
        let mut tries = Tries::default();
        for _ in 0..9 {
            tries.began(start);
        }
        assert_eq!(at(start, tries.due(0, None, true)), 5000);
    }

    #[test]
    fn a_dial_that_hangs_keeps_no_other_from_being_made_but_there_are_never_many() {
        let start = clock::now();
        let mut tries = Tries::default();
        tries.began(start);
        assert_eq!(at(start, tries.due(1, Some(start), false)), 250);
        assert_eq!(tries.due(DIALS_MAX, Some(start), false), Due::Later);
        let due = at(start, tries.due(DIALS_MAX, Some(start), true));
        assert_eq!(due, DIAL_OLD.as_millis());
    }

    #[test]
    fn who_is_refused_is_tried_again_only_when_needed_and_seldom() {
        let start = clock::now();
        let mut tries = Tries::default();
        tries.began(start);
        tries.failed(true);
        assert_eq!(tries.due(0, None, false), Due::Later);
        let waited = at(start, tries.due(0, None, true));
        assert_eq!(waited, 2 * DENIED_REST.as_millis());
        tries.needed();
        assert_eq!(
            at(start, tries.due(0, None, false)),
            DENIED_REST.as_millis()
        );
    }
}
