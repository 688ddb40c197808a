//! Ways to reach an SFTP server: each gives a byte duplex, and says why it ended.
//!
//! **Invariant:** only this folder names SSH libraries, child processes and sockets. What leaves
//! it is a [`Link`]: bytes in, bytes out; no file here knows an SFTP packet.

mod askpass;
mod child;
mod command;
mod denial;
mod dialer;
mod echo;
mod host_config;
mod host_keys;
mod known_hosts;
mod libssh2;
mod loan;
mod login;
mod openssh;
mod prompt;
mod questions;
mod russh;
mod secrets;
#[cfg(test)]
mod test_link;
#[cfg(test)]
mod test_sshd;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;

pub use askpass::answer_ssh;
pub(crate) use dialer::Dialer;
pub(crate) use prompt::{ask_person, is_person_there};
pub(crate) use questions::{Listener, Question, Questions};
pub(crate) use secrets::Secret;

/// Where the server is and how to get there, as the user asked for it.
///
/// Everything is as typed; what ssh_config(5) makes of it is found out by [`Dialer::new`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    /// Host name, address, or an alias of ssh_config(5). Never starts with `-`, never empty.
    pub host: String,
    /// The user to log in as, if one was typed.
    pub user: Option<String>,
    /// The TCP port, if one was typed.
    pub port: Option<u16>,
    /// Which way to take.
    pub way: Way,
    /// `-o Key=Value` of ssh_config(5), in the order typed.
    pub ssh_options: Vec<(String, String)>,
    /// `-F FILE`: another ssh_config(5); `none` as for ssh(1).
    pub config_file: Option<PathBuf>,
    /// `-C`.
    pub compression: bool,
    /// `-o ssh_command=...`: what to run instead of `ssh`, already split into words.
    pub ssh_command: Option<Vec<OsString>>,
    /// `-o sftp_server=...`: a subsystem's name, or with a `/` in it a program to run there.
    pub sftp_server: Option<String>,
    /// A password read beforehand (`-o password_stdin`); offered once.
    pub password: Option<Secret>,
    /// What becomes of it, and of what a person typed, when it was used.
    pub reconnect_secret: ReconnectSecret,
}

/// What becomes of the secrets that opened the first connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ReconnectSecret {
    /// They stay in memory and open the further ones.
    #[default]
    Keep,
    /// They are forgotten; who asks for another try is asked for them again.
    Ask,
    /// They are forgotten, and nobody is asked.
    Never,
}

/// Which transport to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// russh, or OpenSSH's client when the settings of the host need it.
    #[default]
    Auto,
    /// SSH in process, by the russh crate.
    Russh,
    /// A child `ssh`.
    OpenSsh,
    /// SSH in process, by libssh2.
    LibSsh2,
    /// Any command that speaks SFTP on its standard input and output, split into words.
    Command(Vec<OsString>),
}

/// What a transport's two directions are: bytes of SFTP, no message boundaries.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection to an SFTP server. Dropping the stream ends it, and whatever process or thread
/// stands behind it.
pub(crate) struct Link {
    /// The bytes.
    pub stream: Box<dyn Duplex>,
    /// What answers there, for the log: `OpenSSH_9.2p1 through russh, aes128-gcm@openssh.com`.
    pub peer: String,
    /// What the transport knows about why the stream ended; grows until then.
    pub diagnosis: Diagnosis,
}

/// The last lines that a transport has to say for itself: an ssh child's standard error, or a
/// library's message. Shared with whoever fills it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnosis(Arc<Mutex<VecDeque<String>>>);

impl Diagnosis {
    /// Adds a line; only the last ones are kept.
    pub(crate) fn note(&self, line: impl Into<String>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == DIAGNOSIS_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }

    /// All that was said, one line each; empty if nothing was.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Why there is no SFTP server behind a link: `text`, as [`Error::Denied`] if what was said
    /// means that another try would end the same, else as [`Error::Setup`].
    pub(crate) fn failure(&self, text: impl Into<String>) -> Error {
        denial::error(&self.text(), text.into())
    }
}

/// Enough for ssh's longest complaint (a changed host key takes 14 lines); the rest is a flood.
const DIAGNOSIS_LINES_MAX: usize = 24;
