//! Any stream of bytes, cut at any places: no panic, the same frames as when it comes whole, and
//! none longer than allowed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sftpfs_fuzz::sftp::Frames;

const FRAME_MAX: usize = 1000;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    let piece = usize::from(piece).max(1);
    assert_eq!(cut(stream.chunks(piece)), cut(stream.chunks(usize::MAX)));
});

/// The frames up to the first that is malformed, and whether there was one.
fn cut<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, bool) {
    let mut frames = Frames::new(FRAME_MAX);
    let mut found = Vec::new();
    for piece in pieces {
        frames.buffer().extend_from_slice(piece);
        loop {
            match frames.next() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    assert!(found.iter().all(|frame| frame.len() <= FRAME_MAX));
    (found, false)
}
