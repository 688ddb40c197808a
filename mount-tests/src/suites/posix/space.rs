//! Room on the server: statfs, fallocate, and a disk that is full.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use super::{open_rw, refused};
use crate::case::{Case, Ctx, case};
use crate::process;
use crate::sys;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(statfs_is_the_servers),
        case(fallocate_grows_and_never_shrinks),
        case(punching_a_hole_is_eopnotsupp_or_done),
        case(a_full_disk_is_enospc_at_the_latest_at_close).within_s(60),
        case(a_full_disk_is_enospc_for_a_new_directory_or_file),
    ]
}

fn statfs_is_the_servers(ctx: &Ctx) {
    let (here, there) = (statvfs(&ctx.dir).unwrap(), statvfs(&ctx.behind).unwrap());
    let bytes = |blocks| u128::from(blocks) * u128::from(here.fragment_size());
    let theirs = |blocks| u128::from(blocks) * u128::from(there.fragment_size());
    assert_eq!(bytes(here.blocks()), theirs(there.blocks()));
    assert_eq!(here.files(), there.files());
    assert_eq!(here.name_max(), 255);
    // Others use the disk meanwhile.
    let near = |a: u128, b: u128| a.abs_diff(b) < 1 << 30;
    assert!(near(bytes(here.blocks_free()), theirs(there.blocks_free())));
    assert!(near(
        bytes(here.blocks_available()),
        theirs(there.blocks_available())
    ));
}

fn fallocate_grows_and_never_shrinks(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = open_rw(&path);
    file.write_all(b"content").unwrap();
    sys::fallocate(&file, 0, 0, 100_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    sys::fallocate(&file, 0, 0, 10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    refused(sys::fallocate(&file, 0, 0, 0), Errno::EINVAL);
    refused(sys::fallocate(&file, 0, -1, 10), Errno::EINVAL);
    drop(file);
    let bytes = fs::read(ctx.behind.join("f")).unwrap();
    assert_eq!(bytes.len(), 100_000);
    assert_eq!(&bytes[..8], b"content\0");
}

fn punching_a_hole_is_eopnotsupp_or_done(ctx: &Ctx) {
    let file = open_rw(&ctx.dir.join("f"));
    file.write_all_at(&[1; 20_000], 0).unwrap();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let punched = sys::fallocate(&file, punch, 0, 8192);
    let mut start = [9];
    file.read_exact_at(&mut start, 0).unwrap();
    if ctx.on_mount {
        assert_eq!((punched, start), (Err(Errno::EOPNOTSUPP), [1]));
    } else {
        assert!(matches!(
            (punched, start),
            (Ok(()), [0]) | (Err(Errno::EOPNOTSUPP), [1])
        ));
    }
}

/// A small file system where the server has its files, seen through a mount of its own where the
/// case is about a mount. Gives what the case's file operations go to.
struct Small {
    mount: Option<crate::mount::Mount>,
    disk: std::path::PathBuf,
    dir: std::path::PathBuf,
}

impl Small {
    fn new(ctx: &Ctx) -> Self {
        ctx.needs_root("to mount a small tmpfs below the server");
        let disk = ctx.lab.fresh("small");
        fs::create_dir(&disk).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=4m,nr_inodes=40", "tmpfs"])
            .arg(&disk);
        process::must_run(&mut mount, Duration::from_secs(10));
        let mount = ctx
            .on_mount
            .then(|| ctx.lab.plan(ctx.transport, &disk).mount().unwrap());
        let dir = mount.as_ref().map_or(&*disk, |mount| mount.at()).to_owned();
        Self { mount, disk, dir }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.mount.take();
        crate::mount::detach(&self.disk);
    }
}

fn a_full_disk_is_enospc_at_the_latest_at_close(ctx: &Ctx) {
    let small = Small::new(ctx);
    let mut file = File::create(small.dir.join("f")).unwrap();
    let block = vec![1; 1 << 20];
    // A write may be answered before the server has it, but then the error comes with a later
    // write or fsync.
    let written = (0..16).try_for_each(|_| file.write_all(&block));
    refused(written.and_then(|()| file.sync_all()), Errno::ENOSPC);
    drop(file);
    fs::remove_file(small.dir.join("f")).unwrap();
    let fits = vec![2; 3 << 20];
    fs::write(small.dir.join("g"), &fits).unwrap();
    assert!(fs::read(small.disk.join("g")).unwrap() == fits);
}

fn a_full_disk_is_enospc_for_a_new_directory_or_file(ctx: &Ctx) {
    let small = Small::new(ctx);
    for number in 0..60 {
        if fs::write(small.disk.join(format!("{number}")), "").is_err() {
            break;
        }
    }
    refused(fs::create_dir(small.dir.join("d")), Errno::ENOSPC);
    refused(File::create(small.dir.join("f")), Errno::ENOSPC);
    refused(
        std::os::unix::fs::symlink("t", small.dir.join("l")),
        Errno::ENOSPC,
    );
}
