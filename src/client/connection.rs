//! One SFTP channel: requests go in and leave a [`Ticket`], one reader hands each answer to its
//! ticket, in whatever order the server answers.
//!
//! **Ordering.** A server may answer in any order but must act as if in the order sent
//! (draft-ietf-secsh-filexfer-02, section 6.1). [`Connection::submit`] numbers and queues a request
//! under one lock and never waits, so requests that one caller submits in order stay in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::outline;
use super::pending::{Answer, Asked, Data, Expects, Pending, Unanswered};
use super::window::{self, Flow, Place, Window};
use crate::clock;
use crate::error::{Error, Result};
use crate::sftp::{Encoded, Frames, Request, RequestId, Response, StatusCode};
use crate::transport::{Diagnosis, Link};

/// One SFTP channel. Dropping it ends it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    reader: AbortHandle,
    writer: AbortHandle,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Places for READ and WRITE requests.
    places: Arc<Semaphore>,
    /// How many there are, free or not.
    places_all: AtomicUsize,
    /// Places for small READs that somebody waits for.
    places_small: Arc<Semaphore>,
    diagnosis: Diagnosis,
    /// It has ended; why is in the queue.
    is_lost: AtomicBool,
    /// Rung then.
    end: Notify,
    /// Some request was answered.
    has_answered: AtomicBool,
}

/// Numbering and queueing are one step, so that the order of numbers is the order on the wire.
struct Queue {
    pending: Pending,
    outgoing: mpsc::UnboundedSender<Encoded>,
    window: Window,
}

/// The answer to one request, when it comes. Whoever drops it is not interested any more.
pub(crate) struct Ticket {
    state: TicketState,
    /// Of a request that opens something: where that is closed if nobody takes it.
    opens_on: Option<Weak<Shared>>,
}

#[derive(Debug)]
enum TicketState {
    Waiting(oneshot::Receiver<Answer>),
    /// The request could not be sent.
    Failed(Option<Error>),
}

impl Ticket {
    const fn of(state: TicketState) -> Self {
        let opens_on = None;
        Self { state, opens_on }
    }
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.state {
            TicketState::Waiting(told) => {
                let answer = ready!(Pin::new(told).poll(cx));
                Poll::Ready(answer.unwrap_or_else(|_| Err(Error::Lost("connection closed".into()))))
            }
            TicketState::Failed(error) => Poll::Ready(Err(error
                .take()
                .unwrap_or(Error::Protocol("a ticket was asked twice")))),
        }
    }
}

impl Drop for Ticket {
    /// An answer that came and was not taken any more may be a handle, which the server would keep
    /// open.
    fn drop(&mut self) {
        let home = self.opens_on.as_ref().and_then(Weak::upgrade);
        if let (TicketState::Waiting(told), Some(home)) = (&mut self.state, home) {
            told.close();
            if let Ok(Ok(Response::Handle(handle))) = told.try_recv() {
                home.close(handle);
            }
        }
    }
}

impl Connection {
    /// Shakes hands (INIT, VERSION) and starts the reader and the writer on the current runtime.
    /// Also returns the server's VERSION.
    ///
    /// # Errors
    /// [`Error::Setup`] when what answers is no SFTP server, with what it said instead.
    pub(crate) async fn open(mut link: Link) -> Result<(Self, Response)> {
        let mut frames = Frames::new(FRAME_MAX);
        let handshake = tokio::time::timeout(HANDSHAKE, shake_hands(&mut link, &mut frames));
        let version = handshake.await.unwrap_or_else(|_| {
            Err(Error::setup(format!(
                "no SFTP server answered within {} s",
                HANDSHAKE.as_secs()
            )))
        })?;
        let (read_half, write_half) = tokio::io::split(link.stream);
        let (outgoing, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                pending: Pending::default(),
                outgoing,
                window: Window::new(),
            }),
            places: Arc::new(Semaphore::new(window::SIZE_FIRST)),
            places_all: AtomicUsize::new(window::SIZE_FIRST),
            places_small: Arc::new(Semaphore::new(PLACES_SMALL)),
            diagnosis: link.diagnosis,
            is_lost: AtomicBool::new(false),
            end: Notify::new(),
            has_answered: AtomicBool::new(false),
        });
        let writer = tokio::spawn(write(Arc::clone(&shared), write_half, queued)).abort_handle();
        let (reading, end_writing) = (Arc::clone(&shared), writer.clone());
        let reader = tokio::spawn(async move {
            read(reading, read_half, frames).await;
            // Handles that were lost may keep the connection for long; not what it was made of.
            end_writing.abort();
        });
        let reader = reader.abort_handle();
        Ok((
            Self {
                shared,
                reader,
                writer,
            },
            version,
        ))
    }

    /// Sends a request; never waits. A failure to send is the ticket's answer.
    pub(crate) fn submit(&self, request: &Request) -> Ticket {
        let mut ticket = self.shared.submit(request, None, None);
        if Expects::of(request) == Expects::Handle {
            ticket.opens_on = Some(Arc::downgrade(&self.shared));
        }
        ticket
    }

    /// Waits for a place for a READ or WRITE among those outstanding.
    pub(super) fn place(&self) -> impl Future<Output = OwnedSemaphorePermit> + Send + use<> {
        let places = Arc::clone(&self.shared.places);
        async move {
            match places.acquire_owned().await {
                Ok(place) => place,
                Err(_) => unreachable!("the semaphore of places is never closed"),
            }
        }
    }

    /// A place for a READ or WRITE, if there is one now.
    pub(super) fn place_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.places).try_acquire_owned().ok()
    }

    /// A place for a READ of no more than [`SMALL`] bytes, if there is one now.
    pub(super) fn place_small(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.places_small)
            .try_acquire_owned()
            .ok()
    }

    /// As [`Self::place_now`], for a READ that nobody waits for: some places are kept for who does.
    pub(super) fn place_ahead(&self) -> Option<OwnedSemaphorePermit> {
        if self.shared.places.available_permits() <= PLACES_KEPT {
            return None;
        }
        self.place_now()
    }

    /// How much of what it may have under way it has, in thousandths.
    pub(super) fn load(&self) -> usize {
        let all = self.shared.places_all.load(Ordering::Relaxed).max(1);
        let taken = all.saturating_sub(self.shared.places.available_permits());
        taken * 1000 / all
    }

    /// Sends a READ or WRITE in its place; what else is held goes with the answer.
    pub(super) fn submit_in(
        &self,
        place: OwnedSemaphorePermit,
        unanswered: Option<Unanswered>,
        request: &Request,
    ) -> Ticket {
        self.shared.submit(request, Some(place), unanswered)
    }

    /// Sends a READ or WRITE when there is a place for it among those outstanding.
    pub(super) async fn submit_data(&self, request: &Request) -> Ticket {
        let place = self.place().await;
        self.submit_in(place, None, request)
    }

    /// Notes what the round trip is by another connection to the same server. What is seen on one that
    /// begins among others at work is longer.
    pub(super) fn expect(&self, round_trip: Duration) {
        self.shared.queue().window.heard(round_trip);
    }

    /// Round trip and rate, as far as they were seen.
    pub(super) fn flow(&self) -> Flow {
        self.shared.queue().window.flow(clock::of_timers())
    }

    /// `None` while something is under way; else a number that is another one when something was
    /// asked since.
    pub(super) fn rests(&self) -> Option<u32> {
        let queue = self.shared.queue();
        queue.pending.is_empty().then(|| queue.pending.last_id())
    }

    /// Whether the connection has ended, and why.
    pub(crate) fn lost(&self) -> Option<Error> {
        self.shared.lost()
    }

    /// Whether the connection has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.is_lost.load(Ordering::Acquire)
    }

    /// Whether the server has answered anything on it.
    pub(super) fn has_answered(&self) -> bool {
        self.shared.has_answered.load(Ordering::Relaxed)
    }

    /// Waits for the connection's end; why it ended.
    pub(super) async fn ended(&self) -> Error {
        self.shared.ended().await
    }

    /// Ends the connection, and all that waits for it.
    pub(super) fn end(&self, why: &Error) {
        self.reader.abort();
        self.writer.abort();
        self.shared.lose(why);
    }

    /// Requests without an answer, and when the oldest of them was sent.
    pub(super) fn outstanding(&self) -> (usize, Option<Instant>) {
        self.shared.queue().pending.outstanding()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end(&Error::Lost("closed by us".into()));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(
        &self,
        request: &Request,
        place: Option<OwnedSemaphorePermit>,
        unanswered: Option<Unanswered>,
    ) -> Ticket {
        let carried = match request {
            Request::Write { data, .. } => data.len(),
            _ => 0,
        };
        let asked = Asked {
            when: clock::of_timers(),
            expects: Expects::of(request),
            data: place.map(|place| Data {
                place,
                carried,
                _unanswered: unanswered,
            }),
        };
        let mut queue = self.queue();
        let (id, told) = match queue.pending.register(asked) {
            Ok(registered) => registered,
            Err(error) => return Ticket::of(TicketState::Failed(Some(error))),
        };
        log::debug!("{} > {}", id.0, outline::request(request));
        // The writer is gone only after it has told `pending`, which fails the ticket.
        let _ = queue.outgoing.send(request.encode(id));
        Ticket::of(TicketState::Waiting(told))
    }

    /// Closes what nobody uses.
    fn close(&self, handle: Bytes) {
        drop(self.submit(&Request::Close { handle }, None, None));
    }

    fn complete(&self, id: RequestId, response: Response) -> Result<()> {
        log::debug!("{} < {}", id.0, outline::response(&response));
        let brought = match &response {
            Response::Data(data) => Some(data.len()),
            Response::Status {
                code: StatusCode::OK,
                ..
            } => None,
            _ => Some(0),
        };
        let now = clock::of_timers();
        let mut queue = self.queue();
        let (asked, unheard) = queue.pending.complete(id, response)?;
        self.count(&mut queue, asked, brought, now);
        drop(queue);
        self.has_answered.store(true, Ordering::Relaxed);
        if let Some(Response::Handle(handle)) = unheard {
            // Whoever opened it has given up: the server would keep it open.
            self.close(handle);
        }
        Ok(())
    }

    /// Notes for the window what an answer brought.
    fn count(&self, queue: &mut Queue, asked: Asked, brought: Option<usize>, now: Instant) {
        let Asked {
            when,
            data,
            expects,
        } = asked;
        // That a small READ was answered says nothing of large ones.
        let is_small = matches!(expects, Expects::Data(len) if usize::try_from(len).is_ok_and(|len| len <= SMALL));
        let Some(Data { place, carried, .. }) = data.filter(|_| !is_small) else {
            return queue.window.heard(now.saturating_duration_since(when));
        };
        match queue.window.answered(when, now, brought.unwrap_or(carried)) {
            Place::Free => {}
            Place::FreeAndOneMore => {
                self.places_all.fetch_add(1, Ordering::Relaxed);
                self.places.add_permits(1);
            }
            Place::Gone => {
                self.places_all.fetch_sub(1, Ordering::Relaxed);
                place.forget();
            }
        }
    }

    fn lost(&self) -> Option<Error> {
        self.queue().pending.lost().cloned()
    }

    async fn ended(&self) -> Error {
        loop {
            let end = self.end.notified();
            if let Some(error) = self.lost() {
                return error;
            }
            end.await;
        }
    }

    /// Ends all waits; says what the transport knows about the reason.
    fn lose(&self, error: &Error) {
        let said = self.diagnosis.text();
        let error = match error {
            Error::Lost(why) if !said.is_empty() => Error::Lost(format!("{why}: {said}").into()),
            other => other.clone(),
        };
        log::debug!("{error}");
        // Before anybody hears of it and asks.
        self.is_lost.store(true, Ordering::Release);
        self.queue().pending.lose(&error);
        self.end.notify_waiters();
    }
}

/// Hands each answer to its ticket until the connection ends.
async fn read(shared: Arc<Shared>, stream: impl AsyncRead + Unpin, frames: Frames) {
    tokio::select! {
        error = read_until_error(&shared, stream, frames) => shared.lose(&error),
        // By the writer.
        _ = shared.ended() => {}
    }
}

/// Why the connection ends.
async fn read_until_error(
    shared: &Shared,
    mut stream: impl AsyncRead + Unpin,
    mut frames: Frames,
) -> Error {
    // Silence counts only while requests wait: one who asks after a long rest has all the time.
    let mut silent = 0;
    loop {
        if let Err(error) = hand_over(shared, &mut frames) {
            return error;
        }
        match tokio::time::timeout(ANSWER / SILENT_MAX, stream.read_buf(frames.buffer())).await {
            Ok(Ok(0)) => return Error::Lost("the server hung up".into()),
            Ok(Ok(_)) => silent = 0,
            Ok(Err(error)) => return Error::Lost(error.to_string().into()),
            Err(_) if shared.queue().pending.is_empty() => silent = 0,
            Err(_) if silent + 1 < SILENT_MAX => silent += 1,
            Err(_) => return Error::Lost(format!("no answer for {} s", ANSWER.as_secs()).into()),
        }
    }
}

fn hand_over(shared: &Shared, frames: &mut Frames) -> Result<()> {
    while let Some(frame) = frames.next()? {
        let (id, response) = Response::decode(frame)?;
        shared.complete(id, response)?;
    }
    Ok(())
}

/// Writes what is queued, many small requests at a time.
async fn write(
    shared: Arc<Shared>,
    mut stream: impl AsyncWrite + Unpin,
    mut queued: mpsc::UnboundedReceiver<Encoded>,
) {
    let mut batch = BytesMut::with_capacity(BATCH);
    while let Some(first) = queued.recv().await {
        batch.clear();
        append(&mut batch, &first);
        while batch.len() < BATCH {
            let Ok(next) = queued.try_recv() else { break };
            append(&mut batch, &next);
        }
        let written = async {
            stream.write_all(&batch).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            shared.lose(&Error::Lost(error.to_string().into()));
            return;
        }
    }
}

fn append(batch: &mut BytesMut, request: &Encoded) {
    batch.extend_from_slice(&request.head);
    if let Some(payload) = &request.payload {
        batch.extend_from_slice(payload);
    }
}

/// INIT and VERSION (draft-ietf-secsh-filexfer-02, section 4).
async fn shake_hands(link: &mut Link, frames: &mut Frames) -> Result<Response> {
    let init = Request::Init {
        version: 3,
        extensions: Vec::new(),
    }
    .encode(RequestId(0));
    let sent = link.stream.write_all(&init.head).await;
    if sent.is_ok() {
        // A failure to send shows as the end of the stream below, where the reason is known.
        let _ = link.stream.flush().await;
    }
    loop {
        let Ok(frame) = frames.next() else {
            return Err(no_sftp_server(link, frames.buffer()));
        };
        if let Some(frame) = frame {
            return match Response::decode(frame) {
                Ok((_, version @ Response::Version { .. })) => Ok(version),
                _ => Err(Error::setup(
                    "what answers is no SFTP server: it did not send VERSION",
                )),
            };
        }
        let read = link.stream.read_buf(frames.buffer()).await;
        if !matches!(read, Ok(1..)) {
            return Err(ended_early(link, frames.buffer()));
        }
    }
}

/// The peer sent text where VERSION should be: usually a login script that prints.
fn no_sftp_server(link: &Link, bytes: &[u8]) -> Error {
    Error::denied(format!(
        "what answers is no SFTP server: instead of VERSION it sent {}.\n\
         If this is a greeting printed by a login script (.bashrc, .profile) on the server, make \
         it print only in interactive shells{}",
        quoted(bytes),
        said(&link.diagnosis),
    ))
}

fn ended_early(link: &Link, bytes: &[u8]) -> Error {
    let text = link.diagnosis.text();
    if bytes.is_empty() && !text.is_empty() {
        return link.diagnosis.failure(text);
    }
    let instead = if bytes.is_empty() {
        "it ended without an answer".to_owned()
    } else {
        format!("it sent {} and ended", quoted(bytes))
    };
    link.diagnosis.failure(format!(
        "no SFTP server there: {instead}{}",
        said(&link.diagnosis)
    ))
}

fn said(diagnosis: &Diagnosis) -> String {
    match diagnosis.text() {
        text if text.is_empty() => String::new(),
        text => format!("\n{text}"),
    }
}

/// The first bytes for a person: printable ASCII as it is, the rest escaped.
fn quoted(bytes: &[u8]) -> String {
    let shown: String = bytes
        .iter()
        .take(60)
        .map(|byte| byte.escape_ascii().to_string())
        .collect();
    format!("\"{shown}\"")
}

/// Enough for one large read(2) to begin with, cut into requests of 255 KiB.
const PLACES_KEPT: usize = 2;
/// How long a server may take from the first byte to VERSION. A person may be typing a password
/// into an `ssh` child meanwhile.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a server may send nothing at all while requests wait. Transports notice a dead peer
/// earlier, by keepalive; this is for a server that is there and says nothing.
const ANSWER: Duration = Duration::from_secs(120);
/// In how many parts that time is measured; what began within the first may end one part early.
const SILENT_MAX: u32 = 10;
/// The largest frame believed. We never ask for more than 256 KiB of data; the largest NAME answers
/// seen in real servers are 128 entries of up to 600 bytes.
const FRAME_MAX: usize = 1 << 20;
/// As much as one write to the transport takes: a WRITE request of OpenSSH's limit fits.
const BATCH: usize = 256 << 10;

/// Bytes of a READ that is small: beside others it takes hardly any time on the way.
pub(super) const SMALL: usize = 32 << 10;
/// Small READs that somebody waits for wait for no place, so that many readers ask at once. All of
/// them bring at most 4 MiB, what one connection carries on its way.
const PLACES_SMALL: usize = 128;
