//! Who may do what: other users, read-only mounts, programs run from the mount.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;

use super::refused;
use crate::case::{Case, Ctx, case};
use crate::mount::Mount;
use crate::process;
use crate::sys;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_file_without_read_permission_is_eacces),
        case(a_directory_without_write_permission_is_eacces),
        case(a_directory_without_search_permission_is_eacces),
        case(chmod_of_anothers_file_is_eperm),
        case(chown_by_a_user_is_eperm),
        case(a_file_in_a_sticky_directory_is_its_owners),
        case(a_script_runs),
        case(a_script_without_x_is_eacces),
        case(a_read_only_mount_is_erofs),
        case(a_mount_without_allow_other_is_closed_to_others).on_mount_only(),
    ]
}

/// A directory that an ordinary user may come to: a mount with allow_other, or the plain one.
struct Shared {
    mount: Option<Mount>,
    dir: PathBuf,
}

impl Shared {
    fn new(ctx: &Ctx) -> Self {
        ctx.needs_root("to become another user");
        fs::set_permissions(&ctx.behind, fs::Permissions::from_mode(0o777)).unwrap();
        let plan = ctx
            .plan()
            .option("allow_other")
            .option("default_permissions");
        let mount = ctx.on_mount.then(|| plan.mount().unwrap());
        let dir = mount
            .as_ref()
            .map_or(&*ctx.dir, |mount| mount.at())
            .to_owned();
        Self { mount, dir }
    }

    fn end(mut self) {
        if let Some(mount) = self.mount.take() {
            mount.unmount().unwrap();
        }
    }
}

/// nobody, on every Debian.
const NOBODY: u32 = 65534;

/// Does something as an ordinary user.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::become_user_in_this_thread(NOBODY, NOBODY).unwrap();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| panic!("as nobody, see above"))
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn a_file_without_read_permission_is_eacces(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let path = shared.dir.join("f");
    fs::write(&path, "secret").unwrap();
    set_mode(&path, 0o600);
    let (read, write) = as_nobody(|| (File::open(&path), File::options().write(true).open(&path)));
    refused(read, Errno::EACCES);
    refused(write, Errno::EACCES);
    set_mode(&path, 0o644);
    assert_eq!(as_nobody(|| fs::read(&path)).unwrap(), b"secret");
    shared.end();
}

fn a_directory_without_write_permission_is_eacces(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let dir = shared.dir.join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "kept").unwrap();
    set_mode(&dir, 0o755);
    let results = as_nobody(|| {
        [
            fs::write(dir.join("new"), ""),
            fs::create_dir(dir.join("d")),
            fs::remove_file(dir.join("f")),
            fs::rename(dir.join("f"), dir.join("g")),
            std::os::unix::fs::symlink("t", dir.join("l")),
        ]
    });
    for result in results {
        refused(result, Errno::EACCES);
    }
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"kept");
    shared.end();
}

fn a_directory_without_search_permission_is_eacces(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let dir = shared.dir.join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "").unwrap();
    set_mode(&dir, 0o700);
    let (stat, list) = as_nobody(|| (fs::metadata(dir.join("f")), fs::read_dir(&dir)));
    refused(stat, Errno::EACCES);
    refused(list, Errno::EACCES);
    shared.end();
}

fn chmod_of_anothers_file_is_eperm(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let path = shared.dir.join("f");
    fs::write(&path, "").unwrap();
    set_mode(&path, 0o666);
    refused(
        as_nobody(|| fs::set_permissions(&path, fs::Permissions::from_mode(0o777))),
        Errno::EPERM,
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
    shared.end();
}

fn chown_by_a_user_is_eperm(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let path = shared.dir.join("f");
    fs::write(&path, "").unwrap();
    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    refused(as_nobody(|| chown(&path, Some(0), None)), Errno::EPERM);
    refused(as_nobody(|| chown(&path, None, Some(0))), Errno::EPERM);
    as_nobody(|| fs::set_permissions(&path, fs::Permissions::from_mode(0o640))).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    shared.end();
}

fn a_file_in_a_sticky_directory_is_its_owners(ctx: &Ctx) {
    let shared = Shared::new(ctx);
    let dir = shared.dir.join("d");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o1777);
    fs::write(dir.join("f"), "kept").unwrap();
    let errno = as_nobody(|| fs::remove_file(dir.join("f")))
        .err()
        .and_then(|why| why.raw_os_error());
    assert!(
        matches!(errno, Some(libc::EPERM | libc::EACCES)),
        "{errno:?}"
    );
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"kept");
    shared.end();
}

fn a_script_runs(ctx: &Ctx) {
    let path = ctx.dir.join("script");
    fs::write(&path, "#!/bin/sh\necho \"ran with $1\"\n").unwrap();
    set_mode(&path, 0o755);
    let out = process::must_run(Command::new(&path).arg("this"), Duration::from_secs(10));
    assert_eq!(out, "ran with this\n");
    // A real program too: it is mapped, not read.
    fs::copy("/bin/true", ctx.dir.join("true")).unwrap();
    process::must_run(
        &mut Command::new(ctx.dir.join("true")),
        Duration::from_secs(10),
    );
}

fn a_script_without_x_is_eacces(ctx: &Ctx) {
    let path = ctx.dir.join("script");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    set_mode(&path, 0o644);
    refused(Command::new(&path).status(), Errno::EACCES);
}

fn a_read_only_mount_is_erofs(ctx: &Ctx) {
    fs::write(ctx.behind.join("f"), "kept").unwrap();
    fs::create_dir(ctx.behind.join("d")).unwrap();
    let mount = ctx
        .on_mount
        .then(|| ctx.plan().option("ro").mount().unwrap());
    let dir = match &mount {
        Some(mount) => mount.at().to_owned(),
        None => {
            ctx.needs_root("to mount a directory read-only");
            let at = ctx.lab.fresh("mnt/bind");
            fs::create_dir(&at).unwrap();
            let mut bind = Command::new("mount");
            process::must_run(
                bind.arg("--bind").arg(&ctx.dir).arg(&at),
                Duration::from_secs(10),
            );
            let mut read_only = Command::new("mount");
            read_only.args(["-o", "remount,bind,ro"]).arg(&at);
            process::must_run(&mut read_only, Duration::from_secs(10));
            at
        }
    };
    assert_eq!(fs::read(dir.join("f")).unwrap(), b"kept");
    let results = [
        fs::write(dir.join("f"), "changed"),
        fs::write(dir.join("new"), ""),
        fs::create_dir(dir.join("e")),
        fs::remove_file(dir.join("f")),
        fs::remove_dir(dir.join("d")),
        fs::rename(dir.join("f"), dir.join("g")),
        fs::hard_link(dir.join("f"), dir.join("g")),
        fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o600)),
    ];
    match mount {
        Some(mount) => mount.unmount().unwrap(),
        None => crate::mount::detach(&dir),
    }
    for result in results {
        refused(result, Errno::EROFS);
    }
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"kept");
}

fn a_mount_without_allow_other_is_closed_to_others(ctx: &Ctx) {
    ctx.needs_root("to become another user");
    set_mode(&ctx.behind, 0o777);
    let mount = ctx.plan().mount().unwrap();
    refused(as_nobody(|| fs::metadata(mount.at())), Errno::EACCES);
    mount.unmount().unwrap();
}
