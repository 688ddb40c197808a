//! A connection that is lost while files are open.

use futures_util::FutureExt;

use super::*;
use crate::fs::Change;
use crate::testing::Cut;

/// As `mount`, with a client that connects anew. Nothing is believed for long.
async fn mount_again(files: &[(&str, &[u8])]) -> (Server, Arc<Filesystem>) {
    mount_again_with(Options::default(), files).await
}

async fn mount_again_with(options: Options, files: &[(&str, &[u8])]) -> (Server, Arc<Filesystem>) {
    let server = Server::new(options);
    server.tree(|tree| {
        for (name, data) in files {
            tree.put(name.as_bytes(), data);
        }
    });
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let config = Config {
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
        ..Config::default()
    };
    let fs = Filesystem::new(client.await.unwrap(), b"", config).await;
    (server, fs.unwrap())
}

#[tokio::test(start_paused = true)]
async fn all_that_have_a_file_open_read_on_when_its_name_goes_after_losses() {
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    let (one, other) = (open(&fs, "f", READ).await, open(&fs, "f", READ).await);
    server.hang_up();
    idle().await;
    // Once more, when one of them is open again.
    let mut opens = 0;
    server.cut_when(move |request| {
        opens += u32::from(matches!(request, Request::Open { .. }));
        (opens == 2).then(|| {
            opens += 1;
            Cut::Before
        })
    });
    fs.unlink(Ino::ROOT, b"f").await.unwrap();
    for fh in [one, other] {
        assert_eq!(&fs.read(fh, 0, 4).await.unwrap()[..], b"data");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_copied_into_is_the_same_file_after_a_loss() {
    let (server, fs) = mount_again(&[("f", b"data"), ("g", b"")]).await;
    let (from, to) = (open(&fs, "f", READ).await, open(&fs, "g", WRITE).await);
    server.tree(|tree| tree.now += 60);
    assert_eq!(fs.copy_range((from, 0), (to, 0), 4).await, Ok(4));
    server.hang_up();
    idle().await;
    assert_eq!(&fs.read(to, 0, 9).await.unwrap()[..], b"data");
}

/// Somebody else puts another file in the place of `f`.
fn replace(server: &Server) {
    server.tree(|tree| {
        tree.now += 60;
        tree.put(b"f", b"another");
    });
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_replaced_while_the_connection_was_lost_is_stale_whoever_looks_at_it_first()
{
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    let fh = open(&fs, "f", READ).await;
    server.hang_up();
    replace(&server);
    idle().await;
    let ino = look_up(&fs, "f").await;
    assert_eq!(fs.getattr(ino).await.unwrap().attr.size, 7);
    assert_eq!(fs.read(fh, 0, 9).await, refused(Errno::ESTALE));
}

#[tokio::test(start_paused = true)]
async fn it_is_also_stale_when_it_was_opened_and_written_to_meanwhile() {
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    let fh = open(&fs, "f", READ).await;
    server.hang_up();
    replace(&server);
    idle().await;
    let other = open(&fs, "f", WRITE).await;
    assert_eq!(&fs.read(other, 0, 9).await.unwrap()[..], b"another");
    write(&fs, other, 0, b"Ano").await.unwrap();
    fs.flush(other).await.unwrap();
    assert_eq!(fs.read(fh, 0, 9).await, refused(Errno::ESTALE));
}

#[tokio::test(start_paused = true)]
async fn it_is_also_stale_when_it_was_cut_short_or_emptied_by_its_name_meanwhile() {
    for is_emptied in [true, false] {
        let (server, fs) = mount_again(&[("f", b"data")]).await;
        let fh = open(&fs, "f", READ).await;
        server.hang_up();
        replace(&server);
        idle().await;
        let ino = look_up(&fs, "f").await;
        match is_emptied {
            true => drop(fs.open(ino, WRITE, true).await.unwrap()),
            false => drop(fs.setattr(ino, size(4), None).await.unwrap()),
        }
        assert_eq!(fs.read(fh, 0, 9).await, refused(Errno::ESTALE));
    }
}

fn size(size: u64) -> Change {
    Change {
        size: Some(size),
        ..Change::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_we_do_to_a_file_ourselves_makes_it_no_other_one() {
    let touch = Change {
        mtime: Some(77),
        ..Change::default()
    };
    for change in [size(2), size(9), touch] {
        let (server, fs) = mount_again(&[("f", b"data")]).await;
        let fh = open(&fs, "f", READ).await;
        let ino = look_up(&fs, "f").await;
        let len = change.size.unwrap_or(4);
        server.tree(|tree| tree.now += 60);
        fs.setattr(ino, change, None).await.unwrap();
        server.hang_up();
        idle().await;
        assert_eq!(fs.read(fh, 0, 99).await.unwrap().len() as u64, len);
        // Also while it is lost.
        server.hang_up();
        idle().await;
        server.tree(|tree| tree.now += 60);
        fs.setattr(ino, change, None).await.unwrap();
        assert_eq!(fs.read(fh, 0, 99).await.unwrap().len() as u64, len);
        server.hang_up();
        idle().await;
        fs.open(ino, WRITE, true).await.unwrap();
        assert_eq!(fs.read(fh, 0, 99).await.unwrap().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_reads_goes_on_with_what_another_open_has_written() {
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    let (reads, writes) = (open(&fs, "f", READ).await, open(&fs, "f", WRITE).await);
    for (at, data) in [(4, &b" and"[..]), (8, b" more")] {
        server.tree(|tree| tree.now += 60);
        write(&fs, writes, at, data).await.unwrap();
        server.hang_up();
        idle().await;
        fs.flush(writes).await.unwrap();
        let len = usize::try_from(at).unwrap() + data.len();
        assert_eq!(fs.read(reads, 0, 99).await.unwrap().len(), len);
    }
}

/// The names that a directory lists from a place on, and where it goes on after `most` of them.
async fn some_names(fs: &Filesystem, fh: Fh, mut offset: u64, most: usize) -> (Vec<String>, u64) {
    let mut names = Vec::new();
    loop {
        let before = offset;
        let take = |entry: &crate::fs::DirEntry<'_>| {
            if names.len() == most {
                return true;
            }
            offset = entry.next;
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            false
        };
        fs.readdir(fh, before.max(2), false, take).await.unwrap();
        if offset == before || names.len() == most {
            return (names, offset);
        }
    }
}

/// Lists a directory of `count` names, and loses the connection in its middle while what was listed is
/// removed, as by `rm -rf`.
async fn names_of_which_some_are_removed(count: usize, has_rewound: bool) -> Vec<String> {
    let (server, fs) = mount_again(&[]).await;
    server.tree(|tree| (0..count).for_each(|n| tree.put(format!("{n:05}").as_bytes(), b"")));
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    if has_rewound {
        some_names(&fs, dir, 0, 10).await;
        let no_more = |_: &crate::fs::DirEntry<'_>| true;
        fs.readdir(dir, 0, false, no_more).await.unwrap();
    }
    let (mut names, at) = some_names(&fs, dir, 0, count / 2).await;
    let mut asked = 0;
    server.cut_when(move |request| {
        asked += usize::from(matches!(request, Request::Readdir { .. }));
        (asked == 1).then(|| {
            asked += 1;
            Cut::Before
        })
    });
    server.tree(|tree| {
        for name in &names {
            tree.unlink(name.as_bytes()).unwrap();
        }
    });
    names.extend(some_names(&fs, dir, at, usize::MAX).await.0);
    assert_eq!(fs.health().reconnects, 1);
    names
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_goes_on_after_a_loss_leaves_out_no_name_that_was_there_all_the_time() {
    for (count, has_rewound) in [(40_000, false), (40_000, true), (12_000, true)] {
        let names = names_of_which_some_are_removed(count, has_rewound).await;
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((names.len(), sorted.len()), (count, count));
    }
}

/// Loses the connection once, before a request that fits.
fn cut_before(server: &Server, fits: fn(&Request) -> bool) {
    let mut is_cut = false;
    server.cut_when(move |request| {
        let is_now = !is_cut && fits(request);
        is_cut |= is_now;
        is_now.then_some(Cut::Before)
    });
}

#[tokio::test(start_paused = true)]
async fn who_has_a_file_open_reads_on_when_the_connection_is_lost_as_its_name_goes() {
    for is_replaced in [false, true] {
        let (server, fs) = mount_again(&[("f", b"data"), ("g", b"other")]).await;
        let fh = open(&fs, "f", READ).await;
        look_up(&fs, "g").await;
        cut_before(&server, |request| {
            matches!(
                request,
                Request::Remove { .. } | Request::PosixRename { .. }
            )
        });
        match is_replaced {
            true => {
                let (from, to) = ((Ino::ROOT, &b"g"[..]), (Ino::ROOT, &b"f"[..]));
                fs.rename(from, to, false).await.unwrap();
            }
            false => fs.unlink(Ino::ROOT, b"f").await.unwrap(),
        }
        assert_eq!(fs.health().reconnects, 1);
        assert_eq!(&fs.read(fh, 0, 9).await.unwrap()[..], b"data");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_gone_when_its_removal_is_asked_for_again_is_removed() {
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    look_up(&fs, "f").await;
    cut_before(&server, |request| matches!(request, Request::Remove { .. }));
    // It is done late, for the connection that was lost.
    let mut is_done = false;
    server.intercept(move |request| {
        is_done |= matches!(request, Request::Remove { .. });
        let is_gone = is_done && matches!(request, Request::Remove { .. } | Request::Lstat { .. });
        is_gone.then(|| status(StatusCode::NO_SUCH_FILE))
    });
    assert_eq!(fs.unlink(Ino::ROOT, b"f").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_name_goes_from_the_directory_that_was_renamed_while_the_server_was_away() {
    for is_renamed in [false, true] {
        let (server, fs) = mount_again(&[]).await;
        server.tree(|tree| {
            tree.mkdir(b"a", 0o755).unwrap();
            tree.put(b"a/f", b"data");
        });
        let a = look_up(&fs, "a").await;
        fs.lookup(a, b"f").await.unwrap();
        let mut cuts = 0;
        server.cut_when(move |request| {
            let is_it = match request {
                Request::Remove { path } | Request::PosixRename { from: path, .. } => {
                    path.ends_with(b"a/f")
                }
                _ => false,
            };
            cuts += u32::from(is_it);
            // After so many it is not asked again at once.
            (is_it && cuts <= 7).then_some(Cut::Before)
        });
        let goes = async {
            match is_renamed {
                true => fs.rename((a, b"f"), (a, b"g"), false).await,
                false => fs.unlink(a, b"f").await,
            }
        };
        let move_away = async {
            while fs.health().reconnects < 7 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fs.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), false).await
        };
        let both = async { tokio::join!(goes, move_away) };
        let (gone, moved) = tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .unwrap();
        assert_eq!((gone, moved), (Ok(()), Ok(())));
        server.tree(|tree| assert!(tree.open(b"b/f", OpenFlags::READ, 0).is_err()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_which_the_second_page_is_always_rubbish_ends_with_an_error() {
    let (server, fs) = mount_again(&[]).await;
    server.tree(|tree| (0..5000).for_each(|n| tree.put(format!("{n:05}").as_bytes(), b"")));
    let mut pages = 0;
    server.intercept(move |request| match request {
        Request::Opendir { .. } => {
            pages = 0;
            None
        }
        Request::Readdir { .. } => {
            pages += 1;
            (pages > 1).then(|| Response::Attrs(Attrs::default()))
        }
        _ => None,
    });
    assert!(list_all(&fs).await.is_err());
}

/// Lists a directory until it ends, which it must.
async fn list_all(fs: &Arc<Filesystem>) -> Result<()> {
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    let mut last = 0;
    let all = async {
        loop {
            let from = last;
            let take = |entry: &crate::fs::DirEntry<'_>| {
                last = entry.next;
                false
            };
            fs.readdir(dir, from, false, take).await?;
            if last == from {
                return Ok(());
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.expect("it ends")
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_names_that_cannot_be_shown_ends_with_an_error() {
    let (server, fs) = mount_again(&[]).await;
    server.intercept(|request| {
        let names = || vec![entry(b"a/b"), entry(b"..")];
        matches!(request, Request::Readdir { .. }).then(|| Response::Names(names()))
    });
    assert!(list_all(&fs).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_begins_anew_after_a_loss_and_says_the_same_for_ever_ends_with_an_error() {
    let (server, fs) = mount_again(&[]).await;
    let mut pages = 0;
    server.intercept(move |request| {
        let is_page = matches!(request, Request::Readdir { .. });
        is_page.then(|| Response::Names(vec![entry(b"a"), entry(b"b")]))
    });
    server.cut_when(move |request| {
        pages += u32::from(matches!(request, Request::Readdir { .. }));
        (pages == 3).then(|| {
            pages += 1;
            Cut::Before
        })
    });
    assert!(list_all(&fs).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_who_rewinds_after_a_loss_lists_all_again() {
    let (server, fs) = mount_again(&[]).await;
    server.tree(|tree| (0..40_000).for_each(|n| tree.put(format!("{n:05}").as_bytes(), b"")));
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    let (_, at) = some_names(&fs, dir, 0, 20_000).await;
    cut_before(&server, |request| {
        matches!(request, Request::Readdir { .. })
    });
    some_names(&fs, dir, at, usize::MAX).await;
    assert_eq!(fs.health().reconnects, 1);
    // From the beginning: not what is still here.
    let no_more = |_: &crate::fs::DirEntry<'_>| true;
    fs.readdir(dir, 0, false, no_more).await.unwrap();
    let again = some_names(&fs, dir, 2, usize::MAX).await.0;
    assert_eq!(again.len(), 40_000);
}

/// A directory that is renamed, and what is asked of names below it behind that, by the old path; the
/// connection is lost when the server has renamed it.
async fn below_a_renamed_directory<T>(
    options: Options,
    ask: impl AsyncFnOnce(Arc<Filesystem>, Ino) -> T,
) -> (Server, T) {
    let (server, fs) = mount_again_with(options, &[("y", b"old")]).await;
    server.tree(|tree| {
        for dir in ["a", "a/r"] {
            tree.mkdir(dir.as_bytes(), 0o755).unwrap();
        }
        tree.put(b"a/x", b"new");
    });
    let a = look_up(&fs, "a").await;
    for name in ["x", "r"] {
        fs.lookup(a, name.as_bytes()).await.unwrap();
    }
    look_up(&fs, "y").await;
    let mut is_cut = false;
    server.cut_when(move |request| {
        let is_rename = matches!(
            request,
            Request::PosixRename { .. } | Request::Rename { .. }
        );
        let is_now = !is_cut && is_rename;
        is_cut |= is_now;
        is_now.then_some(Cut::Behind)
    });
    let mut moving = Box::pin(fs.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), false));
    assert!(moving.as_mut().now_or_never().is_none(), "it is sent");
    let (moved, asked) = tokio::join!(moving, ask(Arc::clone(&fs), a));
    assert_eq!(moved, Ok(()));
    assert!(fs.health().reconnects > 0);
    (server, asked)
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_below_a_directory_whose_renaming_was_lost_is_gone() {
    let ask = async |fs: Arc<Filesystem>, a| fs.unlink(a, b"x").await;
    let (server, gone) = below_a_renamed_directory(Options::default(), ask).await;
    assert_eq!(gone, Ok(()));
    assert!(!server.tree(|tree| tree.content(b"b/x").is_some()));
    let ask = async |fs: Arc<Filesystem>, a| fs.rmdir(a, b"r").await;
    let (server, gone) = below_a_renamed_directory(Options::default(), ask).await;
    assert_eq!(gone, Ok(()));
    let made = server.tree(|tree| tree.mkdir(b"b/r", 0o755));
    assert!(made.is_ok(), "it was gone");
}

#[tokio::test(start_paused = true)]
async fn what_is_renamed_out_of_a_directory_whose_renaming_was_lost_has_its_new_name() {
    let mut plain = Options::default();
    plain
        .extensions
        .retain(|(name, _)| !name.starts_with(b"posix-rename"));
    for options in [Options::default(), plain] {
        let ask =
            async |fs: Arc<Filesystem>, a| fs.rename((a, b"x"), (Ino::ROOT, b"y"), false).await;
        let (server, moved) = below_a_renamed_directory(options, ask).await;
        assert_eq!(moved, Ok(()));
        server.tree(|tree| {
            assert_eq!(tree.content(b"y").unwrap(), "new");
            assert!(tree.content(b"b/x").is_none());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_at_before_the_directory_above_was_renamed_is_found_after_both_were_lost() {
    let (server, fs) = mount_again(&[]).await;
    server.tree(|tree| {
        tree.mkdir(b"a", 0o755).unwrap();
        tree.put(b"a/x", b"data");
    });
    let a = look_up(&fs, "a").await;
    cut_before(
        &server,
        |request| matches!(request, Request::Lstat { path } if path.ends_with(b"/x")),
    );
    let mut looking = Box::pin(fs.lookup(a, b"x"));
    let mut moving = Box::pin(fs.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), false));
    assert!(looking.as_mut().now_or_never().is_none(), "it is sent");
    assert!(
        moving.as_mut().now_or_never().is_none(),
        "it is sent behind"
    );
    // It does that, and answers neither.
    server.tree(|tree| tree.rename(b"a", b"b").unwrap());
    let (found, moved) = tokio::join!(looking, moving);
    assert_eq!((found.map(drop), moved), (Ok(()), Ok(())));
    assert_eq!(fs.health().reconnects, 1);
}
