//! A socket with bounds: who is at the other end, how long it may take, how much it may say.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Uid;
use zeroize::Zeroizing;

use crate::clock;

/// A socket at this path that nobody but its owner may open, from the first moment on.
///
/// # Errors
/// What bind(2) says; EADDRINUSE if something is there.
pub(super) fn listener(path: &Path) -> io::Result<UnixListener> {
    let socket = new()?;
    // The file gets its mode from the socket (Linux), so that it was never open to others.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

fn new() -> io::Result<OwnedFd> {
    let kind = SockType::Stream;
    let made = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None);
    made.map_err(io::Error::from)
}

/// One end of a connection.
pub(super) struct Line {
    stream: UnixStream,
}

impl Line {
    /// # Errors
    /// ECONNREFUSED where nobody listens any more; EAGAIN where nobody takes us in time.
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let socket = new()?;
        let patience = TimeVal::milliseconds(PATIENCE.as_millis().try_into().unwrap_or(i64::MAX));
        // connect(2) waits as long if too many others wait for a process that is stopped.
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::of(socket.into())
    }

    pub(super) fn of(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Who made the other end.
    pub(super) fn peer(&self) -> io::Result<Uid> {
        let peer = getsockopt(&self.stream.as_fd(), sockopt::PeerCredentials)?;
        Ok(Uid::from_raw(peer.uid()))
    }

    pub(super) fn say(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.write_all(text)
    }

    /// Waits for so long.
    ///
    /// # Errors
    /// The other end has left.
    pub(super) fn stays(&self, within: Duration) -> io::Result<()> {
        // A hang-up is told unasked.
        let mut end = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let within = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        match poll(&mut end, within)? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next line, without its end. It may be a secret: it is wiped when it is dropped.
    ///
    /// # Errors
    /// It does not come in time, is too long, or the other end is gone.
    pub(super) fn hear(&mut self, within: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
        let until = clock::now() + within;
        // Of its full size from the start: growing would leave copies behind.
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_LEN_MAX));
        let mut byte = Zeroizing::new([0; 1]);
        loop {
            self.stream.set_read_timeout(Some(left(until)?))?;
            match self.stream.read(byte.as_mut()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if byte.as_ref() == b"\n" => return Ok(line),
                Ok(_) if line.len() == LINE_LEN_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(_) => line.extend_from_slice(byte.as_ref()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(clock::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// How long one end waits for the other where no person is asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A password of 4 KiB; an error message of a few lines.
pub(super) const LINE_LEN_MAX: usize = 8 << 10;

/// As many may wait to be taken.
const BACKLOG: i32 = 8;
