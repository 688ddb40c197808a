//! OpenSSH says FAILURE for most of what can go wrong. What was meant is found out by asking.

use super::*;
use crate::fs::{Change, Creation};

async fn mkdir(fs: &Arc<Filesystem>, name: &str) -> Ino {
    fs.mkdir(Ino::ROOT, name.as_bytes(), 0o755, USER)
        .await
        .unwrap()
        .ino
}

fn at(name: &str) -> (Ino, &[u8]) {
    (Ino::ROOT, name.as_bytes())
}

/// Answers FAILURE to what fits.
fn refuse(server: &Server, fits: fn(&Request) -> bool) {
    server.intercept(move |request| fits(request).then(|| status(StatusCode::FAILURE)));
}

#[tokio::test]
async fn making_what_exists_says_eexist() {
    let (_server, fs) = mount(&[("f", b""), ("g", b"")]).await;
    let made = fs.mkdir(Ino::ROOT, b"f", 0o755, USER).await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
    let made = fs.symlink(Ino::ROOT, b"f", b"target", USER).await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
    let made = fs
        .create(Ino::ROOT, b"f", 0o644, WRITE, Creation::EXCLUSIVE, USER)
        .await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
    let made = fs.mknod(Ino::ROOT, b"f", 0o644, USER).await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
    let made = fs.link(look_up(&fs, "g").await, Ino::ROOT, b"f").await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EEXIST)));
    assert_eq!(
        fs.rename(at("g"), at("f"), true).await,
        refused(Errno::EEXIST)
    );
}

#[tokio::test]
async fn removing_or_replacing_a_full_directory_says_enotempty() {
    for lacking in ["", "posix-rename@openssh.com"] {
        let options = Options::default().without(&[lacking]);
        let (server, fs) = mount_with(options, Config::default(), &[]).await;
        mkdir(&fs, "d").await;
        mkdir(&fs, "e").await;
        server.tree(|tree| tree.put(b"d/f", b"kept"));
        assert_eq!(fs.rmdir(Ino::ROOT, b"d").await, refused(Errno::ENOTEMPTY));
        assert_eq!(
            fs.rename(at("e"), at("d"), false).await,
            refused(Errno::ENOTEMPTY)
        );
        assert_eq!(server.tree(|tree| tree.content(b"d/f")), Some(text("kept")));
    }
}

#[tokio::test]
async fn a_directory_where_a_file_is_due_says_eisdir() {
    let (_server, fs) = mount(&[("f", b"")]).await;
    let dir = mkdir(&fs, "d").await;
    look_up(&fs, "f").await;
    assert_eq!(fs.unlink(Ino::ROOT, b"d").await, refused(Errno::EISDIR));
    assert_eq!(
        fs.rename(at("f"), at("d"), false).await,
        refused(Errno::EISDIR)
    );
    assert_eq!(fs.open(dir, WRITE, false).await, refused(Errno::EISDIR));
    let made = fs
        .create(
            Ino::ROOT,
            b"d",
            0o644,
            WRITE,
            Creation {
                exclusive: false,
                truncate: false,
            },
            USER,
        )
        .await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EISDIR)));
}

#[tokio::test]
async fn a_file_where_a_directory_is_due_says_enotdir() {
    let (server, fs) = mount(&[("f", b"")]).await;
    mkdir(&fs, "d").await;
    // OpenSSH says NO_SUCH_FILE here, and the kernel does not even ask; others say FAILURE.
    refuse(&server, |request| {
        matches!(request, Request::Rmdir { .. } | Request::PosixRename { .. })
    });
    assert_eq!(fs.rmdir(Ino::ROOT, b"f").await, refused(Errno::ENOTDIR));
    assert_eq!(
        fs.rename(at("d"), at("f"), false).await,
        refused(Errno::ENOTDIR)
    );
}

#[tokio::test]
async fn leaving_a_file_system_says_exdev() {
    let (server, fs) = mount(&[("f", b"kept")]).await;
    server.tree(|tree| tree.mount(b"m")).unwrap();
    let (file, other) = (look_up(&fs, "f").await, look_up(&fs, "m").await);
    assert_eq!(
        fs.rename(at("f"), (other, b"f"), false).await,
        refused(Errno::EXDEV)
    );
    let linked = fs.link(file, other, b"f").await;
    assert_eq!(linked.err(), Some(Error::Errno(Errno::EXDEV)));
    mkdir(&fs, "d").await;
    assert_eq!(
        fs.rename(at("d"), (other, b"d"), false).await,
        refused(Errno::EXDEV)
    );
    assert_eq!(server.tree(|tree| tree.content(b"f")), Some(text("kept")));
}

#[tokio::test]
async fn any_change_of_a_read_only_file_system_says_erofs() {
    let (server, fs) = mount(&[("f", b"content"), ("g", b"")]).await;
    let (file, dir) = (look_up(&fs, "f").await, mkdir(&fs, "d").await);
    server.tree(|tree| tree.read_only = true);
    let erofs = || Some(Error::Errno(Errno::EROFS));
    assert_eq!(fs.mkdir(Ino::ROOT, b"n", 0o755, USER).await.err(), erofs());
    assert_eq!(
        fs.create(Ino::ROOT, b"n", 0o644, WRITE, Creation::EXCLUSIVE, USER)
            .await
            .err(),
        erofs()
    );
    assert_eq!(fs.symlink(Ino::ROOT, b"n", b"t", USER).await.err(), erofs());
    assert_eq!(fs.link(file, Ino::ROOT, b"n").await.err(), erofs());
    assert_eq!(fs.unlink(Ino::ROOT, b"f").await.err(), erofs());
    assert_eq!(fs.rmdir(Ino::ROOT, b"d").await.err(), erofs());
    assert_eq!(fs.rename(at("f"), at("n"), false).await.err(), erofs());
    assert_eq!(fs.rename(at("f"), at("g"), false).await.err(), erofs());
    assert_eq!(fs.open(file, WRITE, false).await.err(), erofs());
    for ino in [file, dir] {
        let change = Change {
            permissions: Some(0o600),
            ..Change::default()
        };
        assert_eq!(fs.setattr(ino, change, None).await.err(), erofs(), "chmod");
        let change = Change {
            mtime: Some(1),
            ..Change::default()
        };
        assert_eq!(fs.setattr(ino, change, None).await.err(), erofs(), "utimes");
    }
    let change = Change {
        size: Some(0),
        ..Change::default()
    };
    assert_eq!(
        fs.setattr(file, change, None).await.err(),
        erofs(),
        "truncate"
    );
    assert_eq!(
        server.tree(|tree| tree.content(b"f")),
        Some(text("content"))
    );
}

#[tokio::test]
async fn a_full_file_system_says_enospc() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let file = look_up(&fs, "f").await;
    server.tree(|tree| tree.quota = Some(0));
    let enospc = || Some(Error::Errno(Errno::ENOSPC));
    let change = Change {
        size: Some(10),
        ..Change::default()
    };
    // Growing needs no block yet; the server's own word is that it may not.
    assert!(fs.setattr(file, change, None).await.is_err());
    refuse(&server, |request| {
        matches!(
            request,
            Request::Mkdir { .. }
                | Request::Open { .. }
                | Request::Symlink { .. }
                | Request::Hardlink { .. }
                | Request::PosixRename { .. }
        )
    });
    assert_eq!(fs.mkdir(Ino::ROOT, b"n", 0o755, USER).await.err(), enospc());
    assert_eq!(
        fs.create(Ino::ROOT, b"n", 0o644, WRITE, Creation::EXCLUSIVE, USER)
            .await
            .err(),
        enospc()
    );
    assert_eq!(
        fs.symlink(Ino::ROOT, b"n", b"t", USER).await.err(),
        enospc()
    );
    assert_eq!(fs.link(file, Ino::ROOT, b"n").await.err(), enospc());
    assert_eq!(fs.rename(at("f"), at("n"), false).await.err(), enospc());
}

#[tokio::test]
async fn a_failure_that_no_question_explains_is_an_input_output_error() {
    let (server, fs) = mount(&[("f", b"")]).await;
    refuse(&server, |request| {
        matches!(
            request,
            Request::Mkdir { .. } | Request::Remove { .. } | Request::Lstat { .. }
        )
    });
    let made = fs.mkdir(Ino::ROOT, b"n", 0o755, USER).await;
    assert_eq!(made.err(), Some(Error::Errno(Errno::EIO)));
    assert_eq!(fs.unlink(Ino::ROOT, b"f").await, refused(Errno::EIO));
    assert_eq!(
        fs.lookup(Ino::ROOT, b"f").await.err(),
        Some(Error::Errno(Errno::EIO))
    );
}

#[tokio::test]
async fn a_server_that_only_says_that_it_made_a_hard_link_is_found_out() {
    let (server, fs) = mount(&[("f", b"")]).await;
    server.intercept(|request| {
        matches!(request, Request::Hardlink { .. }).then(|| status(StatusCode::OK))
    });
    let file = look_up(&fs, "f").await;
    let linked = fs.link(file, Ino::ROOT, b"n").await;
    assert_eq!(linked.err(), Some(Error::Errno(Errno::EPERM)));
    assert!(fs.lookup(Ino::ROOT, b"n").await.is_err());
    assert_eq!(fs.getattr(file).await.unwrap().links, 1);
}

#[tokio::test]
async fn names_longer_than_linux_has_them_are_refused_unasked() {
    let (server, fs) = mount(&[]).await;
    let found = fs.lookup(Ino::ROOT, &[b'x'; 256]).await;
    assert_eq!(found.err(), Some(Error::Errno(Errno::ENAMETOOLONG)));
    assert_eq!(server.take_requests(), []);
    let found = fs.lookup(Ino::ROOT, &[b'x'; 255]).await;
    assert_eq!(found.err(), Some(Error::Errno(Errno::ENOENT)));
}

#[tokio::test]
async fn what_cannot_be_mounted_is_told_in_words() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"file", b""));
    for (directory, says) in [("missing", "is not there"), ("file", "is not a directory")] {
        let (peer, diagnosis) = (String::new(), Diagnosis::default());
        let stream = Box::new(server.connect());
        let client = Client::over(Link {
            stream,
            peer,
            diagnosis,
        })
        .await
        .unwrap();
        let mounted = Filesystem::new(client, directory.as_bytes(), Config::default()).await;
        let error = mounted.err().unwrap().to_string();
        assert!(error.contains(says) && error.contains(directory), "{error}");
    }
}
