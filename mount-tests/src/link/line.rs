//! One direction of the link as a plan: when does a packet arrive at the other end, if at all?
//! Pure state, with time as an argument.

use std::time::{Duration, Instant};

/// What the link is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// The time there and back; half of it each way.
    pub rtt: Duration,
    /// Megabits a second, each way; 0 for no cap. What counts are IP packets with their headers.
    pub mbit: u32,
    /// The share of packets that get lost, 0 to 1, each way.
    pub loss: f64,
    /// Which packets get lost.
    pub seed: u64,
}

impl Shape {
    /// Nothing between the two ends.
    pub const NOTHING: Self = Self {
        rtt: Duration::ZERO,
        mbit: 0,
        loss: 0.0,
        seed: 0,
    };

    /// Whether packets would go through as if there were no link.
    pub fn is_nothing(&self) -> bool {
        self.rtt.is_zero() && self.mbit == 0 && self.loss <= 0.0
    }

    /// How many bytes may wait for the capped line before packets are dropped: what is on its way
    /// in one round trip, at least 1 MiB.
    pub fn buffer_max(&self) -> u64 {
        let on_the_way = self.rtt.as_secs_f64() * f64::from(self.mbit) * 1e6 / 8.0;
        (on_the_way as u64).max(1 << 20)
    }

    /// How long this many bytes keep the line busy.
    fn time_for(&self, bytes: u64) -> Duration {
        match u64::from(self.mbit) {
            0 => Duration::ZERO,
            mbit => Duration::from_nanos(bytes * 8 * 1000 / mbit),
        }
    }
}

/// One direction. A queue that drops what does not fit (drop-tail) feeds a line that sends one
/// packet after another and then takes its time; loss happens on the line.
#[derive(Debug)]
pub struct Line {
    shape: Shape,
    /// When the last bit of what has been taken leaves.
    busy_until: Option<Instant>,
    /// When the last packet arrives: none overtakes it, even if the line becomes shorter.
    last_arrival: Option<Instant>,
    dice: u64,
}

impl Line {
    /// A line with its own losses: two of the same salt lose the same packets.
    pub fn new(shape: Shape, salt: u64) -> Self {
        Self {
            shape,
            busy_until: None,
            last_arrival: None,
            dice: shape.seed ^ salt.wrapping_mul(0xa076_1d64_78bd_642f),
        }
    }

    /// From now on it is like this; what is on its way arrives when it would have.
    pub fn reshape(&mut self, shape: Shape) {
        if shape.seed != self.shape.seed {
            self.dice ^= shape.seed ^ self.shape.seed;
        }
        self.shape = shape;
    }

    /// When this packet of so many segments arrives, and which of them do not: none is named where
    /// all do. None if nothing arrives.
    pub fn send(
        &mut self,
        now: Instant,
        bytes: u64,
        segments: u64,
    ) -> Option<(Instant, Vec<bool>)> {
        let free = self.busy_until.map_or(now, |busy| busy.max(now));
        let waits = free - now;
        if self.shape.mbit > 0 && waits > self.shape.time_for(self.shape.buffer_max()) {
            return None;
        }
        let gone = free + self.shape.time_for(bytes);
        self.busy_until = Some(gone);
        let lost = self.losses(segments);
        if !lost.is_empty() && lost.iter().all(|lost| *lost) {
            return None;
        }
        let mut arrival = gone + self.shape.rtt / 2;
        if let Some(last) = self.last_arrival {
            arrival = arrival.max(last);
        }
        self.last_arrival = Some(arrival);
        Some((arrival, lost))
    }

    /// Which segments get lost; empty if none.
    fn losses(&mut self, segments: u64) -> Vec<bool> {
        if self.shape.loss <= 0.0 {
            return Vec::new();
        }
        let lost: Vec<bool> = (0..segments).map(|_| self.is_lost()).collect();
        if lost.contains(&true) {
            lost
        } else {
            Vec::new()
        }
    }

    /// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
    fn is_lost(&mut self) -> bool {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 53 bits are what a float holds exactly.
        ((z >> 11) as f64) / ((1_u64 << 53) as f64) < self.shape.loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        rtt: Duration::from_millis(20),
        mbit: 1000,
        loss: 0.0,
        seed: 1,
    };

    fn arrival(line: &mut Line, now: Instant, bytes: u64) -> Option<Instant> {
        line.send(now, bytes, 1).map(|(arrival, _)| arrival)
    }

    #[test]
    fn a_packet_takes_half_the_round_trip_and_the_time_of_its_bits() {
        let now = Instant::now();
        let mut line = Line::new(SHAPE, 0);
        let first = now + Duration::from_millis(10) + Duration::from_micros(12);
        assert_eq!(arrival(&mut line, now, 1500), Some(first));
        assert_eq!(
            arrival(&mut line, now, 1500),
            Some(first + Duration::from_micros(12)),
            "the second waits for the first"
        );
        let later = now + Duration::from_secs(1);
        assert_eq!(
            arrival(&mut line, later, 0),
            Some(later + Duration::from_millis(10)),
            "an idle line saves nothing up"
        );
    }

    #[test]
    fn what_does_not_fit_into_the_buffer_is_dropped_until_there_is_room() {
        let now = Instant::now();
        let mut line = Line::new(SHAPE, 0);
        let mut taken = 0;
        while arrival(&mut line, now, 50_000).is_some() {
            taken += 50_000;
        }
        let most = SHAPE.buffer_max();
        assert_eq!(most, 2_500_000);
        assert!((most..=most + 50_000).contains(&taken), "{taken}");
        let later = now + Duration::from_millis(1);
        assert!(arrival(&mut line, later, 50_000).is_some());
    }

    #[test]
    fn without_a_cap_nothing_waits() {
        let now = Instant::now();
        let mut line = Line::new(Shape { mbit: 0, ..SHAPE }, 0);
        for _ in 0..1000 {
            assert_eq!(arrival(&mut line, now, 65_535), Some(now + SHAPE.rtt / 2));
        }
    }

    #[test]
    fn a_line_that_becomes_shorter_changes_no_order() {
        let now = Instant::now();
        let mut line = Line::new(Shape { mbit: 0, ..SHAPE }, 0);
        let first = arrival(&mut line, now, 100);
        line.reshape(Shape {
            rtt: Duration::ZERO,
            mbit: 0,
            ..SHAPE
        });
        assert_eq!(arrival(&mut line, now, 100), first);
    }

    #[test]
    fn a_large_packet_loses_the_segments_that_would_be_lost_one_by_one() {
        let now = Instant::now();
        let shape = Shape { loss: 0.3, ..SHAPE };
        let [mut whole, mut single] = [Line::new(shape, 0), Line::new(shape, 0)];
        for _ in 0..100 {
            let lost = match whole.send(now, 0, 4) {
                Some((_, lost)) if lost.is_empty() => vec![false; 4],
                Some((_, lost)) => lost,
                None => vec![true; 4],
            };
            let one_by_one: Vec<bool> = (0..4)
                .map(|_| arrival(&mut single, now, 0).is_none())
                .collect();
            assert_eq!(lost, one_by_one);
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_packets_and_as_many_as_asked_for() {
        let losses = |seed, salt| -> Vec<bool> {
            let now = Instant::now();
            let shape = Shape {
                loss: 0.1,
                mbit: 0,
                seed,
                ..SHAPE
            };
            let mut line = Line::new(shape, salt);
            (0..10_000)
                .map(|_| arrival(&mut line, now, 1).is_none())
                .collect()
        };
        let first = losses(7, 0);
        assert_eq!(first, losses(7, 0));
        assert_ne!(first, losses(8, 0));
        assert_ne!(first, losses(7, 1), "the two directions differ");
        let lost = first.iter().filter(|lost| **lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
    }
}
