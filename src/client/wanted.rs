//! Whether a program still waits for a change that is asked for. One that nobody waits for any more is
//! not asked for again on another connection: it would be done late, behind what programs have done
//! since.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sftp::{OpenFlags, Request, Response, StatusCode};

tokio::task_local! {
    static WANTED: Wanted;
}

/// One operation of a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The program was told that it ended.
    is_abandoned: AtomicBool,
    /// A part of it is done: the rest is to follow.
    has_begun: AtomicBool,
}

impl Wanted {
    /// Nobody waits any more.
    pub(crate) fn abandon(&self) {
        self.0.is_abandoned.store(true, Ordering::Relaxed);
    }
}

/// Runs an operation of a program.
pub(crate) fn while_wanted<F: Future>(
    wanted: Wanted,
    operation: F,
) -> impl Future<Output = F::Output> {
    WANTED.scope(wanted, operation)
}

/// Whether the operation that runs here is to be left as it is.
pub(crate) fn is_abandoned() -> bool {
    let is_abandoned = |wanted: &Wanted| {
        let State {
            is_abandoned,
            has_begun,
        } = &*wanted.0;
        is_abandoned.load(Ordering::Relaxed) && !has_begun.load(Ordering::Relaxed)
    };
    WANTED.try_with(is_abandoned).unwrap_or(false)
}

/// Whether a request is not to be sent any more: it changes something, and nobody waits for it.
pub(super) fn is_left(request: &Request) -> bool {
    changes(request) && is_abandoned()
}

/// Notes the answer to a request that changes something.
pub(super) fn note(answer: &Response) {
    let is_done = match answer {
        Response::Status { code, .. } => *code == StatusCode::OK,
        _ => true,
    };
    if is_done {
        // Also asked for outside of operations.
        let _ = WANTED.try_with(|wanted| wanted.0.has_begun.store(true, Ordering::Relaxed));
    }
}

/// Whether a request by path changes something.
pub(super) fn changes(request: &Request) -> bool {
    match request {
        Request::Open { flags, .. } => flags.0 & (OpenFlags::CREAT | OpenFlags::TRUNC).0 != 0,
        Request::Setstat { .. }
        | Request::Lsetstat { .. }
        | Request::Remove { .. }
        | Request::Mkdir { .. }
        | Request::Rmdir { .. }
        | Request::Rename { .. }
        | Request::PosixRename { .. }
        | Request::Symlink { .. }
        | Request::Hardlink { .. } => true,
        _ => false,
    }
}
