//! Real streams through real links; without root they are skipped.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Link, Shape};

/// None if there cannot be one, after a word why.
fn link(shape: Shape) -> Option<Link> {
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: a link needs root");
        return None;
    }
    Some(Link::with_devices(shape).expect("a link"))
}

fn with_rtt(ms: u64) -> Shape {
    Shape {
        rtt: Duration::from_millis(ms),
        ..Shape::NOTHING
    }
}

/// Both ends of a new connection, the near one first.
fn connect(link: &Link) -> (TcpStream, TcpStream) {
    let address = (link.far_address(), 0);
    let listener = link.far().inside(|| TcpListener::bind(address)).unwrap();
    let address = listener.local_addr().unwrap();
    let near = link.near().inside(|| TcpStream::connect(address)).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (near, far)
}

fn send(mut end: &TcpStream, bytes: &[u8]) {
    end.write_all(bytes).unwrap();
}

fn expect(mut end: &TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    end.read_exact(&mut got).unwrap();
    assert!(got == bytes, "the bytes differ");
}

fn noise(length: usize) -> Vec<u8> {
    let mut x = 1_u32;
    let mut step = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    (0..length).map(|_| step()).collect()
}

#[test]
fn bytes_arrive_unchanged_both_ways_through_delay_cap_and_loss() {
    for loss in [0.0, 0.01] {
        let shape = Shape {
            mbit: 400,
            loss,
            seed: 3,
            ..with_rtt(4)
        };
        let Some(link) = link(shape) else { return };
        let (near, far) = connect(&link);
        let bytes = noise(3_000_000);
        std::thread::scope(|scope| {
            scope.spawn(|| send(&near, &bytes));
            scope.spawn(|| send(&far, &bytes));
            scope.spawn(|| expect(&near, &bytes));
            scope.spawn(|| expect(&far, &bytes));
        });
        let meter = link.meter();
        let least = bytes.len() as u64;
        assert!(meter.up_bytes > least && meter.down_bytes > least);
        assert!(meter.up_packets > least / 1500 && meter.down_packets > least / 1500);
    }
}

#[test]
fn an_answer_takes_at_least_the_round_trip() {
    let Some(link) = link(with_rtt(30)) else {
        return;
    };
    let (near, far) = connect(&link);
    for _ in 0..3 {
        let before = link.meter();
        let asked = Instant::now();
        send(&near, b"question");
        expect(&far, b"question");
        send(&far, b"answer");
        expect(&near, b"answer");
        assert!(asked.elapsed() >= Duration::from_millis(30));
        assert_eq!(link.meter().chain, before.chain + 1);
    }
    assert_eq!(link.meter().turns, 2);
}

#[test]
fn a_new_shape_is_felt_at_once() {
    let Some(link) = link(Shape::NOTHING) else {
        return;
    };
    let (near, far) = connect(&link);
    link.set_shape(with_rtt(30));
    let asked = Instant::now();
    send(&near, b"question");
    expect(&far, b"question");
    send(&far, b"answer");
    expect(&near, b"answer");
    assert!(asked.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_cut_ends_both_ends_and_a_new_connection_works() {
    let Some(link) = link(with_rtt(10)) else {
        return;
    };
    let idle = connect(&link);
    let asking = connect(&link);
    send(&asking.0, b"question");
    expect(&asking.1, b"question");
    // Still on its way at the cut.
    send(&asking.1, b"answer");
    link.cut();
    for mut end in [idle.0, idle.1, asking.0, asking.1] {
        let ended = end.read(&mut [0]).map_err(|why| why.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    }
    let (near, far) = connect(&link);
    send(&near, b"again");
    expect(&far, b"again");
}

#[test]
fn a_cut_ends_both_ends_in_the_midst_of_a_stream() {
    let shape = Shape {
        mbit: 200,
        ..with_rtt(20)
    };
    let Some(link) = link(shape) else { return };
    let (mut near, mut far) = connect(&link);
    let bytes = vec![0; 1 << 20];
    let sender = std::thread::spawn(move || -> io::Error {
        loop {
            if let Err(why) = far.write_all(&bytes) {
                return why;
            }
        }
    });
    let mut some = vec![0; 2 << 20];
    near.read_exact(&mut some).unwrap();
    link.cut();
    let why = loop {
        match near.read(&mut some) {
            Ok(0) => panic!("an end without an error"),
            Ok(_) => {}
            Err(why) => break why,
        }
    };
    assert_eq!(why.kind(), ErrorKind::ConnectionReset);
    let why = sender.join().unwrap();
    assert_eq!(why.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stalled_stream_goes_on_afterwards() {
    let Some(link) = link(with_rtt(2)) else {
        return;
    };
    let (near, far) = connect(&link);
    link.stall(true);
    send(&near, b"late");
    far.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let nothing = (&far).read(&mut [0]).map_err(|why| why.kind());
    assert_eq!(nothing, Err(ErrorKind::WouldBlock));
    link.stall(false);
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    expect(&far, b"late");
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let arrived = |seed| -> Option<Vec<u16>> {
        let link = link(Shape {
            loss: 0.2,
            seed,
            ..Shape::NOTHING
        })?;
        let address = (link.far_address(), 0);
        let far = link.far().inside(|| UdpSocket::bind(address)).unwrap();
        let address = far.local_addr().unwrap();
        let near = link
            .near()
            .inside(|| UdpSocket::bind(("10.77.0.1", 0)))
            .unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        // The last hundred say that it is over: they are not all lost.
        for number in 0_u16..200 {
            near.send_to(&number.min(100).to_be_bytes(), address)
                .unwrap();
        }
        let mut numbers = Vec::new();
        loop {
            let mut number = [0; 2];
            far.recv(&mut number).unwrap();
            match u16::from_be_bytes(number) {
                100 => return Some(numbers),
                number => numbers.push(number),
            }
        }
    };
    let Some(first) = arrived(1) else { return };
    assert_eq!(arrived(1).unwrap(), first);
    assert_ne!(arrived(2).unwrap(), first);
    assert!((60..95).contains(&first.len()), "{}", first.len());
}

#[test]
fn a_command_runs_in_the_side_that_it_enters() {
    let Some(link) = link(Shape::NOTHING) else {
        return;
    };
    for side in [link.near(), link.far()] {
        let mut stat = Command::new("stat");
        stat.args(["-L", "-c", "%i", "/proc/self/ns/net"]);
        side.enter(&mut stat);
        let told = String::from_utf8(stat.output().unwrap().stdout).unwrap();
        let inode = fs::metadata(side.pid_or_path()).unwrap().ino();
        assert_eq!(told.trim(), inode.to_string());
    }
    let ours = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let sides = [link.near(), link.far()].map(|side| fs::metadata(side.pid_or_path()).unwrap());
    assert!(sides[0].ino() != sides[1].ino() && sides.iter().all(|side| side.ino() != ours));
}

#[test]
fn both_sides_have_the_tcp_settings_of_the_machine() {
    let Some(link) = link(Shape::NOTHING) else {
        return;
    };
    for name in ["tcp_rmem", "tcp_wmem", "tcp_congestion_control"] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let ours = fs::read_to_string(&path).unwrap();
        for side in [link.near(), link.far()] {
            let theirs = side.inside(|| fs::read_to_string(&path)).unwrap();
            assert_eq!(theirs, ours, "{name}");
        }
    }
}

#[test]
fn a_link_without_a_shape_is_a_loopback_interface_that_counts() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: a link needs root");
        return;
    }
    let link = Link::new(Shape::NOTHING).unwrap();
    assert!(link.is_direct());
    let (near, far) = connect(&link);
    let bytes = noise(1_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&near, &bytes));
        expect(&far, &bytes);
    });
    assert!(link.meter().up_bytes > 1_000_000);
}

/// Nothing here takes a tenth of it; when it is over, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
