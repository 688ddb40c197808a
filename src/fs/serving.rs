//! Which of the server's handles serves an open file. A file whose server file was replaced (it
//! became a hard link of another, or stopped being one) is opened anew when it is next used.

use super::Filesystem;
use super::files::open_flags;
use super::handles::{OpenFile, Serving};
use super::second_question::Refused;
use crate::client::Handle;
use crate::error::{Operation, Result};
use crate::sftp::{Attrs, OpenFlags};

impl Filesystem {
    /// A handle that reads an open file, or whatever it was opened for.
    ///
    /// # Errors
    /// What open(2) says, or ESTALE, if the file must be opened anew.
    pub(super) async fn handle(&self, file: &OpenFile) -> Result<Handle> {
        if let Some(handle) = file.handle() {
            return Ok(handle);
        }
        let handle = self.open_again(file, OpenFlags::READ).await?;
        let serving = Serving::reading(handle.clone());
        Ok(file.serve_unless_served(serving).unwrap_or(handle))
    }

    /// A handle for all that a file was opened for.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub(super) async fn full_handle(&self, file: &OpenFile) -> Result<Handle> {
        if let Some(handle) = file.full_handle() {
            return Ok(handle);
        }
        let handle = self.open_again(file, open_flags(file.access)).await?;
        file.serve(Serving::full(handle.clone(), None));
        Ok(handle)
    }

    async fn open_again(&self, file: &OpenFile, flags: OpenFlags) -> Result<Handle> {
        let path = self.path(file.shared.ino)?;
        match self
            .client
            .open(path.clone(), flags, Attrs::default())
            .await
        {
            Ok(handle) => Ok(handle),
            Err(error) => {
                let write = flags.contains(OpenFlags::WRITE);
                let refused = Refused::Open { path, write };
                Err(self.explain(Operation::Open, error, refused).await.into())
            }
        }
    }
}
