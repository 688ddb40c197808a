//! A child `ssh` that speaks the sftp subsystem: for every setting of ssh_config(5) that the
//! built-in clients cannot follow.
//!
//! **When is it connected?** ssh says so in a line of its own at LogLevel VERBOSE ("Authenticated
//! to HOST ..."). [`dial`] waits for it, so that nobody's deadline runs while a person types a
//! password, and so that a refusal is an error of `dial` in ssh's own words. Where the line cannot
//! come (a shared connection is used, or what runs is no OpenSSH), the link is returned at once
//! and its diagnosis tells the same when the stream ends.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::askpass::{Askpass, Known};
use super::child::Child;
use super::host_config::{Settings, ssh_arguments, ssh_words};
use super::secrets::{Prompter, Secret};
use super::{Diagnosis, Link, Target, command};
use crate::error::{Error, Result};

/// Who answers what ssh asks.
pub(super) enum Answering {
    /// The person at the terminal, to ssh itself.
    Terminal,
    /// We do, with what is known, and by asking who can be asked.
    Us(Known, Prompter),
}

/// Starts ssh and waits until it has logged in. What we answered is put into `told`.
///
/// ssh asks on the terminal what it needs to know; Ctrl-C ends it, and with it the attempt. Or it
/// asks us, and we answer. An attempt that is made `again`, without a person, ends in time.
///
/// # Errors
/// [`Error::Denied`] or [`Error::Setup`] with ssh's last words if it ends before it has logged in.
pub(super) async fn dial(
    target: &Target,
    settings: &Settings,
    answering: Answering,
    again: bool,
    told: &mut Vec<(String, Secret)>,
) -> Result<Link> {
    let mut words = words(target, settings);
    let waits = settings.is_from_ssh() && settings.shared_connection().is_none();
    let askpass = match answering {
        Answering::Us(known, prompter) if waits => Some(Askpass::new(known, prompter)),
        _ => None,
    };
    let askpass = askpass
        .transpose()
        .map_err(|error| command::cannot_run(&words, &error))?;
    if askpass.as_ref().is_some_and(|askpass| !askpass.can_ask()) {
        // The answer to a second question would be an empty password.
        let at = ssh_words(target).len();
        words.insert(at, "-oNumberOfPasswordPrompts=1".into());
    }
    let mut command = command::prepare(&words)?;
    if let Some(askpass) = &askpass {
        askpass.equip(&mut command);
    }
    let answers = askpass.as_ref().map(Askpass::told);
    let diagnosis = Diagnosis::default();
    let (sender, logged_in) = oneshot::channel();
    let mut sender = Some(sender);
    let hear = move |line: &str| hear(line, &mut sender);
    let may_ask = askpass.is_none() && !again;
    let child = Child::start(command, "ssh".to_owned(), diagnosis.clone(), may_ask, hear);
    let Child { stream } = child.map_err(|error| command::cannot_run(&words, &error))?;
    let mut peer = format!("{} through ssh", target.host);
    if waits {
        match timeout(LOGIN_GRACE, serving(askpass, logged_in)).await {
            Ok(Ok(how)) => peer = format!("{how} through ssh"),
            Ok(Err(_)) => return Err(refused(target, &diagnosis)),
            Err(_) if again => return Err(late(target)),
            // An ssh that says it in other words, most likely; the stream will show.
            Err(_) => log::warn!("ssh has not said that it is logged in to {}", target.host),
        }
        told.extend(answers.map(|answers| answers.take()).unwrap_or_default());
    }
    Ok(Link {
        stream: Box::new(stream),
        peer,
        diagnosis,
    })
}

/// Waits for the login, and answers what ssh asks meanwhile.
async fn serving<T>(askpass: Option<Askpass>, logged_in: impl Future<Output = T>) -> T {
    let Some(askpass) = askpass else {
        return logged_in.await;
    };
    let mut logged_in = pin!(logged_in);
    tokio::select! {
        result = &mut logged_in => result,
        () = askpass.serve() => logged_in.await,
    }
}

/// Looks at a line of ssh's; whether it belongs into the diagnosis.
fn hear(line: &str, logged_in: &mut Option<oneshot::Sender<String>>) -> bool {
    if let Some(how) = line.strip_prefix("Authenticated to ") {
        if let Some(sender) = logged_in.take() {
            // Nobody waits where it is not expected.
            let _ = sender.send(how.trim_end_matches('.').to_owned());
        }
        return false;
    }
    if line.ends_with("please try again.") {
        // Between two questions of ssh's on the terminal: this one cannot wait for the end.
        log::warn!("ssh: {line}");
        return false;
    }
    !NOISE.iter().any(|noise| line.starts_with(noise))
}

/// Why ssh ended before it had logged in.
fn refused(target: &Target, diagnosis: &Diagnosis) -> Error {
    let said = diagnosis.text();
    let separator = if said.contains('\n') { "\n" } else { " " };
    diagnosis.failure(format!(
        "cannot connect to {}:{separator}{said}",
        target.host
    ))
}

fn late(target: &Target) -> Error {
    Error::setup(format!(
        "cannot connect to {}: ssh has not logged in within {} s",
        target.host,
        LOGIN_GRACE.as_secs()
    ))
}

/// The whole command line.
fn words(target: &Target, settings: &Settings) -> Vec<OsString> {
    let mut words = ssh_words(target);
    // The first value of an option wins, so ours stand first.
    words.extend(["-x", "-a", "-T", "-oClearAllForwardings=yes"].map(OsString::from));
    let mut set = |key: &str, value: &str| words.push(format!("-o{key}={value}").into());
    let (interval, count) = settings.server_alive();
    set("ServerAliveInterval", &interval.as_secs().to_string());
    set("ServerAliveCountMax", &count.to_string());
    set(
        "ConnectTimeout",
        &settings.connect_timeout().as_secs().to_string(),
    );
    let level = settings.get("loglevel").unwrap_or_default();
    if !level.starts_with("VERBOSE") && !level.starts_with("DEBUG") {
        set("LogLevel", "VERBOSE");
    }
    // What would take standard input and output away from SFTP; each is named only if it is set,
    // because an older ssh does not know all of them.
    for (key, value) in [
        ("StdinNull", "no"),
        ("ForkAfterAuthentication", "no"),
        ("RemoteCommand", "none"),
    ] {
        let is_harmless = |set: &str| set.eq_ignore_ascii_case("no");
        if settings
            .get(&key.to_ascii_lowercase())
            .is_some_and(|set| !is_harmless(set))
        {
            set(key, value);
        }
    }
    words.extend(ssh_arguments(target, target.config_file.as_deref()));
    match target.sftp_server.as_deref() {
        // A program is run by the user's shell there, as with ssh(1).
        Some(program) if program.contains('/') => {
            words.extend(["--", &target.host, program].map(OsString::from));
        }
        subsystem => {
            let name = subsystem.unwrap_or("sftp");
            words.extend(["-s", "--", &target.host, name].map(OsString::from));
        }
    }
    words
}

/// Lines of LogLevel VERBOSE and DEBUG that explain no failure.
const NOISE: [&str; 4] = [
    "Transferred: ",
    "Bytes per second: ",
    "debug",
    "Pseudo-terminal ",
];

/// sshd's own default for how long a login may take (sshd_config(5), LoginGraceTime).
const LOGIN_GRACE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::test_link::greet;
    use super::super::test_sshd::Sshd;
    use super::*;

    async fn connect(target: &Target) -> Result<Link> {
        let settings = Settings::resolve(target).await?;
        dial_with(target, &settings).await
    }

    async fn dial_with(target: &Target, settings: &Settings) -> Result<Link> {
        let nobody = Answering::Terminal;
        dial(target, settings, nobody, false, &mut Vec::new()).await
    }

    async fn why_not(target: &Target) -> String {
        connect(target)
            .await
            .err()
            .expect("it connected")
            .to_string()
    }

    #[tokio::test]
    async fn a_real_server_answers_init_with_version() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let mut link = connect(&sshd.target()).await.unwrap();
        assert!(
            link.peer.contains("using \"publickey\" through ssh"),
            "{}",
            link.peer
        );
        greet(&mut link).await;
        assert_eq!(link.diagnosis.text(), "");
    }

    #[tokio::test]
    async fn a_program_on_the_server_is_run_in_place_of_the_subsystem() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let sftp_server = Some("/usr/lib/openssh/sftp-server -e".to_owned());
        let target = Target {
            sftp_server,
            ..sshd.target()
        };
        greet(&mut connect(&target).await.unwrap()).await;
    }

    #[tokio::test]
    async fn settings_that_would_take_the_stream_away_are_overridden() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let mut target = sshd.target_with("RemoteCommand", "echo broken");
        let more = [
            ("StdinNull", "yes"),
            ("ForkAfterAuthentication", "yes"),
            ("LogLevel", "QUIET"),
        ];
        target
            .ssh_options
            .extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut link = connect(&target).await.unwrap();
        assert!(link.peer.contains("using"), "{}", link.peer);
        greet(&mut link).await;
    }

    #[tokio::test]
    async fn a_wrong_key_is_told_in_ssh_s_words() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let stranger = sshd.path("stranger").display().to_string();
        let why = why_not(&sshd.target_with("IdentityFile", &stranger)).await;
        assert!(why.starts_with("cannot connect to 127.0.0.1: "), "{why}");
        assert!(why.contains("Permission denied (publickey"), "{why}");
    }

    #[tokio::test]
    async fn an_unknown_host_is_told_in_ssh_s_words() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let why = why_not(&sshd.target_with("UserKnownHostsFile", "/dev/null")).await;
        assert!(why.contains("Host key verification failed."), "{why}");
    }

    #[tokio::test]
    async fn a_changed_host_key_is_told_in_all_of_ssh_s_words() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        sshd.is_known_by("stranger.pub");
        let why = why_not(&sshd.target()).await;
        assert!(
            why.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"),
            "{why}"
        );
        assert!(
            why.contains("SHA256:") && why.contains("known_hosts:2"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_refused_port_is_told_in_ssh_s_words() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        // Nobody may listen on it.
        let target = Target {
            port: Some(1),
            ..sshd.target()
        };
        let why = why_not(&target).await;
        assert_eq!(
            why,
            "cannot connect to 127.0.0.1: \
             ssh: connect to host 127.0.0.1 port 1: Connection refused"
        );
    }

    #[tokio::test]
    async fn a_missing_subsystem_is_told_when_the_stream_ends() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let target = Target {
            sftp_server: Some("nosuch".to_owned()),
            ..sshd.target()
        };
        let mut link = connect(&target).await.unwrap();
        let mut bytes = Vec::new();
        link.stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"");
        let said = link.diagnosis.text();
        assert!(said.contains("subsystem request failed"), "{said}");
    }

    #[tokio::test]
    async fn a_shared_connection_is_used() {
        let Some(sshd) = Sshd::start(&[]) else { return };
        let path = sshd.path("master").display().to_string();
        let mut target = sshd.target_with("ControlPath", &path);
        target
            .ssh_options
            .push(("ControlMaster".to_owned(), "auto".to_owned()));
        let mut first = connect(&target).await.unwrap();
        greet(&mut first).await;
        // The first is the master; with no key, only through it a second can get in.
        let none = sshd.path("nothing").display().to_string();
        for option in &mut target.ssh_options {
            if option.0 == "IdentityFile" {
                option.1.clone_from(&none);
            }
        }
        let settings = Settings::resolve(&target).await.unwrap();
        assert_eq!(settings.shared_connection(), Some(path.as_str()));
        let mut second = dial_with(&target, &settings).await.unwrap();
        greet(&mut second).await;
    }

    #[test]
    fn the_host_stands_behind_all_options() {
        let target = Target {
            host: "h".to_owned(),
            ..Target::default()
        };
        let settings = Settings::assumed(&target);
        let words = words(&target, &settings);
        assert_eq!(
            words[words.len() - 4..],
            ["-s", "--", "h", "sftp"].map(OsString::from)
        );
    }
}
