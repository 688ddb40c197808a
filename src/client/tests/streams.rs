//! Copies through the client.

use std::sync::Arc;

use super::bench::{Bench, MIB, WRITE, assert_content, pattern, span, whole};
use super::{client_of, text};
use crate::sftp::{Attrs, Request, StatusCode};
use crate::testing::{Options, status};

#[tokio::test]
async fn a_stream_brings_answers_in_any_order_and_of_any_length_into_theirs() {
    let data = pattern(3 * MIB + 11, 16);
    for read_max in [261_120, 10_000] {
        let options = Options {
            read_max,
            shuffle: Some(17),
            ..Options::default()
        };
        let bench = Bench::in_memory(options, false).await;
        bench.put("s", &data);
        let (from, to) = bench.ends("s", "t").await;
        let other = client_of(bench.server()).await;
        let far = other
            .open(text("u"), WRITE, Attrs::default())
            .await
            .unwrap();
        for (target, path) in [(&to.handle, "t"), (&far, "u")] {
            let mut heard = Vec::new();
            let go_on = |some| {
                heard.push(some);
                true
            };
            let span = span(5, 9, 1 << 40);
            let copied = bench.client.stream(&from.handle, target, span, go_on).await;
            assert_eq!(copied, Ok(data.len() as u64 - 5));
            assert!(heard.is_sorted(), "{heard:?}");
            let expected = [&[0; 9][..], &data[5..]].concat();
            assert_content(&bench.content(path), &expected, path);
        }
    }
}

#[tokio::test]
async fn a_stream_that_fails_in_the_middle_says_how_far_it_came_and_leaves_nothing_behind_that() {
    let data = pattern(3 * MIB, 17);
    for fails_at in [0, 261_120, 5 * 261_120] {
        let bench = Bench::in_memory(Options::default(), false).await;
        bench.put("s", &data);
        let (from, to) = bench.ends("s", "t").await;
        bench.server().intercept(move |request| match request {
            Request::Write { offset, .. } if *offset == fails_at => {
                Some(status(StatusCode::FAILURE))
            }
            _ => None,
        });
        let stream = bench
            .client
            .stream(&from.handle, &to.handle, whole(3 * MIB), |_| true);
        match stream.await {
            Ok(copied) => assert_eq!(copied, fails_at),
            Err(error) => assert!(fails_at == 0 && error.is_refused_with(StatusCode::FAILURE)),
        }
        let there = usize::try_from(fails_at).unwrap();
        assert_content(&bench.content("t"), &data[..there], "what is there");
    }
}

#[tokio::test]
async fn a_stream_that_is_told_to_stop_asks_for_no_more() {
    let bench = Bench::in_memory(Options::default(), false).await;
    let data = pattern(30 * MIB, 18);
    bench.put("s", &data);
    let (from, to) = bench.ends("s", "t").await;
    let stream = bench
        .client
        .stream(&from.handle, &to.handle, whole(30 * MIB), |_| false);
    let copied = usize::try_from(stream.await.unwrap()).unwrap();
    assert!(copied > 0 && copied as u64 <= 4 * MIB, "{copied}");
    assert_content(&bench.content("t"), &data[..copied], "what is there");
}

#[tokio::test]
async fn a_stream_can_be_spawned() {
    let bench = Arc::new(Bench::in_memory(Options::default(), false).await);
    bench.put("s", b"content");
    let ends = bench.ends("s", "t").await;
    let stream = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move {
            let (from, to) = (&ends.0.handle, &ends.1.handle);
            bench.client.stream(from, to, whole(100), |_| true).await
        }
    });
    assert_eq!(stream.await.unwrap(), Ok(7));
    assert_content(&bench.content("t"), b"content", "the copy");
}
