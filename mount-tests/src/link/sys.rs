//! The system calls of the link: namespaces, TUN devices, precise waiting.
//!
//! **Invariant:** beside `crate::sys`, the only file of this crate with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "each block is one system call with arguments checked here"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// Makes a network namespace and does this inside it. It lives as long as the file, a device in it
/// that is open, or a process in it; it has no name that could stay behind.
pub fn new_network<T: Send>(
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(File, T)> {
    in_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let network = File::open("/proc/thread-self/ns/net")?;
        Ok((network, inside()?))
    })
}

/// Does this inside a network namespace.
pub fn inside<T: Send>(
    network: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_own_thread(|| {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// A namespace is a matter of one thread, so a thread that ends at once leaves no trace of it.
fn in_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes the command run inside a network namespace; nothing else of it changes.
pub fn enter(command: &mut Command, network: Arc<File>) {
    // SAFETY: setns(2) is async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            setns(&*network, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        });
    }
}

/// Makes the command end when the thread that starts it does (prctl(2), PR_SET_PDEATHSIG).
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl(2) takes no pointers here and is async-signal-safe.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
}

/// Makes a TUN device in this thread's namespace, with virtio's header before each packet
/// (kernel documentation, networking/tuntap.rst). It is gone when the file is closed. Reading it
/// does not wait.
pub fn open_tun(name: &str) -> io::Result<File> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = about(name);
    request.ifr_ifru.ifru_flags = narrow(flags);
    // SAFETY: the request outlives the call and is what TUNSETIFF reads.
    done(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(tun)
}

/// Lets the kernel hand over packets of up to 64 KiB, to be cut into segments later, and leave out
/// checksums: nothing here damages a packet.
pub fn allow_large_packets(tun: &File) -> io::Result<()> {
    let offload = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    // SAFETY: takes a number, no pointer.
    done(unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offload),
        )
    })
}

/// Gives an interface of this thread's namespace an address in a network of this many bits.
pub fn set_address(interface: &str, address: Ipv4Addr, bits: u32) -> io::Result<()> {
    let mask = Ipv4Addr::from(u32::MAX << (32 - bits));
    for (call, address) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = about(interface);
        request.ifr_ifru.ifru_addr = socket_address(address);
        configure(call, &mut request)?;
    }
    Ok(())
}

/// How many packets wait in an interface before its reader takes them.
pub fn set_queue(interface: &str, packets: i32) -> io::Result<()> {
    let mut request = about(interface);
    request.ifr_ifru.ifru_metric = packets;
    configure(libc::SIOCSIFTXQLEN, &mut request)
}

/// Brings an interface of this thread's namespace up.
pub fn bring_up(interface: &str) -> io::Result<()> {
    let mut request = about(interface);
    request.ifr_ifru.ifru_flags = narrow(libc::IFF_UP | libc::IFF_RUNNING);
    configure(libc::SIOCSIFFLAGS, &mut request)
}

/// Makes this thread wake at the moment it asks for, also when the processors are busy. Where the
/// system refuses the priority, it is only less precise.
pub fn be_punctual() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call; prctl(2) takes no pointers here.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const priority,
        );
    }
}

/// Waits until one of the two can be read or the time is over; whether it is the second.
pub fn wait(
    first: BorrowedFd<'_>,
    second: BorrowedFd<'_>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let mut asked = [first, second].map(|file| libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    // SAFETY: both arrays outlive the call; null means to wait for ever and to change no signals.
    let ready = unsafe {
        libc::ppoll(
            asked.as_mut_ptr(),
            2,
            limit.as_ref().map_or(ptr::null(), ptr::from_ref),
            ptr::null(),
        )
    };
    if ready < 0 {
        let why = io::Error::last_os_error();
        if why.kind() != io::ErrorKind::Interrupted {
            return Err(why);
        }
    }
    Ok(asked[1].revents != 0)
}

/// An empty request about an interface (netdevice(7)).
fn about(interface: &str) -> libc::ifreq {
    // SAFETY: all of its fields may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(
        interface.len() < request.ifr_name.len(),
        "a name that fits, with its NUL"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn configure(call: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the request outlives the call and is what these calls read.
    #[allow(
        clippy::useless_conversion,
        reason = "musl's ioctl takes another type than glibc's"
    )]
    done(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            call.try_into().expect("a call's number"),
            ptr::from_mut(request),
        )
    })
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let internet = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain numbers; this is what the union of addresses is for.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet) }
}

fn narrow(flags: i32) -> libc::c_short {
    libc::c_short::try_from(flags).expect("flags of 15 bits")
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
