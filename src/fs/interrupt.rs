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

/// Ends when the thread on whose behalf this runs has a signal waiting that asks it to end: one that
/// kills it, or one of those by which it is asked to, if it handles that. Never ends where that
/// cannot be known.
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

/// Whether proc_pid_status(5) shows such a signal, not blocked. A program that handles SIGCHLD, a
/// timer or a resized window would take an interrupted write(2) for an error.
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
    let waiting = (mask(b"SigPnd:") | mask(b"ShdPnd:")) & !mask(b"SigBlk:");
    let is_left_alone = mask(b"SigCgt:") | mask(b"SigIgn:") | signals(&HARMLESS);
    waiting & (signals(&ENDING) | !is_left_alone) != 0
}

/// A mask as in proc_pid_status(5).
fn signals(numbers: &[i32]) -> u64 {
    numbers
        .iter()
        .fold(0, |mask, number| mask | 1 << (number - 1))
}

/// Asked to end, whether or not the program handles it.
const ENDING: [i32; 5] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGKILL,
    libc::SIGTERM,
];
/// Those that end nothing by themselves (signal(7)).
const HARMLESS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];
/// Often enough for Ctrl-C to seem immediate, seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn status(waiting: &[i32], blocked: &[i32], caught: &[i32]) -> Vec<u8> {
        let (waiting, blocked, caught) = (signals(waiting), signals(blocked), signals(caught));
        format!(
            "Name:\tcp\nSigPnd:\t{waiting:016x}\nShdPnd:\t{waiting:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t0000000000000000\nSigCgt:\t{caught:016x}\n"
        )
        .into_bytes()
    }

    #[test]
    fn what_asks_a_program_to_end_interrupts_it() {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL, libc::SIGHUP] {
            assert!(has_signal(&status(&[signal], &[libc::SIGPIPE], &[])));
            assert!(has_signal(&status(&[signal], &[], &[signal])), "handled");
        }
        assert!(has_signal(&status(&[libc::SIGALRM], &[], &[])), "it kills");
    }

    #[test]
    fn what_a_program_handles_or_blocks_or_need_not_know_does_not() {
        assert!(!has_signal(&status(
            &[libc::SIGALRM],
            &[],
            &[libc::SIGALRM]
        )));
        assert!(!has_signal(&status(&[libc::SIGINT], &[libc::SIGINT], &[])));
        for harmless in HARMLESS {
            assert!(!has_signal(&status(&[harmless], &[], &[])), "{harmless}");
        }
        assert!(!has_signal(&status(&[], &[], &[])));
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
