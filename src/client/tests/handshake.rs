//! What a peer says first, and what it says it can take.

use bytes::Bytes;

use super::{client_of, link, peer, sized, text, version};
use crate::client::Client;
use crate::error::Error;
use crate::sftp::{Limits, Request, RequestId, Response, StatusCode};
use crate::testing::{Options, Reply, Server, script, status};

/// What a user is told of a peer that begins so.
async fn complaint(says: Bytes, listens: bool) -> String {
    let (stream, _task) = peer(says, listens);
    match Client::over(link(stream)).await {
        Err(Error::Setup(text) | Error::Denied(text)) => text.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("taken for an SFTP server"),
    }
}

#[tokio::test]
async fn text_before_version_is_shown_to_the_user() {
    let greeting = text("Welcome to srv1!\n");
    let said = complaint([greeting, version(3)].concat().into(), true).await;
    assert!(
        said.contains("Welcome to srv1!") && said.contains(".bashrc"),
        "{said}"
    );
}

#[tokio::test]
async fn a_peer_that_ends_before_version_is_no_sftp_server() {
    let whole = version(3);
    for cut in 0..whole.len() {
        let said = complaint(whole.slice(..cut), false).await;
        assert!(said.contains("no SFTP server"), "cut at {cut}: {said}");
    }
}

#[tokio::test]
async fn what_the_transport_knows_explains_an_early_end() {
    let (stream, _task) = peer(Bytes::new(), false);
    let link = link(stream);
    link.diagnosis.note("subsystem request failed on channel 0");
    let error = Client::over(link).await.err().unwrap();
    assert!(
        error.to_string().contains("subsystem request failed"),
        "{error}"
    );
}

#[tokio::test]
async fn version_2_is_refused_in_words() {
    let said = complaint(version(2), true).await;
    assert!(
        said.contains("version 2") && said.contains("version 3 is needed"),
        "{said}"
    );
}

#[tokio::test]
async fn another_packet_than_version_is_no_greeting() {
    let said = complaint(sized(1).encode(RequestId(0)).into_bytes(), true).await;
    assert!(said.contains("did not send VERSION"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up_at_the_deadline() {
    let said = complaint(Bytes::new(), true).await;
    assert!(
        said.contains("no SFTP server answered within 60 s"),
        "{said}"
    );
}

/// Bytes of a READ and a WRITE with a server that announces limits and answers so.
async fn sizes(answer: Response) -> (u32, u32) {
    let stream = script(&[("limits@openssh.com", "1")], move |_, request| {
        assert_eq!(request, Request::Limits);
        Reply::Answer(answer.clone())
    });
    let client = Client::over(link(stream)).await.unwrap();
    (client.features().read_max, client.features().write_max)
}

#[tokio::test]
async fn requests_are_as_large_as_the_server_takes_and_as_pays() {
    const KIB: u32 = 1 << 10;
    let limits = |packet_max, read_max, write_max| {
        let limits = Limits {
            packet_max,
            read_max,
            write_max,
            handles_max: 0,
        };
        Response::Extended(limits.encode())
    };
    for (answer, expected) in [
        (limits(262_144, 261_120, 261_120), (255 * KIB, 255 * KIB)),
        (limits(0, 0, 0), (255 * KIB, 255 * KIB)),
        (limits(u64::MAX, u64::MAX, u64::MAX), (255 * KIB, 255 * KIB)),
        (limits(34_000, 0, 0), (32_976, 32_976)),
        (limits(0, 65_536, 8192), (64 * KIB, 8 * KIB)),
        (limits(10, 1, 1), (4 * KIB, 4 * KIB)),
        (status(StatusCode::OP_UNSUPPORTED), (32 * KIB, 32 * KIB)),
    ] {
        assert_eq!(sizes(answer.clone()).await, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn without_limits_the_size_is_what_every_server_must_take() {
    let server = Server::new(Options::default().without(&["limits@openssh.com"]));
    let client = client_of(&server).await;
    assert_eq!(
        (client.features().read_max, client.features().write_max),
        (32 << 10, 32 << 10)
    );
    assert!(!server.take_requests().contains(&Request::Limits));
}

#[tokio::test]
async fn limits_that_end_early_break_the_protocol() {
    let stream = script(&[("limits@openssh.com", "1")], |_, _| {
        Reply::Answer(Response::Extended(text("1234567")))
    });
    assert!(matches!(
        Client::over(link(stream)).await.err(),
        Some(Error::Protocol(_))
    ));
}
