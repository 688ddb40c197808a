//! How much of everything there is. What sshfs needs a round trip for, each, there is less of on
//! a link with delay, or a run would take hours; every system gets the same.

use std::time::Duration;

use super::cli::Cli;

/// Amounts of work.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The large file, MiB. Until a link of 100 ms is full, what it carries in two seconds is lost:
    /// of 1 GiB, which takes nine, that is a fifth.
    pub big_mib: u64,
    /// The file that is copied inside the mount, MiB.
    pub part_mib: u64,
    /// Files of 1 to 16 KiB that are read.
    pub small_files: u32,
    /// Such files that are written or removed, which takes sshfs five times as long.
    pub new_files: u32,
    /// Entries of the wide directory.
    pub wide: u32,
    /// Reads of 4 KiB by a single reader.
    pub single_reads: u32,
    /// Reads of 4 KiB by each of 64 readers: so many that the two round trips before the first hardly count.
    pub shared_reads: u32,
    /// Files in the repository.
    pub git_files: u32,
    /// C files to compile.
    pub sources: u32,
    /// Listings during a copy.
    pub listings: u32,
}

impl Size {
    /// What suits the round trip time, but for what was asked for.
    pub fn of(cli: &Cli) -> Self {
        let mut size = if cli.quick {
            QUICK
        } else if cli.rtt < Duration::from_millis(5) {
            NEAR
        } else if cli.rtt < Duration::from_millis(50) {
            MIDDLE
        } else {
            FAR
        };
        size.small_files = cli.files.unwrap_or(size.small_files);
        size.new_files = cli.files.unwrap_or(size.new_files);
        size.big_mib = cli.big.map_or(size.big_mib, u64::from);
        size.wide = cli.wide.unwrap_or(size.wide);
        size
    }
}

const NEAR: Size = Size {
    big_mib: 1024,
    part_mib: 64,
    small_files: 1000,
    new_files: 1000,
    wide: 100_000,
    single_reads: 2000,
    shared_reads: 100,
    git_files: 300,
    sources: 12,
    listings: 15,
};

const MIDDLE: Size = Size {
    big_mib: 1024,
    part_mib: 64,
    small_files: 400,
    new_files: 150,
    wide: 100_000,
    single_reads: 100,
    shared_reads: 100,
    git_files: 300,
    sources: 12,
    listings: 9,
};

const FAR: Size = Size {
    big_mib: 1024,
    part_mib: 32,
    small_files: 200,
    new_files: 60,
    wide: 100_000,
    single_reads: 30,
    shared_reads: 100,
    git_files: 60,
    sources: 6,
    listings: 5,
};

const QUICK: Size = Size {
    big_mib: 64,
    part_mib: 16,
    small_files: 80,
    new_files: 80,
    wide: 10_000,
    single_reads: 30,
    shared_reads: 10,
    git_files: 40,
    sources: 4,
    listings: 5,
};
