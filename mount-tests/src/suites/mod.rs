//! All suites, in the order they run: one file an idea.

mod differential;
mod fsx;
mod pjdfstest;
mod posix;
mod programs;
pub mod random;
mod tools;
mod tree;

use crate::case::Suite;

/// Every suite there is.
pub fn all() -> Vec<Suite> {
    vec![
        posix::suite(),
        tree::suite(),
        differential::suite(),
        fsx::suite(),
        pjdfstest::suite(),
        programs::suite(),
    ]
}
