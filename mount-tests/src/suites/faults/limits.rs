//! The server's file system says no to a writer that has its file open already: a quota is reached,
//! or it has become read-only after a fault of its disk.
//!
//! SFTP version 3 has one word for both, FAILURE, and statvfs@openssh.com knows of no quota: where
//! nothing else tells more the error is EIO.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::copies_on::Volume;
use super::super::site::content;
use super::place::{Kind, Place};
use super::watch::{BACK_OFF, Steps, Told, hold, watched};
use crate::case::Ctx;
use crate::process;

pub(super) fn a_quota_that_is_reached_is_an_error_and_loses_nothing(ctx: &Ctx) {
    let volume = Volume::new(ctx, "btrfs", &ctx.behind.join("volume"), 256);
    let limited = volume.at().join("limited");
    for words in [
        &["quota", "enable"][..],
        &["subvolume", "create"],
        &["qgroup", "limit", "4M"],
    ] {
        let path = if words == ["quota", "enable"] {
            volume.at()
        } else {
            &limited
        };
        let finished = process::run(Command::new("btrfs").args(words).arg(path), COMMAND_MAX);
        if !finished.ok() {
            ctx.skip(format!("no quota here: {}", finished.said().trim()));
        }
    }
    let mut place = Place::at(ctx, Kind::Wire, &limited, &[]);
    let (dir, behind) = (place.dir.clone(), place.behind.clone());
    let on_mount = ctx.on_mount;
    watched(&mut place, "a quota", BACK_OFF, move |steps| {
        for turn in 0..2 {
            steps.next(format!("turn {turn}"));
            until_refused(&dir, &behind, steps, |why| {
                is_quota(why) || on_mount && is_vague(why)
            })?;
            steps.next("new names");
            let made = fs::create_dir(dir.join("new"));
            // What is told at close is not seen here: fsync tells.
            let file = File::create(dir.join("more"))
                .and_then(|mut file| file.write_all(&[1; 300_000]).and_then(|()| file.sync_all()));
            for result in [made, file] {
                let Err(why) = result else {
                    return Err("a quota let something new pass".into());
                };
                let right = is_quota(&why) || on_mount && is_vague(&why);
                hold(right, format!("a quota gave {why}"))?;
            }
            steps.next("room again");
            for name in ["big", "more"] {
                let _ = fs::remove_file(dir.join(name));
            }
            synced(&behind)?;
            let small = content("small", 300_000);
            fs::write(dir.join("small"), &small).told("write small")?;
            let file = File::open(dir.join("small")).told("open small")?;
            file.sync_all().told("fsync small")?;
            let found = fs::read(behind.join("small")).told("read small")?;
            hold(found == small, "small has other bytes on the server")?;
            fs::remove_file(dir.join("small")).told("unlink small")?;
        }
        Ok(())
    });
    place.end(ctx);
}

pub(super) fn a_disk_that_fails_under_an_open_writer_is_told(ctx: &Ctx) {
    let volume = Volume::new(ctx, "ext4", &ctx.behind.join("volume"), 64);
    let mut remount = Command::new("mount");
    remount.args(["-o", "remount,errors=remount-ro"]);
    process::must_run(remount.arg(volume.at()), COMMAND_MAX);
    let Some(trigger) = trigger(volume.at()) else {
        ctx.skip("this kernel's ext4 has no trigger_fs_error");
    };
    fs::create_dir(volume.at().join("dir")).unwrap();
    let mut place = Place::at(ctx, Kind::Wire, &volume.at().join("dir"), &[]);
    let (dir, behind) = (place.dir.clone(), place.behind.clone());
    let on_mount = ctx.on_mount;
    watched(&mut place, "a failed disk", BACK_OFF, move |steps| {
        fs::write(dir.join("before"), "kept").told("write before")?;
        let mut open = File::create(dir.join("open")).told("create open")?;
        open.write_all(&content("open", 300_000)).told("write")?;
        open.sync_all().told("fsync")?;
        steps.next("the disk fails");
        fs::write(&trigger, "sftpfs").told("trigger_fs_error")?;
        // Newer kernels do not say in statvfs(2) that it is read-only.
        let right =
            |why: &io::Error| why.raw_os_error() == Some(libc::EROFS) || on_mount && is_vague(why);
        steps.next("write to what is open");
        let written = open.write_all(b"more").and_then(|()| open.sync_all());
        let again = open.write_all_at(b"more", 0).and_then(|()| open.sync_all());
        let made = fs::create_dir(dir.join("new"));
        let renamed = fs::rename(dir.join("before"), dir.join("after"));
        for (what, result) in [
            ("append", written),
            ("overwrite", again),
            ("mkdir", made),
            ("rename", renamed),
        ] {
            let Err(why) = result else {
                return Err(format!("{what} passed"));
            };
            // FAILURE of a rename is mostly a directory that something is mounted on.
            let is_right = right(&why) || on_mount && what == "rename";
            hold(is_right, format!("{what} gave {why}"))?;
        }
        steps.next("close what is open");
        drop(open);
        steps.next("read");
        for place in [&dir, &behind] {
            let text = fs::read_to_string(place.join("before")).told("read before")?;
            hold(text == "kept", text)?;
            let now = fs::read(place.join("open")).told("read open")?;
            hold(
                now.get(..300_000) == Some(&content("open", 300_000)),
                format!("{}: what fsync said is there is not", place.display()),
            )?;
        }
        Ok(())
    });
    place.end(ctx);
}

/// Writes and fsyncs to `big` until that is refused as it should be; what was fsynced is there.
pub(super) fn until_refused(
    dir: &Path,
    behind: &Path,
    steps: &Steps,
    is_right: impl Fn(&io::Error) -> bool,
) -> Result<(), String> {
    let part = content("part", 128 << 10);
    let mut big = File::create(dir.join("big")).told("create big")?;
    let mut done = 0;
    let why = loop {
        steps.next(format!("part {done}"));
        match big.write_all(&part).and_then(|()| big.sync_all()) {
            Err(why) => break why,
            Ok(()) => done += 1,
        }
        hold(done < 64, "8 MiB found room where there is none")?;
    };
    hold(is_right(&why), format!("part {done} gave {why}"))?;
    hold(done > 0, "nothing was written")?;
    drop(big);
    let found = fs::read(behind.join("big")).told("read big")?;
    for number in 0..done {
        let from = number * part.len();
        hold(
            found.get(from..from + part.len()) == Some(&part[..]),
            format!("part {number}, which fsync said is there, is not"),
        )?;
    }
    Ok(())
}

fn is_quota(why: &io::Error) -> bool {
    why.raw_os_error() == Some(libc::EDQUOT)
}

fn is_vague(why: &io::Error) -> bool {
    why.raw_os_error() == Some(libc::EIO)
}

/// btrfs frees what was removed with the next transaction.
fn synced(at: &Path) -> Result<(), String> {
    let finished = process::run(Command::new("sync").arg("-f").arg(at), COMMAND_MAX);
    hold(finished.ok(), finished.said())
}

/// What makes an ext4 believe that its disk has failed.
fn trigger(at: &Path) -> Option<PathBuf> {
    let mut find = Command::new("findmnt");
    find.args(["--noheadings", "--output", "SOURCE", "--target"]);
    let found = process::run(find.arg(at), COMMAND_MAX);
    let device = Path::new(found.out.trim()).file_name()?.to_owned();
    let path = Path::new("/sys/fs/ext4")
        .join(device)
        .join("trigger_fs_error");
    path.exists().then_some(path)
}

const COMMAND_MAX: Duration = Duration::from_secs(30);
