//! fsx, the file system exerciser: random reads, writes, mappings and truncations of one file,
//! every byte compared. From crates.io, the Rust rewrite of Apple's and FreeBSD's program.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::tools;
use crate::case::{Case, Ctx, Suite, case};
use crate::process;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "fsx",
        about: "random reads, writes, mappings and truncations of one file, every byte compared",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(fsx_finds_no_difference_with_the_first_seed).within_s(900),
        case(fsx_finds_no_difference_with_the_second_seed).within_s(900),
        case(fsx_finds_no_difference_with_the_third_seed).within_s(900),
    ]
}

fn fsx_finds_no_difference_with_the_first_seed(ctx: &Ctx) {
    exercise(ctx, 1);
}

fn fsx_finds_no_difference_with_the_second_seed(ctx: &Ctx) {
    exercise(ctx, 2);
}

fn fsx_finds_no_difference_with_the_third_seed(ctx: &Ctx) {
    exercise(ctx, 3);
}

fn exercise(ctx: &Ctx, seed: u64) {
    let fsx = tools::installed(ctx, "fsx", "0.3.2");
    let config = ctx.lab.fresh("fsx.toml");
    fs::write(&config, CONFIG).unwrap();
    // A fresh name each time: fsx' own artifacts stand beside it and tell of a failure.
    let operations = if ctx.full { "100000" } else { "10000" };
    let mut command = Command::new(fsx);
    command
        .arg("-f")
        .arg(&config)
        .args(["-N", operations, "-S", &seed.to_string(), "-P"]);
    command.arg(&ctx.lab.dir).arg(ctx.dir.join("exercised"));
    let finished = process::run(&mut command, Duration::from_secs(880));
    assert!(
        finished.ok(),
        "seed {seed}: {}: {}",
        finished.ending(),
        process::tail(&finished.said(), 40)
    );
    same_on_the_server(&ctx.dir.join("exercised"), &ctx.behind.join("exercised"));
}

fn same_on_the_server(here: &Path, there: &Path) {
    assert!(
        fs::read(here).unwrap() == fs::read(there).unwrap(),
        "the server has other bytes"
    );
}

/// Everything fsx can do, but for two: `punch_hole`, as SFTP has no request for it, and
/// `blockmode`, which is for devices. The file is longer than two requests of 255 KiB.
const CONFIG: &str = "\
flen = 600000
[opsize]
max = 80000
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 1
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";
