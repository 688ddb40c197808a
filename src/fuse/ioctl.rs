//! The mount's own ioctl(2)s: bytes to a call and back. See [`crate::ioctl`].

use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use crate::error::Result;
use crate::fs::{Caller, CopyEntries, Fh, Filesystem, Ino};
use crate::ioctl;

/// Does what an ioctl asks for. Gives its return value and what goes into the caller's buffer.
///
/// # Errors
/// ENOTTY for one that is not ours, as ioctl(2) has it.
pub(super) async fn answer(
    fs: &Arc<Filesystem>,
    (ino, fh): (Ino, Fh),
    command: u32,
    data: &[u8],
    caller: Caller,
) -> Result<(i32, Vec<u8>)> {
    match command {
        ioctl::CLONE => {
            let [source, from, len, to] = numbers(data).ok_or(Errno::EINVAL)?;
            let source = fs.resolve(Ino(source));
            fs.may_read(source, caller).await?;
            fs.clone_range(source, fh, (from, to), len).await?;
            Ok((0, Vec::new()))
        }
        ioctl::INFO => {
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            let mut told = Vec::new();
            for (key, value) in fs.info(ino, name).await? {
                let len = key.len() + value.len() + 2;
                if told.len() + len > ioctl::INFO_SIZE as usize {
                    break;
                }
                told.extend_from_slice(key.as_bytes());
                told.push(0);
                told.extend_from_slice(&value);
                told.push(0);
            }
            Ok((i32::try_from(told.len()).unwrap_or(0), told))
        }
        ioctl::COPY => {
            let wanted = copy_entries(fs, data).ok_or(Errno::EINVAL)?;
            let outcomes = fs.copy_entries(ino, &wanted, caller).await?;
            let count = i32::try_from(outcomes.len()).unwrap_or(0);
            let results = outcomes.into_iter().flat_map(|outcome| {
                let outcome = outcome.map_err(|errno| errno as i32);
                ioctl::CopyResult { outcome }.encode()
            });
            Ok((count, results.collect()))
        }
        _ => Err(Errno::ENOTTY.into()),
    }
}

/// What COPY asks for: a header, and as many names as it says.
fn copy_entries(fs: &Filesystem, data: &[u8]) -> Option<CopyEntries> {
    let (header, names) = ioctl::CopyHeader::decode(data)?;
    let count = usize::try_from(header.names).ok()?;
    // What comes behind the last NUL is no name.
    let mut texts = names.split_inclusive(|byte| *byte == 0);
    let names = texts.by_ref().map_while(|name| name.strip_suffix(b"\0"));
    let names: Vec<Bytes> = names.take(count).map(Bytes::copy_from_slice).collect();
    let is_known = header.flags & !ioctl::COPY_PRESERVE == 0;
    let is_whole = names.len() == count && count <= ioctl::COPY_NAMES_MAX;
    (is_known && is_whole).then(|| CopyEntries {
        source: fs.resolve(Ino(header.source)),
        names,
        preserve: header.flags & ioctl::COPY_PRESERVE != 0,
        umask: header.umask & 0o777,
    })
}

fn numbers(data: &[u8]) -> Option<[u64; 4]> {
    let mut numbers = [0; 4];
    let (words, rest) = data.as_chunks::<8>();
    if words.len() != numbers.len() || !rest.is_empty() {
        return None;
    }
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u64::from_ne_bytes(*word);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_numbers_are_four_words_and_nothing_else_is() {
        let words: Vec<u8> = [1_u64, 2, 3, 4]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(numbers(&words), Some([1, 2, 3, 4]));
        assert_eq!(numbers(&words[1..]), None);
        assert_eq!(numbers(&[words.clone(), vec![0]].concat()), None);
    }
}
