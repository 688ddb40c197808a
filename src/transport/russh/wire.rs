//! The TCP connection under SSH: how it is made, and how it is read in large pieces.
//!
//! **Invariant:** once the [`Cut`] is dropped, the connection is ended, whatever waits on it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{interval, timeout};

use super::super::host_config::{Family, Settings};
use crate::error::{Error, Result};

/// A connected socket, for russh to speak on.
pub(in super::super) struct Wire {
    socket: TcpStream,
    /// What was read ahead of russh, which asks for a packet in two or three pieces.
    ahead: Box<[u8]>,
    start: usize,
    end: usize,
    head: Head,
}

/// The first bytes that the server sent, to say what it is if it does not speak SSH.
#[derive(Clone, Default)]
pub(super) struct Head(Arc<Mutex<Vec<u8>>>);

/// Ends the connection when dropped.
pub(in super::super) struct Cut(OwnedFd);

impl Wire {
    /// Connects to the host of the settings, trying its addresses in turn.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], naming host, port and reason.
    pub(in super::super) async fn connect(settings: &Settings) -> Result<(Self, Cut)> {
        let (host, port) = (settings.host_name(), settings.port());
        let limit = settings.connect_timeout();
        let fail =
            |why: String| Error::setup(format!("cannot connect to {host} port {port}: {why}"));
        let found = timeout(limit, lookup_host((host, port))).await;
        let found = match found {
            Ok(found) => found.map_err(|error| unknown_host(host, &error))?,
            Err(_) => return Err(unknown_host(host, &io::ErrorKind::TimedOut.into())),
        };
        let addresses: Vec<_> = found.filter(|address| suits(address, settings)).collect();
        let mut last = "it has no address of the kind that AddressFamily allows".to_owned();
        for address in addresses {
            match timeout(limit, knock(address, settings)).await {
                Ok(Ok(socket)) => {
                    return Self::new(socket, settings).map_err(|e| fail(e.to_string()));
                }
                Ok(Err(error)) => last = describe(&error, address),
                Err(_) => {
                    last = format!("no answer from {} in {} s", address.ip(), limit.as_secs())
                }
            }
            log::debug!("{last}");
        }
        Err(fail(last))
    }

    fn new(socket: TcpStream, settings: &Settings) -> io::Result<(Self, Cut)> {
        socket.set_nodelay(true)?;
        // SSH's keepalive finds a dead server when nothing is under way; while bytes wait to be
        // acknowledged this does. Zero would be the kernel's quarter of an hour.
        let (interval, count) = settings.server_alive();
        let patience = interval.saturating_mul(count.max(1)).max(USER_TIMEOUT_MIN);
        if !interval.is_zero() {
            let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
            setsockopt(&socket, sockopt::TcpUserTimeout, &patience_ms)?;
        }
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        let cut = Cut(std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned()?);
        let ahead = vec![0; AHEAD_SIZE].into_boxed_slice();
        Ok((
            Self {
                socket,
                ahead,
                start: 0,
                end: 0,
                head: Head::default(),
            },
            cut,
        ))
    }

    /// The socket alone, for who reads it otherwise; nothing was read yet.
    pub(in super::super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Where the first bytes are to be found.
    pub(super) fn head(&self) -> Head {
        self.head.clone()
    }
}

impl Head {
    /// The first line that is not empty, as far as it can be shown; `None` if nothing came.
    pub(super) fn line(&self) -> Option<String> {
        let head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&head);
        let line = text.lines().find(|line| !line.trim().is_empty())?;
        Some(super::super::prompt::printable(
            line.get(..HEAD_SHOWN_MAX).unwrap_or(line).trim(),
        ))
    }

    fn keep(&self, bytes: &[u8]) {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEAD_LEN_MAX - head.len().min(HEAD_LEN_MAX);
        head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn is_full(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() >= HEAD_LEN_MAX
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Not connected any more is what we want.
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.0), Shutdown::Both);
    }
}

/// One connection to an address.
///
/// Linux repeats a packet that found no answer after 1, 3, 7, 15 and 31 s, so that a link that is
/// back would be noticed late. Here a new socket knocks every second while the earlier ones wait.
async fn knock(address: SocketAddr, settings: &Settings) -> io::Result<TcpStream> {
    let mut knocks = FuturesUnordered::new();
    let mut pace = interval(KNOCK_EVERY);
    loop {
        tokio::select! {
            // Without an outcome, this one gave up; the later ones still wait.
            Some(opened) = knocks.next(), if !knocks.is_empty() => if let Ok(opened) = opened {
                return opened;
            },
            _ = pace.tick() => knocks.push(timeout(KNOCK_PATIENCE, open(address, settings))),
        }
    }
}

async fn open(address: SocketAddr, settings: &Settings) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(bind) = settings.bind_address() {
        let bind: IpAddr = bind.parse().map_err(|_| {
            io::Error::other(format!(
                "BindAddress {bind} is no address (use -o transport=openssh)"
            ))
        })?;
        socket.bind((bind, 0).into())?;
    }
    socket.connect(address).await
}

fn suits(address: &SocketAddr, settings: &Settings) -> bool {
    match settings.address_family() {
        Family::Any => true,
        Family::Inet => address.is_ipv4(),
        Family::Inet6 => address.is_ipv6(),
    }
}

fn unknown_host(host: &str, error: &io::Error) -> Error {
    let text = error.to_string();
    // The resolver's own words, without the prefix that std puts before them.
    let why = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(&text);
    Error::setup(format!("cannot find the host {host}: {why}"))
}

fn describe(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!(
                "refused (no SSH server listens there, or {} forbids it)",
                address.ip()
            )
        }
        _ => format!("{} ({})", plain(error), address.ip()),
    }
}

/// An error's text without the number that std puts behind it.
pub(super) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            let mut ahead = ReadBuf::new(&mut this.ahead);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut ahead))?;
            (this.start, this.end) = (0, ahead.filled().len());
            if this.end < ACK_BELOW {
                // The kernel forgets it again. Without it answers come later and are still right.
                let _ = this.socket.set_quickack(true);
            }
            if !this.head.is_full() {
                this.head.keep(ahead.filled());
            }
        }
        let waiting = this.ahead.get(this.start..this.end).unwrap_or_default();
        let taken = waiting.get(..buf.remaining()).unwrap_or(waiting);
        buf.put_slice(taken);
        this.start += taken.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Eight packets of OpenSSH: a system call each for less costs more than the copy.
const AHEAD_SIZE: usize = 256 << 10;

/// A server holds a small packet back until the one before it is acknowledged (RFC 896; sshd does not
/// turn that off), and a kernel that sees questions and answers acknowledges only after 40 ms
/// (tcp(7), TCP_QUICKACK). What is read in large pieces is acknowledged soon anyway.
const ACK_BELOW: usize = 64 << 10;

/// The longest identification line (RFC 4253 section 4.2); what is not SSH needs no more.
const HEAD_LEN_MAX: usize = 255;
const HEAD_SHOWN_MAX: usize = 60;

/// A retransmission of Linux may wait this long without anything being wrong.
const USER_TIMEOUT_MIN: Duration = Duration::from_secs(10);

/// Above the round trip of any network that can be worked on, so that one knock is the rule.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// Bounds how many knocks are under way; also above any round trip.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::super::super::Target;
    use super::*;

    /// What the kernel is told of a peer that acknowledges nothing, in milliseconds.
    async fn user_timeout(options: &[(&str, &str)]) -> u32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings::assumed(&Target {
            host: "127.0.0.1".to_owned(),
            port: Some(listener.local_addr().unwrap().port()),
            ssh_options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Target::default()
        });
        let (wire, _cut) = Wire::connect(&settings).await.unwrap();
        getsockopt(&wire.into_socket(), sockopt::TcpUserTimeout).unwrap()
    }

    #[tokio::test]
    async fn a_peer_that_acknowledges_nothing_is_given_up_as_soon_as_one_that_answers_nothing() {
        assert_eq!(user_timeout(&[]).await, 45_000);
        let own = [("ServerAliveInterval", "20"), ("ServerAliveCountMax", "6")];
        assert_eq!(user_timeout(&own).await, 120_000);
        // Never, as the user wants it: the kernel's own time.
        assert_eq!(user_timeout(&[("ServerAliveInterval", "0")]).await, 0);
    }
}
