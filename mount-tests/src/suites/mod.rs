//! All suites, in the order they run: one file an idea.

mod acts;
mod asked;
mod bad_input;
mod copies;
mod copies_on;
mod copy_tool;
mod cuts;
mod differential;
mod faults;
mod fsx;
mod lifecycle;
mod pjdfstest;
mod posix;
mod programs;
pub mod random;
mod random_copies;
mod reflink;
mod site;
mod sleeps;
mod status;
mod tools;
mod tree;
mod waits;
mod walks;

use crate::case::Suite;

/// Every suite there is.
pub fn all() -> Vec<Suite> {
    vec![
        posix::suite(),
        lifecycle::suite(),
        status::suite(),
        bad_input::suite(),
        tree::suite(),
        walks::suite(),
        waits::suite(),
        sleeps::suite(),
        programs::suite(),
        copy_tool::suite(),
        differential::suite(),
        fsx::suite(),
        pjdfstest::suite(),
        copies::suite(),
        copies_on::suite(),
        cuts::suite(),
        faults::suite(),
        random_copies::suite(),
        reflink::suite(),
    ]
}
