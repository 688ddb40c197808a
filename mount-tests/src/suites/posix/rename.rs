//! rename(2) over everything, with flags, and of open files.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::symlink;

use nix::errno::Errno;

use super::{names_in, open_rw, refused};
use crate::case::{Case, Ctx, case};
use crate::sys::rename_with;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_file_moves_with_its_content),
        case(a_rename_over_a_file_replaces_it),
        case(a_rename_over_an_empty_directory_replaces_it),
        case(a_rename_over_a_full_directory_is_enotempty),
        case(a_directory_over_a_file_is_enotdir),
        case(a_file_over_a_directory_is_eisdir),
        case(a_directory_into_itself_is_einval),
        case(a_rename_to_the_same_name_does_nothing),
        case(a_renamed_directory_takes_its_tree_along),
        case(a_rename_moves_a_symlink_not_its_target),
        case(rename_noreplace_over_an_existing_name_is_eexist),
        case(rename_noreplace_to_a_free_name_works),
        case(rename_exchange_is_einval_where_it_cannot_be_done),
        case(an_open_file_goes_on_after_its_rename),
        case(an_open_file_goes_on_after_its_directory_is_renamed),
        case(writes_before_a_rename_arrive_under_the_new_name),
        case(an_atomic_replace_is_never_seen_half_done),
    ]
}

fn a_file_moves_with_its_content(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("a"), "content").unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("d/b")).unwrap();
    refused(fs::metadata(ctx.dir.join("a")), Errno::ENOENT);
    assert_eq!(fs::read(ctx.dir.join("d/b")).unwrap(), b"content");
    assert_eq!(names_in(&ctx.behind), ["d"]);
    assert_eq!(names_in(&ctx.dir), ["d"]);
}

fn a_rename_over_a_file_replaces_it(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "new").unwrap();
    fs::write(ctx.dir.join("b"), "old and longer").unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"new");
    assert_eq!(names_in(&ctx.dir), ["b"]);
    assert_eq!(fs::read(ctx.behind.join("b")).unwrap(), b"new");
}

fn a_rename_over_an_empty_directory_replaces_it(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("a")).unwrap();
    fs::write(ctx.dir.join("a/f"), "content").unwrap();
    fs::create_dir(ctx.dir.join("b")).unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("b/f")).unwrap(), b"content");
    assert_eq!(names_in(&ctx.behind), ["b"]);
}

fn a_rename_over_a_full_directory_is_enotempty(ctx: &Ctx) {
    for name in ["a", "b"] {
        fs::create_dir(ctx.dir.join(name)).unwrap();
        fs::write(ctx.dir.join(name).join("f"), name).unwrap();
    }
    refused(
        fs::rename(ctx.dir.join("a"), ctx.dir.join("b")),
        Errno::ENOTEMPTY,
    );
    assert_eq!(fs::read(ctx.dir.join("b/f")).unwrap(), b"b");
    assert_eq!(fs::read(ctx.dir.join("a/f")).unwrap(), b"a");
}

fn a_directory_over_a_file_is_enotdir(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    refused(
        fs::rename(ctx.dir.join("d"), ctx.dir.join("f")),
        Errno::ENOTDIR,
    );
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
}

fn a_file_over_a_directory_is_eisdir(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    refused(
        fs::rename(ctx.dir.join("f"), ctx.dir.join("d")),
        Errno::EISDIR,
    );
    assert_eq!(names_in(&ctx.dir), ["d", "f"]);
}

fn a_directory_into_itself_is_einval(ctx: &Ctx) {
    fs::create_dir_all(ctx.dir.join("d/e")).unwrap();
    refused(
        fs::rename(ctx.dir.join("d"), ctx.dir.join("d/e/f")),
        Errno::EINVAL,
    );
    refused(
        fs::rename(ctx.dir.join("d"), ctx.dir.join("d/f")),
        Errno::EINVAL,
    );
    refused(
        fs::rename(ctx.dir.join("d/e"), ctx.dir.join("d")),
        Errno::ENOTEMPTY,
    );
    assert_eq!(names_in(&ctx.dir.join("d")), ["e"]);
}

fn a_rename_to_the_same_name_does_nothing(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    fs::rename(ctx.dir.join("f"), ctx.dir.join("f")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
}

fn a_renamed_directory_takes_its_tree_along(ctx: &Ctx) {
    fs::create_dir_all(ctx.dir.join("a/b/c")).unwrap();
    fs::write(ctx.dir.join("a/b/c/f"), "content").unwrap();
    fs::metadata(ctx.dir.join("a/b/c/f")).unwrap();
    fs::rename(ctx.dir.join("a/b"), ctx.dir.join("moved")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("moved/c/f")).unwrap(), b"content");
    refused(fs::metadata(ctx.dir.join("a/b/c/f")), Errno::ENOENT);
    fs::write(ctx.dir.join("moved/c/g"), "new").unwrap();
    assert_eq!(fs::read(ctx.behind.join("moved/c/g")).unwrap(), b"new");
    // Another file may take the old name.
    fs::create_dir_all(ctx.dir.join("a/b/c")).unwrap();
    fs::write(ctx.dir.join("a/b/c/f"), "other").unwrap();
    assert_eq!(fs::read(ctx.dir.join("moved/c/f")).unwrap(), b"content");
}

fn a_rename_moves_a_symlink_not_its_target(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    symlink("f", ctx.dir.join("a")).unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    assert_eq!(
        fs::read_link(ctx.dir.join("b")).unwrap().to_str(),
        Some("f")
    );
    fs::write(ctx.dir.join("g"), "over the link").unwrap();
    fs::rename(ctx.dir.join("g"), ctx.dir.join("b")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
    assert!(fs::symlink_metadata(ctx.dir.join("b")).unwrap().is_file());
}

fn rename_noreplace_over_an_existing_name_is_eexist(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "a").unwrap();
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.behind.join("b"), "kept").unwrap();
    let noreplace = libc::RENAME_NOREPLACE;
    refused(
        rename_with(&ctx.dir.join("a"), &ctx.dir.join("b"), noreplace),
        Errno::EEXIST,
    );
    refused(
        rename_with(&ctx.dir.join("a"), &ctx.dir.join("d"), noreplace),
        Errno::EEXIST,
    );
    refused(
        rename_with(&ctx.dir.join("d"), &ctx.dir.join("b"), noreplace),
        Errno::EEXIST,
    );
    assert_eq!(fs::read(ctx.behind.join("b")).unwrap(), b"kept");
    assert_eq!(names_in(&ctx.behind), ["a", "b", "d"]);
}

fn rename_noreplace_to_a_free_name_works(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "content").unwrap();
    fs::create_dir(ctx.dir.join("d")).unwrap();
    rename_with(
        &ctx.dir.join("a"),
        &ctx.dir.join("b"),
        libc::RENAME_NOREPLACE,
    )
    .unwrap();
    rename_with(
        &ctx.dir.join("d"),
        &ctx.dir.join("e"),
        libc::RENAME_NOREPLACE,
    )
    .unwrap();
    assert_eq!(names_in(&ctx.dir), ["b", "e"]);
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"content");
}

fn rename_exchange_is_einval_where_it_cannot_be_done(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "a").unwrap();
    fs::write(ctx.dir.join("b"), "b").unwrap();
    let result = rename_with(
        &ctx.dir.join("a"),
        &ctx.dir.join("b"),
        libc::RENAME_EXCHANGE,
    );
    if ctx.on_mount {
        assert_eq!(result, Err(Errno::EINVAL));
        assert_eq!(fs::read(ctx.behind.join("a")).unwrap(), b"a");
        assert_eq!(fs::read(ctx.behind.join("b")).unwrap(), b"b");
    } else {
        result.unwrap();
    }
}

fn an_open_file_goes_on_after_its_rename(ctx: &Ctx) {
    let mut file = open_rw(&ctx.dir.join("a"));
    file.write_all(b"before ").unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    file.write_all(b"after").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 12);
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    file.set_len(6).unwrap();
    drop(file);
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"before");
    assert_eq!(names_in(&ctx.behind), ["b"]);
}

fn an_open_file_goes_on_after_its_directory_is_renamed(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    let mut file = open_rw(&ctx.dir.join("d/f"));
    file.write_all(b"before ").unwrap();
    fs::rename(ctx.dir.join("d"), ctx.dir.join("e")).unwrap();
    file.write_all(b"after").unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    drop(file);
    assert_eq!(fs::read(ctx.behind.join("e/f")).unwrap(), b"before after");
    assert_eq!(names_in(&ctx.behind), ["e"]);
}

fn writes_before_a_rename_arrive_under_the_new_name(ctx: &Ctx) {
    let content = vec![9; 2_000_000];
    let mut file = File::create(ctx.dir.join("a.part")).unwrap();
    file.write_all(&content).unwrap();
    fs::rename(ctx.dir.join("a.part"), ctx.dir.join("a")).unwrap();
    drop(file);
    assert!(fs::read(ctx.behind.join("a")).unwrap() == content);
}

fn an_atomic_replace_is_never_seen_half_done(ctx: &Ctx) {
    let path = ctx.dir.join("config");
    fs::write(&path, "0".repeat(1000)).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut stale = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..60u8 {
                let next = ctx.dir.join("config.new");
                fs::write(&next, vec![b'0' + round % 10; 1000]).unwrap();
                fs::rename(&next, &path).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            match fs::read(&path) {
                Ok(text) => assert_eq!(text.len(), 1000, "a half written file was seen"),
                // Replaced both times between the kernel's look at the name and its open.
                Err(why) if ctx.on_mount && why.raw_os_error() == Some(libc::ESTALE) => stale += 1,
                Err(why) => panic!("{why}"),
            }
        }
    });
    assert!(stale <= 2, "{stale} opens found their file replaced");
}
