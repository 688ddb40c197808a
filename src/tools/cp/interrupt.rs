//! Ctrl-C, and being asked to end: the copy stops, what is incomplete is said, and the process ends
//! within a second, whatever its threads wait for.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::job::Job;
use crate::tools::numbers::grouped;
use crate::tools::quote::quoted;

/// What a thread waits for at most takes about half of this; one that waits for a dead server
/// would wait much longer.
const PATIENCE: Duration = Duration::from_millis(800);
/// Names of incomplete files that are told.
const TOLD_MAX: usize = 20;

/// Which signals mean the end.
pub(super) fn signals() -> SigSet {
    SigSet::from(Signal::SIGINT) | Signal::SIGTERM | Signal::SIGHUP
}

/// Waits for a signal for as long as the process lives. All other threads have it blocked.
pub(super) fn watch(job: &Arc<Job>) -> std::io::Result<()> {
    let job = Arc::clone(job);
    let wait = move || {
        // sigwait(3) fails for a set without signals only.
        let Ok(signal) = signals().wait() else { return };
        job.stop();
        // A second signal means that nothing is worth waiting for.
        let _ = signals().thread_unblock();
        job.pool.wait_until_quiet(PATIENCE);
        job.progress_ends();
        end(&job, signal, &job.incomplete());
    };
    let thread = std::thread::Builder::new().name("cp-signals".into());
    thread.spawn(wait).map(drop)
}

/// Says what is incomplete, and ends the process as shells expect it of one that a signal ended.
fn end(job: &Job, signal: Signal, incomplete: &[Vec<u8>]) {
    let tally = job.tally();
    job.complain(&format!(
        "interrupted: copied {} of {}{} files",
        grouped(tally.files_done),
        grouped(tally.files_known),
        if tally.is_complete { "" } else { "+" }
    ));
    for path in incomplete.iter().take(TOLD_MAX) {
        job.complain(&format!("{} is incomplete", quoted(path)));
    }
    if let Some(more @ 1..) = incomplete.len().checked_sub(TOLD_MAX) {
        job.complain(&format!("{more} more are incomplete"));
    }
    std::process::exit(128 + signal as i32);
}
