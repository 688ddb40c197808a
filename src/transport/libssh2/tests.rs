use std::fs;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::test_link::{Alive, answer, greet};
use super::super::test_sshd::Sshd;
use super::super::{Dialer, Link, Target, Way};
use crate::error::Result;

/// What an sshd of fifteen years ago would offer, and nothing else.
const OLD: [&str; 5] = [
    "KexAlgorithms diffie-hellman-group14-sha1",
    "HostKeyAlgorithms ssh-rsa",
    "Ciphers aes128-cbc",
    "MACs hmac-sha1",
    "PubkeyAcceptedAlgorithms +ssh-rsa",
];

async fn dial(target: Target) -> Result<Link> {
    Dialer::new(Target {
        way: Way::LibSsh2,
        ..target
    })
    .await?
    .dial()
    .await
}

async fn why_not(target: Target) -> String {
    dial(target).await.err().expect("it connected").to_string()
}

/// A request: type, id, and strings or numbers already encoded.
fn request(kind: u8, id: u32, rest: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind][..], &id.to_be_bytes(), &rest.concat()].concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

async fn open(link: &mut Link, path: &str, flags: u32) -> Vec<u8> {
    let rest = [
        &string(path.as_bytes())[..],
        &flags.to_be_bytes(),
        &0_u32.to_be_bytes(),
    ];
    link.stream.write_all(&request(3, 1, &rest)).await.unwrap();
    let answer = answer(link).await;
    assert_eq!(answer[0], 102, "no HANDLE: {answer:?}");
    answer[9..].to_vec()
}

#[tokio::test]
async fn a_key_file_opens_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut link = dial(sshd.target()).await.unwrap();
    greet(&mut link).await;
    assert!(link.peer.starts_with("OpenSSH_"), "{}", link.peer);
    let through = " through libssh2, chacha20-poly1305@openssh.com";
    assert!(link.peer.ends_with(through), "{}", link.peer);
}

#[tokio::test]
async fn a_server_with_only_older_algorithms_is_reached() {
    let Some(sshd) = Sshd::start(&OLD) else {
        return;
    };
    let mut link = dial(sshd.target()).await.unwrap();
    assert!(link.peer.ends_with("aes128-cbc"), "{}", link.peer);
    greet(&mut link).await;
}

#[tokio::test]
async fn each_sound_cipher_works() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for cipher in [
        "aes128-ctr",
        "aes256-ctr",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
    ] {
        let mut link = dial(sshd.target_with("Ciphers", cipher)).await.unwrap();
        assert!(link.peer.ends_with(cipher), "{}", link.peer);
        greet(&mut link).await;
    }
}

#[tokio::test]
async fn a_program_on_the_server_is_run_in_place_of_the_subsystem() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let sftp_server = Some("/usr/lib/openssh/sftp-server".to_owned());
    greet(
        &mut dial(Target {
            sftp_server,
            ..sshd.target()
        })
        .await
        .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_missing_subsystem_is_named() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let why = why_not(Target {
        sftp_server: Some("nosuch".to_owned()),
        ..sshd.target()
    })
    .await;
    assert!(why.contains("has no subsystem nosuch"), "{why}");
}

#[tokio::test]
async fn a_program_that_ends_at_once_leaves_its_words() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let sftp_server = Some("echo sorry >&2; exit 3 #/".to_owned());
    let mut link = dial(Target {
        sftp_server,
        ..sshd.target()
    })
    .await
    .unwrap();
    let mut bytes = Vec::new();
    link.stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"");
    assert_eq!(
        link.diagnosis.text(),
        "sorry\nthe SFTP server ended with status 3"
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_named() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let stranger = sshd.path("stranger").display().to_string();
    let why = why_not(sshd.target_with("IdentityFile", &stranger)).await;
    assert!(
        why.contains("Permission denied") && why.contains(&stranger),
        "{why}"
    );
}

#[tokio::test]
async fn a_key_of_the_agent_opens_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let socket = sshd.path("agent");
    let run = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        let output = command
            .args(&words[1..])
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["ssh-agent", "-a", socket.to_str().unwrap()]);
    let pid = said
        .split("SSH_AGENT_PID=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    run(&["ssh-add", "-q", sshd.path("user").to_str().unwrap()]);
    let mut target = sshd.target_with("IdentityAgent", socket.to_str().unwrap());
    target
        .ssh_options
        .retain(|(key, _)| key != "IdentityFile" && key != "IdentitiesOnly");
    target
        .ssh_options
        .push(("IdentityFile".to_owned(), "none".to_owned()));
    let link = dial(target).await;
    run(&["kill", pid]);
    greet(&mut link.unwrap()).await;
}

#[tokio::test]
async fn a_dropped_stream_ends_the_connection() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let alive = Alive::new(sshd.path("alive"));
    let sftp_server = Some(format!("{}; exec cat", alive.words()));
    let link = dial(Target {
        sftp_server,
        ..sshd.target()
    });
    alive.ends_with(link.await.unwrap()).await;
}

#[tokio::test]
async fn an_unknown_host_gets_no_login() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let why = why_not(sshd.target_with("UserKnownHostsFile", "/dev/null")).await;
    assert!(
        why.contains("not known") && why.contains("SHA256:"),
        "{why}"
    );
}

#[tokio::test]
async fn a_changed_host_key_gets_no_login() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    sshd.is_known_by("stranger.pub");
    let why = why_not(sshd.target()).await;
    assert_eq!(why.matches("SHA256:").count(), 2, "{why}");
}

#[tokio::test]
async fn of_several_host_keys_the_known_one_is_asked_for() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let known = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    let rsa: String = known
        .lines()
        .filter(|line| line.contains("ssh-rsa"))
        .collect();
    fs::write(sshd.path("known_hosts"), rsa + "\n").unwrap();
    greet(&mut dial(sshd.target()).await.unwrap()).await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let why = why_not(Target {
        port: Some(1),
        ..sshd.target()
    })
    .await;
    assert!(why.contains("port 1") && why.contains("refused"), "{why}");
}

/// 32 MiB with many requests under way, while the server changes its keys every MiB: sent data is
/// what is received.
async fn copy_there_and_back(sshd: &Sshd) {
    const PIECE: usize = 100_000;
    const PIECES: u32 = 320;
    let path = sshd.path("data").display().to_string();
    let mut link = dial(sshd.target()).await.unwrap();
    greet(&mut link).await;
    // READ | WRITE | CREAT | TRUNC
    let handle = open(&mut link, &path, 0x1b).await;
    let piece = |n: u32| vec![u8::try_from(n % 251).unwrap(); PIECE];
    let offset = |n: u32| (u64::from(n) * PIECE as u64).to_be_bytes();
    let (mut from, mut to) = tokio::io::split(link.stream);
    let (writes, reads) = (handle.clone(), handle);
    let send = async {
        for n in 0..PIECES {
            let rest = [&string(&writes)[..], &offset(n), &string(&piece(n))];
            to.write_all(&request(6, n, &rest)).await.unwrap();
        }
        for n in 0..PIECES {
            let len = u32::try_from(PIECE).unwrap().to_be_bytes();
            let rest = [&string(&reads)[..], &offset(n), &len];
            to.write_all(&request(5, n, &rest)).await.unwrap();
        }
    };
    let receive = async {
        let mut read = 0;
        for _ in 0..PIECES * 2 {
            let len = usize::try_from(from.read_u32().await.unwrap()).unwrap();
            let mut packet = vec![0; len];
            from.read_exact(&mut packet).await.unwrap();
            let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
            match packet[0] {
                101 => assert_eq!(packet[5..9], [0; 4], "write {id} failed"),
                103 => {
                    assert!(
                        packet[9..] == piece(id),
                        "piece {id} is not what was written"
                    );
                    read += 1;
                }
                kind => panic!("packet type {kind}"),
            }
        }
        assert_eq!(read, PIECES);
    };
    tokio::join!(send, receive);
}

/// libssh2 may take an answer from the wire in any of its calls, also one that is about other
/// bytes; the pump must not then wait for the wire.
#[tokio::test]
async fn an_answer_that_came_in_passing_is_not_waited_for() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut link = dial(sshd.target_with("ServerAliveInterval", "0"))
        .await
        .unwrap();
    greet(&mut link).await;
    for id in 0..3000 {
        let asked = request(16, id, &[&string(b".")]);
        link.stream.write_all(&asked).await.unwrap();
        let answer = timeout(Duration::from_secs(60), answer(&mut link));
        let answer = answer.await.expect("it stalled");
        assert_eq!(answer[..5], [&[104][..], &id.to_be_bytes()].concat());
    }
}

#[tokio::test]
async fn data_survives_full_windows_and_new_keys_on_the_way() {
    let Some(sshd) = Sshd::start(&["RekeyLimit 1M"]) else {
        return;
    };
    copy_there_and_back(&sshd).await;
}

#[tokio::test]
async fn data_survives_older_algorithms() {
    let Some(sshd) = Sshd::start(&OLD) else {
        return;
    };
    copy_there_and_back(&sshd).await;
}
