//! How many requests are on their way, and in which order they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{idle, scripted, sized, text, without};
use crate::client::connection::SMALL;
use crate::client::{Client, Handle};
use crate::sftp::{Attrs, OpenFlags, Request, Response};
use crate::testing::Reply;

/// Of a READ that needs a place.
const LARGE: u32 = 255 << 10;

/// A peer that answers a READ only when an LSTAT follows it, and how many READs wait for that.
async fn holding() -> (Client, Handle, Arc<AtomicUsize>) {
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waiting);
    let client = scripted(move |_, request| match request {
        Request::Read { .. } => {
            count.fetch_add(1, Relaxed);
            Reply::Hold(Response::Data(text("x")))
        }
        Request::Lstat { .. } => {
            count.store(0, Relaxed);
            Reply::ThenHeld(sized(0))
        }
        _ => Reply::Answer(Response::Handle(text("h"))),
    })
    .await;
    let handle = client
        .open(text("f"), OpenFlags::READ, Attrs::default())
        .await
        .unwrap();
    (client, handle, waiting)
}

#[tokio::test(start_paused = true)]
async fn the_data_window_begins_small_doubles_with_its_answers_and_ends_at_its_bound() {
    let (client, handle, waiting) = holding().await;
    let client = Arc::new(client);
    for offset in 0..1000 {
        let (client, handle) = (Arc::clone(&client), handle.clone());
        tokio::spawn(async move { client.read(&handle, offset, LARGE).await });
    }
    for expected in [8, 16, 32, 64, 64, 64] {
        idle().await;
        assert_eq!(waiting.load(Relaxed), expected);
        // Passes while the window is full.
        client.lstat(text("f")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn small_reads_that_somebody_waits_for_need_no_place_and_teach_nothing_of_large_ones() {
    let (client, handle, waiting) = holding().await;
    let client = Arc::new(client);
    let read = |len: usize| {
        let (client, handle) = (Arc::clone(&client), handle.clone());
        let len = u32::try_from(len).unwrap();
        tokio::spawn(async move { client.read(&handle, 0, len).await });
    };
    (0..100).for_each(|_| read(SMALL + 1));
    (0..64).for_each(|_| read(SMALL));
    idle().await;
    assert_eq!(waiting.load(Relaxed), 8 + 64);
    client.lstat(text("f")).await.unwrap();
    idle().await;
    assert_eq!(
        waiting.load(Relaxed),
        16,
        "eight answers, eight more places"
    );
    (0..1000).for_each(|_| read(SMALL));
    idle().await;
    assert_eq!(waiting.load(Relaxed), 16 + 128, "they have their own bound");
}

#[tokio::test(start_paused = true)]
async fn all_that_waited_for_a_place_are_answered_in_the_end() {
    let (client, handle, waiting) = holding().await;
    let reads = join_all((0..200).map(|offset| client.read(&handle, offset, LARGE)));
    let release = async {
        loop {
            idle().await;
            if waiting.load(Relaxed) == 0 {
                return;
            }
            client.lstat(text("f")).await.unwrap();
        }
    };
    let (answers, ()) = tokio::join!(reads, release);
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn reading_ahead_leaves_a_place_for_one_who_waits() {
    let (client, handle, waiting) = holding().await;
    let ahead: Vec<_> = (0..100)
        .map_while(|at| client.read_ahead(&handle, at, LARGE))
        .collect();
    assert!(ahead.len() < 8, "{}", ahead.len());
    let mut read = Box::pin(client.read(&handle, 0, LARGE));
    assert!(read.as_mut().now_or_never().is_none());
    idle().await;
    assert_eq!(waiting.load(Relaxed), ahead.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_gave_up_keeps_its_place_until_its_answer_comes() {
    let (client, handle, waiting) = holding().await;
    for at in 0..20 {
        assert!(
            client.read(&handle, at, LARGE).now_or_never().is_none(),
            "given up at once"
        );
    }
    idle().await;
    assert_eq!(waiting.load(Relaxed), 8);
    client.lstat(text("f")).await.unwrap();
    idle().await;
    let reads = (0..30).map(|at| client.read(&handle, at, LARGE).now_or_never());
    assert!(reads.into_iter().all(|answer| answer.is_none()));
    idle().await;
    assert_eq!(
        waiting.load(Relaxed),
        16,
        "places of answered reads are free again"
    );
}

#[tokio::test]
async fn requests_of_one_caller_leave_in_order() {
    let (server, client) = without(&[]).await;
    server.tree(|tree| tree.put(b"f", b""));
    let handle = client
        .open(text("f"), OpenFlags::WRITE, Attrs::default())
        .await
        .unwrap();
    server.take_requests();
    let made = client.mkdir(text("d"), Attrs::default());
    let seen = client.lstat(text("d"));
    let first = client.write(&handle, 0, text("a")).await;
    let second = client.write(&handle, 0, text("b")).await;
    let size = client.fstat(&handle);
    let gone = client.rmdir(text("d"));
    drop(handle);
    // Waited for in another order than asked.
    gone.await.unwrap();
    second.await.unwrap();
    first.await.unwrap();
    assert_eq!(size.await.unwrap().size, Some(1));
    assert!(seen.await.is_ok());
    made.await.unwrap();
    let content = server.tree(|tree| tree.content(b"f"));
    assert_eq!(content, Some(Bytes::from_static(b"b")));
    let asked = server.take_requests();
    assert!(
        matches!(
            asked[..],
            [
                Request::Mkdir { .. },
                Request::Lstat { .. },
                Request::Write { .. },
                Request::Write { .. },
                Request::Fstat { .. },
                Request::Rmdir { .. },
                Request::Close { .. }
            ]
        ),
        "{asked:?}"
    );
}
