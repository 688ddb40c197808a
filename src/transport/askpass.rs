//! Answers ssh's questions in its place: with a password that was given beforehand, else by asking
//! the person.
//!
//! ssh gets answers from a program only (ssh(1), `SSH_ASKPASS`), and closes all descriptors that
//! it did not open itself. So it runs this program again, which finds the first one through a
//! socket in the abstract namespace.
//!
//! **Invariant:** the secret goes through the socket and ssh's own pipe only; never onto a command
//! line, into the environment or a file. Nobody but this user is answered.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::prompt::printable;
use super::secrets::{Prompter, SECRET_LEN_MAX, Secret};

/// The end that knows the answers.
pub(super) struct Askpass {
    listener: UnixListener,
    name: String,
    program: PathBuf,
    known: Known,
    prompter: Prompter,
    /// What was answered.
    told: Answers,
}

/// What may be answered without asking anybody; each once.
#[derive(Default)]
pub(super) struct Known {
    /// To any question for a password.
    pub(super) password: Option<Secret>,
    /// By question.
    pub(super) answers: Vec<(String, Secret)>,
}

/// The answers that were given, by question.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<(String, Secret)>>>);

impl Answers {
    /// The last answers to each question; nothing is left here.
    pub(super) fn take(&self) -> Vec<(String, Secret)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, question: &str, answer: &Secret) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(asked, _)| asked != question);
        if answers.len() < ANSWERS_MAX {
            answers.push((question.to_owned(), answer.clone()));
        }
    }
}

impl Askpass {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(known: Known, prompter: Prompter) -> io::Result<Self> {
        // Its name is no secret; it only must not be taken already.
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let name = format!("sftpfs-askpass-{}", data_encoding::HEXLOWER.encode(&random));
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            name,
            program: std::env::current_exe()?,
            known,
            prompter,
            told: Answers::default(),
        })
    }

    /// Makes an ssh ask us, and us only.
    pub(super) fn equip(&self, ssh: &mut Command) {
        ssh.env("SSH_ASKPASS", &self.program);
        ssh.env("SSH_ASKPASS_REQUIRE", "force");
        ssh.env(SOCKET, &self.name);
    }

    /// Whether a second question could be answered, too.
    pub(super) fn can_ask(&self) -> bool {
        self.prompter.can_ask()
    }

    /// What is answered, also after this is gone.
    pub(super) fn told(&self) -> Answers {
        self.told.clone()
    }

    /// Answers until it is dropped.
    pub(super) async fn serve(mut self) {
        // A listener that fails has no more questions for us; ssh's next one goes unanswered, and
        // it says so.
        while let Ok((mut stream, _)) = self.listener.accept().await {
            if let Err(error) = self.answer(&mut stream).await {
                log::debug!("a question of ssh's was called off: {error}");
            }
        }
    }

    async fn answer(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        if stream.peer_cred()?.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut question = Vec::new();
        (&mut *stream)
            .take(QUESTION_LEN_MAX)
            .read_to_end(&mut question)
            .await?;
        let Some(secret) = self
            .find(String::from_utf8_lossy(&question).into_owned())
            .await
        else {
            return stream.write_all(&[REFUSED]).await;
        };
        stream.write_all(&[ANSWERED]).await?;
        stream.write_all(secret.bytes()).await
    }

    async fn find(&mut self, question: String) -> Option<Secret> {
        // ssh asks `user@host's password: ` and `(user@host) Password: `.
        let is_password = question.trim_end().to_lowercase().ends_with("password:");
        if is_password && let Some(password) = self.known.password.take() {
            return Some(password);
        }
        if let Some(at) = self.known.answers.iter().position(|(q, _)| *q == question) {
            let (_, answer) = self.known.answers.swap_remove(at);
            self.told.note(&question, &answer);
            return Some(answer);
        }
        let (prompter, asked) = (self.prompter.clone(), question.clone());
        if question.contains("(yes/no") {
            let ask = move || Secret::new(&mut prompter.line(&asked)?.into_bytes());
            return tokio::task::spawn_blocking(ask).await.ok().flatten();
        }
        let ask = move || prompter.secret(&asked);
        let answer = tokio::task::spawn_blocking(ask).await.ok().flatten()?;
        self.told.note(&question, &answer);
        Some(answer)
    }
}

/// The other end: asks the first program what ssh asks this one, and prints the answer. `None` if
/// this program was not started by ssh for that.
#[must_use]
pub fn answer_ssh() -> Option<ExitCode> {
    let name = std::env::var_os(SOCKET)?;
    let question = std::env::args_os().nth(1).unwrap_or_default();
    let answer = relay(&name, &question).ok().flatten();
    let told = answer.is_some_and(|answer| tell(&answer).is_ok());
    Some(if told {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tell(answer: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// One question through the socket. `None` if it is not answered.
fn relay(name: &OsString, question: &OsString) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let address = SocketAddr::from_abstract_name(name.as_encoded_bytes())?;
    let mut stream = StdStream::connect_addr(&address)?;
    stream.write_all(printable(&question.to_string_lossy()).as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    // Of its full size from the start: growing would leave copies behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX + 1));
    stream
        .take(SECRET_LEN_MAX as u64 + 1)
        .read_to_end(&mut answer)?;
    if answer.first() != Some(&ANSWERED) {
        return Ok(None);
    }
    answer.remove(0);
    Ok(Some(answer))
}

/// Names the socket for the program that ssh runs; without it, it is not run by ssh.
const SOCKET: &str = "SFTPFS_ASKPASS_SOCKET";

/// The first byte of an answer.
const ANSWERED: u8 = b'+';
const REFUSED: u8 = b'-';

/// Passphrases of some keys, and some factors.
const ANSWERS_MAX: usize = 16;

/// A question is a line or three; a server's keyboard-interactive instructions may be more.
const QUESTION_LEN_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(answers: &[(&str, &str)]) -> Known {
        let secret = |text: &str| Secret::new(&mut text.as_bytes().to_vec()).unwrap();
        let answers = answers
            .iter()
            .map(|(question, answer)| ((*question).to_owned(), secret(answer)));
        Known {
            password: Some(secret("geheim")),
            answers: answers.collect(),
        }
    }

    /// What ssh would be told, question by question.
    async fn answers(questions: &[&str]) -> Vec<Option<String>> {
        let known = known(&[("PIN: ", "12"), ("Code: ", "34")]);
        let askpass = Askpass::new(known, Prompter::NOBODY).unwrap();
        let name = OsString::from(&askpass.name);
        let serving = tokio::spawn(askpass.serve());
        let mut answers = Vec::new();
        for question in questions {
            let (name, question) = (name.clone(), OsString::from(question));
            let relayed = tokio::task::spawn_blocking(move || relay(&name, &question));
            let answer = relayed.await.unwrap().unwrap();
            answers.push(answer.map(|answer| String::from_utf8(answer.to_vec()).unwrap()));
        }
        serving.abort();
        answers
    }

    #[tokio::test]
    async fn the_password_is_told_once_and_to_a_question_for_it_only() {
        let questions = [
            "Enter passphrase for key '/k': ",
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "me@host's password: ",
            "me@host's password: ",
        ];
        assert_eq!(
            answers(&questions).await,
            [None, None, Some("geheim".to_owned()), None]
        );
    }

    #[tokio::test]
    async fn what_was_answered_before_is_answered_once() {
        assert_eq!(
            answers(&["Code: ", "Code: ", "PIN: "]).await,
            [Some("34".to_owned()), None, Some("12".to_owned())]
        );
    }

    #[tokio::test]
    async fn keyboard_interactive_asks_for_the_password_too() {
        assert_eq!(
            answers(&["(me@host) Password: "]).await,
            [Some("geheim".to_owned())]
        );
    }

    #[tokio::test]
    async fn neither_command_line_nor_environment_holds_the_password() {
        let askpass = Askpass::new(known(&[]), Prompter::NOBODY).unwrap();
        let mut ssh = Command::new("ssh");
        askpass.equip(&mut ssh);
        assert!(!format!("{:?}", ssh.as_std()).contains("geheim"));
        assert!(format!("{:?}", ssh.as_std()).contains("sftpfs-askpass-"));
    }
}
