//! What is told where there is no SSH server that we could talk to.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{target, why_not};
use crate::transport::Target;
use crate::transport::test_sshd::Sshd;

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_refused_port_is_told() {
    let (listener, port) = listener().await;
    drop(listener);
    let error = why_not(&target(port)).await;
    assert!(
        error.starts_with(&format!("cannot connect to 127.0.0.1 port {port}: refused")),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_told() {
    let error = why_not(&Target {
        host: "host.invalid".into(),
        ..target(22)
    })
    .await;
    assert!(
        error.starts_with("cannot find the host host.invalid: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_of_another_kind_is_told_by_its_words() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"220 mail ready\x07\r\n").await.unwrap();
        drop(socket.read_to_end(&mut Vec::new()).await);
    });
    let error = why_not(&target(port)).await;
    let expected =
        format!("127.0.0.1 port {port} is not an SSH server: it says \"220 mail ready?\"");
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_silent_server_is_told_after_the_time_limit() {
    let (_listener, port) = listener().await;
    let error = why_not(&target(port)).await;
    assert!(error.contains("says nothing for 1 s"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told() {
    let (listener, port) = listener().await;
    tokio::spawn(async move { drop(listener.accept().await) });
    let error = why_not(&target(port)).await;
    assert!(
        error.contains("ended the connection before a word"),
        "{error}"
    );
}

#[tokio::test]
async fn a_cipher_that_the_server_has_not_is_told() {
    let Some(sshd) = Sshd::start(&["Ciphers aes128-ctr"]) else {
        return;
    };
    let error = why_not(&sshd.target_with("Ciphers", "aes256-ctr")).await;
    assert!(
        error.contains("no common cipher: the server offers aes128-ctr, we aes256-ctr"),
        "{error}"
    );
}
