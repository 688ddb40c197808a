//! The daemon is killed (SIGKILL) at a random moment while a program writes: what fsync(2) said is
//! on the disk is there, in the server's file, and `umount` removes the mount.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::random::Random;
use super::place::{Kind, Place};
use crate::case::Ctx;
use crate::mount::is_mounted;
use crate::process;

/// A program that writes and fsyncs until it gets an error. Tells of each fsync that returned 0.
type Writer = fn(&Path, &AtomicU64);

/// Looks at the server's file: all of what the last fsync that returned 0 stood for is there.
type Check = fn(&Path, u64) -> Result<(), String>;

pub(super) fn an_fsync_that_returned_is_on_the_server_when_the_daemon_is_killed(ctx: &Ctx) {
    let ways: [(&str, Writer, Check); 3] = [
        ("append", append, appended),
        ("overwrite", overwrite, overwritten),
        ("new files", make_files, made_files),
    ];
    let mut random = Random::new(ctx.seed ^ 0x9111ed);
    let rounds = if ctx.full { 60 } else { 9 };
    let mut acknowledged = 0;
    for round in 0..rounds {
        let (name, writer, check) = ways[round % ways.len()];
        let kind = *random.pick(&[Kind::Wire, Kind::Tcp]);
        let behind = ctx.behind.join(format!("{round}"));
        fs::create_dir(&behind).unwrap();
        let place = Place::at(ctx, kind, &behind, &[]);
        let patience = Duration::from_millis(20 + random.below(400));
        let what = format!("round {round}, {name}, killed after {patience:?} ({kind:?})");
        acknowledged += kill_while(place, &behind, writer, check, patience, &what);
        fs::remove_dir_all(&behind).unwrap();
    }
    ctx.note(format!("{acknowledged} fsyncs returned in {rounds} rounds"));
    assert!(
        acknowledged > rounds as u64 * 3,
        "too few fsyncs to tell anything"
    );
}

/// How many fsyncs returned.
fn kill_while(
    place: Place,
    behind: &Path,
    writer: Writer,
    check: Check,
    patience: Duration,
    what: &str,
) -> u64 {
    let done = Arc::new(AtomicU64::new(0));
    let (its_done, dir) = (Arc::clone(&done), place.dir.clone());
    let Some(daemon) = place.daemon() else {
        // On a plain directory nobody is killed: the writer ends when it has done enough.
        writer(&dir, &done);
        let count = done.load(Ordering::SeqCst);
        check(behind, count).unwrap();
        return count;
    };
    let thread = std::thread::spawn(move || writer(&dir, &its_done));
    let begun = process::wait_for(Instant::now() + Duration::from_secs(20), || {
        (done.load(Ordering::SeqCst) > 0).then_some(())
    });
    assert!(begun.is_some(), "{what}: no fsync returned at all");
    std::thread::sleep(patience);
    process::signal(daemon, Signal::SIGKILL);
    let ended = process::wait_for(Instant::now() + Duration::from_secs(20), || {
        thread.is_finished().then_some(())
    });
    assert!(
        ended.is_some(),
        "{what}: the program hangs in a mount without a daemon"
    );
    let count = done.load(Ordering::SeqCst);
    removed_by_umount(&place.dir, what);
    // The server may still do what had reached it, which must not take back what is there.
    if let Err(why) = check(behind, count) {
        panic!("{what}: after {count} fsyncs: {why}");
    }
    drop(place);
    count
}

fn removed_by_umount(at: &Path, what: &str) {
    let finished = process::run(Command::new("umount").arg(at), Duration::from_secs(20));
    assert!(finished.ok(), "{what}: umount: {}", finished.said());
    assert!(!is_mounted(at), "{what}: umount left the mount");
}

const RECORD: usize = 3000;
/// On a plain directory, which is fast.
const ENOUGH: u64 = 300;

fn record(number: u64) -> Vec<u8> {
    let mut record = format!("record {number}\n").into_bytes();
    record.extend(Random::new(number).bytes(RECORD - record.len()));
    record
}

fn append(dir: &Path, done: &AtomicU64) {
    let mut options = OpenOptions::new();
    let Ok(mut file) = options.append(true).create(true).open(dir.join("log")) else {
        return;
    };
    for number in 0..ENOUGH {
        let all = file
            .write_all(&record(number))
            .and_then(|()| file.sync_all());
        if all.is_err() {
            return;
        }
        done.store(number + 1, Ordering::SeqCst);
    }
}

fn appended(behind: &Path, count: u64) -> Result<(), String> {
    let found = fs::read(behind.join("log")).map_err(|why| why.to_string())?;
    for number in 0..count {
        let from = usize::try_from(number).unwrap() * RECORD;
        if found.get(from..from + RECORD) != Some(&record(number)[..]) {
            return Err(format!(
                "record {number} is not there ({} bytes)",
                found.len()
            ));
        }
    }
    Ok(())
}

const PLACES: u64 = 4;

fn overwrite(dir: &Path, done: &AtomicU64) {
    let Ok(file) = File::create(dir.join("file")) else {
        return;
    };
    for number in 0..ENOUGH {
        let place = number % PLACES * RECORD as u64;
        let all = file
            .write_all_at(&record(number), place)
            .and_then(|()| file.sync_data());
        if all.is_err() {
            return;
        }
        done.store(number + 1, Ordering::SeqCst);
    }
}

/// Each place has the record of the last fsync, or the one that was being written.
fn overwritten(behind: &Path, count: u64) -> Result<(), String> {
    let found = fs::read(behind.join("file")).map_err(|why| why.to_string())?;
    for number in count.saturating_sub(PLACES)..count {
        let from = usize::try_from(number % PLACES).unwrap() * RECORD;
        let there = found.get(from..from + RECORD);
        let later = number + PLACES == count && is_mixed(there, number, count);
        if there != Some(&record(number)[..]) && !later {
            return Err(format!("record {number} is not there"));
        }
    }
    Ok(())
}

/// The write that was under way may be there in part: every byte is of one or the other.
fn is_mixed(there: Option<&[u8]>, old: u64, new: u64) -> bool {
    let (old, new) = (record(old), record(new));
    there.is_some_and(|there| {
        there
            .iter()
            .enumerate()
            .all(|(index, byte)| *byte == old[index] || *byte == new[index])
    })
}

fn make_files(dir: &Path, done: &AtomicU64) {
    for number in 0..ENOUGH {
        let (new, name) = (dir.join("new"), file_name(dir, number));
        let made = File::create(&new).and_then(|mut file| {
            file.write_all(&record(number))?;
            file.sync_all()?;
            fs::rename(&new, &name)
        });
        if made.is_err() {
            return;
        }
        done.store(number + 1, Ordering::SeqCst);
    }
}

/// A rename that returned has been done; the next one may have been.
fn made_files(behind: &Path, count: u64) -> Result<(), String> {
    for number in 0..count {
        let found =
            fs::read(file_name(behind, number)).map_err(|why| format!("{number}: {why}"))?;
        if found != record(number) {
            return Err(format!("file {number} has {} other bytes", found.len()));
        }
    }
    Ok(())
}

fn file_name(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("file {number}"))
}
