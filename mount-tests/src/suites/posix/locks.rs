//! flock(2) and fcntl(2) locks between processes of this machine.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::open_rw;
use crate::case::{Case, Ctx, case};
use crate::process;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(flock_excludes_another_process),
        case(fcntl_locks_exclude_another_process),
        case(fcntl_locks_are_per_range),
        case(closing_ends_the_locks),
    ]
}

/// Whether another process gets the lock: python3 and perl may be missing, flock(1) is always
/// there, as part of util-linux.
fn another_gets_flock(path: &Path) -> bool {
    let mut flock = Command::new("flock");
    let finished = process::run(
        flock.arg("--nonblock").arg(path).arg("true"),
        Duration::from_secs(10),
    );
    match finished.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("flock: {}: {}", finished.ending(), finished.said()),
    }
}

fn flock_excludes_another_process(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    assert!(another_gets_flock(&path));
    file.lock().unwrap();
    assert!(!another_gets_flock(&path));
    file.unlock().unwrap();
    assert!(another_gets_flock(&path));
}

fn record(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("a lock kind"),
        l_whence: 0,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn lock(file: &File, kind: i32, start: i64, len: i64) {
    fcntl(file, FcntlArg::F_SETLK(&record(kind, start, len))).unwrap();
}

/// Whether somebody else could lock that range: asked with open file description locks, which are
/// another owner even in this process (fcntl(2)).
fn another_gets_record(path: &Path, start: i64, len: i64) -> bool {
    let file = open_rw(path);
    match fcntl(
        &file,
        FcntlArg::F_OFD_SETLK(&record(libc::F_WRLCK, start, len)),
    ) {
        Ok(_) => true,
        Err(Errno::EAGAIN | Errno::EACCES) => false,
        Err(other) => panic!("F_OFD_SETLK: {other}"),
    }
}

fn fcntl_locks_exclude_another_process(ctx: &Ctx) {
    let path = ctx.dir.join("db");
    let file = open_rw(&path);
    lock(&file, libc::F_WRLCK, 0, 0);
    // sqlite3's locks are fcntl(2) locks of another process.
    let mut sqlite = Command::new("sqlite3");
    sqlite
        .arg(&path)
        .arg("PRAGMA busy_timeout=0; CREATE TABLE t(x);");
    let refused = process::run(&mut sqlite, Duration::from_secs(20));
    assert!(
        refused.said().contains("locked"),
        "{}: {}",
        refused.ending(),
        refused.said()
    );
    lock(&file, libc::F_UNLCK, 0, 0);
    let mut sqlite = Command::new("sqlite3");
    process::must_run(
        sqlite.arg(&path).arg("CREATE TABLE t(x);"),
        Duration::from_secs(20),
    );
}

fn fcntl_locks_are_per_range(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    file.set_len(100).unwrap();
    lock(&file, libc::F_WRLCK, 10, 10);
    assert!(another_gets_record(&path, 0, 10));
    // Closing any descriptor of the file ends this process's records on it (fcntl(2)), so the
    // question above has ended ours.
    lock(&file, libc::F_WRLCK, 10, 10);
    assert!(!another_gets_record(&path, 15, 10));
    lock(&file, libc::F_RDLCK, 50, 10);
    assert!(!another_gets_record(&path, 59, 1));
}

fn closing_ends_the_locks(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = open_rw(&path);
    file.lock().unwrap();
    lock(&file, libc::F_WRLCK, 0, 0);
    drop(file);
    assert!(another_gets_flock(&path));
    assert!(another_gets_record(&path, 0, 0));
}
