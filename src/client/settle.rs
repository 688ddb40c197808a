//! What was asked by path and had no answer when the connection was lost: asked again on the next
//! one, unless a look shows that it was done.
//!
//! **Invariant:** nothing is done twice, and nothing that was done is reported as refused, as far as
//! the server can be asked: see [`look`] for what cannot be told apart.

use bytes::Bytes;
use nix::errno::Errno;

use super::connection::Connection;
use super::pending::Answer;
use super::same_file::is_between;
use super::{attrs, one_name, wanted};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, FileKind, OpenFlags, Request, Response, StatusCode};

/// Asks once more on another connection what may have been done already; what nobody waits for any more is
/// not done late.
pub(super) async fn ask_again(connection: &Connection, request: &Request, modes: Modes) -> Answer {
    match look(connection, request, modes).await? {
        Finding::Open if wanted::is_left(request) => Err(Errno::EINTR.into()),
        Finding::Open => {
            let answer = connection.submit(request).await?;
            if !is_refusal(&answer) {
                return Ok(answer);
            }
            // The server may have done it only now, for the connection that was lost.
            let found = look(connection, request, modes).await?;
            take(connection, request, found, answer).await
        }
        found => take(connection, request, found, ok()).await,
    }
}

/// Whether it was done.
///
/// # Errors
/// Those of the connection.
pub(super) async fn was_done(connection: &Connection, request: &Request) -> Result<bool> {
    // Of no file that is to be made.
    let found = look(connection, request, Modes::AsAsked).await?;
    Ok(matches!(found, Finding::Done))
}

pub(super) fn is_refusal(answer: &Response) -> bool {
    matches!(answer, Response::Status { code, .. } if *code != StatusCode::OK)
}

fn is_status(answer: &Response, expected: StatusCode) -> bool {
    matches!(answer, Response::Status { code, .. } if *code == expected)
}

pub(super) const fn ok() -> Response {
    Response::Status {
        code: StatusCode::OK,
        message: Bytes::new(),
        language: Bytes::new(),
    }
}

/// The answer to a request of which was `found` what became of it; `else_answer` if it was not done.
async fn take(
    connection: &Connection,
    request: &Request,
    found: Finding,
    else_answer: Response,
) -> Answer {
    match found {
        Finding::Done => Ok(ok()),
        Finding::Made(open) => match connection.submit(&open).await? {
            answer
                if is_status(&answer, StatusCode::PERMISSION_DENIED)
                    && keeps_its_maker_out(request) =>
            {
                make_anew(connection, request).await
            }
            answer => Ok(answer),
        },
        Finding::Open => Ok(else_answer),
    }
}

/// Whether a file is to be made with a mode by which its maker may open it only while he makes it:
/// git's objects have 0444.
fn keeps_its_maker_out(request: &Request) -> bool {
    let Request::Open { flags, attrs, .. } = request else {
        return false;
    };
    let lacks = |flag, bit| {
        let mode = attrs.permissions.unwrap_or(0o666);
        flags.contains(flag) && mode & bit == 0
    };
    lacks(OpenFlags::READ, 0o400) || lacks(OpenFlags::WRITE, 0o200)
}

/// Makes once more an empty file that was made before and cannot be opened.
async fn make_anew(connection: &Connection, request: &Request) -> Answer {
    if let Request::Open { path, .. } = request {
        let path = path.clone();
        // In order with what follows. If it stays, that is refused.
        drop(connection.submit(&Request::Remove { path }));
    }
    connection.submit(request).await
}

/// The permissions of what the server makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modes {
    /// At most those that it was asked for.
    AsAsked,
    /// Others: Windows, vfat.
    ItsOwn,
}

/// What a look at the server tells of a request.
enum Finding {
    /// It was done.
    Done,
    /// The file that it was to make is there; this opens it.
    Made(Request),
    /// It was not done, or does no harm if it is done again.
    Open,
}

/// Whether a request was done.
///
/// What was to be made is taken for made by us if it is as ours would be: an empty file with no
/// other permissions (unless the server is known to give its own), an empty directory, a symbolic link
/// that says the same. Somebody else may have made just that in the meantime.
async fn look(connection: &Connection, request: &Request, modes: Modes) -> Result<Finding> {
    let is_done = match request {
        Request::Remove { path } | Request::Rmdir { path } => is_gone(connection, path).await?,
        Request::Rename { from, to } | Request::PosixRename { from, to } => {
            is_gone(connection, from).await? && lstat(connection, to).await?.is_some()
        }
        Request::Mkdir { path, attrs } => is_empty_directory(connection, path, attrs).await?,
        // In either order of the two: see `SymlinkOrder`.
        Request::Symlink { first, second } => {
            says(connection, second, first).await? || says(connection, first, second).await?
        }
        Request::Hardlink { from, to } => is_one_file(connection, from, to).await?,
        Request::Open { path, flags, attrs } if flags.contains(OpenFlags::EXCL) => {
            let is_made = is_new_file(connection, path, attrs, modes).await?;
            return Ok(match is_made {
                true => Finding::Made(Request::Open {
                    path: path.clone(),
                    flags: flags.without(OpenFlags::CREAT | OpenFlags::EXCL),
                    attrs: Attrs::default(),
                }),
                false => Finding::Open,
            });
        }
        _ => false,
    };
    Ok(if is_done {
        Finding::Done
    } else {
        Finding::Open
    })
}

/// `None` if there is nothing, or nothing that can be looked at.
///
/// # Errors
/// Those of the connection.
async fn lstat(connection: &Connection, path: &Bytes) -> Result<Option<Attrs>> {
    let path = path.clone();
    refusal_is_none(attrs(connection.submit(&Request::Lstat { path })).await)
}

/// Whether the server says that there is nothing. One that refuses to look has not said that.
async fn is_gone(connection: &Connection, path: &Bytes) -> Result<bool> {
    let path = path.clone();
    match attrs(connection.submit(&Request::Lstat { path })).await {
        Err(error @ Error::Refused { .. }) => Ok(error.is_refused_with(StatusCode::NO_SUCH_FILE)),
        looked => looked.map(|_| false),
    }
}

fn refusal_is_none<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn says(connection: &Connection, link: &Bytes, target: &Bytes) -> Result<bool> {
    let path = link.clone();
    let answer = connection.submit(&Request::Readlink { path }).await;
    let said = refusal_is_none(answer.and_then(one_name))?;
    Ok(said.as_ref() == Some(target))
}

/// Two names of one file look the same; so may two files.
async fn is_one_file(connection: &Connection, from: &Bytes, to: &Bytes) -> Result<bool> {
    // Reading moves the time of access.
    let look = async |path| -> Result<Option<Attrs>> {
        let seen = lstat(connection, path).await?;
        Ok(seen.map(|seen| Attrs {
            times: seen.times.map(|(_, modified)| (0, modified)),
            ..seen
        }))
    };
    let mut before = look(from).await?;
    for _ in 0..LOOKS_MAX {
        let (there, after) = (look(to).await?, look(from).await?);
        let (Some(first), Some(other), Some(last)) = (&before, &there, &after) else {
            return Ok(there.is_some() && (there == before || there == after));
        };
        if other == first || other == last || is_between(first, other, last) {
            return Ok(true);
        }
        if before == after {
            return Ok(false);
        }
        // It is being written.
        before = after;
    }
    Ok(false)
}

async fn is_new_file(
    connection: &Connection,
    path: &Bytes,
    asked: &Attrs,
    modes: Modes,
) -> Result<bool> {
    let Some(there) = lstat(connection, path).await? else {
        return Ok(false);
    };
    let is_as_asked = modes == Modes::ItsOwn || has_mode_asked_for(&there, asked);
    Ok(there.kind() == Some(FileKind::Regular) && there.size == Some(0) && is_as_asked)
}

/// Whether what was made has the mode that was asked for; the server's umask may have taken bits away.
pub(super) fn has_mode_asked_for(there: &Attrs, asked: &Attrs) -> bool {
    let bits = |attrs: &Attrs| attrs.permissions.map(|bits| bits & 0o777);
    match (bits(there), bits(asked)) {
        (Some(there), Some(asked)) => there & !asked == 0,
        _ => true,
    }
}

async fn is_empty_directory(connection: &Connection, path: &Bytes, asked: &Attrs) -> Result<bool> {
    let there = lstat(connection, path).await?;
    let Some(there) = there.filter(|there| there.kind() == Some(FileKind::Directory)) else {
        return Ok(false);
    };
    let path = path.clone();
    let handle = match connection.submit(&Request::Opendir { path }).await? {
        Response::Handle(handle) => handle,
        // One that its maker may not read cannot be seen to be empty.
        refusal => {
            let is_denied = is_status(&refusal, StatusCode::PERMISSION_DENIED);
            let is_closed = asked.permissions.is_some_and(|mode| mode & 0o400 == 0);
            return Ok(is_denied && is_closed && has_mode_asked_for(&there, asked));
        }
    };
    // Also if nobody waits for this any more.
    let directory = Closing { connection, handle };
    let mut is_empty = true;
    // Both dots come in the first page or two; a server could send them for ever.
    for _ in 0..PAGES_MAX {
        let handle = directory.handle.clone();
        let Response::Names(names) = connection.submit(&Request::Readdir { handle }).await? else {
            break;
        };
        is_empty &= names
            .iter()
            .all(|entry| matches!(&entry.name[..], b"." | b".."));
        if !is_empty {
            break;
        }
    }
    Ok(is_empty)
}

/// Closes a handle when it goes.
struct Closing<'a> {
    connection: &'a Connection,
    handle: Bytes,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let handle = self.handle.clone();
        drop(self.connection.submit(&Request::Close { handle }));
    }
}

const PAGES_MAX: u32 = 4;
/// At two names of a file that changes meanwhile.
const LOOKS_MAX: u32 = 4;
