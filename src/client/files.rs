//! Calls by handle: opening, reading, writing and listing.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::connection::Connection;
use super::pieces::Span;
use super::{Client, Ticket, attrs, done, unexpected};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, NameEntry, OpenFlags, Request, Response, StatusCode};

/// A file or directory that the server has open for us, until the last clone of this is dropped.
/// Lives on one connection.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Open>);

/// Clones of one handle are the same; two opens never are.
impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

struct Open {
    connection: Arc<Connection>,
    bytes: Bytes,
    /// The same file on the copy lane and for what it was opened there, once a copy needed it;
    /// closed together with this.
    twin: Mutex<Option<(Handle, OpenFlags)>>,
    /// How long the pieces of server-side copies into it were last, in bytes; 0 before the first.
    piece_len: AtomicU64,
}

impl Drop for Open {
    /// Sends CLOSE when the last clone of a handle goes, behind all that was sent by it. Servers
    /// give a handle's name to the next file at once, so that nobody may use it after that; and
    /// nobody waits for the answer, which tells nothing that the writes' answers did not.
    fn drop(&mut self) {
        let handle = self.bytes.clone();
        drop(self.connection.submit(&Request::Close { handle }));
    }
}

impl Client {
    pub(crate) fn fstat(
        &self,
        handle: &Handle,
    ) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(handle.submit_fstat())
    }

    pub(crate) fn fsetstat(
        &self,
        handle: &Handle,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(handle.submit_fsetstat(attrs))
    }

    /// Opens a file on the connection that data takes.
    pub(crate) fn open(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let connection = self.lanes.data();
        let ticket = connection.submit(&Request::Open { path, flags, attrs });
        opened(connection, ticket)
    }

    /// Opens a file and looks at it, in one round trip: what `open` and `lstat` give.
    pub(crate) async fn open_and_look(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> Result<(Handle, Attrs)> {
        let connection = self.lanes.data();
        let open = connection.submit(&Request::Open {
            path: path.clone(),
            flags,
            attrs,
        });
        // By path and on the same connection: the handle is not known yet, the order is.
        let look = connection.submit(&Request::Stat { path });
        let handle = opened(connection, open).await?;
        match self::attrs(look).await {
            Ok(seen) => Ok((handle, seen)),
            Err(Error::Refused { .. }) => {
                let seen = self.fstat(&handle).await?;
                Ok((handle, seen))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn opendir(
        &self,
        path: Bytes,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let connection = self.lanes.metadata();
        let ticket = connection.submit(&Request::Opendir { path });
        opened(connection, ticket)
    }

    /// The next entries of a directory; `None` at its end.
    pub(crate) fn readdir(
        &self,
        handle: &Handle,
    ) -> impl Future<Output = Result<Option<Vec<NameEntry>>>> + Send + use<> {
        let ticket = handle.submit(&Request::Readdir {
            handle: handle.0.bytes.clone(),
        });
        async move {
            match ticket.await? {
                // Neither the end nor an entry: to ask again might never end.
                Response::Names(names) if names.is_empty() => {
                    Err(Error::Protocol("a page of a listing without entries"))
                }
                Response::Names(names) => Ok(Some(names)),
                Response::Status {
                    code: StatusCode::EOF,
                    ..
                } => Ok(None),
                other => Err(unexpected(other)),
            }
        }
    }

    /// Reads up to `len` bytes when there is a place for the request among those outstanding.
    /// Empty means the end of the file, and nothing else does; fewer bytes than asked for mean
    /// nothing.
    pub(crate) async fn read(&self, handle: &Handle, offset: u64, len: u32) -> Result<Bytes> {
        data(
            handle
                .0
                .connection
                .submit_data(&read_request(handle, offset, len))
                .await,
            len,
        )
        .await
    }

    /// As `read`, for data that nobody waits for yet; `None` if there is no place now.
    pub(crate) fn read_ahead(
        &self,
        handle: &Handle,
        offset: u64,
        len: u32,
    ) -> Option<impl Future<Output = Result<Bytes>> + Send + 'static + use<>> {
        let ticket = handle
            .0
            .connection
            .submit_ahead(&read_request(handle, offset, len))?;
        Some(data(ticket, len))
    }

    /// Sends a WRITE when there is a place for it; the future inside tells what became of it.
    pub(crate) async fn write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let request = Request::Write {
            handle: handle.0.bytes.clone(),
            offset,
            data,
        };
        done(handle.0.connection.submit_data(&request).await)
    }

    /// Brings a file's data to the server's disk (fsync@openssh.com, OpenSSH 6.5). Where the
    /// server has no such request this only means that it has the data.
    pub(crate) async fn fsync(&self, handle: &Handle) -> Result<()> {
        if !self.features.extensions.fsync {
            return Ok(());
        }
        done(handle.submit(&Request::Fsync {
            handle: handle.0.bytes.clone(),
        }))
        .await
    }
}

impl Handle {
    fn submit(&self, request: &Request) -> Ticket {
        self.0.connection.submit(request)
    }

    /// Whether two handles live on one connection: what is asked of them is done in order.
    pub(super) fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.connection, &other.0.connection)
    }

    pub(super) fn submit_fstat(&self) -> Ticket {
        self.submit(&Request::Fstat {
            handle: self.0.bytes.clone(),
        })
    }

    pub(super) fn submit_fsetstat(&self, attrs: Attrs) -> Ticket {
        self.submit(&Request::Fsetstat {
            handle: self.0.bytes.clone(),
            attrs,
        })
    }

    /// copy-data, from this handle to another of the same connection.
    pub(super) fn submit_copy(&self, to: &Self, span: Span) -> Ticket {
        self.submit(&Request::CopyData {
            from: self.0.bytes.clone(),
            from_offset: span.source_offset,
            len: span.len,
            to: to.0.bytes.clone(),
            to_offset: span.target_offset,
        })
    }

    /// The handle of the same file that was opened on `lane` for this.
    pub(super) fn twin_on(&self, lane: &Arc<Connection>, flags: OpenFlags) -> Option<Self> {
        let twin = self.0.twin.lock().unwrap_or_else(PoisonError::into_inner);
        let (twin, opened_for) = twin.as_ref()?;
        let is_it = *opened_for == flags && Arc::ptr_eq(&twin.0.connection, lane);
        is_it.then(|| twin.clone())
    }

    /// Keeps a handle of the same file for as long as this one is open.
    pub(super) fn keep_twin(&self, twin: Self, flags: OpenFlags) {
        let mut kept = self.0.twin.lock().unwrap_or_else(PoisonError::into_inner);
        let old = kept.replace((twin, flags));
        drop(kept);
        // Sends CLOSE, and that under no lock.
        drop(old);
    }

    /// See [`Handle::keep_piece_len`].
    pub(super) fn piece_len(&self) -> Option<u64> {
        Some(self.0.piece_len.load(Ordering::Relaxed)).filter(|len| *len > 0)
    }

    /// Remembers how long pieces of copies into it may be.
    pub(super) fn keep_piece_len(&self, len: u64) {
        self.0.piece_len.store(len, Ordering::Relaxed);
    }
}

fn read_request(handle: &Handle, offset: u64, len: u32) -> Request {
    Request::Read {
        handle: handle.0.bytes.clone(),
        offset,
        len,
    }
}

/// Opens on a given connection what is there already.
pub(super) fn open_on(
    connection: &Arc<Connection>,
    path: Bytes,
    flags: OpenFlags,
) -> impl Future<Output = Result<Handle>> + Send + use<> {
    let attrs = Attrs::default();
    let ticket = connection.submit(&Request::Open { path, flags, attrs });
    opened(Arc::clone(connection), ticket)
}

pub(super) async fn opened(connection: Arc<Connection>, ticket: Ticket) -> Result<Handle> {
    match ticket.await? {
        Response::Handle(bytes) => Ok(Handle(Arc::new(Open {
            connection,
            bytes,
            twin: Mutex::default(),
            piece_len: AtomicU64::new(0),
        }))),
        other => Err(unexpected(other)),
    }
}

async fn data(ticket: Ticket, len: u32) -> Result<Bytes> {
    match ticket.await? {
        Response::Data(data) if data.len() > usize::try_from(len).unwrap_or(usize::MAX) => {
            Err(Error::Protocol("DATA longer than asked for"))
        }
        // No data without an error: neither is it the end of the file, nor may we ask for ever.
        Response::Data(data) if data.is_empty() => Err(Error::Protocol("empty DATA")),
        Response::Data(data) => Ok(data),
        Response::Status {
            code: StatusCode::EOF,
            ..
        } => Ok(Bytes::new()),
        other => Err(unexpected(other)),
    }
}
