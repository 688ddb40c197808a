//! Records what real servers answer, for `sftp/recorded/`.
//!
//! To record again: `cargo test --lib record -- --ignored`, with the packages openssh-sftp-server,
//! gesftpserver and rclone of Debian 12 installed.

use std::fmt::Write;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::program::{OPENSSH, Program};
use super::talk::{Said, Talk};
use crate::sftp::{Attrs, OpenFlags, Request, Response};

#[tokio::test]
#[ignore = "writes src/sftp/recorded/ and needs three servers; run it to record again"]
async fn record() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sftp/recorded");
    for (name, command) in [
        ("openssh-9.2p1", &[OPENSSH][..]),
        ("greenend-2", &["/usr/libexec/gesftpserver"]),
        (
            "rclone-1.60.1",
            &[
                "rclone",
                "serve",
                "sftp",
                "--stdio",
                "--vfs-cache-mode=full",
                ".",
            ],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (_program, stream) = Program::run(command, directory.path()).unwrap();
        let (mut talk, _) = Talk::begin(stream).await;
        session(&mut talk).await;
        let text = format!(
            "# {name}: {}\n{}",
            command.join(" "),
            lines(&talk.transcript)
        );
        std::fs::write(format!("{folder}/{name}.txt"), text).unwrap();
    }
}

/// `>` is the client's, `<` the server's.
fn lines(transcript: &[Said]) -> String {
    transcript.iter().fold(String::new(), |mut text, said| {
        let (mark, packet) = match said {
            Said::Client(packet) => ('>', packet),
            Said::Server(packet) => ('<', packet),
        };
        write!(text, "{mark} ").unwrap();
        packet
            .iter()
            .for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text + "\n"
    })
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn permissions(mode: u32) -> Attrs {
    Attrs {
        permissions: Some(mode),
        ..Attrs::default()
    }
}

async fn handle<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>, request: Request) -> Bytes {
    match talk.ask(&request).await {
        Response::Handle(handle) => handle,
        other => panic!("{request:?} was answered {other:?}"),
    }
}

/// Each request once with an answer that is not an error where the server can, and some errors.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>) {
    talk.ask(&Request::Limits).await;
    talk.ask(&Request::Realpath { path: text(".") }).await;
    talk.ask(&Request::Mkdir {
        path: text("d"),
        attrs: permissions(0o755),
    })
    .await;
    files(talk).await;
    names(talk).await;
    for request in [
        Request::Rmdir { path: text("d") },
        Request::Lstat {
            path: text("missing"),
        },
        Request::Statvfs { path: text(".") },
        Request::ExpandPath { path: text("~/x") },
        Request::HomeDirectory { user: text("root") },
        Request::UsersGroupsById {
            uids: vec![0, 4_000_000],
            gids: vec![0],
        },
        Request::Extended {
            name: text("unheard-of@example.org"),
            data: text("x"),
        },
    ] {
        talk.ask(&request).await;
    }
}

async fn files<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>) {
    let flags = OpenFlags::WRITE | OpenFlags::CREAT | OpenFlags::TRUNC;
    let open = Request::Open {
        path: text("d/f"),
        flags,
        attrs: permissions(0o640),
    };
    let file = handle(talk, open).await;
    talk.ask(&Request::Write {
        handle: file.clone(),
        offset: 0,
        data: text("hello\n"),
    })
    .await;
    talk.ask(&Request::Fstat {
        handle: file.clone(),
    })
    .await;
    talk.ask(&Request::Fsetstat {
        handle: file.clone(),
        attrs: permissions(0o600),
    })
    .await;
    talk.ask(&Request::Fstatvfs {
        handle: file.clone(),
    })
    .await;
    talk.ask(&Request::Fsync {
        handle: file.clone(),
    })
    .await;
    talk.ask(&Request::Close { handle: file }).await;
    let open = |path, flags| Request::Open {
        path,
        flags,
        attrs: Attrs::default(),
    };
    let file = handle(talk, open(text("d/f"), OpenFlags::READ)).await;
    talk.ask(&Request::Read {
        handle: file.clone(),
        offset: 1,
        len: 100,
    })
    .await;
    talk.ask(&Request::Read {
        handle: file.clone(),
        offset: 6,
        len: 100,
    })
    .await;
    let copy = handle(talk, open(text("d/copy"), flags)).await;
    talk.ask(&Request::CopyData {
        from: file.clone(),
        from_offset: 0,
        len: 0,
        to: copy.clone(),
        to_offset: 0,
    })
    .await;
    talk.ask(&Request::Close { handle: copy }).await;
    talk.ask(&Request::Close { handle: file }).await;
}

async fn names<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>) {
    let times = Attrs {
        times: Some((1_000_000_000, 1_111_111_111)),
        ..Attrs::default()
    };
    for request in [
        Request::Setstat {
            path: text("d/f"),
            attrs: times.clone(),
        },
        Request::Symlink {
            first: text("f"),
            second: text("d/s"),
        },
        Request::Hardlink {
            from: text("d/f"),
            to: text("d/h"),
        },
        Request::Lsetstat {
            path: text("d/s"),
            attrs: times,
        },
        Request::Readlink { path: text("d/s") },
        Request::Stat { path: text("d/s") },
        Request::Lstat { path: text("d/s") },
    ] {
        talk.ask(&request).await;
    }
    let directory = handle(talk, Request::Opendir { path: text("d") }).await;
    let readdir = Request::Readdir {
        handle: directory.clone(),
    };
    while let Response::Names(_) = talk.ask(&readdir).await {}
    for request in [
        Request::Close { handle: directory },
        Request::Rename {
            from: text("d/copy"),
            to: text("d/renamed"),
        },
        Request::PosixRename {
            from: text("d/renamed"),
            to: text("d/f"),
        },
        Request::Remove { path: text("d/h") },
    ] {
        talk.ask(&request).await;
    }
}
