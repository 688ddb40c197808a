//! Reading, and what is answered from memory.

use std::collections::HashMap;

use futures_util::FutureExt;

use super::*;
use crate::clock;
use crate::fs::Patience;

const KIB: usize = 1 << 10;

#[tokio::test]
async fn a_read_error_is_never_an_end_of_file() {
    let content = pattern(1 << 20);
    let (server, fs) = mount(&[("f", &content)]).await;
    let bad = 512 * KIB as u64;
    server.intercept(move |request| match request {
        Request::Read { offset, len, .. } if offset + u64::from(*len) > bad => {
            Some(status(StatusCode::FAILURE))
        }
        _ => None,
    });
    let fh = open(&fs, "f", READ).await;
    assert_eq!(
        fs.read(fh, 0, 100 << 10).await.unwrap(),
        content[..100 * KIB]
    );
    for (offset, len) in [
        (bad - 10, 20),
        (bad, 4096),
        (bad + 300_000, 128 << 10),
        (0, 1 << 20),
    ] {
        assert_eq!(
            fs.read(fh, offset, len).await,
            refused(Errno::EIO),
            "{len} at {offset}"
        );
    }
    server.intercept(|_| None);
    assert_eq!(
        fs.read(fh, 0, 1 << 20).await.unwrap(),
        content,
        "once it is whole again"
    );
}

#[tokio::test]
async fn an_error_behind_a_short_answer_is_told_too() {
    let content = pattern(100 * KIB);
    let (server, fs) = mount(&[("f", &content)]).await;
    server.intercept(|request| match request {
        Request::Read { offset: 0, .. } => Some(Response::Data(text("short"))),
        Request::Read { .. } => Some(status(StatusCode::FAILURE)),
        _ => None,
    });
    let fh = open(&fs, "f", READ).await;
    assert_eq!(fs.read(fh, 0, 4096).await, refused(Errno::EIO));
}

#[tokio::test]
async fn a_short_answer_is_not_the_end_of_the_file() {
    let content = pattern(200 * KIB);
    let options = Options {
        read_max: 777,
        ..Options::default()
    };
    let (_server, fs) = mount_with(options, Config::default(), &[("f", &content)]).await;
    let fh = open(&fs, "f", READ).await;
    assert_eq!(
        fs.read(fh, 0, 100 << 10).await.unwrap(),
        content[..100 * KIB]
    );
    assert_eq!(fs.read(fh, 5000, 1 << 20).await.unwrap(), content[5000..]);
    assert_eq!(fs.read(fh, 200 << 10, 4096).await.unwrap(), "");
}

#[tokio::test]
async fn an_end_that_comes_early_ends_the_answer() {
    let (server, fs) = mount(&[("f", &pattern(200 * KIB))]).await;
    let fh = open(&fs, "f", READ).await;
    server.tree(|tree| tree.truncate(b"f", 1000)).unwrap();
    assert_eq!(fs.read(fh, 0, 4096).await.unwrap(), pattern(1000));
}

#[tokio::test]
async fn sequential_readers_ask_for_no_byte_twice_and_for_none_behind_the_end() {
    let content = pattern(3_000_000);
    let (server, fs) = mount(&[("f", &content)]).await;
    let readers = [open(&fs, "f", READ).await, open(&fs, "f", READ).await];
    for offset in (0..3_000_000_u64).step_by(128 * KIB) {
        for fh in readers {
            let data = fs.read(fh, offset, 128 << 10).await.unwrap();
            let start = usize::try_from(offset).unwrap();
            assert!(data == content[start..content.len().min(start + 128 * KIB)]);
        }
    }
    let mut asked: HashMap<_, Vec<_>> = HashMap::new();
    for request in server.take_requests() {
        if let Request::Read {
            handle,
            offset,
            len,
        } = request
        {
            asked
                .entry(handle)
                .or_default()
                .push((offset, offset + u64::from(len)));
        }
    }
    assert_eq!(asked.len(), 2);
    for ranges in asked.values_mut() {
        ranges.sort_unstable();
        assert!(
            ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{ranges:?}"
        );
        // One to see that the file has not grown, since the last read wants more than there is.
        assert!(
            ranges.iter().filter(|range| range.1 > 3_000_000).count() <= 1,
            "{ranges:?}"
        );
    }
}

#[tokio::test]
async fn what_is_known_is_told_while_other_questions_wait_for_ever() {
    let fs = scripted(Config::default(), |request| match request {
        Request::Lstat { path } if path != "/srv/known" => Some(Reply::Silence),
        Request::Read { .. } => Some(Reply::Silence),
        _ => None,
    })
    .await;
    let ino = look_up(&fs, "known").await;
    let fh = fs.open(ino, READ, false).await.unwrap().fh;
    let mut lookup = Box::pin(fs.lookup(Ino::ROOT, b"other"));
    let mut read = Box::pin(fs.read(fh, 0, 10));
    assert!(lookup.as_mut().now_or_never().is_none());
    assert!(read.as_mut().now_or_never().is_none());
    let entry = fs
        .lookup(Ino::ROOT, b"known")
        .now_or_never()
        .expect("known")
        .unwrap();
    assert_eq!(entry.ino, ino);
    assert!(fs.getattr(ino).now_or_never().expect("known").is_ok());
    fs.forget(ino, 1);
}

#[tokio::test]
async fn a_file_without_a_name_is_read_and_written_on_while_it_is_open() {
    let (server, fs) = mount(&[("f", b"content")]).await;
    let ino = look_up(&fs, "f").await;
    let fh = fs.open(ino, WRITE, false).await.unwrap().fh;
    fs.unlink(Ino::ROOT, b"f").await.unwrap();
    assert_eq!(fs.read(fh, 0, 100).await.unwrap(), "content");
    write(&fs, fh, 7, b" and more").await.unwrap();
    assert_eq!(fs.flush(fh).await, Ok(()));
    let known = fs.getattr(ino).await.unwrap();
    assert_eq!((known.attr.size, known.links), (16, 0));
    let all = server.tree(|tree| tree.count());
    fs.release(fh);
    assert!(fs.lookup(Ino::ROOT, b"f").await.is_err());
    assert_eq!(server.tree(|tree| tree.count()), all - 1);
}

#[tokio::test]
async fn a_lost_connection_fails_what_needs_it_and_keeps_nobody_waiting() {
    let (server, fs) = mount(&[("f", b"content")]).await;
    let fh = open(&fs, "f", WRITE).await;
    write(&fs, fh, 0, b"lost").await.unwrap();
    server.hang_up();
    assert!(
        fs.flush(fh).await.is_err(),
        "what is not written must be told"
    );
    assert!(fs.read(fh, 0, 10).await.is_err());
    let error = fs.lookup(Ino::ROOT, b"other").await.unwrap_err();
    assert_eq!(error, Error::Errno(Errno::EIO));
    fs.release(fh);
    let patience = Patience {
        all: Duration::from_secs(3600),
        since: clock::of_timers(),
    };
    assert_eq!(fs.shut_down(patience, || false).await, Ok(()));
}

/// What was asked of the server's content since the last time, in order.
fn reads_of(server: &Server) -> Vec<std::ops::Range<u64>> {
    let requests = server.take_requests().into_iter();
    let reads = requests.filter_map(|request| match request {
        Request::Read { offset, len, .. } => Some(offset..offset + u64::from(len)),
        _ => None,
    });
    reads.collect()
}

#[tokio::test]
async fn what_a_program_waits_for_is_asked_for_before_what_it_may_want_next() {
    let (server, fs) = mount(&[("f", &pattern(3_000_000))]).await;
    let fh = open(&fs, "f", READ).await;
    server.take_requests();
    fs.read(fh, 0, 512 << 10).await.unwrap();
    idle().await;
    let asked = reads_of(&server);
    assert!(asked.len() > 3, "{asked:?}");
    assert!(asked.is_sorted_by_key(|range| range.start), "{asked:?}");
}

#[tokio::test]
async fn what_there_was_no_room_for_is_asked_for_when_answers_come_though_nobody_reads() {
    let (server, fs) = mount(&[("f", &pattern(3_000_000))]).await;
    let fh = open(&fs, "f", READ).await;
    server.take_requests();
    // It takes most of the places that a connection has at first.
    fs.read(fh, 0, 1 << 20).await.unwrap();
    idle().await;
    let asked = reads_of(&server);
    let to = asked.iter().map(|range| range.end).max().unwrap();
    assert!(
        to > (2 << 20) - (255 << 10),
        "as much ahead as was read: {asked:?}"
    );
    fs.release(fh);
    idle().await;
    assert!(reads_of(&server).is_empty());
}

#[tokio::test]
async fn of_what_lies_between_the_columns_of_a_table_nothing_is_asked_for() {
    let content = pattern(4_000_000);
    let (server, fs) = mount(&[("f", &content)]).await;
    let fh = open(&fs, "f", READ).await;
    server.take_requests();
    let (row, columns, len) = (100_000, [1_000, 50_000], 4096);
    for start in (row..4_000_000).step_by(row) {
        for column in columns {
            let data = fs.read(fh, (start + column) as u64, 4096).await.unwrap();
            assert!(data == content[start + column..][..len]);
        }
    }
    idle().await;
    let mut asked = reads_of(&server);
    assert_eq!(asked.len(), 39 * 2);
    asked.sort_by_key(|range| range.start);
    for pair in asked.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:?}");
    }
    let bytes: u64 = asked.iter().map(|range| range.end - range.start).sum();
    assert_eq!(bytes, 39 * 2 * len as u64);
}

#[tokio::test]
async fn threads_that_read_parts_of_one_file_get_their_data_and_no_byte_twice() {
    // So far apart that what is read ahead of one is nothing that another has read.
    let content = pattern(20_000_000);
    let (server, fs) = mount(&[("f", &content)]).await;
    let fh = open(&fs, "f", READ).await;
    server.take_requests();
    for offset in (0..2_000_000).step_by(50_000) {
        for part in [0, 6_000_000, 12_000_000, 18_000_000] {
            let data = fs.read(fh, part + offset, 50_000).await.unwrap();
            let start = usize::try_from(part + offset).unwrap();
            assert!(data == content[start..][..50_000], "at {start}");
        }
    }
    idle().await;
    let mut asked = reads_of(&server);
    asked.sort_by_key(|range| range.start);
    for pair in asked.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:?}");
    }
}
