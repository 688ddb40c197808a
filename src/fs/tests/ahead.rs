//! Changes of attributes that are answered before the server has made them.

use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;

use super::*;
use crate::fs::{Attr, Change, Creation};
use crate::testing::Cut;

fn mode(mode: u16) -> Change {
    Change {
        permissions: Some(mode),
        ..Change::default()
    }
}

fn times(atime: u32, mtime: u32) -> Change {
    Change {
        atime: Some(atime),
        mtime: Some(mtime),
        ..Change::default()
    }
}

fn owner(uid: u32, gid: u32) -> Change {
    Change {
        uid: Some(uid),
        gid: Some(gid),
        ..Change::default()
    }
}

/// A new file, open for writing.
async fn create(fs: &Arc<Filesystem>, name: &str) -> (Ino, Fh) {
    let made = fs
        .create(
            Ino::ROOT,
            name.as_bytes(),
            0o644,
            WRITE,
            Creation::EXCLUSIVE,
            USER,
        )
        .await;
    let (entry, opened) = made.unwrap();
    (entry.ino, opened.fh)
}

/// What a change gives at once, without waiting for anybody.
fn at_once(fs: &Arc<Filesystem>, ino: Ino, change: Change) -> Option<Attr> {
    let changed = fs.setattr(ino, change, None).now_or_never()?;
    Some(changed.unwrap().attr)
}

/// Has the server make a change of each kind while somebody waits.
async fn prove(fs: &Arc<Filesystem>) {
    let (ino, fh) = create(fs, "proof").await;
    for change in [mode(0o600), times(1, 2), owner(0, 0), owner(5, 6)] {
        assert_eq!(at_once(fs, ino, change), None, "not known to be done");
        fs.setattr(ino, change, None).await.unwrap();
    }
    fs.flush(fh).await.unwrap();
    fs.release(fh);
}

/// A server that has made such changes before.
async fn proven() -> (Server, Arc<Filesystem>) {
    let (server, fs) = mount(&[]).await;
    prove(&fs).await;
    fs.lookup(Ino::ROOT, b"nothing").await.unwrap_err();
    server.take_requests();
    (server, fs)
}

/// The attributes that the server has.
fn there(server: &Server, name: &str) -> Attrs {
    server.tree(|tree| {
        let path = [b"/home/ann/", name.as_bytes()].concat();
        let ino = tree.find(&path, false).unwrap();
        tree.attrs(ino)
    })
}

/// Which requests these are, in order.
fn kinds(requests: &[Request]) -> Vec<&'static str> {
    let kind = |request: &Request| match request {
        Request::Open { .. } => "open",
        Request::Write { .. } => "write",
        Request::Fsetstat { attrs, .. } if attrs.times.is_some() => "times",
        Request::Fsetstat { attrs, .. } if attrs.owner.is_some() => "owner",
        Request::Fsetstat { .. } => "mode",
        Request::Setstat { .. } => "by path",
        Request::Fstat { .. } | Request::Stat { .. } => "look",
        Request::Close { .. } => "close",
        _ => "other",
    };
    requests.iter().map(kind).collect()
}

#[tokio::test]
async fn what_is_changed_on_a_file_that_is_being_written_is_seen_at_once_and_there_after_close() {
    let (server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    write(&fs, fh, 0, b"data").await.unwrap();
    let changed = [
        at_once(&fs, ino, mode(0o751)),
        at_once(&fs, ino, owner(7, 8)),
        at_once(&fs, ino, times(1000, 2000)),
    ];
    let told = changed[2].unwrap();
    assert_eq!(changed[0].unwrap().permissions, 0o751);
    assert_eq!((told.permissions, told.uid, told.gid), (0o751, 7, 8));
    assert_eq!((told.atime, told.mtime, told.size), (1000, 2000, 4));
    let seen = fs.getattr(ino).now_or_never().unwrap().unwrap();
    assert_eq!(seen.attr, told);
    assert_eq!(
        there(&server, "f").permissions,
        Some(0o100_644),
        "nobody has waited yet"
    );
    fs.flush(fh).await.unwrap();
    let there = there(&server, "f");
    assert_eq!(there.permissions, Some(0o100_751));
    assert_eq!(
        (there.owner, there.times),
        (Some((7, 8)), Some((1000, 2000)))
    );
}

#[tokio::test]
async fn a_file_is_written_and_given_its_attributes_in_one_flight_and_known_then() {
    let (server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    server.take_requests();
    write(&fs, fh, 0, b"one").await.unwrap();
    at_once(&fs, ino, mode(0o600)).unwrap();
    at_once(&fs, ino, owner(0, 0)).unwrap();
    at_once(&fs, ino, times(5, 6)).unwrap();
    fs.flush(fh).await.unwrap();
    let asked = server.take_requests();
    assert_eq!(kinds(&asked), ["write", "mode", "owner", "times", "look"]);
    let known = fs.getattr(ino).now_or_never().unwrap().unwrap();
    assert_eq!((known.attr.permissions, known.attr.mtime), (0o600, 6));
    assert!(!known.ttl.is_zero(), "the server has said so");
    fs.release(fh);
    fs.flush(fh).await.unwrap_err();
    fs.lookup(Ino::ROOT, b"nothing").await.unwrap_err();
    assert_eq!(kinds(&server.take_requests())[0], "close");
}

#[tokio::test]
async fn the_mtime_alone_and_the_group_alone_are_set_as_tar_sets_them_without_a_wait() {
    let (server, fs) = proven().await;
    server.tree(|tree| tree.now = 5000);
    let (ino, fh) = create(&fs, "f").await;
    server.take_requests();
    write(&fs, fh, 0, b"data").await.unwrap();
    let mtime = Change {
        mtime: Some(7),
        ..Change::default()
    };
    let group = Change {
        gid: Some(9),
        ..Change::default()
    };
    assert!(at_once(&fs, ino, mtime).is_some());
    assert!(at_once(&fs, ino, group).is_some());
    fs.flush(fh).await.unwrap();
    let asked = server.take_requests();
    assert_eq!(kinds(&asked), ["write", "times", "owner", "look"]);
    let there = there(&server, "f");
    assert_eq!((there.times, there.owner), (Some((5000, 7)), Some((0, 9))));
}

#[tokio::test]
async fn what_is_written_after_a_change_is_sent_after_it() {
    let (server, fs) = proven().await;
    server.tree(|tree| tree.now = 5000);
    let (ino, fh) = create(&fs, "f").await;
    server.take_requests();
    // So small that they would be merged.
    write(&fs, fh, 0, b"a").await.unwrap();
    write(&fs, fh, 1, b"b").await.unwrap();
    at_once(&fs, ino, times(5, 6)).unwrap();
    write(&fs, fh, 2, b"c").await.unwrap();
    write(&fs, fh, 3, b"d").await.unwrap();
    fs.flush(fh).await.unwrap();
    let asked = kinds(&server.take_requests());
    let place = |kind| asked.iter().position(|asked| *asked == kind).unwrap();
    assert_eq!(asked.iter().filter(|kind| **kind == "times").count(), 1);
    assert!(place("write") < place("times"), "{asked:?}");
    assert_eq!(asked[asked.len() - 2..], ["write", "look"], "{asked:?}");
    assert_eq!(server.tree(|tree| tree.content(b"f")), Some(text("abcd")));
    assert_eq!(
        there(&server, "f").times,
        Some((5, 5000)),
        "the later write has moved it, as on any file system"
    );
    assert_eq!(fs.getattr(ino).await.unwrap().attr.mtime, 5000);
}

#[tokio::test]
async fn a_change_that_the_server_refuses_is_told_once_to_each_open_and_the_next_ones_wait() {
    let (server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    let other = fs.open(ino, WRITE, false).await.unwrap().fh;
    let before = fs.getattr(ino).await.unwrap().attr;
    server.intercept(|request| {
        let refuses = matches!(request, Request::Fsetstat { .. });
        refuses.then(|| status(StatusCode::PERMISSION_DENIED))
    });
    write(&fs, fh, 0, b"data").await.unwrap();
    at_once(&fs, ino, mode(0o600)).unwrap();
    assert_eq!(fs.flush(fh).await, refused(Errno::EPERM));
    assert_eq!(fs.flush(fh).await, Ok(()), "told already");
    assert_eq!(fs.fsync(other).await, refused(Errno::EPERM));
    let seen = fs.getattr(ino).await.unwrap().attr;
    assert_eq!(seen.permissions, before.permissions, "it was not changed");
    server.intercept(|_| None);
    for change in [mode(0o600), times(5, 6), owner(0, 0)] {
        assert_eq!(at_once(&fs, ino, change), None, "nothing is sure any more");
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_a_change_is_made_is_told_at_close() {
    let (server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    server.hang_up();
    at_once(&fs, ino, mode(0o600)).unwrap();
    assert_eq!(fs.flush(fh).await, refused(Errno::EIO));
}

#[tokio::test]
async fn what_is_not_sure_to_be_made_waits_for_the_server() {
    let (_server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    let one_time = Change {
        atime: Some(7),
        ..Change::default()
    };
    let resize = Change {
        size: Some(7),
        ..Change::default()
    };
    for change in [mode(0o4755), mode(0o1644), one_time, resize] {
        assert_eq!(at_once(&fs, ino, change), None, "{change:?}");
    }
    fs.setattr(ino, mode(0o2755), None).await.unwrap();
    assert_eq!(at_once(&fs, ino, owner(7, 8)), None, "takes the set-ID bit");
    fs.flush(fh).await.unwrap();
    fs.release(fh);
    assert_eq!(at_once(&fs, ino, mode(0o600)), None, "not open any more");
    let reading = fs.open(ino, READ, false).await.unwrap().fh;
    assert_eq!(at_once(&fs, ino, mode(0o600)), None, "not open for writing");
    fs.release(reading);
}

#[tokio::test]
async fn a_file_of_somebody_else_is_changed_while_one_waits() {
    let (server, fs) = mount(&[("theirs", b"")]).await;
    server.tree(|tree| {
        let ino = tree.find(b"/home/ann/theirs", false).unwrap();
        tree.chown(ino, (7, 7)).unwrap();
    });
    prove(&fs).await;
    let fh = open(&fs, "theirs", WRITE).await;
    let ino = look_up(&fs, "theirs").await;
    assert_eq!(at_once(&fs, ino, mode(0o600)), None);
    fs.setattr(ino, owner(0, 0), None).await.unwrap();
    assert!(at_once(&fs, ino, mode(0o600)).is_some(), "it is ours now");
    fs.flush(fh).await.unwrap();
}

#[tokio::test]
async fn a_synchronous_mount_waits_for_every_change() {
    let config = Config {
        sync: true,
        ..Config::default()
    };
    let (_server, fs) = mount_with(Options::default(), config, &[]).await;
    prove(&fs).await;
    let (ino, _) = create(&fs, "f").await;
    assert_eq!(at_once(&fs, ino, mode(0o600)), None);
}

#[tokio::test]
async fn a_new_file_gets_what_the_servers_umask_took_without_a_wait() {
    let (server, fs) = proven().await;
    server.tree(|tree| tree.umask = 0o077);
    server.take_requests();
    let (ino, fh) = create(&fs, "f").await;
    assert_eq!(kinds(&server.take_requests()), ["open", "look"]);
    let seen = fs.getattr(ino).now_or_never().unwrap().unwrap();
    assert_eq!(seen.attr.permissions, 0o644);
    fs.flush(fh).await.unwrap();
    assert_eq!(there(&server, "f").permissions, Some(0o100_644));
}

#[tokio::test]
async fn a_new_file_that_cannot_get_its_mode_is_closed_without_an_error() {
    let (server, fs) = proven().await;
    server.tree(|tree| tree.umask = 0o077);
    server.intercept(|request| {
        let refuses = matches!(request, Request::Fsetstat { .. });
        refuses.then(|| status(StatusCode::PERMISSION_DENIED))
    });
    let (ino, fh) = create(&fs, "f").await;
    assert_eq!(fs.flush(fh).await, Ok(()), "no program asked for it");
    assert_eq!(fs.getattr(ino).await.unwrap().attr.permissions, 0o600);
}

#[tokio::test]
async fn who_makes_many_changes_waits_for_answers() {
    let (server, fs) = proven().await;
    let (ino, fh) = create(&fs, "f").await;
    server.take_requests();
    let made = (0..1000).find(|n| at_once(&fs, ino, times(*n, *n)).is_none());
    assert_eq!(made, Some(16));
    fs.flush(fh).await.unwrap();
    assert!(at_once(&fs, ino, times(1, 1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn where_the_server_may_change_the_order_a_change_is_sent_when_the_data_is_written() {
    // No fsync@openssh.com.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let fs = scripted(Config::default(), move |request| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match request {
            Request::Write { .. } => {
                seen.push(request.clone());
                Some(Reply::Hold(status(StatusCode::OK)))
            }
            Request::Fsetstat { .. } => {
                seen.push(request.clone());
                None
            }
            Request::Opendir { .. } => Some(Reply::ThenHeld(Response::Handle(text("d")))),
            // So that it is asked for each time.
            Request::Readdir { .. } => Some(Reply::Answer(status(StatusCode::FAILURE))),
            _ => None,
        }
    })
    .await;
    let sent = || kinds(&requests.lock().unwrap_or_else(PoisonError::into_inner));
    let (ino, fh) = create(&fs, "f").await;
    fs.setattr(ino, times(1, 1), None).await.unwrap();
    requests.lock().unwrap().clear();
    write(&fs, fh, 0, b"data").await.unwrap();
    at_once(&fs, ino, times(5, 6)).unwrap();
    write(&fs, fh, 4, b"more").await.unwrap();
    let mut flush = Box::pin(fs.flush(fh));
    assert!(flush.as_mut().now_or_never().is_none());
    idle().await;
    assert_eq!(sent(), ["write"]);
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    fs.releasedir(dir);
    idle().await;
    assert_eq!(sent(), ["write", "times", "write"]);
    let dir = fs.opendir(Ino::ROOT).await.unwrap();
    fs.releasedir(dir);
    assert_eq!(flush.await, Ok(()));
}

/// As [`proven`], with a client that connects anew.
async fn proven_again() -> (Server, Arc<Filesystem>) {
    let server = Server::new(Options::default());
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let fs = Filesystem::new(client.await.unwrap(), b"", Config::default());
    let fs = fs.await.unwrap();
    prove(&fs).await;
    (server, fs)
}

/// Writes a file and sets all of it, with the connection cut at a request; gives whether it was.
async fn dressed_with_a_cut(cut: usize, how: Cut) -> bool {
    let (server, fs) = proven_again().await;
    let (ino, fh) = create(&fs, "f").await;
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    server.cut_when(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        (*count == cut + 1).then_some(how)
    });
    write(&fs, fh, 0, b"data").await.unwrap();
    idle().await;
    write(&fs, fh, 4, b" and more").await.unwrap();
    for change in [owner(7, 8), mode(0o640), times(1000, 2000)] {
        fs.setattr(ino, change, None).await.unwrap();
    }
    fs.flush(fh).await.unwrap();
    fs.release(fh);
    server.cut_when(|_| None);
    let there = there(&server, "f");
    let case = format!("cut {how:?} {cut}");
    assert_eq!(there.times, Some((1000, 2000)), "{case}");
    assert_eq!(there.owner, Some((7, 8)), "{case}");
    assert_eq!(there.permissions.map(|mode| mode & 0o7777), Some(0o640));
    let data = server.tree(|tree| tree.content(b"f")).unwrap();
    assert_eq!(&data[..], b"data and more", "{case}");
    *seen.lock().unwrap() > cut
}

#[tokio::test(start_paused = true)]
async fn what_is_set_on_a_file_stays_behind_its_data_wherever_the_connection_is_lost() {
    for how in [Cut::Before, Cut::Behind] {
        let mut cut = 0;
        while dressed_with_a_cut(cut, how).await {
            cut += 1;
        }
        assert!(cut > 4, "{cut} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_set_after_a_loss_stays_behind_data_that_was_never_sent() {
    for steps in 0..60 {
        let (server, fs) = proven_again().await;
        let (ino, fh) = create(&fs, "f").await;
        // More than is sent together: the last ones wait, with a handle that is lost then.
        for at in 0..40 {
            write(&fs, fh, at * 10, b"x").await.unwrap();
        }
        server.hang_up();
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        fs.setattr(ino, times(1000, 2000), None).await.unwrap();
        fs.flush(fh).await.unwrap();
        assert_eq!(fs.health().reconnects, 1);
        assert_eq!(there(&server, "f").times, Some((1000, 2000)), "{steps}");
    }
}
