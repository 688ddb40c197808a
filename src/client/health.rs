//! How the connection to the server is, for people.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is known of the connection at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) standing: Standing,
    /// Since when it is so.
    pub(crate) since: SystemTime,
    /// How often the connection was made anew.
    pub(crate) reconnects: u64,
    /// Connections that are open now, of all kinds.
    pub(crate) connections: usize,
    /// Requests that were sent and have no answer.
    pub(crate) outstanding: usize,
    /// How long the oldest of them waits.
    pub(crate) oldest: Option<Duration>,
    /// What went wrong with the connection last, and when.
    pub(crate) last_error: Option<(SystemTime, Arc<str>)>,
}

/// Whether the server can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Connected,
    /// Lost; another try is made after a while, or at once when somebody needs it.
    Reconnecting,
    /// The server does not let us in any more; a try is made only when somebody asks for it.
    Denied,
    /// Given up: the mount is ending.
    Ended,
}
