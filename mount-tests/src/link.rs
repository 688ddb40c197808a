//! A link between two network namespaces that we hold in our hands: it has a round-trip time, a
//! rate and losses, counts what goes through, stalls, and cuts connections.
//!
//! It works on packets, so that the TCP of both ends sees the link itself: a TUN device at each
//! end, and one thread for each direction between the two. Where nothing is asked of the link,
//! both ends are one namespace and its loopback interface, which costs nothing.

mod cli;
mod connections;
mod line;
mod packet;
mod pump;
mod state;
mod sys;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use cli::be_the_link;
use connections::Way;
pub use line::Shape;
use pump::Shared;
pub use state::Meter;
use state::State;

/// The link. Dropping it ends its threads and devices; its namespaces go with the last process in
/// them. Nothing of it has a name, so nothing stays behind if this process is killed either.
pub struct Link {
    near: Side,
    /// None if the near side is the far side too.
    far: Option<Side>,
    running: Option<Running>,
}

/// One end of the link.
#[derive(Clone)]
pub struct Side {
    network: Arc<File>,
}

/// What carries the packets.
struct Running {
    shared: Arc<Shared>,
    /// Closed to end the threads.
    ends: Vec<UnixStream>,
    threads: Vec<JoinHandle<()>>,
    /// The kernel's number of each thread, once it runs.
    numbers: Arc<[AtomicI32; 2]>,
}

impl Link {
    /// A link of this shape; needs root. Without delay, cap and loss both sides are the same
    /// namespace, whose loopback interface has the far address: no packet passes through here,
    /// `meter` has everything under `up`, no turns, and to shape, stall or cut the link panics.
    pub fn new(shape: Shape) -> io::Result<Self> {
        if !shape.is_nothing() {
            return Self::with_devices(shape);
        }
        let (network, ()) = sys::new_network(|| {
            sys::bring_up("lo")?;
            sys::set_address("lo:1", FAR, 32)
        })
        .map_err(explain)?;
        Ok(Self {
            near: Side::new(network),
            far: None,
            running: None,
        })
    }

    /// A link through which packets are carried whatever its shape.
    pub fn with_devices(shape: Shape) -> io::Result<Self> {
        let (near, near_device) = sys::new_network(|| device(NEAR)).map_err(explain)?;
        let (far, far_device) = sys::new_network(|| device(FAR)).map_err(explain)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(shape)),
            devices: [near_device, far_device],
        });
        Ok(Self {
            near: Side::new(near),
            far: Some(Side::new(far)),
            running: Some(Running::start(shared)?),
        })
    }

    /// Where client programs and mounts are.
    pub fn near(&self) -> &Side {
        &self.near
    }

    /// Where servers are.
    pub fn far(&self) -> &Side {
        self.far.as_ref().unwrap_or(&self.near)
    }

    /// The address of the far side; each side has its own loopback address too.
    pub fn far_address(&self) -> Ipv4Addr {
        FAR
    }

    /// Whether no packet passes through here, so that nothing can be done to it.
    pub fn is_direct(&self) -> bool {
        self.running.is_none()
    }

    /// What has gone in so far.
    pub fn meter(&self) -> Meter {
        match &self.running {
            Some(running) => running.shared.lock().meter,
            None => self.near.loopback_meter().unwrap_or_default(),
        }
    }

    /// While on, every packet is dropped, also those on their way: nobody hears of it.
    pub fn stall(&self, on: bool) {
        self.carried().lock().is_stalled = on;
    }

    /// Every TCP connection that goes through the link now dies at both ends at once.
    pub fn cut(&self) {
        let shared = self.carried();
        // The lock is gone at the semicolon.
        let resets = shared.lock().connections.cut();
        for (device, resets) in shared.devices.iter().zip(resets) {
            for reset in resets {
                pump::give(device, &reset);
            }
        }
    }

    /// From now on the link is like this.
    #[allow(dead_code, reason = "for the benchmark and the tests")]
    pub fn set_shape(&self, shape: Shape) {
        self.carried().lock().reshape(shape);
    }

    /// The processor time that the two directions have taken, up first. What the kernel does for
    /// the receiver of a packet is in it, because it happens while the packet is handed over.
    pub fn thread_times(&self) -> [Duration; 2] {
        self.running
            .as_ref()
            .map_or([Duration::ZERO; 2], |running| {
                [Way::Up, Way::Down].map(|way| running.time(way))
            })
    }

    fn carried(&self) -> &Shared {
        let running = self.running.as_ref();
        &running
            .expect("a link without delay, cap and loss is a loopback interface: see Link::new")
            .shared
    }
}

impl Side {
    fn new(network: File) -> Self {
        Self {
            network: Arc::new(network),
        }
    }

    /// Makes the command run on this side. Only its network differs: it sees the same files,
    /// mounts and processes.
    pub fn enter(&self, command: &mut Command) {
        sys::enter(command, Arc::clone(&self.network));
    }

    /// The network namespace, for `nsenter --net=`, while the link is there.
    pub fn pid_or_path(&self) -> PathBuf {
        let (pid, file) = (std::process::id(), self.network.as_raw_fd());
        format!("/proc/{pid}/fd/{file}").into()
    }

    /// Does this on this side of the link, in a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        sys::inside(&self.network, work)
    }

    /// What went through the loopback interface, both ways, all of it under `up`.
    fn loopback_meter(&self) -> io::Result<Meter> {
        let table = self.inside(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let numbers = table
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("lo:"))
            .unwrap_or_default();
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Ok(Meter {
            up_bytes: next(),
            up_packets: next(),
            ..Meter::default()
        })
    }
}

impl Running {
    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let mut running = Self {
            shared,
            ends: Vec::new(),
            threads: Vec::new(),
            numbers: Arc::default(),
        };
        for way in [Way::Up, Way::Down] {
            let (ours, its) = UnixStream::pair()?;
            let shared = Arc::clone(&running.shared);
            let name = format!("link-{way:?}").to_lowercase();
            let thread = std::thread::Builder::new().name(name);
            running.ends.push(ours);
            let numbers = Arc::clone(&running.numbers);
            running.threads.push(thread.spawn(move || {
                numbers[way.index()].store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
                if let Err(why) = pump::carry(way, shared, &its) {
                    eprintln!("mount-tests: the link carries nothing {way:?} any more: {why}");
                }
            })?);
        }
        Ok(running)
    }

    /// The processor time of a thread, in whole nanoseconds (proc(5), schedstat).
    fn time(&self, way: Way) -> Duration {
        let number = self.numbers[way.index()].load(Ordering::SeqCst);
        let told = fs::read_to_string(format!("/proc/self/task/{number}/schedstat"));
        let first = told.ok().and_then(|told| {
            let first = told.split_ascii_whitespace().next()?;
            first.parse().ok()
        });
        Duration::from_nanos(first.unwrap_or(0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ends.clear();
        for thread in self.threads.drain(..) {
            // A panic of its own was told where it happened.
            let _ = thread.join();
        }
    }
}

/// A TUN device with this address in this thread's namespace.
fn device(address: Ipv4Addr) -> io::Result<File> {
    sys::bring_up("lo")?;
    let device = sys::open_tun(NAME)?;
    sys::allow_large_packets(&device)?;
    sys::set_address(NAME, address, 24)?;
    sys::set_queue(NAME, QUEUE)?;
    sys::bring_up(NAME)?;
    Ok(device)
}

fn explain(why: io::Error) -> io::Error {
    io::Error::new(
        why.kind(),
        format!("cannot make a link ({why}): it needs root, network namespaces and /dev/net/tun"),
    )
}

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NAME: &str = "link0";

/// 10,000 packets: what does not fit is dropped by the line's own buffer, never before it.
const QUEUE: i32 = 10_000;
