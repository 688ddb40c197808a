//! The thread that carries the packets of one direction from one TUN device to the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connections::Way;
use super::packet::{self, PACKET_MAX, Packet};
use super::state::{Fate, State};
use super::sys;

/// What the two directions and the hand on the link share.
pub struct Shared {
    pub state: Mutex<State>,
    /// The device of the near end, then that of the far end.
    pub devices: [File; 2],
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A packet on its way.
struct Waiting {
    due: Instant,
    chain: u64,
    packet: Packet,
    raw: Vec<u8>,
    /// How much of `raw` it is.
    length: usize,
}

/// One direction.
struct Pump {
    way: Way,
    shared: Arc<Shared>,
    on_the_way: VecDeque<Waiting>,
    bytes: usize,
    /// Large buffers to use again, the last used first: it is still in the processor's cache.
    spare: Vec<Vec<u8>>,
}

/// Carries packets until the stream is closed at its other end.
pub fn carry(way: Way, shared: Arc<Shared>, end: &UnixStream) -> io::Result<()> {
    sys::be_punctual();
    let mut pump = Pump {
        way,
        shared,
        on_the_way: VecDeque::new(),
        bytes: 0,
        spare: Vec::new(),
    };
    loop {
        pump.deliver();
        if pump.take_in()? {
            continue;
        }
        let limit = pump
            .on_the_way
            .front()
            .map(|first| first.due.saturating_duration_since(Instant::now()));
        let from = pump.shared.devices[way.index()].as_fd();
        if sys::wait(from, end.as_fd(), limit)? {
            return Ok(());
        }
    }
}

impl Pump {
    /// Takes one packet into the link; whether there was one.
    fn take_in(&mut self) -> io::Result<bool> {
        let mut raw = self.spare.pop().unwrap_or_else(|| vec![0; PACKET_MAX]);
        let mut from = &self.shared.devices[self.way.index()];
        let length = match from.read(&mut raw) {
            Ok(length) => length,
            Err(why) => {
                self.recycle(raw);
                return match why.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
                    _ => Err(why),
                };
            }
        };
        let now = Instant::now();
        // Anything else, as IPv6 looking for routers, is none of our traffic.
        let Some(packet) = packet::parse(&raw[..length]) else {
            self.recycle(raw);
            return Ok(true);
        };
        // The lock is gone at the semicolon.
        let fate = self.shared.lock().enter(self.way, &packet, now);
        match fate {
            Fate::Lost => self.recycle(raw),
            Fate::Answer(answer) => {
                give(&self.shared.devices[self.way.index()], &answer);
                self.recycle(raw);
            }
            Fate::Arrives(due, chain) if due <= now && self.on_the_way.is_empty() => {
                if self.shared.lock().leave(self.way, &packet, chain) {
                    give(
                        &self.shared.devices[self.way.back().index()],
                        &raw[..length],
                    );
                }
                self.recycle(raw);
            }
            Fate::Arrives(due, chain) => self.hold(due, chain, packet, raw, length),
            Fate::InPart(due, chain, lost) => {
                for part in packet::without(&raw[..length], &lost) {
                    let length = part.len();
                    if let Some(packet) = packet::parse(&part) {
                        self.hold(due, chain, packet, part, length);
                    }
                }
                self.recycle(raw);
            }
        }
        Ok(true)
    }

    fn hold(&mut self, due: Instant, chain: u64, packet: Packet, raw: Vec<u8>, length: usize) {
        if self.bytes + length > BYTES_MAX {
            self.recycle(raw);
            return;
        }
        let raw = if length <= SMALL {
            let small = raw[..length].to_vec();
            self.recycle(raw);
            small
        } else {
            raw
        };
        self.bytes += length;
        self.on_the_way.push_back(Waiting {
            due,
            chain,
            packet,
            raw,
            length,
        });
    }

    /// Hands over what has arrived.
    fn deliver(&mut self) {
        if self.on_the_way.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.on_the_way.pop_front_if(|first| first.due <= now) {
            self.bytes -= first.length;
            let may = self
                .shared
                .lock()
                .leave(self.way, &first.packet, first.chain);
            if may {
                let to = &self.shared.devices[self.way.back().index()];
                give(to, &first.raw[..first.length]);
            }
            if first.length > SMALL {
                self.recycle(first.raw);
            }
        }
    }

    fn recycle(&mut self, raw: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && raw.len() == PACKET_MAX {
            self.spare.push(raw);
        }
    }
}

/// Gives a packet to a device. What the system has no room for is lost, as on any link.
pub fn give(mut device: &File, raw: &[u8]) {
    let _ = device.write(raw);
}

/// Packets up to this size do not hold a large buffer while they wait.
const SMALL: usize = 2048;

/// 256 MiB on their way each way, for a line without a cap: ten times what TCP has in flight by
/// itself.
const BYTES_MAX: usize = 256 << 20;

/// 16 MiB of buffers that wait for use.
const SPARE_MAX: usize = 256;
