//! What is asked by path while the connection is lost.

use std::time::Duration;

use super::*;
use crate::sftp::{OpenFlags, StatusCode};
use crate::testing::{Cut, status};

/// A client whose connection is lost at the first request that `pick` says yes to, behind it.
async fn cut_at(server: &Server, pick: impl Fn(&Request) -> bool + Send + 'static) -> Client {
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let client = client.await.unwrap();
    let mut is_cut = false;
    server.cut_when(move |request| {
        let cut = !is_cut && pick(request);
        is_cut |= cut;
        cut.then_some(Cut::Behind)
    });
    server.take_requests();
    client
}

fn count(server: &Server, is_it: impl Fn(&Request) -> bool) -> usize {
    let requests = server.take_requests();
    requests.iter().filter(|request| is_it(request)).count()
}

#[tokio::test(start_paused = true)]
async fn what_the_server_refuses_to_look_at_is_not_taken_for_removed() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"data"));
    let is_remove = |request: &Request| matches!(request, Request::Remove { .. });
    let client = cut_at(&server, is_remove).await;
    server.intercept(|request| {
        let is_look = matches!(request, Request::Lstat { .. });
        is_look.then(|| status(StatusCode::FAILURE))
    });
    // It is asked again, and is gone by then.
    let error = client.remove(text("f")).await.unwrap_err();
    assert!(error.is_refused_with(StatusCode::NO_SUCH_FILE), "{error}");
    assert_eq!(count(&server, is_remove), 2);
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_mode_keeps_its_maker_out_is_open_for_him_who_made_it() {
    let server = Server::new(Options::default());
    let makes = |request: &Request| matches!(request, Request::Open { flags, .. } if flags.contains(OpenFlags::EXCL));
    let client = cut_at(&server, makes).await;
    server.intercept(move |request| {
        let is_refused = matches!(request, Request::Open { .. }) && !makes(request);
        is_refused.then(|| status(StatusCode::PERMISSION_DENIED))
    });
    let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::EXCL;
    let attrs = Attrs {
        permissions: Some(0o444),
        ..Attrs::default()
    };
    let handle = client.open(text("object"), flags, attrs).await.unwrap();
    let written = client.write(&handle, 0, text("blob")).await;
    written.await.unwrap();
    drop(handle);
    // With a mode that lets him in it is not his.
    let client = cut_at(&server, makes).await;
    let attrs = of_mode(0o644);
    let refused = client.open(text("other"), flags, attrs).await;
    let error = refused.err().unwrap();
    assert!(error.is_refused_with(StatusCode::PERMISSION_DENIED));
    assert_eq!(count(&server, |it| matches!(it, Request::Remove { .. })), 0);
}

fn of_mode(mode: u32) -> Attrs {
    Attrs {
        permissions: Some(mode),
        ..Attrs::default()
    }
}

#[tokio::test(start_paused = true)]
async fn two_names_of_a_file_that_is_being_written_are_seen_to_be_of_one() {
    // At one name, at the other, and at the first again: it may grow all the time.
    for sizes in [[4, 5, 5], [4, 5, 6]] {
        let server = Server::new(Options::default());
        server.tree(|tree| tree.put(b"f", b"data"));
        let is_link = |request: &Request| matches!(request, Request::Hardlink { .. });
        let client = cut_at(&server, is_link).await;
        let mut sizes = sizes.into_iter();
        server.intercept(move |request| {
            let is_look = matches!(request, Request::Lstat { .. });
            let size = is_look.then(|| sizes.next()).flatten()?;
            Some(Response::Attrs(Attrs {
                owner: Some((1, 1)),
                times: Some((1, 1)),
                permissions: Some(0o100_644),
                ..of_size(size)
            }))
        });
        client.hardlink(text("f"), text("g")).await.unwrap();
        assert_eq!(count(&server, is_link), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_late_for_the_connection_that_was_lost_is_done() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"data"));
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let client = client.await.unwrap();
    let is_remove = |request: &Request| matches!(request, Request::Remove { .. });
    let mut is_cut = false;
    server.cut_when(move |request| {
        let is_now = !is_cut && is_remove(request);
        is_cut |= is_now;
        is_now.then_some(Cut::Before)
    });
    let mut is_done = false;
    server.intercept(move |request| {
        is_done |= matches!(request, Request::Remove { .. });
        let is_gone = is_done && matches!(request, Request::Remove { .. } | Request::Lstat { .. });
        is_gone.then(|| status(StatusCode::NO_SUCH_FILE))
    });
    assert_eq!(client.remove(text("f")).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_behind_a_change_is_asked_behind_it_again() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"data"));
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let client = client.await.unwrap();
    let mut cuts = 0;
    server.cut_when(move |request| {
        let is_change = matches!(request, Request::Mkdir { .. } | Request::Open { .. });
        cuts += u32::from(is_change);
        // Each is asked for once more.
        (is_change && cuts % 2 == 1).then_some(Cut::Before)
    });
    let (made, seen) = (
        client.mkdir(text("d"), of_mode(0o755)),
        client.lstat(text("d")),
    );
    assert_eq!(made.await, Ok(()));
    assert!(seen.await.is_ok());
    let flags = OpenFlags::WRITE | OpenFlags::TRUNC;
    let opened = client.open_and_look(text("f"), flags, Attrs::default());
    assert_eq!(opened.await.unwrap().1.size, Some(0));
    assert_eq!(client.health().reconnects, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_settled_before_the_directory_above_it_is_moved_away() {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        tree.mkdir(b"a", 0o755).unwrap();
        tree.put(b"a/f", b"data");
    });
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let client = client.await.unwrap();
    let mut cuts = 0;
    server.cut_when(move |request| {
        let is_of_file = match request {
            Request::Remove { path } | Request::Lstat { path } => path.ends_with(b"a/f"),
            _ => false,
        };
        cuts += u32::from(is_of_file);
        // After so many it is not asked again at once.
        (is_of_file && cuts <= 7).then_some(Cut::Before)
    });
    let move_away = async {
        while client.health().reconnects < 7 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.rename(text("a"), text("b")).await
    };
    let (removed, moved) = tokio::join!(client.remove(text("a/f")), move_away);
    assert_eq!((removed, moved), (Ok(()), Ok(())));
    assert!(client.lstat(text("b/f")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_file_is_ours_also_on_a_server_that_gives_modes_of_its_own_once_that_was_seen() {
    for was_seen in [false, true] {
        let server = Server::new(Options::default());
        let client = cut_at(
            &server,
            |request| matches!(request, Request::Open { path, .. } if path.ends_with(b"second")),
        );
        let client = client.await;
        server.intercept(|request| {
            let is_look = matches!(request, Request::Lstat { .. } | Request::Stat { .. });
            is_look.then(|| {
                Response::Attrs(Attrs {
                    size: Some(0),
                    ..of_mode(0o100_777)
                })
            })
        });
        let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::EXCL;
        let make = |name| client.open_and_look(text(name), flags, of_mode(0o644));
        if was_seen {
            make("first").await.unwrap();
        }
        assert_eq!(make("second").await.is_ok(), was_seen);
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_its_maker_may_not_read_is_seen_to_be_made() {
    let server = Server::new(Options::default());
    let is_made = |request: &Request| matches!(request, Request::Mkdir { .. });
    let client = cut_at(&server, is_made).await;
    server.intercept(|request| {
        let is_opened = matches!(request, Request::Opendir { .. });
        is_opened.then(|| status(StatusCode::PERMISSION_DENIED))
    });
    assert_eq!(client.mkdir(text("d"), of_mode(0o300)).await, Ok(()));
    assert_eq!(count(&server, is_made), 1);
}
