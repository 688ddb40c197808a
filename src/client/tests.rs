//! Tests of the client against peers that keep the protocol, and against some that do not.

mod answers;
mod bench;
mod copies;
mod copy_lane;
mod fallbacks;
mod full_disks;
mod handshake;
mod recovery;
mod settled;
mod spread;
mod streams;
mod window;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::Client;
use crate::sftp::{Attrs, Request, RequestId, Response};
use crate::testing::{Options, Reply, Server, script};
use crate::transport::{Diagnosis, Link};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn link(stream: DuplexStream) -> Link {
    Link {
        stream: Box::new(stream),
        peer: "a peer of a test".into(),
        diagnosis: Diagnosis::default(),
    }
}

/// A client of a peer that has no extension and says to the n-th request what `say` replies.
async fn scripted(say: impl FnMut(usize, Request) -> Reply + Send + 'static) -> Client {
    Client::over(link(script(&[], say))).await.unwrap()
}

async fn client_of(server: &Server) -> Client {
    Client::over(link(server.connect())).await.unwrap()
}

/// A server that has all extensions but these, with a client that has said hello.
async fn without(extensions: &[&str]) -> (Server, Client) {
    let server = Server::new(Options::default().without(extensions));
    let client = client_of(&server).await;
    server.take_requests();
    (server, client)
}

/// A peer that says this to the first that it hears, and then hangs up, or listens until the other
/// side does. Its task ends with the connection.
fn peer(says: Bytes, listens: bool) -> (DuplexStream, JoinHandle<()>) {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let task = tokio::spawn(async move {
        let mut heard = [0; 100];
        assert!(theirs.read(&mut heard).await.unwrap() > 0);
        theirs.write_all(&says).await.unwrap();
        while listens && theirs.read(&mut heard).await.unwrap() > 0 {}
    });
    (ours, task)
}

fn version(version: u32) -> Bytes {
    Response::Version {
        version,
        extensions: Vec::new(),
    }
    .encode(RequestId(0))
    .into_bytes()
}

fn of_size(size: u64) -> Attrs {
    Attrs {
        size: Some(size),
        ..Attrs::default()
    }
}

fn sized(n: usize) -> Response {
    Response::Attrs(of_size(n as u64))
}

/// Until nobody can go on: the clock stands still in these tests and moves only then.
async fn idle() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
