//! open(2) with its flags, and what it refuses.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknod};

use super::{names_in, open_rw, refused};
use crate::case::{Case, Ctx, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_new_file_is_empty_and_has_the_mode_asked_for),
        case(an_exclusive_create_of_an_existing_file_is_eexist),
        case(an_exclusive_create_of_a_dangling_symlink_is_eexist),
        case(opening_what_is_not_there_is_enoent),
        case(a_file_as_a_directory_is_enotdir),
        case(opening_a_directory_for_writing_is_eisdir),
        case(o_directory_on_a_file_is_enotdir),
        case(o_nofollow_on_a_symlink_is_eloop),
        case(o_trunc_empties_the_file),
        case(creating_without_o_excl_keeps_what_is_there),
        case(two_appending_writers_lose_nothing),
        case(an_append_goes_to_the_end_wherever_the_offset_is),
        case(reading_a_write_only_descriptor_is_ebadf),
        case(writing_a_read_only_descriptor_is_ebadf),
        case(o_rdwr_reads_back_what_it_wrote),
        case(a_file_made_without_write_permission_can_be_written_by_its_maker),
        case(mknod_makes_a_regular_file),
        case(mknod_over_an_existing_name_is_eexist),
        case(o_tmpfile_is_refused_cleanly),
        case(creating_in_a_directory_that_is_not_there_is_enoent),
    ]
}

fn a_new_file_is_empty_and_has_the_mode_asked_for(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&path)
        .unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(
        (meta.len(), meta.mode() & 0o7777, meta.nlink()),
        (0, 0o640, 1)
    );
    assert!(meta.is_file());
    assert_eq!(
        fs::metadata(ctx.behind.join("f")).unwrap().mode() & 0o7777,
        0o640
    );
}

fn an_exclusive_create_of_an_existing_file_is_eexist(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "kept").unwrap();
    refused(
        File::options().write(true).create_new(true).open(&path),
        Errno::EEXIST,
    );
    assert_eq!(fs::read(&path).unwrap(), b"kept");
    fs::create_dir(ctx.dir.join("d")).unwrap();
    refused(
        File::options()
            .write(true)
            .create_new(true)
            .open(ctx.dir.join("d")),
        Errno::EEXIST,
    );
}

fn an_exclusive_create_of_a_dangling_symlink_is_eexist(ctx: &Ctx) {
    let path = ctx.dir.join("link");
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    refused(
        File::options().write(true).create_new(true).open(&path),
        Errno::EEXIST,
    );
    assert_eq!(names_in(&ctx.dir), ["link"]);
}

fn opening_what_is_not_there_is_enoent(ctx: &Ctx) {
    refused(File::open(ctx.dir.join("absent")), Errno::ENOENT);
    refused(
        File::options().write(true).open(ctx.dir.join("absent")),
        Errno::ENOENT,
    );
    refused(fs::metadata(ctx.dir.join("absent")), Errno::ENOENT);
    refused(fs::remove_file(ctx.dir.join("absent")), Errno::ENOENT);
    refused(fs::remove_dir(ctx.dir.join("absent")), Errno::ENOENT);
    refused(fs::read_link(ctx.dir.join("absent")), Errno::ENOENT);
    refused(
        fs::rename(ctx.dir.join("absent"), ctx.dir.join("b")),
        Errno::ENOENT,
    );
}

fn a_file_as_a_directory_is_enotdir(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    let below = ctx.dir.join("f/x");
    refused(File::open(&below), Errno::ENOTDIR);
    refused(fs::metadata(&below), Errno::ENOTDIR);
    refused(fs::create_dir(&below), Errno::ENOTDIR);
    refused(fs::write(&below, ""), Errno::ENOTDIR);
    refused(fs::remove_file(&below), Errno::ENOTDIR);
    refused(fs::read_dir(ctx.dir.join("f")), Errno::ENOTDIR);
}

fn opening_a_directory_for_writing_is_eisdir(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    refused(
        File::options().write(true).open(ctx.dir.join("d")),
        Errno::EISDIR,
    );
    refused(
        File::options()
            .read(true)
            .write(true)
            .open(ctx.dir.join("d")),
        Errno::EISDIR,
    );
}

fn o_directory_on_a_file_is_enotdir(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    let flags = OFlag::O_DIRECTORY.bits();
    refused(
        File::options()
            .read(true)
            .custom_flags(flags)
            .open(ctx.dir.join("f")),
        Errno::ENOTDIR,
    );
}

fn o_nofollow_on_a_symlink_is_eloop(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    std::os::unix::fs::symlink("f", ctx.dir.join("link")).unwrap();
    let flags = OFlag::O_NOFOLLOW.bits();
    refused(
        File::options()
            .read(true)
            .custom_flags(flags)
            .open(ctx.dir.join("link")),
        Errno::ELOOP,
    );
}

fn o_trunc_empties_the_file(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "long content").unwrap();
    let file = File::options()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    (&file).write_all(b"new").unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"new");
}

fn creating_without_o_excl_keeps_what_is_there(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "kept").unwrap();
    let mut text = String::new();
    open_rw(&path).read_to_string(&mut text).unwrap();
    assert_eq!(text, "kept");
}

fn two_appending_writers_lose_nothing(ctx: &Ctx) {
    let path = ctx.dir.join("log");
    let open = || {
        File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap()
    };
    let (mut one, mut two) = (open(), open());
    for round in 0..200 {
        writeln!(one, "one {round:04}").unwrap();
        writeln!(two, "two {round:04}").unwrap();
    }
    drop((one, two));
    let text = fs::read_to_string(ctx.behind.join("log")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 400);
    for (round, pair) in lines.chunks(2).enumerate() {
        assert_eq!(pair, [format!("one {round:04}"), format!("two {round:04}")]);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

fn an_append_goes_to_the_end_wherever_the_offset_is(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    fs::write(&path, "12345").unwrap();
    let mut file = File::options().read(true).append(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(1)).unwrap();
    file.write_all(b"6").unwrap();
    assert_eq!(file.stream_position().unwrap(), 6);
    file.set_len(3).unwrap();
    file.write_all(b"x").unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"123x");
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"123x");
}

fn reading_a_write_only_descriptor_is_ebadf(ctx: &Ctx) {
    let mut file = File::create(ctx.dir.join("f")).unwrap();
    refused(file.read(&mut [0; 4]), Errno::EBADF);
}

fn writing_a_read_only_descriptor_is_ebadf(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "x").unwrap();
    let mut file = File::open(ctx.dir.join("f")).unwrap();
    refused(file.write(b"y"), Errno::EBADF);
    refused(file.set_len(0), Errno::EINVAL);
}

fn o_rdwr_reads_back_what_it_wrote(ctx: &Ctx) {
    let mut file = open_rw(&ctx.dir.join("f"));
    let block: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    file.write_all(&block).unwrap();
    file.rewind().unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(
        back == block,
        "{} bytes came back of {}",
        back.len(),
        block.len()
    );
    file.seek(SeekFrom::Start(7)).unwrap();
    file.write_all(b"changed").unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    let mut part = [0; 11];
    file.read_exact(&mut part).unwrap();
    assert_eq!(part[2..9], *b"changed");
}

fn a_file_made_without_write_permission_can_be_written_by_its_maker(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .unwrap();
    file.write_all(b"content").unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"content");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
}

fn mknod_makes_a_regular_file(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    mknod(&path, SFlag::S_IFREG, Mode::from_bits_truncate(0o604), 0).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.is_file());
    assert_eq!((meta.len(), meta.mode() & 0o7777), (0, 0o604));
}

fn mknod_over_an_existing_name_is_eexist(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    let mode = Mode::from_bits_truncate(0o644);
    refused(
        mknod(&ctx.dir.join("f"), SFlag::S_IFREG, mode, 0),
        Errno::EEXIST,
    );
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
}

fn o_tmpfile_is_refused_cleanly(ctx: &Ctx) {
    let flags = OFlag::O_TMPFILE.bits();
    let result = File::options()
        .write(true)
        .custom_flags(flags)
        .mode(0o600)
        .open(&ctx.dir);
    if ctx.on_mount {
        // Programs that know of O_TMPFILE take either as "not here".
        let errno = result.err().and_then(|why| why.raw_os_error());
        assert!(
            matches!(errno, Some(libc::EOPNOTSUPP | libc::EISDIR)),
            "{errno:?}"
        );
    }
    assert!(names_in(&ctx.dir).is_empty());
}

fn creating_in_a_directory_that_is_not_there_is_enoent(ctx: &Ctx) {
    refused(fs::write(ctx.dir.join("absent/f"), ""), Errno::ENOENT);
    refused(fs::create_dir(ctx.dir.join("absent/d")), Errno::ENOENT);
    refused(
        std::os::unix::fs::symlink("t", ctx.dir.join("absent/l")),
        Errno::ENOENT,
    );
}
