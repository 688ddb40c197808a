//! A wire between sftpfs and its server that we hold in our hands: it counts what goes through,
//! can be cut at a packet, delays answers, hides the server's extensions, and makes it lie.
//!
//! sftpfs runs `mount-tests wire SOCKET SERVER...` as its `sftp_command`; that starts the server
//! and leads both ends here, to threads of the runner, where a case can look and interfere.

mod badness;
mod packet;
mod relay;
mod tcp;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::process;
use crate::server::sftp_server_path;

pub use badness::Badness;
pub use relay::be_the_pipe;
pub use tcp::TcpMeter;

/// What the server at the other end is like.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Extensions it does not announce and does not know.
    pub hidden: Vec<&'static str>,
    /// Whether it answers OK to a hard link and makes none, as rclone serve sftp 1.60.
    pub lies: bool,
    /// How long an answer takes to arrive.
    pub latency: Duration,
    /// The words that start it, if it is not OpenSSH's own program.
    pub command: Option<Vec<String>>,
}

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// From the server.
    Down,
}

/// Which connections a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Only the one on which the packet was, or any one.
    One,
    /// All that there are in that moment.
    All,
}

/// What happens before a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Everything is cut, and stays so until it is mended.
    Down,
    /// A cut after which new connections are taken at once.
    Cut(Which),
    /// From here on the server of this connection is out of order.
    Bad(Badness),
}

/// What went through.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Bytes to the server, the length of each packet included.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// Packets to the server.
    pub packets_up: u64,
    /// Packets from the server.
    pub packets_down: u64,
    /// How often requests went out after an answer had come in: what followed from an answer, or
    /// began anew, could not go with what was sent before.
    pub trips: u64,
    /// The longest chain of requests of which each went out when the one before was answered: what
    /// programs waited for, in round trips.
    pub chain: u64,
    /// Requests by their names; extended ones by the name of the extension.
    pub requests: BTreeMap<String, u64>,
}

impl Counts {
    /// How many requests of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.requests.get(name).copied().unwrap_or(0)
    }

    /// Bytes both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes_up + self.bytes_down
    }
}

/// The wire. Dropping it cuts all connections and ends the server programs.
pub struct Wire {
    shared: Arc<Shared>,
    socket: PathBuf,
    command: String,
    listener: Option<JoinHandle<()>>,
}

/// What the threads of all connections share.
struct Shared {
    manner: Manner,
    state: Mutex<State>,
}

/// What happens, and what is to happen.
#[derive(Default)]
struct State {
    counts: Counts,
    last: Option<Way>,
    /// What happens before which packet, counted from now on.
    planned: Option<(Way, u64, Event)>,
    /// Whether it has happened.
    happened: bool,
    /// Connections over which nothing goes any more.
    dead: BTreeSet<u64>,
    /// Connections whose server is out of order.
    bad: BTreeMap<u64, Badness>,
    /// How many bytes the READs under way asked for, by connection and id.
    asked: BTreeMap<(u64, u32), u32>,
    /// Which link of a chain the requests under way are, by connection and id.
    links: BTreeMap<(u64, u32), u64>,
    /// How many connections there have been.
    taken: u64,
    /// A process that is killed in the moment of the cut.
    victim: Option<i32>,
    /// Cut: nothing goes through and nobody gets a new connection.
    is_cut: bool,
    ending: bool,
    /// The ends of each connection: sftpfs' and the server's.
    ends: BTreeMap<u64, (UnixStream, UnixStream)>,
}

impl Wire {
    /// A wire to a server of this manner.
    pub fn new(lab: &Lab, manner: Manner) -> Self {
        let socket = lab.fresh("wire");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let server = manner.command.clone().unwrap_or_else(|| {
            let path = sftp_server_path().expect("OpenSSH's sftp-server");
            vec![path.display().to_string()]
        });
        let exe = std::env::current_exe().expect("this program");
        let command = [exe.as_path(), Path::new("wire"), &socket]
            .iter()
            .map(|word| word.display().to_string())
            .chain(server)
            .collect::<Vec<_>>()
            .join(" ");
        let shared = Arc::new(Shared {
            manner,
            state: Mutex::default(),
        });
        let its_shared = Arc::clone(&shared);
        Self {
            shared,
            socket,
            command,
            listener: Some(std::thread::spawn(move || {
                relay::listen(&listener, &its_shared);
            })),
        }
    }

    /// What `sftp_command=` wants.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// What went through since the last [`Self::reset`].
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts.clone()
    }

    /// Counts from zero.
    pub fn reset(&self) {
        let mut state = self.shared.lock();
        state.counts = Counts::default();
        state.last = None;
        state.links.clear();
    }

    /// Cuts everything before the `packet`-th packet this way, counted from 1 and from now on, and
    /// kills the victim.
    pub fn cut_before(&self, way: Way, packet: u64, victim: Option<i32>) {
        self.plan(way, packet, Event::Down);
        self.shared.lock().victim = victim;
    }

    /// The same, but only once: new connections are taken at once.
    pub fn cut_once_before(&self, way: Way, packet: u64, which: Which) {
        self.plan(way, packet, Event::Cut(which));
    }

    /// From the `packet`-th packet this way on, the connection that carries it has a server that is
    /// out of order; later connections have not.
    pub fn go_bad_before(&self, way: Way, packet: u64, how: Badness) {
        self.plan(way, packet, Event::Bad(how));
    }

    fn plan(&self, way: Way, packet: u64, event: Event) {
        let mut state = self.shared.lock();
        state.planned = Some((way, packet, event));
        state.happened = false;
    }

    /// Whether what was planned has happened; it does not happen any more after this.
    pub fn has_happened(&self) -> bool {
        let mut state = self.shared.lock();
        state.planned = None;
        state.happened
    }

    /// Cuts one connection, chosen by this number, or all; new ones are taken at once. How many
    /// were cut.
    pub fn cut_now(&self, which: Which, number: u64) -> usize {
        let mut state = self.shared.lock();
        let live = state.live();
        let Some(one) = live.get(usize::try_from(number).unwrap_or(0) % live.len().max(1)) else {
            return 0;
        };
        state.cut(which, *one)
    }

    /// How many connections there have been so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().taken
    }

    /// Whether everything is cut.
    pub fn is_cut(&self) -> bool {
        self.shared.lock().is_cut
    }

    /// Waits until nothing goes through any more and cuts nothing from then on; whether it was cut.
    pub fn disarm(&self) -> bool {
        let mut last = None;
        let quiet = || {
            let state = self.shared.lock();
            let now = (state.counts.packets_up, state.counts.packets_down);
            (state.is_cut || last.replace(now) == Some(now)).then_some(())
        };
        process::wait_for(Instant::now() + Duration::from_secs(10), quiet);
        let mut state = self.shared.lock();
        state.planned = None;
        state.victim = None;
        state.is_cut
    }

    /// Waits until the servers of all connections that were cut have done what had reached them,
    /// then lets new connections through.
    pub fn mend(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        let quiet = process::wait_for(end, || {
            let state = self.shared.lock();
            (!state.is_cut || state.ends.is_empty()).then_some(())
        });
        assert!(quiet.is_some(), "a server goes on without a connection");
        let mut state = self.shared.lock();
        state.is_cut = false;
        state.planned = None;
        state.victim = None;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.ending = true;
            state.do_cut();
        }
        // It waits for a connection, so it gets one.
        let _ = UnixStream::connect(&self.socket);
        if let Some(listener) = self.listener.take() {
            // A panic of its own was told where it happened.
            let _ = listener.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a packet of this connection; whether it may go on.
    fn pass(&self, number: u64, way: Way, packet: &[u8]) -> bool {
        let mut state = self.lock();
        if state.is_cut || state.dead.contains(&number) {
            return false;
        }
        if let Some((planned_way, left, event)) = &mut state.planned
            && *planned_way == way
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let event = *event;
                state.happen(event, number);
                if !matches!(event, Event::Bad(_)) {
                    return false;
                }
            }
        }
        if way == Way::Up
            && let Some((id, len)) = packet::read_len(packet)
        {
            state.asked.insert((number, id), len);
        }
        state.count(number, way, packet);
        true
    }

    /// How many bytes were asked for, if this answers a READ.
    fn was_asked(&self, number: u64, answer: &[u8]) -> Option<u32> {
        let id = packet::id(answer)?;
        self.lock().asked.remove(&(number, id))
    }

    /// What is wrong with the server of this connection.
    fn badness(&self, number: u64) -> Option<Badness> {
        self.lock().bad.get(&number).copied()
    }
}

impl State {
    fn count(&mut self, number: u64, way: Way, packet: &[u8]) {
        let bytes = packet.len() as u64;
        let counts = &mut self.counts;
        let request = packet::id(packet).map(|id| (number, id));
        match way {
            Way::Up => {
                counts.bytes_up += bytes;
                counts.packets_up += 1;
                if self.last != Some(Way::Up) {
                    counts.trips += 1;
                }
                *counts.requests.entry(packet::name(packet)).or_default() += 1;
                self.links
                    .extend(request.map(|request| (request, counts.chain + 1)));
            }
            Way::Down => {
                counts.bytes_down += bytes;
                counts.packets_down += 1;
                let link = request.and_then(|request| self.links.remove(&request));
                counts.chain = counts.chain.max(link.unwrap_or(0));
            }
        }
        self.last = Some(way);
    }

    fn happen(&mut self, event: Event, number: u64) {
        self.planned = None;
        self.happened = true;
        match event {
            Event::Down => self.do_cut(),
            Event::Cut(which) => drop(self.cut(which, number)),
            Event::Bad(how) => drop(self.bad.insert(number, how)),
        }
    }

    /// The connections that are not cut.
    fn live(&self) -> Vec<u64> {
        let open = self.ends.keys().copied();
        open.filter(|number| !self.dead.contains(number)).collect()
    }

    /// Cuts this connection, or all, for good; how many.
    fn cut(&mut self, which: Which, number: u64) -> usize {
        let cut = match which {
            Which::One => vec![number],
            Which::All => self.live(),
        };
        for number in &cut {
            self.dead.insert(*number);
            self.asked.retain(|(connection, _), _| connection != number);
            self.links.retain(|(connection, _), _| connection != number);
            if let Some((ours, servers)) = self.ends.get(number) {
                shut(ours, servers);
            }
        }
        cut.len()
    }

    fn do_cut(&mut self) {
        self.is_cut = true;
        self.planned = None;
        if let Some(pid) = self.victim.take() {
            process::signal(pid, Signal::SIGKILL);
        }
        for (ours, servers) in self.ends.values() {
            shut(ours, servers);
        }
    }
}

/// The server still does what has reached it.
fn shut(ours: &UnixStream, servers: &UnixStream) {
    // What has gone already needs no shutting.
    let _ = ours.shutdown(Shutdown::Both);
    let _ = servers.shutdown(Shutdown::Write);
}
