//! Any command that speaks SFTP on its standard input and output.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::sys::signal::SigSet;
use tokio::process::Command;

use super::child::{self, Child};
use super::{Diagnosis, Link};
use crate::error::{Error, Result};

/// Starts the words as they are, without a shell.
///
/// # Errors
/// [`Error::Setup`] if the program does not exist or cannot be run. That it speaks no SFTP or
/// ends at once is seen on the stream, and told by its diagnosis.
pub(super) async fn dial(words: &[OsString]) -> Result<Link> {
    let diagnosis = Diagnosis::default();
    let command = prepare(words)?;
    let name = name_of(words);
    let keep = |_: &str| true;
    let child = Child::start(command, name.clone(), diagnosis.clone(), true, keep);
    let Child { stream, .. } = child.map_err(|error| cannot_run(words, &error))?;
    Ok(Link {
        stream: Box::new(stream),
        peer: name,
        diagnosis,
    })
}

/// A command that is ready to run. Programs are found also where mount(8) or systemd left no PATH,
/// and take the signals that this process has blocked: a child that inherits that could not be
/// ended by Ctrl-C while it asks for a password.
pub(super) fn prepare(words: &[OsString]) -> Result<Command> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::setup("the command to reach the server is empty"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if std::env::var_os("PATH").is_none_or(|path| path.is_empty()) {
        command.env("PATH", PATH);
    }
    unblock_signals(&mut command);
    Ok(command)
}

#[expect(
    unsafe_code,
    reason = "what runs between fork and exec may only do what a signal handler may"
)]
fn unblock_signals(command: &mut Command) {
    // SAFETY: pthread_sigmask(3) is safe there (signal-safety(7)), and nothing else is called.
    unsafe {
        command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(io::Error::from));
    }
}

/// Why a program could not be started, for a person.
pub(super) fn cannot_run(words: &[OsString], error: &io::Error) -> Error {
    let program = words
        .first()
        .map(|word| word.to_string_lossy())
        .unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::setup(format!("cannot run {program}: there is no such program"))
        }
        _ => Error::setup(format!("cannot run {program}: {}", child::reason(error))),
    }
}

/// The program without its folder: what it is called in messages.
fn name_of(words: &[OsString]) -> String {
    let program = words
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    program.to_string_lossy().into_owned()
}

/// As login(1) sets it for root, so that a command finds what it would find in a shell.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use nix::sys::signal::SigmaskHow;
    use tokio::io::AsyncReadExt;

    use super::super::test_link::{Alive, greet};
    use super::*;

    const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn shell(script: &str) -> Vec<OsString> {
        words(&["/bin/sh", "-c", script])
    }

    /// Everything the stream gives until its end.
    async fn read_all(link: &mut Link) -> Vec<u8> {
        let mut bytes = Vec::new();
        link.stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_real_sftp_server_answers_init_with_version() {
        if !Path::new(SFTP_SERVER).exists() {
            println!("skipped: there is no {SFTP_SERVER} here");
            return;
        }
        let mut link = dial(&words(&[SFTP_SERVER])).await.unwrap();
        assert_eq!(link.peer, "sftp-server");
        greet(&mut link).await;
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_named_in_one_line() {
        let error = dial(&words(&["/nowhere/sftp", "-x"])).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot run /nowhere/sftp: there is no such program"
        );
    }

    #[tokio::test]
    async fn a_program_that_may_not_be_run_says_why() {
        let error = dial(&words(&["/etc/passwd"])).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot run /etc/passwd: Permission denied"
        );
    }

    #[tokio::test]
    async fn no_words_are_an_error() {
        assert!(matches!(dial(&[]).await, Err(Error::Setup(_))));
    }

    #[tokio::test]
    async fn at_the_end_of_the_stream_the_diagnosis_is_complete() {
        let mut link = dial(&shell("exec >&- <&-; echo one >&2; printf two >&2; exit 3"))
            .await
            .unwrap();
        assert_eq!(read_all(&mut link).await, b"");
        assert_eq!(link.diagnosis.text(), "one\ntwo");
    }

    #[tokio::test]
    async fn a_silent_end_leaves_the_exit_status() {
        let mut link = dial(&shell("exit 3")).await.unwrap();
        assert_eq!(read_all(&mut link).await, b"");
        assert_eq!(link.diagnosis.text(), "sh ended (exit status: 3)");
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read() {
        let mut link = dial(&shell("head -c 300000 /dev/zero")).await.unwrap();
        assert_eq!(read_all(&mut link).await.len(), 300_000);
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_child_though_a_grandchild_holds_it_open() {
        let mut link = dial(&shell("setsid sleep 10 & echo gone >&2"))
            .await
            .unwrap();
        assert_eq!(read_all(&mut link).await, b"");
        assert_eq!(link.diagnosis.text(), "gone");
    }

    #[tokio::test]
    async fn terminal_control_and_endless_lines_are_taken_out_of_what_a_child_says() {
        let script = r"printf '\033[2Jred\007\n' >&2; head -c 100000 /dev/zero | tr '\0' x >&2";
        let mut link = dial(&shell(script)).await.unwrap();
        read_all(&mut link).await;
        let text = link.diagnosis.text();
        assert_eq!(text.lines().next(), Some("[2Jred"));
        assert_eq!(text.lines().nth(1).map(str::len), Some(1024));
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_the_child_and_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let alive = Alive::new(folder.path().join("alive"));
        // The child refuses the polite end; both it and its child hold the pipe open.
        let script = format!("trap '' TERM; {}; sleep 1000 & wait", alive.words());
        alive.ends_with(dial(&shell(&script)).await.unwrap()).await;
    }

    #[tokio::test]
    async fn the_child_takes_signals_that_we_have_blocked() {
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .unwrap();
        let link = dial(&words(&["grep", "SigBlk", "/proc/self/status"])).await;
        before.thread_set_mask().unwrap();
        assert_eq!(
            read_all(&mut link.unwrap()).await,
            b"SigBlk:\t0000000000000000\n"
        );
    }

    #[tokio::test]
    async fn the_child_has_a_process_group_of_its_own() {
        let mut link = dial(&shell("ps -o pgid= -p $$; echo $$")).await.unwrap();
        let text = String::from_utf8(read_all(&mut link).await).unwrap();
        let numbers: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(numbers[0], numbers[1]);
    }
}
