//! What both directions of the link share: the lines, the connections, the meter. Pure state,
//! with time as an argument.

use std::time::Instant;

use super::connections::{Connections, Verdict, Way};
use super::line::{Line, Shape};
use super::packet::Packet;

/// What went into the link so far, what it dropped included: packets as they are on a real wire
/// (1500 bytes at most) and their bytes from the IP header on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    pub up_packets: u64,
    pub up_bytes: u64,
    pub down_packets: u64,
    pub down_bytes: u64,
    /// How often data went up after data had come down: requests of many kinds at once count
    /// often, so this is the number of round trips only for work that does one thing at a time.
    pub turns: u64,
    /// How many round trips had to follow one another: the longest chain in which data came down
    /// before data went up. Whatever the link carries at the same time counts once.
    pub chain: u64,
}

/// Everything that changes while packets go through.
#[derive(Debug)]
pub struct State {
    lines: [Line; 2],
    pub connections: Connections,
    pub meter: Meter,
    /// Whether every packet is dropped.
    pub is_stalled: bool,
    /// Whether data has come down since data last went up.
    answered: bool,
    /// The longest chain of round trips that the near end and the far end know of.
    chain_at: [u64; 2],
}

/// What becomes of a packet that enters.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then, and is part of a chain of this length.
    Arrives(Instant, u64),
    /// So do those of its segments that are not lost.
    InPart(Instant, u64, Vec<bool>),
    Lost,
    /// Its sender gets this instead.
    Answer(Vec<u8>),
}

impl State {
    pub fn new(shape: Shape) -> Self {
        Self {
            lines: [Way::Up, Way::Down].map(|way| Line::new(shape, way.index() as u64)),
            connections: Connections::default(),
            meter: Meter::default(),
            is_stalled: false,
            answered: false,
            chain_at: [0; 2],
        }
    }

    pub fn reshape(&mut self, shape: Shape) {
        for line in &mut self.lines {
            line.reshape(shape);
        }
    }

    /// A packet enters the link.
    pub fn enter(&mut self, way: Way, packet: &Packet, now: Instant) -> Fate {
        if self.is_stalled {
            return Fate::Lost;
        }
        if let Some(tcp) = &packet.tcp {
            match self.connections.enter(way, tcp) {
                Verdict::Pass => {}
                Verdict::Drop => return Fate::Lost,
                Verdict::Answer(reset) => return Fate::Answer(reset),
            }
        }
        let chain = self.count(way, packet);
        match self.lines[way.index()].send(now, packet.bytes, packet.segments) {
            Some((due, lost)) if lost.is_empty() => Fate::Arrives(due, chain),
            Some((due, lost)) => Fate::InPart(due, chain, lost),
            None => Fate::Lost,
        }
    }

    /// A packet reaches the end of the link; whether the other end gets it.
    pub fn leave(&mut self, way: Way, packet: &Packet, chain: u64) -> bool {
        if self.is_stalled {
            return false;
        }
        let Some(tcp) = &packet.tcp else {
            return true;
        };
        if !self.connections.leave(way, tcp) {
            return false;
        }
        if tcp.payload > 0 {
            self.answered |= way == Way::Down;
            let known = &mut self.chain_at[way.back().index()];
            *known = (*known).max(chain);
        }
        true
    }

    /// The length of the chain that the packet is part of.
    fn count(&mut self, way: Way, packet: &Packet) -> u64 {
        let has_data = packet.tcp.is_some_and(|tcp| tcp.payload > 0);
        let meter = &mut self.meter;
        let known = self.chain_at[way.index()];
        if way == Way::Down {
            meter.down_packets += packet.segments;
            meter.down_bytes += packet.bytes;
            return known;
        }
        meter.up_packets += packet.segments;
        meter.up_bytes += packet.bytes;
        if !has_data {
            return known;
        }
        if std::mem::take(&mut self.answered) {
            meter.turns += 1;
        }
        meter.chain = meter.chain.max(known + 1);
        known + 1
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::packet::{ACK, End, Tcp};
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn state() -> State {
        State::new(Shape {
            rtt: RTT,
            ..Shape::NOTHING
        })
    }

    fn data(payload: u32) -> Packet {
        let end = End {
            address: Ipv4Addr::LOCALHOST,
            port: 1,
        };
        Packet {
            segments: 1,
            bytes: 40 + u64::from(payload),
            tcp: Some(Tcp {
                from: end,
                to: end,
                seq: 1,
                ack: 1,
                flags: ACK,
                payload,
            }),
        }
    }

    /// The packet goes all the way.
    fn through(state: &mut State, way: Way, packet: &Packet) {
        let chain = enter(state, way, packet);
        assert!(state.leave(way, packet, chain));
    }

    fn enter(state: &mut State, way: Way, packet: &Packet) -> u64 {
        match state.enter(way, packet, Instant::now()) {
            Fate::Arrives(_, chain) => chain,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_and_answers_one_by_one_are_a_turn_and_a_link_of_the_chain_each() {
        let mut state = state();
        through(&mut state, Way::Down, &data(20));
        for _ in 0..5 {
            through(&mut state, Way::Up, &data(100));
            through(&mut state, Way::Up, &data(100));
            through(&mut state, Way::Down, &data(0));
            through(&mut state, Way::Down, &data(1000));
        }
        let meter = state.meter;
        assert_eq!((meter.turns, meter.chain), (5, 5));
        assert_eq!((meter.up_packets, meter.up_bytes), (10, 1400));
        assert_eq!((meter.down_packets, meter.down_bytes), (11, 5460));
    }

    #[test]
    fn what_is_asked_before_the_answers_arrive_lengthens_no_chain() {
        let mut state = state();
        let asked: Vec<u64> = (0..8)
            .map(|_| enter(&mut state, Way::Up, &data(100)))
            .collect();
        for chain in asked {
            assert!(state.leave(Way::Up, &data(100), chain));
            let answer = enter(&mut state, Way::Down, &data(100));
            enter(&mut state, Way::Up, &data(100));
            state.leave(Way::Down, &data(100), answer);
        }
        assert_eq!(state.meter.chain, 2);
        assert_eq!(state.meter.turns, 7);
    }

    #[test]
    fn nothing_enters_and_nothing_leaves_a_stalled_link() {
        let mut state = state();
        let chain = enter(&mut state, Way::Up, &data(1));
        state.is_stalled = true;
        assert_eq!(state.enter(Way::Up, &data(1), Instant::now()), Fate::Lost);
        assert!(!state.leave(Way::Up, &data(1), chain));
        state.is_stalled = false;
        assert!(state.leave(Way::Up, &data(1), chain));
    }
}
