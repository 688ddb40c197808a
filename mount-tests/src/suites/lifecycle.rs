//! How a mount begins and ends: it answers when the command returns, and every way to end it
//! leaves all data on the server and no process behind.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::case::{Case, Ctx, Suite, case};
use crate::mount::{self, Mount, Program, Transport, is_mounted};
use crate::process::{self, must_run};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "lifecycle",
        about: "every way to begin and to end a mount, also from fstab",
        every_transport: true,
        cases: cases().into_iter().map(Case::on_mount_only).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(the_mount_answers_when_the_command_returns),
        case(umount_ends_it_with_all_data_on_the_server),
        case(fusermount_ends_it_with_all_data_on_the_server),
        case(sftpfs_umount_ends_it_with_all_data_on_the_server),
        case(sigterm_ends_it_with_all_data_on_the_server),
        case(sigint_ends_it_with_all_data_on_the_server),
        case(sigterm_flushes_a_file_that_is_still_open),
        case(a_busy_mount_stays_and_goes_on),
        case(two_mounts_of_one_directory_live_side_by_side),
        case(mountinfo_shows_the_source_and_the_type),
        case(the_daemon_holds_no_terminal_and_no_directory),
        case(in_the_foreground_the_exit_code_is_0_after_umount),
        case(in_the_foreground_the_exit_code_is_0_after_sigint),
        case(a_killed_daemon_leaves_a_mountpoint_that_can_be_used_again),
        case(a_lost_connection_is_an_error_in_time_where_that_is_wanted)
            .over_ssh()
            .within_s(120),
        case(mount_8_mounts_from_fstab),
        case(mount_8_mounts_with_type_fuse_sftpfs),
    ]
}

/// More than one request, less than what any buffer holds back for long.
fn content() -> Vec<u8> {
    (0..700_000u32).flat_map(u32::to_le_bytes).collect()
}

fn mount(ctx: &Ctx) -> Mount {
    ctx.plan().mount().unwrap()
}

/// Writes, ends the mount in some way, and holds that all is well afterwards.
fn ends_by(ctx: &Ctx, end: impl FnOnce(&Mount)) {
    let mut mount = mount(ctx);
    fs::write(mount.at().join("f"), content()).unwrap();
    end(&mount);
    mount.expect_end().unwrap();
    assert!(
        fs::read(ctx.behind.join("f")).unwrap() == content(),
        "the server lacks data"
    );
    assert_eq!(fs::read_dir(&ctx.behind).unwrap().count(), 1);
}

fn the_mount_answers_when_the_command_returns(ctx: &Ctx) {
    fs::write(ctx.behind.join("f"), "content").unwrap();
    for _ in 0..3 {
        let mount = mount(ctx);
        assert_eq!(fs::read(mount.at().join("f")).unwrap(), b"content");
        mount.unmount().unwrap();
    }
}

fn umount_ends_it_with_all_data_on_the_server(ctx: &Ctx) {
    ctx.needs_root("as umount(8) does for a mount that is not in fstab");
    ends_by(ctx, |mount| {
        drop(must_run(Command::new("umount").arg(mount.at()), PATIENCE))
    });
}

fn fusermount_ends_it_with_all_data_on_the_server(ctx: &Ctx) {
    ends_by(ctx, |mount| {
        drop(must_run(
            Command::new("fusermount3").arg("-u").arg(mount.at()),
            PATIENCE,
        ))
    });
}

fn sftpfs_umount_ends_it_with_all_data_on_the_server(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ends_by(ctx, |mount| {
        drop(must_run(
            ctx.lab.program.command().arg("umount").arg(mount.at()),
            PATIENCE,
        ))
    });
}

fn sigterm_ends_it_with_all_data_on_the_server(ctx: &Ctx) {
    ends_by(ctx, |mount| {
        process::signal(mount.daemon().unwrap(), Signal::SIGTERM)
    });
}

fn sigint_ends_it_with_all_data_on_the_server(ctx: &Ctx) {
    ends_by(ctx, |mount| {
        process::signal(mount.daemon().unwrap(), Signal::SIGINT)
    });
}

fn sigterm_flushes_a_file_that_is_still_open(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let mut mount = mount(ctx);
    let mut file = File::create(mount.at().join("f")).unwrap();
    file.write_all(&content()).unwrap();
    process::signal(mount.daemon().unwrap(), Signal::SIGTERM);
    mount.expect_end().unwrap();
    assert!(
        fs::read(ctx.behind.join("f")).unwrap() == content(),
        "the server lacks data"
    );
    assert!(
        file.write_all(b"more")
            .and_then(|()| file.sync_all())
            .is_err()
    );
}

fn a_busy_mount_stays_and_goes_on(ctx: &Ctx) {
    ctx.needs_root("to call umount2(2)");
    let mount = mount(ctx);
    let mut file = File::create(mount.at().join("f")).unwrap();
    let refused = nix::mount::umount2(mount.at(), nix::mount::MntFlags::empty());
    assert_eq!(refused, Err(Errno::EBUSY));
    file.write_all(b"goes on").unwrap();
    drop(file);
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"goes on");
    mount.unmount().unwrap();
}

fn two_mounts_of_one_directory_live_side_by_side(ctx: &Ctx) {
    let (one, two) = (mount(ctx), mount(ctx));
    fs::write(one.at().join("f"), "from one").unwrap();
    assert_eq!(fs::read(two.at().join("f")).unwrap(), b"from one");
    one.unmount().unwrap();
    fs::write(two.at().join("g"), "from two").unwrap();
    two.unmount().unwrap();
    assert_eq!(fs::read(ctx.behind.join("g")).unwrap(), b"from two");
}

fn mountinfo_shows_the_source_and_the_type(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx.plan();
    let mount = plan.mount().unwrap();
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = mount.at().display().to_string();
    let line = info
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&at))
        .unwrap();
    let (_, what) = line.split_once(" - ").unwrap();
    let words: Vec<&str> = what.split(' ').collect();
    assert_eq!(words[0], "fuse.sftpfs");
    assert_eq!(words[1], plan.source().to_str().unwrap());
    let before = line.split(' ').nth(5).unwrap_or_default();
    assert!(
        before.contains("nosuid") && before.contains("nodev"),
        "{line}"
    );
    mount.unmount().unwrap();
}

fn the_daemon_holds_no_terminal_and_no_directory(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let mount = mount(ctx);
    let proc = format!("/proc/{}", mount.daemon().unwrap());
    assert_eq!(
        fs::read_link(format!("{proc}/cwd")).unwrap(),
        Path::new("/")
    );
    for fd in 0..3 {
        let open = fs::read_link(format!("{proc}/fd/{fd}")).unwrap();
        assert_eq!(open, Path::new("/dev/null"), "descriptor {fd}");
    }
    mount.unmount().unwrap();
}

/// Mounts in the foreground, ends it in some way, and holds that its exit code is 0.
fn in_the_foreground(ctx: &Ctx, end: impl FnOnce(&Path, i32)) {
    let plan = ctx.plan().argument("-f");
    let mut command = plan.command();
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = process::start(&mut command);
    let mounted = process::wait_for(Instant::now() + PATIENCE, || {
        is_mounted(&plan.at).then_some(())
    });
    assert!(mounted.is_some(), "not mounted within {PATIENCE:?}");
    fs::write(plan.at.join("f"), content()).unwrap();
    end(&plan.at, child.id().cast_signed());
    let status = process::wait_until(&mut child, Instant::now() + PATIENCE);
    mount::detach(&plan.at);
    let Some(status) = status else {
        process::signal(child.id().cast_signed(), Signal::SIGKILL);
        panic!("still running {PATIENCE:?} later");
    };
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(fs::read(ctx.behind.join("f")).unwrap() == content());
}

fn in_the_foreground_the_exit_code_is_0_after_umount(ctx: &Ctx) {
    in_the_foreground(ctx, |at, _| {
        drop(must_run(
            Command::new("fusermount3").arg("-u").arg(at),
            PATIENCE,
        ));
    });
}

fn in_the_foreground_the_exit_code_is_0_after_sigint(ctx: &Ctx) {
    in_the_foreground(ctx, |_, pid| process::signal(pid, Signal::SIGINT));
}

fn a_killed_daemon_leaves_a_mountpoint_that_can_be_used_again(ctx: &Ctx) {
    let plan = ctx.plan();
    plan.mount().unwrap().abort();
    assert!(!is_mounted(&plan.at));
    let again = plan.mount().unwrap();
    fs::write(again.at().join("f"), "content").unwrap();
    again.unmount().unwrap();
}

fn a_lost_connection_is_an_error_in_time_where_that_is_wanted(ctx: &Ctx) {
    ctx.needs_sftpfs();
    // A server of its own, which can go away.
    let server = crate::server::Server::start(&ctx.lab.fresh("sshd")).unwrap();
    let at = ctx.lab.fresh("mnt/lost");
    fs::create_dir(&at).unwrap();
    fs::write(ctx.behind.join("f"), "content").unwrap();
    let plan = mount::Plan::new(&ctx.lab.program, &server, ctx.transport, &ctx.behind, &at);
    let mount = plan.option("soft=2").mount().unwrap();
    assert_eq!(fs::read(at.join("f")).unwrap(), b"content");
    drop(server);
    let refused = fs::write(at.join("new"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{refused}");
    mount.abort();
}

/// A script run in a mount namespace of its own: $1 is the folder with `fstab`, $2 the program,
/// $3 the mountpoint. /sbin gets a helper there that nobody else sees.
fn in_private(ctx: &Ctx, fstab: &str, script: &str) {
    ctx.needs_sftpfs();
    ctx.needs_root("to mount by mount(8)");
    let Program::Sftpfs(program) = &ctx.lab.program else {
        return;
    };
    let folder = ctx.lab.fresh("fstab");
    for part in ["sbin", "bin", "sbin-of-the-system", "mnt"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    fs::write(
        folder.join("fstab"),
        fstab.replace("MNT", &folder.join("mnt").display().to_string()),
    )
    .unwrap();
    fs::write(ctx.behind.join("f"), "content").unwrap();
    let before: Vec<i32> = process::children()
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-euc",
        &format!("{PRIVATE_SBIN}\n{script}"),
        "sh",
    ]);
    command.arg(&folder).arg(program).arg(folder.join("mnt"));
    // As early at boot: no HOME, a bare PATH.
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let out = must_run(&mut command, PATIENCE);
    assert_eq!(out, "content\n");
    assert_eq!(
        fs::read_to_string(ctx.behind.join("g")).unwrap(),
        "from the mount\n"
    );
    let gone = process::wait_for(Instant::now() + PATIENCE, || {
        process::reap();
        process::children()
            .iter()
            .all(|(pid, _)| before.contains(pid))
            .then_some(())
    });
    assert!(gone.is_some(), "left running: {:?}", process::children());
}

const PRIVATE_SBIN: &str = "\
mount --bind /usr/sbin \"$1/sbin-of-the-system\"
for tool in \"$1\"/sbin-of-the-system/*; do ln -s \"$tool\" \"$1/sbin/\"; done
ln -s \"$2\" \"$1/sbin/mount.sftpfs\"
ln -s \"$2\" \"$1/sbin/sftpfs\"
mount --bind \"$1/sbin\" /usr/sbin";

const USE_IT: &str = "cat \"$3/f\"; echo; echo 'from the mount' > \"$3/g\"; umount \"$3\"";

/// The mount's options as a field of fstab, whose separators they do not contain.
fn fstab_line(ctx: &Ctx, kind: &str, more: &str) -> String {
    let plan = ctx.plan();
    let mut options = plan.options();
    if ctx.transport != Transport::Command {
        options.push(format!("port={}", ctx.lab.server.port));
    }
    let source = plan.source();
    format!(
        "{} MNT {kind} {},{more} 0 0\n",
        source.display(),
        options.join(",")
    )
}

fn mount_8_mounts_from_fstab(ctx: &Ctx) {
    let line = fstab_line(
        ctx,
        "sftpfs",
        "_netdev,noauto,nofail,x-systemd.automount,x-anything=1",
    );
    in_private(
        ctx,
        &line,
        &format!("mount --fstab \"$1/fstab\" \"$3\"; {USE_IT}"),
    );
}

fn mount_8_mounts_with_type_fuse_sftpfs(ctx: &Ctx) {
    if !Path::new("/sbin/mount.fuse3").exists() && !Path::new("/sbin/mount.fuse").exists() {
        ctx.skip("there is no mount.fuse");
    }
    let line = fstab_line(ctx, "fuse.sftpfs", "noauto,allow_other");
    in_private(
        ctx,
        &line,
        &format!("mount --fstab \"$1/fstab\" \"$3\"; {USE_IT}"),
    );
}

const PATIENCE: Duration = Duration::from_secs(20);
