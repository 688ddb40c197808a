//! The threads that carry packets, and the small process that sftpfs starts as its server.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Badness, Shared, Way, badness, packet};
use crate::process;

/// `mount-tests wire SOCKET SERVER...`: starts the server with one connection to the socket as its
/// input and output, and carries bytes between its own and another. Both say whose they are first.
pub fn be_the_pipe(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(socket), Some(program)) = (words.next(), words.next()) else {
        return ExitCode::from(2);
    };
    let connect = |side: char| -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&socket)?;
        writeln!(stream, "{side}{}", std::process::id())?;
        Ok(stream)
    };
    let (Ok(mut ours), Ok(servers)) = (connect('c'), connect('s')) else {
        return ExitCode::FAILURE;
    };
    let started = servers.try_clone().and_then(|output| {
        Command::new(program)
            .args(words)
            .stdin(OwnedFd::from(servers))
            .stdout(OwnedFd::from(output))
            .spawn()
    });
    let Ok(mut child) = started else {
        return ExitCode::FAILURE;
    };
    if let Ok(mut up) = ours.try_clone() {
        std::thread::spawn(move || {
            // Either end may go at any time: that is what the wire is for.
            let _ = io::copy(&mut io::stdin().lock(), &mut up);
            let _ = up.shutdown(Shutdown::Write);
        });
    }
    let _ = copy_at_once(&mut ours);
    // sftpfs hears of the end now, however long the server still has to do.
    let _ = nix::unistd::close(io::stdout().as_raw_fd());
    let _ = child.wait();
    ExitCode::SUCCESS
}

/// From the socket to the standard output, which the library would hold back until a line is full.
fn copy_at_once(from: &mut UnixStream) -> io::Result<()> {
    let mut to = io::stdout().lock();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..len])?;
        to.flush()?;
    }
}

/// Takes connections in pairs, until the wire ends.
pub(super) fn listen(listener: &UnixListener, shared: &Arc<Shared>) {
    let mut waiting: HashMap<String, (char, UnixStream)> = HashMap::new();
    let mut number = 0;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if shared.lock().ending {
            return;
        }
        let Some((side, pid)) = introduction(&mut stream) else {
            continue;
        };
        match waiting.remove(&pid) {
            None => {
                waiting.insert(pid, (side, stream));
            }
            Some((_, other)) => {
                let (ours, servers) = if side == 'c' {
                    (stream, other)
                } else {
                    (other, stream)
                };
                number += 1;
                connect(shared, number, ours, servers);
            }
        }
    }
}

fn introduction(stream: &mut UnixStream) -> Option<(char, String)> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if byte == *b"\n" {
            let text = String::from_utf8(line).ok()?;
            return Some((text.chars().next()?, text.get(1..)?.to_owned()));
        }
        line.push(byte[0]);
    }
    None
}

/// Begins to carry packets: a thread reads from sftpfs, one from the server, and one writes to
/// sftpfs, after the latency.
fn connect(shared: &Arc<Shared>, number: u64, ours: UnixStream, servers: UnixStream) {
    let clone = |stream: &UnixStream| stream.try_clone().expect("a descriptor");
    {
        let mut state = shared.lock();
        if state.is_cut {
            return;
        }
        state.taken += 1;
        state.ends.insert(number, (clone(&ours), clone(&servers)));
    }
    let (answers, queue) = mpsc::channel::<(Instant, Vec<u8>)>();
    let up = Up {
        shared: Arc::clone(shared),
        number,
        answers: answers.clone(),
    };
    let (mut from_us, mut to_server) = (clone(&ours), clone(&servers));
    std::thread::spawn(move || {
        up.carry(&mut from_us, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let its_shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut servers = servers;
        while let Ok(bytes) = next(&mut servers) {
            let bytes = packet::without(bytes, &its_shared.manner.hidden);
            // A writer that has gone has been cut.
            let _ = answers.send((Instant::now() + its_shared.manner.latency, bytes));
        }
        its_shared.lock().ends.remove(&number);
    });
    let its_shared = Arc::clone(shared);
    let mut ours = ours;
    std::thread::spawn(move || {
        let mut spoiler = badness::Spoiler::default();
        for (moment, bytes) in queue {
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            if !its_shared.pass(number, Way::Down, &bytes) {
                break;
            }
            let asked = its_shared.was_asked(number, &bytes);
            let bytes = match its_shared.badness(number) {
                None => bytes,
                Some(how) => spoiler.spoil(how, bytes, asked),
            };
            if ours.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = ours.shutdown(Shutdown::Both);
    });
}

/// What carries the requests of one connection.
struct Up {
    shared: Arc<Shared>,
    number: u64,
    answers: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Up {
    fn carry(&self, from: &mut UnixStream, to: &mut UnixStream) {
        while let Ok(request) = next(from) {
            if !self.shared.pass(self.number, Way::Up, &request) {
                return;
            }
            if self.shared.badness(self.number) == Some(Badness::StopsReading) {
                self.wait_for_the_end();
                return;
            }
            let done = match self.own_answer(&request) {
                Some(code) => {
                    let moment = Instant::now() + self.shared.manner.latency;
                    let answer = packet::status(&request, code);
                    self.answers.send((moment, answer)).is_ok()
                }
                None => to.write_all(&request).is_ok(),
            };
            if !done {
                return;
            }
        }
    }

    /// What the wire answers in the server's place.
    fn own_answer(&self, request: &[u8]) -> Option<u32> {
        let manner = &self.shared.manner;
        let name = packet::extension(request)?;
        if manner.hidden.contains(&name) {
            return Some(packet::UNSUPPORTED);
        }
        (manner.lies && name == "hardlink@openssh.com").then_some(packet::OK)
    }

    /// Until the connection is cut or its reader has gone; nothing is read meanwhile.
    fn wait_for_the_end(&self) {
        let end = Instant::now() + STOPPED_FOR_MAX;
        process::wait_for(end, || {
            let state = self.shared.lock();
            let is_over = state.ending || state.is_cut || state.dead.contains(&self.number);
            let has_hung_up = state
                .ends
                .get(&self.number)
                .is_none_or(|(ours, _)| has_hung_up(ours));
            (is_over || has_hung_up).then_some(())
        });
    }
}

/// Whether the other end of this stream has gone (poll(2), POLLHUP, which nobody asks for).
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    matches!(poll(&mut asked, PollTimeout::ZERO), Ok(1..))
}

/// The next whole packet.
fn next(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let body = u32::from_be_bytes(len) as usize;
    if body > PACKET_MAX {
        return Err(io::Error::other("no packet of SFTP"));
    }
    let mut packet = vec![0; 4 + body];
    packet[..4].copy_from_slice(&len);
    from.read_exact(&mut packet[4..])?;
    Ok(packet)
}

/// Four times what OpenSSH takes.
const PACKET_MAX: usize = 1 << 20;

/// Longer than any case lasts: a connection that nobody ends is no reason to keep a thread.
const STOPPED_FOR_MAX: Duration = Duration::from_secs(600);
