//! The TCP connections that go through the link: what each end expects next, so that both can be
//! reset. Pure state.

use std::collections::HashMap;

use super::packet::{ACK, End, FIN, RST, SYN, Tcp, reset};

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From near to far.
    Up,
    /// From far to near.
    Down,
}

impl Way {
    /// Its place in an array.
    pub fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }

    /// The other one.
    pub fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {
    known: HashMap<(End, End), Connection>,
}

/// One connection; each array holds the near end's number first.
#[derive(Debug, Default)]
struct Connection {
    /// What the end expects next, as far as the link knows.
    expects: [u32; 2],
    /// What the end has sent up to.
    sent: [u32; 2],
    /// Whether the end has said that it sends no more.
    finished: [bool; 2],
    is_cut: bool,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Drop it and give its sender this instead.
    Answer(Vec<u8>),
}

impl Connections {
    /// Takes note of a packet that an end sends.
    pub fn enter(&mut self, way: Way, tcp: &Tcp) -> Verdict {
        let key = key(way, tcp);
        if tcp.is(SYN) && !tcp.is(ACK) || !self.known.contains_key(&key) {
            self.make_room();
            self.known.insert(key, Connection::default());
        }
        let connection = self.known.entry(key).or_default();
        if connection.is_cut {
            if tcp.is(RST) {
                return Verdict::Drop;
            }
            // What the sender acknowledges is what it expects, so this one counts.
            return Verdict::Answer(reset(tcp.to, tcp.from, tcp.ack, tcp.end()));
        }
        if tcp.is(RST) {
            self.known.remove(&key);
            return Verdict::Pass;
        }
        let end = way.index();
        raise(&mut connection.sent[end], tcp.end());
        if tcp.is(ACK) {
            raise(&mut connection.expects[end], tcp.ack);
        }
        connection.finished[end] |= tcp.is(FIN);
        Verdict::Pass
    }

    /// Takes note of a packet that reaches the other end; whether it may.
    pub fn leave(&mut self, way: Way, tcp: &Tcp) -> bool {
        let Some(connection) = self.known.get_mut(&key(way, tcp)) else {
            return true;
        };
        raise(&mut connection.expects[way.back().index()], tcp.end());
        !connection.is_cut
    }

    /// Cuts every connection: gives the packets for the near ends and for the far ends.
    pub fn cut(&mut self) -> [Vec<Vec<u8>>; 2] {
        let mut resets = [Vec::new(), Vec::new()];
        for ((near, far), connection) in &mut self.known {
            if std::mem::replace(&mut connection.is_cut, true) {
                continue;
            }
            let [near_expects, far_expects] = connection.expects;
            let [near_sent, far_sent] = connection.sent;
            resets[0].push(reset(*far, *near, near_expects, near_sent));
            resets[1].push(reset(*near, *far, far_expects, far_sent));
        }
        resets
    }

    /// Forgets what has ended when there are many, and everything if that is not enough: what
    /// goes on is known again with its next packet.
    fn make_room(&mut self) {
        if self.known.len() < CONNECTIONS_MAX {
            return;
        }
        self.known
            .retain(|_, connection| !connection.is_cut && connection.finished != [true; 2]);
        if self.known.len() >= CONNECTIONS_MAX {
            self.known.clear();
        }
    }
}

/// The near end first, whichever way the packet goes.
fn key(way: Way, tcp: &Tcp) -> (End, End) {
    match way {
        Way::Up => (tcp.from, tcp.to),
        Way::Down => (tcp.to, tcp.from),
    }
}

/// Sequence numbers go round (RFC 9293, 3.4); 0 stands for none yet.
fn raise(number: &mut u32, to: u32) {
    if *number == 0 || to.wrapping_sub(*number).cast_signed() > 0 {
        *number = to;
    }
}

/// Far more than any benchmark opens.
const CONNECTIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::packet::parse;
    use super::*;

    const NEAR: End = End {
        address: Ipv4Addr::new(10, 77, 0, 1),
        port: 40_000,
    };
    const FAR: End = End {
        address: Ipv4Addr::new(10, 77, 0, 2),
        port: 22,
    };

    fn up(seq: u32, ack: u32, flags: u8, payload: u32) -> Tcp {
        Tcp {
            from: NEAR,
            to: FAR,
            seq,
            ack,
            flags,
            payload,
        }
    }

    fn down(seq: u32, ack: u32, flags: u8, payload: u32) -> Tcp {
        Tcp {
            from: FAR,
            to: NEAR,
            ..up(seq, ack, flags, payload)
        }
    }

    fn open(connections: &mut Connections) {
        let syn = up(100, 0, SYN, 0);
        assert_eq!(connections.enter(Way::Up, &syn), Verdict::Pass);
        assert!(connections.leave(Way::Up, &syn));
        let answer = down(u32::MAX, 101, SYN | ACK, 0);
        assert_eq!(connections.enter(Way::Down, &answer), Verdict::Pass);
        assert!(connections.leave(Way::Down, &answer));
    }

    #[test]
    fn a_cut_resets_both_ends_at_what_they_expect() {
        let mut connections = Connections::default();
        open(&mut connections);
        let data = down(0, 101, ACK, 1000);
        connections.enter(Way::Down, &data);
        connections.leave(Way::Down, &data);
        // On its way: the far end does not expect what follows it yet.
        connections.enter(Way::Up, &up(101, 500, ACK, 50));
        let [near, far] = connections.cut();
        let near = parse(&near[0]).unwrap().tcp.unwrap();
        assert_eq!((near.from, near.to), (FAR, NEAR));
        assert_eq!((near.seq, near.ack), (1000, 151));
        let far = parse(&far[0]).unwrap().tcp.unwrap();
        assert_eq!((far.from, far.to), (NEAR, FAR));
        assert_eq!((far.seq, far.ack), (101, 1000));
    }

    #[test]
    fn whoever_speaks_after_the_cut_is_reset_and_nothing_arrives() {
        let mut connections = Connections::default();
        open(&mut connections);
        connections.cut();
        let late = up(101, 17, ACK, 10);
        assert!(!connections.leave(Way::Up, &late));
        let Verdict::Answer(answer) = connections.enter(Way::Up, &late) else {
            panic!("not answered");
        };
        assert_eq!(parse(&answer).unwrap().tcp.unwrap().seq, 17);
        assert_eq!(
            connections.enter(Way::Up, &up(101, 17, RST, 0)),
            Verdict::Drop
        );
        assert_eq!(connections.cut(), [Vec::<Vec<u8>>::new(), Vec::new()]);
    }

    #[test]
    fn a_connection_made_after_the_cut_lives_even_on_the_same_ports() {
        let mut connections = Connections::default();
        open(&mut connections);
        connections.cut();
        open(&mut connections);
        assert!(connections.leave(Way::Up, &up(101, 0, ACK, 1)));
    }

    #[test]
    fn there_is_a_bound_on_how_many_are_known() {
        let mut connections = Connections::default();
        for port in 0..10_000 {
            let mut syn = up(1, 0, SYN, 0);
            syn.from.port = port;
            connections.enter(Way::Up, &syn);
        }
        assert!(connections.known.len() <= CONNECTIONS_MAX);
    }
}
