//! What goes on when nobody waits, and others wait for its end: a panic in it must not be theirs.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use nix::errno::Errno;

use crate::error::Result;

/// Runs to the end; a panic, which the panic hook has told of, is an error like others.
pub(super) async fn surviving<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    // Ours, and not the server's: nobody tries again.
    done.unwrap_or(Err(Errno::EIO.into()))
}

/// Panics where a test wants it: whoever works on a path that ends so.
#[cfg(test)]
pub(super) fn trip(path: &[u8]) {
    assert!(!path.ends_with(b".panics"), "wanted by a test");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_at_once_and_not_tried_again() {
        let failed = surviving(async {
            trip(b"d.panics");
            Ok(())
        });
        let error = failed.await.unwrap_err();
        assert!(
            !error.is_of_connection() && !error.tells_nothing(),
            "{error}"
        );
    }
}
