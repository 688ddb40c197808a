//! The primitives of the wire: integers are big-endian, a string is a 32-bit length and its bytes
//! (draft section 3, RFC 4251 section 5).
//!
//! **Invariant:** a [`Reader`] gives only bytes that are there, as slices of the packet, and a
//! list is allocated only when the packet is long enough to hold it.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::packet::Encoded;

/// A packet that is not what the protocol allows; what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Takes values off the front of a packet.
///
/// Bytes that are left over at the end are no error: OpenSSH ignores them in both directions, and
/// some servers append fields of later versions.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(packet: Bytes) -> Self {
        Self { rest: packet }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.rest.try_get_u8().map_err(|_| ENDS_EARLY)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.rest.try_get_u32().map_err(|_| ENDS_EARLY)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.rest.try_get_u64().map_err(|_| ENDS_EARLY)
    }

    /// A string: a slice of the packet, which it keeps alive.
    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| ENDS_EARLY)?;
        if len > self.rest.len() {
            return Err(Malformed("a string is longer than its packet"));
        }
        Ok(self.rest.split_to(len))
    }

    /// `count` items of which none is shorter than `size_min` bytes on the wire.
    pub(super) fn list<T>(
        &mut self,
        count: u32,
        size_min: usize,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(count).map_err(|_| ENDS_EARLY)?;
        if count > self.rest.len() / size_min {
            return Err(Malformed(
                "a list announces more entries than its packet holds",
            ));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Items up to the end of the packet.
    pub(super) fn list_to_end<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let mut items = Vec::new();
        while !self.is_empty() {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A name and a value, as INIT, VERSION and ATTRS carry them.
    pub(super) fn pair(&mut self) -> Result<(Bytes, Bytes), Malformed> {
        Ok((self.string()?, self.string()?))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All bytes that are left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }
}

const ENDS_EARLY: Malformed = Malformed("a packet ends early");

/// Puts values one after the other; each method hands the writer on.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// Begins a frame: room for its length, then the packet's type.
    pub(super) fn frame(kind: u8) -> Self {
        let mut bytes = BytesMut::with_capacity(ROOM);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        Self { bytes }
    }

    /// Begins plain bytes: the body of an extension, or a string made of several values.
    pub(super) fn body() -> Self {
        Self {
            bytes: BytesMut::with_capacity(ROOM),
        }
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.bytes.put_u32(value);
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.bytes.put_u64(value);
        self
    }

    pub(super) fn string(self, string: &[u8]) -> Self {
        self.u32(length(string.len())).raw(string)
    }

    /// Bytes as they are, without a length.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.put_slice(bytes);
        self
    }

    pub(super) fn pairs(self, pairs: &[(Bytes, Bytes)]) -> Self {
        pairs.iter().fold(self, |writer, (name, value)| {
            writer.string(name).string(value)
        })
    }

    /// Ends plain bytes.
    pub(super) fn finish_body(self) -> Bytes {
        self.bytes.freeze()
    }

    /// Ends a frame.
    pub(super) fn finish(self) -> Encoded {
        self.finish_before(None)
    }

    /// Ends a frame with a string that is handed on without a copy.
    pub(super) fn finish_with(self, payload: &Bytes) -> Encoded {
        self.u32(length(payload.len()))
            .finish_before(Some(payload.clone()))
    }

    fn finish_before(mut self, payload: Option<Bytes>) -> Encoded {
        let following = payload.as_ref().map_or(0, Bytes::len);
        let len = (self.bytes.len() + following).saturating_sub(LENGTH_SIZE);
        if let Some(prefix) = self.bytes.first_chunk_mut() {
            *prefix = length(len).to_be_bytes();
        }
        Encoded {
            head: self.bytes.freeze(),
            payload,
        }
    }
}

/// The bytes of the length before a frame.
pub(super) const LENGTH_SIZE: usize = 4;

/// Holds every request with paths of common length; longer ones grow.
const ROOM: usize = 128;

/// A length for the wire. Nothing near 4 GiB is ever sent (the largest frame is far below 1 MiB);
/// if it were, the other side would find the packet malformed rather than see other bytes.
pub(super) fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
