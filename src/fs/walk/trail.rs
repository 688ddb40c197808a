//! Files that are opened to read one after the other, again and again in the same order: `git status` its
//! own files, a build its headers. Tells which come next. Pure state; time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::fs::Ino;

/// The files that programs opened last, in that order.
#[derive(Debug)]
pub(super) struct Trail {
    opens: VecDeque<Open>,
    /// How many opens came before those.
    gone: usize,
    /// Where in the trail was what happens now: the number of an earlier open.
    at: Option<usize>,
    /// Since which open it is done again: what was opened from there on will hardly come next.
    again_since: usize,
    last: Option<Instant>,
    /// So many of the next ones are worth fetching.
    depth: usize,
    depth_max: usize,
    /// Opens that come as expected, until something is fetched again after all was in vain.
    probe_in: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    ino: Ino,
    /// It followed the one before it at once.
    is_soon: bool,
}

impl Trail {
    pub(super) const fn new() -> Self {
        Self {
            opens: VecDeque::new(),
            gone: 0,
            at: None,
            again_since: 0,
            last: None,
            depth: 0,
            depth_max: DEPTH_FIRST,
            probe_in: 0,
        }
    }

    /// What was fetched was opened in time.
    pub(super) fn used(&mut self) {
        self.depth_max = (self.depth_max * 2).min(DEPTH_MAX);
    }

    /// It was not: others are opened, or they are opened too slowly for it.
    pub(super) const fn wasted(&mut self) {
        self.depth_max /= 2;
        self.probe_in = PROBE_AFTER;
    }

    /// Where all was in vain one file is tried again after a while.
    const fn probe(&mut self) {
        self.probe_in = self.probe_in.saturating_sub(1);
        if self.depth_max == 0 && self.probe_in == 0 {
            self.depth_max = 1;
        }
    }

    /// A file is opened. What comes next is worth fetching while programs do what they did before. Who
    /// opens nothing for `pause` does something else then.
    pub(super) fn opened(&mut self, ino: Ino, pause: Duration, now: Instant) {
        let last = self.last.replace(now);
        let is_soon = last.is_some_and(|last| now.duration_since(last) < pause);
        let expected = self.at.and_then(|at| self.find_behind(at, ino));
        if expected.is_none_or(|at| at >= self.again_since) {
            self.again_since = self.gone + self.opens.len();
        }
        let found = expected.or_else(|| self.find_pair(ino));
        let was_soon = found.and_then(|at| self.get(at)).map(|open| open.is_soon);
        self.depth = match was_soon {
            Some(true) if is_soon && expected.is_some() => (self.depth * 2).max(DEPTH_FIRST),
            // It begins as it began then, or is taken up in its middle.
            Some(was_soon) if was_soon == is_soon => DEPTH_FIRST,
            _ => 0,
        };
        if self.depth > 0 {
            self.probe();
        }
        self.depth = self.depth.min(self.depth_max);
        self.at = found.or_else(|| self.find_last(ino));
        self.opens.push_back(Open { ino, is_soon });
        if self.opens.len() > LEN_MAX {
            self.opens.pop_front();
            self.gone += 1;
        }
    }

    /// What will be opened soon, the nearest first; none twice.
    pub(super) fn coming(&self) -> VecDeque<Ino> {
        let mut coming = VecDeque::new();
        if let Some(at) = self.at.filter(|_| self.depth > 0) {
            let rest = self.again_since.saturating_sub((at + 1).max(self.gone));
            let next = self.behind(at).take(self.depth.min(rest));
            for open in next.take_while(|open| open.is_soon) {
                if !coming.contains(&open.ino) {
                    coming.push_back(open.ino);
                }
            }
        }
        coming
    }

    fn get(&self, at: usize) -> Option<&Open> {
        self.opens.get(at.checked_sub(self.gone)?)
    }

    /// The opens that followed one.
    fn behind(&self, at: usize) -> impl Iterator<Item = &Open> {
        self.opens.iter().skip((at + 1).saturating_sub(self.gone))
    }

    /// Where a file was opened soon behind one open: what several programs do at once is mixed.
    fn find_behind(&self, at: usize, ino: Ino) -> Option<usize> {
        let mut steps = self.behind(at).take(SKIPPED_MAX + 1);
        let step = steps.position(|open| open.ino == ino)?;
        Some((at + 1).max(self.gone) + step)
    }

    /// Where a file was opened last behind the one that was opened before it now.
    fn find_pair(&self, ino: Ino) -> Option<usize> {
        let before = self.opens.back()?.ino;
        let pairs = self.opens.iter().zip(self.opens.iter().skip(1));
        let mut pairs = pairs.rev();
        let place = pairs.position(|(one, other)| (one.ino, other.ino) == (before, ino))?;
        (self.gone + self.opens.len()).checked_sub(place + 1)
    }

    fn find_last(&self, ino: Ino) -> Option<usize> {
        let place = self.opens.iter().rposition(|open| open.ino == ino)?;
        Some(self.gone + place)
    }
}

/// Opens remembered: those of a build of some hundred files, or of `git status` some ten times.
const LEN_MAX: usize = 1 << 10;
/// Files that are fetched when one came as expected, and twice as many with each further one, while they are
/// opened in time.
const DEPTH_FIRST: usize = 4;
const DEPTH_MAX: usize = 32;
const PROBE_AFTER: u32 = 32;
/// Opens that may be missing now of what was done before.
const SKIPPED_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PAUSE: Duration = Duration::from_millis(500);

    /// Opens files, each so long after the one before, and tells what comes next after each.
    fn open(
        trail: &mut Trail,
        start: &mut Instant,
        files: &[u64],
        each: Duration,
    ) -> Vec<Vec<u64>> {
        let mut coming = Vec::new();
        for file in files {
            *start += each;
            trail.opened(Ino(*file), PAUSE, *start);
            trail.used();
            coming.push(trail.coming().iter().map(|ino| ino.0).collect());
        }
        coming
    }

    fn trail() -> (Trail, Instant) {
        (Trail::new(), crate::clock::now())
    }

    #[test]
    fn what_is_done_again_is_known_from_its_second_file_on() {
        let (mut trail, mut now) = trail();
        let files = [1, 2, 3, 4, 5, 6];
        let first = open(&mut trail, &mut now, &files, MS * 20);
        assert!(first.iter().all(Vec::is_empty));
        let again = open(&mut trail, &mut now, &files, MS * 20);
        let expected: [&[u64]; 6] = [&[], &[3, 4, 5, 6], &[4, 5, 6], &[5, 6], &[6], &[]];
        assert_eq!(again, expected);
        let loops = open(&mut trail, &mut now, &files, MS * 20);
        assert_eq!(loops[0], [2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_began_after_a_pause_before_is_known_when_it_begins_after_a_pause_again() {
        let (mut trail, mut now) = trail();
        for _ in 0..2 {
            open(&mut trail, &mut now, &[1], PAUSE * 9);
            open(&mut trail, &mut now, &[2, 3], MS);
        }
        assert_eq!(open(&mut trail, &mut now, &[1], PAUSE * 9), [[2, 3]]);
    }

    #[test]
    fn a_file_that_is_opened_often_is_told_apart_by_what_came_before_it() {
        let (mut trail, mut now) = trail();
        open(&mut trail, &mut now, &[1, 2, 1, 3, 1, 4, 9], MS);
        let again = open(&mut trail, &mut now, &[1, 2, 1, 3], MS);
        assert_eq!(again[2][..2], [3, 1]);
        assert_eq!(again[3][..2], [1, 4]);
    }

    #[test]
    fn a_file_left_out_or_one_more_does_not_end_it() {
        let (mut trail, mut now) = trail();
        open(&mut trail, &mut now, &[1, 2, 3, 4, 5, 6, 7, 8], MS);
        let again = open(&mut trail, &mut now, &[1, 2, 5, 6], MS);
        assert_eq!(again[3][..2], [7, 8]);
    }

    #[test]
    fn who_opens_slowly_or_in_another_order_has_nothing_fetched() {
        let (mut trail, mut now) = trail();
        let files = [1, 2, 3, 4, 5, 6];
        open(&mut trail, &mut now, &files, MS);
        let slowly = open(&mut trail, &mut now, &files, PAUSE);
        assert!(slowly.iter().all(Vec::is_empty), "{slowly:?}");
        let polls = open(&mut trail, &mut now, &[7; 9], PAUSE);
        assert!(polls.iter().all(Vec::is_empty), "{polls:?}");
        let backwards = open(&mut trail, &mut now, &[6, 5, 4, 3, 2, 1], MS);
        assert!(backwards.iter().all(Vec::is_empty), "{backwards:?}");
    }

    #[test]
    fn who_does_not_come_in_time_has_nothing_fetched_but_one_file_now_and_then() {
        let (mut trail, mut now) = trail();
        let files = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        open(&mut trail, &mut now, &files, MS);
        (0..9).for_each(|_| trail.wasted());
        let mut fetched = 0;
        for file in files.iter().cycle().take(180) {
            now += MS;
            trail.opened(Ino(*file), PAUSE, now);
            if !trail.coming().is_empty() {
                fetched += 1;
                trail.wasted();
            }
        }
        assert!((4..=6).contains(&fetched), "{fetched} of 180");
        (0..3).for_each(|_| trail.used());
        assert_eq!(trail.depth_max, 0, "nothing was fetched");
    }

    #[test]
    fn a_trail_is_bounded_and_goes_on_when_its_beginning_is_forgotten() {
        let (mut trail, mut now) = trail();
        let files: Vec<u64> = (0..LEN_MAX as u64 - 10).collect();
        for _ in 0..3 {
            open(&mut trail, &mut now, &files, MS);
            assert!(trail.opens.len() <= LEN_MAX);
        }
        let next = open(&mut trail, &mut now, &[0, 1], MS);
        assert_eq!(next[1].len(), DEPTH_MAX);
    }
}
