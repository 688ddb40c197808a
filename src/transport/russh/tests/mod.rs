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

use super::super::host_config::Settings;
use super::super::{Link, Target};
use super::dial;
use crate::error::Result;
use crate::transport::login::Plan;
use crate::transport::secrets::Prompter;

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
