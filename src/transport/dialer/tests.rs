//! What all ways to a server have in common: which failures are final, that each dial ends and leaves
//! nothing behind, that a dead server is noticed, and what becomes of secrets.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::super::russh::test_server::{Rules, Server};
use super::super::test_link::{Relay, greet};
use super::super::test_sshd::Sshd;
use super::*;
use crate::error::Error;

const WAYS: [Way; 3] = [Way::Russh, Way::OpenSsh, Way::LibSsh2];

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

async fn dial(target: &Target, way: &Way) -> Result<Link> {
    let target = Target {
        way: way.clone(),
        ..target.clone()
    };
    Dialer::new(target).await?.dial().await
}

async fn refusal(target: &Target, way: &Way) -> Error {
    let dialled = timeout(LONG, dial(target, way)).await;
    dialled.expect("no end").err().expect("it connected")
}

async fn is_denied_by_all(target: &Target) {
    for way in &WAYS {
        let error = refusal(target, way).await;
        assert!(matches!(error, Error::Denied(_)), "{way:?}: {error:?}");
    }
}

async fn may_pass_for_all(target: &Target) {
    for way in &WAYS {
        let error = refusal(target, way).await;
        assert!(matches!(error, Error::Setup(_)), "{way:?}: {error:?}");
    }
}

fn at(port: u16, target: Target) -> Target {
    Target {
        port: Some(port),
        ..target
    }
}

#[tokio::test]
async fn a_wrong_key_is_denied() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let stranger = sshd.path("stranger").display().to_string();
    is_denied_by_all(&sshd.target_with("IdentityFile", &stranger)).await;
}

#[tokio::test]
async fn a_user_whom_the_server_does_not_know_is_denied() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let user = Some("no-such-user".to_owned());
    is_denied_by_all(&Target {
        user,
        ..sshd.target()
    })
    .await;
}

#[tokio::test]
async fn an_unknown_host_is_denied() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    is_denied_by_all(&sshd.target_with("UserKnownHostsFile", "/dev/null")).await;
}

#[tokio::test]
async fn a_changed_host_key_is_denied() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    sshd.is_known_by("stranger.pub");
    is_denied_by_all(&sshd.target()).await;
}

#[tokio::test]
async fn a_refused_port_may_pass() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    // Nobody may listen on it.
    may_pass_for_all(&at(1, sshd.target())).await;
}

#[tokio::test]
async fn a_name_that_is_not_found_may_pass() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let host = "host.invalid".to_owned();
    may_pass_for_all(&Target {
        host,
        ..sshd.target()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_up_before_a_word_may_pass() {
    // As sshd does by MaxStartups.
    let Some(sshd) = Sshd::start(&[]) else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    may_pass_for_all(&at(port, sshd.target())).await;
}

#[tokio::test]
async fn a_subsystem_that_the_server_has_not_is_denied() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let target = Target {
        sftp_server: Some("nosuch".to_owned()),
        ..sshd.target()
    };
    for way in [Way::Russh, Way::LibSsh2] {
        let error = refusal(&target, &way).await;
        assert!(matches!(error, Error::Denied(_)), "{way:?}: {error:?}");
    }
    // A child ssh says so when it has logged in already.
    let mut link = dial(&target, &Way::OpenSsh).await.unwrap();
    link.stream.read_to_end(&mut Vec::new()).await.unwrap();
    let error = link.diagnosis.failure("it ended");
    assert_eq!(error, Error::denied("it ended"));
}

/// Where a dial is stopped: before a word, in the key exchange, and during the login.
const STOPS: [usize; 3] = [0, 200, 1800];

#[tokio::test]
async fn a_dial_to_a_server_that_falls_silent_ends() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for stop in [0, 200] {
        for way in &WAYS {
            let relay = Relay::to(sshd.port(), stop).await;
            // The host key is known by the port.
            let mut target = at(relay.port, sshd.target_with("ConnectTimeout", "1"));
            target.ssh_options.push(sshd.alias());
            // ssh(1) itself has no limit for the key exchange.
            if stop > 0 && *way == Way::OpenSsh {
                continue;
            }
            let error = refusal(&target, way).await;
            assert!(matches!(error, Error::Setup(_)), "{way:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_dial_that_is_dropped_leaves_nothing_behind() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for stop in STOPS {
        for way in &WAYS {
            let mut relay = Relay::to(sshd.port(), stop).await;
            let mut target = at(relay.port, sshd.target());
            target.ssh_options.push(sshd.alias());
            let dialling = timeout(Duration::from_secs(1), dial(&target, way)).await;
            assert!(dialling.is_err(), "{way:?} connected past {stop}");
            // Whoever held the connection has let go of it: a socket, a thread, or a process.
            let left = timeout(LONG, relay.is_left()).await;
            assert!(left.is_ok(), "{way:?} goes on at {stop}");
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_no_more_is_noticed() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for way in &WAYS {
        let relay = Relay::to(sshd.port(), usize::MAX).await;
        let mut target = at(relay.port, sshd.target_with("ServerAliveInterval", "1"));
        target.ssh_options.push(sshd.alias());
        let one = ("ServerAliveCountMax".to_owned(), "1".to_owned());
        target.ssh_options.push(one);
        let mut link = dial(&target, way).await.unwrap();
        greet(&mut link).await;
        // Idle, it is asked and answers: three questions long nothing ends.
        let mut byte = [0; 1];
        let idle = timeout(Duration::from_millis(3500), link.stream.read(&mut byte)).await;
        assert!(idle.is_err(), "{way:?}: {}", link.diagnosis.text());
        relay.silence();
        let ended = timeout(LONG, link.stream.read(&mut byte)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{way:?} does not notice"));
        assert!(!matches!(ended, Ok(1..)), "{way:?}: {ended:?}");
        assert_ne!(link.diagnosis.text(), "", "{way:?}");
    }
}

/// A mount's dialer whose password opened the first connection.
async fn dialer(server: &Server, way: &Way, policy: ReconnectSecret) -> Dialer {
    let options = [
        ("UserKnownHostsFile", "/dev/null"),
        ("GlobalKnownHostsFile", "none"),
        ("StrictHostKeyChecking", "no"),
        ("IdentityFile", "/nowhere/key"),
        ("IdentityAgent", "none"),
        ("NumberOfPasswordPrompts", "1"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let dialer = Dialer::new(Target {
        host: "127.0.0.1".to_owned(),
        user: Some("me".to_owned()),
        port: Some(server.port),
        config_file: Some("none".into()),
        ssh_options: options.to_vec(),
        way: way.clone(),
        password: Secret::new(&mut b"right".to_vec()),
        reconnect_secret: policy,
        ..Target::default()
    })
    .await
    .unwrap();
    dialer.dial().await.unwrap();
    dialer
}

async fn is_denied(dialer: &Dialer) {
    let error = dialer.dial().await.err().expect("it connected");
    assert!(matches!(error, Error::Denied(_)), "{error:?}");
}

/// Says this to the first question.
fn who_says(dialer: &Dialer, answer: &'static str) -> std::thread::JoinHandle<bool> {
    let listener = dialer.questions().take().unwrap();
    std::thread::spawn(move || {
        let Some(question) = listener.next(Duration::from_secs(10)) else {
            return false;
        };
        assert!(question.text.contains("assword"), "{}", question.text);
        question.answer(Secret::new(&mut answer.as_bytes().to_vec()).unwrap());
        // Held until the dial is over.
        listener.next(Duration::from_secs(2)).is_none()
    })
}

#[tokio::test]
async fn a_secret_that_is_kept_opens_further_connections() {
    let server = Server::start(Rules::password("right")).await;
    for way in [Way::Russh, Way::LibSsh2] {
        let dialer = dialer(&server, &way, ReconnectSecret::Keep).await;
        dialer.dial().await.unwrap();
    }
    assert_eq!(server.seen(), ["password right"; 4]);
}

#[tokio::test]
async fn a_secret_that_is_not_kept_is_asked_for_when_somebody_is_there() {
    let server = Server::start(Rules::password("right")).await;
    for way in [Way::Russh, Way::LibSsh2] {
        let dialer = dialer(&server, &way, ReconnectSecret::Ask).await;
        is_denied(&dialer).await;
        let person = who_says(&dialer, "right");
        dialer.dial().await.unwrap();
        assert!(person.join().unwrap());
        // And forgotten again.
        is_denied(&dialer).await;
    }
    assert_eq!(server.seen(), ["password right"; 4]);
}

#[tokio::test]
async fn with_never_nobody_is_asked_for_a_secret() {
    let server = Server::start(Rules::password("right")).await;
    for way in [Way::Russh, Way::LibSsh2] {
        let dialer = dialer(&server, &way, ReconnectSecret::Never).await;
        let listener = dialer.questions().take().unwrap();
        is_denied(&dialer).await;
        assert!(listener.next(Duration::ZERO).is_none());
    }
    assert_eq!(server.seen(), ["password right"; 2]);
}
