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
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// Decided on our side: the number a program is told.
    Errno(Errno),
    /// The server answered a request with a status other than OK (draft-ietf-secsh-filexfer-02,
    /// section 7).
    Refused { code: StatusCode, message: Arc<str> },
    /// The connection ended; why, for a person.
    Lost(Arc<str>),
    /// The connection ended, and there will be no other; why, for a person.
    Gone(Arc<str>),
    /// The server sent what the protocol does not allow.
    Protocol(&'static str),
    /// The server cannot be reached or does not let us in, or what was asked for cannot be done:
    /// one or more lines for a person, naming what failed, why, and what to do.
    Setup(Arc<str>),
    /// As `Setup`, where another try by itself would end the same: the server refuses who we are, or
    /// is not who it was.
    Denied(Arc<str>),
}

impl Error {
    /// An [`Error::Setup`] from a text for a person.
    pub(crate) fn setup(text: impl Into<Arc<str>>) -> Self {
        Self::Setup(text.into())
    }

    /// An [`Error::Denied`] from a text for a person.
    pub(crate) fn denied(text: impl Into<Arc<str>>) -> Self {
        Self::Denied(text.into())
    }

    /// Whether it is the connection that failed, or what came over it: what was asked may have been
    /// done or not.
    pub(crate) const fn tells_nothing(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Protocol(_) | Self::Gone(_))
    }

    /// Whether a change that ended with it may be done or not: it tells nothing, or nobody waited for
    /// it any more.
    pub(crate) fn may_be_done(&self) -> bool {
        self.tells_nothing() || *self == Self::Errno(Errno::EINTR)
    }

    /// Whether it tells nothing, and another connection may tell more.
    pub(crate) const fn is_of_connection(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Protocol(_))
    }

    /// Whether the server refused with this status.
    pub(crate) fn is_refused_with(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused { code: refused, .. } if *refused == code)
    }
}

/// What was being done when an error came up; the same status means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Stat,
    /// Mode, owner or times.
    SetAttributes,
    Truncate,
    Readlink,
    Symlink,
    Link,
    Mkdir,
    Unlink,
    Rmdir,
    Rename,
    Open,
    Create,
    Read,
    Write,
    Fsync,
    List,
    Statfs,
}

impl Error {
    /// The number that a program is told: the one table from status codes to error numbers.
    ///
    /// OpenSSH has few codes (`errno_to_portable` in sftp-server.c): NO_SUCH_FILE is ENOENT,
    /// ENOTDIR, EBADF or ELOOP; PERMISSION_DENIED is EPERM or EACCES; BAD_MESSAGE is EINVAL or
    /// ENAMETOOLONG; everything else is FAILURE. Where FAILURE can be told apart by a second
    /// question, that was asked before; what is left is told here. Other servers use codes of
    /// later drafts (draft-ietf-secsh-filexfer-13, section 9.1), which say it outright, or put
    /// the words of strerror(3) into the message.
    pub(crate) fn errno(&self, operation: Operation) -> Errno {
        match self {
            Self::Errno(errno) => *errno,
            Self::Refused { code, message } => of_code(*code)
                .or_else(|| of_words(message))
                .unwrap_or_else(|| fallback(operation, *code)),
            Self::Lost(_)
            | Self::Gone(_)
            | Self::Protocol(_)
            | Self::Setup(_)
            | Self::Denied(_) => Errno::EIO,
        }
    }
}

/// Codes that mean one thing whatever was asked.
fn of_code(code: StatusCode) -> Option<Errno> {
    Some(match code {
        StatusCode::FILE_ALREADY_EXISTS => Errno::EEXIST,
        StatusCode::WRITE_PROTECT => Errno::EROFS,
        StatusCode::NO_SPACE_ON_FILESYSTEM => Errno::ENOSPC,
        StatusCode::QUOTA_EXCEEDED => Errno::EDQUOT,
        StatusCode::DIR_NOT_EMPTY => Errno::ENOTEMPTY,
        StatusCode::NOT_A_DIRECTORY => Errno::ENOTDIR,
        StatusCode::INVALID_FILENAME => Errno::EINVAL,
        StatusCode::LINK_LOOP => Errno::ELOOP,
        StatusCode::FILE_IS_A_DIRECTORY => Errno::EISDIR,
        StatusCode::NO_SUCH_PATH => Errno::ENOENT,
        StatusCode::OP_UNSUPPORTED => Errno::EOPNOTSUPP,
        _ => return None,
    })
}

/// The words of strerror(3), which several servers send along. OpenSSH sends only the code's name.
fn of_words(message: &str) -> Option<Errno> {
    const WORDS: [(&str, Errno); 12] = [
        ("file exists", Errno::EEXIST),
        ("already exists", Errno::EEXIST),
        ("directory not empty", Errno::ENOTEMPTY),
        ("no space left", Errno::ENOSPC),
        ("disk quota exceeded", Errno::EDQUOT),
        ("cross-device link", Errno::EXDEV),
        ("is a directory", Errno::EISDIR),
        ("not a directory", Errno::ENOTDIR),
        ("read-only file system", Errno::EROFS),
        ("too many links", Errno::EMLINK),
        ("file name too long", Errno::ENAMETOOLONG),
        ("operation not permitted", Errno::EPERM),
    ];
    let message = message.to_ascii_lowercase();
    WORDS
        .iter()
        .find(|(words, _)| message.contains(words))
        .map(|(_, errno)| *errno)
}

/// The likeliest meaning of OpenSSH's own codes.
fn fallback(operation: Operation, code: StatusCode) -> Errno {
    match (code, operation) {
        // By handle: the server does not know it any more.
        (StatusCode::NO_SUCH_FILE, Operation::Read | Operation::Write | Operation::Fsync) => {
            Errno::ESTALE
        }
        (StatusCode::NO_SUCH_FILE, _) => Errno::ENOENT,
        // Only the owner may: chmod(2), chown(2), utimensat(2), and link(2) under
        // fs.protected_hardlinks.
        (StatusCode::PERMISSION_DENIED, Operation::SetAttributes | Operation::Link) => Errno::EPERM,
        (StatusCode::PERMISSION_DENIED, _) => Errno::EACCES,
        (StatusCode::BAD_MESSAGE, _) => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => f.write_str(errno.desc()),
            Self::Refused { code, message } if message.is_empty() => write!(f, "server: {code}"),
            Self::Refused { code, message } => write!(f, "server: {code}: {message}"),
            Self::Lost(why) | Self::Gone(why) => write!(f, "connection lost: {why}"),
            Self::Protocol(what) => write!(f, "the server broke the SFTP protocol: {what}"),
            Self::Setup(text) | Self::Denied(text) => f.write_str(text),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: StatusCode, message: &str) -> Error {
        Error::Refused {
            code,
            message: message.into(),
        }
    }

    #[test]
    fn what_openssh_says_becomes_the_likeliest_number() {
        for (code, operation, errno) in [
            (StatusCode::NO_SUCH_FILE, Operation::Stat, Errno::ENOENT),
            (StatusCode::NO_SUCH_FILE, Operation::Write, Errno::ESTALE),
            (
                StatusCode::PERMISSION_DENIED,
                Operation::Open,
                Errno::EACCES,
            ),
            (
                StatusCode::PERMISSION_DENIED,
                Operation::SetAttributes,
                Errno::EPERM,
            ),
            (StatusCode::BAD_MESSAGE, Operation::Mkdir, Errno::EINVAL),
            (
                StatusCode::OP_UNSUPPORTED,
                Operation::Link,
                Errno::EOPNOTSUPP,
            ),
            (StatusCode::FAILURE, Operation::Read, Errno::EIO),
        ] {
            assert_eq!(
                refused(code, "").errno(operation),
                errno,
                "{code} {operation:?}"
            );
        }
    }

    #[test]
    fn what_a_server_says_in_words_counts_where_its_code_says_nothing() {
        let error = refused(StatusCode::FAILURE, "remove /x: Directory not empty");
        assert_eq!(error.errno(Operation::Rmdir), Errno::ENOTEMPTY);
    }

    #[test]
    fn a_code_of_a_later_draft_needs_no_guess() {
        let error = refused(StatusCode::QUOTA_EXCEEDED, "");
        assert_eq!(error.errno(Operation::Write), Errno::EDQUOT);
    }

    #[test]
    fn an_end_of_file_is_never_an_error_number_of_its_own() {
        assert_eq!(
            refused(StatusCode::EOF, "").errno(Operation::Read),
            Errno::EIO
        );
    }
}
