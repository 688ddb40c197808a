//! Asks the person: on the controlling terminal, or through `SSH_ASKPASS`, by ssh(1)'s rules; or
//! through whoever takes the questions of a mount that runs ([`Questions`]).
//!
//! **Invariant:** however the program ends while a question stands, the terminal echoes again;
//! nothing typed without echo is written anywhere.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::echo::Quiet;
use super::questions::Questions;
use super::secrets::{SECRET_LEN_MAX, Secret};

/// Whom to ask, if anybody. Its questions block; ask from a thread that may wait.
#[derive(Debug, Clone)]
pub(super) struct Prompter {
    /// The terminal may be asked.
    terminal: bool,
    /// What to run to ask in a window (`SSH_ASKPASS`).
    askpass: Option<OsString>,
    /// Ask there even if there is a terminal.
    askpass_first: bool,
    /// Whoever takes the questions there, if anybody does.
    questions: Option<Questions>,
}

impl Prompter {
    /// Asks nobody.
    pub(super) const NOBODY: Self = Self {
        terminal: false,
        askpass: None,
        askpass_first: false,
        questions: None,
    };

    /// Asks whoever takes the questions at that moment.
    pub(super) fn through(questions: &Questions) -> Self {
        Self {
            questions: Some(questions.clone()),
            ..Self::NOBODY
        }
    }

    /// By the environment, as ssh(1) does (section ENVIRONMENT, `SSH_ASKPASS`,
    /// `SSH_ASKPASS_REQUIRE`, `DISPLAY`); nobody with `BatchMode=yes`.
    pub(super) fn new(batch_mode: bool) -> Self {
        if batch_mode {
            return Self::NOBODY;
        }
        Self::by(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn by(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let display = env("DISPLAY").is_some() || env("WAYLAND_DISPLAY").is_some();
        let require = env("SSH_ASKPASS_REQUIRE")
            .unwrap_or_default()
            .to_ascii_lowercase();
        let (allowed, first) = match require.to_str() {
            Some("force") => (true, true),
            Some("prefer") => (display, display),
            Some("never") => (false, false),
            _ => (display, false),
        };
        let program = || env("SSH_ASKPASS").unwrap_or_else(|| ASKPASS_DEFAULT.into());
        Self {
            terminal: true,
            askpass: allowed.then(program),
            askpass_first: first,
            questions: None,
        }
    }

    /// Only through this program.
    #[cfg(test)]
    pub(super) fn askpass(program: impl Into<OsString>) -> Self {
        Self {
            terminal: false,
            askpass: Some(program.into()),
            askpass_first: true,
            questions: None,
        }
    }

    /// Asks for a secret; what is typed is not shown. `None` if there is nobody to ask, or they
    /// would not say.
    pub(super) fn secret(&self, question: &str) -> Option<Secret> {
        self.ask(question, false)
    }

    /// Asks for a line that is shown as it is typed. `None` as for [`Prompter::secret`].
    pub(super) fn line(&self, question: &str) -> Option<String> {
        let answer = self.ask(question, true)?;
        Some(String::from_utf8_lossy(answer.bytes()).into_owned())
    }

    /// Whether there may be somebody to ask. A terminal can turn out to be missing.
    pub(super) fn can_ask(&self) -> bool {
        let is_there = self.questions.as_ref().is_some_and(Questions::are_taken);
        is_there || self.askpass.is_some() || (self.terminal && File::open(TERMINAL).is_ok())
    }

    fn ask(&self, question: &str, echo: bool) -> Option<Secret> {
        let question = printable(question);
        if let Some(questions) = &self.questions {
            return questions.ask(question, echo);
        }
        if self.askpass_first {
            return run_askpass(self.askpass.as_ref()?, &question);
        }
        if self.terminal
            && let Ok(terminal) = OpenOptions::new().read(true).write(true).open(TERMINAL)
        {
            return ask_terminal(terminal, &question, echo);
        }
        run_askpass(self.askpass.as_ref()?, &question)
    }
}

/// Asks the person at this terminal. `None` if there is nobody, or they would not say. Blocks.
pub(crate) fn ask_person(question: &str, echo: bool) -> Option<Secret> {
    Prompter::new(false).ask(question, echo)
}

/// Whether there is somebody at this terminal.
pub(crate) fn is_person_there() -> bool {
    Prompter::new(false).can_ask()
}

/// What may be shown of a text that a server wrote: no control characters but line ends and tabs,
/// so that it cannot play with the terminal.
pub(super) fn printable(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() && c != '\n' && c != '\t' {
            '?'
        } else {
            c
        }
    };
    text.replace("\r\n", "\n").chars().map(plain).collect()
}

fn ask_terminal(mut terminal: File, question: &str, echo: bool) -> Option<Secret> {
    let control = terminal.try_clone().ok()?;
    // What was typed ahead is thrown away with echo off, as ssh does: it was meant for another.
    let quiet = if echo {
        None
    } else {
        Some(Quiet::start(control.as_fd())?)
    };
    terminal.write_all(question.as_bytes()).ok()?;
    let answer = read_line(&mut terminal);
    if quiet.is_some() {
        // The line end that was typed was not echoed either.
        let _ = terminal.write_all(b"\n");
    }
    answer
}

fn run_askpass(program: &OsString, question: &str) -> Option<Secret> {
    let mut child = Command::new(program)
        .arg(question)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .inspect_err(|error| {
            log::warn!("SSH_ASKPASS {}: {error}", PathBuf::from(program).display())
        })
        .ok()?;
    let answer = child.stdout.take().and_then(|mut out| read_line(&mut out));
    // Not zero is how it says that the person pressed "Cancel".
    let agreed = child.wait().is_ok_and(|status| status.success());
    answer.filter(|_| agreed)
}

/// Reads up to a line end or the end. `None` for nothing at all, a read error (an interrupted read
/// too: the question was called off), or more than a secret's bound.
fn read_line(from: &mut impl Read) -> Option<Secret> {
    let mut line = Zeroizing::new([0; SECRET_LEN_MAX]);
    let mut len = 0;
    loop {
        let got = from.read(line.get_mut(len..len + 1)?).ok()?;
        let last = line.get(len).copied();
        if got == 0 && len == 0 {
            return None;
        }
        if got == 0 || last == Some(b'\n') {
            let typed = line.get_mut(..len)?;
            let end = if typed.last() == Some(&b'\r') {
                len - 1
            } else {
                len
            };
            return Secret::new(line.get_mut(..end)?);
        }
        len += 1;
    }
}

const TERMINAL: &str = "/dev/tty";

/// ssh's own default (its `_PATH_SSH_ASKPASS_DEFAULT` on Debian).
const ASKPASS_DEFAULT: &str = "/usr/bin/ssh-askpass";

/// A person for tests: an askpass program that gives prepared answers and keeps the questions.
#[cfg(test)]
pub(super) struct Person(tempfile::TempDir);

#[cfg(test)]
impl Person {
    /// Gives one answer after the other, and none after the last.
    pub(super) fn who_says(answers: &[&str]) -> Self {
        let person = Self(tempfile::tempdir().unwrap());
        for (n, answer) in answers.iter().enumerate() {
            std::fs::write(
                person.file(&format!("answer{}", n + 1)),
                format!("{answer}\n"),
            )
            .unwrap();
        }
        person.write_script(
            r#"n=$(ls "$0".question* 2>/dev/null | wc -l); n=$((n + 1))
            printf '%s' "$1" > "$0.question$n"
            exec cat "$0.answer$n""#,
        );
        person
    }

    pub(super) fn prompter(&self) -> Prompter {
        Prompter::askpass(self.file_of_script())
    }

    /// What was asked so far.
    pub(super) fn questions(&self) -> Vec<String> {
        let question = |n| std::fs::read_to_string(self.file(&format!("question{n}")));
        (1..).map_while(|n| question(n).ok()).collect()
    }

    fn file_of_script(&self) -> PathBuf {
        self.0.path().join("askpass")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("askpass.{name}"))
    }

    /// A program that this process has open for writing, were it only in a child that another test
    /// just forked, cannot be run (ETXTBSY); so another process writes it.
    fn write_script(&self, body: &str) {
        let draft = self.file("draft");
        std::fs::write(&draft, format!("#!/bin/sh\n{body}\n")).unwrap();
        let mut install = Command::new("install");
        install
            .args(["-m", "700"])
            .arg(draft)
            .arg(self.file_of_script());
        assert!(install.status().unwrap().success());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(env: &[(&str, &str)]) -> (bool, Option<OsString>, bool) {
        let find = |name: &str| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.into())
        };
        let prompter = Prompter::by(find);
        (prompter.terminal, prompter.askpass, prompter.askpass_first)
    }

    #[test]
    fn without_a_display_only_the_terminal_is_asked() {
        assert_eq!(by(&[("SSH_ASKPASS", "/x")]), (true, None, false));
    }

    #[test]
    fn with_a_display_askpass_comes_after_the_terminal() {
        let expected = (true, Some(OsString::from("/x")), false);
        assert_eq!(by(&[("SSH_ASKPASS", "/x"), ("DISPLAY", ":0")]), expected);
        assert_eq!(
            by(&[("SSH_ASKPASS", "/x"), ("WAYLAND_DISPLAY", "w")]),
            expected
        );
    }

    #[test]
    fn ssh_askpass_require_is_followed() {
        let env = |require| {
            [
                ("SSH_ASKPASS", "/x"),
                ("DISPLAY", ":0"),
                ("SSH_ASKPASS_REQUIRE", require),
            ]
        };
        assert_eq!(by(&env("prefer")), (true, Some("/x".into()), true));
        assert_eq!(by(&env("never")), (true, None, false));
        let forced = by(&[("SSH_ASKPASS", "/x"), ("SSH_ASKPASS_REQUIRE", "force")]);
        assert_eq!(forced, (true, Some("/x".into()), true));
    }

    #[test]
    fn batch_mode_asks_nobody() {
        assert!(Prompter::new(true).line("hello? ").is_none());
    }

    #[test]
    fn askpass_gets_the_question_and_its_first_line_is_the_answer() {
        let person = Person::who_says(&["sesame\nmore", ""]);
        assert_eq!(person.prompter().line("what? ").unwrap(), "sesame");
        assert_eq!(person.prompter().line("and?").unwrap(), "");
        assert_eq!(person.questions(), ["what? ", "and?"]);
    }

    #[test]
    fn an_askpass_that_was_cancelled_answers_nothing() {
        let person = Person::who_says(&[]);
        person.write_script("echo secret; exit 1");
        assert!(person.prompter().secret("what? ").is_none());
    }

    #[test]
    fn an_askpass_that_is_not_there_answers_nothing() {
        assert!(
            Prompter::askpass("/nowhere/askpass")
                .secret("what? ")
                .is_none()
        );
    }

    #[test]
    fn a_line_may_end_with_the_stream_and_may_be_empty() {
        let read = |bytes: &[u8]| read_line(&mut &*bytes).map(|s| s.bytes().to_vec());
        assert_eq!(read(b"abc"), Some(b"abc".to_vec()));
        assert_eq!(read(b"abc\r\ndef"), Some(b"abc".to_vec()));
        assert_eq!(read(b"\n"), Some(Vec::new()));
        assert_eq!(read(b""), None);
        assert_eq!(read(&[b'x'; SECRET_LEN_MAX + 1]), None);
    }

    #[test]
    fn a_server_cannot_send_escapes_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\td\u{9b}"), "a?[2Jb\nc\td?");
    }
}
