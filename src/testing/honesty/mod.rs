//! The server in memory against the real one: the same requests, the same answers.
//!
//! What cannot be the same is made so first: what time it is, how large a directory is and in
//! which order it is listed, and how much space there is.

mod arbitrary;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite};

use super::program::{OPENSSH, Program};
use super::{Options, Server, Talk};
use crate::clock;
use crate::sftp::{
    Attrs, FileKind, Limits, LongName, NameEntry, OpenFlags, Request, Response, Statvfs,
};

/// What both servers are asked.
#[derive(Debug, Clone)]
enum Step {
    Ask(Request),
    /// OPENDIR, READDIR to the end, CLOSE; the entries together.
    List(Bytes),
}

/// Asks a new server of each kind the same, and compares the answers one by one.
fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    compare_within(None, steps)
}

/// As `compare`, where no file may be longer than so many KiB.
fn compare_within(file_kib_max: Option<u64>, steps: &[Step]) -> Result<(), TestCaseError> {
    let limit = file_kib_max.map_or_else(String::new, |kib| format!("ulimit -f {};", kib * 2));
    // write(2) then fails with EFBIG, and without the signal.
    let command = format!("trap '' XFSZ; {limit} exec {OPENSSH} -u 022");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let sandbox = tempfile::tempdir().unwrap();
        let directory = sandboxed(sandbox.path());
        let began = clock::wall();
        let server = in_memory(&directory, began);
        if let Some(kib) = file_kib_max {
            server.tree(|tree| tree.file_size_max = kib * 1024);
        }
        let (mut memory, ours) = Talk::begin(server.connect()).await;
        let (_program, stream) = Program::run(&["sh", "-c", &command], &directory)
            .expect("this test needs the package openssh-sftp-server");
        let (mut real, theirs) = Talk::begin(stream).await;
        assert_eq!(ours, theirs, "the answers to INIT");
        for (n, step) in steps.iter().enumerate() {
            let theirs = answers(&mut real, step, began).await;
            let ours = answers(&mut memory, step, began).await;
            prop_assert!(
                ours == theirs,
                "step {n} of {}\nours: {ours:?}\nOpenSSH's: {theirs:?}",
                steps
                    .iter()
                    .map(|step| format!("\n    {step:?}"))
                    .collect::<String>(),
            );
        }
        Ok(())
    })
}

/// Where the real server starts: some directories down, because it does what it is asked with all
/// our rights, and `..` or a symbolic link may lead it up. Nothing here leads further.
fn sandboxed(sandbox: &Path) -> PathBuf {
    let mut directory = sandbox.canonicalize().unwrap();
    for name in ["1", "2", "3"] {
        directory.push(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// A server that runs where and as who the real one does.
fn in_memory(directory: &Path, now: u32) -> Server {
    let home = Bytes::copy_from_slice(directory.as_os_str().as_encoded_bytes());
    let server = Server::new(Options {
        home,
        ..Options::default()
    });
    server.tree(|tree| {
        tree.now = now;
        let user = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        tree.mkdir(b"/root", 0o700).unwrap();
        for path in [&b"."[..], b".."] {
            let ino = tree.find(path, true).unwrap();
            tree.set_times(ino, (now, now)).unwrap();
            tree.chown(ino, user).unwrap();
        }
        tree.user = user;
    });
    server
}

async fn answers<S>(talk: &mut Talk<S>, step: &Step, began: u32) -> Vec<Response>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut answers = match step {
        Step::Ask(request) => vec![comparable(request, talk.ask(request).await)],
        Step::List(path) => list(talk, path.clone()).await,
    };
    for answer in &mut answers {
        match answer {
            Response::Attrs(attrs) => forget_times(attrs, began),
            Response::Names(names) => {
                names
                    .iter_mut()
                    .for_each(|entry| forget_times(&mut entry.attrs, began));
            }
            _ => {}
        }
    }
    answers
}

async fn list<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>, path: Bytes) -> Vec<Response> {
    let handle = match talk.ask(&Request::Opendir { path }).await {
        Response::Handle(handle) => handle,
        other => return vec![other],
    };
    let (mut all, mut pages) = (Vec::new(), Vec::new());
    let readdir = Request::Readdir {
        handle: handle.clone(),
    };
    let end = loop {
        match talk.ask(&readdir).await {
            Response::Names(names) => {
                pages.push(Response::Data(Bytes::from(format!(
                    "{} entries",
                    names.len()
                ))));
                all.extend(names.into_iter().map(comparable_entry));
            }
            end => break end,
        }
    };
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let closed = talk
        .ask(&Request::Close {
            handle: handle.clone(),
        })
        .await;
    pages.extend([Response::Handle(handle), Response::Names(all), end, closed]);
    pages
}

/// The mode, and of what is no directory the links and the size; then the name.
fn comparable_entry(mut entry: NameEntry) -> NameEntry {
    let line = String::from_utf8_lossy(&entry.longname).into_owned();
    let columns: Vec<_> = line.split_whitespace().collect();
    let links = LongName::parse(&entry.longname)
        .expect("a line of ls")
        .links;
    assert!(entry.longname.ends_with(&entry.name), "{line}");
    entry.longname = match entry.attrs.kind() {
        Some(FileKind::Directory) => columns[0].to_owned().into(),
        _ => format!("{} {links} {}", columns[0], columns[4]).into(),
    };
    // The directory above ours has many others in it.
    if entry.name == ".." {
        (entry.longname, entry.attrs) = (Bytes::new(), Attrs::default());
    }
    entry
}

/// Leaves of an extension's answer what does not depend on the machine.
fn comparable(request: &Request, answer: Response) -> Response {
    let Response::Extended(body) = answer else {
        return answer;
    };
    Response::Extended(match request {
        Request::Statvfs { .. } | Request::Fstatvfs { .. } => {
            let namemax = Statvfs::decode(body).unwrap().namemax;
            Statvfs {
                namemax,
                ..Statvfs::default()
            }
            .encode()
        }
        Request::Limits => Limits {
            handles_max: 0,
            ..Limits::decode(body).unwrap()
        }
        .encode(),
        _ => body,
    })
}

/// Of the times only a modification that is not of now is kept: reading moves the other on a real
/// filesystem. A directory's size is the filesystem's own affair.
fn forget_times(attrs: &mut Attrs, began: u32) {
    if let Some((accessed, modified)) = &mut attrs.times {
        *accessed = 0;
        if (began - 2..began + 3600).contains(modified) {
            *modified = 1;
        }
    }
    if attrs.kind() == Some(FileKind::Directory) {
        attrs.size = Some(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Each is a process and some 30 exchanges. `PROPTEST_CASES` makes it a longer hunt.
        cases: ProptestConfig::default().cases / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_requests_are_answered_as_openssh_does(steps in vec(arbitrary::step(), 1..60)) {
        compare(&steps)?;
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn ask(request: Request) -> Step {
    Step::Ask(request)
}

fn opened(path: &'static str, flags: OpenFlags) -> Step {
    ask(Request::Open {
        path: text(path),
        flags,
        attrs: Attrs::default(),
    })
}

const CREATE: OpenFlags = OpenFlags(0x0a);

#[test]
fn a_directory_of_many_pages_is_listed_as_openssh_does() {
    let link = |n| Request::Symlink {
        first: text("x"),
        second: format!("d/{n}").into(),
    };
    let mut steps = vec![ask(Request::Mkdir {
        path: text("d"),
        attrs: Attrs::default(),
    })];
    steps.extend((0..250).map(link).map(ask));
    steps.push(Step::List(text("d")));
    compare(&steps).unwrap();
}

#[test]
fn a_copy_is_answered_as_openssh_does_whatever_its_ends() {
    let handle = |n: u8| Bytes::from(vec![0, 0, 0, n]);
    let mut steps = vec![opened("a", OpenFlags(0x0b)), opened("b", OpenFlags(0x0b))];
    let data = Bytes::from(vec![5; 150_000]);
    steps.push(ask(Request::Write {
        handle: handle(0),
        offset: 0,
        data,
    }));
    for (from_offset, len, to_offset) in [
        (0, 0, 0),
        (0, 65_536, 7),
        (100_000, 0, 1),
        (100_000, 50_001, 0),
        (100_000, 200_000, 0),
        (150_000, 1, 0),
        (150_000, 70_000, 0),
        (200_000, 0, 200_000),
        (u64::MAX, 0, 0),
        (0, 10, u64::MAX),
    ] {
        let (from, to) = (handle(0), handle(1));
        steps.push(ask(Request::CopyData {
            from,
            from_offset,
            len,
            to,
            to_offset,
        }));
        steps.push(ask(Request::Fstat { handle: handle(1) }));
    }
    compare(&steps).unwrap();
}

#[test]
fn a_copy_that_finds_no_room_is_answered_as_openssh_does() {
    let handle = |n: u8| Bytes::from(vec![0, 0, 0, n]);
    let mut steps = vec![opened("a", OpenFlags(0x0b))];
    let data = Bytes::from(vec![5; 200_000]);
    let write = |handle, data| {
        ask(Request::Write {
            handle,
            offset: 0,
            data,
        })
    };
    steps.push(write(handle(0), data.clone()));
    steps.push(opened("b", OpenFlags(0x0b)));
    // There is room for 256 KiB: in the last chunk of a copy it ends unsaid.
    for (len, to_offset) in [
        (0, 0),
        (200_000, 100_000),
        (65_536, 262_143),
        (65_536, 262_144),
        (65_537, 196_608),
        (0, 196_608),
        (0, 262_144),
    ] {
        let (from, to) = (handle(0), handle(1));
        let fewer = Attrs {
            size: Some(0),
            ..Attrs::default()
        };
        steps.push(ask(Request::Fsetstat {
            handle: handle(1),
            attrs: fewer,
        }));
        steps.push(ask(Request::CopyData {
            from,
            from_offset: 0,
            len,
            to,
            to_offset,
        }));
        steps.push(ask(Request::Fstat { handle: handle(1) }));
    }
    steps.push(write(handle(1), data));
    compare_within(Some(256), &steps).unwrap();
}

#[test]
fn handles_are_used_again_in_openssh_s_order() {
    let handle = |n: u8| Bytes::from(vec![0, 0, 0, n]);
    let mut steps = (0..4).map(|_| opened("a", CREATE)).collect::<Vec<_>>();
    steps.extend([1, 3, 0].map(|n| ask(Request::Close { handle: handle(n) })));
    steps.extend((0..4).map(|_| opened("a", CREATE)));
    compare(&steps).unwrap();
}

#[test]
fn extensions_and_odd_requests_are_answered_as_openssh_does() {
    let mut steps = vec![
        ask(Request::Limits),
        ask(Request::UsersGroupsById {
            uids: vec![0, 4_000_000],
            gids: vec![0],
        }),
        ask(Request::UsersGroupsById {
            uids: vec![],
            gids: vec![],
        }),
        ask(Request::ExpandPath { path: text("~") }),
        ask(Request::ExpandPath {
            path: text("~/x/y"),
        }),
        ask(Request::ExpandPath {
            path: text("~nobody-of-this-name"),
        }),
        ask(Request::Realpath { path: text("/") }),
        ask(Request::Realpath {
            path: text("//..//."),
        }),
        ask(Request::Extended {
            name: text("unheard-of@example.org"),
            data: text("x"),
        }),
        ask(Request::Close { handle: text("") }),
    ];
    if nix::unistd::geteuid().is_root() {
        // Before 9.8 OpenSSH says its own user's home whoever is asked for.
        steps.push(ask(Request::HomeDirectory { user: text("root") }));
        steps.push(ask(Request::ExpandPath {
            path: text("~root/x"),
        }));
    }
    compare(&steps).unwrap();
}

#[test]
fn a_read_is_cut_at_the_limit_as_openssh_does() {
    let (handle, data) = (text("\0\0\0\0"), Bytes::from(vec![1; 200_000]));
    compare(&[
        opened("a", OpenFlags(0x0b)),
        ask(Request::Write {
            handle: handle.clone(),
            offset: 0,
            data: data.clone(),
        }),
        ask(Request::Write {
            handle: handle.clone(),
            offset: 200_000,
            data,
        }),
        ask(Request::Read {
            handle,
            offset: 0,
            len: u32::MAX,
        }),
    ])
    .unwrap();
}
