//! All suites, in the order they run: one file an idea.

mod differential;
mod posix;
pub mod random;

use crate::case::Suite;

/// Every suite there is.
pub fn all() -> Vec<Suite> {
    vec![posix::suite(), differential::suite()]
}
