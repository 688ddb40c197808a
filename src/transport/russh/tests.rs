use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::host_config::Settings;
use super::super::prompt::Person;
use super::super::test_sshd::Sshd;
use super::super::{Link, Target};
use super::test_server::{Rules, Server};
use super::*;

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

/// Runs these words on the server in place of its SFTP server.
fn running(sshd: &Sshd, words: &str) -> Target {
    Target {
        sftp_server: Some(words.to_owned()),
        ..sshd.target()
    }
}

fn keygen(words: &[&str]) {
    let status = Command::new("ssh-keygen").arg("-q").args(words).status();
    assert!(status.unwrap().success());
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

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
    let known = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    let name = known.split(' ').next().unwrap();
    let other = fs::read_to_string(sshd.path("stranger.pub")).unwrap();
    fs::write(sshd.path("known_hosts"), format!("# old\n{name} {other}")).unwrap();
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
    let known = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    let name = known.split(' ').next().unwrap();
    // The server has an Ed25519 key and an RSA key; known is an ECDSA one.
    keygen(&[
        "-q",
        "-t",
        "ecdsa",
        "-N",
        "",
        "-f",
        &text(sshd.path("ecdsa")),
    ]);
    let other = fs::read_to_string(sshd.path("ecdsa.pub")).unwrap();
    fs::write(sshd.path("known_hosts"), format!("{name} {other}")).unwrap();
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

#[tokio::test]
async fn a_dropped_stream_ends_the_program_on_the_server() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let fifo = sshd.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("/bin/sh -c 'exec 3>{}; echo up; exec cat'", fifo.display());
    let pipe = tokio::net::unix::pipe::OpenOptions::new()
        .open_receiver(&fifo)
        .unwrap();
    let mut link = connect(&running(&sshd, &script)).await.unwrap();
    link.stream.read_exact(&mut [0; 3]).await.unwrap();
    drop(link);
    pipe.readable().await.unwrap();
    assert_eq!(pipe.try_read(&mut [0; 1]).unwrap(), 0);
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
async fn a_password_is_asked_for_again_and_then_remembered() {
    let server = Server::start(Rules {
        password: Some("right"),
        ..Rules::default()
    })
    .await;
    let person = Person::who_says(&["wrong", "right"]);
    let mut plan = plan(&target(server.port), person.prompter()).await;
    let mut link = dial(&plan).await.unwrap();
    link.stream.read_exact(&mut [0; 7]).await.unwrap();
    plan.prompter = Prompter::NOBODY;
    dial(&plan).await.unwrap();
    assert_eq!(
        server.seen(),
        ["password wrong", "password right", "password right"]
    );
    let questions = person.questions();
    assert_eq!(questions[0], "me@127.0.0.1's password: ");
    assert_eq!(
        questions[1],
        "Permission denied, please try again.\nme@127.0.0.1's password: "
    );
}

#[tokio::test]
async fn passwords_are_asked_for_as_often_as_the_settings_say() {
    let server = Server::start(Rules {
        password: Some("right"),
        ..Rules::default()
    })
    .await;
    let person = Person::who_says(&["a", "b", "c"]);
    let mut target = target(server.port);
    target
        .ssh_options
        .push(("NumberOfPasswordPrompts".into(), "2".into()));
    let error = dial(&plan(&target, person.prompter()).await)
        .await
        .err()
        .unwrap();
    assert_eq!(server.seen(), ["password a", "password b"]);
    let expected = "me@127.0.0.1: Permission denied (password); tried password (wrong)";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_given_password_is_offered_without_a_question() {
    let rules = Rules {
        password: Some("right"),
        ..Rules::default()
    };
    let server = Server::start(rules).await;
    let mut target = target(server.port);
    target.password = Secret::new(&mut b"right".to_vec());
    connect(&target).await.unwrap();
    assert_eq!(server.seen(), ["password right"]);
}

#[tokio::test]
async fn without_anybody_to_ask_that_is_told() {
    let server = Server::start(Rules {
        password: Some("right"),
        ..Rules::default()
    })
    .await;
    let error = why_not(&target(server.port)).await;
    assert!(
        error.contains("password (there is nobody to ask)"),
        "{error}"
    );
    assert_eq!(server.seen(), [""; 0]);
}

const TWO: [(&str, bool, &str); 2] = [("Password: ", false, "right"), ("Code: ", true, "123")];

#[tokio::test]
async fn all_questions_of_a_server_are_answered() {
    let server = Server::start(Rules {
        interview: TWO.to_vec(),
        ..Rules::default()
    })
    .await;
    let person = Person::who_says(&["right", "666", "right", "123"]);
    dial(&plan(&target(server.port), person.prompter()).await)
        .await
        .unwrap();
    assert_eq!(server.seen(), ["answers right,666", "answers right,123"]);
    let questions = person.questions();
    assert_eq!(questions[0], "Door\nSay it.\n(me@127.0.0.1) Password: ");
    assert_eq!(questions[1], "(me@127.0.0.1) Code: ");
}

#[tokio::test]
async fn a_given_password_answers_the_question_for_it() {
    let interview = vec![("Password: ", false, "right")];
    let server = Server::start(Rules {
        interview,
        ..Rules::default()
    })
    .await;
    let mut target = target(server.port);
    target.password = Secret::new(&mut b"right".to_vec());
    connect(&target).await.unwrap();
    assert_eq!(server.seen(), ["answers right"]);
}

#[tokio::test]
async fn a_server_may_want_two_proofs() {
    let rules = Rules {
        password: Some("first"),
        interview: TWO.to_vec(),
        both: true,
        ..Rules::default()
    };
    let server = Server::start(rules).await;
    let person = Person::who_says(&["first", "right", "123"]);
    let mut plan = plan(&target(server.port), person.prompter()).await;
    dial(&plan).await.unwrap();
    assert_eq!(server.seen(), ["password first", "answers right,123"]);
    // Nothing is asked again, as far as the server takes the same answers.
    plan.prompter = Prompter::NOBODY;
    dial(&plan).await.unwrap();
}

#[tokio::test]
async fn no_password_is_sent_to_a_server_whose_key_changed() {
    let server = Server::start(Rules {
        password: Some("right"),
        ..Rules::default()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    keygen(&[
        "-t",
        "ed25519",
        "-N",
        "",
        "-f",
        &text(folder.path().join("other")),
    ]);
    let other = fs::read_to_string(folder.path().join("other.pub")).unwrap();
    fs::write(&known, format!("[127.0.0.1]:{} {other}", server.port)).unwrap();
    let mut target = target(server.port);
    target
        .ssh_options
        .retain(|(key, _)| key != "UserKnownHostsFile");
    target
        .ssh_options
        .push(("UserKnownHostsFile".into(), text(known)));
    target.password = Secret::new(&mut b"right".to_vec());
    let error = why_not(&target).await;
    assert!(
        error.contains("password (not sent: the host key has changed)"),
        "{error}"
    );
    assert_eq!(server.seen(), [""; 0]);
}

#[tokio::test]
async fn a_server_gets_no_agent() {
    let rules = Rules {
        password: Some("right"),
        wants_agent: true,
        ..Rules::default()
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
    let port = Server::start_apart(Rules {
        password: Some("right"),
        ..Rules::default()
    });
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

#[tokio::test]
async fn a_server_that_ends_the_login_is_told() {
    let rules = Rules {
        password: Some("right"),
        attempts_max: Some(1),
        ..Rules::default()
    };
    let server = Server::start(rules).await;
    let person = Person::who_says(&["a", "b", "c"]);
    let error = dial(&plan(&target(server.port), person.prompter()).await)
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("the server ended the login: "),
        "{error}"
    );
}
