//! Answers: late, cut off, wrong, or none at all.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{client_of, idle, link, of_size, peer, scripted, sized, text, version};
use crate::client::Client;
use crate::error::Error;
use crate::sftp::{Attrs, OpenFlags, Request, RequestId, Response, StatusCode};
use crate::testing::{Options, Reply, Server, status};

#[tokio::test]
async fn answers_out_of_order_reach_their_own_waiters() {
    let client = scripted(|n, _| match n {
        0..63 => Reply::Hold(sized(n)),
        _ => Reply::ThenHeld(sized(n)),
    })
    .await;
    let waiters: Vec<_> = (0..64).map(|_| client.lstat(text("f"))).collect();
    for (size, answer) in (0..).zip(join_all(waiters).await) {
        assert_eq!(answer, Ok(of_size(size)));
    }
}

#[tokio::test]
async fn shuffled_answers_of_a_server_reach_their_own_waiters() {
    for seed in 1..20 {
        let server = Server::new(Options {
            shuffle: Some(seed),
            ..Options::default()
        });
        server.tree(|tree| {
            (0..50).for_each(|n| tree.put(format!("{n}").as_bytes(), &vec![0; n]));
        });
        let client = client_of(&server).await;
        let waiters: Vec<_> = (0..50)
            .map(|n| client.lstat(n.to_string().into()))
            .collect();
        for (size, answer) in (0..).zip(join_all(waiters).await) {
            assert_eq!(answer.unwrap().size, Some(size), "shuffled by {seed}");
        }
    }
}

#[tokio::test]
async fn a_hang_up_at_any_byte_of_an_answer_fails_all_that_wait_and_those_to_come() {
    let answer = sized(7).encode(RequestId(2)).into_bytes();
    for cut in 0..=answer.len() {
        let said = answer.slice(..cut);
        let client = scripted(move |n, _| match n {
            0 => Reply::Silence,
            1 => Reply::Raw(said.clone()),
            _ => Reply::HangUp,
        })
        .await;
        let (first, second, third) = tokio::join!(
            client.lstat(text("a")),
            client.lstat(text("b")),
            client.lstat(text("c"))
        );
        assert!(
            matches!(first, Err(Error::Gone(_))),
            "cut at {cut}: {first:?}"
        );
        assert_eq!(
            second.is_ok(),
            cut == answer.len(),
            "cut at {cut}: {second:?}"
        );
        assert!(
            matches!(third, Err(Error::Gone(_))),
            "cut at {cut}: {third:?}"
        );
        assert!(matches!(client.lstat(text("d")).await, Err(Error::Gone(_))));
        assert!(client.lost().is_some());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let unasked = status(StatusCode::OK).encode(RequestId(4711)).into_bytes();
    let client = scripted(move |_, _| Reply::Raw(unasked.clone())).await;
    let error = Error::Protocol("answer nobody asked for");
    assert!(matches!(client.lstat(text("f")).await, Err(Error::Gone(_))));
    assert_eq!(client.lost(), Some(error));
}

#[tokio::test]
async fn an_answer_given_twice_ends_the_connection() {
    let twice = sized(1).encode(RequestId(1)).into_bytes().repeat(2);
    let client = scripted(move |n, _| match n {
        0 => Reply::Raw(twice.clone().into()),
        _ => Reply::Silence,
    })
    .await;
    assert_eq!(client.lstat(text("f")).await, Ok(of_size(1)));
    assert!(matches!(client.lstat(text("f")).await, Err(Error::Gone(_))));
    assert!(matches!(client.lost(), Some(Error::Protocol(_))));
}

/// What one READ of 4 bytes becomes when it is answered so.
async fn read_answered(answer: Response) -> (Result<Bytes, Error>, Client) {
    let client = scripted(move |n, _| match n {
        0 => Reply::Answer(Response::Handle(text("h"))),
        _ => Reply::Answer(answer.clone()),
    })
    .await;
    let handle = client
        .open(text("f"), OpenFlags::READ, Attrs::default())
        .await
        .unwrap();
    (client.read(&handle, 0, 4).await, client)
}

#[tokio::test]
async fn data_is_believed_only_if_it_can_be_what_was_asked_for() {
    for (answer, told) in [
        (Response::Data(text("1234")), Ok(text("1234"))),
        (Response::Data(text("1")), Ok(text("1"))),
        (status(StatusCode::EOF), Ok(Bytes::new())),
        (
            Response::Data(text("12345")),
            Err(Error::Protocol("DATA longer than asked for")),
        ),
        (
            Response::Data(Bytes::new()),
            Err(Error::Protocol("empty DATA")),
        ),
        (
            status(StatusCode::OK),
            Err(Error::Protocol("an answer of the wrong type")),
        ),
        (
            Response::Handle(text("h")),
            Err(Error::Protocol("an answer of the wrong type")),
        ),
    ] {
        let (read, client) = read_answered(answer.clone()).await;
        assert_eq!(read, told, "to {answer:?}");
        // Who answers what was not asked has lost the thread.
        let has_lost_the_thread = told.is_err() && answer != Response::Data(Bytes::new());
        assert_eq!(client.lost().is_some(), has_lost_the_thread, "{answer:?}");
    }
}

#[tokio::test]
async fn a_refused_read_is_an_error_and_never_the_end_of_the_file() {
    let (read, _) = read_answered(status(StatusCode::FAILURE)).await;
    assert!(read.unwrap_err().is_refused_with(StatusCode::FAILURE));
}

#[tokio::test]
async fn a_frame_longer_than_the_bound_ends_the_connection() {
    let client = scripted(|_, _| Reply::Raw(Bytes::from_static(&[0x00, 0x10, 0x00, 0x01]))).await;
    let error = Error::Protocol("a frame is longer than allowed");
    assert!(matches!(client.lstat(text("f")).await, Err(Error::Gone(_))));
    assert_eq!(client.lost(), Some(error));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rubbish_for_an_answer_fails_and_neither_hangs_nor_panics(
        rubbish in prop::collection::vec(any::<u8>(), 0..200),
        framed in any::<bool>(),
    ) {
        let mut said = rubbish;
        if framed {
            // A length and the id that is waited for, so that more of it is looked at.
            let kind = said.first().map_or(0, |byte| byte % 8 + 100);
            let len = u32::try_from(said.len() + 5).unwrap();
            said = [&len.to_be_bytes()[..], &[kind], &1_u32.to_be_bytes(), &said].concat();
        }
        let said = Bytes::from(said);
        runtime().block_on(async {
            let client = scripted(move |n, _| match n {
                0 => Reply::Raw(said.clone()),
                _ => Reply::HangUp,
            })
            .await;
            let (_, last) = tokio::join!(client.lstat(text("a")), client.lstat(text("b")));
            assert!(last.is_err());
        });
    }
}

/// With the clock standing still, so that a wait for ever shows as a deadline.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let client = scripted(|_, _| Reply::Silence).await;
    let asked = Instant::now();
    let error = client.lstat(text("f")).await.unwrap_err();
    assert!(error.to_string().contains("no answer for 120 s"), "{error}");
    let waited = asked.elapsed();
    assert!((108..=121).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_asks_anything_stays() {
    let server = Server::new(Options::default());
    let client = client_of(&server).await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert!(client.lstat(text(".")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_after_a_long_rest_has_all_its_time() {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let answer = sized(1).encode(RequestId(1)).into_bytes();
        for (says, after_s) in [(version(3), 0), (answer, 100)] {
            assert!(theirs.read(&mut [0; 100]).await.unwrap() > 0);
            tokio::time::sleep(Duration::from_secs(after_s)).await;
            theirs.write_all(&says).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let client = Client::over(link(ours)).await.unwrap();
    idle().await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(client.lstat(text("f")).await, Ok(of_size(1)));
}

#[tokio::test]
async fn a_connection_cut_by_the_network_is_told_with_its_reason() {
    let server = Server::new(Options::default());
    let diagnosed = link(server.connect());
    let diagnosis = diagnosed.diagnosis.clone();
    let client = Client::over(diagnosed).await.unwrap();
    diagnosis.note("ssh: Broken pipe");
    server.hang_up();
    let error = client.lstat(text(".")).await.unwrap_err();
    assert!(
        matches!(&error, Error::Gone(why) if why.contains("Broken pipe")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_that_is_dropped_ends_its_connection_and_whoever_waits() {
    let (ours, peer) = peer(version(3), true);
    let client = Client::over(link(ours)).await.unwrap();
    let waiter = client.lstat(text("f"));
    drop(client);
    assert!(matches!(waiter.await, Err(Error::Gone(_))));
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_nobody_waits_for_any_more_is_closed() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let client = scripted(move |_, request| {
        tell.send(request.clone()).unwrap();
        match request {
            Request::Open { .. } => Reply::Hold(Response::Handle(text("file"))),
            Request::Opendir { .. } => Reply::Hold(Response::Handle(text("directory"))),
            Request::Lstat { .. } => Reply::ThenHeld(sized(1)),
            _ => Reply::Answer(status(StatusCode::OK)),
        }
    })
    .await;
    drop(client.open(text("f"), OpenFlags::READ, Attrs::default()));
    drop(client.opendir(text("d")));
    client.lstat(text("f")).await.unwrap();
    idle().await;
    let mut closed = Vec::new();
    while let Ok(request) = told.try_recv() {
        if let Request::Close { handle } = request {
            closed.push(handle);
        }
    }
    assert_eq!(closed, [text("directory"), text("file")]);
}

#[tokio::test]
async fn what_is_opened_for_one_who_has_just_given_up_is_closed() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"data"));
    let client = client_of(&server).await;
    let opens = || server.tree(|tree| tree.opens());
    for is_directory in [false, true] {
        let (file, directory) = (text("f"), text("."));
        let opening: futures_util::future::BoxFuture<'_, _> = match is_directory {
            true => Box::pin(client.opendir(directory)),
            false => Box::pin(client.open(file, OpenFlags::READ, Attrs::default())),
        };
        // The answer comes, and nobody looks at it.
        while opens() == 0 {
            tokio::task::yield_now().await;
        }
        client.lstat(text("f")).await.unwrap();
        drop(opening);
        client.lstat(text("f")).await.unwrap();
        assert_eq!(opens(), 0, "directory: {is_directory}");
    }
}
