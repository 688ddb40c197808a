//! Files that are open while one of two that share storage gets a file of its own: readers and
//! writers go on, on the file they had opened.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::programs::cp;
use crate::case::{Case, Ctx, case};
use crate::suites::site::{
    Copying, Look, Site, content, inode, make_old, open_both, same, same_content,
};
use crate::sys::{SharedMap, copy_file_range};
use crate::wire::Manner;

pub(super) fn cases() -> Vec<Case> {
    let with = |what: &str, run: fn(&Site)| {
        [Copying::Off, Copying::Cow].map(|copying| {
            let case = case(move |ctx: &Ctx| {
                let site = Site::new(ctx, copying, Manner::default());
                run(&site);
                site.end();
            })
            .called(format!("{what}_{}", copying.word()));
            if copying == Copying::Off {
                case
            } else {
                case.on_mount_only()
            }
        })
    };
    [
        with("open_files_of_the_copy_follow_it", of_the_copy),
        with("open_files_of_the_source_follow_it", of_the_source),
        with("the_file_a_copy_was_made_through_goes_on", made_through),
        with(
            "a_copy_that_is_open_elsewhere_is_one",
            open_before_it_was_made,
        ),
        with("mappings_see_what_is_written_to_their_file", mapped),
        with("an_unlinked_open_copy_is_still_its_own", unlinked),
        with(
            "attributes_by_descriptor_stay_with_their_file",
            by_descriptor,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const LEN: usize = 200_000;

/// A source and its copy.
fn pair(site: &Site) -> Vec<u8> {
    let source = content("handles", LEN);
    make_old(&site.dir.join("source"), &source);
    cp(&site.dir.join("source"), &site.dir.join("copy"));
    assert_eq!(share(site), site.links(), "one file on the server");
    source
}

fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len + 1];
    let mut have = 0;
    while let count @ 1.. = file.read_at(&mut buffer[have..], have as u64).unwrap() {
        have += count;
    }
    buffer.truncate(have);
    buffer
}

fn share(site: &Site) -> bool {
    inode(&site.behind.join("source")) == inode(&site.behind.join("copy"))
}

fn of_the_copy(site: &Site) {
    follow(site, "copy", "source");
}

fn of_the_source(site: &Site) {
    follow(site, "source", "copy");
}

/// A reader and two writers that were opened before the first write see and do what they should.
fn follow(site: &Site, written: &str, other: &str) {
    let mut model = pair(site);
    let path = site.dir.join(written);
    let before = Look::at(&site.dir.join(other));
    let (reader, one, two) = (
        File::open(&path).unwrap(),
        open_both(&path),
        open_both(&path),
    );
    let other_reader = File::open(site.dir.join(other)).unwrap();
    same_content("the reader", &read_all(&reader, LEN), &model);
    assert_eq!(share(site), site.links(), "opening changes nothing");
    for (file, text, place) in [(&one, b"one", 10), (&two, b"two", 150_000)] {
        file.write_all_at(text, place as u64).unwrap();
        model[place..place + 3].copy_from_slice(text);
        same_content("the reader", &read_all(&reader, LEN), &model);
        same_content("the other writer", &read_all(&one, LEN), &model);
        assert!(!share(site) || !site.is_mount(), "written without a break");
    }
    fs::write(site.dir.join("third"), "over").unwrap();
    one.set_len(100).unwrap();
    model.truncate(100);
    two.write_all_at(b"end", 100).unwrap();
    model.extend(b"end");
    same_content("the reader", &read_all(&reader, 103), &model);
    assert_eq!(reader.metadata().unwrap().len(), 103);
    let other_now = read_all(&other_reader, LEN);
    same_content("the other's reader", &other_now, &before.content);
    drop((reader, one, two, other_reader));
    same_content("the name", &fs::read(&path).unwrap(), &model);
    let on_server = fs::read(site.behind.join(written)).unwrap();
    same_content("on the server", &on_server, &model);
    same("the other", &Look::at(&site.dir.join(other)), &before);
}

fn made_through(site: &Site) {
    let source = content("handles", LEN);
    make_old(&site.dir.join("source"), &source);
    let before = Look::at(&site.dir.join("source"));
    let from = File::open(site.dir.join("source")).unwrap();
    let to = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(site.dir.join("copy"))
        .unwrap();
    let mut done = 0;
    while done < LEN {
        let place = i64::try_from(done).unwrap();
        done += copy_file_range(&from, place, &to, place, 1 << 30).unwrap();
    }
    let number = to.metadata().unwrap().ino();
    same_content("through what it was made by", &read_all(&to, LEN), &source);
    to.sync_all().unwrap();
    assert_eq!(share(site), site.links(), "one file on the server");
    to.write_all_at(b"mine", 70_000).unwrap();
    to.set_len(80_000).unwrap();
    to.sync_all().unwrap();
    let mut model = source[..80_000].to_vec();
    model[70_000..70_004].copy_from_slice(b"mine");
    same_content("through what it was made by", &read_all(&to, LEN), &model);
    assert_eq!(to.metadata().unwrap().ino(), number, "its inode");
    drop(to);
    let copy = Look::at(&site.dir.join("copy"));
    assert_eq!(copy.ino, number, "its inode by name");
    same_content("by name", &copy.content, &model);
    same("the source", &Look::at(&site.dir.join("source")), &before);
}

fn open_before_it_was_made(site: &Site) {
    let source = content("handles", LEN);
    make_old(&site.dir.join("source"), &source);
    let path = site.dir.join("copy");
    fs::write(&path, content("before", 50_000)).unwrap();
    let (reader, writer) = (File::open(&path).unwrap(), open_both(&path));
    // cp(1) truncates the file that is there and fills it: for those who have it open, too.
    cp(&site.dir.join("source"), &path);
    same_content("the reader", &read_all(&reader, LEN), &source);
    writer.write_all_at(b"written", 3).unwrap();
    let mut model = source.clone();
    model[3..10].copy_from_slice(b"written");
    same_content("the reader", &read_all(&reader, LEN), &model);
    drop((reader, writer));
    same_content("the copy", &fs::read(&path).unwrap(), &model);
    let now = fs::read(site.dir.join("source")).unwrap();
    same_content("the source", &now, &source);
}

fn mapped(site: &Site) {
    let mut model = pair(site);
    let before = Look::at(&site.dir.join("source"));
    let file = open_both(&site.dir.join("copy"));
    let mut map = SharedMap::new(file.as_fd(), LEN).unwrap();
    same_content("the mapping", &map.load(0, LEN), &model);
    file.write_all_at(b"by write", 5000).unwrap();
    model[5000..5008].copy_from_slice(b"by write");
    same_content("the mapping", &map.load(0, LEN), &model);
    map.store(9000, b"by mapping");
    map.sync().unwrap();
    model[9000..9010].copy_from_slice(b"by mapping");
    drop(map);
    file.sync_all().unwrap();
    drop(file);
    let now = fs::read(site.behind.join("copy")).unwrap();
    same_content("the copy", &now, &model);
    same("the source", &Look::at(&site.dir.join("source")), &before);
}

fn unlinked(site: &Site) {
    let mut model = pair(site);
    let before = Look::at(&site.dir.join("source"));
    let file = open_both(&site.dir.join("copy"));
    fs::remove_file(site.dir.join("copy")).unwrap();
    file.write_all_at(b"nameless", 100).unwrap();
    model[100..108].copy_from_slice(b"nameless");
    same_content("the nameless file", &read_all(&file, LEN), &model);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    same("the source", &Look::at(&site.dir.join("source")), &before);
    drop(file);
    assert_eq!(fs::read_dir(&site.dir).unwrap().count(), 1);
}

fn by_descriptor(site: &Site) {
    use std::os::unix::fs::PermissionsExt;
    pair(site);
    let before = Look::at(&site.dir.join("source"));
    let file = open_both(&site.dir.join("copy"));
    file.set_permissions(fs::Permissions::from_mode(0o640))
        .unwrap();
    same("the source", &Look::at(&site.dir.join("source")), &before);
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
        .unwrap();
    let copy = Look::at(&site.dir.join("copy"));
    assert_eq!((copy.mode, copy.mtime), (0o640, 1_000_000_000));
    same_content("the copy", &copy.content, &before.content);
    same("the source", &Look::at(&site.dir.join("source")), &before);
}
