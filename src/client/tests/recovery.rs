//! Requests whose connection is lost: asked again, or found done.

use super::text;
use crate::client::{Client, Wanted, while_wanted};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, OpenFlags, Request};
use crate::testing::{Cut, Options, Server};
use nix::errno::Errno;

async fn client(server: &Server) -> Client {
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), 1 << 20);
    client.await.unwrap()
}

/// A server that ends the connection once, at the request that fits.
async fn cut_once(how: Cut, fits: fn(&Request) -> bool) -> (Server, Client) {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"content"));
    let client = client(&server).await;
    let mut is_cut = false;
    server.cut_when(move |request| {
        let is_now = !is_cut && fits(request);
        is_cut |= is_now;
        is_now.then_some(how)
    });
    (server, client)
}

fn is_there(server: &Server, name: &[u8]) -> bool {
    server.tree(|tree| tree.content(name).is_some())
}

const BOTH: [Cut; 2] = [Cut::Before, Cut::Behind];

#[tokio::test]
async fn what_is_removed_is_removed_once_and_no_error() {
    for how in BOTH {
        let (server, client) = cut_once(how, |r| matches!(r, Request::Remove { .. })).await;
        assert_eq!(client.remove(text("f")).await, Ok(()), "{how:?}");
        assert!(!is_there(&server, b"f"));
        assert_eq!(client.health().reconnects, 1);
    }
}

#[tokio::test]
async fn what_is_renamed_is_renamed_once_and_no_error() {
    for how in BOTH {
        let (server, client) = cut_once(how, |r| matches!(r, Request::PosixRename { .. })).await;
        assert_eq!(client.rename(text("f"), text("g")).await, Ok(()), "{how:?}");
        assert!(!is_there(&server, b"f") && is_there(&server, b"g"));
    }
}

#[tokio::test]
async fn what_is_made_exclusively_is_ours_when_the_answer_is_lost() {
    for how in BOTH {
        let (server, client) = cut_once(how, |r| matches!(r, Request::Open { .. })).await;
        let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::EXCL;
        let made = client.open(text("new"), flags, Attrs::default()).await;
        assert!(made.is_ok(), "{how:?}");
        assert!(is_there(&server, b"new"));
    }
}

#[tokio::test]
async fn what_is_there_with_content_is_not_taken_for_made_by_us() {
    let (_server, client) = cut_once(Cut::Before, |r| matches!(r, Request::Open { .. })).await;
    let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::EXCL;
    let made = client.open(text("f"), flags, Attrs::default()).await;
    assert!(matches!(made.err(), Some(Error::Refused { .. })));
}

/// Removes a file of which the program gives up waiting before the server is there again.
async fn remove_abandoned(how: Cut) -> (Server, Result<()>) {
    let (server, client) = cut_once(how, |r| matches!(r, Request::Remove { .. })).await;
    let wanted = Wanted::default();
    let removal = while_wanted(wanted.clone(), client.remove(text("f")));
    wanted.abandon();
    let removed = removal.await;
    (server, removed)
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_done_late() {
    let (server, removed) = remove_abandoned(Cut::Before).await;
    assert_eq!(removed, Err(Error::Errno(Errno::EINTR)));
    assert!(is_there(&server, b"f"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_taken_in_if_it_was_done() {
    let (server, removed) = remove_abandoned(Cut::Behind).await;
    assert_eq!(removed, Ok(()));
    assert!(!is_there(&server, b"f"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_once_it_was_looked_at_is_not_done_late() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"content"));
    let client = client(&server).await;
    let wanted = Wanted::default();
    let (looked, mut is_cut) = (wanted.clone(), false);
    server.cut_when(move |request| match request {
        Request::Remove { .. } if !is_cut => {
            is_cut = true;
            Some(Cut::Before)
        }
        Request::Lstat { .. } => {
            looked.abandon();
            None
        }
        _ => None,
    });
    let removed = while_wanted(wanted, async { client.remove(text("f")).await }).await;
    assert_eq!(removed, Err(Error::Errno(Errno::EINTR)));
    assert!(is_there(&server, b"f"));
}

#[tokio::test]
async fn what_is_asked_first_when_nobody_waits_any_more_is_not_done() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"content"));
    let client = client(&server).await;
    let wanted = Wanted::default();
    wanted.abandon();
    // As an operation that waited for something else before.
    let removed = while_wanted(wanted, async { client.remove(text("f")).await }).await;
    assert_eq!(removed, Err(Error::Errno(Errno::EINTR)));
    assert!(is_there(&server, b"f"));
}

#[tokio::test]
async fn what_has_begun_is_brought_to_its_end() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"content"));
    let client = client(&server).await;
    let wanted = Wanted::default();
    let both = while_wanted(wanted.clone(), async {
        client.rename(text("f"), text("g")).await?;
        wanted.abandon();
        client.remove(text("g")).await
    });
    assert_eq!(both.await, Ok(()));
    assert!(!is_there(&server, b"g"));
}

#[tokio::test]
async fn whoever_waits_when_the_mount_ends_is_told() {
    let server = Server::new(Options::default());
    let first = server.link();
    let link = std::sync::Mutex::new(Some(first));
    let never = server.clone();
    let client = Client::over_again(
        move || match link.lock().unwrap().take() {
            Some(first) => first,
            // A server that answers nothing.
            None => super::link(tokio::io::duplex(1).0),
        },
        Vec::new(),
        1 << 20,
    );
    let client = client.await.unwrap();
    never.hang_up();
    let waiter = client.lstat(text("f"));
    client.give_up();
    assert!(matches!(waiter.await, Err(Error::Gone(_))));
}
