//! Key files, their passphrases, and the agent.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::{connect, keygen, plan, text, why_not};
use crate::transport::Target;
use crate::transport::prompt::Person;
use crate::transport::russh::dial;
use crate::transport::secrets::Prompter;
use crate::transport::test_link::greet;
use crate::transport::test_sshd::Sshd;

#[tokio::test]
async fn a_key_file_opens_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut link = connect(&sshd.target()).await.unwrap();
    greet(&mut link).await;
    assert!(link.peer.starts_with("OpenSSH_"), "{}", link.peer);
    assert!(link.peer.ends_with("@openssh.com"), "{}", link.peer);
}

#[tokio::test]
async fn keys_of_every_kind_open_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for (kind, bits, format) in [
        ("rsa", "2048", "RFC4716"),
        ("rsa", "2048", "PEM"),
        ("ecdsa", "384", "RFC4716"),
        ("ecdsa", "256", "PKCS8"),
    ] {
        let key = text(sshd.path(&format!("{kind}-{format}")));
        keygen(&["-t", kind, "-b", bits, "-m", format, "-N", "", "-f", &key]);
        fs::copy(format!("{key}.pub"), sshd.path("authorized")).unwrap();
        fs::remove_file(format!("{key}.pub")).unwrap();
        let link = connect(&sshd.target_with("IdentityFile", &key)).await;
        greet(&mut link.unwrap_or_else(|error| panic!("{kind} {format}: {error}"))).await;
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_for_once() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let key = text(sshd.path("user"));
    keygen(&["-p", "-a", "1", "-P", "", "-N", "open sesame", "-f", &key]);
    let person = Person::who_says(&["wrong", "open sesame"]);
    let mut plan = plan(&sshd.target(), person.prompter()).await;
    greet(&mut dial(&plan).await.unwrap()).await;
    plan.prompter = Prompter::NOBODY;
    greet(&mut dial(&plan).await.unwrap()).await;
    let question = format!("Enter passphrase for key '{key}': ");
    assert_eq!(person.questions(), [question.clone(), question]);
}

#[tokio::test]
async fn the_passphrase_of_a_key_that_the_server_does_not_want_is_not_asked_for() {
    let Some(sshd) = Sshd::start(&["PasswordAuthentication no"]) else {
        return;
    };
    let key = text(sshd.path("stranger"));
    keygen(&["-p", "-a", "1", "-P", "", "-N", "open sesame", "-f", &key]);
    let person = Person::who_says(&["open sesame"]);
    let target = sshd.target_with("IdentityFile", &key);
    let error = dial(&plan(&target, person.prompter()).await)
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains(&key), "{error}");
    assert_eq!(person.questions(), [""; 0]);
}

#[tokio::test]
async fn wrong_passphrases_are_told() {
    let Some(sshd) = Sshd::start(&["PasswordAuthentication no"]) else {
        return;
    };
    let key = text(sshd.path("user"));
    keygen(&["-p", "-a", "1", "-P", "", "-N", "open sesame", "-f", &key]);
    let person = Person::who_says(&["a", "b", "c", "d"]);
    let error = dial(&plan(&sshd.target(), person.prompter()).await)
        .await
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains(&format!("{key} (wrong passphrase)")),
        "{error}"
    );
    assert_eq!(person.questions().len(), 3);
    let error = why_not(&sshd.target()).await;
    assert!(
        error.contains("its passphrase is needed, and there is nobody to ask"),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_named() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let key = text(sshd.path("stranger"));
    let error = why_not(&sshd.target_with("IdentityFile", &key)).await;
    assert!(
        error.contains("@127.0.0.1: Permission denied (publickey"),
        "{error}"
    );
    assert!(error.contains(&format!("tried {key}")), "{error}");
}

#[tokio::test]
async fn a_named_key_that_is_missing_or_open_to_others_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let Some(sshd) = Sshd::start(&[]) else { return };
    let error = why_not(&sshd.target_with("IdentityFile", "/nowhere/key")).await;
    assert!(error.contains("/nowhere/key (no such file)"), "{error}");
    fs::set_permissions(sshd.path("user"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = why_not(&sshd.target()).await;
    assert!(error.contains("others can read it (mode 0644)"), "{error}");
}

/// An agent that ends with the test.
struct Agent(Child);

impl Agent {
    fn start(sshd: &Sshd, keys: &[&str]) -> Self {
        let socket = sshd.path("agent");
        let mut agent = Command::new("ssh-agent");
        agent
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped());
        let mut agent = Self(agent.spawn().unwrap());
        // It tells its variables when it listens.
        let mut told = [0; 1];
        std::io::Read::read_exact(agent.0.stdout.as_mut().unwrap(), &mut told).unwrap();
        for key in keys {
            let mut add = Command::new("ssh-add");
            add.arg("-q")
                .arg(sshd.path(key))
                .env("SSH_AUTH_SOCK", &socket);
            assert!(add.status().unwrap().success());
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn with_agent(sshd: &Sshd, changes: &[(&str, &str)]) -> Target {
    let mut target = sshd.target_with("IdentityAgent", &text(sshd.path("agent")));
    for (key, value) in changes {
        target.ssh_options.retain(|(name, _)| name != key);
        target
            .ssh_options
            .push(((*key).to_owned(), (*value).to_owned()));
    }
    target
}

#[tokio::test]
async fn the_agent_opens_the_door() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let rsa = text(sshd.path("user_rsa"));
    keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &rsa]);
    fs::copy(format!("{rsa}.pub"), sshd.path("authorized")).unwrap();
    let _agent = Agent::start(&sshd, &["stranger", "user_rsa"]);
    let target = with_agent(
        &sshd,
        &[("IdentitiesOnly", "no"), ("IdentityFile", "/nowhere/key")],
    );
    greet(&mut connect(&target).await.unwrap()).await;
}

#[tokio::test]
async fn with_identities_only_the_agent_signs_for_named_files_alone() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let _agent = Agent::start(&sshd, &["stranger", "user"]);
    let stranger = text(sshd.path("stranger"));
    let error = why_not(&with_agent(&sshd, &[("IdentityFile", &stranger)])).await;
    assert!(error.contains("tried agent (1 key)"), "{error}");
    // The file need only be there as a public key.
    fs::remove_file(sshd.path("user")).unwrap();
    greet(&mut connect(&with_agent(&sshd, &[])).await.unwrap()).await;
}

#[tokio::test]
async fn too_many_keys_are_told_with_what_to_do() {
    let Some(sshd) = Sshd::start(&["MaxAuthTries 2"]) else {
        return;
    };
    for name in ["a", "b", "c"] {
        keygen(&["-t", "ed25519", "-N", "", "-f", &text(sshd.path(name))]);
    }
    let _agent = Agent::start(&sshd, &["a", "b", "c"]);
    let error = why_not(&with_agent(&sshd, &[("IdentitiesOnly", "no")])).await;
    assert!(
        error.contains("Too many authentication failures"),
        "{error}"
    );
    assert!(error.contains("IdentitiesOnly=yes"), "{error}");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_told() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    fs::remove_file(sshd.path("user")).unwrap();
    let error = why_not(&with_agent(&sshd, &[])).await;
    assert!(error.contains("agent ("), "{error}");
}
