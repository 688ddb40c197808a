//! Names are bytes, and may be awkward.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

use nix::errno::Errno;

use super::refused;
use crate::case::{Case, Ctx, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(names_that_are_not_utf8_are_kept),
        case(awkward_names_are_kept),
        case(a_symlink_target_that_is_not_utf8_is_kept),
        case(a_name_of_255_bytes_works),
        case(a_name_of_256_bytes_is_enametoolong),
        case(names_that_differ_by_case_are_different_files),
    ]
}

fn check(ctx: &Ctx, name: &[u8]) {
    let name = OsStr::from_bytes(name);
    let path = ctx.dir.join(name);
    fs::write(&path, name.as_bytes()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{name:?}");
    let listed: Vec<Vec<u8>> = fs::read_dir(&ctx.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_vec())
        .collect();
    assert_eq!(listed, [name.as_bytes()], "{name:?}");
    assert_eq!(
        fs::read(ctx.behind.join(name)).unwrap(),
        name.as_bytes(),
        "{name:?}"
    );
    let mut renamed = name.to_owned();
    if renamed.len() < 255 {
        renamed.push("2");
    }
    fs::rename(&path, ctx.dir.join(&renamed)).unwrap();
    fs::remove_file(ctx.dir.join(&renamed)).unwrap();
    assert_eq!(fs::read_dir(&ctx.behind).unwrap().count(), 0, "{name:?}");
}

fn names_that_are_not_utf8_are_kept(ctx: &Ctx) {
    check(ctx, b"\xff\xfe");
    check(ctx, b"caf\xe9");
    check(
        ctx,
        &(1..=254u8).filter(|byte| *byte != b'/').collect::<Vec<_>>(),
    );
}

fn awkward_names_are_kept(ctx: &Ctx) {
    let names = [
        " ",
        "new\nline",
        "tab\there",
        "-rf",
        "*",
        "a  b",
        "trailing ",
        "\\",
        "'\"`$(x)",
        "...",
        ".hidden",
        "~",
        "#",
        ":",
        "a:b",
        "\u{1f980}",
        "e\u{301}",
        "\u{e9}",
        "%2f",
        "\u{7f}",
    ];
    for name in names {
        check(ctx, name.as_bytes());
    }
}

fn a_symlink_target_that_is_not_utf8_is_kept(ctx: &Ctx) {
    let target = OsStr::from_bytes(b"\xff/\xfe\n ");
    symlink(target, ctx.dir.join("link")).unwrap();
    assert_eq!(fs::read_link(ctx.dir.join("link")).unwrap(), target);
}

fn a_name_of_255_bytes_works(ctx: &Ctx) {
    check(ctx, "n".repeat(255).as_bytes());
    let dir = ctx.dir.join("d".repeat(255));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f".repeat(255)), "content").unwrap();
    assert_eq!(fs::read(dir.join("f".repeat(255))).unwrap(), b"content");
}

fn a_name_of_256_bytes_is_enametoolong(ctx: &Ctx) {
    let path = ctx.dir.join("n".repeat(256));
    fs::write(ctx.dir.join("f"), "").unwrap();
    refused(fs::write(&path, ""), Errno::ENAMETOOLONG);
    refused(fs::create_dir(&path), Errno::ENAMETOOLONG);
    refused(symlink("t", &path), Errno::ENAMETOOLONG);
    refused(fs::metadata(&path), Errno::ENAMETOOLONG);
    refused(fs::remove_file(&path), Errno::ENAMETOOLONG);
    refused(fs::rename(ctx.dir.join("f"), &path), Errno::ENAMETOOLONG);
    refused(fs::hard_link(ctx.dir.join("f"), &path), Errno::ENAMETOOLONG);
}

fn names_that_differ_by_case_are_different_files(ctx: &Ctx) {
    fs::write(ctx.dir.join("name"), "lower").unwrap();
    fs::write(ctx.dir.join("NAME"), "upper").unwrap();
    assert_eq!(fs::read(ctx.dir.join("name")).unwrap(), b"lower");
}
