//! The other end of the wire, for tests: a whole SFTP server in memory, a scripted one, and what
//! asks them and the real ones one thing at a time.

mod allocations;
mod program;
mod record;
mod talk;

pub(crate) use allocations::peak;
pub(crate) use program::Program;
pub(crate) use talk::Talk;
