//! The bytes of a journal: a header that says whose it is, then one record for each change.
//!
//! A record is its length (u32), the complement of that, a checksum of what follows (u64), and
//! the body: the kind of the change and its paths, with a NUL between two. Numbers are little
//! endian. So a file that ends too early ends in a record whose length is known to be right, and
//! can be told from one whose bytes were changed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::fs::cow::groups::Change;

/// The format and its version. A program that does not know the version sets the file aside.
const MAGIC: &[u8] = b"sftpfs copies 1\n";

/// Bytes before the body of a record.
const PREFIX_SIZE: usize = 4 + 4 + 8;

/// Bytes of a path. Linux takes 4 KiB, Windows 32 Ki characters.
const PATH_SIZE_MAX: usize = 32 << 10;

/// A kind and two paths with a NUL between.
const BODY_SIZE_MAX: usize = 1 + PATH_SIZE_MAX + 1 + PATH_SIZE_MAX;

/// What is read from the file at a time.
const CHUNK_SIZE: usize = 64 << 10;

/// What a journal begins with.
pub(super) fn header(identity: &str) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(record(identity.as_bytes()));
    header
}

/// A change as a record; `None` if a path in it is empty, too long, or has a NUL.
pub(super) fn encode(change: &Change) -> Option<Vec<u8>> {
    let (kind, path, second) = match change {
        Change::Joined { source, copy } => (b'J', source, Some(copy)),
        Change::Linked { existing, new } => (b'K', existing, Some(new)),
        Change::Left(path) => (b'L', path, None),
        Change::OthersLeft(path) => (b'O', path, None),
        Change::Removed(path) => (b'D', path, None),
        Change::Renamed { from, to } => (b'R', from, Some(to)),
        Change::Temporary(path) => (b'T', path, None),
        Change::TemporaryGone(path) => (b'G', path, None),
    };
    let fits = |path: &Bytes| {
        let size = 1..=PATH_SIZE_MAX;
        size.contains(&path.len()) && !path.contains(&0)
    };
    if !std::iter::once(path).chain(second).all(fits) {
        return None;
    }
    let mut body = vec![kind];
    body.extend_from_slice(path);
    if let Some(second) = second {
        body.push(0);
        body.extend_from_slice(second);
    }
    Some(record(&body))
}

fn record(body: &[u8]) -> Vec<u8> {
    // A body is far below 4 GiB; were it not, no reader would take it.
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut record = size.to_le_bytes().to_vec();
    record.extend((!size).to_le_bytes());
    record.extend(checksum(body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

fn decode(body: &[u8]) -> Option<Change> {
    let (kind, paths) = body.split_first()?;
    let mut paths = paths.split(|byte| *byte == 0);
    let mut next = || {
        let path = paths.next().filter(|path| !path.is_empty())?;
        Some(Bytes::copy_from_slice(path))
    };
    let change = match kind {
        b'J' => Change::Joined {
            source: next()?,
            copy: next()?,
        },
        b'K' => Change::Linked {
            existing: next()?,
            new: next()?,
        },
        b'L' => Change::Left(next()?),
        b'O' => Change::OthersLeft(next()?),
        b'D' => Change::Removed(next()?),
        b'R' => Change::Renamed {
            from: next()?,
            to: next()?,
        },
        b'T' => Change::Temporary(next()?),
        b'G' => Change::TemporaryGone(next()?),
        _ => return None,
    };
    paths.next().is_none().then_some(change)
}

/// FNV-1a of 64 bits: each step keeps different states different, so no change of a single byte
/// goes unseen. Against accidents, not against someone who may write the file.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How far a journal could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last whole record ends, in bytes from the beginning of the file.
    pub end: u64,
    pub rest: Rest,
}

/// What follows the last whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// A record that is half there: it is being written, or its writer died. Or zeros, which is how
    /// a file system tells after a power failure that it did not get the bytes.
    Torn,
    /// Bytes that nobody wrote there.
    Damaged,
}

/// Reads the changes that stand in a file from the offset `from` on, where a record begins.
pub(super) fn scan(file: &File, from: u64, mut each: impl FnMut(Change)) -> io::Result<Scan> {
    let (mut unread, mut end) = (Vec::new(), from);
    loop {
        let is_last = !read_more(file, end, &mut unread)?;
        let mut rest = unread.as_slice();
        loop {
            match first(rest) {
                First::Whole { change, after } => {
                    each(change);
                    end += distance(rest, after);
                    rest = after;
                }
                First::Part => break,
                First::Damaged if is_zero(file, end)? => return Ok(Scan::new(end, Rest::Torn)),
                First::Damaged => return Ok(Scan::new(end, Rest::Damaged)),
            }
        }
        if is_last {
            let is_empty = rest.is_empty();
            let rest = if is_empty { Rest::Nothing } else { Rest::Torn };
            return Ok(Scan::new(end, rest));
        }
        unread = rest.to_vec();
    }
}

impl Scan {
    fn new(end: u64, rest: Rest) -> Self {
        Self { end, rest }
    }
}

enum First<'a> {
    Whole { change: Change, after: &'a [u8] },
    Part,
    Damaged,
}

fn first(bytes: &[u8]) -> First<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_SIZE>() else {
        return First::Part;
    };
    let number = |at: usize| {
        let bytes = prefix.iter().skip(at).take(4).rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let size = usize::try_from(number(0)).unwrap_or(usize::MAX);
    if number(0) ^ number(4) != u64::from(u32::MAX) || size > BODY_SIZE_MAX {
        return First::Damaged;
    }
    let Some((body, after)) = rest.split_at_checked(size) else {
        return First::Part;
    };
    if checksum(body) != number(8) | number(12) << 32 {
        return First::Damaged;
    }
    decode(body).map_or(First::Damaged, |change| First::Whole { change, after })
}

/// Adds what follows in the file, of which `unread` is known from `offset` on; false at its end.
fn read_more(file: &File, offset: u64, unread: &mut Vec<u8>) -> io::Result<bool> {
    let known = unread.len();
    unread.resize(known + CHUNK_SIZE, 0);
    let new = unread.get_mut(known..).unwrap_or_default();
    let size = file.read_at(new, offset + known as u64)?;
    unread.truncate(known + size);
    Ok(size > 0)
}

fn distance(before: &[u8], after: &[u8]) -> u64 {
    before.len().saturating_sub(after.len()) as u64
}

/// Nothing but zeros from `offset` to the end of the file.
fn is_zero(file: &File, mut offset: u64) -> io::Result<bool> {
    let mut bytes = Vec::new();
    while read_more(file, offset, &mut bytes)? {
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += bytes.len() as u64;
        bytes.clear();
    }
    Ok(true)
}
