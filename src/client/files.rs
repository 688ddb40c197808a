//! Calls by handle: opening, reading, writing and listing.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use super::connection::Connection;
use super::lanes::Lanes;
use super::pieces::Span;
use super::spread::{self, Origin, Seat, Spread, Work};
use super::{Client, Ticket, attrs, done, unexpected};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, NameEntry, OpenFlags, Request, Response, StatusCode};

/// A file or directory that the server has open for us, until the last clone of this is dropped.
/// Lives on one connection; a file of which much is read or written has further handles inside, on
/// others (see [`spread`]).
#[derive(Clone)]
pub(crate) struct Handle(Arc<Open>);

/// Clones of one handle are the same; two opens never are.
impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub(super) struct Open {
    connection: Arc<Connection>,
    bytes: Bytes,
    /// `None`: it stays on its connection.
    origin: Option<Origin>,
    reads: Spread,
    writes: Spread,
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

impl Open {
    /// Its further handles for some work, if it may have any, and from how many bytes on.
    pub(super) fn spread(&self, work: Work) -> Option<(&Spread, u64)> {
        let origin = self.origin.as_ref()?;
        let spread = match work {
            Work::Read => &self.reads,
            // What is written goes to the end, in the order of one connection.
            Work::Write if origin.flags.contains(OpenFlags::APPEND) => return None,
            Work::Write => &self.writes,
        };
        Some((spread, origin.much))
    }

    pub(super) fn lanes(&self) -> Option<Arc<Lanes>> {
        self.origin.as_ref()?.lanes.upgrade()
    }

    pub(super) fn path(&self) -> Option<Bytes> {
        self.origin.as_ref().map(|origin| origin.path.clone())
    }

    /// Whether its path may lead to another file since it was opened, because of us.
    pub(super) fn is_moved(&self) -> bool {
        let moved = |origin: &Origin| {
            let lanes = origin.lanes.upgrade();
            lanes.is_none_or(|lanes| lanes.is_moved(&origin.path, origin.since))
        };
        self.origin.as_ref().is_none_or(moved)
    }
}

impl Client {
    pub(crate) fn fstat(
        &self,
        handle: &Handle,
    ) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        let request = handle.fstat_request();
        attrs(spread::in_order(handle, request))
    }

    pub(crate) fn fsetstat(
        &self,
        handle: &Handle,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let request = handle.fsetstat_request(attrs);
        done(spread::in_order(handle, request))
    }

    /// Opens a file.
    pub(crate) fn open(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let origin = self.origin(&path, flags);
        let answer = self.call_on(Request::Open { path, flags, attrs });
        async move {
            let (connection, answer) = answer.await?;
            opened_from(connection, answer, Some(origin))
        }
    }

    fn origin(&self, path: &Bytes, flags: OpenFlags) -> Origin {
        Origin {
            path: path.clone(),
            flags,
            since: self.lanes.moment(),
            lanes: Arc::downgrade(&self.lanes),
            much: self.lanes.much(),
        }
    }

    /// Opens a file and looks at it, in one round trip: what `open` and `lstat` give.
    pub(crate) async fn open_and_look(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> Result<(Handle, Attrs)> {
        let origin = self.origin(&path, flags);
        let open = self.call_on(Request::Open {
            path: path.clone(),
            flags,
            attrs: attrs.clone(),
        });
        // By path and on the same connection: the handle is not known yet, the order is.
        let look = self.call(Request::Stat { path });
        let (connection, open) = open.await?;
        let handle = opened_from(connection, open, Some(origin))?;
        match self::attrs(look).await {
            Ok(seen) => {
                if flags.contains(OpenFlags::EXCL) {
                    self.lanes.note_made(&seen, &attrs);
                }
                Ok((handle, seen))
            }
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
        let answer = self.call_on(Request::Opendir { path });
        async move {
            let (connection, answer) = answer.await?;
            opened_from(connection, answer, None)
        }
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
                // To ask again might never end; sftp(1) takes it for the end too.
                Response::Names(names) if names.is_empty() => Ok(None),
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
        let seat = spread::seat(handle, Work::Read, size(len)).await;
        let is_further = seat.handle != *handle;
        match data(seat.submit_read(offset, len), len).await {
            Err(Error::Lost(_)) if is_further => read_first(handle, offset, len).await,
            answer => answer,
        }
    }

    /// Notes that so many bytes more of a file will probably be read.
    pub(crate) fn expect_reads(handle: &Handle, bytes: u64) {
        spread::expect(handle, Work::Read, bytes);
    }

    /// Notes that a file is written faster than the link takes it, and so probably for long.
    pub(crate) fn expect_writes(handle: &Handle) {
        spread::expect(handle, Work::Write, u64::MAX);
    }

    /// As `read`, for data that nobody waits for yet; `None` if there is no place now.
    pub(crate) fn read_ahead(
        &self,
        handle: &Handle,
        offset: u64,
        len: u32,
    ) -> Option<impl Future<Output = Result<Bytes>> + Send + 'static + use<>> {
        let seat = spread::seat_ahead(handle, size(len))?;
        let is_further = seat.handle != *handle;
        let first = is_further.then(|| Arc::downgrade(&handle.0));
        let ticket = seat.submit_read(offset, len);
        Some(async move {
            let answer = data(ticket, len).await;
            match (answer, first.as_ref().and_then(Weak::upgrade)) {
                (Err(Error::Lost(_)), Some(first)) => read_first(&Handle(first), offset, len).await,
                (answer, _) => answer,
            }
        })
    }

    /// Sends a WRITE when there is a place for it; the future inside tells what became of it.
    ///
    /// Two WRITEs by one handle may take two connections and be done in any order: the caller sees to
    /// it that neither is of bytes of the other while that has no answer. What else is asked by the
    /// handle, but to read, stays in order with them; what is asked by path does not.
    pub(crate) async fn write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let seat = spread::seat(handle, Work::Write, data.len()).await;
        done(seat.submit_write(offset, data))
    }

    /// As `write`, in order with all else that is asked by the handle and by path.
    pub(super) async fn write_in_order(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let handle = handle.clone();
        let place = handle.0.connection.place().await;
        let seat = Seat {
            handle,
            place,
            unanswered: None,
        };
        done(seat.submit_write(offset, data))
    }

    /// Brings a file's data to the server's disk (fsync@openssh.com, OpenSSH 6.5). Where the
    /// server has no such request this only means that it has the data.
    pub(crate) async fn fsync(&self, handle: &Handle) -> Result<()> {
        if !self.features.extensions.fsync {
            return Ok(());
        }
        // One handle is enough: all are of one file.
        let request = Request::Fsync {
            handle: handle.0.bytes.clone(),
        };
        done(spread::in_order(handle, request)).await
    }
}

impl Seat {
    fn submit_read(self, offset: u64, len: u32) -> Ticket {
        let request = read_request(&self.handle, offset, len);
        self.submit(request)
    }

    fn submit_write(self, offset: u64, data: Bytes) -> Ticket {
        let request = Request::Write {
            handle: self.handle.0.bytes.clone(),
            offset,
            data,
        };
        self.submit(request)
    }

    fn submit(self, request: Request) -> Ticket {
        let Self {
            handle,
            place,
            unanswered,
        } = self;
        handle.0.connection.submit_in(place, unanswered, &request)
    }
}

impl Handle {
    pub(super) const fn of(open: Arc<Open>) -> Self {
        Self(open)
    }

    pub(super) const fn open(&self) -> &Arc<Open> {
        &self.0
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether it went with its connection. What it is of must be opened again.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.connection.is_lost()
    }

    pub(super) fn is_on(&self, connection: &Arc<Connection>) -> bool {
        Arc::ptr_eq(&self.0.connection, connection)
    }

    fn submit(&self, request: &Request) -> Ticket {
        self.0.connection.submit(request)
    }

    /// Whether two handles live on one connection: what is asked of them is done in order.
    pub(super) fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.connection, &other.0.connection)
    }

    pub(super) fn submit_fstat(&self) -> Ticket {
        self.submit(&self.fstat_request())
    }

    fn fstat_request(&self) -> Request {
        Request::Fstat {
            handle: self.0.bytes.clone(),
        }
    }

    pub(super) fn submit_fsetstat(&self, attrs: Attrs) -> Ticket {
        self.submit(&self.fsetstat_request(attrs))
    }

    fn fsetstat_request(&self, attrs: Attrs) -> Request {
        Request::Fsetstat {
            handle: self.0.bytes.clone(),
            attrs,
        }
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

/// Reads by the first handle of a file what a further connection has lost.
async fn read_first(handle: &Handle, offset: u64, len: u32) -> Result<Bytes> {
    let request = read_request(handle, offset, len);
    data(handle.0.connection.submit_data(&request).await, len).await
}

fn size(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

pub(super) fn read_request(handle: &Handle, offset: u64, len: u32) -> Request {
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
    opened_from(connection, ticket.await?, None)
}

fn opened_from(
    connection: Arc<Connection>,
    answer: Response,
    origin: Option<Origin>,
) -> Result<Handle> {
    match answer {
        Response::Handle(bytes) => Ok(Handle(Arc::new(Open {
            connection,
            bytes,
            origin,
            reads: Spread::default(),
            writes: Spread::default(),
            twin: Mutex::default(),
            piece_len: AtomicU64::new(0),
        }))),
        other => Err(unexpected(other)),
    }
}

pub(super) async fn data(ticket: Ticket, len: u32) -> Result<Bytes> {
    match ticket.await? {
        Response::Data(data) if data.len() > size(len) => {
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
