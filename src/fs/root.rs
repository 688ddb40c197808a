//! The root while the server is away: what it said last is told. umount(8) asks for attributes and
//! space of a mount point before it unmounts, and `df` and file managers ask at all of them.

use std::future::{Future, pending};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::second_question::Refused;
use super::{Filesystem, Ino, Known};
use crate::client::Standing;
use crate::error::{Operation, Result};
use crate::sftp::Statvfs;

/// What the server said last of the file system that holds the root.
#[derive(Default)]
pub(super) struct Space(Mutex<Option<Statvfs>>);

impl Space {
    fn note(&self, space: Option<Statvfs>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = space;
    }

    fn last(&self) -> Option<Statvfs> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filesystem {
    /// Attributes of the root.
    pub(super) async fn root_attributes(&self) -> Result<Known> {
        let last = async {
            match self.unsettled(Ino::ROOT) {
                Some(known) => known,
                None => pending().await,
            }
        };
        self.or_last(self.ask_attributes(Ino::ROOT), last).await
    }

    /// Space on the file system that holds `ino`.
    ///
    /// # Errors
    /// What the server says. A server that cannot tell gives `None`.
    pub(crate) async fn statfs(&self, ino: Ino) -> Result<Option<Statvfs>> {
        let asked = self.ask_space(ino);
        if ino != Ino::ROOT {
            return asked.await;
        }
        let last = async { self.space.last() };
        let space = self.or_last(asked, last).await?;
        self.space.note(space);
        Ok(space)
    }

    async fn ask_space(&self, ino: Ino) -> Result<Option<Statvfs>> {
        let path = || Ok(self.path(ino).unwrap_or_else(|_| self.root()));
        let ask = |path| self.client.statvfs(path);
        match self.at_path(path, ask).await?.1 {
            Ok(space) => Ok(space),
            Err(error) => Err(self
                .explain(Operation::Statfs, error, Refused::Other)
                .await
                .into()),
        }
    }

    /// What the server answers, or what is remembered if it does not for a while or is away.
    async fn or_last<T>(
        &self,
        asked: impl Future<Output = Result<T>>,
        last: impl Future<Output = T>,
    ) -> Result<T> {
        let away = async {
            // Whoever asks after another has waited for nothing need not wait too.
            let is_silent = self.oldest_question().is_some_and(|oldest| oldest >= WAIT);
            if self.health().standing == Standing::Connected && !is_silent {
                tokio::time::sleep(WAIT).await;
            }
            last.await
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            last = away => Ok(last),
        }
    }
}

/// How long the server may take to tell of the root.
const WAIT: Duration = Duration::from_secs(1);
