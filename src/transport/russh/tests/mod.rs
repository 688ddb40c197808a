//! SSH in process, against a private sshd, and against a server in this process where sshd does not
//! do what is to be seen.

mod connecting;
mod host_keys;
mod keys;
mod passwords;
mod streams;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::host_config::Settings;
use super::super::{Link, Target};
use super::dial;
use crate::error::Result;
use crate::transport::login::Plan;
use crate::transport::secrets::Prompter;

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

async fn plan(target: &Target, prompter: Prompter) -> Plan {
    Plan {
        settings: Arc::new(Settings::resolve(target).await.unwrap()),
        memory: Arc::default(),
        prompter,
        password: target.password.clone(),
        sftp_server: target.sftp_server.clone(),
    }
}

/// Connects with nobody there to be asked.
async fn connect(target: &Target) -> Result<Link> {
    dial(&plan(target, Prompter::NOBODY).await).await
}

async fn why_not(target: &Target) -> String {
    connect(target)
        .await
        .err()
        .expect("it connected")
        .to_string()
}

fn keygen(words: &[&str]) {
    let status = Command::new("ssh-keygen").arg("-q").args(words).status();
    assert!(status.unwrap().success());
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

/// A target without known_hosts or keys of this machine.
fn target(port: u16) -> Target {
    let options = [
        ("UserKnownHostsFile", "/dev/null"),
        ("GlobalKnownHostsFile", "none"),
        ("StrictHostKeyChecking", "no"),
        ("IdentityFile", "/nowhere/key"),
        ("IdentityAgent", "none"),
        ("ConnectTimeout", "1"),
    ];
    Target {
        host: "127.0.0.1".to_owned(),
        user: Some("me".to_owned()),
        port: Some(port),
        config_file: Some("none".into()),
        ssh_options: options
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        ..Target::default()
    }
}
