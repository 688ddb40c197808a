//! All suites, in the order they run: one file an idea.

mod bad_input;
mod copy_tool;
mod differential;
mod fsx;
mod lifecycle;
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
        lifecycle::suite(),
        bad_input::suite(),
        tree::suite(),
        programs::suite(),
        copy_tool::suite(),
        differential::suite(),
        fsx::suite(),
        pjdfstest::suite(),
    ]
}
