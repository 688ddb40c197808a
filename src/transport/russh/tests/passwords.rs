//! Passwords, and what else a server may ask a person.

use std::fs;

use tokio::io::AsyncReadExt;

use super::{connect, keygen, plan, target, text, why_not};
use crate::transport::prompt::Person;
use crate::transport::russh::dial;
use crate::transport::russh::test_server::{Rules, Server};
use crate::transport::secrets::{Prompter, Secret};

#[tokio::test]
async fn a_password_is_asked_for_again_and_then_remembered() {
    let server = Server::start(Rules::password("right")).await;
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
    let server = Server::start(Rules::password("right")).await;
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
    let rules = Rules::password("right");
    let server = Server::start(rules).await;
    let mut target = target(server.port);
    target.password = Secret::new(&mut b"right".to_vec());
    connect(&target).await.unwrap();
    assert_eq!(server.seen(), ["password right"]);
}

#[tokio::test]
async fn without_anybody_to_ask_that_is_told() {
    let server = Server::start(Rules::password("right")).await;
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
    let server = Server::start(Rules::password("right")).await;
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
async fn a_server_that_ends_the_login_is_told() {
    let rules = Rules {
        attempts_max: Some(1),
        ..Rules::password("right")
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
