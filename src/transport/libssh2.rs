//! SSH in process, by libssh2: for servers that offer only older algorithms.
//!
//! One thread a connection drives a session that is never touched by another, and hands the bytes
//! over on a socket pair: libssh2 has one lock for all of a session, so a call that waits would
//! hold up every other.
//!
//! **Invariant:** nothing secret is sent before the host key was judged; dropping the stream ends
//! the thread.

mod algorithms;
mod auth;
mod pulse;
mod pump;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use ssh2::{Channel, ErrorCode, MethodType, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use self::auth::Login;
use self::pump::Pump;
use super::host_keys::{self, Trust};
use super::login::Plan;
use super::prompt::printable;
use super::russh::{Cut, Wire};
use super::{Diagnosis, Link};
use crate::error::{Error, Result};

/// Connects, logs in, and starts the SFTP server.
///
/// # Errors
/// [`Error::Denied`] or [`Error::Setup`], in words for the person who wants to mount.
pub(super) async fn dial(plan: Plan) -> Result<Link> {
    let (wire, cut) = Wire::connect(&plan.settings).await?;
    let tcp = wire
        .into_socket()
        .into_std()
        .map_err(|error| no_thread(&error))?;
    let (ours, theirs) = StdStream::pair().map_err(|error| no_thread(&error))?;
    for end in [&ours, &theirs] {
        end.set_nonblocking(true)
            .map_err(|error| no_thread(&error))?;
    }
    let diagnosis = Diagnosis::default();
    let (sender, ready) = oneshot::channel();
    let notes = diagnosis.clone();
    // Nobody joins it: it ends when either side of the pair or the TCP connection is gone.
    thread::Builder::new()
        .name("libssh2".to_owned())
        .spawn(move || drive(&plan, tcp, theirs, notes, sender))
        .map_err(|error| no_thread(&error))?;
    let peer = match ready.await {
        Ok(result) => result?,
        Err(_) => unreachable!("drive() always says how the login went"),
    };
    let socket = UnixStream::from_std(ours).map_err(|error| no_thread(&error))?;
    Ok(Link {
        stream: Box::new(Stream { socket, _cut: cut }),
        peer,
        diagnosis,
    })
}

/// The life of a connection's thread.
fn drive(
    plan: &Plan,
    tcp: TcpStream,
    local: StdStream,
    diagnosis: Diagnosis,
    ready: oneshot::Sender<Result<String>>,
) {
    let (session, channel, peer) = match open(plan, &tcp) {
        Ok(opened) => opened,
        Err(error) => {
            // Nobody waits if the attempt was called off.
            let _ = ready.send(Err(error));
            return;
        }
    };
    // If it was called off, the pump sees the closed socket.
    let _ = ready.send(Ok(peer));
    let (interval, count) = plan.settings.server_alive();
    Pump::new(session, channel, tcp, local, diagnosis).run(interval, count);
}

/// From the first byte to a running SFTP server. Blocks, also on a person.
fn open(plan: &Plan, tcp: &TcpStream) -> Result<(Session, Channel, String)> {
    let place = place(plan);
    let fail = |what: &str, error: &ssh2::Error| {
        let text = format!("{place}: {what}: {}", error.message());
        match error.code() {
            REQUEST_DENIED => Error::denied(text),
            _ => Error::setup(text),
        }
    };
    let mut session = Session::new().map_err(|error| fail("libssh2", &error))?;
    session.set_timeout(milliseconds(plan.settings.connect_timeout()));
    algorithms::prefer(&session, &plan.settings).map_err(|error| fail("libssh2", &error))?;
    // A second descriptor: the session closes its own when it is dropped.
    session.set_tcp_stream(tcp.try_clone().map_err(|error| no_thread(&error))?);
    session
        .handshake()
        .map_err(|error| fail("the SSH handshake failed", &error))?;
    let trust = judge(plan, &session)?;
    // The person who is asked may take their time, and the server's patience is in its own hands.
    session.set_timeout(milliseconds(LOGIN_PATIENCE));
    plan.memory.note(Login::new(&session, plan, trust).run())?;
    session.set_timeout(milliseconds(plan.settings.connect_timeout()));
    let channel = session.channel_open("session", WINDOW_SIZE, PACKET_SIZE, None);
    let mut channel = channel.map_err(|error| fail("the server opens no channel", &error))?;
    let server = plan.sftp_server.as_deref().unwrap_or("sftp");
    if server.contains('/') {
        channel
            .exec(server)
            .map_err(|error| fail(&format!("it does not run {server}"), &error))?;
    } else {
        let what = format!("it has no subsystem {server} (is SFTP turned off there?)");
        channel
            .subsystem(server)
            .map_err(|error| fail(&what, &error))?;
    }
    let peer = describe(&session);
    Ok((session, channel, peer))
}

/// Judges the server's key before anything secret is said to it.
fn judge(plan: &Plan, session: &Session) -> Result<Trust> {
    let Some((key, _)) = session.host_key() else {
        return Err(Error::setup(format!(
            "{}: the server showed no host key",
            place(plan)
        )));
    };
    if let Some(trust) = plan.memory.trust_of_host_key(key) {
        return Ok(trust);
    }
    let mut ask = |question: &str| plan.prompter.line(question);
    let trust = host_keys::verify(&plan.settings, key, &mut ask)?;
    plan.memory.remember_host_key(key.to_vec(), trust);
    Ok(trust)
}

/// `OpenSSH_9.2p1 Debian-2 through libssh2, aes128-ctr`.
fn describe(session: &Session) -> String {
    let banner = session.banner().unwrap_or_default();
    let server = banner.strip_prefix("SSH-2.0-").unwrap_or(banner);
    let cipher = session.methods(MethodType::CryptSc).unwrap_or_default();
    for weak in algorithms::weak(session) {
        log::warn!(
            "{}: the server offers nothing better than {weak}, which is weak",
            printable(server)
        );
    }
    printable(&format!("{server} through libssh2, {cipher}"))
}

fn place(plan: &Plan) -> String {
    format!(
        "{} port {}",
        plan.settings.host_name(),
        plan.settings.port()
    )
}

fn no_thread(error: &io::Error) -> Error {
    Error::setup(format!(
        "cannot set up a connection through libssh2: {error}"
    ))
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Our end of the socket pair. Dropped, it takes the connection with it.
struct Stream {
    socket: UnixStream,
    _cut: Cut,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// 4 MiB: less halves a 20 ms link, more piles data up in sshd's own buffers.
const WINDOW_SIZE: u32 = 4 << 20;

/// What libssh2 takes in one packet; its bound on a whole packet is 40000 bytes.
const PACKET_SIZE: u32 = 32768;

/// The server does not start what it was asked to start: `LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED`.
const REQUEST_DENIED: ErrorCode = ErrorCode::Session(-22);

/// Longer than sshd's own patience (sshd_config(5), LoginGraceTime, 120 s).
const LOGIN_PATIENCE: Duration = Duration::from_secs(180);
