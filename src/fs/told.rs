//! Which names a listing has told, so that one that is begun anew in its middle leaves out those and no
//! others: what was removed meanwhile has moved all that is behind it. Pure state.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Names, as keyed hashes: that any two of a million have the same is less likely than 1 in 10 million.
pub(super) struct Told {
    /// `None`: too many.
    names: Option<HashSet<u64>>,
    key: RandomState,
}

impl Told {
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut told = Self {
            names: Some(HashSet::new()),
            key: RandomState::new(),
        };
        names.for_each(|name| told.add(name));
        told
    }

    pub(super) fn add(&mut self, name: &[u8]) {
        let hash = self.key.hash_one(name);
        let names = self.names.as_mut();
        let is_too_much = names.is_some_and(|names| names.insert(hash) && names.len() > TOLD_MAX);
        if is_too_much {
            self.names = None;
        }
    }

    /// Whether a name was told. Of one that was, in a directory of too many names, this may not be
    /// known any more; then it is told twice.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        let hash = self.key.hash_one(name);
        self.names
            .as_ref()
            .is_some_and(|names| names.contains(&hash))
    }

    /// How many were told, if all are known.
    pub(super) fn len(&self) -> Option<usize> {
        self.names.as_ref().map(HashSet::len)
    }

    /// Whether all that were told are known.
    pub(super) const fn is_whole(&self) -> bool {
        self.names.is_some()
    }
}

/// Of one open directory: 20 MiB at most.
const TOLD_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_known_and_nothing_else() {
        let mut told = Told::of([&b"a"[..], b"b"].into_iter());
        told.add(b"c");
        assert!(told.has(b"a") && told.has(b"b") && told.has(b"c"));
        assert!(!told.has(b"d"));
    }

    #[test]
    fn of_too_many_nothing_is_known_rather_than_the_wrong_thing() {
        let mut told = Told::of(std::iter::empty());
        for number in 0..=u32::try_from(TOLD_MAX).unwrap() {
            told.add(&number.to_be_bytes());
        }
        assert!(!told.is_whole());
        assert!(!told.has(&0_u32.to_be_bytes()));
    }
}
