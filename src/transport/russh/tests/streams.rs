//! The program on the server: how it is started, the bytes to and from it, and its end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{connect, target, why_not};
use crate::transport::Target;
use crate::transport::russh::test_server::{Rules, Server};
use crate::transport::secrets::Secret;
use crate::transport::test_link::{Alive, greet};
use crate::transport::test_sshd::Sshd;

/// Runs these words on the server in place of its SFTP server.
fn running(sshd: &Sshd, words: &str) -> Target {
    Target {
        sftp_server: Some(words.to_owned()),
        ..sshd.target()
    }
}

#[tokio::test]
async fn a_subsystem_that_is_not_there_is_named() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let error = why_not(&running(&sshd, "nonesuch")).await;
    assert!(
        error.contains("the server does not start nonesuch"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_on_the_server_is_run_in_place_of_the_subsystem() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    greet(
        &mut connect(&running(&sshd, "/usr/lib/openssh/sftp-server"))
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn what_the_server_says_at_its_end_is_in_the_diagnosis() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let target = running(
        &sshd,
        "/bin/sh -c 'echo bye; printf \"\\033oops\" >&2; exit 3'",
    );
    let mut link = connect(&target).await.unwrap();
    let mut said = String::new();
    link.stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "bye\n");
    assert_eq!(
        link.diagnosis.text(),
        "?oops\nthe SFTP server ended with status 3"
    );
}

#[tokio::test]
async fn a_stream_that_is_shut_down_is_read_to_its_end() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut link = connect(&running(&sshd, "/usr/bin/sort")).await.unwrap();
    link.stream.write_all(b"b\na\n").await.unwrap();
    link.stream.shutdown().await.unwrap();
    let mut said = String::new();
    link.stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "a\nb\n");
}

#[tokio::test]
async fn bytes_survive_new_keys_in_both_directions() {
    // Each side wants new keys every mebibyte.
    let Some(sshd) = Sshd::start(&["RekeyLimit 1M"]) else {
        return;
    };
    echoes(&running(&sshd, "/bin/cat")).await;
}

#[tokio::test]
async fn bytes_survive_compression() {
    let Some(sshd) = Sshd::start(&["Compression yes"]) else {
        return;
    };
    echoes(&Target {
        compression: true,
        ..running(&sshd, "/bin/cat")
    })
    .await;
}

/// Sends 12 MiB through `cat`, three windows of it in flight.
async fn echoes(target: &Target) {
    let link = connect(target).await.unwrap();
    let (mut from, mut to) = tokio::io::split(link.stream);
    let sent: Vec<u8> = (0..12_u32 << 18)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes())
        .collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move { to.write_all(&copy).await.map(|()| to) });
    let mut got = vec![0; sent.len()];
    from.read_exact(&mut got).await.unwrap();
    writing.await.unwrap().unwrap();
    assert!(got == sent, "the bytes differ");
}

#[tokio::test]
async fn a_dropped_stream_ends_the_program_on_the_server() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let alive = Alive::new(sshd.path("fifo"));
    let script = format!("/bin/sh -c '{}; exec cat'", alive.words());
    let link = connect(&running(&sshd, &script)).await.unwrap();
    alive.ends_with(link).await;
}

#[tokio::test]
async fn a_server_gets_no_agent() {
    let rules = Rules {
        wants_agent: true,
        ..Rules::password("right")
    };
    let server = Server::start(rules).await;
    let mut target = target(server.port);
    target.password = Secret::new(&mut b"right".to_vec());
    let mut link = connect(&target).await.unwrap();
    let mut said = [0; 12];
    link.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"welcomeasked");
    assert_eq!(
        server.seen(),
        ["password right", "agent channel opened: false"]
    );
}

#[tokio::test]
async fn a_dropped_stream_ends_the_connection_though_the_server_takes_no_byte() {
    let port = Server::start_apart(Rules::password("right"));
    let mut target = target(port);
    target.password = Secret::new(&mut b"right".to_vec());
    let runtime = tokio::runtime::Handle::current().metrics();
    assert_eq!(runtime.num_alive_tasks(), 0);
    let mut link = connect(&target).await.unwrap();
    let stuck = async { while link.stream.write_all(&[0; 65536]).await.is_ok() {} };
    // The server's window of 2 MiB is full at once; then nothing moves any more.
    assert!(
        timeout(Duration::from_millis(300), stuck).await.is_err(),
        "the stream ended"
    );
    assert!(runtime.num_alive_tasks() > 0);
    drop(link);
    while runtime.num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}
