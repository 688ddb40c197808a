//! What the tests of all transports ask of the other end: does it speak SFTP, is it gone?

use std::path::PathBuf;

use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

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
