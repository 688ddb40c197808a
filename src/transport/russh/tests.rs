#![expect(clippy::cast_possible_truncation, reason = "lengths of test data")]

use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::test_sshd::Sshd;
use super::super::{Dialer, Link, Target, Way};

/// Sends SSH_FXP_INIT of version 3, and takes the answer.
async fn greet(link: &mut Link) {
    link.stream
        .write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3])
        .await
        .unwrap();
    let mut head = [0; 9];
    link.stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[4..], [2, 0, 0, 0, 3]);
    let mut rest = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 5];
    link.stream.read_exact(&mut rest).await.unwrap();
}

async fn dial(target: Target) -> crate::error::Result<Link> {
    Dialer::new(Target {
        way: Way::Russh,
        ..target
    })
    .await
    .unwrap()
    .dial()
    .await
}

#[tokio::test]
async fn a_key_file_opens_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut link = dial(sshd.target()).await.unwrap();
    greet(&mut link).await;
    assert!(link.peer.starts_with("OpenSSH_"), "{}", link.peer);
    assert!(
        link.peer
            .ends_with(" through russh, aes128-gcm@openssh.com"),
        "{}",
        link.peer
    );
}
