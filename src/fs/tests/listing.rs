//! Listings, also of servers that list what cannot be.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::testing::peak;

/// All names of the mounted directory.
async fn names(fs: &Filesystem, plus: bool) -> Vec<Vec<u8>> {
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let names = names_from(fs, fh, 2, plus).await;
    fs.releasedir(fh);
    names
}

async fn names_from(fs: &Filesystem, fh: Fh, mut offset: u64, plus: bool) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    loop {
        let before = offset;
        let take = |entry: &crate::fs::DirEntry<'_>| {
            offset = entry.next;
            names.push(entry.name.to_vec());
            false
        };
        fs.readdir(fh, before, plus, take).await.unwrap();
        if offset == before {
            return names;
        }
    }
}

/// Lists these names, a hundred at a time, in the server's place.
fn list(server: &Server, names: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let mut names = names;
    server.intercept(move |request| {
        let Request::Readdir { .. } = request else {
            return None;
        };
        let page: Vec<_> = names.by_ref().take(100).map(|name| entry(&name)).collect();
        Some(if page.is_empty() {
            status(StatusCode::EOF)
        } else {
            Response::Names(page)
        })
    });
}

#[tokio::test]
async fn names_that_can_be_none_are_hidden() {
    let long = vec![b'x'; 1024];
    let bad: [&[u8]; 9] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"../up",
        b"/etc/passwd",
        b"nul\0",
        &[b'x'; 1025],
    ];
    let good: [&[u8]; 4] = [b"a", b"...", b"\xff\n", &long];
    for plus in [false, true] {
        let (server, fs) = mount(&[]).await;
        list(
            &server,
            bad.map(<[u8]>::to_vec)
                .into_iter()
                .chain(good.map(<[u8]>::to_vec)),
        );
        assert_eq!(names(&fs, plus).await, good, "plus: {plus}");
    }
}

#[tokio::test]
async fn a_listing_of_nothing_but_bad_names_is_empty() {
    let (server, fs) = mount(&[]).await;
    list(&server, (0..1000).map(|n| format!("{n}/").into_bytes()));
    assert_eq!(names(&fs, true).await, Vec::<Vec<u8>>::new());
}

#[test]
fn a_directory_of_any_size_is_listed_in_bounded_memory() {
    const COUNT: usize = 100_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (server, fs) = runtime.block_on(mount(&[]));
    list(
        &server,
        (0..COUNT).map(|n| format!("a-file-of-many-{n:08}").into_bytes()),
    );
    let (bytes, count) = peak(|| {
        runtime.block_on(async {
            let fh = fs.opendir(Ino::ROOT).await.unwrap();
            let (mut offset, mut count) = (2, 0);
            loop {
                let before = offset;
                let take = |entry: &crate::fs::DirEntry<'_>| {
                    (offset, count) = (entry.next, count + 1);
                    false
                };
                fs.readdir(fh, before, false, take).await.unwrap();
                if offset == before {
                    return count;
                }
            }
        })
    });
    assert_eq!(count, COUNT);
    // Pages asked for ahead, and what would be remembered of a smaller directory.
    assert!(bytes < 6 << 20, "{bytes} bytes for a listing of {COUNT}");
}

#[tokio::test]
async fn a_rewound_listing_begins_anew_and_shows_what_is_new() {
    let (server, fs) = mount(&[("a", b"")]).await;
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    assert_eq!(names_from(&fs, fh, 0, true).await, [&b"."[..], b"..", b"a"]);
    server.tree(|tree| tree.put(b"b", b""));
    assert_eq!(
        names_from(&fs, fh, 0, true).await,
        [&b"."[..], b"..", b"a", b"b"]
    );
}

#[tokio::test]
async fn a_listing_goes_on_where_it_was_left() {
    let (server, fs) = mount(&[]).await;
    list(&server, (0..3000).map(|n| format!("{n:04}").into_bytes()));
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let all = names_from(&fs, fh, 2, false).await;
    assert_eq!(all.len(), 3000);
    // The last entries are still here for one who steps back a little.
    assert_eq!(names_from(&fs, fh, 2900, false).await, all[2898..]);
}

#[tokio::test]
async fn a_listing_that_fails_in_its_middle_is_an_error_and_not_its_end() {
    let (server, fs) = mount(&[]).await;
    let mut count = 0;
    server.intercept(move |request| {
        let Request::Readdir { .. } = request else {
            return None;
        };
        count += 1;
        Some(match count {
            1 => Response::Names(vec![entry(b"a")]),
            _ => status(StatusCode::FAILURE),
        })
    });
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let mut shown = 0;
    fs.readdir(fh, 2, false, |_| {
        shown += 1;
        false
    })
    .await
    .unwrap();
    assert_eq!(shown, 1);
    assert_eq!(
        fs.readdir(fh, 3, false, |_| false).await,
        refused(Errno::EIO)
    );
}

#[tokio::test]
async fn a_file_that_we_removed_is_not_believed_in_because_an_older_listing_has_it() {
    let (_server, fs) = mount(&[("a", b""), ("b", b"")]).await;
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    // The pages are on their way; now the name goes.
    let ino = look_up(&fs, "a").await;
    fs.unlink(Ino::ROOT, b"a").await.unwrap();
    fs.forget(ino, 1);
    names_from(&fs, fh, 2, true).await;
    assert_eq!(
        fs.lookup(Ino::ROOT, b"a").await.err(),
        Some(Error::Errno(Errno::ENOENT))
    );
}

/// As `rm -r` looks whether a directory is empty before it lists it.
#[tokio::test]
async fn a_listing_that_was_left_at_its_first_page_is_remembered_if_that_was_all() {
    let (server, fs) = mount(&[("a", b""), ("b", b"")]).await;
    let opens = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&opens);
    server.intercept(move |request| {
        let is_open = matches!(request, Request::Opendir { .. });
        counted.fetch_add(u32::from(is_open), Ordering::Relaxed);
        None
    });
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let one = |entry: &crate::fs::DirEntry<'_>| entry.next > 3;
    fs.readdir(fh, 0, false, one).await.unwrap();
    fs.releasedir(fh);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(fs.listing(Ino::ROOT).is_some());
    assert_eq!(names(&fs, true).await, [b"a", b"b"]);
    assert_eq!(opens.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_leaves_a_large_directory_at_its_beginning_has_no_more_of_it_asked_for() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| (0..5_000).for_each(|n| tree.put(format!("{n:04}").as_bytes(), b"")));
    let pages = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&pages);
    server.intercept(move |request| {
        let is_page = matches!(request, Request::Readdir { .. });
        counted.fetch_add(u32::from(is_page), Ordering::Relaxed);
        None
    });
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    fs.readdir(fh, 0, false, |_| true).await.unwrap();
    fs.readdir(fh, 2, false, |_| true).await.unwrap();
    fs.releasedir(fh);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let asked = pages.load(Ordering::Relaxed);
    assert!(asked <= 8, "{asked} pages");
    assert!(fs.listing(Ino::ROOT).is_none());
}

#[tokio::test]
async fn an_empty_directory_is_asked_for_once_to_its_end_and_anew_by_who_rewinds() {
    let (server, fs) = mount(&[]).await;
    let opens = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&opens);
    server.intercept(move |request| {
        let is_open = matches!(request, Request::Opendir { .. });
        counted.fetch_add(u32::from(is_open), Ordering::Relaxed);
        None
    });
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    // getdents(2) once for the dots, and once for the end.
    for (offset, opened) in [(0, 1), (2, 1), (2, 1), (0, 2)] {
        fs.readdir(fh, offset, true, |_| false).await.unwrap();
        assert_eq!(opens.load(Ordering::Relaxed), opened, "from {offset}");
    }
    server.tree(|tree| tree.put(b"new", b""));
    assert!(names_from(&fs, fh, 2, false).await.is_empty());
    assert_eq!(names_from(&fs, fh, 0, false).await.len(), 3);
    fs.releasedir(fh);
}
