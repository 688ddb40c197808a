//! What goes on when nobody waits, and others wait for its end: a panic in it must not be theirs.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::error::{Error, Result};

/// Runs to the end; a panic, which the panic hook has told of, is an error like others.
pub(super) async fn surviving<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or(Err(Error::Protocol("a task has failed")))
}

/// Panics where a test wants it: whoever works on a path that ends so.
#[cfg(test)]
pub(super) fn trip(path: &[u8]) {
    assert!(!path.ends_with(b".panics"), "wanted by a test");
}
