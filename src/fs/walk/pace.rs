//! How much may be under way ahead of a program. Pure state.

/// More each time that somebody had to wait, less for what was in vain.
#[derive(Debug)]
pub(super) struct Pace {
    now: usize,
    first: usize,
    max: usize,
}

impl Pace {
    pub(super) const fn new(first: usize, max: usize) -> Self {
        let now = first;
        Self { now, first, max }
    }

    /// So much may be under way.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Somebody had to wait for what was under way.
    pub(super) fn late(&mut self) {
        self.now = (self.now * 2).min(self.max);
    }

    /// Something was fetched in vain, or what is under way waits for each other.
    pub(super) fn wasted(&mut self) {
        self.now = (self.now / 2).max(self.first);
    }
}
