//! Copies on the server, over the server in memory and over OpenSSH's, each with one connection and
//! with one more for copies.

use std::fs;

use proptest::prelude::*;

use super::bench::{Bench, KIB, MIB, assert_content, expected, pattern, span, whole};
use super::without;
use crate::client::{CopyData, Span};
use crate::sftp::{Request, StatusCode};
use crate::testing::{OPENSSH, Options, status};

#[tokio::test]
async fn a_new_file_is_what_the_source_is_whatever_its_size() {
    let sizes = [
        1,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        MIB - 1,
        MIB,
        MIB + 1,
        8 * MIB + 4 * KIB,
        9 * MIB + 3,
    ];
    for bench in Bench::all().await {
        for size in sizes {
            let data = pattern(size, size);
            bench.put("s", &data);
            let target = format!("t{size}");
            let (from, to) = bench.ends("s", &target).await;
            // As the kernel asks: for more than there is.
            let copied = bench
                .client
                .copy_data(&from, &to, whole(1 << 40), |_| true)
                .await;
            assert_eq!(copied, Ok(CopyData::Copied(size)), "{size}, {}", bench.name);
            assert_content(&bench.content(&target), &data, bench.name);
            assert_content(&bench.content("s"), &data, bench.name);
        }
    }
}

#[tokio::test]
async fn a_file_that_says_it_is_empty_is_read_to_make_sure() {
    let bench = Bench::openssh(&[OPENSSH], false).await;
    let (from, to) = bench.ends("/proc/version", "t").await;
    let copied = bench
        .client
        .copy_data(&from, &to, whole(1 << 40), |_| true)
        .await;
    assert_eq!(copied, Ok(CopyData::Unable(0)));
    bench.copy_all(&(from, to), whole(1 << 40)).await.1.unwrap();
    let expected = fs::read("/proc/version").unwrap();
    assert_content(&bench.content("t"), &expected, "a file of /proc");
    for bench in Bench::all().await {
        bench.put("s", b"");
        bench.put("t", b"kept");
        let ends = bench.ends("s", "t").await;
        assert_eq!(bench.copy_all(&ends, whole(100)).await, (0, Ok(())));
        assert_content(&bench.content("t"), b"kept", bench.name);
    }
}

#[tokio::test]
async fn a_range_lands_where_it_should_and_nothing_else_moves() {
    let (source, target) = (pattern(3 * MIB + 7, 1), pattern(2 * MIB + 100_000, 2));
    for bench in Bench::all().await {
        bench.put("s", &source);
        for span in [
            span(0, 0, 100),
            span(0, 0, 64 * KIB),
            span(5, 7, 64 * KIB + 1),
            span(64 * KIB, 0, 2 * MIB),
            span(0, 2 * MIB, 3 * MIB),
            span(0, 2 * MIB + 100_000, 3 * MIB + 7),
            span(1, 5 * MIB, 70_000),
            span(3 * MIB, 10, 64 * KIB),
            span(3 * MIB + 7, 0, 10),
            span(9 * MIB, 0, 10),
            span(10, 20, u64::MAX),
            span(u64::MAX, 0, 10),
            span(0, 100_000, 3 * MIB + 7),
        ] {
            bench.put("t", &target);
            let ends = bench.ends("s", "t").await;
            let there = (source.len() as u64)
                .saturating_sub(span.source_offset)
                .min(span.len);
            let what = format!("{span:?}, {}", bench.name);
            assert_eq!(bench.copy_all(&ends, span).await, (there, Ok(())), "{what}");
            assert_content(
                &bench.content("t"),
                &expected(&source, &target, span),
                &what,
            );
        }
        assert_content(&bench.content("s"), &source, bench.name);
    }
}

#[tokio::test]
async fn holes_are_copied_as_what_they_read_as() {
    for has_lane in [false, true] {
        let bench = Bench::openssh(&[OPENSSH], has_lane).await;
        bench.put("s", b"begin");
        let file = fs::File::options()
            .write(true)
            .open(bench.on_disk("s"))
            .unwrap();
        file.set_len(20 * MIB).unwrap();
        let ends = bench.ends("s", "t").await;
        assert_eq!(
            bench.copy_all(&ends, whole(20 * MIB)).await,
            (20 * MIB, Ok(()))
        );
        assert_content(&bench.content("t"), &bench.content("s"), bench.name);
    }
}

#[tokio::test]
async fn one_file_under_two_names_is_never_copied_by_the_server() {
    let data = pattern(3 * MIB, 4);
    for has_lane in [false, true] {
        let bench = Bench::in_memory(Options::default(), has_lane).await;
        bench.put("s", &data);
        bench.server().tree(|tree| tree.link(b"s", b"t")).unwrap();
        let ends = bench.ends("s", "t").await;
        for span in [
            whole(3 * MIB),
            span(0, 3 * MIB, 1 << 40),
            span(10, MIB, 100_000),
        ] {
            bench.server().take_requests();
            let copied = bench
                .client
                .copy_data(&ends.0, &ends.1, span, |_| true)
                .await;
            assert_eq!(copied, Ok(CopyData::Unable(0)), "{span:?}");
            assert_eq!(bench.asked_of_the_server(), (0, 0), "{span:?}");
        }
        assert_content(&bench.content("s"), &data, bench.name);
    }
}

#[tokio::test]
async fn files_that_look_the_same_are_streamed() {
    let bench = Bench::in_memory(Options::default(), true).await;
    bench.put("s", &pattern(2 * MIB, 5));
    bench.put("t", &pattern(2 * MIB, 6));
    let ends = bench.ends("s", "t").await;
    assert_eq!(
        bench.copy_all(&ends, whole(2 * MIB)).await,
        (2 * MIB, Ok(()))
    );
    assert_eq!(bench.asked_of_the_server(), (0, 0));
    assert_content(&bench.content("t"), &pattern(2 * MIB, 5), bench.name);
}

/// A letter for what is asked.
fn kind(request: &Request) -> char {
    match request {
        Request::Fstat { .. } => 'f',
        Request::CopyData { .. } => 'c',
        _ => '?',
    }
}

#[tokio::test]
async fn a_small_copy_is_five_requests_in_two_round_trips() {
    let bench = Bench::in_memory(Options::default(), false).await;
    bench.put("s", &pattern(100_000, 7));
    let (from, to) = bench.ends("s", "t").await;
    bench.server().take_requests();
    let copied = bench
        .client
        .copy_data(&from, &to, whole(1 << 40), |_| true)
        .await;
    assert_eq!(copied, Ok(CopyData::Copied(100_000)));
    // Whatever else was sent is answered before this.
    bench.client.fstat(&to.handle).await.unwrap();
    let kinds: String = bench.server().take_requests().iter().map(kind).collect();
    assert_eq!(kinds, "fffcff");
}

#[tokio::test]
async fn a_large_copy_sends_next_to_nothing_through_the_client_and_copies_nothing_twice() {
    let bench = Bench::in_memory(Options::default(), true).await;
    let size = 30 * MIB + 1;
    bench.put("s", &pattern(size, 8));
    let (from, to) = bench.ends("s", "t").await;
    bench.server().take_requests();
    let copied = bench
        .client
        .copy_data(&from, &to, whole(size), |_| true)
        .await;
    assert_eq!(copied, Ok(CopyData::Copied(size)));
    let (mut by_the_server, mut written) = (0, 0);
    for request in bench.server().take_requests() {
        match request {
            Request::CopyData { len, .. } => by_the_server += len,
            Request::Write { data, .. } => written += data.len() as u64,
            _ => {}
        }
    }
    assert_eq!(by_the_server + written, size);
    assert!(written <= 4 * KIB, "{written}");
}

#[tokio::test]
async fn a_copy_that_is_told_to_stop_stops_within_two_pieces_and_goes_on_later() {
    let bench = Bench::in_memory(Options::default(), true).await;
    let size = 60 * MIB;
    let data = pattern(size, 9);
    bench.put("s", &data);
    let (from, to) = bench.ends("s", "t").await;
    let mut heard = Vec::new();
    let stop = |some| {
        heard.push(some);
        false
    };
    let copied = bench.client.copy_data(&from, &to, whole(size), stop).await;
    let Ok(CopyData::Copied(some)) = copied else {
        panic!("{copied:?}")
    };
    assert_eq!(heard.len(), 1);
    assert!(heard[0] <= some && some < size, "{heard:?} {some}");
    assert!(bench.asked_of_the_server().0 <= 2);
    let there = bench.content("t");
    assert_content(&there, &data[..usize::try_from(some).unwrap()], "the part");
    let rest = whole(size).after(some);
    let copied = bench.client.copy_data(&from, &to, rest, |_| true).await;
    assert_eq!(copied, Ok(CopyData::Copied(rest.len)));
    let requests = bench.server().take_requests();
    let first: String = requests.iter().take(4).map(kind).collect();
    assert_eq!(first, "fffc", "all is open already: one look, and on");
    assert_content(&bench.content("t"), &data, "the whole");
}

#[tokio::test]
async fn a_server_that_will_not_copy_is_asked_once() {
    for code in [StatusCode::OP_UNSUPPORTED, StatusCode::PERMISSION_DENIED] {
        let bench = Bench::in_memory(Options::default(), false).await;
        bench.server().intercept(move |request| {
            matches!(request, Request::CopyData { .. }).then(|| status(code))
        });
        bench.put("s", &pattern(200_000, 13));
        let (from, to) = bench.ends("s", "t").await;
        for asked in [1, 0] {
            bench.server().take_requests();
            let copied = bench
                .client
                .copy_data(&from, &to, whole(200_000), |_| true)
                .await;
            assert_eq!(copied, Ok(CopyData::Unable(0)));
            assert_eq!(bench.asked_of_the_server().0, asked);
        }
    }
}

#[tokio::test]
async fn a_server_without_the_extension_is_not_asked() {
    let (server, client) = without(&["copy-data"]).await;
    server.tree(|tree| tree.put(b"s", b"content"));
    let bench = Bench::over(client, server, "without copy-data");
    let (from, to) = bench.ends("s", "t").await;
    bench.server().take_requests();
    let copied = bench.client.copy_data(&from, &to, whole(7), |_| true).await;
    assert_eq!(copied, Ok(CopyData::Unable(0)));
    assert_eq!(bench.server().take_requests(), []);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_copy_is_what_it_should_be_or_less_and_says_so(
        sizes in (0..3 * MIB, 0..3 * MIB),
        offsets in (0..2 * MIB, 0..2 * MIB),
        len in 0..3 * MIB,
        room in prop::option::of(0..3 * MIB),
        has_lane: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::in_memory(Options::default(), has_lane).await;
            let (source, target) = (pattern(sizes.0, 19), pattern(sizes.1, 20));
            bench.put("s", &source);
            bench.put("t", &target);
            let quota = room.map(|room| sizes.0 + sizes.1 + room);
            bench.server().tree(|tree| tree.quota = quota);
            let span = span(offsets.0, offsets.1, len);
            let ends = bench.ends("s", "t").await;
            let (copied, result) = bench.copy_all(&ends, span).await;
            let there = sizes.0.saturating_sub(offsets.0).min(len);
            assert!(result.is_err() && copied < there || copied == there, "{copied} {result:?}");
            assert!(room.is_some() || result.is_ok());
            let part = Span { len: copied, ..span };
            let found = bench.content("t");
            let expected = expected(&source, &target, part);
            // What was there before and not replaced for certain may be old or new.
            let certain = usize::try_from(offsets.1 + copied).unwrap();
            assert!(found.len() >= expected.len());
            let certain = if result.is_ok() { expected.len() } else { certain.min(expected.len()) };
            assert_content(&found[..certain], &expected[..certain], "what is certain");
            assert!(result.is_err() || found.len() == expected.len());
            assert_content(&bench.content("s"), &source, "the source");
        });
    }
}
