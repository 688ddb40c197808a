//! The kernel's side: what it asks is in `operations`, how an operation comes to its reply in
//! `waiting`.

mod convert;
mod ioctl;
mod listing;
mod notifier;
mod operations;
mod replies;
mod waiting;

use std::future::Future;
use std::sync::Arc;

use fuser::Request;
use tokio::runtime::Handle;

pub(crate) use self::notifier::start as start_notifier;
use self::replies::Refuse;
pub(crate) use self::waiting::Recall;
use self::waiting::{Then, Waiting};
use crate::error::Result;
use crate::fs::Filesystem;

/// The kernel's side of a mount.
pub(crate) struct Face {
    fs: Arc<Filesystem>,
    waiting: Waiting,
}

impl Face {
    /// `runtime` drives what does not finish at once; `recall` ends all waits for it.
    pub(crate) fn new(fs: Arc<Filesystem>, runtime: Handle, recall: Recall) -> Self {
        let waiting = Waiting::new(Arc::clone(&fs), runtime, recall);
        Self { fs, waiting }
    }

    fn fs(&self) -> Arc<Filesystem> {
        Arc::clone(&self.fs)
    }

    /// Runs an operation that changes nothing.
    fn look<R: Refuse, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        tell: impl FnOnce(R, T) + Send + 'static,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        let thread = request.pid();
        self.waiting.run(thread, reply, Then::Drop, operation, tell);
    }

    /// Runs an operation that changes something, and gives the kernel nothing to give back.
    fn change<R: Refuse, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        tell: impl FnOnce(R, T) + Send + 'static,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        self.give(request, reply, tell, |_, _| (), operation);
    }

    /// Runs an operation that gives the kernel something, which `undo` takes back if the kernel has
    /// not got it.
    fn give<R: Refuse, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        tell: impl FnOnce(R, T) + Send + 'static,
        undo: fn(&Arc<Filesystem>, T),
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        let (thread, then) = (request.pid(), Then::Undo(undo));
        self.waiting.run(thread, reply, then, operation, tell);
    }
}
