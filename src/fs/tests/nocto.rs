//! Opens that ask the server nothing, and what they must not cost.

use super::*;
use crate::fs::Creation;

async fn believing(files: &[(&str, &[u8])]) -> (Server, Arc<Filesystem>) {
    let config = Config {
        nocto: true,
        ..Config::default()
    };
    mount_with(Options::default(), config, files).await
}

#[tokio::test]
async fn a_file_that_is_believed_is_opened_and_closed_without_a_request() {
    let (server, fs) = believing(&[("f", b"content")]).await;
    let ino = look_up(&fs, "f").await;
    server.take_requests();
    for _ in 0..3 {
        let opened = fs.open(ino, READ, false).await.unwrap();
        fs.getattr(ino).await.unwrap();
        fs.flush(opened.fh).await.unwrap();
        fs.release(opened.fh);
    }
    idle().await;
    assert_eq!(server.take_requests(), []);
}

#[tokio::test]
async fn it_is_opened_on_the_server_once_when_data_is_needed_and_closed_there() {
    let (server, fs) = believing(&[("f", b"content")]).await;
    let fh = open(&fs, "f", READ).await;
    server.take_requests();
    for _ in 0..2 {
        assert_eq!(fs.read(fh, 0, 100).await.unwrap(), "content");
    }
    fs.release(fh);
    idle().await;
    let requests = server.take_requests();
    let count = |is: fn(&Request) -> bool| requests.iter().filter(|request| is(request)).count();
    assert_eq!(count(|it| matches!(it, Request::Open { .. })), 1);
    assert_eq!(count(|it| matches!(it, Request::Close { .. })), 1);
}

#[tokio::test]
async fn without_the_option_to_write_and_when_nothing_is_believed_the_server_is_asked() {
    let (server, fs) = mount(&[("f", b"content")]).await;
    let (believing_server, believing) = believing(&[("f", b"content")]).await;
    for (server, fs, access) in [(&server, &fs, READ), (&believing_server, &believing, WRITE)] {
        let ino = look_up(fs, "f").await;
        server.take_requests();
        fs.open(ino, access, false).await.unwrap();
        assert!(!server.take_requests().is_empty());
    }
    let ino = look_up(&believing, "f").await;
    believing.tables().attrs.changed(ino);
    believing_server.take_requests();
    believing.open(ino, READ, false).await.unwrap();
    assert!(!believing_server.take_requests().is_empty());
}

#[tokio::test]
async fn a_file_that_its_mode_may_keep_from_us_is_asked_for_by_open() {
    let (server, fs) = believing(&[("f", b"content")]).await;
    server.tree(|tree| {
        let there = tree.find(b"f", true).unwrap();
        tree.chmod(there, 0o044).unwrap();
    });
    server.intercept(|request| match request {
        Request::Open { .. } => Some(status(StatusCode::PERMISSION_DENIED)),
        _ => None,
    });
    let ino = look_up(&fs, "f").await;
    assert_eq!(
        fs.open(ino, READ, false).await.map(|_| ()),
        refused(Errno::EACCES)
    );
}

#[tokio::test]
async fn a_file_that_was_opened_without_asking_is_read_after_it_was_removed_or_replaced() {
    for is_replaced in [false, true] {
        let (_server, fs) = believing(&[("f", b"content"), ("g", b"other")]).await;
        let fh = open(&fs, "f", READ).await;
        look_up(&fs, "g").await;
        match is_replaced {
            true => {
                let (from, to) = ((Ino::ROOT, &b"g"[..]), (Ino::ROOT, &b"f"[..]));
                fs.rename(from, to, false).await.unwrap();
            }
            false => fs.unlink(Ino::ROOT, b"f").await.unwrap(),
        }
        assert_eq!(fs.read(fh, 0, 100).await.unwrap(), "content");
    }
}

#[tokio::test]
async fn what_is_written_here_is_read_by_an_open_that_asks_nothing() {
    let (server, fs) = believing(&[("f", b"content")]).await;
    let fh = open(&fs, "f", WRITE).await;
    write(&fs, fh, 7, b" and more").await.unwrap();
    fs.flush(fh).await.unwrap();
    fs.release(fh);
    idle().await;
    let ino = look_up(&fs, "f").await;
    server.take_requests();
    let fh = fs.open(ino, READ, false).await.unwrap().fh;
    assert_eq!(server.take_requests(), []);
    assert_eq!(fs.read(fh, 0, 100).await.unwrap(), "content and more");
}

#[tokio::test]
async fn a_file_that_is_renamed_while_it_is_opened_is_not_taken_for_the_next_of_its_name() {
    let (_server, fs) = believing(&[("f", b"content")]).await;
    let fh = open(&fs, "f", READ).await;
    let (from, to) = ((Ino::ROOT, &b"f"[..]), (Ino::ROOT, &b"g"[..]));
    let how = Creation::EXCLUSIVE;
    let (renamed, made, read) = tokio::join!(
        biased;
        fs.rename(from, to, false),
        fs.create(Ino::ROOT, b"f", 0o600, WRITE, how, USER),
        fs.read(fh, 0, 100),
    );
    assert!(renamed.is_ok() && made.is_ok());
    assert_eq!(read.unwrap(), "content");
}
