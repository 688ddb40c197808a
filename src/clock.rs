//! The one place that reads the clock. Everything else takes time as an argument or asks this.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as SFTP v3 carries them (unsigned 32 bits, so until 2106).
pub(crate) type Seconds = u32;

/// Monotonic time, for what expires.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Monotonic time as the runtime's timers see it, for how long answers take. A test that stops those
/// timers stops this too.
pub(crate) fn of_timers() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall-clock time, for people.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub(crate) fn date() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock time, for time stamps of files. Held to what SFTP v3 can say.
pub(crate) fn wall() -> Seconds {
    let since = date().duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}
