//! fio(1), which writes blocks that tell where they belong, and reads them back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::watch::Steps;
use super::works::{Arena, Sources, must};
use crate::process;

/// Whether it is to be had.
pub(super) fn is_installed() -> bool {
    process::run(
        Command::new("fio").arg("--version"),
        Duration::from_secs(10),
    )
    .ok()
}

/// Writes with pwrite(2) and through a mapping; what is there is then read on the server, too.
pub(super) fn fio_verify(arena: &Arena, steps: &Steps) -> Result<(), String> {
    if !arena.sources.fio {
        return Ok(());
    }
    steps.next("fio writes, and verifies now and then");
    let once = ["--rw=randwrite", "--bs=5k", "--size=5m", "--ioengine=psync"];
    let written = arena.dir.join("blocks");
    let now_and_then = ["--verify_backlog=50", "--fsync=100", "--end_fsync=1"];
    fio(arena, &written, &[&once[..], &now_and_then].concat())?;
    steps.next("fio verifies what the server has");
    let behind = arena.behind.join("blocks");
    fio(arena, &behind, &[&once[..], &["--verify_only"]].concat())?;
    steps.next("fio verifies it in the mount");
    fio(arena, &written, &[&once[..], &["--verify_only"]].concat())?;
    for engine in ["psync", "mmap"] {
        steps.next(format!("fio reads and writes by {engine}"));
        let engine = format!("--ioengine={engine}");
        let mixed = [
            "--rw=randrw",
            "--bsrange=512-96k",
            "--blockalign=512",
            "--size=3m",
            &engine,
        ];
        fio(arena, &arena.dir.join("mixed"), &mixed)?;
    }
    Ok(())
}

fn fio(arena: &Arena, path: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("fio");
    command.args([
        "--name=verified",
        "--thread",
        "--fallocate=none",
        "--verify=crc32c",
        "--verify_fatal=1",
        // It would be a file in the current directory.
        "--verify_state_save=0",
    ]);
    command.arg(format!("--filename={}", path.display()));
    command.arg(format!("--randseed={}", arena.seed));
    command.args(words).current_dir(&arena.sources.scratch);
    must(&mut command)
}

/// Why a work would do nothing.
pub(super) fn lacking(sources: &Sources, work: &str) -> Option<&'static str> {
    (work == NAME && !sources.fio).then_some("fio is not installed")
}

/// Of the work.
pub(super) const NAME: &str = "fio_verify";
