//! What the tests of all transports ask of the other end: does it speak SFTP, is it gone?

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::Link;

/// Sends SSH_FXP_INIT of version 3, and takes the answer.
pub(super) async fn greet(link: &mut Link) {
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    link.stream.write_all(&init).await.unwrap();
    assert_eq!(answer(link).await[..5], [2, 0, 0, 0, 3]);
}

/// The next packet, without its length.
pub(super) async fn answer(link: &mut Link) -> Vec<u8> {
    let len = link.stream.read_u32().await.unwrap();
    let mut packet = vec![0; usize::try_from(len).unwrap()];
    link.stream.read_exact(&mut packet).await.unwrap();
    packet
}

/// A pipe that a program at the other end holds open, and its children with it, until all of them
/// are gone.
pub(super) struct Alive {
    fifo: PathBuf,
}

impl Alive {
    pub(super) fn new(fifo: PathBuf) -> Self {
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        Self { fifo }
    }

    /// For sh(1): holds it open, and says that it does.
    pub(super) fn words(&self) -> String {
        format!("exec 3<>{}; echo up", self.fifo.display())
    }

    /// Waits until it is held, lets go of the stream, and waits until nobody holds it any more.
    pub(super) async fn ends_with(self, mut link: Link) {
        let mut up = [0; 3];
        link.stream.read_exact(&mut up).await.unwrap();
        let pipe = pipe::OpenOptions::new();
        let pipe = pipe.open_receiver(&self.fifo).unwrap();
        drop(link);
        // Readable without a byte: all who could write are gone.
        pipe.readable().await.unwrap();
        assert_eq!(pipe.try_read(&mut [0; 1]).unwrap(), 0);
    }
}

/// Stands between a client and a server, and falls silent: what comes after is acknowledged by the
/// kernel and never answered, as by a machine whose server hangs.
pub(super) struct Relay {
    pub(super) port: u16,
    /// How many bytes of the server's each connection may still bring.
    left: Arc<AtomicUsize>,
    ended: mpsc::UnboundedReceiver<()>,
}

impl Relay {
    /// Lets `limit` bytes of the server pass.
    pub(super) async fn to(server: u16, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicUsize::new(limit));
        let (sender, ended) = mpsc::unbounded_channel();
        let of_all = left.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (left, sender) = (of_all.clone(), sender.clone());
                tokio::spawn(async move {
                    pass(client, server, &left).await;
                    // Not every test waits for it.
                    let _ = sender.send(());
                });
            }
        });
        Self { port, left, ended }
    }

    /// From now on nothing comes from the server any more.
    pub(super) fn silence(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    /// Waits until a client has closed a connection.
    pub(super) async fn is_left(&mut self) {
        self.ended.recv().await.unwrap();
    }
}

/// Until the client ends it.
async fn pass(client: TcpStream, server: u16, left: &AtomicUsize) {
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async {
        let mut bytes = [0; 4096];
        // The end of the server is the end of its words only.
        while let Ok(got @ 1..) = from_server.read(&mut bytes).await {
            let may = left.load(Ordering::SeqCst).min(got);
            left.fetch_sub(may, Ordering::SeqCst);
            if may < got || to_client.write_all(&bytes[..got]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    tokio::select! {
        () = down => {}
        _ = up => {}
    }
}
