//! What we know an open file to be: how it is known again when it must be opened by its name, because
//! its handle was lost. Pure state.
//!
//! A file to which we have done nothing since it was looked at has the size and the mtime that it had
//! then. One that we change has a size that what we do may give it; of its times the server's last word
//! may never come. Only what is asked through a handle, or with the OPEN that gave it, tells of the file
//! that is open: what a name leads to may be another one by now.

use std::ops::RangeInclusive;

use crate::clock::Seconds;

/// A moment in the order of what we do to a file, at which nothing was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    /// Before we did anything to a file.
    pub(super) const FIRST: Self = Self(0);
}

/// What the server said of an open file to a question asked at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) at: Mark,
    /// Bytes.
    pub(super) size: u64,
    pub(super) mtime: Seconds,
}

/// What we do to a file beside writing to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Resize(u64),
    /// Mode, owner or times.
    Attributes,
    /// Has the server copy data into it, so far.
    CopyTo(u64),
}

#[derive(Debug, Default)]
pub(super) struct Likeness {
    /// How much was done, or begun.
    doings: u64,
    under_way: u32,
    resizes: u32,
    /// What was written while it was given another size may have been cut off.
    is_unsure: bool,
    /// The server may be copying into it for longer than we wait.
    is_restless: bool,
    /// Sizes that it may have, in bytes; `None`: not known.
    sizes: Option<RangeInclusive<u64>>,
}

impl Likeness {
    /// The moment; `None` while something is under way. That nothing is unwritten the caller knows.
    pub(super) fn mark(&self) -> Option<Mark> {
        let is_quiet = self.under_way == 0 && !self.is_restless;
        is_quiet.then_some(Mark(self.doings))
    }

    /// Whether nothing was done since.
    pub(super) const fn is_at(&self, mark: Mark) -> bool {
        self.doings == mark.0
    }

    /// The server has told of it, through an open.
    pub(super) const fn saw(&mut self, look: &Look) {
        if self.is_at(look.at) {
            self.sizes = Some(look.size..=look.size);
        }
    }

    /// A name was seen to lead to a file of that size, while ours was still open on the server: it may
    /// be ours, cut short by somebody else.
    pub(super) fn heard(&mut self, size: u64) {
        self.reach(size);
    }

    /// It has another server file, of the same content at the most.
    pub(super) fn is_another(&mut self) {
        self.doings += 1;
        self.sizes = None;
    }

    /// Data was taken over that ends there.
    pub(super) fn will_write(&mut self, end: u64) {
        self.doings += 1;
        if let Some(sizes) = &self.sizes {
            self.sizes = Some(*sizes.start()..=end.max(*sizes.end()));
        }
    }

    /// Attributes will be changed, behind what is unwritten.
    pub(super) const fn will_change(&mut self) {
        self.doings += 1;
    }

    /// The server has confirmed data that ends there; `is_last`: nothing else is unwritten.
    pub(super) fn wrote(&mut self, end: u64, is_last: bool) {
        if !self.is_unsure && self.resizes == 0 {
            self.has(end);
        }
        self.is_unsure &= !is_last;
    }

    /// All that was done to it is done, and the server has told of it.
    pub(super) fn settled(&mut self, size: u64) {
        if self.under_way == 0 {
            self.sizes = Some(size..=size);
        }
    }

    /// Something begins; to be ended.
    pub(super) fn begin(&mut self, doing: Doing) -> Mark {
        self.doings += 1;
        self.under_way += 1;
        match doing {
            Doing::Resize(size) => {
                self.resizes += 1;
                self.reach(size);
            }
            Doing::CopyTo(end) => {
                if let Some(sizes) = &self.sizes {
                    self.sizes = Some(*sizes.start()..=end.max(*sizes.end()));
                }
            }
            Doing::Attributes => {}
        }
        Mark(self.doings)
    }

    /// What began then has ended; `is_done`: the server has said that it is done, and else it may be or
    /// not.
    pub(super) fn end(&mut self, doing: Doing, since: Mark, is_done: bool) {
        self.under_way -= 1;
        let is_alone = self.is_at(since);
        match doing {
            Doing::Resize(size) => {
                self.resizes -= 1;
                self.is_unsure |= !is_alone;
                if is_done && is_alone {
                    self.sizes = Some(size..=size);
                }
            }
            Doing::CopyTo(end) if is_done && is_alone => self.has(end),
            Doing::CopyTo(_) => self.is_restless |= !is_done,
            Doing::Attributes => {}
        }
    }

    /// Whether what is there is as the file is known to be, exactly: nothing was done since it was
    /// looked at.
    pub(super) fn is_exact(&self, last: Option<&Look>) -> bool {
        last.is_some_and(|last| self.is_at(last.at))
    }

    /// Whether a file of this size and mtime may be it, which `last` told of. `is_added_to`: it was
    /// opened to append, as others may have it.
    pub(super) fn fits(
        &self,
        last: Option<&Look>,
        (size, mtime): (u64, Seconds),
        is_added_to: bool,
    ) -> bool {
        if let Some(last) = last.filter(|last| self.is_at(last.at)) {
            return (last.size, last.mtime) == (size, mtime);
        }
        self.sizes.as_ref().is_none_or(|sizes| match is_added_to {
            true => size >= *sizes.start(),
            false => sizes.contains(&size),
        })
    }

    /// It may have that size.
    fn reach(&mut self, size: u64) {
        if let Some(sizes) = &self.sizes {
            self.sizes = Some(size.min(*sizes.start())..=size.max(*sizes.end()));
        }
    }

    /// It has at least so many bytes.
    fn has(&mut self, end: u64) {
        if let Some(sizes) = &self.sizes {
            self.sizes = Some(end.max(*sizes.start())..=end.max(*sizes.end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looked at when it had 10 bytes.
    fn seen() -> (Likeness, Look) {
        let mut likeness = Likeness::default();
        let look = Look {
            at: likeness.mark().unwrap(),
            size: 10,
            mtime: 7,
        };
        likeness.saw(&look);
        (likeness, look)
    }

    fn sizes_that_fit(likeness: &Likeness, last: &Look) -> Vec<u64> {
        let fits = |size: &u64| likeness.fits(Some(last), (*size, 99), false);
        [0, 5, 10, 15, 20, 25].into_iter().filter(fits).collect()
    }

    #[test]
    fn a_file_that_we_only_read_has_the_size_and_the_mtime_that_it_had() {
        let (likeness, look) = seen();
        assert!(likeness.fits(Some(&look), (10, 7), false));
        assert!(!likeness.fits(Some(&look), (10, 8), false));
        assert!(!likeness.fits(Some(&look), (11, 7), false));
    }

    #[test]
    fn what_was_written_may_be_there_or_not_and_what_was_confirmed_is() {
        let (mut likeness, look) = seen();
        likeness.will_write(15);
        likeness.will_write(20);
        assert_eq!(sizes_that_fit(&likeness, &look), [10, 15, 20]);
        likeness.wrote(15, false);
        assert_eq!(sizes_that_fit(&likeness, &look), [15, 20]);
        likeness.wrote(20, true);
        assert_eq!(sizes_that_fit(&likeness, &look), [20]);
    }

    #[test]
    fn a_size_that_it_may_have_been_given_fits_until_the_answer() {
        let (mut likeness, look) = seen();
        let since = likeness.begin(Doing::Resize(5));
        assert_eq!(likeness.mark(), None);
        assert_eq!(sizes_that_fit(&likeness, &look), [5, 10]);
        likeness.end(Doing::Resize(5), since, true);
        assert_eq!(sizes_that_fit(&likeness, &look), [5]);
        // And for ever where none came.
        let since = likeness.begin(Doing::Resize(0));
        likeness.end(Doing::Resize(0), since, false);
        assert_eq!(sizes_that_fit(&likeness, &look), [0, 5]);
    }

    #[test]
    fn what_is_written_while_it_is_cut_short_may_be_cut_off_or_not() {
        let (mut likeness, look) = seen();
        let since = likeness.begin(Doing::Resize(0));
        likeness.will_write(20);
        likeness.end(Doing::Resize(0), since, true);
        likeness.wrote(20, true);
        assert_eq!(sizes_that_fit(&likeness, &look), [0, 5, 10, 15, 20]);
        likeness.will_write(25);
        likeness.wrote(25, true);
        assert_eq!(sizes_that_fit(&likeness, &look), [25]);
    }

    #[test]
    fn times_that_we_set_are_not_those_that_were_seen() {
        let (mut likeness, look) = seen();
        likeness.will_change();
        assert_eq!(sizes_that_fit(&likeness, &look), [10]);
        assert!(!likeness.is_exact(Some(&look)));
    }

    #[test]
    fn what_the_server_says_before_a_write_tells_nothing_of_what_is_behind_it() {
        let (mut likeness, _) = seen();
        let late = Look {
            at: likeness.mark().unwrap(),
            size: 10,
            mtime: 8,
        };
        likeness.will_write(20);
        likeness.wrote(20, true);
        likeness.saw(&late);
        assert_eq!(sizes_that_fit(&likeness, &late), [20]);
        likeness.settled(25);
        assert_eq!(sizes_that_fit(&likeness, &late), [25]);
    }

    #[test]
    fn a_copy_may_have_come_as_far_as_it_was_to_go() {
        let (mut likeness, look) = seen();
        let since = likeness.begin(Doing::CopyTo(20));
        assert_eq!(sizes_that_fit(&likeness, &look), [10, 15, 20]);
        likeness.end(Doing::CopyTo(15), since, true);
        assert_eq!(sizes_that_fit(&likeness, &look), [15, 20]);
        assert!(likeness.mark().is_some());
        // One that nobody waits for any more goes on.
        let since = likeness.begin(Doing::CopyTo(25));
        likeness.end(Doing::CopyTo(25), since, false);
        assert_eq!(likeness.mark(), None);
    }

    #[test]
    fn others_may_add_to_a_file_that_is_opened_to_append() {
        let (mut likeness, look) = seen();
        likeness.will_write(15);
        likeness.wrote(15, true);
        let fits = |size| likeness.fits(Some(&look), (size, 99), true);
        assert!(fits(15) && fits(1000) && !fits(14));
    }

    #[test]
    fn of_another_server_file_nothing_is_known_until_it_is_looked_at() {
        let (mut likeness, look) = seen();
        likeness.is_another();
        assert_eq!(sizes_that_fit(&likeness, &look).len(), 6);
        let look = Look {
            at: likeness.mark().unwrap(),
            ..look
        };
        likeness.saw(&look);
        likeness.will_write(3);
        assert_eq!(sizes_that_fit(&likeness, &look), [10]);
    }
}
