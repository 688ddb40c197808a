//! A large file on several connections: right bytes, whatever happens to the connections and to the
//! name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};

use super::bench::{MIB, assert_content, pattern};
use super::copy_lane::dialled;
use super::{idle, link, text};
use crate::client::{Client, Handle};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, OpenFlags, Request, Response};
use crate::testing::{Options, Reply, Server, script};
use crate::transport::Link;

const LEN: usize = 255 << 10;
const FILE: &str = "large";

/// What a file is large from, here.
const MUCH: u64 = MIB;

async fn client(server: &Server, lanes: Vec<Link>) -> Client {
    let client = Client::over_many(server.link(), lanes, MUCH).await.unwrap();
    server.take_requests();
    client
}

/// A server with a large file, and a client with so many connections for data.
async fn with_file(size: u64, lanes: usize) -> (Server, Client, Vec<u8>) {
    let server = Server::new(Options {
        shuffle: Some(7),
        ..Options::default()
    });
    let data = pattern(size, 31);
    server.tree(|tree| tree.put(FILE.as_bytes(), &data));
    let client = client(&server, (0..lanes).map(|_| server.link()).collect()).await;
    (server, client, data)
}

async fn open(client: &Client, flags: OpenFlags) -> Handle {
    client
        .open(text(FILE), flags, Attrs::default())
        .await
        .unwrap()
}

/// Reads all of a file, eight requests at a time.
async fn read_all(client: &Client, handle: &Handle, size: usize) -> Result<Vec<u8>> {
    let mut starts = (0..size).step_by(LEN);
    let mut whole = Vec::new();
    let mut reads = FuturesOrdered::new();
    loop {
        while reads.len() < 8
            && let Some(start) = starts.next()
        {
            let len = u32::try_from(LEN.min(size - start)).unwrap();
            reads.push_back(client.read(handle, start as u64, len));
        }
        let Some(read) = reads.next().await else {
            return Ok(whole);
        };
        whole.extend_from_slice(&read?);
    }
}

/// Writes a file, eight requests at a time; gives what became of each.
async fn write_all(client: &Client, handle: &Handle, data: &[u8]) -> Vec<(usize, Result<()>)> {
    let mut parts = data.chunks(LEN).enumerate();
    let mut answers = Vec::new();
    let mut writes = FuturesUnordered::new();
    loop {
        while writes.len() < 8
            && let Some((n, part)) = parts.next()
        {
            let part = Bytes::copy_from_slice(part);
            let answer = client.write(handle, (n * LEN) as u64, part).await;
            writes.push(async move { (n, answer.await) });
        }
        let Some(answer) = writes.next().await else {
            return answers;
        };
        answers.push(answer);
        // Lets the others be at work too.
        tokio::task::yield_now().await;
    }
}

/// How many requests each of the connections for data has had.
fn asked(client: &Client) -> Vec<u32> {
    let lanes = client.lanes.data().open();
    let asked = lanes.iter().map(|lane| lane.rests());
    asked
        .map(|asked| asked.expect("all was answered"))
        .collect()
}

#[tokio::test]
async fn a_large_file_is_read_by_all_connections_and_comes_out_whole() {
    let (server, client, data) = with_file(24 * MIB, 3).await;
    let handle = open(&client, OpenFlags::READ).await;
    let read = read_all(&client, &handle, data.len()).await.unwrap();
    assert_content(&read, &data, "read");
    idle().await;
    assert!(
        asked(&client).iter().all(|asked| *asked > 10),
        "{:?}",
        asked(&client)
    );
    drop(handle);
    idle().await;
    assert_eq!(
        server.tree(|tree| tree.opens()),
        0,
        "all handles are closed"
    );
}

#[tokio::test]
async fn a_large_file_is_written_by_all_connections_and_comes_out_whole() {
    let (server, client, data) = with_file(24 * MIB, 3).await;
    let flags = OpenFlags::WRITE | OpenFlags::TRUNC;
    let handle = open(&client, flags).await;
    let answers = write_all(&client, &handle, &data).await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
    let content = server.tree(|tree| tree.content(FILE.as_bytes()).unwrap());
    assert_content(&content, &data, "written");
    idle().await;
    assert!(
        asked(&client).iter().all(|asked| *asked > 10),
        "{:?}",
        asked(&client)
    );
    for request in server.take_requests() {
        if let Request::Open { flags, .. } = request {
            let further = flags == OpenFlags::WRITE;
            assert!(further || flags.contains(OpenFlags::TRUNC), "emptied once");
        }
    }
}

#[tokio::test]
async fn a_small_file_stays_on_its_connection() {
    let (_, client, _) = with_file(24 * MIB, 2).await;
    let handle = open(&client, OpenFlags::READ).await;
    let size = usize::try_from(MUCH).unwrap() - 1;
    read_all(&client, &handle, size).await.unwrap();
    idle().await;
    assert_eq!(asked(&client), [0, 0]);
}

#[tokio::test]
async fn what_is_appended_stays_on_its_connection() {
    let (server, client, _) = with_file(0, 2).await;
    let handle = open(&client, OpenFlags::WRITE | OpenFlags::APPEND).await;
    let data = pattern(8 * MIB, 32);
    write_all(&client, &handle, &data).await;
    let content = server.tree(|tree| tree.content(FILE.as_bytes()).unwrap());
    assert_content(&content, &data, "appended");
    idle().await;
    assert_eq!(asked(&client), [0, 0]);
}

#[tokio::test]
async fn what_does_not_grow_is_written_on_its_connection() {
    let (server, client, _) = with_file(16 * MIB, 2).await;
    let handle = open(&client, OpenFlags::WRITE).await;
    let data = pattern(16 * MIB, 33);
    write_all(&client, &handle, &data).await;
    let content = server.tree(|tree| tree.content(FILE.as_bytes()).unwrap());
    assert_content(&content, &data, "written over");
    let writes = server.take_requests();
    let writers = writes.iter().filter_map(|request| match request {
        Request::Write { handle, .. } => Some(handle.clone()),
        _ => None,
    });
    assert!(writers.count() > 60);
    idle().await;
    // To be looked at, not to be written to.
    assert!(
        asked(&client).iter().all(|asked| *asked < 40),
        "{:?}",
        asked(&client)
    );
}

/// Another file of the same size and time, which begins as the first one does.
fn twin_of(data: &[u8]) -> Vec<u8> {
    let mut other = data.to_vec();
    other[1 << 20..].fill(0xee);
    other
}

#[tokio::test]
async fn a_name_that_we_gave_to_another_file_is_not_read() {
    let (server, client, data) = with_file(16 * MIB, 2).await;
    server.tree(|tree| tree.put(b"other", &twin_of(&data)));
    let handle = open(&client, OpenFlags::READ).await;
    client.rename(text("other"), text(FILE)).await.unwrap();
    let read = read_all(&client, &handle, data.len()).await.unwrap();
    assert_content(&read, &data, "the file that is open");
}

#[tokio::test]
async fn a_name_that_others_gave_to_another_file_is_not_read_if_it_looks_otherwise() {
    for (what, change) in [
        ("size", twin_of(&pattern(16 * MIB, 31))[1..].to_vec()),
        ("content", pattern(16 * MIB, 34)),
    ] {
        let (server, client, data) = with_file(16 * MIB, 2).await;
        let handle = open(&client, OpenFlags::READ).await;
        server.tree(|tree| {
            tree.rename(FILE.as_bytes(), b"moved").unwrap();
            tree.put(FILE.as_bytes(), &change);
        });
        let read = read_all(&client, &handle, data.len()).await.unwrap();
        assert_content(&read, &data, what);
    }
}

#[tokio::test]
async fn a_name_that_was_given_to_another_file_is_not_written_to() {
    for ours in [false, true] {
        let (server, client, _) = with_file(0, 2).await;
        server.tree(|tree| tree.put(b"other", &pattern(MIB, 36)));
        let data = pattern(16 * MIB, 35);
        let handle = open(&client, OpenFlags::WRITE).await;
        if ours {
            client.rename(text(FILE), text("moved")).await.unwrap();
            client.rename(text("other"), text(FILE)).await.unwrap();
        } else {
            server.tree(|tree| {
                tree.rename(FILE.as_bytes(), b"moved").unwrap();
                tree.rename(b"other", FILE.as_bytes()).unwrap();
            });
        }
        write_all(&client, &handle, &data).await;
        let [moved, other] =
            ["moved", FILE].map(|path| server.tree(|tree| tree.content(path.as_bytes()).unwrap()));
        assert_content(&moved, &data, "the file that is open");
        assert_content(&other, &pattern(MIB, 36), "another file of that name");
    }
}

/// A second connection to a server, on which a test may have its own say about READ and WRITE.
fn lane(server: &Server, mut say: impl FnMut(&Request) -> Option<Reply> + Send + 'static) -> Link {
    let server = server.clone();
    let mut opened = BTreeMap::new();
    link(script(&[], move |_, request| {
        if let Some(reply) = say(&request) {
            return reply;
        }
        Reply::Answer(match request {
            Request::Open { path, .. } => {
                let handle = Bytes::from(vec![u8::try_from(opened.len()).unwrap()]);
                opened.insert(handle.clone(), path);
                Response::Handle(handle)
            }
            Request::Fstat { handle } => server.tree(|tree| {
                let ino = tree.find(&opened[&handle], true).unwrap();
                Response::Attrs(tree.attrs(ino))
            }),
            Request::Read {
                handle,
                offset,
                len,
            } => server.tree(|tree| {
                let ino = tree.find(&opened[&handle], true).unwrap();
                let len = usize::try_from(len).unwrap();
                Response::Data(tree.read(ino, offset, len).unwrap())
            }),
            Request::Close { .. } => crate::testing::status(crate::sftp::StatusCode::OK),
            other => panic!("{other:?}"),
        })
    }))
}

fn is_large_read(request: &Request) -> bool {
    matches!(request, Request::Read { len, .. } if *len > 4096)
}

#[tokio::test]
async fn a_reader_does_not_notice_that_a_connection_for_data_is_lost() {
    let (server, _, data) = with_file(24 * MIB, 0).await;
    let mut reads = 0;
    let dying = lane(&server, move |request| {
        reads += usize::from(is_large_read(request));
        (reads == 10).then_some(Reply::HangUp)
    });
    let client = client(&server, vec![dying, server.link()]).await;
    let handle = open(&client, OpenFlags::READ).await;
    let read = read_all(&client, &handle, data.len()).await.unwrap();
    assert_content(&read, &data, "read");
    assert_eq!(
        client.lanes.data().open().len(),
        1,
        "it was used, and is lost"
    );
}

#[tokio::test]
async fn what_is_read_ahead_survives_the_loss_of_a_connection_for_data_too() {
    let (server, _, data) = with_file(8 * MIB, 0).await;
    let dying = lane(&server, |request| {
        let Request::Read { offset, .. } = request else {
            return None;
        };
        (*offset == 5 * MIB).then_some(Reply::HangUp)
    });
    let client = client(&server, vec![dying]).await;
    let handle = open(&client, OpenFlags::READ).await;
    read_all(&client, &handle, 4 << 20).await.unwrap();
    idle().await;
    let ahead = client.read_ahead(&handle, 5 * MIB, 1000).unwrap();
    assert_eq!(ahead.await.unwrap(), data[5 << 20..(5 << 20) + 1000]);
    assert!(client.lanes.data().open().is_empty());
}

#[tokio::test]
async fn writes_that_a_lost_connection_had_fail_and_the_others_are_there() {
    let (server, _, _) = with_file(0, 0).await;
    let dying = lane(&server, |request| match request {
        Request::Write { .. } => Some(Reply::HangUp),
        _ => None,
    });
    let client = client(&server, vec![dying, server.link()]).await;
    let data = pattern(24 * MIB, 37);
    let handle = open(&client, OpenFlags::WRITE).await;
    let answers = write_all(&client, &handle, &data).await;
    let lost: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| answer.is_err())
        .collect();
    assert!(!lost.is_empty(), "it was used");
    let mut content = server.tree(|tree| tree.content(FILE.as_bytes()).unwrap().to_vec());
    content.resize(data.len(), 0);
    for (n, answer) in &lost {
        assert!(matches!(answer, Err(Error::Lost(_))));
        let part = n * LEN..((n + 1) * LEN).min(data.len());
        content[part.clone()].copy_from_slice(&data[part]);
    }
    assert_content(&content, &data, "all but what was lost");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_behind_writes_is_done_behind_them_and_before_later_ones() {
    let (server, _, _) = with_file(0, 0).await;
    let held = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&held);
    let ok = || crate::testing::status(crate::sftp::StatusCode::OK);
    let slow = lane(&server, move |request| match request {
        Request::Write { .. } => {
            count.fetch_add(1, Relaxed);
            Some(Reply::Hold(ok()))
        }
        Request::Rmdir { .. } => Some(Reply::ThenHeld(ok())),
        _ => None,
    });
    let client = Arc::new(client(&server, vec![slow]).await);
    let handle = open(&client, OpenFlags::WRITE).await;
    let mut offset = 0;
    while held.load(Relaxed) == 0 {
        let answer = client
            .write(&handle, offset, Bytes::from(vec![1; LEN]))
            .await;
        tokio::spawn(answer);
        tokio::task::yield_now().await;
        offset += LEN as u64;
    }
    idle().await;
    server.take_requests();
    let before = held.load(Relaxed);
    let changed = client.fsetstat(
        &handle,
        Attrs {
            times: Some((1, 2)),
            ..Attrs::default()
        },
    );
    let seen = client.fstat(&handle);
    let (writer, late) = (Arc::clone(&client), handle.clone());
    let later = tokio::spawn(async move {
        writer
            .write(&late, offset, Bytes::from_static(b"later"))
            .await
            .await
    });
    idle().await;
    assert_eq!(server.take_requests(), [], "they wait for the writes");
    assert_eq!(held.load(Relaxed), before, "and later ones for them");
    drop(client.lanes.data().open()[0].submit(&Request::Rmdir { path: text("free") }));
    changed.await.unwrap();
    assert_eq!(seen.await.unwrap().times, Some((1, 2)));
    idle().await;
    assert_eq!(held.load(Relaxed), before + 1);
    drop(client.lanes.data().open()[0].submit(&Request::Rmdir { path: text("free") }));
    assert_eq!(later.await.unwrap(), Ok(()));
    let asked = server.take_requests();
    assert!(
        matches!(asked[..], [Request::Fsetstat { .. }, Request::Fstat { .. }]),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn metadata_pass_data_that_wait() {
    let (server, _, data) = with_file(8 * MIB, 0).await;
    let full = lane(&server, |request| {
        let Request::Read { offset, .. } = request else {
            return None;
        };
        (*offset >= 5 * MIB).then_some(Reply::Silence)
    });
    let client = Arc::new(client(&server, vec![full]).await);
    let handle = open(&client, OpenFlags::READ).await;
    read_all(&client, &handle, 4 << 20).await.unwrap();
    idle().await;
    for n in 0..200 {
        let (client, handle) = (Arc::clone(&client), handle.clone());
        tokio::spawn(async move { client.read(&handle, 5 * MIB + n, 1000).await });
    }
    idle().await;
    assert_eq!(
        client.lanes.data().open()[0].rests(),
        None,
        "many wait there"
    );
    let seen = client.lstat(text(FILE)).await.unwrap();
    assert_eq!(seen.size, Some(data.len() as u64));
    let small = client.open(text(FILE), OpenFlags::READ, Attrs::default());
    assert_eq!(
        client.read(&small.await.unwrap(), 0, 10).await.unwrap(),
        data[..10]
    );
}

#[tokio::test]
async fn a_file_that_was_closed_meanwhile_is_closed_everywhere() {
    let (server, client, _) = with_file(4 * MIB, 3).await;
    for _ in 0..20 {
        let handle = open(&client, OpenFlags::READ).await;
        read_all(&client, &handle, 1 << 20).await.unwrap();
    }
    idle().await;
    idle().await;
    assert_eq!(server.tree(|tree| tree.opens()), 0);
}

#[tokio::test]
async fn a_connection_of_which_nothing_is_asked_for_long_is_closed() {
    let (_, client, _) = with_file(MIB, 2).await;
    let pool = client.lanes.data();
    assert!(pool.sweep(), "both have just been made, as far as it knows");
    pool.open()[0].submit(&Request::Limits).await.unwrap();
    assert!(pool.sweep(), "one was used since");
    assert_eq!(asked(&client).len(), 1);
    assert!(asked(&client)[0] > 0, "that one stays");
    assert!(!pool.sweep());
}

#[tokio::test]
async fn connections_on_which_a_file_is_open_count_for_as_long_as_it_is() {
    let (_, client, data) = with_file(8 * MIB, 2).await;
    let pool = client.lanes.data();
    let handle = open(&client, OpenFlags::READ).await;
    read_all(&client, &handle, data.len()).await.unwrap();
    idle().await;
    for _ in 0..3 {
        assert!(pool.sweep());
    }
    assert_eq!(
        pool.open().len(),
        2,
        "else others would be dialled beside them"
    );
    drop(handle);
    idle().await;
    assert!(pool.sweep(), "something was asked of them");
    assert!(!pool.sweep());
}

#[tokio::test]
async fn a_connection_for_data_is_dialled_for_a_large_file_and_not_again_if_it_is_refused() {
    for allowed in [9, 1] {
        let directory = tempfile::tempdir().unwrap();
        let starts = directory.path().join("starts");
        let starts = || std::fs::read_to_string(&starts).unwrap().lines().count();
        let client = dialled(directory.path(), allowed).await;
        let data = pattern(16 * MIB, 38);
        std::fs::write(directory.path().join(FILE), &data).unwrap();
        let handle = open(&client, OpenFlags::READ).await;
        read_all(&client, &handle, 1 << 20).await.unwrap();
        assert_eq!(starts(), 1, "not for so little");
        let read = read_all(&client, &handle, data.len()).await.unwrap();
        assert_content(&read, &data, "read");
        let dialled = async {
            while client.lanes.data().is_dialling() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        assert!(tokio::time::timeout(limit, dialled).await.is_ok());
        let dialled = starts();
        assert!(dialled > 1);
        for _ in 0..3 {
            read_all(&client, &handle, data.len()).await.unwrap();
        }
        assert!(allowed > 1 || starts() == dialled, "it was refused");
        assert_eq!(client.lanes.data().open().is_empty(), allowed == 1);
    }
}

#[tokio::test]
async fn a_file_is_opened_on_a_connection_as_soon_as_it_is_there_also_if_nothing_is_read_then() {
    let directory = tempfile::tempdir().unwrap();
    let client = dialled(directory.path(), 9).await;
    let data = pattern(4 * MIB, 39);
    std::fs::write(directory.path().join(FILE), &data).unwrap();
    let handle = open(&client, OpenFlags::READ).await;
    // Dials end later than a read that is under way already.
    read_all(&client, &handle, 2 << 20).await.unwrap();
    let opened = async {
        let is_opened = |client: &Client| {
            let lanes = client.lanes.data().open();
            let asked = lanes.iter().map(|lane| lane.rests());
            !lanes.is_empty() && asked.into_iter().all(|asked| asked.is_none_or(|n| n > 2))
        };
        while !is_opened(&client) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    assert!(tokio::time::timeout(limit, opened).await.is_ok());
}
