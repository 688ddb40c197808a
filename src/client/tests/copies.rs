//! Copies on the server and through the client, over the server in memory and over OpenSSH's, each
//! with one connection and with one more for copies.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::{client_of, idle, link, text, without};
use crate::client::{Client, CopyData, CopyEnd, Span};
use crate::error::Result;
use crate::sftp::{Attrs, OpenFlags, Request, Response, StatusCode};
use crate::testing::{OPENSSH, Options, Program, Reply, Server, script, status};
use crate::transport::{Diagnosis, Link};

const WRITE: OpenFlags = OpenFlags(OpenFlags::WRITE.0 | OpenFlags::CREAT.0);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A server, a client of it, and the files on it.
struct Bench {
    client: Client,
    files: Files,
    name: &'static str,
}

enum Files {
    Memory(Server),
    Disk(tempfile::TempDir, Vec<Program>),
}

impl Bench {
    async fn in_memory(options: Options, has_lane: bool) -> Self {
        let server = Server::new(options);
        let client = match has_lane {
            true => Client::over_two(server.link(), server.link()).await,
            false => Client::over(server.link()).await,
        };
        let name = if has_lane {
            "in memory, two"
        } else {
            "in memory"
        };
        let client = client.unwrap();
        server.take_requests();
        let files = Files::Memory(server);
        Self {
            client,
            files,
            name,
        }
    }

    async fn openssh(command: &[&str], has_lane: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut programs = Vec::new();
        let mut run = || {
            let (program, stream) = Program::run(command, directory.path())
                .expect("this test needs the package openssh-sftp-server");
            programs.push(program);
            Link {
                stream: Box::new(stream),
                peer: "OpenSSH".into(),
                diagnosis: Diagnosis::default(),
            }
        };
        let client = match has_lane {
            true => Client::over_two(run(), run()).await,
            false => Client::over(run()).await,
        };
        let name = if has_lane { "OpenSSH, two" } else { "OpenSSH" };
        let client = client.unwrap();
        let files = Files::Disk(directory, programs);
        Self {
            client,
            files,
            name,
        }
    }

    async fn all() -> [Self; 4] {
        [
            Self::in_memory(Options::default(), false).await,
            Self::in_memory(Options::default(), true).await,
            Self::openssh(&[OPENSSH], false).await,
            Self::openssh(&[OPENSSH], true).await,
        ]
    }

    fn server(&self) -> &Server {
        match &self.files {
            Files::Memory(server) => server,
            Files::Disk(..) => panic!("that one is in memory"),
        }
    }

    fn on_disk(&self, path: &str) -> PathBuf {
        match &self.files {
            Files::Memory(_) => panic!("that one is on a disk"),
            Files::Disk(directory, _) => directory.path().join(path),
        }
    }

    fn put(&self, path: &str, data: &[u8]) {
        match &self.files {
            Files::Memory(server) => server.tree(|tree| tree.put(path.as_bytes(), data)),
            Files::Disk(..) => fs::write(self.on_disk(path), data).unwrap(),
        }
    }

    fn content(&self, path: &str) -> Bytes {
        match &self.files {
            Files::Memory(server) => server.tree(|tree| tree.content(path.as_bytes()).unwrap()),
            Files::Disk(..) => fs::read(self.on_disk(path)).unwrap().into(),
        }
    }

    /// Both ends of a copy, open, the target made if it is not there.
    async fn ends(&self, source: &str, target: &str) -> (CopyEnd, CopyEnd) {
        let open = async |path: &str, flags| {
            let path = Bytes::copy_from_slice(path.as_bytes());
            let opened = self.client.open(path.clone(), flags, Attrs::default());
            CopyEnd {
                handle: opened.await.unwrap(),
                path: Some(path),
            }
        };
        (
            open(source, OpenFlags::READ).await,
            open(target, WRITE).await,
        )
    }

    /// What a file system does with a copy: the server first, then the client, until all is there,
    /// or nothing goes on.
    async fn copy_all(&self, ends: &(CopyEnd, CopyEnd), span: Span) -> (u64, Result<()>) {
        let mut total = 0;
        loop {
            let (some, result) = self.copy_once(ends, span.after(total)).await;
            total += some;
            if some == 0 || result.is_err() || total == span.len {
                return (total, result);
            }
        }
    }

    async fn copy_once(
        &self,
        (source, target): &(CopyEnd, CopyEnd),
        span: Span,
    ) -> (u64, Result<()>) {
        let copied = self.client.copy_data(source, target, span, |_| true).await;
        let begun = match copied {
            Ok(CopyData::Copied(some)) => return (some, Ok(())),
            Ok(CopyData::Unable(begun)) => begun,
            Err(error) => return (0, Err(error)),
        };
        let (from, to) = (&source.handle, &target.handle);
        match self
            .client
            .stream(from, to, span.after(begun), |_| true)
            .await
        {
            Ok(some) => (begun + some, Ok(())),
            Err(error) => (begun, Err(error)),
        }
    }

    /// How many bytes were asked of copy-data, in how many requests.
    fn asked_of_the_server(&self) -> (usize, u64) {
        let requests = self.server().take_requests();
        let lens = requests.iter().filter_map(|request| match request {
            Request::CopyData { len, .. } => Some(*len),
            _ => None,
        });
        (lens.clone().count(), lens.sum())
    }
}

fn span(source_offset: u64, target_offset: u64, len: u64) -> Span {
    Span {
        source_offset,
        target_offset,
        len,
    }
}

fn whole(len: u64) -> Span {
    span(0, 0, len)
}

/// Bytes that tell where they are from.
fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut data = Vec::with_capacity(usize::try_from(len).unwrap() + 8);
    while (data.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(usize::try_from(len).unwrap());
    data
}

/// What a target is after a copy of `data` into it.
fn expected(source: &[u8], target: &[u8], span: Span) -> Vec<u8> {
    let [from, to, len] = [span.source_offset, span.target_offset, span.len]
        .map(|number| usize::try_from(number).unwrap());
    let data = source.get(from..).unwrap_or_default();
    let data = &data[..data.len().min(len)];
    let mut target = target.to_vec();
    if !data.is_empty() {
        target.resize(target.len().max(to + data.len()), 0);
        target[to..to + data.len()].copy_from_slice(data);
    }
    target
}

#[track_caller]
fn assert_content(found: &[u8], expected: &[u8], what: &str) {
    let differs = found
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    assert_eq!((found.len(), differs), (expected.len(), None), "{what}");
}

#[tokio::test]
async fn a_new_file_is_what_the_source_is_whatever_its_size() {
    let sizes = [
        0,
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

/// Copies onto disks that are full here and there, and looks whether that is noticed.
async fn copy_onto_a_full_disk(bench: &Bench, size: u64, room: u64) {
    let data = pattern(size, 3);
    let ends = bench.ends("s", "t").await;
    let (copied, result) = bench.copy_all(&ends, whole(size)).await;
    let what = format!("{size} bytes and room for {room}, {}", bench.name);
    assert!(result.is_err(), "{what}: {copied} bytes and no error");
    assert!(copied <= room, "{what}: {copied}");
    let there = bench.content("t");
    assert!(there.len() as u64 <= room, "{what}: {}", there.len());
    let copied = usize::try_from(copied).unwrap();
    assert_content(&there[..copied], &data[..copied], &what);
}

#[tokio::test]
async fn a_full_disk_is_noticed_also_in_the_very_last_chunk() {
    for has_lane in [false, true] {
        for (size, missing) in [
            (100, 1),
            (64 * KIB, 1),
            (64 * KIB + 1, 1),
            (MIB, 64 * KIB),
            (MIB, 64 * KIB + 1),
            (9 * MIB + 5, 1),
            (9 * MIB + 5, 5),
            (9 * MIB + 5, 64 * KIB),
            (12 * MIB, 8 * MIB),
            (12 * MIB, 12 * MIB),
        ] {
            let bench = Bench::in_memory(Options::default(), has_lane).await;
            bench.put("s", &pattern(size, 3));
            let room = size - missing;
            bench.server().tree(|tree| tree.quota = Some(size + room));
            copy_onto_a_full_disk(&bench, size, room).await;
        }
    }
}

/// OpenSSH's server with a bound on the size of files stands for a full disk: write(2) fails with
/// EFBIG behind it, which is a FAILURE as ENOSPC is.
#[tokio::test]
async fn openssh_s_ok_for_a_failed_last_chunk_is_not_believed() {
    let limited = format!("trap '' XFSZ; ulimit -f 2048; exec {OPENSSH}");
    for has_lane in [false, true] {
        for size in [MIB + 1, MIB + 64 * KIB, MIB + 64 * KIB + 1, 3 * MIB] {
            let bench = Bench::openssh(&["sh", "-c", &limited], has_lane).await;
            bench.put("s", &pattern(size, 3));
            copy_onto_a_full_disk(&bench, size, MIB).await;
        }
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
    let kinds: String = bench
        .server()
        .take_requests()
        .iter()
        .map(|request| match request {
            Request::Fstat { .. } => 'f',
            Request::CopyData { .. } => 'c',
            _ => '?',
        })
        .collect();
    assert_eq!(kinds, "fffcf");
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
    let opened =
        |request: &Request| matches!(request, Request::Open { .. } | Request::Write { .. });
    assert!(
        !bench.server().take_requests().iter().any(opened),
        "all is open already"
    );
    assert_content(&bench.content("t"), &data, "the whole");
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_by_now_is_not_written_to() {
    let bench = Bench::in_memory(Options::default(), true).await;
    let (data, other) = (pattern(5 * MIB, 10), pattern(5 * MIB, 11));
    bench.put("s", &data);
    let (from, to) = bench.ends("s", "t").await;
    bench.server().tree(|tree| {
        tree.rename(b"t", b"moved").unwrap();
        tree.put(b"t", b"");
        tree.rename(b"s", b"old s").unwrap();
        tree.put(b"s", &other);
    });
    let ends = (from, to);
    assert_eq!(
        bench.copy_all(&ends, whole(5 * MIB)).await,
        (5 * MIB, Ok(()))
    );
    assert_content(&bench.content("t"), b"", "another file of that name");
    // The new source cannot be told from the old one: same size, owner, mode and second. Then the
    // target is what decides.
    assert_content(&bench.content("moved"), &data, "the file that is open");
}

#[tokio::test]
async fn a_target_that_can_only_be_written_by_its_handle_is_copied_on_its_own_connection() {
    let bench = Bench::in_memory(Options::default(), true).await;
    let data = pattern(5 * MIB, 12);
    bench.put("s", &data);
    let (from, to) = bench.ends("s", "t").await;
    bench.server().tree(|tree| {
        let (source, target) = (
            tree.find(b"s", true).unwrap(),
            tree.find(b"t", true).unwrap(),
        );
        tree.chown(source, (1000, 1000)).unwrap();
        tree.chown(target, (1000, 1000)).unwrap();
        tree.chmod(target, 0o444).unwrap();
        tree.user = (1000, 1000);
    });
    let copied = bench
        .client
        .copy_data(&from, &to, whole(5 * MIB), |_| true)
        .await;
    assert_eq!(copied, Ok(CopyData::Copied(5 * MIB)));
    assert!(bench.asked_of_the_server().0 > 0);
    assert_content(&bench.content("t"), &data, bench.name);
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
    let files = Files::Memory(server);
    let name = "without copy-data";
    let bench = Bench {
        client,
        files,
        name,
    };
    let (from, to) = bench.ends("s", "t").await;
    bench.server().take_requests();
    let copied = bench.client.copy_data(&from, &to, whole(7), |_| true).await;
    assert_eq!(copied, Ok(CopyData::Unable(0)));
    assert_eq!(bench.server().take_requests(), []);
}

/// A second connection to a server on which a copy takes until `release` says so; `None` hangs up.
fn slow_lane(server: &Server) -> Link {
    let server = server.clone();
    let mut opened = BTreeMap::new();
    link(script(
        &[("copy-data", "1")],
        move |_, request| match request {
            Request::Open { path, .. } => {
                let handle = Bytes::from(vec![u8::try_from(opened.len()).unwrap()]);
                opened.insert(handle.clone(), path);
                Reply::Answer(Response::Handle(handle))
            }
            Request::Fstat { handle } => {
                let path = opened[&handle].clone();
                let attrs = server.tree(|tree| tree.attrs(tree.find(&path, true).unwrap()));
                Reply::Answer(Response::Attrs(attrs))
            }
            Request::CopyData { .. } => Reply::Silence,
            _ => Reply::HangUp,
        },
    ))
}

#[tokio::test(start_paused = true)]
async fn while_the_server_copies_other_requests_are_answered() {
    let server = Server::new(Options::default());
    let client = Client::over_two(server.link(), slow_lane(&server))
        .await
        .unwrap();
    let files = Files::Memory(server);
    let name = "a slow lane";
    let bench = Bench {
        client,
        files,
        name,
    };
    let data = pattern(10 * MIB, 14);
    bench.put("s", &data);
    let (from, to) = bench.ends("s", "t").await;
    let mut copy = Box::pin(
        bench
            .client
            .copy_data(&from, &to, whole(10 * MIB), |_| true),
    );
    for _ in 0..10 {
        assert!((&mut copy).now_or_never().is_none());
        idle().await;
    }
    let seen = bench.client.lstat(text("t")).await.unwrap();
    assert_eq!(seen.size, Some(4 * KIB), "the first bytes, and no more yet");
}

#[tokio::test]
async fn when_the_lane_is_lost_the_copy_goes_another_way() {
    let server = Server::new(Options::default());
    let copies = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&copies);
    server.intercept(move |request| {
        if matches!(request, Request::CopyData { .. }) {
            count.fetch_add(1, Relaxed);
        }
        None
    });
    let lane = script(&[("copy-data", "1")], |_, _| Reply::HangUp);
    let client = Client::over_two(server.link(), link(lane)).await.unwrap();
    let files = Files::Memory(server);
    let name = "a lane that hangs up";
    let bench = Bench {
        client,
        files,
        name,
    };
    let data = pattern(10 * MIB, 15);
    bench.put("s", &data);
    let ends = bench.ends("s", "t").await;
    assert_eq!(
        bench.copy_all(&ends, whole(10 * MIB)).await,
        (10 * MIB, Ok(()))
    );
    assert!(copies.load(Relaxed) > 0, "by the server all the same");
    assert_content(&bench.content("t"), &data, bench.name);
}

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
