//! What another client does meanwhile, and what a close leaves behind.

use super::*;
use crate::fs::Creation;

/// Nothing is believed for long, so that a change on the server is seen at once.
fn forgetful() -> Config {
    Config {
        cache: false,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_file_that_another_client_made_is_emptied_by_a_create_that_empties() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| tree.put(b"f", b"old content that must go"));
    let how = Creation {
        exclusive: false,
        truncate: true,
    };
    let made = fs.create(Ino::ROOT, b"f", 0o644, WRITE, how, USER).await;
    let (entry, opened) = made.unwrap();
    assert_eq!(entry.known.attr.size, 0);
    write(&fs, opened.fh, 0, b"new").await.unwrap();
    fs.flush(opened.fh).await.unwrap();
    let content = server.tree(|tree| tree.content(b"f"));
    assert_eq!(content, Some(Bytes::from_static(b"new")));
}

#[tokio::test]
async fn what_is_written_after_the_last_close_is_there_before_the_next_open() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let fh = open(&fs, "f", WRITE).await;
    // Pages of a mapping: written, and the file released without a flush.
    write(&fs, fh, 0, &pattern(4 << 20)).await.unwrap();
    fs.release(fh);
    let ino = look_up(&fs, "f").await;
    let again = fs.open(ino, WRITE, true).await.unwrap().fh;
    write(&fs, again, 0, b"short").await.unwrap();
    fs.flush(again).await.unwrap();
    let content = server.tree(|tree| tree.content(b"f"));
    assert_eq!(content, Some(Bytes::from_static(b"short")));
}

#[tokio::test]
async fn a_linked_name_that_was_replaced_on_the_server_is_another_file() {
    let (server, fs) = mount_with(Options::default(), forgetful(), &[("a", b"one")]).await;
    let ino = look_up(&fs, "a").await;
    fs.link(ino, Ino::ROOT, b"b").await.unwrap();
    assert_eq!(look_up(&fs, "b").await, ino);
    server.tree(|tree| {
        tree.put(b"new", b"replaced");
        tree.rename(b"new", b"a").unwrap();
    });
    let replaced = look_up(&fs, "a").await;
    assert_ne!(replaced, look_up(&fs, "b").await);
    let fh = open(&fs, "b", WRITE).await;
    assert_eq!(fs.read(fh, 0, 10).await.unwrap(), "one");
    write(&fs, fh, 3, b"!").await.unwrap();
    fs.flush(fh).await.unwrap();
    let contents = server.tree(|tree| (tree.content(b"a"), tree.content(b"b")));
    let expected = (Some(text("replaced")), Some(text("one!")));
    assert_eq!(contents, expected);
}

#[tokio::test]
async fn a_time_set_alone_keeps_the_other_as_another_client_left_it() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let ino = look_up(&fs, "f").await;
    server.tree(|tree| {
        let there = tree.find(b"f", true).unwrap();
        tree.set_times(there, (7, 4_000_000_000)).unwrap();
    });
    let change = crate::fs::Change {
        atime: Some(5),
        ..Default::default()
    };
    let known = fs.setattr(ino, change, None).await.unwrap();
    assert_eq!((known.attr.atime, known.attr.mtime), (5, 4_000_000_000));
}

#[tokio::test]
async fn the_kernel_is_told_at_open_that_a_file_has_another_size_than_it_believes() {
    let (server, fs) = mount(&[("f", b"one")]).await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notices = Arc::clone(&told);
    fs.tell_kernel_by(Box::new(move |notice| notices.lock().unwrap().push(notice)));
    let ino = look_up(&fs, "f").await;
    fs.getattr(ino).await.unwrap();
    let fh = fs.open(ino, READ, false).await.unwrap().fh;
    fs.release(fh);
    assert_eq!(*told.lock().unwrap(), [], "nothing has changed");
    server.tree(|tree| tree.put(b"f", b"one and two"));
    fs.open(ino, READ, false).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [crate::fs::Notice::Attributes(ino)]);
}

/// As NFS does between acregmin and acregmax.
#[tokio::test]
async fn what_was_seen_unchanged_for_long_is_believed_longer_but_not_by_the_kernel() {
    use crate::fs::Asked;
    let config = Config {
        timeout_max: Some(Duration::from_secs(20)),
        ..Config::default()
    };
    let (server, fs) = mount_with(Options::default(), config, &[("f", b"data")]).await;
    let ino = look_up(&fs, "f").await;
    fs.tables().attrs.changed(ino);
    let ago = |seconds| crate::clock::now() - Duration::from_secs(seconds);
    let hears = |attrs: &Attrs, seconds| {
        let Asked { stamp, .. } = fs.now();
        let at = ago(seconds);
        fs.learn(ino, attrs, Asked { stamp, at }).unwrap()
    };
    let attrs = fs.client.lstat(Bytes::from_static(b"/home/ann/f")).await;
    let attrs = attrs.unwrap();
    assert!(hears(&attrs, 18).ttl.is_zero(), "for 5 seconds");
    let known = hears(&attrs, 6);
    assert_eq!(
        known.ttl,
        Duration::from_secs(5),
        "6 more, of which the kernel is told 5"
    );
    server.take_requests();
    assert_eq!(fs.getattr(ino).await.unwrap().attr, known.attr);
    assert!(server.take_requests().is_empty());
    // Somebody else has changed it: it may change again.
    let changed = Attrs {
        size: Some(5),
        ..attrs
    };
    assert!(hears(&changed, 6).ttl.is_zero());
}
