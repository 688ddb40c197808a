//! Requests by path. A directory above may be renamed while one is on its way, or waits for what was
//! lost before it: then it is refused for a path that leads elsewhere by now, and asked again.

use std::future::Future;

use crate::error::{Error, Result};

/// Asks by the path of the moment, and again if that is refused and the path is another by then. Each
/// time somebody has renamed something meanwhile. Gives the path that was asked last too. What is
/// refused must not have been done.
///
/// # Errors
/// Those of `path`.
pub(super) async fn at_path<P, T, A>(
    path: impl Fn() -> Result<P>,
    ask: impl Fn(P) -> A,
) -> Result<(P, Result<T>)>
where
    P: Clone + PartialEq,
    A: Future<Output = Result<T>>,
{
    loop {
        let asked = path()?;
        let answer = ask(asked.clone()).await;
        if matches!(answer, Err(Error::Refused { .. })) {
            // Whoever has the answer to a rename before this one takes that in first.
            tokio::task::yield_now().await;
            if path()? != asked {
                continue;
            }
        }
        return Ok((asked, answer));
    }
}
