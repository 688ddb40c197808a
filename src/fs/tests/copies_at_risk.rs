//! Copies that share storage, while others are at work on the same files.

use super::copies::{are_one, content, copied, copy, cow};
use super::*;
use crate::fs::{Change, CopyIsHardlink, State, Symlinks};

fn on_server(server: &Server, name: &str) -> String {
    let path = format!("/home/ann/{name}");
    let data = server.tree(|tree| tree.content(path.as_bytes()));
    String::from_utf8_lossy(&data.unwrap_or_default()).into_owned()
}

/// Somebody else's editor: a new file renamed over the old one.
fn replace_on_server(server: &Server, name: &str, data: &[u8]) {
    server.tree(|tree| {
        tree.put(b"elsewhere", data);
        let path = format!("/home/ann/{name}");
        tree.rename(b"/home/ann/elsewhere", path.as_bytes())
            .unwrap();
    });
}

async fn written(fs: &Arc<Filesystem>, name: &str, data: &[u8]) {
    let fh = open(fs, name, WRITE).await;
    write(fs, fh, 0, data).await.unwrap();
    fs.flush(fh).await.unwrap();
    fs.release(fh);
}

fn remembering(directory: &std::path::Path) -> Config {
    let (directory, identity) = (directory.to_owned(), "ann@test".to_owned());
    Config {
        state: Some(State {
            directory,
            identity,
        }),
        ..cow()
    }
}

#[tokio::test]
async fn a_name_that_others_gave_another_file_is_left_alone() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let a = look_up(&fs, "a").await;
    fs.link(a, Ino::ROOT, b"a2").await.unwrap();
    copied(&fs, "a", "b").await;
    copied(&fs, "a", "c").await;
    replace_on_server(&server, "b", b"precious");
    written(&fs, "a", b"J").await;
    assert_eq!(on_server(&server, "b"), "precious");
    assert_eq!(on_server(&server, "c"), "hello");
    assert_eq!(on_server(&server, "a2"), "Jello");
}

#[tokio::test]
async fn what_is_open_by_a_name_that_others_took_writes_to_no_other_file() {
    for is_removed in [true, false] {
        let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
        copied(&fs, "a", "b").await;
        let fh = open(&fs, "b", WRITE).await;
        if is_removed {
            server.tree(|tree| tree.unlink(b"/home/ann/b")).unwrap();
        } else {
            replace_on_server(&server, "b", b"precious");
        }
        // Refused or not: the source is not what is written to.
        let _ = write(&fs, fh, 0, b"J").await;
        let _ = fs.flush(fh).await;
        assert_eq!(on_server(&server, "a"), "hello", "removed: {is_removed}");
    }
}

#[tokio::test]
async fn one_name_that_others_took_does_not_part_the_further_ones() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let b = look_up(&fs, "b").await;
    fs.link(b, Ino::ROOT, b"b2").await.unwrap();
    replace_on_server(&server, "b", b"precious");
    // The kernel asks again.
    fs.tables().changed(b);
    written(&fs, "b", b"P").await;
    written(&fs, "b2", b"J").await;
    assert_eq!(on_server(&server, "a"), "hello");
}

#[tokio::test]
async fn a_copy_that_another_mount_makes_is_heard_of_whatever_is_done_next() {
    let state = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[("a", b"hello"), ("c", b"other")];
    let (server, one) = mount_with(Options::default(), remembering(state.path()), files).await;
    let two = mounted(server.connect(), remembering(state.path())).await;
    let fh = open(&two, "a", WRITE).await;
    write(&two, fh, 0, b"h").await.unwrap();
    two.flush(fh).await.unwrap();
    copied(&one, "a", "b").await;
    assert!(are_one(&server, &["a", "b"]));
    let mode = Change {
        permissions: Some(0o600),
        ..Change::default()
    };
    two.setattr(look_up(&two, "c").await, mode, None)
        .await
        .unwrap();
    write(&two, fh, 0, b"J").await.unwrap();
    two.flush(fh).await.unwrap();
    assert_eq!(on_server(&server, "a"), "Jello");
    assert_eq!(on_server(&server, "b"), "hello");
}

#[tokio::test]
async fn what_is_open_here_follows_what_another_mount_parts() {
    let state = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[("a", b"hello")];
    let (server, one) = mount_with(Options::default(), remembering(state.path()), files).await;
    let two = mounted(server.connect(), remembering(state.path())).await;
    copied(&one, "a", "b").await;
    let fh = open(&two, "b", WRITE).await;
    written(&one, "b", b"J").await;
    write(&two, fh, 4, b"y").await.unwrap();
    two.flush(fh).await.unwrap();
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "b"), "Jelly");
}

#[tokio::test]
async fn who_opens_a_copy_while_it_is_removed_does_not_write_to_its_source() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let b = look_up(&fs, "b").await;
    let (opened, removed) = tokio::join!(
        biased;
        fs.open(b, WRITE, false),
        fs.unlink(Ino::ROOT, b"b"),
    );
    removed.unwrap();
    if let Ok(opened) = opened {
        let _ = write(&fs, opened.fh, 0, b"J").await;
        let _ = fs.flush(opened.fh).await;
    }
    assert_eq!(on_server(&server, "a"), "hello");
}

#[tokio::test]
async fn who_may_not_write_does_not_empty_a_copy() {
    for is_open in [true, false] {
        let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
        server.tree(|tree| {
            let home = tree.find(b"/home/ann", true).unwrap();
            tree.chown(home, (1000, 1000)).unwrap();
            let a = tree.find(b"/home/ann/a", true).unwrap();
            tree.chown(a, (1000, 1000)).unwrap();
            tree.chmod(a, 0o444).unwrap();
            tree.user = (1000, 1000);
        });
        copied(&fs, "a", "b").await;
        assert!(are_one(&server, &["a", "b"]));
        let b = look_up(&fs, "b").await;
        let refusal = if is_open {
            fs.open(b, WRITE, true).await.map(drop)
        } else {
            let change = Change {
                size: Some(1),
                ..Change::default()
            };
            fs.setattr(b, change, None).await.map(drop)
        };
        assert_eq!(refusal, refused(Errno::EACCES));
        assert_eq!(on_server(&server, "b"), "hello", "opened: {is_open}");
    }
}

#[tokio::test]
async fn a_followed_symbolic_link_does_not_write_to_the_copy() {
    let config = Config {
        symlinks: Symlinks::Follow,
        ..cow()
    };
    let (server, fs) = mount_with(Options::default(), config, &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    server
        .tree(|tree| tree.symlink(b"b", b"/home/ann/l"))
        .unwrap();
    written(&fs, "l", b"J").await;
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "b"), "Jello");
}

#[tokio::test]
async fn a_copy_that_cannot_be_removed_after_its_rename_still_is_known_to_share() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    server.intercept(|request| {
        matches!(request, Request::Remove { .. }).then(|| status(StatusCode::PERMISSION_DENIED))
    });
    let name = |name: &'static str| (Ino::ROOT, name.as_bytes());
    assert!(fs.rename(name("b"), name("a"), false).await.is_err());
    server.intercept(|_| None);
    written(&fs, "b", b"J").await;
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "b"), "Jello");
}

#[tokio::test]
async fn a_link_that_cannot_be_seen_for_sure_is_not_forgotten() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let mut is_linked = false;
    // Somebody appends between two looks, and takes it back.
    server.intercept(move |request| match request {
        Request::Hardlink { .. } => {
            is_linked = true;
            None
        }
        Request::Lstat { path } if is_linked && path.ends_with(b"/a") => {
            is_linked = false;
            Some(Response::Attrs(Attrs {
                size: Some(6),
                permissions: Some(FileKind::Regular.mode() | 0o644),
                ..Attrs::default()
            }))
        }
        _ => None,
    });
    let fh = copy(&fs, "a", "b").await.unwrap();
    assert_eq!(content(&fs, "b").await, b"hello");
    write(&fs, fh, 0, b"J").await.unwrap();
    fs.flush(fh).await.unwrap();
    written(&fs, "b", b"B").await;
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "b"), "Bello");
}

#[tokio::test]
async fn a_source_that_grows_while_it_is_looked_at_may_still_be_shared() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let fh = open(&fs, "b", WRITE).await;
    let mut has_grown = false;
    server.intercept(move |request| match request {
        // The first look at the file, from before somebody else's program appended.
        Request::Lstat { path } if !has_grown && path.ends_with(b"/b") => {
            has_grown = true;
            Some(Response::Attrs(Attrs {
                size: Some(3),
                permissions: Some(FileKind::Regular.mode() | 0o644),
                ..Attrs::default()
            }))
        }
        _ => None,
    });
    write(&fs, fh, 0, b"J").await.unwrap();
    fs.flush(fh).await.unwrap();
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "b"), "Jello");
}

#[tokio::test]
async fn a_copy_that_was_parted_already_can_be_read_after_its_name_is_gone() {
    let (_server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let fh = copy(&fs, "a", "b").await.unwrap();
    // Now it has its storage for itself.
    written(&fs, "a", b"J").await;
    fs.unlink(Ino::ROOT, b"b").await.unwrap();
    assert_eq!(fs.read(fh, 0, 5).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_name_outside_the_mount_is_told_nothing_about() {
    let (server, fs) = mount(&[("a", b"hello")]).await;
    drop(server);
    for name in [&b"../../etc"[..], b"..", b"", b"./a", b"a/.."] {
        assert!(fs.info(Ino::ROOT, name).await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn shared_copies_ask_no_more() {
    let config = Config {
        copy_is_hardlink: CopyIsHardlink::Shared,
        ..Config::default()
    };
    let (_server, fs) = mount_with(Options::default(), config, &[("a", b"hello")]).await;
    let fh = copy(&fs, "a", "b").await.unwrap();
    fs.unlink(Ino::ROOT, b"b").await.unwrap();
    write(&fs, fh, 0, b"J").await.unwrap();
    assert_eq!(fs.read(fh, 0, 5).await.unwrap(), "Jello");
    assert_eq!(content(&fs, "a").await, b"Jello");
}

#[tokio::test]
async fn what_is_open_follows_what_another_mount_linked_and_parted_at_once() {
    let state = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[("a", b"hello")];
    let (server, one) = mount_with(Options::default(), remembering(state.path()), files).await;
    let two = mounted(server.connect(), remembering(state.path())).await;
    let fh = open(&two, "a", WRITE).await;
    copied(&one, "a", "b").await;
    written(&one, "a", b"J").await;
    write(&two, fh, 4, b"y").await.unwrap();
    two.flush(fh).await.unwrap();
    assert_eq!(on_server(&server, "b"), "hello");
    assert_eq!(on_server(&server, "a"), "Jelly");
}

#[tokio::test]
async fn a_reader_follows_what_another_mount_moved_together() {
    let state = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[("a", b"hello")];
    let (server, one) = mount_with(Options::default(), remembering(state.path()), files).await;
    let two = mounted(server.connect(), remembering(state.path())).await;
    one.link(look_up(&one, "a").await, Ino::ROOT, b"a2")
        .await
        .unwrap();
    copied(&one, "a", "b").await;
    copied(&one, "a", "c").await;
    let fh = open(&two, "c", READ).await;
    written(&one, "a", b"J").await;
    assert_eq!(on_server(&server, "c"), "hello");
    // Heard of, whatever is done.
    two.hear();
    assert_eq!(two.read(fh, 0, 5).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_directory_that_is_renamed_during_a_break_has_no_temporary_names_in_it() {
    for turns in 0..60 {
        let config = Config {
            negative_timeout: Duration::ZERO,
            ..cow()
        };
        let (server, fs) = mount_with(Options::default(), config, &[]).await;
        fs.mkdir(Ino::ROOT, b"d", 0o755, USER).await.unwrap();
        server.tree(|tree| tree.put(b"/home/ann/d/a", b"hello"));
        let d = look_up(&fs, "d").await;
        let source = fs.lookup(d, b"a").await.unwrap().ino;
        let how = crate::fs::Creation::EXCLUSIVE;
        let (_, target) = fs.create(d, b"b", 0o600, WRITE, how, USER).await.unwrap();
        let from = fs.open(source, READ, false).await.unwrap();
        fs.copy_range((from.fh, 0), (target.fh, 0), 5)
            .await
            .unwrap();
        let writing = {
            let fs = Arc::clone(&fs);
            tokio::spawn(async move { write(&fs, target.fh, 0, b"J").await })
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let (from, to) = ((Ino::ROOT, &b"d"[..]), (Ino::ROOT, &b"e"[..]));
        fs.rename(from, to, false).await.unwrap();
        // Refused, if its directory was elsewhere for a moment; but the copies stay apart.
        if writing.await.unwrap().is_err() {
            write(&fs, target.fh, 0, b"J").await.unwrap();
        }
        fs.flush(target.fh).await.unwrap();
        let names = server.tree(|tree| {
            let directory = tree.find(b"/home/ann/e", false).unwrap();
            tree.list(directory).unwrap()
        });
        assert_eq!(names, [".", "..", "a", "b"], "after {turns} turns");
        assert_eq!(on_server(&server, "e/a"), "hello", "after {turns} turns");
        assert_eq!(on_server(&server, "e/b"), "Jello", "after {turns} turns");
    }
}

#[tokio::test]
async fn a_copy_that_replaced_another_one_unheard_of_still_is_known_to_share() {
    let state = tempfile::tempdir().unwrap();
    let files: &[(&str, &[u8])] = &[("a", b"hello"), ("x", b"others")];
    let (server, one) = mount_with(Options::default(), remembering(state.path()), files).await;
    copied(&one, "a", "b").await;
    copied(&one, "x", "y").await;
    // mv b y, of which the answer is lost together with the connection.
    server
        .tree(|tree| tree.rename(b"/home/ann/b", b"/home/ann/y"))
        .unwrap();
    drop(one);
    let two = mounted(server.connect(), remembering(state.path())).await;
    written(&two, "y", b"J").await;
    assert_eq!(on_server(&server, "a"), "hello");
    assert_eq!(on_server(&server, "y"), "Jello");
}
