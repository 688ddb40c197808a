//! Named cases of the filesystem, over the server in memory and over a scripted one.

mod ahead;
mod away;
mod copies;
mod copies_at_risk;
mod entries;
mod errors;
mod listing;
mod lost;
mod nocto;
mod others;
mod reading;
mod resend;
mod together;
mod walking;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use tokio::io::DuplexStream;

use super::{Access, Caller, Config, Fh, Filesystem, Ino};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::sftp::{Attrs, FileKind, NameEntry, OpenFlags, Request, Response, StatusCode};
use crate::testing::{Options, Reply, Server, script, status};
use crate::transport::{Diagnosis, Link};

const USER: Caller = Caller { uid: 0, gid: 0 };
const READ: Access = Access {
    read: true,
    write: false,
    append: false,
    sync: false,
};
const WRITE: Access = Access {
    read: true,
    write: true,
    append: false,
    sync: false,
};

async fn mounted(stream: DuplexStream, config: Config) -> Arc<Filesystem> {
    let (peer, diagnosis) = ("a server of a test".into(), Diagnosis::default());
    let client = Client::over(Link {
        stream: Box::new(stream),
        peer,
        diagnosis,
    })
    .await;
    Filesystem::new(client.unwrap(), b"", config).await.unwrap()
}

/// A server with these files in its login directory, mounted.
async fn mount(files: &[(&str, &[u8])]) -> (Server, Arc<Filesystem>) {
    mount_with(Options::default(), Config::default(), files).await
}

async fn mount_with(
    options: Options,
    config: Config,
    files: &[(&str, &[u8])],
) -> (Server, Arc<Filesystem>) {
    let server = Server::new(options);
    server.tree(|tree| {
        files
            .iter()
            .for_each(|(name, data)| tree.put(name.as_bytes(), data))
    });
    let fs = mounted(server.connect(), config).await;
    server.take_requests();
    (server, fs)
}

/// A server that says what a directory without files would, but for what `say` replies to.
async fn scripted(
    config: Config,
    mut say: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
) -> Arc<Filesystem> {
    let peer = script(&[], move |_, request| {
        say(&request).unwrap_or_else(|| Reply::Answer(plain_answer(&request)))
    });
    mounted(peer, config).await
}

fn plain_answer(request: &Request) -> Response {
    let attrs = |kind: FileKind| Attrs {
        size: Some(0),
        owner: Some((0, 0)),
        permissions: Some(kind.mode() | 0o755),
        times: Some((1, 1)),
        extended: Vec::new(),
    };
    match request {
        Request::Realpath { .. } => Response::Names(vec![entry(b"/srv")]),
        Request::Stat { path } if path == "/srv" => Response::Attrs(attrs(FileKind::Directory)),
        Request::Stat { .. } | Request::Lstat { .. } | Request::Fstat { .. } => {
            Response::Attrs(attrs(FileKind::Regular))
        }
        Request::Open { .. } | Request::Opendir { .. } => Response::Handle(text("h")),
        Request::Readdir { .. } => status(StatusCode::EOF),
        _ => status(StatusCode::OK),
    }
}

fn entry(name: &[u8]) -> NameEntry {
    let (name, attrs) = (Bytes::copy_from_slice(name), Attrs::default());
    NameEntry {
        longname: name.clone(),
        name,
        attrs,
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn look_up(fs: &Filesystem, name: &str) -> Ino {
    fs.lookup(Ino::ROOT, name.as_bytes()).await.unwrap().ino
}

async fn open(fs: &Arc<Filesystem>, name: &str, access: Access) -> Fh {
    let ino = look_up(fs, name).await;
    fs.open(ino, access, false).await.unwrap().fh
}

async fn write(fs: &Arc<Filesystem>, fh: Fh, offset: u64, data: &[u8]) -> Result<()> {
    fs.write(fh, offset, Bytes::copy_from_slice(data), true)
        .await
}

fn refused<T>(errno: Errno) -> Result<T> {
    Err(Error::Errno(errno))
}

/// Until nobody can go on: the clock stands still in tests that use this, and moves only then.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Bytes of which each place has its own.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(len).collect()
}
