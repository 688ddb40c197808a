//! Symbolic and hard links.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::errno::Errno;

use super::{names_in, refused};
use crate::case::{Case, Ctx, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_symlink_says_its_target_and_leads_there),
        case(a_relative_symlink_out_of_a_subdirectory_works),
        case(a_dangling_symlink_is_enoent_but_readable),
        case(writing_through_a_dangling_symlink_makes_its_target),
        case(a_symlink_loop_is_eloop),
        case(a_symlink_over_an_existing_name_is_eexist),
        case(readlink_of_a_file_is_einval),
        case(a_symlink_to_a_directory_is_walked_through),
        case(removing_a_symlink_keeps_its_target),
        case(a_long_symlink_target_is_kept),
        case(a_hard_link_is_the_same_inode_with_two_links),
        case(a_hard_link_shares_content),
        case(removing_one_hard_link_keeps_the_other),
        case(a_hard_link_over_an_existing_name_is_eexist),
        case(a_hard_link_to_a_directory_is_eperm),
        case(a_hard_link_to_what_is_not_there_is_enoent),
        case(renaming_one_hard_link_over_the_other_does_nothing),
    ]
}

fn a_symlink_says_its_target_and_leads_there(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "content").unwrap();
    symlink("f", ctx.dir.join("link")).unwrap();
    assert_eq!(
        fs::read_link(ctx.dir.join("link")).unwrap().to_str(),
        Some("f")
    );
    assert_eq!(fs::read(ctx.dir.join("link")).unwrap(), b"content");
    assert!(
        fs::symlink_metadata(ctx.dir.join("link"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(
        fs::read_link(ctx.behind.join("link")).unwrap().to_str(),
        Some("f")
    );
}

fn a_relative_symlink_out_of_a_subdirectory_works(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("f"), "content").unwrap();
    symlink("../f", ctx.dir.join("d/link")).unwrap();
    assert_eq!(
        fs::read_link(ctx.dir.join("d/link")).unwrap().to_str(),
        Some("../f")
    );
    assert_eq!(fs::read(ctx.dir.join("d/link")).unwrap(), b"content");
}

fn a_dangling_symlink_is_enoent_but_readable(ctx: &Ctx) {
    symlink("nowhere", ctx.dir.join("link")).unwrap();
    refused(File::open(ctx.dir.join("link")), Errno::ENOENT);
    refused(fs::metadata(ctx.dir.join("link")), Errno::ENOENT);
    assert_eq!(
        fs::read_link(ctx.dir.join("link")).unwrap().to_str(),
        Some("nowhere")
    );
    assert_eq!(names_in(&ctx.dir), ["link"]);
}

fn writing_through_a_dangling_symlink_makes_its_target(ctx: &Ctx) {
    symlink("made", ctx.dir.join("link")).unwrap();
    fs::write(ctx.dir.join("link"), "content").unwrap();
    assert_eq!(fs::read(ctx.dir.join("made")).unwrap(), b"content");
    assert!(
        fs::symlink_metadata(ctx.dir.join("link"))
            .unwrap()
            .is_symlink()
    );
}

fn a_symlink_loop_is_eloop(ctx: &Ctx) {
    symlink("b", ctx.dir.join("a")).unwrap();
    symlink("a", ctx.dir.join("b")).unwrap();
    symlink("self", ctx.dir.join("self")).unwrap();
    refused(File::open(ctx.dir.join("a")), Errno::ELOOP);
    refused(fs::metadata(ctx.dir.join("self/x")), Errno::ELOOP);
    refused(fs::write(ctx.dir.join("self"), ""), Errno::ELOOP);
}

fn a_symlink_over_an_existing_name_is_eexist(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    fs::create_dir(ctx.dir.join("d")).unwrap();
    symlink("x", ctx.dir.join("l")).unwrap();
    for name in ["f", "d", "l"] {
        refused(symlink("target", ctx.dir.join(name)), Errno::EEXIST);
    }
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
}

fn readlink_of_a_file_is_einval(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    refused(fs::read_link(ctx.dir.join("f")), Errno::EINVAL);
    refused(fs::read_link(&ctx.dir), Errno::EINVAL);
}

fn a_symlink_to_a_directory_is_walked_through(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    symlink("d", ctx.dir.join("link")).unwrap();
    fs::write(ctx.dir.join("link/f"), "content").unwrap();
    assert_eq!(fs::read(ctx.dir.join("d/f")).unwrap(), b"content");
    assert_eq!(names_in(&ctx.dir.join("link")), ["f"]);
    refused(fs::remove_dir(ctx.dir.join("link")), Errno::ENOTDIR);
}

fn removing_a_symlink_keeps_its_target(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    symlink("f", ctx.dir.join("link")).unwrap();
    fs::remove_file(ctx.dir.join("link")).unwrap();
    assert_eq!(names_in(&ctx.dir), ["f"]);
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"kept");
}

fn a_long_symlink_target_is_kept(ctx: &Ctx) {
    let target = "x/".repeat(2000);
    symlink(&target, ctx.dir.join("link")).unwrap();
    assert_eq!(
        fs::read_link(ctx.dir.join("link")).unwrap().to_str(),
        Some(target.as_str())
    );
    refused(
        symlink("y".repeat(4096), ctx.dir.join("longer")),
        Errno::ENAMETOOLONG,
    );
}

fn a_hard_link_is_the_same_inode_with_two_links(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "content").unwrap();
    assert_eq!(fs::metadata(ctx.dir.join("a")).unwrap().nlink(), 1);
    fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    let (a, b) = (
        fs::metadata(ctx.dir.join("a")).unwrap(),
        fs::metadata(ctx.dir.join("b")).unwrap(),
    );
    assert_eq!(a.ino(), b.ino());
    assert_eq!((a.nlink(), b.nlink()), (2, 2));
    assert_eq!(fs::metadata(ctx.behind.join("a")).unwrap().nlink(), 2);
}

fn a_hard_link_shares_content(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "old").unwrap();
    fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"old");
    File::options()
        .append(true)
        .open(ctx.dir.join("b"))
        .unwrap()
        .write_all(b" new")
        .unwrap();
    assert_eq!(fs::read(ctx.dir.join("a")).unwrap(), b"old new");
    nix::unistd::truncate(&ctx.dir.join("a"), 1).unwrap();
    assert_eq!(fs::metadata(ctx.dir.join("b")).unwrap().len(), 1);
}

fn removing_one_hard_link_keeps_the_other(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "kept").unwrap();
    fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    fs::remove_file(ctx.dir.join("a")).unwrap();
    refused(File::open(ctx.dir.join("a")), Errno::ENOENT);
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"kept");
    assert_eq!(fs::metadata(ctx.dir.join("b")).unwrap().nlink(), 1);
    assert_eq!(names_in(&ctx.dir), ["b"]);
}

fn a_hard_link_over_an_existing_name_is_eexist(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "a").unwrap();
    fs::write(ctx.dir.join("b"), "kept").unwrap();
    refused(
        fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")),
        Errno::EEXIST,
    );
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"kept");
}

fn a_hard_link_to_a_directory_is_eperm(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    refused(
        fs::hard_link(ctx.dir.join("d"), ctx.dir.join("e")),
        Errno::EPERM,
    );
}

fn a_hard_link_to_what_is_not_there_is_enoent(ctx: &Ctx) {
    refused(
        fs::hard_link(ctx.dir.join("absent"), ctx.dir.join("b")),
        Errno::ENOENT,
    );
    assert!(names_in(&ctx.dir).is_empty());
}

fn renaming_one_hard_link_over_the_other_does_nothing(ctx: &Ctx) {
    fs::write(ctx.dir.join("a"), "content").unwrap();
    fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    // rename(2): "If oldpath and newpath are existing hard links referring to the same file, then
    // rename() does nothing, and returns a success status."
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    assert_eq!(names_in(&ctx.dir), ["a", "b"]);
    assert_eq!(names_in(&ctx.behind), ["a", "b"]);
    assert_eq!(fs::read(ctx.dir.join("a")).unwrap(), b"content");
}
