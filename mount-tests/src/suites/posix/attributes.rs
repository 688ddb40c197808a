//! chmod, chown, utimens and what stat says afterwards, through links and not.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;

use super::refused;
use crate::case::{Case, Ctx, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(chmod_sets_all_twelve_bits),
        case(fchmod_works_on_an_open_file),
        case(what_is_set_on_a_file_being_written_is_seen_at_once_and_there_after_close),
        case(chmod_of_a_directory_is_seen),
        case(chown_sets_owner_and_group),
        case(chown_with_minus_one_keeps_the_other),
        case(lchown_changes_the_link_not_its_target),
        case(utimens_sets_both_times),
        case(utime_omit_keeps_the_other_time),
        case(utime_now_takes_the_clock),
        case(utimens_nofollow_changes_the_link_not_its_target),
        case(a_time_before_1970_does_not_become_another),
        case(futimens_survives_the_close_after_a_write),
        case(a_write_moves_mtime),
        case(attributes_of_what_is_not_there_are_enoent),
        case(inode_numbers_are_stable_and_distinct),
        case(st_size_of_a_symlink_is_its_targets_length),
        case(access_answers_by_mode),
    ]
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod_sets_all_twelve_bits(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    for mode in [0o000, 0o777, 0o640, 0o4755, 0o2755, 0o1644, 0o7777, 0o600] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(mode_of(&path), mode);
        assert_eq!(mode_of(&ctx.behind.join("f")), mode);
    }
}

fn fchmod_works_on_an_open_file(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let file = File::create(&path).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o604))
        .unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o604);
    drop(file);
    assert_eq!(mode_of(&ctx.behind.join("f")), 0o604);
}

fn what_is_set_on_a_file_being_written_is_seen_at_once_and_there_after_close(ctx: &Ctx) {
    // The second one need not wait for what the server was seen to do with the first.
    for name in ["first", "second"] {
        let path = ctx.dir.join(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(&[1; 70_000]).unwrap();
        let meta = file.metadata().unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        fchown(&file, Some(meta.uid()), Some(meta.gid())).unwrap();
        futimens(&file, &TimeSpec::UTIME_OMIT, &TimeSpec::new(222, 0)).unwrap();
        let told = |meta: &fs::Metadata| (meta.mode() & 0o7777, meta.mtime(), meta.size());
        assert_eq!(told(&file.metadata().unwrap()), (0o640, 222, 70_000));
        assert_eq!(told(&fs::metadata(&path).unwrap()), (0o640, 222, 70_000));
        drop(file);
        let behind = fs::metadata(ctx.behind.join(name)).unwrap();
        assert_eq!(told(&behind), (0o640, 222, 70_000));
        assert_eq!(told(&fs::metadata(&path).unwrap()), (0o640, 222, 70_000));
    }
}

fn chmod_of_a_directory_is_seen(ctx: &Ctx) {
    let path = ctx.dir.join("d");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o1770)).unwrap();
    assert_eq!(mode_of(&path), 0o1770);
    assert!(fs::metadata(&path).unwrap().is_dir());
}

fn chown_sets_owner_and_group(ctx: &Ctx) {
    ctx.needs_root("to give files away");
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    chown(&path, Some(1234), Some(4321)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 4321));
    let file = File::open(&path).unwrap();
    fchown(&file, Some(77), Some(88)).unwrap();
    let meta = fs::metadata(ctx.behind.join("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (77, 88));
}

fn chown_with_minus_one_keeps_the_other(ctx: &Ctx) {
    ctx.needs_root("to give files away");
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    chown(&path, Some(1234), Some(4321)).unwrap();
    chown(&path, Some(5678), None).unwrap();
    chown(&path, None, None).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (5678, 4321));
    chown(&path, None, Some(8765)).unwrap();
    let meta = fs::metadata(ctx.behind.join("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (5678, 8765));
}

fn lchown_changes_the_link_not_its_target(ctx: &Ctx) {
    ctx.needs_root("to give files away");
    fs::write(ctx.dir.join("f"), "").unwrap();
    let before = fs::metadata(ctx.dir.join("f")).unwrap().uid();
    symlink("f", ctx.dir.join("link")).unwrap();
    lchown(ctx.dir.join("link"), Some(1234), Some(4321)).unwrap();
    let link = fs::symlink_metadata(ctx.dir.join("link")).unwrap();
    assert_eq!((link.uid(), link.gid()), (1234, 4321));
    assert_eq!(fs::metadata(ctx.dir.join("f")).unwrap().uid(), before);
    chown(ctx.dir.join("link"), Some(55), None).unwrap();
    assert_eq!(fs::metadata(ctx.behind.join("f")).unwrap().uid(), 55);
}

/// utimensat(2) with two times as they go over SFTP: whole seconds.
fn set_times(path: &Path, atime: TimeSpec, mtime: TimeSpec, flags: UtimensatFlags) {
    utimensat(AT_FDCWD, path, &atime, &mtime, flags).unwrap();
}

fn times_of(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.atime(), meta.mtime())
}

fn utimens_sets_both_times(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "content").unwrap();
    for (atime, mtime) in [(1_000_000_000, 1_234_567_890), (5, 0), (4_000_000_000, 1)] {
        let (a, m) = (TimeSpec::new(atime, 0), TimeSpec::new(mtime, 0));
        set_times(&path, a, m, UtimensatFlags::FollowSymlink);
        assert_eq!(times_of(&path), (atime, mtime));
        assert_eq!(times_of(&ctx.behind.join("f")), (atime, mtime));
    }
    fs::create_dir(ctx.dir.join("d")).unwrap();
    let (a, m) = (TimeSpec::new(10, 0), TimeSpec::new(20, 0));
    set_times(&ctx.dir.join("d"), a, m, UtimensatFlags::FollowSymlink);
    assert_eq!(times_of(&ctx.dir.join("d")), (10, 20));
}

fn utime_omit_keeps_the_other_time(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    let at = |seconds| TimeSpec::new(seconds, 0);
    set_times(&path, at(100), at(200), UtimensatFlags::FollowSymlink);
    set_times(
        &path,
        at(300),
        TimeSpec::UTIME_OMIT,
        UtimensatFlags::FollowSymlink,
    );
    assert_eq!(times_of(&path), (300, 200));
    set_times(
        &path,
        TimeSpec::UTIME_OMIT,
        at(400),
        UtimensatFlags::FollowSymlink,
    );
    assert_eq!(times_of(&path), (300, 400));
    let omit = TimeSpec::UTIME_OMIT;
    set_times(&path, omit, omit, UtimensatFlags::FollowSymlink);
    assert_eq!(times_of(&ctx.behind.join("f")), (300, 400));
}

fn utime_now_takes_the_clock(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    let old = TimeSpec::new(100, 0);
    set_times(&path, old, old, UtimensatFlags::FollowSymlink);
    set_times(
        &path,
        TimeSpec::UTIME_OMIT,
        TimeSpec::UTIME_NOW,
        UtimensatFlags::FollowSymlink,
    );
    let now = i64::try_from(since_1970().as_secs()).unwrap();
    let (atime, mtime) = times_of(&path);
    assert_eq!(atime, 100);
    assert!(
        (now - 3..=now + 1).contains(&mtime),
        "{mtime}, but it is {now}"
    );
}

fn utimens_nofollow_changes_the_link_not_its_target(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    symlink("f", ctx.dir.join("link")).unwrap();
    symlink("nowhere", ctx.dir.join("dangling")).unwrap();
    let at = |seconds| TimeSpec::new(seconds, 0);
    set_times(
        &ctx.dir.join("f"),
        at(1),
        at(2),
        UtimensatFlags::FollowSymlink,
    );
    for link in ["link", "dangling"] {
        set_times(
            &ctx.dir.join(link),
            at(3),
            at(4),
            UtimensatFlags::NoFollowSymlink,
        );
        // Looking a link up may move its atime, as reading it does.
        assert_eq!(times_of(&ctx.behind.join(link)).1, 4, "{link}");
        assert_eq!(times_of(&ctx.dir.join(link)).1, 4, "{link}");
    }
    assert_eq!(times_of(&ctx.dir.join("f")), (1, 2));
    assert_eq!(times_of(&ctx.behind.join("f")), (1, 2));
}

fn a_time_before_1970_does_not_become_another(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    let at = |seconds| TimeSpec::new(seconds, 0);
    set_times(&path, at(100), at(200), UtimensatFlags::FollowSymlink);
    let set = utimensat(
        AT_FDCWD,
        &path,
        &at(100),
        &at(-5),
        UtimensatFlags::FollowSymlink,
    );
    // SFTP's times are unsigned: it can be refused, or clamped as an old file system does
    // (utimensat(2), NOTES), but must not come out in 2106.
    let mtime = times_of(&path).1;
    match set {
        Ok(()) => assert!(mtime == -5 || mtime == 0, "{mtime}"),
        Err(_) => assert_eq!(mtime, 200),
    }
}

fn futimens_survives_the_close_after_a_write(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[1; 500_000]).unwrap();
    futimens(&file, &TimeSpec::new(111, 0), &TimeSpec::new(222, 0)).unwrap();
    drop(file);
    assert_eq!(times_of(&ctx.behind.join("f")).1, 222);
    assert_eq!(times_of(&path).1, 222);
}

fn a_write_moves_mtime(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    let old = TimeSpec::new(100, 0);
    set_times(&path, old, old, UtimensatFlags::FollowSymlink);
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    let now = i64::try_from(since_1970().as_secs()).unwrap();
    assert!(times_of(&path).1 >= now - 3);
}

fn attributes_of_what_is_not_there_are_enoent(ctx: &Ctx) {
    let path = ctx.dir.join("absent");
    refused(
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)),
        Errno::ENOENT,
    );
    refused(chown(&path, Some(0), None), Errno::ENOENT);
    let now = TimeSpec::UTIME_NOW;
    refused(
        utimensat(AT_FDCWD, &path, &now, &now, UtimensatFlags::FollowSymlink),
        Errno::ENOENT,
    );
    refused(nix::unistd::truncate(&path, 0), Errno::ENOENT);
}

fn inode_numbers_are_stable_and_distinct(ctx: &Ctx) {
    let ino = |name: &str| fs::symlink_metadata(ctx.dir.join(name)).unwrap().ino();
    for name in ["a", "b", "c"] {
        fs::write(ctx.dir.join(name), "").unwrap();
    }
    fs::create_dir(ctx.dir.join("d")).unwrap();
    let before = ["a", "b", "c", "d"].map(ino);
    for (index, number) in before.iter().enumerate() {
        assert!(!before[..index].contains(number), "{before:?}");
    }
    fs::rename(ctx.dir.join("a"), ctx.dir.join("d/moved")).unwrap();
    assert_eq!(ino("d/moved"), before[0]);
    fs::rename(ctx.dir.join("d"), ctx.dir.join("e")).unwrap();
    assert_eq!((ino("e"), ino("e/moved")), (before[3], before[0]));
    // The kernel forgets names under pressure; the numbers stay all the same.
    if nix::unistd::getuid().is_root() {
        fs::write("/proc/sys/vm/drop_caches", "2").ok();
    }
    assert_eq!(
        (ino("b"), ino("c"), ino("e/moved")),
        (before[1], before[2], before[0])
    );
    let listed = fs::read_dir(ctx.dir.join("e"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(std::os::unix::fs::DirEntryExt::ino(&listed), before[0]);
}

fn st_size_of_a_symlink_is_its_targets_length(ctx: &Ctx) {
    symlink("a/target/of/some/length", ctx.dir.join("link")).unwrap();
    assert_eq!(
        fs::symlink_metadata(ctx.dir.join("link")).unwrap().len(),
        23
    );
}

fn access_answers_by_mode(ctx: &Ctx) {
    use nix::unistd::{AccessFlags, access};
    let path = ctx.dir.join("f");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    access(&path, AccessFlags::R_OK | AccessFlags::W_OK).unwrap();
    access(&path, AccessFlags::F_OK).unwrap();
    refused(access(&path, AccessFlags::X_OK), Errno::EACCES);
    refused(
        access(&ctx.dir.join("absent"), AccessFlags::F_OK),
        Errno::ENOENT,
    );
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
}
