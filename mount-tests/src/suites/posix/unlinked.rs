//! Files that are removed while they are open: programs use them as scratch space.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::errno::Errno;

use super::{names_in, open_rw, refused};
use crate::case::{Case, Ctx, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(an_unlinked_file_can_be_read_and_written),
        case(an_unlinked_file_takes_fstat_ftruncate_and_fchmod),
        case(an_unlinked_file_leaves_no_litter),
        case(the_directory_of_an_unlinked_file_can_be_removed),
        case(the_name_of_an_unlinked_file_can_be_taken_anew),
        case(a_file_replaced_by_rename_while_open_goes_on),
        case(an_unlinked_read_only_descriptor_reads_on),
        case(an_unlinked_file_with_another_link_keeps_its_content),
    ]
}

fn an_unlinked_file_can_be_read_and_written(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = open_rw(&path);
    file.write_all(b"before ").unwrap();
    fs::remove_file(&path).unwrap();
    refused(File::open(&path), Errno::ENOENT);
    file.write_all(b"after").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    let block = vec![5; 1_000_000];
    file.write_all_at(&block, 100).unwrap();
    file.sync_all().unwrap();
    let mut back = vec![0; 1_000_000];
    file.read_exact_at(&mut back, 100).unwrap();
    assert!(back == block);
}

fn an_unlinked_file_takes_fstat_ftruncate_and_fchmod(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut file = open_rw(&path);
    file.write_all(b"0123456789").unwrap();
    let ino = file.metadata().unwrap().ino();
    fs::remove_file(&path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.len(), meta.ino(), meta.nlink()), (10, ino, 0));
    file.set_len(4).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
    file.set_len(400_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 400_000);
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    let mut start = [0; 5];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"0123\0");
}

fn an_unlinked_file_leaves_no_litter(ctx: &Ctx) {
    let files: Vec<File> = (0..10)
        .map(|number| {
            let path = ctx.dir.join(format!("{number}"));
            let mut file = open_rw(&path);
            file.write_all(b"content").unwrap();
            fs::remove_file(&path).unwrap();
            file
        })
        .collect();
    assert!(names_in(&ctx.dir).is_empty(), "{:?}", names_in(&ctx.dir));
    drop(files);
    assert!(names_in(&ctx.dir).is_empty());
    assert!(
        names_in(&ctx.behind).is_empty(),
        "{:?}",
        names_in(&ctx.behind)
    );
}

fn the_directory_of_an_unlinked_file_can_be_removed(ctx: &Ctx) {
    let dir = ctx.dir.join("d");
    fs::create_dir(&dir).unwrap();
    let mut file = open_rw(&dir.join("f"));
    file.write_all(b"content").unwrap();
    fs::remove_file(dir.join("f")).unwrap();
    fs::remove_dir(&dir).unwrap();
    file.write_all(b" more").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content more");
    drop(file);
    assert!(names_in(&ctx.behind).is_empty());
}

fn the_name_of_an_unlinked_file_can_be_taken_anew(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let mut old = open_rw(&path);
    old.write_all(b"old").unwrap();
    fs::remove_file(&path).unwrap();
    let mut new = open_rw(&path);
    new.write_all(b"new file").unwrap();
    assert_ne!(old.metadata().unwrap().ino(), new.metadata().unwrap().ino());
    let mut text = String::new();
    old.rewind().unwrap();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    drop((old, new));
    assert_eq!(fs::read(ctx.behind.join("f")).unwrap(), b"new file");
}

fn a_file_replaced_by_rename_while_open_goes_on(ctx: &Ctx) {
    fs::write(ctx.dir.join("b"), "old content").unwrap();
    let mut old = open_rw(&ctx.dir.join("b"));
    fs::write(ctx.dir.join("a"), "new").unwrap();
    fs::rename(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old content");
    old.write_all(b" goes on").unwrap();
    assert_eq!(old.metadata().unwrap().len(), 19);
    drop(old);
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"new");
    assert_eq!(names_in(&ctx.behind), ["b"]);
}

fn an_unlinked_read_only_descriptor_reads_on(ctx: &Ctx) {
    let path = ctx.dir.join("f");
    let content: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    ctx.put_behind("f", &content);
    let mut file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back == content, "{} bytes of {}", back.len(), content.len());
}

fn an_unlinked_file_with_another_link_keeps_its_content(ctx: &Ctx) {
    let mut file = open_rw(&ctx.dir.join("a"));
    file.write_all(b"first").unwrap();
    fs::hard_link(ctx.dir.join("a"), ctx.dir.join("b")).unwrap();
    fs::remove_file(ctx.dir.join("a")).unwrap();
    file.write_all(b" second").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    drop(file);
    assert_eq!(fs::read(ctx.dir.join("b")).unwrap(), b"first second");
    assert_eq!(names_in(&ctx.behind), ["b"]);
}
