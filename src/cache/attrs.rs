//! Attributes of files, each believed until a moment, and never older than our own last change.
//!
//! **Invariant:** an answer to a question that was sent before a change of ours was done is not
//! stored: a [`Stamp`] taken before the question says so.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::trust::{Sighting, Trust};
use crate::clock::Seconds;
use crate::sftp::FileKind;

/// An inode number of the mount. 1 is its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ino(pub(crate) u64);

impl Ino {
    pub(crate) const ROOT: Self = Self(1);
}

/// What is known of a file, in our users' and groups' numbers. SFTP v3 has no more than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) kind: FileKind,
    /// The lower twelve bits of st_mode.
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) atime: Seconds,
    pub(crate) mtime: Seconds,
    /// SFTP has no ctime: the later of mtime and our own last change of the inode.
    pub(crate) ctime: Seconds,
}

impl Attr {
    /// Whether a server that said this says the same now. A reader moves the time of the last access,
    /// and the ctime is ours.
    pub(crate) fn says_as(&self, now: &Self) -> bool {
        let Self { atime, ctime, .. } = *now;
        *now == Self {
            atime,
            ctime,
            ..*self
        }
    }
}

/// A moment in the order of our own changes and questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Stamp(u64);

/// Attributes by inode, the least recently used ones given up first.
#[derive(Debug)]
pub(crate) struct AttrCache {
    entries: LruCache<Ino, Entry>,
    /// Counts our changes and questions.
    last: Stamp,
    /// The latest change of an inode that was given up: until then nothing may be stored for an
    /// inode that is not here.
    given_up: Stamp,
}

#[derive(Debug)]
struct Entry {
    attr: Attr,
    /// Believed before this moment; `None` after a change whose outcome must be asked for.
    until: Option<Instant>,
    /// That the file's name leads to it is believed before this moment.
    named_until: Option<Instant>,
    /// Our last change.
    changed: Stamp,
    /// The question that `attr` answers.
    asked: Stamp,
    /// Since when the content was seen unchanged, by size and mtime.
    same_since: Option<Instant>,
    /// Since when the server has said all that `attr` says, and we have changed nothing.
    seen: Option<Sighting>,
    /// Pages may have been read while a change would not have shown.
    is_doubtful: bool,
}

impl Entry {
    /// Whether a change of the content from now on shows in size or mtime.
    fn is_settled(&self, now: Instant, wall: Seconds) -> bool {
        let seen_for = |since| now.saturating_duration_since(since);
        wall.saturating_sub(self.attr.mtime) > CLOCKS_DIFFER_MAX
            || self
                .same_since
                .is_some_and(|since| seen_for(since) >= MTIME_GRAIN)
    }
}

impl AttrCache {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            entries: LruCache::new(capacity),
            last: Stamp::default(),
            given_up: Stamp::default(),
        }
    }

    /// The moment, to be taken before asking the server.
    pub(crate) const fn stamp(&mut self) -> Stamp {
        self.last.0 += 1;
        self.last
    }

    /// What is known and still believed, and for how long.
    pub(crate) fn fresh(&mut self, ino: Ino, now: Instant) -> Option<(Attr, Duration)> {
        let entry = self.entries.get(&ino)?;
        let left = entry.until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some((entry.attr, left))
    }

    /// For how long the name is still believed to lead to this file.
    pub(crate) fn named(&self, ino: Ino, now: Instant) -> Option<Duration> {
        let left = self
            .entries
            .peek(&ino)?
            .named_until?
            .checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// Until when what was said of the file last is believed by other terms.
    pub(crate) fn until(&self, ino: Ino, trust: Trust) -> Option<Instant> {
        let seen = self.entries.peek(&ino)?.seen?;
        Some(trust.until(seen))
    }

    /// Notes that the file's name was seen to lead to it, or that it is no longer known to.
    pub(crate) fn set_named(&mut self, ino: Ino, until: Option<Instant>) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.named_until = until;
        }
    }

    /// What was known last, believed or not.
    pub(crate) fn last(&self, ino: Ino) -> Option<Attr> {
        self.entries.peek(&ino).map(|entry| entry.attr)
    }

    /// Whether more is known of a file than an answer to a question of that moment tells.
    pub(crate) fn is_newer(&self, ino: Ino, asked: Stamp) -> bool {
        let entry = self.entries.peek(&ino);
        entry.is_some_and(|entry| entry.changed.max(entry.asked) > asked)
    }

    /// Whether we have changed a file since that moment, or may have.
    pub(crate) fn has_changed(&self, ino: Ino, since: Stamp) -> bool {
        let entry = self.entries.peek(&ino);
        entry.map_or(self.given_up, |entry| entry.changed) > since
    }

    /// Stores what the server said to a question sent at `asked`, unless a change of ours came
    /// after, or the answer to a later question did. Gives what is known now: the answer, with the ctime that we know of.
    pub(crate) fn store(
        &mut self,
        ino: Ino,
        mut attr: Attr,
        asked: Stamp,
        (sighting, trust): (Sighting, Trust),
    ) -> Attr {
        let known = self.entries.get(&ino);
        let known_since = |entry: &Entry| entry.changed.max(entry.asked);
        if known.map_or(self.given_up, known_since) > asked {
            return known.map_or(attr, |entry| entry.attr);
        }
        attr.ctime = known.map_or(attr.mtime, |entry| entry.attr.ctime.max(attr.mtime));
        let changed = known.map_or(self.given_up, |entry| entry.changed);
        let named_until = known.and_then(|entry| entry.named_until);
        let same_since = known.and_then(|entry| entry.same_since);
        let is_doubtful = known.is_some_and(|entry| entry.is_doubtful);
        let before = known.filter(|entry| entry.attr.says_as(&attr));
        let before = before.and_then(|entry| entry.seen);
        let seen = before.map_or(sighting, |before| sighting.after(before));
        self.insert(
            ino,
            Entry {
                attr,
                until: Some(trust.until(seen)),
                named_until,
                changed,
                asked,
                same_since,
                seen: Some(seen),
                is_doubtful,
            },
        );
        attr
    }

    /// As [`Self::store`], for what a listing says of a file whose every change since it was asked
    /// for would have taken the attributes out of the listing: also where the file's own changes were
    /// forgotten.
    pub(crate) fn store_listed(
        &mut self,
        ino: Ino,
        attr: Attr,
        asked: Stamp,
        (sighting, trust): (Sighting, Trust),
    ) -> Attr {
        if self.entries.contains(&ino) {
            return self.store(ino, attr, asked, (sighting, trust));
        }
        self.insert(
            ino,
            Entry {
                attr,
                until: Some(trust.until(sighting)),
                named_until: None,
                changed: asked,
                asked,
                same_since: None,
                seen: Some(sighting),
                is_doubtful: false,
            },
        );
        attr
    }

    /// Notes a change of ours that is done or on its way: what was asked before is out of date,
    /// and what is known must be asked for again.
    pub(crate) fn changed(&mut self, ino: Ino) {
        let now = self.stamp();
        match self.entries.get_mut(&ino) {
            Some(entry) => {
                entry.until = None;
                entry.seen = None;
                entry.changed = now;
            }
            None => self.given_up = now,
        }
    }

    /// Notes a change of ours whose outcome is known: `change` makes it, and the result is
    /// believed until `until`. Nothing is stored if nothing was known.
    pub(crate) fn change(&mut self, ino: Ino, until: Instant, change: impl FnOnce(&mut Attr)) {
        self.changed(ino);
        if let Some(entry) = self.entries.get_mut(&ino) {
            change(&mut entry.attr);
            entry.until = Some(until);
        }
    }

    /// Notes that the inode itself (mode, owner, links) was changed by us now.
    pub(crate) fn touch(&mut self, ino: Ino, now: Seconds) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.attr.ctime = entry.attr.ctime.max(now);
        }
    }

    /// Notes that what the server said last is other content than before, or the first that is known.
    pub(crate) fn content_is_new(&mut self, ino: Ino, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.same_since = Some(now);
            entry.is_doubtful = false;
        }
    }

    /// Notes an open of the file. Says whether pages that were read of it before are of the content
    /// that the server told of last: a change within the second of the mtime does not show.
    pub(crate) fn opened(&mut self, ino: Ino, now: Instant, wall: Seconds) -> bool {
        let Some(entry) = self.entries.get_mut(&ino) else {
            return false;
        };
        let is_settled = entry.is_settled(now, wall);
        let was_doubtful = std::mem::replace(&mut entry.is_doubtful, !is_settled);
        is_settled && !was_doubtful
    }

    /// As [`Self::opened`], for who is content with what is believed: pages that may be doubted are
    /// given up once, when all that are read from then on can be trusted.
    pub(crate) fn opened_unasked(&mut self, ino: Ino, now: Instant, wall: Seconds) -> bool {
        let entry = self.entries.peek(&ino);
        let are_good = entry.is_some_and(|it| !(it.is_doubtful && it.is_settled(now, wall)));
        self.opened(ino, now, wall);
        are_good
    }

    pub(crate) fn forget(&mut self, ino: Ino) {
        if let Some(entry) = self.entries.pop(&ino) {
            self.given_up = self.given_up.max(entry.changed);
        }
    }

    fn insert(&mut self, ino: Ino, entry: Entry) {
        if let Some((old, pushed_out)) = self.entries.push(ino, entry)
            && old != ino
        {
            self.given_up = self.given_up.max(pushed_out.changed);
        }
    }
}

/// SFTP's times are whole seconds; one more for good measure.
const MTIME_GRAIN: Duration = Duration::from_secs(2);
/// Seconds by which clocks of servers are believed to be wrong: who changes a file now gives it no
/// mtime that is further back.
const CLOCKS_DIFFER_MAX: Seconds = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ino = Ino(10);
    const B: Ino = Ino(11);
    const SECOND: Duration = Duration::from_secs(1);

    fn attr(size: u64) -> Attr {
        Attr {
            kind: FileKind::Regular,
            permissions: 0o644,
            uid: 1,
            gid: 1,
            size,
            atime: 5,
            mtime: 5,
            ctime: 0,
        }
    }

    /// Believed until a moment.
    fn until(moment: Instant) -> (Sighting, Trust) {
        let trust = Trust {
            least: SECOND,
            most: SECOND,
        };
        (Sighting::first(moment - SECOND), trust)
    }

    fn cache(capacity: usize) -> (AttrCache, Instant) {
        (
            AttrCache::new(NonZeroUsize::new(capacity).unwrap()),
            crate::clock::now(),
        )
    }

    #[test]
    fn what_is_stored_is_believed_until_its_moment_and_not_at_it() {
        let (mut cache, now) = cache(4);
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(now + SECOND));
        assert_eq!(cache.fresh(A, now).unwrap().1, SECOND);
        assert!(cache.fresh(A, now + SECOND).is_none());
        assert_eq!(cache.last(A).unwrap().size, 1);
    }

    #[test]
    fn an_answer_older_than_our_change_is_not_stored() {
        let (mut cache, now) = cache(4);
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(now + SECOND));
        let asked = cache.stamp();
        cache.change(A, now + SECOND, |attr| attr.size = 2);
        cache.store(A, attr(1), asked, until(now + SECOND));
        assert_eq!(cache.fresh(A, now).unwrap().0.size, 2);
    }

    #[test]
    fn an_answer_to_an_earlier_question_does_not_replace_a_later_one() {
        let (mut cache, now) = cache(4);
        let (earlier, later) = (cache.stamp(), cache.stamp());
        cache.store(A, attr(2), later, until(now + SECOND));
        cache.store(A, attr(1), earlier, until(now + SECOND));
        assert_eq!(cache.fresh(A, now).unwrap().0.size, 2);
    }

    #[test]
    fn a_change_of_one_file_lets_answers_about_another_in() {
        let (mut cache, now) = cache(4);
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(now));
        let asked = cache.stamp();
        cache.changed(A);
        cache.store(B, attr(8), asked, until(now + SECOND));
        assert_eq!(cache.fresh(B, now).unwrap().0.size, 8);
    }

    #[test]
    fn a_change_outlives_its_entry() {
        let (mut cache, now) = cache(1);
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(now + SECOND));
        let before_the_change = cache.stamp();
        cache.changed(A);
        let asked = cache.stamp();
        cache.store(B, attr(2), asked, until(now + SECOND));
        cache.store(A, attr(1), before_the_change, until(now + SECOND));
        assert!(cache.fresh(A, now).is_none());
    }

    #[test]
    fn ctime_never_goes_back_while_the_file_is_known() {
        let (mut cache, now) = cache(4);
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(now + SECOND));
        cache.touch(A, 100);
        let asked = cache.stamp();
        let stored = cache.store(A, attr(1), asked, until(now + SECOND));
        assert_eq!(stored.ctime, 100);
    }

    #[test]
    fn who_believes_keeps_pages_until_they_can_be_read_once_and_trusted() {
        let (mut cache, start) = (AttrCache::new(NonZeroUsize::MIN), crate::clock::now());
        let asked = cache.stamp();
        cache.store(A, attr(1), asked, until(start));
        cache.content_is_new(A, start);
        // Its mtime is 1: changed just now, by the clock.
        let mut opened = |after| cache.opened_unasked(A, start + after, 1);
        assert!(opened(Duration::ZERO));
        assert!(opened(MTIME_GRAIN / 2));
        assert!(!opened(MTIME_GRAIN));
        assert!(opened(MTIME_GRAIN * 2));
        assert!(!cache.opened_unasked(Ino(11), start, 1), "nothing is known");
    }

    #[test]
    fn pages_are_kept_only_if_none_was_read_while_a_change_would_not_show() {
        // What of mtime 5 is opened at these moments (milliseconds after it was seen first, by a
        // clock that says so many seconds), and whether pages are kept.
        let cases: &[(Seconds, &[(u64, bool)])] = &[
            (
                5,
                &[
                    (0, false),
                    (1999, false),
                    (2000, false),
                    (2001, true),
                    (9000, true),
                ],
            ),
            (5, &[(2000, true), (2001, true)]),
            (0, &[(1000, false), (5000, false), (6000, true)]),
            (
                5 + CLOCKS_DIFFER_MAX,
                &[(0, false), (2000, false), (2001, true)],
            ),
            (6 + CLOCKS_DIFFER_MAX, &[(0, true), (1, true)]),
        ];
        for (wall, opens) in cases {
            let (mut cache, now) = cache(4);
            let asked = cache.stamp();
            cache.store(A, attr(1), asked, until(now));
            cache.content_is_new(A, now);
            for (at, kept) in *opens {
                let then = now + Duration::from_millis(*at);
                assert_eq!(cache.opened(A, then, *wall), *kept, "at {at}, clock {wall}");
                let asked = cache.stamp();
                cache.store(A, attr(1), asked, until(then));
            }
            let later = now + SECOND * 100;
            assert!(cache.opened(A, later, *wall));
            cache.content_is_new(A, later);
            let is_old = *wall > 5 + CLOCKS_DIFFER_MAX;
            assert_eq!(
                cache.opened(A, later + SECOND, *wall),
                is_old,
                "clock {wall}"
            );
        }
    }

    #[test]
    fn what_the_server_says_again_and_again_is_believed_longer_until_we_change_it() {
        let (mut cache, start) = cache(4);
        let trust = Trust {
            least: SECOND,
            most: SECOND * 4,
        };
        let mut lasts = |after, size, is_changed: bool| {
            if is_changed {
                cache.changed(A);
            }
            let (at, asked) = (start + SECOND * after, cache.stamp());
            let read_since = Attr {
                atime: after,
                ..attr(size)
            };
            cache.store(A, read_since, asked, (Sighting::first(at), trust));
            cache.fresh(A, at).unwrap().1.as_secs()
        };
        let seen = [(0, 1), (2, 1), (9, 1), (10, 2), (13, 2)];
        assert_eq!(
            seen.map(|(at, size)| lasts(at, size, false)),
            [1, 2, 4, 1, 3]
        );
        assert_eq!(lasts(14, 2, true), 1);
    }
}
