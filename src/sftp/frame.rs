//! Cuts the byte stream into frames: a 32-bit length, then that many bytes (draft section 3).
//!
//! Fed through [`Frames::buffer`], emptied through [`Frames::next`]. A frame is a slice of the
//! buffer it was read into, never copied, and keeps that whole buffer alive.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;
use super::wire::LENGTH_SIZE;

/// The bytes read so far that no frame has taken yet.
#[derive(Debug)]
pub struct Frames {
    bytes: BytesMut,
    frame_max: usize,
    /// The last frame's size with its length: what to expect of the next one. A sequential read
    /// is many frames of one size, and a buffer that ends with its frame leaves nothing to move.
    last_size: usize,
}

impl Frames {
    /// Frames of at most `frame_max` bytes, the length before them not counted.
    #[must_use]
    pub fn new(frame_max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            frame_max,
            last_size: 0,
        }
    }

    /// Where the next bytes of the stream go, for `AsyncReadExt::read_buf`: a buffer with room.
    ///
    /// A frame whose length is known gets room for all of it at once; that length is at most
    /// `frame_max`, so the other side cannot make us allocate more.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let missing = match self.announced() {
            Ok(Some(len)) => (len + LENGTH_SIZE).saturating_sub(self.bytes.len()),
            Ok(None) | Err(_) => 0,
        };
        let room = self.bytes.capacity() - self.bytes.len();
        if room < missing.max(1) {
            self.bytes
                .reserve(missing.max(self.last_size).max(ROOM_MIN));
        }
        &mut self.bytes
    }

    /// The next complete frame without its length, or `None` until more bytes have come.
    ///
    /// # Errors
    /// A frame that is empty or longer than `frame_max`. The stream is of no use after that.
    #[expect(
        clippy::should_implement_trait,
        reason = "None is not the end, and it can fail"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(len) = self.announced()? else {
            return Ok(None);
        };
        if self.bytes.len() - LENGTH_SIZE < len {
            return Ok(None);
        }
        self.bytes.advance(LENGTH_SIZE);
        self.last_size = len + LENGTH_SIZE;
        Ok(Some(self.bytes.split_to(len).freeze()))
    }

    /// The length of the frame at the front, checked, once its length is there.
    fn announced(&self) -> Result<Option<usize>, Malformed> {
        let Some(prefix) = self.bytes.first_chunk::<LENGTH_SIZE>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len == 0 {
            return Err(Malformed("a frame is empty"));
        }
        if len > self.frame_max {
            return Err(Malformed("a frame is longer than allowed"));
        }
        Ok(Some(len))
    }
}

/// Holds some 500 answers to small requests, or one page of READDIR.
const ROOM_MIN: usize = 16 * 1024;
