//! A control socket and who asks there, over a server in memory.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::client::Client;
use crate::fs::Config;
use crate::status::{Silence, State};
use crate::testing::{Options, Server};

/// A mount without a kernel, and its control socket.
struct Mounted {
    folder: TempDir,
    fs: Arc<Filesystem>,
    questions: Questions,
    control: Option<Control>,
    runtime: Runtime,
}

fn mounted() -> Mounted {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let fs = runtime.block_on(async {
        let server = Server::new(Options::default());
        let client = Client::over(server.link()).await.unwrap();
        Filesystem::new(client, b"", Config::default())
            .await
            .unwrap()
    });
    let mut mounted = Mounted {
        folder: tempfile::tempdir().unwrap(),
        fs,
        questions: Questions::default(),
        control: None,
        runtime,
    };
    mounted.control = Some(mounted.start());
    mounted
}

impl Mounted {
    fn start(&self) -> Control {
        let subject = Subject {
            fs: Arc::clone(&self.fs),
            questions: self.questions.clone(),
            server: "eve@nas".to_owned(),
            network: self.runtime.handle().clone(),
        };
        Control::start(&self.place(), subject).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("0:7.control")
    }

    fn place(&self) -> Place {
        Place {
            sockets: vec![self.folder.path().join("no/such"), self.socket()],
            owner: geteuid(),
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream
    }
}

/// Everything up to the end of the stream, which the mount must bring about.
fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    // A client that is hung up on may see that as an error.
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn a_mount_tells_how_it_is() {
    let mounted = mounted();
    let told = status(&mounted.place()).unwrap();
    assert_eq!(told.state, State::Connected);
    assert_eq!(told.server, "eve@nas");
    assert_eq!(told.process, u64::from(std::process::id()));
}

#[test]
fn only_its_owner_may_open_the_socket() {
    let mounted = mounted();
    let about = fs::symlink_metadata(mounted.socket()).unwrap();
    assert_eq!(about.permissions().mode() & 0o7777, 0o600);
    assert_eq!(about.uid(), geteuid().as_raw());
}

#[test]
fn nobody_but_the_mounts_user_is_believed() {
    let mounted = mounted();
    let mut place = mounted.place();
    place.owner = nix::unistd::Uid::from_raw(geteuid().as_raw() + 1);
    assert!(status(&place).is_err());
}

#[test]
fn a_socket_goes_with_its_mount_and_not_with_another_one() {
    let mut mounted = mounted();
    // A later mount has the same number.
    let next = mounted.start();
    mounted.control = None;
    assert!(status(&mounted.place()).is_ok());
    drop(next);
    assert!(!mounted.socket().exists());
    let silence = status(&mounted.place()).unwrap_err();
    assert_eq!(silence, Silence::NoSocket);
}

#[test]
fn what_a_killed_process_left_says_that_it_is_gone() {
    let mounted = mounted();
    fs::remove_file(mounted.socket()).unwrap();
    // Dropped, it stays: as after SIGKILL.
    drop(std::os::unix::net::UnixListener::bind(mounted.socket()).unwrap());
    assert_eq!(status(&mounted.place()), Err(Silence::Gone));
}

#[test]
fn a_process_that_does_not_answer_is_not_waited_for_long() {
    let mounted = mounted();
    fs::remove_file(mounted.socket()).unwrap();
    let _stopped = std::os::unix::net::UnixListener::bind(mounted.socket()).unwrap();
    assert_eq!(status(&mounted.place()), Err(Silence::Mute));
}

#[test]
fn clients_that_talk_nonsense_or_not_at_all_are_let_go() {
    let mounted = mounted();
    let silent = mounted.connect();
    let mut endless = mounted.connect();
    let _ = endless.write_all(&vec![b'x'; 2 * socket::LINE_LEN_MAX]);
    assert_eq!(rest(endless), "");
    let mut foreign = mounted.connect();
    foreign.write_all(b"GET / HTTP/1.0\r\n").unwrap();
    assert_eq!(rest(foreign), "what?\nend\n");
    assert_eq!(rest(silent), "");
}

#[test]
fn a_crowd_of_clients_is_turned_away_and_later_ones_are_answered() {
    let mounted = mounted();
    let mut crowd: Vec<_> = (0..30).map(|_| mounted.connect()).collect();
    let last = crowd.pop().unwrap();
    // At once, and not when those before it have had their time.
    assert_eq!(rest(last), "");
    drop(crowd);
    while status(&mounted.place()).is_err() {
        thread::yield_now();
    }
}

#[test]
fn a_question_of_a_login_is_asked_where_somebody_wants_a_connection() {
    let mounted = mounted();
    let mut stream = mounted.connect();
    stream.write_all(b"reconnect asking\n").unwrap();
    let questions = mounted.questions.clone();
    let asking = thread::spawn(move || {
        loop {
            // Nobody is there before the mount has heard the request.
            if let Some(answer) = questions.ask("Door\nPassword: ".into(), false) {
                return answer;
            }
            thread::yield_now();
        }
    });
    let mut asked = [0; 28];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"ask hidden Door\\nPassword: \n");
    stream.write_all(b"+sesame\n").unwrap();
    assert_eq!(asking.join().unwrap().bytes(), b"sesame");
    let report = rest(stream);
    assert!(report.starts_with("state connected\n") && report.ends_with("end\n"));
    // Nobody is there any more.
    assert!(mounted.questions.ask("?".into(), true).is_none());
}

#[test]
fn who_leaves_while_a_try_is_made_is_not_waited_for() {
    let mounted = mounted();
    let mut stream = mounted.connect();
    stream.write_all(b"reconnect asking\n").unwrap();
    while !mounted.questions.are_taken() {
        thread::yield_now();
    }
    drop(stream);
    while mounted.questions.are_taken() {
        thread::yield_now();
    }
}
