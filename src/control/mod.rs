//! The control socket of a mount: `sftpfs status` and `sftpfs reconnect` ask through it how the mount
//! is, and have it try at once to reach the server.
//!
//! Threads of its own answer, so that it answers while the server is away and every other thread
//! waits. What it tells is gathered by one more thread that may get stuck.
//!
//! **Invariant:** only the user of the mount and root are answered. Clients, lines and times are
//! bounded, and nothing that was answered to a question is written anywhere.

mod ask;
mod place;
mod serve;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::fs::Filesystem;
use crate::transport::Questions;

pub(crate) use ask::{reconnect, status};
pub(crate) use place::Place;
pub(crate) use serve::Control;

/// What a control socket tells of, and acts on.
pub(crate) struct Subject {
    pub(crate) fs: Arc<Filesystem>,
    /// Where a login asks that is made while the mount runs.
    pub(crate) questions: Questions,
    /// User, host, port and way, for people.
    pub(crate) server: String,
    /// Where connections live.
    pub(crate) network: Handle,
}
