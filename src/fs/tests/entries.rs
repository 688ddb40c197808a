//! Many files of a directory copied by one call.

use super::*;
use crate::fs::{Change, CopyEntries, CopyIsHardlink};
use crate::ioctl::Way;
use crate::testing::Cut;

/// A server with directories `from`, which has these files, and `to`.
async fn two(
    options: Options,
    config: Config,
    files: &[(&str, &[u8])],
) -> (Server, Arc<Filesystem>, Ino, Ino) {
    let server = Server::new(options);
    server.tree(|tree| {
        for dir in ["from", "to"] {
            tree.mkdir(path(dir).as_bytes(), 0o755).unwrap();
        }
        for (name, data) in files {
            tree.put(format!("from/{name}").as_bytes(), data);
        }
    });
    let fs = mounted(server.connect(), config).await;
    let (from, to) = (look_up(&fs, "from").await, look_up(&fs, "to").await);
    server.take_requests();
    (server, fs, from, to)
}

fn path(name: &str) -> String {
    format!("/home/ann/{name}")
}

fn names(names: &[&str]) -> Vec<Bytes> {
    names
        .iter()
        .map(|name| Bytes::copy_from_slice(name.as_bytes()))
        .collect()
}

fn wanted(source: Ino, of: &[&str]) -> CopyEntries {
    CopyEntries {
        source,
        names: names(of),
        preserve: false,
        umask: 0o022,
    }
}

fn linking(copy_is_hardlink: CopyIsHardlink) -> Config {
    Config {
        copy_is_hardlink,
        ..Config::default()
    }
}

fn content(server: &Server, name: &str) -> Option<Vec<u8>> {
    server.tree(|tree| tree.content(name.as_bytes()).map(|data| data.to_vec()))
}

fn attrs(server: &Server, name: &str) -> Attrs {
    server.tree(|tree| {
        let ino = tree.find(path(name).as_bytes(), false).unwrap();
        tree.attrs(ino)
    })
}

fn listed(server: &Server, name: &str) -> Vec<Bytes> {
    server.tree(|tree| {
        let ino = tree.find(path(name).as_bytes(), false).unwrap();
        let mut names = tree.list(ino).unwrap();
        names.retain(|name| name != "." && name != "..");
        names
    })
}

fn dress(server: &Server, name: &str, mode: u32, times: (u32, u32)) {
    server.tree(|tree| {
        let ino = tree.find(path(name).as_bytes(), false).unwrap();
        tree.chmod(ino, mode).unwrap();
        tree.set_times(ino, times).unwrap();
    });
}

#[tokio::test]
async fn files_are_copied_by_the_server_and_each_name_has_its_outcome() {
    let files: [(&str, &[u8]); 3] = [("a", b"hello"), ("b", b""), ("there", b"new")];
    let (server, fs, from, to) = two(Options::default(), Config::default(), &files).await;
    server.tree(|tree| {
        tree.put(b"to/there", b"old");
        tree.symlink(b"a", path("from/link").as_bytes()).unwrap();
    });
    let of = ["a", "b", "there", "gone", "link", "..", "x/y"];
    let outcomes = fs.copy_entries(to, &wanted(from, &of), USER).await.unwrap();
    let expected = [
        Ok((Way::Copied, 5)),
        Ok((Way::Copied, 0)),
        Err(Errno::EEXIST),
        Err(Errno::ENOENT),
        Err(Errno::EINVAL),
        Err(Errno::EINVAL),
        Err(Errno::EINVAL),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(content(&server, "to/a").as_deref(), Some(&b"hello"[..]));
    assert_eq!(content(&server, "to/there").as_deref(), Some(&b"old"[..]));
    assert_eq!(
        listed(&server, "to"),
        names(&["a", "b", "there"]),
        "what failed left nothing"
    );
    let is_data =
        |request: &Request| matches!(request, Request::Read { .. } | Request::Write { .. });
    assert!(!server.take_requests().iter().any(is_data));
}

#[tokio::test]
async fn a_copy_has_the_modes_and_times_that_were_asked_for() {
    let (server, fs, from, to) = two(Options::default(), Config::default(), &[("a", b"x")]).await;
    dress(&server, "from/a", 0o666, (1000, 2000));
    let plain = wanted(from, &["a"]);
    fs.copy_entries(to, &plain, USER).await.unwrap()[0].unwrap();
    let made = attrs(&server, "to/a");
    assert_eq!(made.permissions.map(|mode| mode & 0o7777), Some(0o644));
    assert_ne!(made.times, Some((1000, 2000)));
    server.tree(|tree| tree.unlink(path("to/a").as_bytes()).unwrap());
    let preserve = CopyEntries {
        preserve: true,
        ..plain
    };
    fs.copy_entries(to, &preserve, USER).await.unwrap()[0].unwrap();
    let kept = attrs(&server, "to/a");
    assert_eq!(kept.permissions.map(|mode| mode & 0o7777), Some(0o666));
    assert_eq!(kept.times, Some((1000, 2000)));
}

#[tokio::test]
async fn what_is_known_of_the_directory_is_not_believed_any_more() {
    let (_server, fs, from, to) = two(Options::default(), Config::default(), &[("a", b"x")]).await;
    assert_eq!(
        fs.lookup(to, b"a").await.unwrap_err(),
        Error::Errno(Errno::ENOENT)
    );
    fs.copy_entries(to, &wanted(from, &["a"]), USER)
        .await
        .unwrap()[0]
        .unwrap();
    assert_eq!(fs.lookup(to, b"a").await.unwrap().known.attr.size, 1);
    let told = fs.info(to, b"a").await.unwrap();
    assert!(
        told.contains(&("content", Bytes::from_static(b"copied on the server"))),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_copy_has_it_streamed() {
    let long = pattern(700_000);
    let without = || Options::default().without(&["copy-data"]);
    for refuses in [false, true] {
        let options = if refuses {
            Options::default()
        } else {
            without()
        };
        let (server, fs, from, to) = two(options, Config::default(), &[("a", &long)]).await;
        server.intercept(move |request| match request {
            Request::CopyData { .. } => Some(status(StatusCode::OP_UNSUPPORTED)),
            _ => None,
        });
        let outcomes = fs
            .copy_entries(to, &wanted(from, &["a"]), USER)
            .await
            .unwrap();
        assert_eq!(outcomes, [Ok((Way::Streamed, 700_000))]);
        assert!(content(&server, "to/a").unwrap() == long);
    }
}

#[tokio::test]
async fn whatever_fails_the_name_is_not_there() {
    let requests: [fn(&Request) -> bool; 4] = [
        |request| matches!(request, Request::CopyData { .. } | Request::Write { .. }),
        |request| matches!(request, Request::Fsetstat { .. }),
        |request| matches!(request, Request::Fstat { .. }),
        |request| matches!(request, Request::Open { flags, .. } if *flags == OpenFlags::READ),
    ];
    for fails in requests {
        let (server, fs, from, to) =
            two(Options::default(), Config::default(), &[("a", b"hello")]).await;
        server.intercept(move |request| {
            fails(request).then(|| status(StatusCode::PERMISSION_DENIED))
        });
        let outcomes = fs
            .copy_entries(to, &wanted(from, &["a"]), USER)
            .await
            .unwrap();
        assert!(outcomes[0].is_err(), "{outcomes:?}");
        assert_eq!(listed(&server, "to"), Vec::<Bytes>::new());
    }
}

#[tokio::test]
async fn a_copy_that_came_out_shorter_is_not_believed() {
    let (server, fs, from, to) =
        two(Options::default(), Config::default(), &[("a", b"hello")]).await;
    // It says OK and does nothing.
    server.intercept(|request| match request {
        Request::CopyData { .. } => Some(status(StatusCode::OK)),
        _ => None,
    });
    let outcomes = fs
        .copy_entries(to, &wanted(from, &["a"]), USER)
        .await
        .unwrap();
    assert_eq!(outcomes, [Ok((Way::Streamed, 5))]);
    assert_eq!(content(&server, "to/a").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_hundred_files_take_the_round_trips_of_one() {
    let all: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let files: Vec<(&str, &[u8])> = all.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let (server, fs, from, to) = two(Options::default(), Config::default(), &files).await;
    let of: Vec<&str> = all.iter().map(String::as_str).collect();
    let outcomes = fs.copy_entries(to, &wanted(from, &of), USER).await.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == Ok((Way::Copied, 1)))
    );
    // Two opens and a look for each, before any answer is waited for.
    let requests = server.take_requests();
    let is_copy = |request: &Request| matches!(request, Request::CopyData { .. });
    assert_eq!(requests.iter().position(is_copy), Some(300));
}

#[tokio::test]
async fn with_hard_links_a_copy_is_one_and_a_write_parts_it() {
    let files: [(&str, &[u8]); 3] = [("a", b"hello"), ("empty", b""), ("there", b"new")];
    let (server, fs, from, to) =
        two(Options::default(), linking(CopyIsHardlink::Cow), &files).await;
    server.tree(|tree| tree.put(b"to/there", b"old"));
    let of = ["a", "empty", "there"];
    let outcomes = fs.copy_entries(to, &wanted(from, &of), USER).await.unwrap();
    let expected = [
        Ok((Way::Linked, 5)),
        Ok((Way::Copied, 0)),
        Err(Errno::EEXIST),
    ];
    assert_eq!(outcomes, expected);
    let inode = |name: &str| server.tree(|tree| tree.find(path(name).as_bytes(), false).unwrap());
    assert_eq!(inode("from/a"), inode("to/a"));
    let copy = fs.lookup(to, b"a").await.unwrap();
    assert_ne!(copy.ino, fs.lookup(from, b"a").await.unwrap().ino);
    assert_eq!(copy.known.links, 1);
    let fh = fs.open(copy.ino, WRITE, false).await.unwrap().fh;
    write(&fs, fh, 0, b"J").await.unwrap();
    fs.flush(fh).await.unwrap();
    assert_eq!(content(&server, "to/a").as_deref(), Some(&b"Jello"[..]));
    assert_eq!(content(&server, "from/a").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_source_that_is_open_is_parted_from_its_copy_by_the_next_write() {
    let (server, fs, from, to) = two(
        Options::default(),
        linking(CopyIsHardlink::Cow),
        &[("a", b"hello")],
    )
    .await;
    let source = fs.lookup(from, b"a").await.unwrap().ino;
    let fh = fs.open(source, WRITE, false).await.unwrap().fh;
    write(&fs, fh, 0, b"J").await.unwrap();
    let outcomes = fs
        .copy_entries(to, &wanted(from, &["a"]), USER)
        .await
        .unwrap();
    assert_eq!(outcomes[0].unwrap().1, 5);
    write(&fs, fh, 4, b"y").await.unwrap();
    fs.flush(fh).await.unwrap();
    assert_eq!(content(&server, "to/a").as_deref(), Some(&b"Jello"[..]));
    assert_eq!(content(&server, "from/a").as_deref(), Some(&b"Jelly"[..]));
}

#[tokio::test]
async fn a_server_that_lies_about_a_link_has_the_file_copied() {
    let (server, fs, from, to) = two(
        Options::default(),
        linking(CopyIsHardlink::Cow),
        &[("a", b"hello")],
    )
    .await;
    server.intercept(|request| match request {
        Request::Hardlink { .. } => Some(status(StatusCode::OK)),
        _ => None,
    });
    let outcomes = fs
        .copy_entries(to, &wanted(from, &["a"]), USER)
        .await
        .unwrap();
    assert_eq!(outcomes, [Ok((Way::Copied, 5))]);
    let copy = fs.lookup(to, b"a").await.unwrap().ino;
    let change = Change {
        permissions: Some(0o600),
        ..Change::default()
    };
    server.take_requests();
    fs.setattr(copy, change, None).await.unwrap();
    let copies = |request: &Request| matches!(request, Request::CopyData { .. });
    assert!(
        !server.take_requests().iter().any(copies),
        "it shares nothing"
    );
}

#[tokio::test]
async fn with_shared_links_both_names_are_one_inode() {
    let (_server, fs, from, to) = two(
        Options::default(),
        linking(CopyIsHardlink::Shared),
        &[("a", b"hello")],
    )
    .await;
    let outcomes = fs
        .copy_entries(to, &wanted(from, &["a"]), USER)
        .await
        .unwrap();
    assert_eq!(outcomes, [Ok((Way::Linked, 5))]);
    let (one, other) = (
        fs.lookup(from, b"a").await.unwrap(),
        fs.lookup(to, b"a").await.unwrap(),
    );
    assert_eq!((one.ino, other.known.links), (other.ino, 2));
    let told = fs.info(to, b"a").await.unwrap();
    assert!(
        told.contains(&("content", Bytes::from_static(b"linked"))),
        "{told:?}"
    );
    assert!(
        told.contains(&("shares", Bytes::from(path("from/a")))),
        "{told:?}"
    );
}

#[tokio::test]
async fn who_may_not_is_refused() {
    let stranger = Caller { uid: 77, gid: 77 };
    let files: [(&str, &[u8]); 2] = [("a", b"x"), ("secret", b"x")];
    let judged = || Config {
        default_permissions: true,
        ..Config::default()
    };
    let (server, fs, from, to) = two(Options::default(), judged(), &files).await;
    dress(&server, "from/secret", 0o600, (1, 1));
    let both = wanted(from, &["a", "secret"]);
    assert_eq!(
        fs.copy_entries(to, &both, stranger).await,
        refused(Errno::EACCES),
        "to: 755"
    );
    dress(&server, "to", 0o777, (1, 1));
    let (server, fs) = {
        let fs = mounted(server.connect(), judged()).await;
        (server, fs)
    };
    let (from, to) = (look_up(&fs, "from").await, look_up(&fs, "to").await);
    let both = wanted(from, &["a", "secret"]);
    let outcomes = fs.copy_entries(to, &both, stranger).await.unwrap();
    assert_eq!(outcomes, [Ok((Way::Copied, 1)), Err(Errno::EACCES)]);
    assert_eq!(listed(&server, "to"), names(&["a"]));
    let read_only = Config {
        read_only: true,
        ..Config::default()
    };
    let fs = mounted(server.connect(), read_only).await;
    let (from, to) = (look_up(&fs, "from").await, look_up(&fs, "to").await);
    let outcome = fs.copy_entries(to, &wanted(from, &["a"]), USER).await;
    assert_eq!(outcome, refused(Errno::EROFS));
    let file = fs.lookup(from, b"a").await.unwrap().ino;
    let fs = mounted(server.connect(), Config::default()).await;
    let _ = look_up(&fs, "from").await;
    let outcome = fs
        .copy_entries(Ino::ROOT, &wanted(file, &["a"]), USER)
        .await;
    assert_eq!(outcome, refused(Errno::ENOTDIR));
}

#[tokio::test]
async fn a_full_disk_is_told_as_one_and_what_fits_is_whole() {
    let half = vec![7; 60_000];
    let files: [(&str, &[u8]); 3] = [("a", &half), ("b", &half), ("c", &half)];
    let (server, fs, from, to) = two(Options::default(), Config::default(), &files).await;
    server.tree(|tree| tree.quota = Some(5 * 60_000));
    let outcomes = fs
        .copy_entries(to, &wanted(from, &["a", "b", "c"]), USER)
        .await
        .unwrap();
    let full = outcomes
        .iter()
        .filter(|outcome| **outcome == Err(Errno::ENOSPC))
        .count();
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(full >= 1 && full + made == 3, "{outcomes:?}");
    assert_eq!(listed(&server, "to").len(), made, "the rest left nothing");
}

/// Copies as `sftpfs cp` does: until no name is to be asked for again.
async fn copied(fs: &Arc<Filesystem>, from: Ino, to: Ino, of: &[&str]) -> Vec<Result<u64, Errno>> {
    let mut outcomes = Vec::new();
    for name in of {
        outcomes.push(loop {
            let asked = fs.copy_entries(to, &wanted(from, &[name]), USER).await;
            match asked.unwrap().remove(0) {
                Err(Errno::EAGAIN) => {}
                outcome => break outcome.map(|(_, size)| size),
            }
        });
    }
    outcomes
}

/// A cut at the n-th request of a copy; whether there was one.
async fn cut_copy_at(n: usize, how: Cut) -> bool {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        for dir in ["from", "to"] {
            tree.mkdir(path(dir).as_bytes(), 0o755).unwrap();
        }
        tree.put(b"from/a", b"hello");
        tree.put(b"from/there", b"new");
        tree.put(b"to/there", b"old");
    });
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let fs = Filesystem::new(client.await.unwrap(), b"", Config::default());
    let fs = fs.await.unwrap();
    let (from, to) = (look_up(&fs, "from").await, look_up(&fs, "to").await);
    server.take_requests();
    let mut requests = 0;
    server.cut_when(move |_| {
        requests += 1;
        (requests == n).then_some(how)
    });
    let outcomes = copied(&fs, from, to, &["a", "there"]).await;
    assert_eq!(outcomes, [Ok(5), Err(Errno::EEXIST)], "{how:?} {n}");
    assert_eq!(content(&server, "to/a").as_deref(), Some(&b"hello"[..]));
    assert_eq!(content(&server, "to/there").as_deref(), Some(&b"old"[..]));
    assert_eq!(listed(&server, "to"), names(&["a", "there"]));
    server.take_requests().len() > n
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_loses_its_connection_is_made_again_and_replaces_nothing() {
    for how in [Cut::Before, Cut::Behind] {
        let mut n = 1;
        while cut_copy_at(n, how).await {
            n += 1;
        }
        assert!(n > 10, "{n} requests");
    }
}
