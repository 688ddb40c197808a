//! The server's file system is full, or becomes read only: programs are told as a local disk tells
//! them, nothing hangs, and all goes on when there is room again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::copies_on::Volume;
use super::super::site::content;
use super::limits::until_refused;
use super::place::{Kind, Place};
use super::watch::{BACK_OFF, Told, hold, watched};
use crate::case::Ctx;
use crate::process;

pub(super) fn a_full_disk_is_told_as_a_local_disk_tells_it(ctx: &Ctx) {
    let volume = Volume::tmpfs(ctx, &ctx.behind.join("volume"), SMALL);
    let mut place = Place::at(ctx, Kind::Wire, volume.at(), &[]);
    let (dir, behind) = (place.dir.clone(), place.behind.clone());
    watched(&mut place, "a full disk", BACK_OFF, move |steps| {
        until_refused(&dir, &behind, steps, is_full)?;
        // Once more: the error of one file is not another one's.
        fs::remove_file(dir.join("big")).told("unlink big")?;
        has_room(&behind)?;
        until_refused(&dir, &behind, steps, is_full)?;
        steps.next("a new file on a full disk");
        let mut more = File::create(dir.join("more")).told("create more")?;
        // Where write(2) did not wait for the server, fsync(2) tells.
        full(more.write_all(&[1; 200_000]).and_then(|()| more.sync_all()))?;
        drop(more);
        steps.next("room again");
        fs::remove_file(dir.join("big")).told("unlink big")?;
        has_room(&behind)?;
        let small = content("small", 100_000);
        fs::write(dir.join("small"), &small).told("write small")?;
        let file = File::open(dir.join("small")).told("open small")?;
        file.sync_all().told("fsync small")?;
        let found = fs::read(behind.join("small")).told("read small")?;
        hold(found == small, "small has other bytes on the server")
    });
    place.end(ctx);
}

/// Waits until the server has closed what was removed: who closes a file does not wait for that.
fn has_room(at: &Path) -> Result<(), String> {
    let end = std::time::Instant::now() + Duration::from_secs(25);
    let is_free = || {
        let stat = nix::sys::statvfs::statvfs(at).ok()?;
        (stat.blocks_free() > stat.blocks() / 2).then_some(())
    };
    process::wait_for(end, is_free).ok_or_else(|| "what was removed still takes room".to_owned())
}

fn is_full(why: &std::io::Error) -> bool {
    why.raw_os_error() == Some(libc::ENOSPC)
}

fn full(result: std::io::Result<()>) -> Result<(), String> {
    hold(
        result.as_ref().is_err_and(is_full),
        format!("a full disk gave {result:?}"),
    )
}

pub(super) fn a_disk_that_becomes_read_only_is_told_as_such(ctx: &Ctx) {
    let volume = Volume::tmpfs(ctx, &ctx.behind.join("volume"), 16 * SMALL);
    let mut place = Place::at(ctx, Kind::Wire, volume.at(), &[]);
    let (dir, behind) = (place.dir.clone(), place.behind.clone());
    watched(&mut place, "a read-only disk", BACK_OFF, move |steps| {
        fs::write(dir.join("file"), "before").told("write file")?;
        fs::create_dir(dir.join("dir")).told("mkdir dir")?;
        steps.next("wait until the server has closed it");
        remounted(&behind, "ro")?;
        type Act = (&'static str, fn(&Path) -> std::io::Result<()>);
        let acts: [Act; 8] = [
            ("create", |dir| File::create_new(dir.join("new")).map(drop)),
            ("open to write", |dir| {
                OpenOptions::new()
                    .write(true)
                    .open(dir.join("file"))
                    .map(drop)
            }),
            ("mkdir", |dir| fs::create_dir(dir.join("new"))),
            ("rmdir", |dir| fs::remove_dir(dir.join("dir"))),
            ("unlink", |dir| fs::remove_file(dir.join("file"))),
            ("rename", |dir| {
                fs::rename(dir.join("file"), dir.join("new"))
            }),
            ("link", |dir| {
                fs::hard_link(dir.join("file"), dir.join("new"))
            }),
            ("chmod", |dir| {
                fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o600))
            }),
        ];
        let mut wrong = Vec::new();
        for (name, act) in acts {
            steps.next(name);
            match act(&dir).map_err(|why| why.raw_os_error()) {
                Err(Some(libc::EROFS)) => (),
                other => wrong.push(format!("{name}: {other:?}")),
            }
        }
        hold(wrong.is_empty(), format!("not EROFS: {wrong:?}"))?;
        steps.next("read");
        let text = fs::read_to_string(dir.join("file")).told("read")?;
        hold(text == "before", text)?;
        remounted(&behind, "rw")?;
        steps.next("write again");
        fs::write(dir.join("file"), "after").told("write")?;
        let file = File::open(dir.join("file")).told("open")?;
        file.sync_all().told("fsync")?;
        let text = fs::read_to_string(behind.join("file")).told("read")?;
        hold(text == "after", text)
    });
    place.end(ctx);
}

/// mount(8) refuses `ro` while a file is open for writing, so it is asked again for a while.
fn remounted(at: &Path, how: &str) -> Result<(), String> {
    let end = std::time::Instant::now() + Duration::from_secs(25);
    let mut said = String::new();
    let done = process::wait_for(end, || {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(at);
        let finished = process::run(&mut mount, Duration::from_secs(10));
        said = finished.said();
        finished.ok().then_some(())
    });
    done.ok_or_else(|| format!("cannot remount {how}: {said}"))
}

/// Bytes on the small disk.
const SMALL: u64 = 2 << 20;
