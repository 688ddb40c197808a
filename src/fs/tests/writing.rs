//! Writing: order, merging, and errors that come late.

use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;

use super::*;
use crate::clock;
use crate::fs::Patience;

/// A server that holds its answers to WRITE until a directory is opened; and what was written.
async fn holding(config: Config) -> (Arc<Filesystem>, Arc<Mutex<Vec<(u64, usize)>>>) {
    let writes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let fs = scripted(config, move |request| match request {
        Request::Write { offset, data, .. } => {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((*offset, data.len()));
            Some(Reply::Hold(status(StatusCode::OK)))
        }
        Request::Opendir { .. } => Some(Reply::ThenHeld(Response::Handle(text("d")))),
        // So that it is asked for each time.
        Request::Readdir { .. } => Some(Reply::Answer(status(StatusCode::FAILURE))),
        _ => None,
    })
    .await;
    (fs, writes)
}

async fn answer(fs: &Filesystem) {
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    fs.releasedir(fh);
}

#[tokio::test(start_paused = true)]
async fn writes_that_follow_each_other_arrive_merged_and_in_order() {
    let (fs, writes) = holding(Config::default()).await;
    let fh = open(&fs, "f", WRITE).await;
    let data = [7; 4096];
    for n in 0..1000 {
        write(&fs, fh, n * 4096, &data).await.unwrap();
    }
    let mut flush = Box::pin(fs.flush(fh));
    while flush.as_mut().now_or_never().is_none() {
        idle().await;
        answer(&fs).await;
    }
    let writes = writes.lock().unwrap();
    let mut end = 0;
    for (offset, len) in &*writes {
        assert_eq!(*offset, end);
        end += *len as u64;
    }
    assert_eq!(end, 4_096_000);
    // This server takes 32 KiB; the first write may go alone, since nothing is on its way.
    assert!(writes.len() <= 126, "{}", writes.len());
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_when_too_much_is_unwritten_and_goes_on_when_it_is_not() {
    let config = Config {
        write_behind_max: 16_000,
        ..Config::default()
    };
    let (fs, writes) = holding(config).await;
    let fh = open(&fs, "f", WRITE).await;
    for n in 0..2 {
        write(&fs, fh, n * 4096, &[7; 4096]).await.unwrap();
    }
    let mut third = Box::pin(write(&fs, fh, 8192, &[7; 4096]));
    assert!(
        third.as_mut().now_or_never().is_none(),
        "12 KiB are more than three quarters"
    );
    idle().await;
    answer(&fs).await;
    assert_eq!(third.await, Ok(()));
    let mut flush = Box::pin(fs.flush(fh));
    while flush.as_mut().now_or_never().is_none() {
        idle().await;
        answer(&fs).await;
    }
    assert_eq!(
        writes
            .lock()
            .unwrap()
            .iter()
            .map(|(_, len)| len)
            .sum::<usize>(),
        3 * 4096
    );
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_leaves_others_a_quarter() {
    let config = Config {
        write_behind_max: 16_000,
        ..Config::default()
    };
    let (fs, _writes) = holding(config).await;
    let fh = open(&fs, "f", WRITE).await;
    write(&fs, fh, 0, &[7; 12_000]).await.unwrap();
    let mut waits = Box::pin(write(&fs, fh, 12_000, &[7; 4000]));
    assert!(waits.as_mut().now_or_never().is_none());
    let other = open(&fs, "g", WRITE).await;
    let written = write(&fs, other, 0, &[7; 4000]).now_or_never();
    assert_eq!(written, Some(Ok(())));
    idle().await;
    answer(&fs).await;
    assert_eq!(waits.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_shut_down_without_answers_gives_up_and_says_what_is_lost() {
    let (fs, _writes) = holding(Config::default()).await;
    let fh = open(&fs, "f", WRITE).await;
    write(&fs, fh, 0, &[7; 4096]).await.unwrap();
    let (start, patience) = (tokio::time::Instant::now(), patience());
    let error = fs.shut_down(patience, || false).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("4096 bytes could not be written"),
        "{text}"
    );
    assert!(
        text.contains("(the server does not answer): 4096 of \""),
        "{text}"
    );
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_shut_down_in_a_hurry_waits_for_nothing() {
    let (fs, _writes) = holding(Config::default()).await;
    let fh = open(&fs, "f", WRITE).await;
    write(&fs, fh, 0, &[7; 4096]).await.unwrap();
    let start = tokio::time::Instant::now();
    let error = fs.shut_down(patience(), || true).await.unwrap_err();
    assert!(error.to_string().contains("4096 bytes"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

fn patience() -> Patience {
    Patience {
        all: Duration::from_secs(75),
        since: clock::of_timers(),
    }
}

/// Makes the first WRITE fail; all later ones are the server's.
fn fail_once(server: &Server) {
    let mut failed = false;
    server.intercept(move |request| {
        let fails = matches!(request, Request::Write { .. }) && !failed;
        failed |= fails;
        fails.then(|| status(StatusCode::FAILURE))
    });
}

#[tokio::test]
async fn a_failed_write_is_told_once_to_each_open_at_its_next_write_fsync_or_close() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let opens = [
        open(&fs, "f", WRITE).await,
        open(&fs, "f", WRITE).await,
        open(&fs, "f", WRITE).await,
    ];
    fail_once(&server);
    // Nothing is free: this is why.
    server.tree(|tree| tree.quota = Some(0));
    assert_eq!(write(&fs, opens[0], 0, b"lost").await, Ok(()));
    assert_eq!(fs.flush(opens[0]).await, refused(Errno::ENOSPC));
    server.tree(|tree| tree.quota = None);
    assert_eq!(fs.flush(opens[0]).await, Ok(()), "told already");
    assert_eq!(fs.fsync(opens[1]).await, refused(Errno::ENOSPC));
    assert_eq!(fs.fsync(opens[1]).await, Ok(()));
    assert_eq!(write(&fs, opens[2], 0, b"x").await, refused(Errno::ENOSPC));
    assert_eq!(write(&fs, opens[2], 0, b"y").await, Ok(()));
    assert_eq!(fs.flush(opens[2]).await, Ok(()));
    let later = open(&fs, "f", WRITE).await;
    assert_eq!(fs.flush(later).await, Ok(()), "was not open when it failed");
    assert_eq!(server.tree(|tree| tree.content(b"f")), Some(text("y")));
}

#[tokio::test]
async fn a_failed_write_on_a_server_with_room_is_an_input_output_error() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let fh = open(&fs, "f", WRITE).await;
    fail_once(&server);
    assert_eq!(write(&fs, fh, 0, b"lost").await, Ok(()));
    assert_eq!(fs.flush(fh).await, refused(Errno::EIO));
}

#[tokio::test]
async fn a_disk_that_fills_up_among_many_writes_is_told() {
    let (server, fs) = mount(&[("f", b"")]).await;
    server.tree(|tree| tree.quota = Some(1 << 20));
    let fh = open(&fs, "f", WRITE).await;
    let mut told = Ok(());
    for n in 0..64 {
        told = told.and(write(&fs, fh, n << 16, &[7; 1 << 16]).await);
    }
    told = told.and(fs.flush(fh).await);
    assert_eq!(told, refused(Errno::ENOSPC));
}

#[tokio::test]
async fn a_synchronous_write_is_on_the_disk_when_it_returns() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let fh = open(
        &fs,
        "f",
        Access {
            sync: true,
            ..WRITE
        },
    )
    .await;
    server.take_requests();
    write(&fs, fh, 0, b"there").await.unwrap();
    assert_eq!(server.tree(|tree| tree.content(b"f")), Some(text("there")));
    let asked = server.take_requests();
    assert!(
        matches!(asked[..], [Request::Write { .. }, Request::Fsync { .. }]),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_synchronous_write_that_fails_is_told_at_once() {
    let (server, fs) = mount(&[("f", b"")]).await;
    let fh = open(
        &fs,
        "f",
        Access {
            sync: true,
            ..WRITE
        },
    )
    .await;
    fail_once(&server);
    assert_eq!(write(&fs, fh, 0, b"lost").await, refused(Errno::EIO));
    assert_eq!(fs.flush(fh).await, Ok(()), "told already");
}

#[tokio::test]
async fn pages_written_back_through_an_appending_open_take_one_more_handle_at_most() {
    let (server, fs) = mount(&[("f", &[1; 10_000])]).await;
    let fh = open(
        &fs,
        "f",
        Access {
            append: true,
            ..WRITE
        },
    )
    .await;
    server.take_requests();
    for page in [1, 0] {
        write(&fs, fh, page * 4096, &[2; 4096]).await.unwrap();
        assert_eq!(fs.flush(fh).await, Ok(()));
    }
    let content = server.tree(|tree| tree.content(b"f")).unwrap();
    assert_eq!(content, [vec![2; 8192], vec![1; 10_000 - 8192]].concat());
    fs.release(fh);
    // Answered after the CLOSEs, for which nobody waits.
    fs.statfs(Ino::ROOT).await.unwrap();
    let asked = server.take_requests();
    let count = |is: fn(&Request) -> bool| asked.iter().filter(|request| is(request)).count();
    assert_eq!(count(|request| matches!(request, Request::Open { .. })), 1);
    assert_eq!(count(|request| matches!(request, Request::Close { .. })), 2);
}
