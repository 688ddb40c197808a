//! Moves the bytes: between libssh2's channel and one end of a socket pair.
//!
//! **Invariant:** no call here waits but poll(2). What libssh2 could not send is offered to it
//! again as the same bytes: it has encrypted them already.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use ssh2::{BlockDirections, Channel, Session};

use super::super::Diagnosis;
use super::super::prompt::printable;
use super::REQUEST_DENIED;
use super::pulse::{Beat, Pulse};
use crate::clock;

/// Why there is nothing left to move.
enum End {
    /// We have closed our end.
    Ours,
    /// The server has closed the channel.
    Theirs,
    /// The connection is gone.
    Lost(String),
}

pub(super) struct Pump {
    session: Session,
    channel: Channel,
    tcp: TcpStream,
    local: UnixStream,
    diagnosis: Diagnosis,
    /// From the server, on its way to us.
    inbound: Buffer,
    /// From us, on its way to the server.
    outbound: Buffer,
    /// There may be bytes on the wire that libssh2 does not read before it has sent what it holds.
    deaf: bool,
    /// libssh2 was asked what it holds, and nothing has come or gone since.
    asked: bool,
    /// Whether the server lives.
    pulse: Pulse,
}

impl Pump {
    pub(super) fn new(
        session: Session,
        channel: Channel,
        tcp: TcpStream,
        local: UnixStream,
        diagnosis: Diagnosis,
    ) -> Self {
        let (inbound, outbound) = (Buffer::new(), Buffer::new());
        Self {
            session,
            channel,
            tcp,
            local,
            diagnosis,
            inbound,
            outbound,
            deaf: false,
            asked: false,
            pulse: Pulse::new(Duration::ZERO, 0, clock::now()),
        }
    }

    /// Until the end of either side. A server that is silent for `interval` is asked whether it is
    /// there; one that is silent for `count` times as long after that is given up. Never if the
    /// interval is zero.
    pub(super) fn run(mut self, interval: Duration, count: u32) {
        self.session.set_blocking(false);
        self.pulse = Pulse::new(interval, count, clock::now());
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        match end {
            End::Ours => {}
            End::Theirs => self.note_exit(),
            End::Lost(why) => self.diagnosis.note(why),
        }
        // Freeing a session of libssh2 would try to say farewell, and wait for it.
        let _ = self.tcp.shutdown(Shutdown::Both);
        self.session.set_blocking(true);
    }

    /// Every call of libssh2 may read the wire dry and keep what it found; so receiving comes last,
    /// and before waiting on the wire, libssh2 is asked what it holds.
    fn turn(&mut self) -> Result<(), End> {
        if self.pulse.is_asking() {
            self.ask();
        }
        // What libssh2 has begun to send must be offered to it again before anything else.
        let sent = !(self.pulse.is_asking() && self.is_sending()) && self.send()?;
        self.hear_stderr();
        let received = self.receive()?;
        if received || sent {
            self.deaf = false;
            return Ok(());
        }
        if !self.asked && self.holds_something() {
            // Once: what does not move now (libssh2 is changing keys) waits for the wire after all.
            self.asked = true;
            return Ok(());
        }
        self.asked = false;
        self.wait()
    }

    /// Asks for what means nothing, and has to be answered all the same (RFC 4254 section 5.4). The
    /// question that is meant for this (keepalive@openssh.com, a global request) is not used, because
    /// libssh2 keeps each answer to that for ever.
    fn ask(&mut self) {
        match self.channel.setenv("SFTPFS_ALIVE", "1") {
            // Mostly refused, which is an answer.
            Ok(()) => self.pulse.is_felt(clock::now()),
            Err(error) if error.code() == REQUEST_DENIED => self.pulse.is_felt(clock::now()),
            // Not yet; or the end, of which receiving tells more.
            Err(_) => {}
        }
    }

    fn is_sending(&self) -> bool {
        let directions = self.session.block_directions();
        matches!(
            directions,
            BlockDirections::Outbound | BlockDirections::Both
        )
    }

    /// Whether libssh2 has bytes for us, or leave of the server to send ours.
    fn holds_something(&self) -> bool {
        let received = self.inbound.is_empty() && self.channel.read_window().available > 0;
        received || (!self.outbound.is_empty() && self.channel.write_window().remaining > 0)
    }

    /// Channel to buffer to us; whether anything moved.
    fn receive(&mut self) -> Result<bool, End> {
        let mut moved = false;
        if self.inbound.is_empty() {
            match self.inbound.fill(&mut self.channel) {
                Ok(0) if self.channel.eof() => return Err(End::Theirs),
                Ok(0) => {}
                Ok(_) => {
                    moved = true;
                    self.pulse.is_felt(clock::now());
                }
                Err(error) => self.bear(error)?,
            }
        }
        if !self.inbound.is_empty() {
            match self.inbound.drain(&mut self.local) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Ours),
            }
        }
        Ok(moved)
    }

    /// Us to buffer to channel; whether anything moved.
    fn send(&mut self) -> Result<bool, End> {
        let mut moved = false;
        if self.outbound.is_empty() {
            match self.outbound.fill(&mut self.local) {
                Ok(0) => return Err(End::Ours),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Ours),
            }
        }
        while !self.outbound.is_empty() {
            match self.outbound.drain(&mut self.channel) {
                // The server's window is full.
                Ok(0) => break,
                Ok(_) => moved = true,
                Err(error) => {
                    self.bear(error)?;
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// An error of libssh2's that is none, or the end.
    fn bear(&self, error: io::Error) -> Result<(), End> {
        if error.kind() == ErrorKind::WouldBlock {
            return Ok(());
        }
        Err(End::Lost(format!("libssh2: {error}")))
    }

    /// Waits until something can move.
    fn wait(&mut self) -> Result<(), End> {
        let sending = self.is_sending();
        let now = clock::now();
        if !self.inbound.is_empty() {
            // Nobody listens to it: its silence is ours.
            self.pulse.is_felt(now);
        }
        match self.pulse.next(now) {
            Beat::Gone => return Err(End::Lost("the server does not answer any more".to_owned())),
            // What waits to be sent is a question, too; TCP_USER_TIMEOUT ends its wait.
            Beat::Ask if !sending => {
                self.pulse.asks();
                return Ok(());
            }
            Beat::Ask | Beat::None => {}
        }
        let mut remote = PollFlags::empty();
        remote.set(PollFlags::POLLOUT, sending);
        // While our own side takes nothing, the wire waits, too: that is the backpressure.
        remote.set(PollFlags::POLLIN, self.inbound.is_empty() && !self.deaf);
        let mut local = PollFlags::empty();
        local.set(PollFlags::POLLIN, self.outbound.is_empty());
        local.set(PollFlags::POLLOUT, !self.inbound.is_empty());
        let mut ends = vec![PollFd::new(self.local.as_fd(), local)];
        // poll(2) tells of a hang-up whether asked or not; unasked, it must not wake us again and
        // again.
        if !remote.is_empty() {
            ends.push(PollFd::new(self.tcp.as_fd(), remote));
        }
        let woken = poll(&mut ends, self.pulse.rest(now));
        let hung_up = |end: &PollFd<'_>| {
            end.revents()
                .is_some_and(|e| e.contains(PollFlags::POLLHUP))
        };
        if ends.first().is_some_and(hung_up) {
            return Err(End::Ours);
        }
        match woken {
            Ok(0) => Ok(()),
            Ok(_) | Err(Errno::EINTR) => {
                // If nothing moves now although there are bytes to read, only sending helps.
                self.deaf = sending;
                Ok(())
            }
            Err(errno) => Err(End::Lost(errno.desc().to_owned())),
        }
    }

    /// What the server's program says on its standard error. Unread it would fill the window.
    fn hear_stderr(&mut self) {
        let mut text = [0; 1024];
        // An error here is one of the channel, and found there.
        while let Ok(count @ 1..) = self.channel.stderr().read(&mut text) {
            let text = String::from_utf8_lossy(text.get(..count).unwrap_or_default());
            for line in printable(&text).lines().filter(|line| !line.is_empty()) {
                log::info!("server: {line}");
                self.diagnosis.note(line);
            }
        }
    }

    fn note_exit(&mut self) {
        self.hear_stderr();
        // The exit status comes after the end of the data. A server that never closes the channel
        // must not hold up the end.
        self.session.set_timeout(EXIT_STATUS_GRACE_MS);
        self.session.set_blocking(true);
        if let Err(error) = self.channel.wait_close() {
            log::debug!("libssh2: waiting for the exit status: {error}");
        }
        match self.channel.exit_status() {
            Ok(status) if status != 0 => {
                self.diagnosis
                    .note(format!("the SFTP server ended with status {status}"));
            }
            _ => self.diagnosis.note("the server closed the connection"),
        }
    }
}

/// Bytes under way in one direction: filled when empty, then drained.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER_SIZE].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        let count = from.read(&mut self.bytes)?;
        (self.start, self.end) = (0, count);
        Ok(count)
    }

    fn drain(&mut self, to: &mut impl Write) -> io::Result<usize> {
        let count = to.write(self.bytes.get(self.start..self.end).unwrap_or_default())?;
        self.start += count;
        Ok(count)
    }
}

const EXIT_STATUS_GRACE_MS: u32 = 2000;

/// One large answer of an SFTP server (255 KiB, limits@openssh.com) and its head.
const BUFFER_SIZE: usize = 256 << 10;
