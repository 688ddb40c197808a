//! Several operations at once, and operations that were given up.

use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::future::join_all;

use super::*;
use crate::fs::{Change, Creation};

#[tokio::test]
async fn many_reads_at_once_through_one_open_each_get_their_own_bytes() {
    let content = pattern(400_000);
    for seed in 1..10 {
        let options = Options {
            shuffle: Some(seed),
            read_max: 5000,
            ..Options::default()
        };
        let (_server, fs) = mount_with(options, Config::default(), &[("f", &content)]).await;
        let fh = open(&fs, "f", READ).await;
        // As the kernel reads ahead: all at once, and not quite in order.
        let offsets = [0, 2, 1, 3, 5, 4, 7, 6, 5, 0_u64].map(|n| n * 32_768);
        let reads = join_all(offsets.map(|offset| fs.read(fh, offset, 32_768))).await;
        for (offset, read) in offsets.into_iter().zip(reads) {
            let start = usize::try_from(offset).unwrap();
            assert!(
                read.unwrap() == content[start..start + 32_768],
                "at {offset}, seed {seed}"
            );
        }
    }
}

#[tokio::test]
async fn a_read_that_was_given_up_does_not_spoil_the_next() {
    let content = pattern(600_000);
    let (_server, fs) = mount(&[("f", &content)]).await;
    let fh = open(&fs, "f", READ).await;
    for offset in (0..600_000_u64).step_by(50_000) {
        assert!(
            fs.read(fh, offset, 100_000).now_or_never().is_none(),
            "given up at once"
        );
    }
    for offset in (0..600_000).step_by(100_000) {
        let read = fs.read(fh, offset as u64, 100_000).await.unwrap();
        assert!(read == content[offset..offset + 100_000], "at {offset}");
    }
}

#[tokio::test]
async fn writes_through_two_opens_arrive_in_the_order_of_the_writes() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let opens = [open(&fs, "f", WRITE).await, open(&fs, "f", WRITE).await];
    for n in 0..100_u8 {
        write(&fs, opens[usize::from(n % 2)], 0, &[n; 100])
            .await
            .unwrap();
        write(&fs, opens[usize::from(n % 2)], 100 + u64::from(n), &[n])
            .await
            .unwrap();
    }
    assert_eq!(fs.flush(opens[0]).await, Ok(()));
    let content = server.tree(|tree| tree.content(b"f")).unwrap();
    assert_eq!(content, [vec![99; 100], (0..100).collect()].concat());
}

#[tokio::test]
async fn a_size_set_among_writes_takes_its_turn() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let fh = open(&fs, "f", WRITE).await;
    let ino = look_up(&fs, "f").await;
    write(&fs, fh, 0, &[1; 10_000]).await.unwrap();
    let change = Change {
        size: Some(10),
        ..Change::default()
    };
    assert_eq!(
        fs.setattr(ino, change, Some(fh)).await.unwrap().attr.size,
        10
    );
    write(&fs, fh, 20, &[2; 5]).await.unwrap();
    assert_eq!(fs.getattr(ino).await.unwrap().attr.size, 25);
    assert_eq!(fs.flush(fh).await, Ok(()));
    let content = server.tree(|tree| tree.content(b"f")).unwrap();
    assert_eq!(content, [[1; 10].as_slice(), &[0; 10], &[2; 5]].concat());
}

#[tokio::test]
async fn times_set_while_writes_are_on_their_way_stay() {
    let (_server, fs) = mount(&[("f", b"")]).await;
    let fh = open(&fs, "f", WRITE).await;
    let ino = look_up(&fs, "f").await;
    write(&fs, fh, 0, &[1; 100_000]).await.unwrap();
    let change = Change {
        mtime: Some(1_000_000_000),
        ..Change::default()
    };
    fs.setattr(ino, change, Some(fh)).await.unwrap();
    assert_eq!(fs.flush(fh).await, Ok(()));
    fs.release(fh);
    assert_eq!(fs.getattr(ino).await.unwrap().attr.mtime, 1_000_000_000);
}

/// A server that holds its first answers about `f` until a directory is opened; `f` is then 10
/// bytes long.
async fn holding_attributes() -> Arc<Filesystem> {
    let mut asked = 0;
    scripted(
        Config {
            attr_timeout: Duration::ZERO,
            ..Config::default()
        },
        move |request| {
            let attrs = |size| match plain_answer(&Request::Fstat { handle: text("h") }) {
                Response::Attrs(attrs) => Response::Attrs(Attrs {
                    size: Some(size),
                    ..attrs
                }),
                other => other,
            };
            match request {
                Request::Fstat { .. } => {
                    asked += 1;
                    Some(if asked == 1 {
                        Reply::Hold(attrs(0))
                    } else {
                        Reply::Answer(attrs(10))
                    })
                }
                Request::Opendir { .. } => Some(Reply::ThenHeld(Response::Handle(text("d")))),
                // So that it is asked for each time.
                Request::Readdir { .. } => Some(Reply::Answer(status(StatusCode::FAILURE))),
                _ => None,
            }
        },
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn an_answer_older_than_our_own_write_does_not_bring_the_old_size_back() {
    let fs = holding_attributes().await;
    let ino = look_up(&fs, "f").await;
    let fh = fs.open(ino, WRITE, false).await.unwrap().fh;
    let mut old = Box::pin(fs.getattr(ino));
    assert!(
        old.as_mut().now_or_never().is_none(),
        "asked before the write"
    );
    write(&fs, fh, 0, &[1; 10]).await.unwrap();
    assert_eq!(fs.flush(fh).await, Ok(()));
    idle().await;
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    assert_eq!(old.await.unwrap().attr.size, 10);
    assert_eq!(fs.getattr(ino).await.unwrap().attr.size, 10);
    fs.releasedir(dir);
}

#[tokio::test]
async fn one_who_lists_meanwhile_does_not_disturb_names_that_change() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| {
        (0..250).for_each(|n| tree.put(format!("{n:03}").as_bytes(), b""));
    });
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let mut shown = Vec::new();
    let mut offset = 0;
    for n in 0..250 {
        let name = format!("{n:03}");
        look_up(&fs, &name).await;
        fs.rename((Ino::ROOT, name.as_bytes()), (Ino::ROOT, b"moved"), false)
            .await
            .unwrap();
        fs.readdir(fh, offset, true, |entry| {
            offset = entry.next;
            shown.push(entry.name.to_vec());
            true
        })
        .await
        .unwrap();
        fs.rename((Ino::ROOT, b"moved"), (Ino::ROOT, name.as_bytes()), false)
            .await
            .unwrap();
    }
    assert!(!shown.is_empty());
    for n in 0..250 {
        assert!(
            fs.lookup(Ino::ROOT, format!("{n:03}").as_bytes())
                .await
                .is_ok(),
            "{n}"
        );
    }
}

/// What a program may ask of names below a directory, once each.
fn all_by_path(
    fs: &Arc<Filesystem>,
    a: Ino,
    [f, l, d]: [Ino; 3],
) -> Vec<BoxFuture<'_, Result<()>>> {
    fn all<'a, T>(asked: impl Future<Output = Result<T>> + Send + 'a) -> BoxFuture<'a, Result<()>> {
        asked.map(|done| done.map(drop)).boxed()
    }
    let mode = Change {
        permissions: Some(0o640),
        ..Change::default()
    };
    let how = Creation::EXCLUSIVE;
    vec![
        all(fs.rename((a, b"old"), (a, b"new"), false)),
        all(fs.rename((a, b"old2"), (a, b"new2"), true)),
        all(fs.open(f, READ, false)),
        all(fs.create(a, b"c", 0o644, WRITE, how, USER)),
        all(fs.lookup(a, b"f")),
        all(fs.link(f, a, b"g")),
        all(fs.mkdir(a, b"m", 0o755, USER)),
        all(fs.symlink(a, b"s", b"f", USER)),
        all(fs.readlink(l)),
        all(fs.opendir(d)),
        all(fs.setattr(f, mode, None)),
        all(fs.getattr(d)),
        all(fs.unlink(a, b"u")),
        all(fs.rmdir(a, b"r")),
        all(fs.statfs(d)),
    ]
}

#[tokio::test]
async fn whatever_is_asked_by_a_path_while_a_directory_above_is_renamed_is_done_in_its_new_place() {
    let config = Config {
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
        ..Config::default()
    };
    let (server, fs) = mount_with(Options::default(), config, &[]).await;
    server.tree(|tree| {
        for dir in ["a", "a/d", "a/r"] {
            tree.mkdir(dir.as_bytes(), 0o755).unwrap();
        }
        for file in ["a/f", "a/old", "a/old2", "a/u"] {
            tree.put(file.as_bytes(), b"data");
        }
        tree.symlink(b"f", b"a/l").unwrap();
    });
    let a = look_up(&fs, "a").await;
    let mut inos = [Ino::ROOT; 3];
    for (ino, name) in inos.iter_mut().zip(["f", "l", "d"]) {
        *ino = fs.lookup(a, name.as_bytes()).await.unwrap().ino;
    }
    let mut moving = Box::pin(fs.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), false));
    assert!(moving.as_mut().now_or_never().is_none(), "it is sent");
    let all = join_all(all_by_path(&fs, a, inos));
    let (moved, done) = tokio::join!(moving, all);
    assert_eq!((moved, done), (Ok(()), vec![Ok(()); 15]));
    server.tree(|tree| {
        for there in ["b/c", "b/f", "b/g", "b/new", "b/new2"] {
            assert!(tree.content(there.as_bytes()).is_some(), "{there}");
        }
        assert!(tree.content(b"b/u").is_none());
    });
}

#[tokio::test(start_paused = true)]
async fn no_name_is_moved_while_a_file_is_opened_by_it_for_the_kernels_pages() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let fs = scripted(Config::default(), move |request| {
        let note = |what| noted.lock().unwrap().push(what);
        match request {
            // Not to append: for pages.
            Request::Open { flags, .. } if *flags == OpenFlags::WRITE => {
                note("open");
                Some(Reply::Hold(Response::Handle(text("pages"))))
            }
            Request::Rename { .. } => {
                note("rename");
                None
            }
            Request::Opendir { .. } => Some(Reply::ThenHeld(Response::Handle(text("d")))),
            // So that it is asked for each time.
            Request::Readdir { .. } => Some(Reply::Answer(status(StatusCode::FAILURE))),
            _ => None,
        }
    });
    let fs = fs.await;
    let access = Access {
        append: true,
        ..WRITE
    };
    let fh = open(&fs, "f", access).await;
    let writing = fs.take_over(fh, 0, text("page"), true);
    let renaming = fs.rename((Ino::ROOT, b"f"), (Ino::ROOT, b"g"), false);
    let (mut writing, mut renaming) = (Box::pin(writing), Box::pin(renaming));
    assert!(writing.as_mut().now_or_never().is_none());
    assert!(renaming.as_mut().now_or_never().is_none());
    idle().await;
    assert!(renaming.as_mut().now_or_never().is_none());
    assert_eq!(*asked.lock().unwrap(), ["open"]);
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    assert_eq!(writing.await, Ok(()));
    assert_eq!(renaming.await, Ok(()));
    assert_eq!(*asked.lock().unwrap(), ["open", "rename"]);
    fs.releasedir(dir);
    fs.release(fh);
}
