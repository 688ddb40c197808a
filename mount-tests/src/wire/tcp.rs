//! A port that leads to another one, counts the bytes (what a link really carries, SSH included),
//! and resets connections, at once or after any byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{setsockopt, sockopt};

use super::{Way, Which};
use crate::server::Server;

/// A relay in front of a server. Dropping it ends the listening, not the connections.
pub struct TcpMeter {
    /// Where to connect to, on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    bytes_up: u64,
    bytes_down: u64,
    ending: bool,
    /// How many connections there have been.
    taken: u64,
    ends: Vec<Ends>,
    /// After how many more bytes this way everything is cut.
    planned: Option<(Way, u64)>,
    happened: bool,
}

/// Both ends of a connection.
struct Ends {
    number: u64,
    ours: TcpStream,
    servers: TcpStream,
    /// Bytes that went through it, both ways together.
    carried: u64,
}

impl TcpMeter {
    /// In front of this server.
    pub fn new(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let (its_state, target) = (Arc::clone(&state), server.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&its_state).ending {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                take(&its_state, stream, server);
            }
        });
        Self { port, state }
    }

    /// Bytes that went through until now, both ways together.
    pub fn bytes(&self) -> u64 {
        let state = lock(&self.state);
        state.bytes_up + state.bytes_down
    }

    /// Bytes that went through this way until now.
    pub fn bytes_this_way(&self, way: Way) -> u64 {
        let state = lock(&self.state);
        match way {
            Way::Up => state.bytes_up,
            Way::Down => state.bytes_down,
        }
    }

    /// Resets one connection, chosen by this number, or all; new ones are taken at once. How many
    /// were cut.
    pub fn cut_now(&self, which: Which, number: u64) -> usize {
        lock(&self.state).cut(which, number)
    }

    /// Resets all connections, once, after so many more bytes this way: the last ones of them come
    /// through, whatever packet they are in.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        let mut state = lock(&self.state);
        state.planned = Some((way, bytes));
        state.happened = false;
    }

    /// Whether what was planned has happened; it does not happen any more after this.
    pub fn has_happened(&self) -> bool {
        let mut state = lock(&self.state);
        state.planned = None;
        state.happened
    }

    /// How many connections there have been so far.
    pub fn connections(&self) -> u64 {
        lock(&self.state).taken
    }

    /// Whether a connection is there that has carried so many bytes, both ways together.
    pub fn has_carried(&self, bytes: u64) -> bool {
        lock(&self.state)
            .ends
            .iter()
            .any(|ends| ends.carried >= bytes)
    }

    /// A known_hosts file in `dir` that has the server's key under this port.
    pub fn known_hosts(&self, server: &Server, dir: &Path) -> PathBuf {
        let key = std::fs::read_to_string(server.dir.join("host_key.pub")).expect("the host key");
        let path = dir.join(format!("known_hosts.{}", self.port));
        std::fs::write(&path, format!("[127.0.0.1]:{} {key}", self.port)).expect("known_hosts");
        path
    }
}

impl Drop for TcpMeter {
    fn drop(&mut self) {
        lock(&self.state).ending = true;
        // It waits for a connection, so it gets one.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn cut(&mut self, which: Which, number: u64) -> usize {
        if self.ends.is_empty() {
            return 0;
        }
        let cut = match which {
            Which::All => std::mem::take(&mut self.ends),
            Which::One => {
                let index = number % self.ends.len() as u64;
                vec![self.ends.swap_remove(usize::try_from(index).unwrap_or(0))]
            }
        };
        for ends in &cut {
            reset(&ends.ours);
            reset(&ends.servers);
        }
        cut.len()
    }

    /// How many of these bytes may go on.
    fn count(&mut self, way: Way, number: u64, len: usize) -> usize {
        let mut passed = len;
        if let Some((planned_way, left)) = &mut self.planned
            && *planned_way == way
        {
            passed = len.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= passed as u64;
        }
        if let Some(ends) = self.ends.iter_mut().find(|ends| ends.number == number) {
            ends.carried += passed as u64;
        }
        match way {
            Way::Up => self.bytes_up += passed as u64,
            Way::Down => self.bytes_down += passed as u64,
        }
        passed
    }
}

/// What was on its way is gone, and both sides are told of it by a reset, not by an end of the
/// stream (socket(7), SO_LINGER of no time).
fn reset(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // A connection that has gone by itself needs no reset.
    let _ = setsockopt(stream, sockopt::Linger, &linger);
    let _ = stream.shutdown(Shutdown::Both);
}

fn take(state: &Arc<Mutex<State>>, ours: TcpStream, servers: TcpStream) {
    let number = {
        let mut state = lock(state);
        state.taken += 1;
        state.taken
    };
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (up, down) = (
        (Way::Up, clone(&ours), clone(&servers)),
        (Way::Down, clone(&servers), clone(&ours)),
    );
    lock(state).ends.push(Ends {
        number,
        ours,
        servers,
        carried: 0,
    });
    for (way, from, to) in [up, down] {
        let state = Arc::clone(state);
        std::thread::spawn(move || carry(way, number, from, to, &state));
    }
}

fn carry(way: Way, number: u64, mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 1 << 17];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let passed = lock(state).count(way, number, len);
        if to.write_all(&buffer[..passed]).is_err() {
            break;
        }
        if passed < len {
            let mut state = lock(state);
            state.planned = None;
            state.happened = true;
            state.cut(Which::All, 0);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    if way == Way::Down {
        lock(state).ends.retain(|ends| ends.number != number);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
