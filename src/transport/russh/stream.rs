//! The SFTP channel of an SSH connection as a byte duplex.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::Diagnosis;
use super::super::prompt::printable;
use super::handler::Handler;
use super::wire::Cut;

/// Bytes of the SFTP server. Dropped, it takes the connection with it.
pub(super) struct Stream {
    from: ChannelReadHalf,
    to: Pin<Box<dyn AsyncWrite + Send>>,
    /// Read from the channel, but not by our reader yet.
    rest: Bytes,
    diagnosis: Diagnosis,
    /// How long the end of the data waits for its reason.
    grace: Option<Pin<Box<Sleep>>>,
    // The session ends with the last of its handles, or when its socket is shut down, which helps
    // where it waits for a server that takes nothing any more.
    _handle: Handle<Handler>,
    _cut: Cut,
}

impl Stream {
    /// `rest` is what came from the server before it confirmed the start of its SFTP server.
    pub(super) fn new(
        channel: Channel<Msg>,
        handle: Handle<Handler>,
        cut: Cut,
        rest: Bytes,
        diagnosis: Diagnosis,
    ) -> Self {
        let (from, to) = channel.split();
        let to = Box::pin(to.make_writer());
        Self {
            from,
            to,
            rest,
            diagnosis,
            grace: None,
            _handle: handle,
            _cut: cut,
        }
    }
}

/// Notes what the other end says beside the data: its standard error, and how it ended.
pub(super) fn note(message: &ChannelMsg, diagnosis: &Diagnosis) {
    match message {
        ChannelMsg::ExtendedData { data, .. } => {
            for line in printable(&String::from_utf8_lossy(data)).lines() {
                diagnosis.note(line);
            }
        }
        ChannelMsg::ExitStatus { exit_status } if *exit_status != 0 => {
            diagnosis.note(format!("the SFTP server ended with status {exit_status}"));
        }
        ChannelMsg::ExitSignal {
            signal_name,
            error_message,
            ..
        } => diagnosis.note(format!(
            "the SFTP server was killed by {signal_name:?} {}",
            printable(error_message)
        )),
        _ => {}
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            // A future made anew each time loses nothing: the channel keeps the waker.
            let message = match (pin!(this.from.wait()).poll(cx), &mut this.grace) {
                (Poll::Ready(message), _) => message,
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(grace)) => {
                    ready!(grace.as_mut().poll(cx));
                    None
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => this.rest = data,
                // The exit status comes after the end of the data: read on, to know why.
                Some(ChannelMsg::Eof) => this.grace = Some(Box::pin(sleep(EXIT_STATUS_GRACE))),
                Some(ChannelMsg::Close) | None => return Poll::Ready(Ok(())),
                Some(message) => note(&message, &this.diagnosis),
            }
        }
        let len = this.rest.len().min(buf.remaining());
        buf.put_slice(this.rest.get(..len).unwrap_or_default());
        this.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.to.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to.as_mut().poll_shutdown(cx)
    }
}

/// A server sends both at once; one that never closes the channel must not hold up the end.
const EXIT_STATUS_GRACE: Duration = Duration::from_secs(2);
