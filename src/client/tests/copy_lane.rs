//! The connection for copies: who waits for it, and what happens when it is not to be had.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use super::bench::{Bench, Files, KIB, MIB, assert_content, pattern, whole};
use super::{idle, link, text};
use crate::client::{Client, Config, CopyData};
use crate::sftp::{Request, Response};
use crate::testing::{OPENSSH, Options, Reply, Server, script};
use crate::transport::{Dialer, Link, Target, Way};

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
    let bench = Bench::over(client, server, "a slow lane");
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
    let bench = Bench::over(client, server, "a lane that hangs up");
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

/// A client of OpenSSH's server in a directory, by a command that notes each of its starts in the
/// file `starts`, and of which no more than `allowed` serve.
async fn dialled(directory: &Path, allowed: u32) -> Client {
    let script = "cd \"$1\" && echo x >> starts && [ $(wc -l < starts) -le $2 ] && exec \"$3\"";
    let words = [
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        "sh".as_ref(),
        directory.as_os_str(),
        allowed.to_string().as_ref(),
        OPENSSH.as_ref(),
    ]
    .map(OsStr::to_owned);
    let target = Target {
        way: Way::Command(words.into()),
        ..Target::default()
    };
    let dialer = Dialer::new(target).await.unwrap();
    Client::connect(dialer, &Config::default()).await.unwrap()
}

#[tokio::test]
async fn the_lane_is_dialled_for_the_first_large_copy_and_kept_or_done_without() {
    for (allowed, name) in [(2, "two connections"), (1, "one connection")] {
        let directory = tempfile::tempdir().unwrap();
        let starts = directory.path().join("starts");
        let starts = || fs::read_to_string(&starts).unwrap().lines().count();
        let client = dialled(directory.path(), allowed).await;
        let files = Files::Disk {
            directory,
            _programs: Vec::new(),
        };
        let bench = Arc::new(Bench {
            client,
            files,
            name,
        });
        bench.put("s", &pattern(3 * MIB, 21));
        bench.put("small", b"small");
        let ends = bench.ends("small", "t").await;
        assert_eq!(bench.copy_all(&ends, whole(5)).await, (5, Ok(())));
        assert_eq!(starts(), 1, "{name}");
        let copies = ["t1", "t2", "t3"].map(|target| {
            let bench = Arc::clone(&bench);
            // Which also holds that the copies can be spawned.
            tokio::spawn(async move {
                let (from, to) = bench.ends("s", target).await;
                bench
                    .client
                    .copy_data(&from, &to, whole(3 * MIB), |_| true)
                    .await
            })
        });
        for copy in copies {
            assert_eq!(copy.await.unwrap(), Ok(CopyData::Copied(3 * MIB)), "{name}");
        }
        // It is dialled while the first copy is made where its files are open, and may come late.
        let dialled = async {
            while starts() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(30);
        assert!(tokio::time::timeout(limit, dialled).await.is_ok(), "{name}");
        assert_eq!(starts(), 2, "{name}");
        for target in ["t1", "t2", "t3"] {
            assert_content(&bench.content(target), &pattern(3 * MIB, 21), name);
        }
    }
}
