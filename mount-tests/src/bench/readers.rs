//! `mount-tests random-reads FILE READERS COUNT REFERENCE`: so many threads, each with a file
//! descriptor of its own, read so many blocks of 4 KiB at random places and compare them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use super::content::Dice;

/// The word on the command line.
pub const READERS: &str = "random-reads";

/// Does what the command line says. Exit code 1: a read failed or gave wrong bytes.
pub fn be_the_readers(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    let number = |at: usize| words.get(at).and_then(|w| w.to_str()?.parse::<u64>().ok());
    let (Some(file), Some(readers), Some(count), Some(reference)) =
        (words.first(), number(1), number(2), words.get(3))
    else {
        eprintln!("usage: mount-tests {READERS} FILE READERS COUNT REFERENCE");
        return ExitCode::from(2);
    };
    let (file, reference) = (PathBuf::from(file), PathBuf::from(reference));
    match read_all(&file, readers, count, &reference) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn read_all(file: &Path, readers: u64, count: u64, reference: &Path) -> io::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|seed| scope.spawn(move || read(file, seed, count, reference)))
            .collect();
        for thread in threads {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))?;
        }
        Ok(())
    })
}

fn read(file: &Path, seed: u64, count: u64, reference: &Path) -> io::Result<()> {
    let (file, reference) = (File::open(file)?, File::open(reference)?);
    let blocks = reference.metadata()?.len() / BLOCK as u64;
    let mut dice = Dice::new(seed + 1);
    let (mut got, mut wanted) = ([0; BLOCK], [0; BLOCK]);
    for _ in 0..count {
        let offset = dice.below(blocks.max(1)) * BLOCK as u64;
        file.read_exact_at(&mut got, offset)?;
        reference.read_exact_at(&mut wanted, offset)?;
        if got != wanted {
            return Err(io::Error::other(format!("wrong bytes at offset {offset}")));
        }
    }
    Ok(())
}

const BLOCK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_notice_wrong_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        std::fs::write(&good, vec![7; 4 * BLOCK]).unwrap();
        std::fs::write(&bad, vec![8; 4 * BLOCK]).unwrap();
        assert!(read_all(&good, 3, 5, &good).is_ok());
        assert!(read_all(&bad, 3, 5, &good).is_err());
    }
}
