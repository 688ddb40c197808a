//! Who waits, and whether it is still worth it: fuser cannot be told of an interrupted request, but
//! a thread that waits for an answer of ours has its signals waiting, which /proc shows, as it does
//! the groups of who asks.

use std::future::{Future, pending};
use std::time::Duration;

tokio::task_local! {
    /// The thread on whose behalf an operation runs; 0 where it lives in a pid namespace that we
    /// do not see.
    static THREAD: u32;
}

/// Runs an operation on behalf of a thread.
pub(crate) fn on_behalf_of<F: Future>(
    thread: u32,
    operation: F,
) -> impl Future<Output = F::Output> {
    THREAD.scope(thread, operation)
}

/// Ends when the thread on whose behalf this runs has a signal waiting that it does not block: it
/// is to be killed, or to handle the signal. Never ends where that cannot be known.
pub(super) async fn interrupted() {
    let Ok(thread @ 1..) = THREAD.try_with(|thread| *thread) else {
        return pending().await;
    };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A file of the kernel, which does not wait for anything.
        match std::fs::read(format!("/proc/{thread}/status")) {
            Ok(status) if has_signal(&status) => return,
            Ok(_) => {}
            Err(_) => return pending().await,
        }
    }
}

/// The supplementary groups of the thread on whose behalf this runs; none where that cannot be
/// known.
pub(super) fn further_groups() -> Vec<u32> {
    let status = THREAD
        .try_with(|thread| std::fs::read(format!("/proc/{thread}/status")))
        .map(Result::unwrap_or_default);
    groups(&status.unwrap_or_default())
}

fn groups(status: &[u8]) -> Vec<u32> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"Groups:"));
    let words = String::from_utf8_lossy(line.unwrap_or_default());
    let numbers = words.split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Whether proc_pid_status(5) shows a signal that waits and is not blocked. One that is ignored
/// never waits.
fn has_signal(status: &[u8]) -> bool {
    let mask = |field: &[u8]| {
        let line = status
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(field));
        let digits = line.and_then(|digits| std::str::from_utf8(digits).ok());
        digits
            .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
            .unwrap_or(0)
    };
    (mask(b"SigPnd:") | mask(b"ShdPnd:")) & !mask(b"SigBlk:") != 0
}

/// Often enough for Ctrl-C to seem immediate, seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: &str, shared: &str, blocked: &str) -> Vec<u8> {
        format!("Name:\tcp\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\nSigIgn:\t0\n")
            .into_bytes()
    }

    #[test]
    fn a_signal_that_waits_and_is_not_blocked_interrupts() {
        // SIGKILL of the thread, SIGINT of the process.
        assert!(has_signal(&status("0000000000000100", "0", "0")));
        assert!(has_signal(&status(
            "0",
            "0000000000000002",
            "0000000000000004"
        )));
    }

    #[test]
    fn no_signal_and_a_blocked_one_do_not() {
        assert!(!has_signal(&status("0", "0", "ffffffffffffffff")));
        assert!(!has_signal(&status(
            "0",
            "0000000000000002",
            "0000000000000002"
        )));
        assert!(!has_signal(b"rubbish"));
    }

    #[test]
    fn groups_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            groups(b"Gid:\t7\t7\nGroups:\t4 24 1000 \nNStgid:\t1\n"),
            [4, 24, 1000]
        );
        assert!(groups(b"Groups:\t \n").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_without_signals_is_waited_for() {
        let this = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
        let waited =
            tokio::time::timeout(Duration::from_secs(5), on_behalf_of(this, interrupted()));
        assert!(waited.await.is_err());
    }
}
