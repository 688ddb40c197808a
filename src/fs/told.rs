//! Which names a listing has told, so that one that is begun anew in its middle leaves out those and no
//! others: what was removed meanwhile has moved all that is behind it. Pure state.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Names, as keyed hashes: that any two of a million have the same is less likely than 1 in 10 million.
///
/// They are looked for only after a loss. Until then each costs its 8 bytes and no order.
pub(super) struct Told {
    /// Told before the listing was begun anew; in the order of the hashes, once it was.
    before: Vec<u64>,
    since: HashSet<u64>,
    is_anew: bool,
    /// Not too many, so that all are here.
    is_whole: bool,
    key: RandomState,
}

impl Told {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut told = Self {
            before: Vec::new(),
            since: HashSet::new(),
            is_anew: false,
            is_whole: true,
            key: RandomState::new(),
        };
        names.for_each(|name| told.add(name));
        told
    }

    pub(super) fn add(&mut self, name: &[u8]) {
        if !self.is_whole {
            return;
        }
        let hash = self.key.hash_one(name);
        if self.is_anew {
            if self.before.binary_search(&hash).is_err() {
                self.since.insert(hash);
            }
        } else {
            self.before.push(hash);
        }
        if self.before.len() + self.since.len() > TOLD_MAX {
            (self.before, self.since) = (Vec::new(), HashSet::new());
            self.is_whole = false;
        }
    }

    /// The listing is begun anew: from now on [`Self::has`] will be asked.
    pub(super) fn begin_anew(&mut self) {
        self.is_anew = true;
        self.before.extend(self.since.drain());
        self.before.sort_unstable();
        self.before.dedup();
    }

    /// Whether a name was told, of a listing that was begun anew. Of one that was, in a directory of too
    /// many names, this may not be known any more; then it is told twice.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        let hash = self.key.hash_one(name);
        self.before.binary_search(&hash).is_ok() || self.since.contains(&hash)
    }

    /// How many were told, if all are known.
    pub(super) fn len(&self) -> Option<usize> {
        self.is_whole.then(|| self.before.len() + self.since.len())
    }

    /// Whether all that were told are known.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// Of one open directory: 8 MiB at most, and 20 MiB after a loss.
const TOLD_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_known_once_it_is_begun_anew_and_nothing_else() {
        let mut told = Told::of([&b"b"[..], b"a"].into_iter());
        for _ in 0..2 {
            told.begin_anew();
            told.add(b"c");
            assert!(told.has(b"a") && told.has(b"b") && told.has(b"c"));
            assert!(!told.has(b"d"));
        }
        assert_eq!(told.len(), Some(3));
    }

    #[test]
    fn of_too_many_nothing_is_known_rather_than_the_wrong_thing() {
        let mut told = Told::of(std::iter::empty());
        for number in 0..=u32::try_from(TOLD_MAX).unwrap() {
            told.add(&number.to_be_bytes());
        }
        told.begin_anew();
        assert!(!told.is_whole());
        assert!(!told.has(&0_u32.to_be_bytes()));
    }
}
