//! Copies inside the mount, and the hard links that they may be on the server.

use super::*;
use crate::fs::cow::Passes;
use crate::fs::{Change, CopyIsHardlink, Creation};

pub(super) fn cow() -> Config {
    Config {
        copy_is_hardlink: CopyIsHardlink::Cow,
        ..Config::default()
    }
}

/// `cp from to`: a new file, filled by copy_file_range(2) until that gives nothing more.
pub(super) async fn copy(fs: &Arc<Filesystem>, from: &str, to: &str) -> Result<Fh> {
    let source = open(fs, from, READ).await;
    let name = to.as_bytes();
    let how = Creation {
        exclusive: false,
        truncate: true,
    };
    let (_, target) = fs.create(Ino::ROOT, name, 0o600, WRITE, how, USER).await?;
    let mut at = 0;
    loop {
        match fs
            .copy_range((source, at), (target.fh, at), 0xffff_f000)
            .await?
        {
            0 => break,
            more => at += more,
        }
    }
    fs.flush(target.fh).await?;
    fs.release(source);
    Ok(target.fh)
}

pub(super) async fn copied(fs: &Arc<Filesystem>, from: &str, to: &str) {
    let fh = copy(fs, from, to).await.unwrap();
    fs.release(fh);
}

pub(super) async fn content(fs: &Arc<Filesystem>, name: &str) -> Vec<u8> {
    let fh = open(fs, name, READ).await;
    let data = fs.read(fh, 0, 1 << 20).await.unwrap();
    fs.release(fh);
    data.to_vec()
}

/// The server's inode of each name.
fn storage(server: &Server, names: &[&str]) -> Vec<u64> {
    server.tree(|tree| {
        let find = |name: &&str| {
            let path = format!("/home/ann/{name}");
            tree.find(path.as_bytes(), false).unwrap()
        };
        names.iter().map(find).collect()
    })
}

pub(super) fn are_one(server: &Server, names: &[&str]) -> bool {
    let found = storage(server, names);
    found.windows(2).all(|pair| pair[0] == pair[1])
}

fn temporaries(server: &Server) -> Vec<Bytes> {
    server.tree(|tree| {
        let home = tree.find(b"/home/ann", false).unwrap();
        let names = tree.list(home).unwrap();
        names
            .into_iter()
            .filter(|name| name.starts_with(b".sftpfs"))
            .collect()
    })
}

fn data_requests(requests: &[Request]) -> usize {
    let carries = |request: &&Request| {
        matches!(
            request,
            Request::Read { .. } | Request::Write { .. } | Request::CopyData { .. }
        )
    };
    requests.iter().filter(carries).count()
}

#[tokio::test]
async fn a_copy_is_a_link_on_the_server_and_a_file_of_its_own_here() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    assert!(are_one(&server, &["a", "b"]));
    assert_eq!(data_requests(&server.take_requests()), 0);
    let (a, b) = (look_up(&fs, "a").await, look_up(&fs, "b").await);
    assert_ne!(a, b);
    assert_eq!(fs.getattr(b).await.unwrap().links, 1);
    assert_eq!(content(&fs, "b").await, b"hello");
    assert_eq!(temporaries(&server), Vec::<Bytes>::new());
}

#[tokio::test]
async fn a_write_to_either_name_changes_only_that_one() {
    for (written, other) in [("a", "b"), ("b", "a")] {
        let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
        copied(&fs, "a", "b").await;
        let fh = open(&fs, written, WRITE).await;
        assert!(are_one(&server, &["a", "b"]), "an open alone parts nothing");
        write(&fs, fh, 1, b"u").await.unwrap();
        fs.flush(fh).await.unwrap();
        assert_eq!(content(&fs, written).await, b"hullo");
        assert_eq!(content(&fs, other).await, b"hello");
        assert!(!are_one(&server, &["a", "b"]));
        assert_eq!(temporaries(&server), Vec::<Bytes>::new());
        server.take_requests();
        write(&fs, fh, 4, b"a").await.unwrap();
        fs.flush(fh).await.unwrap();
        let requests = server.take_requests();
        let is_write = |request: &&Request| matches!(request, Request::Write { .. });
        assert_eq!(requests.iter().filter(is_write).count(), 1);
        let opens = |request: &&Request| matches!(request, Request::Open { .. });
        assert_eq!(
            requests.iter().filter(opens).count(),
            0,
            "parted once and for all"
        );
    }
}

#[tokio::test]
async fn the_descriptor_that_a_copy_was_made_through_writes_to_the_copy() {
    let (_server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let fh = copy(&fs, "a", "b").await.unwrap();
    assert_eq!(fs.read(fh, 0, 10).await.unwrap(), "hello");
    write(&fs, fh, 5, b"!").await.unwrap();
    fs.fsync(fh).await.unwrap();
    assert_eq!(content(&fs, "b").await, b"hello!");
    assert_eq!(content(&fs, "a").await, b"hello");
}

#[tokio::test]
async fn readers_follow_the_file_that_was_parted() {
    let long = pattern(700_000);
    let (_server, fs) = mount_with(Options::default(), cow(), &[("a", &long)]).await;
    copied(&fs, "a", "b").await;
    let (reader, writer) = (open(&fs, "b", READ).await, open(&fs, "b", WRITE).await);
    assert_eq!(fs.read(reader, 0, 100).await.unwrap(), long[..100]);
    write(&fs, writer, 10, b"news").await.unwrap();
    assert_eq!(fs.read(reader, 10, 4).await.unwrap(), "news");
    let other = open(&fs, "a", WRITE).await;
    write(&fs, other, 300_000, b"elsewhere").await.unwrap();
    fs.flush(other).await.unwrap();
    assert_eq!(
        fs.read(reader, 300_000, 9).await.unwrap(),
        long[300_000..300_009]
    );
}

#[tokio::test]
async fn to_empty_a_copy_costs_no_copy() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    server.take_requests();
    let b = look_up(&fs, "b").await;
    let opened = fs.open(b, WRITE, true).await.unwrap();
    assert_eq!(data_requests(&server.take_requests()), 0);
    fs.release(opened.fh);
    assert_eq!(content(&fs, "b").await, b"");
    assert_eq!(content(&fs, "a").await, b"hello");
}

#[tokio::test]
async fn a_shorter_copy_keeps_what_it_keeps() {
    let (_server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let change = Change {
        size: Some(2),
        ..Change::default()
    };
    fs.setattr(look_up(&fs, "a").await, change, None)
        .await
        .unwrap();
    assert_eq!(content(&fs, "a").await, b"he");
    assert_eq!(content(&fs, "b").await, b"hello");
}

#[tokio::test]
async fn attributes_that_a_copy_has_already_part_nothing_and_others_do() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let b = look_up(&fs, "b").await;
    let before = fs.getattr(look_up(&fs, "a").await).await.unwrap().attr;
    let same = Change {
        permissions: Some(before.permissions),
        uid: Some(before.uid),
        gid: Some(before.gid),
        atime: Some(before.atime),
        mtime: Some(before.mtime),
        ..Change::default()
    };
    fs.setattr(b, same, None).await.unwrap();
    assert!(are_one(&server, &["a", "b"]));
    let mode = Change {
        permissions: Some(0o600),
        ..Change::default()
    };
    assert_eq!(
        fs.setattr(b, mode, None).await.unwrap().attr.permissions,
        0o600
    );
    let known = fs.getattr(b).await.unwrap().attr;
    assert_eq!((known.mtime, known.size), (before.mtime, 5));
    let a = look_up(&fs, "a").await;
    assert_eq!(
        fs.ask_attributes(a).await.unwrap().attr.permissions,
        before.permissions
    );
}

#[tokio::test]
async fn names_that_link_has_made_stay_one_file_when_a_copy_is_parted_from_them() {
    for written in ["a", "b", "c"] {
        let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
        let a = look_up(&fs, "a").await;
        fs.link(a, Ino::ROOT, b"b").await.unwrap();
        copied(&fs, "a", "c").await;
        assert!(are_one(&server, &["a", "b", "c"]));
        let fh = open(&fs, written, WRITE).await;
        write(&fs, fh, 0, b"J").await.unwrap();
        fs.flush(fh).await.unwrap();
        assert!(are_one(&server, &["a", "b"]), "{written}");
        assert!(!are_one(&server, &["a", "c"]), "{written}");
        let content = |name: &str| {
            let path = format!("/home/ann/{name}");
            server.tree(|tree| tree.content(path.as_bytes())).unwrap()
        };
        assert_eq!(content("a") == "Jello", written != "c", "{written}");
        assert_eq!(content("c") == "Jello", written == "c", "{written}");
    }
}

#[tokio::test]
async fn a_file_with_names_that_others_made_is_copied() {
    for is_listed in [false, true] {
        let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
        server
            .tree(|tree| tree.link(b"/home/ann/a", b"/home/ann/elsewhere"))
            .unwrap();
        if is_listed {
            let dir = fs.opendir(Ino::ROOT).await.unwrap();
            fs.readdir(dir, 0, true, |_| false).await.unwrap();
        }
        copied(&fs, "a", "b").await;
        assert!(!are_one(&server, &["a", "b"]), "listed: {is_listed}");
        let fh = open(&fs, "elsewhere", WRITE).await;
        write(&fs, fh, 0, b"J").await.unwrap();
        fs.flush(fh).await.unwrap();
        assert_eq!(content(&fs, "b").await, b"hello");
    }
}

#[tokio::test]
async fn a_chain_of_copies_is_parted_link_by_link() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    copied(&fs, "b", "c").await;
    copied(&fs, "c", "d").await;
    assert!(are_one(&server, &["a", "b", "c", "d"]));
    for (n, name) in (b'0'..).zip(["b", "a", "d"]) {
        let fh = open(&fs, name, WRITE).await;
        write(&fs, fh, 0, &[n]).await.unwrap();
        fs.release(fh);
    }
    for (name, expected) in [
        ("a", "1ello"),
        ("b", "0ello"),
        ("c", "hello"),
        ("d", "2ello"),
    ] {
        assert_eq!(content(&fs, name).await, expected.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn a_copy_renamed_over_its_source_leaves_one_file() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    let name = |name: &'static str| (Ino::ROOT, name.as_bytes());
    fs.rename(name("b"), name("a"), false).await.unwrap();
    assert_eq!(fs.lookup(Ino::ROOT, b"b").await, refused(Errno::ENOENT));
    assert_eq!(content(&fs, "a").await, b"hello");
    server.take_requests();
    let fh = open(&fs, "a", WRITE).await;
    write(&fs, fh, 0, b"J").await.unwrap();
    fs.flush(fh).await.unwrap();
    let requests = server.take_requests();
    let is_rename = |request: &Request| matches!(request, Request::PosixRename { .. });
    assert!(
        !requests.iter().any(is_rename),
        "nothing is left to part: {requests:?}"
    );
}

#[tokio::test]
async fn what_is_open_for_writing_is_parted_before_its_name_goes() {
    let (_server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let fh = copy(&fs, "a", "b").await.unwrap();
    fs.unlink(Ino::ROOT, b"b").await.unwrap();
    write(&fs, fh, 0, b"J").await.unwrap();
    fs.flush(fh).await.unwrap();
    assert_eq!(fs.read(fh, 0, 5).await.unwrap(), "Jello");
    assert_eq!(content(&fs, "a").await, b"hello");
}

#[tokio::test]
async fn a_server_that_only_says_that_it_links_gets_the_file_copied() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    server.intercept(|request| {
        matches!(request, Request::Hardlink { .. }).then(|| status(StatusCode::OK))
    });
    copied(&fs, "a", "b").await;
    assert_eq!(content(&fs, "b").await, b"hello");
    assert!(!are_one(&server, &["a", "b"]));
    assert_eq!(temporaries(&server), Vec::<Bytes>::new());
}

#[tokio::test]
async fn where_no_link_can_be_the_file_is_copied_all_the_same() {
    for missing in [
        &["hardlink@openssh.com"][..],
        &["posix-rename@openssh.com"],
        &["hardlink@openssh.com", "copy-data"],
        &[
            "hardlink@openssh.com",
            "copy-data",
            "statvfs@openssh.com",
            "limits@openssh.com",
        ],
    ] {
        let options = Options::default().without(missing);
        let long = pattern(300_000);
        let (server, fs) = mount_with(options, cow(), &[("a", &long)]).await;
        copied(&fs, "a", "b").await;
        assert!(content(&fs, "b").await == long, "{missing:?}");
        assert!(!are_one(&server, &["a", "b"]), "{missing:?}");
    }
}

#[tokio::test]
async fn without_the_option_a_copy_is_a_copy() {
    let (server, fs) = mount(&[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    assert!(!are_one(&server, &["a", "b"]));
    let requests = server.take_requests();
    let is_write = |request: &Request| matches!(request, Request::Write { .. });
    assert!(
        !requests.iter().any(is_write),
        "the server copies: {requests:?}"
    );
}

#[tokio::test]
async fn a_shared_copy_is_the_source_under_another_name() {
    let config = Config {
        copy_is_hardlink: CopyIsHardlink::Shared,
        ..Config::default()
    };
    let (server, fs) = mount_with(Options::default(), config, &[("a", b"hello")]).await;
    let fh = copy(&fs, "a", "b").await.unwrap();
    assert!(are_one(&server, &["a", "b"]));
    let (a, b) = (look_up(&fs, "a").await, look_up(&fs, "b").await);
    assert_eq!(a, b);
    assert_eq!(fs.getattr(b).await.unwrap().links, 2);
    write(&fs, fh, 0, b"J").await.unwrap();
    assert_eq!(content(&fs, "a").await, b"Jello");
    fs.release(fh);
    assert_eq!(content(&fs, "b").await, b"Jello");
}

#[tokio::test]
async fn a_clone_shares_or_is_refused() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello"), ("b", b"")]).await;
    let (a, fh) = (look_up(&fs, "a").await, open(&fs, "b", WRITE).await);
    assert_eq!(
        fs.clone_range(a, fh, (0, 0), 3).await,
        refused(Errno::EOPNOTSUPP)
    );
    assert_eq!(
        fs.clone_range(a, fh, (0, 4096), 0).await,
        refused(Errno::EOPNOTSUPP)
    );
    fs.clone_range(a, fh, (0, 0), 0).await.unwrap();
    assert!(are_one(&server, &["a", "b"]));
    let reader = open(&fs, "a", READ).await;
    assert_eq!(
        fs.clone_range(a, reader, (0, 0), 0).await,
        refused(Errno::EBADF)
    );
    let (_server, fs) = mount(&[("a", b"hello"), ("b", b"")]).await;
    let (a, fh) = (look_up(&fs, "a").await, open(&fs, "b", WRITE).await);
    assert_eq!(
        fs.clone_range(a, fh, (0, 0), 0).await,
        refused(Errno::EOPNOTSUPP)
    );
}

#[tokio::test]
async fn what_the_server_refuses_leaves_both_names_as_they_were() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    copied(&fs, "a", "b").await;
    server.intercept(|request| {
        matches!(
            request,
            Request::PosixRename { .. } | Request::Rename { .. }
        )
        .then(|| status(StatusCode::PERMISSION_DENIED))
    });
    let fh = open(&fs, "b", WRITE).await;
    assert_eq!(write(&fs, fh, 0, b"J").await, refused(Errno::EACCES));
    assert!(are_one(&server, &["a", "b"]));
    assert_eq!(content(&fs, "b").await, b"hello");
    assert_eq!(temporaries(&server), Vec::<Bytes>::new());
}

#[tokio::test]
async fn who_gives_up_waiting_for_a_copy_to_be_parted_leaves_nothing_behind() {
    let long = pattern(1 << 20);
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", &long)]).await;
    copied(&fs, "a", "b").await;
    let fh = open(&fs, "b", WRITE).await;
    let b = look_up(&fs, "b").await;
    {
        let writing = write(&fs, fh, 0, b"J");
        tokio::pin!(writing);
        // Begun, and dropped.
        assert!(futures_util::poll!(&mut writing).is_pending());
    }
    // Whoever comes next waits until the one before has let go.
    let _: Option<Passes> = fs.pass(&[b]).await;
    let change = Change {
        size: Some(3),
        ..Change::default()
    };
    fs.setattr(b, change, None).await.unwrap();
    assert!(content(&fs, "a").await == long);
    assert_eq!(content(&fs, "b").await.len(), 3);
    assert_eq!(temporaries(&server), Vec::<Bytes>::new());
}

#[tokio::test]
async fn a_file_of_somebody_else_is_copied_so_that_the_copy_is_ones_own() {
    let (server, fs) = mount_with(Options::default(), cow(), &[("a", b"hello")]).await;
    let ann = Caller {
        uid: 1000,
        gid: 1000,
    };
    server.tree(|tree| {
        let a = tree.find(b"/home/ann/a", false).unwrap();
        tree.chown(a, (7, 7)).unwrap();
    });
    for (caller, name, is_linked) in [(ann, "b", false), (USER, "c", true)] {
        let source = open(&fs, "a", READ).await;
        let how = Creation::EXCLUSIVE;
        let made = fs.create(Ino::ROOT, name.as_bytes(), 0o600, WRITE, how, caller);
        let target = made.await.unwrap().1.fh;
        assert_eq!(fs.copy_range((source, 0), (target, 0), 5).await, Ok(5));
        assert_eq!(are_one(&server, &["a", name]), is_linked, "{name}");
    }
}
