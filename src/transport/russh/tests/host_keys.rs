//! Is it the right server?

use std::fs;
use std::process::Command;

use super::{connect, keygen, plan, text, why_not};
use crate::transport::prompt::Person;
use crate::transport::russh::dial;
use crate::transport::test_link::greet;
use crate::transport::test_sshd::Sshd;

#[tokio::test]
async fn an_unknown_host_is_refused_with_its_fingerprint() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    fs::remove_file(sshd.path("known_hosts")).unwrap();
    let error = why_not(&sshd.target()).await;
    assert!(
        error.contains("SHA256:") && error.contains("StrictHostKeyChecking=yes"),
        "{error}"
    );
    assert!(!sshd.path("known_hosts").exists());
}

#[tokio::test]
async fn accept_new_adds_a_line_that_ssh_understands() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let before = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    fs::remove_file(sshd.path("known_hosts")).unwrap();
    connect(&sshd.target_with("StrictHostKeyChecking", "accept-new"))
        .await
        .unwrap();
    let after = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    assert!(before.starts_with(after.trim_end()), "{after}");
    greet(&mut connect(&sshd.target()).await.unwrap()).await;
}

#[tokio::test]
async fn a_person_decides_on_an_unknown_host() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let public = text(sshd.path("host_ed25519.pub"));
    let listed = Command::new("ssh-keygen")
        .args(["-l", "-f", &public])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let fingerprint = listed.split(' ').nth(1).unwrap();
    for (answers, goes_on) in [
        (&["no"][..], false),
        (&["what?", "yes"], true),
        (&[fingerprint], true),
        (&[], false),
    ] {
        fs::write(sshd.path("known_hosts"), "").unwrap();
        let person = Person::who_says(answers);
        let target = sshd.target_with("StrictHostKeyChecking", "ask");
        let plan = plan(&target, person.prompter()).await;
        assert_eq!(dial(&plan).await.is_ok(), goes_on, "{answers:?}");
        let question = person.questions().swap_remove(0);
        assert!(
            question.starts_with("The authenticity of host '[127.0.0.1]:"),
            "{question}"
        );
        assert!(
            question.contains(&format!("ED25519 key fingerprint is {fingerprint}.")),
            "{question}"
        );
        assert_eq!(
            fs::read(sshd.path("known_hosts")).unwrap().is_empty(),
            !goes_on
        );
    }
}

#[tokio::test]
async fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    sshd.is_known_by("stranger.pub");
    for strict in ["yes", "ask", "accept-new"] {
        let error = why_not(&sshd.target_with("StrictHostKeyChecking", strict)).await;
        assert!(error.contains("has changed"), "{error}");
        assert_eq!(error.matches("SHA256:").count(), 2, "{error}");
        assert!(error.contains("known_hosts:2"), "{error}");
    }
    // As ssh: keys still serve then.
    greet(
        &mut connect(&sshd.target_with("StrictHostKeyChecking", "no"))
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_host_key_of_another_type_than_the_known_one_is_a_changed_one() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    // The server has an Ed25519 key and an RSA key; known is an ECDSA one.
    let ecdsa = text(sshd.path("ecdsa"));
    keygen(&["-t", "ecdsa", "-N", "", "-f", &ecdsa]);
    sshd.is_known_by("ecdsa.pub");
    for strict in ["yes", "ask", "accept-new"] {
        let error = why_not(&sshd.target_with("StrictHostKeyChecking", strict)).await;
        assert!(error.contains("has changed"), "{error}");
    }
}

#[tokio::test]
async fn a_revoked_host_key_is_refused_whatever_is_known_of_it() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let key = fs::read_to_string(sshd.path("host_ed25519.pub")).unwrap();
    let known = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    fs::write(sshd.path("known_hosts"), format!("{known}@revoked * {key}")).unwrap();
    for strict in ["yes", "no"] {
        let error = why_not(&sshd.target_with("StrictHostKeyChecking", strict)).await;
        assert!(
            error.contains("revoked in") && error.contains("known_hosts:3"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn hashed_and_wildcard_lines_know_the_host() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    keygen(&["-H", "-f", &text(sshd.path("known_hosts"))]);
    let hashed = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    greet(&mut connect(&sshd.target()).await.unwrap()).await;
    let key = fs::read_to_string(sshd.path("host_ed25519.pub")).unwrap();
    // The name without the port counts, too.
    for name in ["[127.0.0.*]:*", "127.0.0.1"] {
        fs::write(sshd.path("known_hosts"), format!("{name} {key}")).unwrap();
        greet(&mut connect(&sshd.target()).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_server_with_several_keys_is_asked_for_the_one_that_is_known() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let known = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    let rsa = known.lines().find(|line| line.contains("ssh-rsa")).unwrap();
    fs::write(sshd.path("known_hosts"), format!("{rsa}\n")).unwrap();
    greet(&mut connect(&sshd.target()).await.unwrap()).await;
}
