//! What can go wrong, as one type for every layer, and the one table from a server's status to an
//! error number.
//!
//! **Invariant:** an error number is chosen here or is decided where the cause is known for sure
//! ([`Error::Errno`]); no other file maps a status code to a number.

use std::fmt;
use std::sync::Arc;

use nix::errno::Errno;

use crate::sftp::{Malformed, StatusCode};

/// The result of anything that can fail below the command line.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Decided on our side: the number a program is told.
    Errno(Errno),
    /// The server answered a request with a status other than OK (draft-ietf-secsh-filexfer-02,
    /// section 7).
    Refused { code: StatusCode, message: Arc<str> },
    /// The connection ended; why, for a person.
    Lost(Arc<str>),
    /// The server sent what the protocol does not allow.
    Protocol(&'static str),
    /// The server cannot be reached or does not let us in, or what was asked for cannot be done:
    /// one or more lines for a person, naming what failed, why, and what to do.
    Setup(Arc<str>),
}

impl Error {
    /// An [`Error::Setup`] from a text for a person.
    pub(crate) fn setup(text: impl Into<Arc<str>>) -> Self {
        Self::Setup(text.into())
    }

    /// Whether the server refused with this status.
    pub(crate) fn is_refused_with(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused { code: refused, .. } if *refused == code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => f.write_str(errno.desc()),
            Self::Refused { code, message } if message.is_empty() => write!(f, "server: {code}"),
            Self::Refused { code, message } => write!(f, "server: {code}: {message}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Protocol(what) => write!(f, "the server broke the SFTP protocol: {what}"),
            Self::Setup(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.0)
    }
}
