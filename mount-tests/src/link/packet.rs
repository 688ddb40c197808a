//! What a packet says, and the packet that ends a connection. Pure bytes.

use std::net::Ipv4Addr;

/// virtio's header before each packet of the TUN device (virtio 1.2, 5.1.6): flags, kind of
/// segments, length of the headers, size of a segment, and where the checksum goes.
pub const VNET: usize = 10;

/// The largest IP packet, after virtio's header.
pub const PACKET_MAX: usize = VNET + 65_535;

/// What matters here of an IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// How many packets it is on a real wire: the kernel hands over many segments as one.
    pub segments: u64,
    /// Bytes on a real wire, each segment with its IP and TCP headers, without Ethernet's.
    pub bytes: u64,
    /// None if it is not TCP.
    pub tcp: Option<Tcp>,
}

/// What matters here of a TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub from: End,
    pub to: End,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Bytes of payload.
    pub payload: u32,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    pub address: Ipv4Addr,
    pub port: u16,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
const PSH: u8 = 8;
pub const ACK: u8 = 16;
const CWR: u8 = 128;

impl Tcp {
    /// The number that follows this packet's last; SYN and FIN count as one.
    pub fn end(&self) -> u32 {
        let marks = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.payload).wrapping_add(marks)
    }

    /// Whether it has this flag.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Reads a packet with virtio's header; None if it is not IPv4.
pub fn parse(raw: &[u8]) -> Option<Packet> {
    let (vnet, ip) = raw.split_at_checked(VNET)?;
    let length = ip.len() as u64;
    let one = Packet {
        segments: 1,
        bytes: length,
        tcp: None,
    };
    if ip.len() < 20 || ip[0] >> 4 != 4 {
        return None;
    }
    let ip_header = usize::from(ip[0] & 15) * 4;
    let fragment = u16_at(ip, 6) & 0x1fff;
    if ip[9] != TCP || fragment != 0 || ip.len() < ip_header + 20 {
        return Some(one);
    }
    let tcp = &ip[ip_header..];
    let headers = ip_header + usize::from(tcp[12] >> 4) * 4;
    let payload = ip.len().saturating_sub(headers) as u64;
    let segment = u64::from(u16::from_ne_bytes([vnet[4], vnet[5]]));
    let segments = if vnet[1] == 0 || segment == 0 {
        1
    } else {
        payload.div_ceil(segment).max(1)
    };
    Some(Packet {
        segments,
        bytes: length + (segments - 1) * headers as u64,
        tcp: Some(Tcp {
            from: End {
                address: address_at(ip, 12),
                port: u16_at(tcp, 0),
            },
            to: End {
                address: address_at(ip, 16),
                port: u16_at(tcp, 2),
            },
            seq: u32_at(tcp, 4),
            ack: u32_at(tcp, 8),
            flags: tcp[13],
            payload: u32::try_from(payload).unwrap_or(0),
        }),
    })
}

/// What is left of a large TCP packet when these of its segments are lost: a packet for each run of
/// segments that are not, as the kernel would have cut it (its documentation,
/// networking/segmentation-offloads.rst).
pub fn without(raw: &[u8], lost: &[bool]) -> Vec<Vec<u8>> {
    let ip_header = usize::from(raw[VNET] & 15) * 4;
    let tcp = VNET + ip_header;
    let (head, payload) = raw.split_at(tcp + usize::from(raw[tcp + 12] >> 4) * 4);
    let size = usize::from(u16::from_ne_bytes([raw[4], raw[5]]));
    let mut parts = Vec::new();
    let mut first = 0;
    for run in lost.split(|lost| *lost) {
        let after = first + run.len();
        if !run.is_empty() {
            let end = (after * size).min(payload.len());
            let mut part = [head, &payload[first * size..end]].concat();
            let is_last = after == lost.len();
            if run.len() == 1 {
                // No segments any more, so no size of one.
                part[1] = 0;
                part[4..6].fill(0);
            }
            amend(&mut part, ip_header, first, size, is_last);
            parts.push(part);
        }
        first = after + 1;
    }
    parts
}

/// Makes the headers fit a part of a packet that begins with its `first`-th segment.
fn amend(part: &mut [u8], ip_header: usize, first: usize, size: usize, is_last: bool) {
    let ip = &mut part[VNET..];
    let length = ip.len();
    put_u16(ip, 2, length as u16);
    put_u16(ip, 4, u16_at(ip, 4).wrapping_add(first as u16));
    put_u16(ip, 10, 0);
    let sum = checksum(&ip[..ip_header], 0);
    put_u16(ip, 10, sum);
    let seq = u32_at(ip, ip_header + 4).wrapping_add((first * size) as u32);
    ip[ip_header + 4..ip_header + 8].copy_from_slice(&seq.to_be_bytes());
    if !is_last {
        ip[ip_header + 13] &= !(FIN | PSH);
    }
    if first > 0 {
        ip[ip_header + 13] &= !CWR;
    }
    // The sum of addresses, protocol and length is all that the kernel has put there: the rest is
    // left to the device, which says so in virtio's header.
    let sum = !checksum(&ip[12..20], u32::from(TCP) + (length - ip_header) as u32);
    put_u16(ip, ip_header + 16, sum);
}

/// A packet that resets a connection (RFC 9293, 3.10.7): it counts only if `seq` is the very
/// number that `to` expects, or, while `to` still connects, if `ack` is what it sent.
pub fn reset(from: End, to: End, seq: u32, ack: u32) -> Vec<u8> {
    let mut ip = [0_u8; 40];
    ip[0] = 0x45;
    ip[3] = 40;
    ip[8] = 64;
    ip[9] = TCP;
    ip[12..16].copy_from_slice(&from.address.octets());
    ip[16..20].copy_from_slice(&to.address.octets());
    ip[20..22].copy_from_slice(&from.port.to_be_bytes());
    ip[22..24].copy_from_slice(&to.port.to_be_bytes());
    ip[24..28].copy_from_slice(&seq.to_be_bytes());
    ip[28..32].copy_from_slice(&ack.to_be_bytes());
    ip[32] = 5 << 4;
    ip[33] = RST | ACK;
    let sum = checksum(&ip[..20], 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // TCP's sum also covers the addresses, the protocol and the length.
    let sum = checksum(&ip[12..], u32::from(TCP) + 20);
    ip[36..38].copy_from_slice(&sum.to_be_bytes());
    let mut raw = vec![0; VNET];
    raw.extend_from_slice(&ip);
    raw
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8], and: u32) -> u16 {
    let mut sum = and;
    for pair in bytes.chunks_exact(2) {
        sum += u32::from(u16_at(pair, 0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_u16(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn address_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32_at(bytes, at))
}

/// IP's number of it.
const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const A: End = End {
        address: Ipv4Addr::new(10, 77, 0, 1),
        port: 40_000,
    };
    const B: End = End {
        address: Ipv4Addr::new(10, 77, 0, 2),
        port: 22,
    };

    #[test]
    fn a_reset_reads_as_it_was_written_and_its_sums_are_right() {
        let raw = reset(A, B, 0xffff_fff0, 7);
        let packet = parse(&raw).unwrap();
        assert_eq!((packet.segments, packet.bytes), (1, 40));
        let tcp = packet.tcp.unwrap();
        assert_eq!((tcp.from, tcp.to), (A, B));
        assert_eq!((tcp.seq, tcp.ack, tcp.payload), (0xffff_fff0, 7, 0));
        assert!(tcp.is(RST));
        let ip = &raw[VNET..];
        assert_eq!(checksum(&ip[..20], 0), 0);
        assert_eq!(checksum(&ip[12..], u32::from(TCP) + 20), 0);
    }

    #[test]
    fn a_large_packet_counts_as_the_segments_that_it_is_on_a_wire() {
        let mut raw = reset(A, B, 1, 2);
        raw.resize(raw.len() + 3000, 0);
        raw[1] = 1;
        raw[4..6].copy_from_slice(&1460_u16.to_ne_bytes());
        let packet = parse(&raw).unwrap();
        assert_eq!((packet.segments, packet.bytes), (3, 3000 + 3 * 40));
        assert_eq!(packet.tcp.unwrap().payload, 3000);
    }

    #[test]
    fn what_is_left_of_a_large_packet_are_the_runs_of_its_segments() {
        let mut raw = reset(A, B, 1000, 2);
        let payload: Vec<u8> = (0_u8..=255).cycle().take(3500).collect();
        raw.extend(&payload);
        raw[0..2].fill(1);
        raw[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
        raw[VNET + 33] = ACK | PSH | FIN | CWR;
        let parts = without(&raw, &[false, false, true, false]);
        let told: Vec<_> = parts
            .iter()
            .map(|part| {
                let packet = parse(part).unwrap();
                let tcp = packet.tcp.unwrap();
                assert_eq!(checksum(&part[VNET..VNET + 20], 0), 0);
                (packet.segments, tcp.seq, tcp.payload, tcp.flags, part[1])
            })
            .collect();
        assert_eq!(
            told,
            [
                (2, 1000, 2000, ACK | CWR, 1),
                (1, 4000, 500, ACK | PSH | FIN, 0)
            ]
        );
        assert_eq!(parts[0][VNET + 40..], payload[..2000]);
        assert_eq!(parts[1][VNET + 40..], payload[3000..]);
        assert!(without(&raw, &[true; 4]).is_empty());
    }

    #[test]
    fn what_is_cut_off_is_no_packet_or_has_no_tcp() {
        let raw = reset(A, B, 1, 2);
        assert_eq!(parse(&raw[..VNET + 19]), None);
        assert_eq!(parse(&raw[..VNET + 39]).unwrap().tcp, None);
        assert_eq!(parse(&[]), None);
    }
}
