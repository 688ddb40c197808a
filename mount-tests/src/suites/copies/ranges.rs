//! copy_file_range(2) of parts, with arguments as they come, against what the bytes must be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::programs::cp;
use crate::case::{Case, Ctx, case};
use crate::suites::random::Random;
use crate::suites::site::{
    COPY_DATA, Copying, Look, Site, content, make_old, open_both, same, same_content,
};
use crate::sys::copy_file_range;
use crate::wire::Manner;

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![case(|ctx| try_all(ctx, Copying::Off, &[])).called("ranges_are_copied_off")];
    for (called, copying, hidden) in [
        ("cow", Copying::Cow, &[][..]),
        ("shared", Copying::Shared, &[]),
        ("off_on_a_server_without_copy_data", Copying::Off, STREAMED),
        ("cow_on_a_server_without_copy_data", Copying::Cow, STREAMED),
    ] {
        all.push(
            case(move |ctx| try_all(ctx, copying, hidden))
                .called(format!("ranges_are_copied_{called}"))
                .on_mount_only(),
        );
    }
    all.into_iter().map(|case| case.within_s(60)).collect()
}

const STREAMED: &[&str] = &[COPY_DATA];

fn try_all(ctx: &Ctx, copying: Copying, hidden: &[&'static str]) {
    let manner = Manner {
        hidden: hidden.to_vec(),
        ..Manner::default()
    };
    let site = Site::new(ctx, copying, manner);
    random_ranges_of_two_files(&site, ctx);
    ranges_inside_one_file(&site);
    beyond_the_end_is_nothing(&site);
    more_than_there_is_is_all_there_is(&site);
    what_was_just_written_is_copied(&site);
    a_longer_file_keeps_its_tail(&site);
    ranges_between_hard_links_of_one_file(&site);
    ranges_between_a_file_and_its_copy(&site);
    refusals_are_those_of_the_manual(&site);
    site.end();
}

fn random_ranges_of_two_files(site: &Site, ctx: &Ctx) {
    let mut random = Random::new(ctx.seed);
    let (from, to) = (site.dir.join("from"), site.dir.join("to"));
    let source = content("ranges", 1_000_000);
    let mut model = content("other", 500_000);
    make_old(&from, &source);
    fs::write(&to, &model).unwrap();
    let (from_file, to_file) = (File::open(&from).unwrap(), open_both(&to));
    let mut number = |bound: u64| usize::try_from(random.below(bound)).unwrap();
    for _ in 0..40 {
        let (place, to_place) = (number(1_000_000), number(900_000));
        let len = number(if place % 2 == 0 { 5000 } else { 400_000 });
        let shall = len.min(source.len() - place);
        copy_fully(&from_file, place, &to_file, to_place, len, shall);
        model.resize(model.len().max(to_place + shall), 0);
        model[to_place..to_place + shall].copy_from_slice(&source[place..place + shall]);
        let what = format!("{shall} bytes from {place} to {to_place}");
        same_content(&what, &fs::read(&to).unwrap(), &model);
    }
    drop((from_file, to_file));
    same_content("the source", &fs::read(&from).unwrap(), &source);
    let on_server = fs::read(site.behind.join("to")).unwrap();
    same_content("on the server", &on_server, &model);
}

/// Calls until `shall` bytes are copied, as every program must; then no more may come.
#[track_caller]
fn copy_fully(from: &File, place: usize, to: &File, to_place: usize, len: usize, shall: usize) {
    let mut done = 0;
    while done < shall {
        let at = |place: usize| i64::try_from(place + done).unwrap();
        let copied = copy_file_range(from, at(place), to, at(to_place), len - done);
        match copied {
            Ok(copied @ 1..) => done += copied,
            other => panic!("{done} of {shall} bytes copied, then {other:?}"),
        }
    }
    assert_eq!(done, shall, "bytes copied");
}

fn ranges_inside_one_file(site: &Site) {
    let path = site.dir.join("one");
    let mut model = content("one", 300_000);
    fs::write(&path, &model).unwrap();
    let file = open_both(&path);
    for (place, to_place, len) in [
        (0, 100_000, 100_000),
        (200_000, 5, 99_995),
        (10, 300_000, 290_000),
    ] {
        copy_fully(&file, place, &file, to_place, len, len);
        model.resize(model.len().max(to_place + len), 0);
        let piece = model[place..place + len].to_vec();
        model[to_place..to_place + len].copy_from_slice(&piece);
        same_content("a range within one file", &fs::read(&path).unwrap(), &model);
    }
    // Longer than the file, so that it would meet itself.
    let overlapping = copy_file_range(&file, 0, &file, 50_000, 100_000);
    assert_eq!(overlapping, Err(Errno::EINVAL));
    drop(file);
    same_content(
        "after a refusal",
        &fs::read(site.behind.join("one")).unwrap(),
        &model,
    );
}

fn beyond_the_end_is_nothing(site: &Site) {
    let (from, to) = (site.dir.join("short"), site.dir.join("untouched"));
    fs::write(&from, "12345").unwrap();
    fs::write(&to, "abc").unwrap();
    let (from_file, to_file) = (File::open(&from).unwrap(), open_both(&to));
    assert_eq!(copy_file_range(&from_file, 5, &to_file, 0, 10), Ok(0));
    assert_eq!(
        copy_file_range(&from_file, 1_000_000, &to_file, 0, 10),
        Ok(0)
    );
    assert_eq!(copy_file_range(&from_file, 3, &to_file, 0, 10), Ok(2));
    assert_eq!(copy_file_range(&from_file, 0, &to_file, 3, 0), Ok(0));
    drop(to_file);
    assert_eq!(fs::read(&to).unwrap(), b"45c");
}

fn more_than_there_is_is_all_there_is(site: &Site) {
    let (from, to) = (site.dir.join("all"), site.dir.join("all-of-it"));
    let source = content("all", 777_777);
    make_old(&from, &source);
    let (from_file, to_file) = (File::open(&from).unwrap(), File::create_new(&to).unwrap());
    copy_fully(&from_file, 0, &to_file, 0, 1 << 40, source.len());
    let end = i64::try_from(source.len()).unwrap();
    assert_eq!(
        copy_file_range(&from_file, end, &to_file, end, 1 << 40),
        Ok(0)
    );
    drop(to_file);
    same_content("1 << 40 bytes", &fs::read(&to).unwrap(), &source);
}

fn what_was_just_written_is_copied(site: &Site) {
    let (from, to) = (site.dir.join("fresh"), site.dir.join("of-fresh"));
    let mut source = content("fresh", 200_000);
    let from_file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&from)
        .unwrap();
    from_file.write_all_at(&source, 0).unwrap();
    let to_file = File::create_new(&to).unwrap();
    copy_fully(&from_file, 0, &to_file, 0, 1 << 40, source.len());
    // Both go on being written through what was open before.
    from_file.write_all_at(b"source", 1000).unwrap();
    let mut copy = source.clone();
    to_file.write_all_at(b"copy", 2000).unwrap();
    copy[2000..2004].copy_from_slice(b"copy");
    source[1000..1006].copy_from_slice(b"source");
    if site.copying == Copying::Shared {
        return;
    }
    assert_eq!(to_file.metadata().unwrap().len(), 200_000);
    drop((from_file, to_file));
    same_content("the source", &fs::read(&from).unwrap(), &source);
    same_content("the copy", &fs::read(&to).unwrap(), &copy);
    let on_server = |name| fs::read(site.behind.join(name)).unwrap();
    same_content("the server's source", &on_server("fresh"), &source);
    same_content("the server's copy", &on_server("of-fresh"), &copy);
}

fn a_longer_file_keeps_its_tail(site: &Site) {
    let (from, to) = (site.dir.join("head"), site.dir.join("longer"));
    let (source, mut model) = (content("head", 100_000), content("longer", 150_000));
    make_old(&from, &source);
    fs::write(&to, &model).unwrap();
    let (from_file, to_file) = (File::open(&from).unwrap(), open_both(&to));
    copy_fully(&from_file, 0, &to_file, 0, 1 << 40, source.len());
    model[..100_000].copy_from_slice(&source);
    drop(to_file);
    same_content("head and tail", &fs::read(&to).unwrap(), &model);
}

fn ranges_between_hard_links_of_one_file(site: &Site) {
    let (one, two) = (site.dir.join("hard"), site.dir.join("link"));
    let mut model = content("hard", 200_000);
    fs::write(&one, &model).unwrap();
    fs::hard_link(&one, &two).unwrap();
    let (from, to) = (File::open(&one).unwrap(), open_both(&two));
    copy_fully(&from, 0, &to, 100_000, 100_000, 100_000);
    let whole = copy_file_range(&from, 0, &to, 0, 200_000);
    assert_eq!(whole, Err(Errno::EINVAL), "a file onto its own hard link");
    drop((from, to));
    let head = model[..100_000].to_vec();
    model[100_000..].copy_from_slice(&head);
    for path in [&one, &two] {
        same_content("both names", &fs::read(path).unwrap(), &model);
    }
}

fn ranges_between_a_file_and_its_copy(site: &Site) {
    if site.copying == Copying::Shared {
        return;
    }
    let (one, two) = (site.dir.join("pair"), site.dir.join("pair-copy"));
    let source = content("pair", 200_000);
    make_old(&one, &source);
    cp(&one, &two);
    let before = Look::at(&one);
    let (from, to) = (File::open(&one).unwrap(), open_both(&two));
    copy_fully(&from, 0, &to, 50_000, 150_000, 150_000);
    let mut model = source.clone();
    model[50_000..].copy_from_slice(&source[..150_000]);
    drop((from, to));
    same_content("the copy", &fs::read(&two).unwrap(), &model);
    same("the source", &Look::at(&one), &before);
    // And back in whole, over what the name held before.
    cp(&two, &one);
    same_content("copied back", &fs::read(&one).unwrap(), &model);
    same_content("copied from", &fs::read(&two).unwrap(), &model);
}

fn refusals_are_those_of_the_manual(site: &Site) {
    let (from, to) = (site.dir.join("a"), site.dir.join("b"));
    fs::write(&from, "content").unwrap();
    fs::write(&to, "other").unwrap();
    let appending = File::options().append(true).open(&to).unwrap();
    let (reading, writing) = (File::open(&from).unwrap(), open_both(&to));
    let refused = |to: &File, why| {
        assert_eq!(copy_file_range(&reading, 0, to, 0, 7), Err(why));
    };
    refused(&appending, Errno::EBADF);
    refused(&File::open(&to).unwrap(), Errno::EBADF);
    let only_writing = File::options().write(true).open(&from).unwrap();
    let unread = copy_file_range(&only_writing, 0, &writing, 0, 7);
    assert_eq!(unread, Err(Errno::EBADF));
    assert_eq!(fs::read(&to).unwrap(), b"other");
}
