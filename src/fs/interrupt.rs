//! Who waits, and whether it is still worth it: fuser cannot be told of an interrupted request, but
//! a thread that waits for an answer of ours has its signals waiting, which /proc shows, as it does
//! the groups of who asks.

use std::future::{Future, pending};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

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

/// What a thread that waits is asked to do by the signals that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing, or nothing that ends a wait.
    None,
    /// To end, which it handles in its own way.
    Asked,
    /// It is being killed: nothing that it is told reaches the program.
    Killed,
    /// There is no such thread any more.
    Gone,
    /// That cannot be known.
    Unknown,
}

/// Looks at a thread. A file of the kernel is read, which does not wait for anything.
pub(crate) fn wish_of(thread: u32) -> Wish {
    let about = |what: &str| std::fs::read(format!("/proc/{thread}/{what}"));
    if let Ok(status) = about("status") {
        // One that is ending has no memory any more, and closes what it had open.
        let is_ending = || !status.windows(3).any(|start| start == b"\nVm");
        return match wish_in(&status) {
            Wish::None if is_ending() && about("stat").is_ok_and(|stat| is_killed(&stat)) => {
                Wish::Killed
            }
            wish => wish,
        };
    }
    // /proc may hide others' processes (hidepid, proc(5)).
    let thread = i32::try_from(thread).map(Pid::from_raw);
    match thread.map(|thread| kill(thread, None)) {
        Ok(Err(Errno::ESRCH)) => Wish::Gone,
        _ => Wish::Unknown,
    }
}

/// Whether a thread that waits is in a call that reads a file and may fail with EINTR. In a page fault
/// an error of ours is a SIGBUS or, inside another call, an EFAULT; so false where /proc does not say
/// (proc_pid_syscall(5), which not everybody may read).
pub(crate) fn is_in_a_read(thread: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{thread}/syscall"));
    let number = call
        .ok()
        .and_then(|call| call.split(' ').next()?.parse().ok());
    number.is_some_and(|number: libc::c_long| READS.contains(&number))
}

/// The calls by which programs read.
const READS: [libc::c_long; 8] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
];

/// Ends when the thread on whose behalf this runs has a signal waiting that asks it to end: one that
/// kills it, or one of those by which it is asked to, if it handles that. Never ends where that
/// cannot be known.
pub(super) async fn interrupted() {
    let Ok(thread @ 1..) = THREAD.try_with(|thread| *thread) else {
        return pending().await;
    };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match wish_of(thread) {
            Wish::Asked | Wish::Killed => return,
            Wish::None => {}
            Wish::Gone | Wish::Unknown => return pending().await,
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

/// What the signals of proc_pid_status(5) that wait and are not blocked ask for. A program that
/// handles SIGCHLD, a timer or a resized window would take an interrupted write(2) for an error.
fn wish_in(status: &[u8]) -> Wish {
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
    if waiting & (signals(&[libc::SIGKILL]) | !is_left_alone) != 0 {
        Wish::Killed
    } else if waiting & signals(&ENDING) & !mask(b"SigIgn:") != 0 {
        Wish::Asked
    } else {
        Wish::None
    }
}

/// Whether proc_pid_stat(5) says of a thread that is ending that a signal ended it, which does not
/// wait for it any more. One that ends by itself waits for what it has written, as for a close(2).
fn is_killed(stat: &[u8]) -> bool {
    let exit_code = stat.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
    let digits = exit_code.and_then(|digits| std::str::from_utf8(digits).ok());
    let code: Option<u32> = digits.and_then(|digits| digits.parse().ok());
    // The last field, as in wait(2): the signal is in the lower seven bits.
    code.is_some_and(|code| code & 0x7f != 0)
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
    fn what_kills_a_program_or_asks_it_to_end_interrupts_it() {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let default = status(&[signal], &[libc::SIGPIPE], &[]);
            assert_eq!(wish_in(&default), Wish::Killed);
            assert_eq!(wish_in(&status(&[signal], &[], &[signal])), Wish::Asked);
        }
        for deadly in [libc::SIGKILL, libc::SIGALRM, libc::SIGQUIT] {
            assert_eq!(wish_in(&status(&[deadly], &[], &[])), Wish::Killed);
        }
    }

    #[test]
    fn what_a_program_handles_or_blocks_or_need_not_know_does_not() {
        let alarm = status(&[libc::SIGALRM], &[], &[libc::SIGALRM]);
        assert_eq!(wish_in(&alarm), Wish::None);
        let blocked = status(&[libc::SIGINT], &[libc::SIGINT], &[]);
        assert_eq!(wish_in(&blocked), Wish::None);
        for harmless in HARMLESS {
            assert_eq!(
                wish_in(&status(&[harmless], &[], &[])),
                Wish::None,
                "{harmless}"
            );
        }
        assert_eq!(wish_in(&status(&[], &[], &[])), Wish::None);
        assert_eq!(wish_in(b"rubbish"), Wish::None);
    }

    #[test]
    fn a_thread_that_is_gone_is_known_to_be() {
        // Above the kernel's highest number (PID_MAX_LIMIT, proc_sys_kernel(5)).
        assert_eq!(wish_of(i32::MAX as u32), Wish::Gone);
        assert_eq!(wish_of(u32::MAX), Wish::Unknown);
    }

    #[test]
    fn one_that_a_signal_ended_is_told_from_one_that_ends_by_itself() {
        assert!(is_killed(b"7 (a) 9) S 1 0 0 9\n"));
        for by_itself in [
            &b"7 (a) S 1 0 0 256\n"[..],
            b"7 (a) S 1 0 0 0\n",
            b"",
            b"rubbish",
        ] {
            assert!(!is_killed(by_itself));
        }
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
