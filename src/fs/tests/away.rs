//! A server that is there and says nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A server that answers until it is told to be silent.
async fn silenced() -> (Arc<AtomicBool>, Arc<Filesystem>) {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&is_silent);
    let config = Config {
        attr_timeout: Duration::ZERO,
        ..Config::default()
    };
    let say = move |_: &Request| silent.load(Ordering::Relaxed).then_some(Reply::Silence);
    (is_silent, scripted(config, say).await)
}

#[tokio::test(start_paused = true)]
async fn the_root_is_told_of_while_the_server_is_silent() {
    let (is_silent, fs) = silenced().await;
    let before = fs.getattr(Ino::ROOT).await.unwrap();
    is_silent.store(true, Ordering::Relaxed);
    let within = Duration::from_secs(2);
    let now = tokio::time::timeout(within, fs.getattr(Ino::ROOT)).await;
    assert_eq!(now.unwrap().unwrap().attr, before.attr);
    let space = tokio::time::timeout(within, fs.statfs(Ino::ROOT)).await;
    assert_eq!(space, Ok(Ok(None)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_what_is_done_ahead_is_nobodys_but_its_own() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| {
        tree.mkdir(b"d.panics", 0o755).unwrap();
        tree.put(b"d.panics/f", b"content");
    });
    let dir = look_up(&fs, "d.panics").await;
    for name in [&b"x"[..], b"y", b"z", b"f"] {
        // Names looked up in vain have the directory listed ahead, and that panics.
        let _ = fs.lookup(dir, name).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(fs.listing_under_way(dir).is_none());
    let fh = fs.opendir(dir).await.unwrap();
    let mut names = Vec::new();
    let take = |entry: &crate::fs::DirEntry<'_>| {
        names.push(entry.name.to_vec());
        false
    };
    fs.readdir(fh, 2, false, take).await.unwrap();
    assert_eq!(names, [b"f"]);
}
