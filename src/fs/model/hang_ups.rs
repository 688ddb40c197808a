//! The connection ends at any request of a session with copies. The next mount finds each name with
//! its old or its new content, whole, and copies that are still files of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::cases::{READ, WRITE};
use crate::client::Client;
use crate::error::Result;
use crate::fs::{
    Access, Caller, Change, Config, CopyIsHardlink, Creation, Fh, Filesystem, Ino, State,
};
use crate::testing::{Cut, Options, Server};

const USER: Caller = Caller { uid: 0, gid: 0 };

type Session = Arc<Filesystem>;

async fn mounted(server: &Server, config: &Config) -> Result<Session> {
    let client = Client::over(server.link()).await?;
    Filesystem::new(client, b"", config.clone()).await
}

async fn open(fs: &Session, name: &str, access: Access, truncate: bool) -> Result<Fh> {
    let ino = fs.lookup(Ino::ROOT, name.as_bytes()).await?.ino;
    Ok(fs.open(ino, access, truncate).await?.fh)
}

async fn close(fs: &Session, fh: Fh) -> Result<()> {
    let flushed = fs.flush(fh).await;
    fs.release(fh);
    flushed
}

async fn write(fs: &Session, name: &str, data: &'static [u8]) -> Result<()> {
    let fh = open(fs, name, WRITE, false).await?;
    fs.write(fh, 0, Bytes::from_static(data), true).await?;
    close(fs, fh).await
}

async fn copy(fs: &Session, from: &str, to: &str) -> Result<()> {
    let source = open(fs, from, READ, false).await?;
    let (name, how) = (to.as_bytes(), Creation::EXCLUSIVE);
    let (_, target) = fs.create(Ino::ROOT, name, 0o600, WRITE, how, USER).await?;
    let mut done = 0;
    loop {
        match fs
            .copy_range((source, done), (target.fh, done), 1 << 30)
            .await?
        {
            0 => break,
            more => done += more,
        }
    }
    close(fs, target.fh).await?;
    close(fs, source).await
}

async fn content(fs: &Session, name: &str) -> Result<Bytes> {
    let fh = open(fs, name, READ, false).await?;
    let data = fs.read(fh, 0, 1 << 20).await?;
    close(fs, fh).await?;
    Ok(data)
}

/// All that is done, step by step.
const STEPS: usize = 8;

async fn step(fs: &Session, step: usize) -> Result<()> {
    match step {
        0 => copy(fs, "a", "b").await,
        1 => copy(fs, "b", "c").await,
        2 => write(fs, "b", b"B").await,
        3 => {
            let linked = fs.lookup(Ino::ROOT, b"c").await?.ino;
            fs.link(linked, Ino::ROOT, b"d").await.map(|_| ())
        }
        4 => fs.rename((Ino::ROOT, b"c"), (Ino::ROOT, b"e"), false).await,
        5 => write(fs, "a", b"A").await,
        6 => {
            copy(fs, "a", "f").await?;
            let fh = open(fs, "f", WRITE, true).await?;
            close(fs, fh).await
        }
        7 => {
            let ino = fs.lookup(Ino::ROOT, b"d").await?.ino;
            copy(fs, "d", "g").await?;
            let change = Change {
                permissions: Some(0o640),
                size: Some(3),
                ..Change::default()
            };
            fs.setattr(ino, change, None).await.map(|_| ())
        }
        _ => unreachable!("{STEPS} of them"),
    }
}

type Contents = BTreeMap<&'static str, &'static [u8]>;

/// What there is after so many steps.
fn contents_after(steps: usize) -> Contents {
    let hello = &b"hello, hello"[..];
    let mut contents = Contents::from([("a", hello)]);
    for step in 0..steps {
        match step {
            0 => drop(contents.insert("b", hello)),
            1 => drop(contents.insert("c", hello)),
            2 => drop(contents.insert("b", b"Bello, hello")),
            3 => drop(contents.insert("d", hello)),
            4 => {
                contents.remove("c");
                contents.insert("e", hello);
            }
            5 => drop(contents.insert("a", b"Aello, hello")),
            6 => drop(contents.insert("f", b"")),
            _ => {
                contents.insert("d", b"hel");
                contents.insert("e", b"hel");
                contents.insert("g", hello);
            }
        }
    }
    contents
}

/// What else a name may have had in the middle of a step: a copy begins empty.
fn may_be_meanwhile(step: usize, name: &str, is: Option<&[u8]>) -> bool {
    match (step, name) {
        (0, "b") | (1, "c") | (6, "f") | (7, "g") if is == Some(b"") => true,
        (6, "f") => is == Some(b"Aello, hello"),
        _ => false,
    }
}

fn names_on(server: &Server) -> Vec<String> {
    server.tree(|tree| {
        let home = tree.find(b".", false).unwrap();
        let names = tree.list(home).unwrap().into_iter().skip(2);
        names
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    })
}

/// Runs the session until its connection ends at a request; gives whether it came that far.
async fn cut_at(cut: usize, how: Cut, config: &Config) -> bool {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"a", b"hello, hello"));
    let fs = mounted(&server, config).await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    server.cut_when(move |_| (counter.fetch_add(1, Ordering::Relaxed) == cut).then_some(how));
    let mut done = 0;
    while done < STEPS && step(&fs, done).await.is_ok() {
        done += 1;
    }
    server.cut_when(|_| None);
    let was_cut = seen.load(Ordering::Relaxed) > cut;
    assert!(was_cut || done == STEPS, "step {done} failed");
    while Arc::strong_count(&fs) > 1 {
        tokio::task::yield_now().await;
    }
    drop(fs);
    let case = format!("cut {how:?} {cut}, in step {done}");
    look_after(&server, config, done, &case).await;
    was_cut
}

/// The next mount.
async fn look_after(server: &Server, config: &Config, step: usize, case: &str) {
    let fs = mounted(server, config).await.unwrap();
    let (old, new) = (contents_after(step), contents_after((step + 1).min(STEPS)));
    let names = names_on(server);
    for name in &names {
        assert!(!name.starts_with(".sftpfs"), "{name} is left, {case}");
    }
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        let is_there = names.iter().any(|there| there == name);
        let data = match is_there {
            true => Some(content(&fs, name).await.unwrap()),
            false => None,
        };
        let is = data.as_deref();
        let fits = is == old.get(name).copied() || is == new.get(name).copied();
        assert!(
            fits || may_be_meanwhile(step, name, is),
            "{name}: {is:?}, {case}"
        );
    }
    assert!(
        names.iter().any(|name| name == "c" || name == "e") || step < 2,
        "{case}"
    );
    // link(2)'s names are one file; all others are files of their own.
    let is_one_file = |one: &str, other: &str| {
        let linked = |name: &str| matches!(name, "c" | "d" | "e");
        one == other || linked(one) && linked(other)
    };
    for written in &names {
        let contents = || {
            server.tree(|tree| {
                names
                    .iter()
                    .map(|name| tree.content(name.as_bytes()))
                    .collect::<Vec<_>>()
            })
        };
        let before = contents();
        write(&fs, written, b"new content of this one")
            .await
            .unwrap();
        for ((name, before), after) in names.iter().zip(before).zip(contents()) {
            let is_same = before == after || is_one_file(name, written);
            assert!(is_same, "{name} when {written} was written, {case}");
        }
        let data = content(&fs, written).await.unwrap();
        assert_eq!(data, "new content of this one", "{written}, {case}");
    }
    for name in names_on(server) {
        assert!(!name.starts_with(".sftpfs"), "{name} is left, {case}");
    }
}

async fn cut_everywhere(how: Cut) {
    let mut cut = 0;
    loop {
        let place = tempfile::tempdir().unwrap();
        let config = Config {
            copy_is_hardlink: CopyIsHardlink::Cow,
            state: Some(State {
                directory: place.path().to_owned(),
                identity: "ann@the-model".into(),
            }),
            ..Config::default()
        };
        if !cut_at(cut, how, &config).await {
            break;
        }
        cut += 1;
    }
    assert!(cut > 100, "the session took {cut} requests");
}

#[tokio::test]
async fn a_connection_that_ends_before_any_request_leaves_copies_whole_and_apart() {
    cut_everywhere(Cut::Before).await;
}

#[tokio::test]
async fn a_connection_that_ends_behind_any_request_leaves_copies_whole_and_apart() {
    cut_everywhere(Cut::Behind).await;
}
