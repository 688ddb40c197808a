//! Requests by path. A directory above may be renamed while one is on its way, or waits for what was
//! lost before it: then it is refused for a path that leads elsewhere by now, and asked again.

use std::future::Future;

use bytes::Bytes;

use super::Filesystem;
use crate::error::{Error, Result};

/// What a request names.
pub(super) trait Paths: Clone + PartialEq {
    fn each(&self) -> impl Iterator<Item = &Bytes> + Send;
}

impl Paths for Bytes {
    fn each(&self) -> impl Iterator<Item = &Self> + Send {
        std::iter::once(self)
    }
}

/// That of a file that was removed, and is open, is none.
impl Paths for Option<Bytes> {
    fn each(&self) -> impl Iterator<Item = &Bytes> + Send {
        self.iter()
    }
}

impl Paths for (Bytes, Bytes) {
    fn each(&self) -> impl Iterator<Item = &Bytes> + Send {
        [&self.0, &self.1].into_iter()
    }
}

impl Filesystem {
    /// Asks by the path of the moment, and again if that is refused and the path is another by then. Each
    /// time somebody has renamed something meanwhile. Gives the path that was asked last too. What is
    /// refused must not have been done.
    ///
    /// # Errors
    /// Those of `path`.
    pub(super) async fn at_path<P: Paths, T, A: Future<Output = Result<T>>>(
        &self,
        path: impl Fn() -> Result<P>,
        ask: impl Fn(P) -> A,
    ) -> Result<(P, Result<T>)> {
        loop {
            let asked = path()?;
            let answer = ask(asked.clone()).await;
            if matches!(answer, Err(Error::Refused { .. })) {
                for path in asked.each() {
                    // After a loss it may be settled later than what was asked for behind it.
                    self.client.stays(path).await;
                }
                // Whoever has the answer to a rename takes that in first.
                tokio::task::yield_now().await;
                if path()? != asked {
                    continue;
                }
            }
            return Ok((asked, answer));
        }
    }
}
