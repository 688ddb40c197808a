//! mkdir, rmdir and reading directories, large ones and changing ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};

use nix::errno::Errno;

use super::{names_in, refused};
use crate::case::{Case, Ctx, case};
use crate::sys::DirStream;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(mkdir_makes_an_empty_directory_with_the_mode_asked_for),
        case(mkdir_over_an_existing_name_is_eexist),
        case(rmdir_of_a_full_directory_is_enotempty),
        case(rmdir_of_a_file_is_enotdir),
        case(unlink_of_a_directory_is_eisdir),
        case(rmdir_of_dot_is_einval),
        case(a_listing_has_dot_and_dotdot_once),
        case(a_listing_says_each_kind),
        case(twenty_thousand_entries_are_listed_once_each).within_s(120),
        case(entries_deleted_while_reading_do_not_hide_others).within_s(60),
        case(seekdir_and_rewinddir_find_the_same_entries),
        case(a_new_name_is_listed_at_once),
        case(a_deep_tree_is_made_and_removed),
        case(a_removed_working_directory_is_enoent),
    ]
}

fn mkdir_makes_an_empty_directory_with_the_mode_asked_for(ctx: &Ctx) {
    let path = ctx.dir.join("d");
    fs::DirBuilder::new().mode(0o750).create(&path).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.is_dir());
    assert_eq!(meta.mode() & 0o7777, 0o750);
    assert!(names_in(&path).is_empty());
    fs::remove_dir(&path).unwrap();
    refused(fs::metadata(&path), Errno::ENOENT);
    assert!(names_in(&ctx.behind).is_empty());
}

fn mkdir_over_an_existing_name_is_eexist(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("f"), "kept").unwrap();
    std::os::unix::fs::symlink("nowhere", ctx.dir.join("l")).unwrap();
    for name in ["d", "f", "l"] {
        refused(fs::create_dir(ctx.dir.join(name)), Errno::EEXIST);
    }
    // Made behind the mount: the kernel may not know the name, so the server is asked.
    fs::create_dir(ctx.behind.join("behind")).unwrap();
    refused(fs::create_dir(ctx.dir.join("behind")), Errno::EEXIST);
}

fn rmdir_of_a_full_directory_is_enotempty(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    fs::write(ctx.dir.join("d/f"), "kept").unwrap();
    refused(fs::remove_dir(ctx.dir.join("d")), Errno::ENOTEMPTY);
    assert_eq!(fs::read(ctx.dir.join("d/f")).unwrap(), b"kept");
}

fn rmdir_of_a_file_is_enotdir(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    refused(fs::remove_dir(ctx.dir.join("f")), Errno::ENOTDIR);
}

fn unlink_of_a_directory_is_eisdir(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    refused(fs::remove_file(ctx.dir.join("d")), Errno::EISDIR);
    assert_eq!(names_in(&ctx.dir), ["d"]);
}

fn rmdir_of_dot_is_einval(ctx: &Ctx) {
    fs::create_dir(ctx.dir.join("d")).unwrap();
    refused(
        nix::unistd::unlinkat(
            nix::fcntl::AT_FDCWD,
            &ctx.dir.join("d/."),
            nix::unistd::UnlinkatFlags::RemoveDir,
        ),
        Errno::EINVAL,
    );
}

fn a_listing_has_dot_and_dotdot_once(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    let mut stream = DirStream::open(&ctx.dir).unwrap();
    let mut names = Vec::new();
    while let Some((name, _)) = stream.next_entry().unwrap() {
        names.push(name);
    }
    names.sort();
    assert_eq!(names, [b".".to_vec(), b"..".to_vec(), b"f".to_vec()]);
}

fn a_listing_says_each_kind(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "").unwrap();
    fs::create_dir(ctx.dir.join("d")).unwrap();
    std::os::unix::fs::symlink("f", ctx.dir.join("l")).unwrap();
    for entry in fs::read_dir(&ctx.dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        match entry.file_name().to_str() {
            Some("f") => assert!(kind.is_file()),
            Some("d") => assert!(kind.is_dir()),
            Some("l") => assert!(kind.is_symlink()),
            other => panic!("{other:?}"),
        }
    }
}

fn twenty_thousand_entries_are_listed_once_each(ctx: &Ctx) {
    let expected: BTreeSet<String> = (0..20_000)
        .map(|number| format!("entry-{number:05}"))
        .collect();
    for name in &expected {
        fs::write(ctx.behind.join(name), "").unwrap();
    }
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(&ctx.dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name.clone()), "{name} is listed twice");
    }
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected);
    for number in (0..20_000).step_by(997) {
        assert!(
            fs::metadata(ctx.dir.join(format!("entry-{number:05}")))
                .unwrap()
                .is_file()
        );
    }
}

fn entries_deleted_while_reading_do_not_hide_others(ctx: &Ctx) {
    // What `rm -r` does: read a part, remove it, read on.
    for number in 0..3000 {
        fs::write(ctx.behind.join(format!("{number:04}")), "").unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(&ctx.dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 3000);
    assert!(names_in(&ctx.dir).is_empty());
    assert!(names_in(&ctx.behind).is_empty());
}

fn seekdir_and_rewinddir_find_the_same_entries(ctx: &Ctx) {
    for number in 0..500 {
        fs::write(ctx.dir.join(format!("{number:03}")), "").unwrap();
    }
    let mut stream = DirStream::open(&ctx.dir).unwrap();
    let mut first = Vec::new();
    let mut places = Vec::new();
    while let Some((name, _)) = stream.next_entry().unwrap() {
        first.push(name);
        places.push(stream.tell());
    }
    assert_eq!(first.len(), 502);
    stream.rewind();
    let mut again = Vec::new();
    while let Some((name, _)) = stream.next_entry().unwrap() {
        again.push(name);
    }
    assert!(
        first == again,
        "another order or other names after rewinddir"
    );
    for index in [400, 3, 250, 500] {
        stream.seek(places[index]);
        let (name, _) = stream.next_entry().unwrap().unwrap();
        assert_eq!(name, first[index + 1], "after seekdir to {index}");
    }
    // A name made after the stream was opened is there after a rewind.
    fs::write(ctx.dir.join("new"), "").unwrap();
    stream.rewind();
    let mut found = false;
    while let Some((name, _)) = stream.next_entry().unwrap() {
        found |= name == b"new";
    }
    assert!(found, "rewinddir shows the old listing");
}

fn a_new_name_is_listed_at_once(ctx: &Ctx) {
    for round in 0..20 {
        let name = format!("{round:02}");
        fs::write(ctx.dir.join(&name), "").unwrap();
        assert!(names_in(&ctx.dir).contains(&name));
    }
    fs::remove_file(ctx.dir.join("07")).unwrap();
    fs::rename(ctx.dir.join("08"), ctx.dir.join("renamed")).unwrap();
    let names = names_in(&ctx.dir);
    assert_eq!(names.len(), 19);
    assert!(names.contains(&"renamed".to_owned()) && !names.contains(&"08".to_owned()));
}

fn a_deep_tree_is_made_and_removed(ctx: &Ctx) {
    let deep = ctx.dir.join("d/".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "deep").unwrap();
    assert_eq!(fs::read(deep.join("f")).unwrap(), b"deep");
    fs::remove_dir_all(ctx.dir.join("d")).unwrap();
    assert!(names_in(&ctx.behind).is_empty());
}

fn a_removed_working_directory_is_enoent(ctx: &Ctx) {
    let path = ctx.dir.join("d");
    fs::create_dir(&path).unwrap();
    let dir = fs::File::open(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    let flags = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_WRONLY;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
    refused(nix::fcntl::openat(&dir, "f", flags, mode), Errno::ENOENT);
}
