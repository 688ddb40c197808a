//! What may be held and be on its way ahead of all readers together, and who gives way when that is
//! short: readers that have paused. Those that read get equal parts.
//!
//! Lock: a reader's may be held while the budget's is taken; never the other way round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::flight::Flight;
use super::plan::Reader;
use crate::clock;

/// The budget of one mount.
pub(in super::super) struct Budget {
    state: Mutex<State>,
}

struct State {
    /// Bytes that may be held ahead.
    max: u64,
    held: u64,
    holders: BTreeMap<u64, Holder>,
    last_holder: u64,
    flight: Flight,
    /// A task looks after those who pause.
    is_watched: bool,
}

/// What one reader may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Bytes held ahead of it.
    pub(super) bytes: u64,
    /// Those that read now.
    readers: u64,
}

/// One reader that something is held for.
struct Holder {
    bytes: u64,
    under_way: u64,
    /// When it read last.
    used: Instant,
    reader: Weak<Mutex<Reader>>,
}

/// A block's part of the budget, given back when dropped.
pub(super) struct Part {
    budget: Arc<Budget>,
    holder: u64,
    len: u64,
    asked: Instant,
}

impl Budget {
    /// At most `max` bytes.
    pub(in super::super) const fn new(max: u64) -> Self {
        Self {
            state: Mutex::new(State {
                max,
                held: 0,
                holders: BTreeMap::new(),
                last_holder: 0,
                flight: Flight::new(),
                is_watched: false,
            }),
        }
    }

    /// Notes that a reader reads, and gives its part: one of as many as there are readers.
    /// `most` bounds it.
    pub(super) fn share(&self, holder: Option<u64>, most: u64, now: Instant) -> Share {
        self.state().share(holder, most, now)
    }

    /// The part of a reader that has read lately and that something is held for; it does not read
    /// now.
    pub(super) fn share_of(&self, holder: u64, most: u64, now: Instant) -> Option<Share> {
        let state = self.state();
        let used = state.holders.get(&holder)?.used;
        (now.saturating_duration_since(used) < PAUSE)
            .then(|| state.part_of(Some(holder), most, now))
    }

    /// Takes a part for a request that is sent now, if there is one. `holder` is the reader's
    /// number, given here with the first part.
    pub(super) fn take(
        self: &Arc<Self>,
        holder: &mut Option<u64>,
        reader: &Arc<Mutex<Reader>>,
        len: u64,
        share: Share,
        now: Instant,
    ) -> Option<Part> {
        let mut state = self.state();
        let number = state.take(*holder, len, share)?;
        *holder = Some(number);
        let holder = state.holders.entry(number).or_insert_with(|| Holder {
            bytes: 0,
            under_way: 0,
            used: now,
            reader: Arc::downgrade(reader),
        });
        holder.bytes += len;
        holder.under_way += len;
        let must_watch = !std::mem::replace(&mut state.is_watched, true);
        drop(state);
        if must_watch {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        Some(Part {
            budget: Arc::clone(self),
            holder: number,
            len,
            asked: now,
        })
    }

    /// Notes how many connections carry what is asked for.
    pub(super) fn carried_by(&self, connections: usize) {
        self.state().flight.carried_by(connections);
    }

    /// Whether `len` bytes more might be on their way ahead of somebody.
    pub(super) fn has_room(&self, len: u64) -> bool {
        self.state().flight.has_room(len)
    }

    /// Drops what is held for those who have paused, the longest first, while too little is left
    /// for those who read.
    pub(super) fn make_room(&self, now: Instant) {
        let paused = self.state().in_the_way(now);
        Self::drop_held(paused);
    }

    fn drop_held(paused: Vec<Arc<Mutex<Reader>>>) {
        for reader in paused {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.blocks.remove_ahead();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&mut self, number: Option<u64>, most: u64, now: Instant) -> Share {
        if let Some(holder) = number.and_then(|number| self.holders.get_mut(&number)) {
            holder.used = now;
        }
        self.part_of(number, most, now)
    }

    fn part_of(&self, number: Option<u64>, most: u64, now: Instant) -> Share {
        let is_other = |(other, holder): &(&u64, &Holder)| {
            Some(**other) != number && now.saturating_duration_since(holder.used) < PAUSE
        };
        let readers = self.holders.iter().filter(is_other).count() as u64 + 1;
        let needed = self.flight.limit().saturating_mul(ROUNDS);
        Share {
            bytes: most.min(self.max / readers).min(needed),
            readers,
        }
    }

    /// The number of the holder that may have `len` bytes more.
    fn take(&mut self, number: Option<u64>, len: u64, share: Share) -> Option<u64> {
        let known = number.filter(|number| self.holders.contains_key(number));
        let holder = known.and_then(|number| self.holders.get(&number));
        let (bytes, under_way) = holder.map_or((0, 0), |it| (it.bytes, it.under_way));
        // Of what may be on its way, too, nobody has more than an equal part.
        let has_its_part = under_way >= (self.flight.limit() / share.readers).max(len);
        let is_too_much = self.held + len > self.max || bytes + len > share.bytes;
        if is_too_much || has_its_part || !self.flight.ask(len) {
            return None;
        }
        self.held += len;
        Some(known.unwrap_or_else(|| {
            self.last_holder += 1;
            self.last_holder
        }))
    }

    fn arrived(&mut self, holder: u64, len: u64, asked: Option<Instant>, now: Instant) {
        self.flight.answered(len, asked, now);
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.under_way = holder.under_way.saturating_sub(len);
        }
    }

    fn give_back(&mut self, number: u64, len: u64) {
        self.held = self.held.saturating_sub(len);
        if let Some(holder) = self.holders.get_mut(&number) {
            holder.bytes = holder.bytes.saturating_sub(len);
            if holder.bytes == 0 {
                self.holders.remove(&number);
            }
        }
    }

    /// Who has paused and holds what others may want: the longest ago first, and no more than it
    /// takes.
    fn in_the_way(&self, now: Instant) -> Vec<Arc<Mutex<Reader>>> {
        let keep_free = self.max / 4;
        let mut missing = keep_free.saturating_sub(self.max - self.held.min(self.max));
        if missing == 0 {
            return Vec::new();
        }
        let mut paused = self.paused(now, PAUSE);
        paused.sort_by_key(|holder| holder.used);
        let mut in_the_way = Vec::new();
        for holder in paused {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(holder.bytes);
            in_the_way.extend(holder.reader.upgrade());
        }
        in_the_way
    }

    fn paused(&self, now: Instant, since: Duration) -> Vec<&Holder> {
        let holders = self.holders.values();
        holders
            .filter(|holder| now.duration_since(holder.used) >= since)
            .collect()
    }
}

impl Part {
    /// The request has ended at `now`, well or not: it is on its way no more.
    pub(super) fn arrived(&self, is_well: bool, now: Instant) {
        let asked = is_well.then_some(self.asked);
        let mut state = self.budget.state();
        state.arrived(self.holder, self.len, asked, now);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.budget.state().give_back(self.holder, self.len);
    }
}

/// Drops what is held for those who have paused for long; ends when nothing is held.
async fn watch(budget: Weak<Budget>) {
    loop {
        tokio::time::sleep(REST / 2).await;
        let Some(budget) = budget.upgrade() else {
            return;
        };
        let mut state = budget.state();
        if state.holders.is_empty() {
            state.is_watched = false;
            return;
        }
        let paused = state.paused(clock::now(), REST);
        let paused = paused.iter().filter_map(|holder| holder.reader.upgrade());
        let paused: Vec<_> = paused.collect();
        drop(state);
        Budget::drop_held(paused);
    }
}

/// So many times what the link needs on its way is held ahead at most: enough for a reader that stops
/// for a few round trips, and little is wasted on one that stops for good.
const ROUNDS: u64 = 4;
/// Who has not read for so long counts as paused: many round trips of a slow link.
const PAUSE: Duration = Duration::from_secs(2);
/// After so long the memory is given back even if nobody else wants it.
const REST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::cache::Block;

    const MIB: u64 = 1 << 20;
    const LEN: u64 = MIB / 4;

    #[derive(Default)]
    struct One {
        holder: Option<u64>,
        reader: Arc<Mutex<Reader>>,
    }

    /// Takes parts as long as there are some, each answered at once.
    fn fill(budget: &Arc<Budget>, one: &mut One, now: Instant) -> Vec<Part> {
        let share = budget.share(one.holder, 4 * MIB, now);
        let take = || budget.take(&mut one.holder, &one.reader, LEN, share, now);
        let parts = std::iter::from_fn(take);
        parts.inspect(|part| part.arrived(true, now)).collect()
    }

    /// As `fill`, as blocks of the reader.
    fn fill_blocks(budget: &Arc<Budget>, one: &mut One, now: Instant) {
        for (n, part) in (0..).zip(fill(budget, one, now)) {
            let block = Block {
                start: n * LEN,
                len: LEN,
                fetch: async { Ok(Bytes::new()) }.boxed().shared(),
                stream: 0,
                part: Some(Arc::new(part)),
            };
            one.reader.lock().unwrap().blocks.insert(block);
        }
    }

    fn bytes(parts: &[Part]) -> u64 {
        parts.iter().map(|part| part.len).sum()
    }

    #[tokio::test]
    async fn a_lone_reader_has_what_its_file_may_have_and_gives_it_back() {
        let budget = Arc::new(Budget::new(8 * MIB));
        let parts = fill(&budget, &mut One::default(), clock::now());
        assert_eq!(bytes(&parts), 4 * MIB);
        drop(parts);
        assert_eq!(budget.state().held, 0);
        assert!(budget.state().holders.is_empty());
    }

    #[tokio::test]
    async fn those_who_read_get_equal_parts_and_all_together_no_more_than_there_is() {
        let budget = Arc::new(Budget::new(8 * MIB));
        let now = clock::now();
        let mut readers: Vec<_> = (0..4).map(|_| One::default()).collect();
        // Each begins with one block, and so is known to read.
        let firsts = readers.iter_mut().map(|one| {
            let share = budget.share(one.holder, 4 * MIB, now);
            budget.take(&mut one.holder, &one.reader, LEN, share, now)
        });
        let firsts: Vec<_> = firsts.map(Option::unwrap).collect();
        firsts.iter().for_each(|part| part.arrived(true, now));
        let rest: Vec<_> = readers
            .iter_mut()
            .map(|one| fill(&budget, one, now))
            .collect();
        for parts in &rest {
            assert_eq!(bytes(parts) + LEN, 2 * MIB);
        }
    }

    #[tokio::test]
    async fn readers_that_pause_give_way_the_longest_paused_first() {
        let budget = Arc::new(Budget::new(8 * MIB));
        let start = clock::now();
        let (mut first, mut second, mut third) = Default::default();
        fill_blocks(&budget, &mut first, start);
        fill_blocks(&budget, &mut second, start + PAUSE);
        budget.make_room(start + PAUSE / 2);
        assert_eq!(budget.state().held, 8 * MIB, "nobody has paused");
        budget.make_room(start + PAUSE + PAUSE / 2);
        assert_eq!(first.reader.lock().unwrap().blocks.bytes(), 0);
        assert_eq!(second.reader.lock().unwrap().blocks.bytes(), 4 * MIB);
        let parts = fill(&budget, &mut third, start + PAUSE * 3);
        assert_eq!(bytes(&parts), 4 * MIB);
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_shared_too() {
        let budget = Arc::new(Budget::new(8 * MIB));
        let now = clock::now();
        let mut readers: [One; 2] = Default::default();
        let mut parts = [Vec::new(), Vec::new()];
        for _ in 0..100 {
            for (one, parts) in readers.iter_mut().zip(&mut parts) {
                let share = budget.share(one.holder, 4 * MIB, now);
                parts.extend(budget.take(&mut one.holder, &one.reader, LEN, share, now));
            }
        }
        let limit = budget.state().flight.limit();
        assert_eq!(parts.map(|parts| bytes(&parts)), [limit / 2; 2]);
    }
}
