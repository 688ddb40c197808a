//! The mount's end of the control socket.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::geteuid;
use tokio::runtime::Handle;

use super::Subject;
use super::place::{Identity, Place, look};
use super::socket::{Line, PATIENCE, listener};
use crate::client::{Health, Standing};
use crate::clock;
use crate::fs::Filesystem;
use crate::status::{Report, State};
use crate::transport::{Listener, Question, Questions, Secret};

/// Answers on a mount's control socket until it is dropped.
pub(crate) struct Control {
    listener: Arc<UnixListener>,
    path: PathBuf,
    identity: Option<Identity>,
}

/// What the threads share.
struct Desk {
    /// Not what keeps the mount's files open.
    fs: Weak<Filesystem>,
    questions: Questions,
    server: String,
    network: Handle,
    clients: AtomicUsize,
    /// Threads that gather a report.
    gathering: AtomicUsize,
}

impl Control {
    /// Answers at the first of the places that can be used.
    ///
    /// # Errors
    /// None can.
    pub(crate) fn start(place: &Place, subject: Subject) -> io::Result<Self> {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for path in &place.sockets {
            // One that a killed process left behind: device numbers are used again.
            let _ = fs::remove_file(path);
            match listener(path) {
                Ok(listener) => return Self::answer(Arc::new(listener), path, subject),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    fn answer(listener: Arc<UnixListener>, path: &Path, subject: Subject) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            fs: Arc::downgrade(&subject.fs),
            questions: subject.questions,
            server: subject.server,
            network: subject.network,
            clients: AtomicUsize::new(0),
            gathering: AtomicUsize::new(0),
        });
        let taken = Arc::clone(&listener);
        let control = Self {
            listener,
            path: path.to_owned(),
            identity: look(path).ok().map(|(identity, _)| identity),
        };
        let thread = thread::Builder::new().name("sftpfs-control".into());
        thread.spawn(move || take_clients(&taken, &desk))?;
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // By now it may be another mount's, which got the same device number.
        if look(&self.path).ok().map(|(identity, _)| identity) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
        // The thread's accept(2) ends with EINVAL.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

fn take_clients(listener: &UnixListener, desk: &Arc<Desk>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => take(stream, desk),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            // Too many open files, or a client that has left: the next one may have more luck.
            Err(error) => {
                log::debug!("control socket: {error}");
                thread::park_timeout(REST);
            }
        }
    }
}

fn take(stream: UnixStream, desk: &Arc<Desk>) {
    let desk = Arc::clone(desk);
    if desk.clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
        desk.clients.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let counted = Arc::clone(&desk);
    let work = move || {
        if let Err(error) = attend(stream, &desk) {
            log::debug!("control socket: {error}");
        }
        desk.clients.fetch_sub(1, Ordering::SeqCst);
    };
    let thread = thread::Builder::new().name("sftpfs-client".into());
    if thread.spawn(work).is_err() {
        counted.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One client, from its request to the last line.
fn attend(stream: UnixStream, desk: &Arc<Desk>) -> io::Result<()> {
    let mut line = Line::of(stream)?;
    let peer = line.peer()?;
    if !peer.is_root() && peer != geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    match line.hear(PATIENCE)?.as_slice() {
        b"status" => {}
        b"reconnect" => try_now(&mut line, desk, None)?,
        // Without a listener, another client is being asked already.
        b"reconnect asking" => try_now(&mut line, desk, desk.questions.take())?,
        _ => return line.say(b"what?\nend\n"),
    }
    if let Some(report) = desk.report() {
        line.say(report.encode().as_bytes())?;
    }
    line.say(b"end\n")
}

impl Desk {
    /// What there is to tell; `None` if it cannot be gathered, because what is needed is locked.
    fn report(self: &Arc<Self>) -> Option<Report> {
        if self.gathering.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
            self.gathering.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let (tell, told) = sync_channel(1);
        let desk = Arc::clone(self);
        let work = move || {
            let report = desk.gather();
            desk.gathering.fetch_sub(1, Ordering::SeqCst);
            // Nobody waits for one that took too long.
            let _ = tell.send(report);
        };
        let thread = thread::Builder::new().name("sftpfs-report".into());
        if thread.spawn(work).is_err() {
            self.gathering.fetch_sub(1, Ordering::SeqCst);
        }
        told.recv_timeout(GATHER_MAX).ok()
    }

    fn gather(&self) -> Report {
        let Some(fs) = self.fs.upgrade() else {
            return report(None, 0, (0, None), &self.server);
        };
        report(
            Some(fs.health()),
            fs.unwritten(),
            fs.waits().now(),
            &self.server,
        )
    }

    fn health(&self) -> Option<Health> {
        self.fs.upgrade().map(|fs| fs.health())
    }
}

/// `None` of health: the mount has ended.
fn report(
    health: Option<Health>,
    unwritten: usize,
    (waiting, longest): (usize, Option<Duration>),
    server: &str,
) -> Report {
    let health = health.unwrap_or(Health {
        standing: Standing::Ended,
        since: UNIX_EPOCH,
        reconnects: 0,
        connections: 0,
        outstanding: 0,
        oldest: None,
        last_error: None,
    });
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Report {
        state: match health.standing {
            Standing::Connected => State::Connected,
            Standing::Reconnecting => State::Reconnecting,
            Standing::Denied => State::Denied,
            Standing::Ended => State::Ended,
        },
        since: since_1970(health.since),
        server: server.to_owned(),
        reconnects: health.reconnects,
        connections: number(health.connections),
        outstanding: number(health.outstanding),
        oldest: health.oldest,
        waiting: number(waiting),
        longest,
        unwritten: number(unwritten),
        last_error: health
            .last_error
            .map(|(when, what)| (since_1970(when), what.to_string())),
        process: u64::from(std::process::id()),
    }
}

fn since_1970(when: SystemTime) -> Duration {
    when.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Has a try made, hands on what it asks, and waits until it is known how it went.
fn try_now(line: &mut Line, desk: &Desk, listener: Option<Listener>) -> io::Result<()> {
    let (Some(mut before), Some(fs)) = (desk.health(), desk.fs.upgrade()) else {
        return Ok(());
    };
    let start = clock::now();
    let network = desk.network.enter();
    fs.check_connection();
    drop(network);
    drop(fs);
    let mut until = start + TRY_MAX;
    while clock::now() < until {
        if pass_on(line, listener.as_ref())? {
            until = clock::now() + TRY_MAX;
        }
        let Some(now) = desk.health() else { break };
        if is_settled(&before, &now, start.elapsed_by_clock()) {
            break;
        }
        if before.standing == Standing::Connected && now.standing != Standing::Connected {
            // The check has found it lost: now the tries begin.
            before = now;
        }
    }
    Ok(())
}

/// Waits a moment for a question, and has the client answer it. Whether there was one.
fn pass_on(line: &mut Line, listener: Option<&Listener>) -> io::Result<bool> {
    let Some(listener) = listener else {
        line.stays(GLANCE)?;
        return Ok(false);
    };
    let Some(question) = listener.next(GLANCE) else {
        line.stays(Duration::ZERO)?;
        return Ok(false);
    };
    let answer = put(line, &question)?;
    if let Some(answer) = answer {
        question.answer(answer);
    }
    Ok(true)
}

fn put(line: &mut Line, question: &Question) -> io::Result<Option<Secret>> {
    let how = if question.echo { "shown" } else { "hidden" };
    // One line of several: see `ask::question_of`.
    let text = question.text.replace('\\', "\\\\").replace('\n', "\\n");
    line.say(format!("ask {how} {text}\n").as_bytes())?;
    let mut said = line.hear(PERSON_MAX)?;
    match said.split_first_mut() {
        Some((b'+', answer)) => Ok(Secret::new(answer)),
        _ => Ok(None),
    }
}

/// Whether what was found out since `before` tells how a try went that began `elapsed` ago.
fn is_settled(before: &Health, now: &Health, elapsed: Duration) -> bool {
    let has_failed = now.last_error != before.last_error;
    match now.standing {
        Standing::Connected if before.standing != Standing::Connected => true,
        // It was there all the time if nothing that was asked before waits any more.
        Standing::Connected => {
            now.since != before.since
                || (elapsed >= CHECK && now.oldest.is_none_or(|oldest| oldest < elapsed))
        }
        Standing::Reconnecting => has_failed && before.standing != Standing::Connected,
        Standing::Denied => has_failed || before.standing != Standing::Denied,
        Standing::Ended => true,
    }
}

trait Elapsed {
    fn elapsed_by_clock(self) -> Duration;
}

impl Elapsed for Instant {
    fn elapsed_by_clock(self) -> Duration {
        clock::now().saturating_duration_since(self)
    }
}

/// People and scripts at once; a flood is none of them.
const CLIENTS_MAX: usize = 8;

/// What is gathered takes microseconds unless a lock is stuck.
const GATHER_MAX: Duration = Duration::from_secs(1);

/// How long a try may take: as long as connecting to a server that is far and busy.
const TRY_MAX: Duration = Duration::from_secs(30);

/// How long a person may think.
const PERSON_MAX: Duration = Duration::from_secs(120);

/// A question to the server was surely sent after this time.
const CHECK: Duration = Duration::from_secs(1);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(100);

/// Before accept(2) is tried again.
const REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn health(standing: Standing) -> Health {
        Health {
            standing,
            since: UNIX_EPOCH,
            reconnects: 0,
            connections: 1,
            outstanding: 0,
            oldest: None,
            last_error: None,
        }
    }

    fn failed(standing: Standing) -> Health {
        Health {
            last_error: Some((UNIX_EPOCH, "refused".into())),
            ..health(standing)
        }
    }

    #[test]
    fn a_try_is_over_when_its_outcome_is_known() {
        use Standing::{Connected, Denied, Ended, Reconnecting};
        let soon = Duration::from_millis(10);
        let late = Duration::from_secs(3);
        let still = |before: &Health, now: &Health, elapsed| !is_settled(before, now, elapsed);
        assert!(is_settled(&health(Reconnecting), &health(Connected), soon));
        assert!(is_settled(
            &health(Reconnecting),
            &failed(Reconnecting),
            soon
        ));
        assert!(still(&health(Reconnecting), &health(Reconnecting), late));
        assert!(is_settled(&health(Denied), &failed(Denied), soon));
        assert!(still(&failed(Denied), &failed(Denied), late));
        assert!(is_settled(&failed(Reconnecting), &failed(Denied), soon));
        assert!(is_settled(&health(Connected), &health(Ended), soon));
        // The loss itself is no outcome.
        assert!(still(&health(Connected), &failed(Reconnecting), soon));
    }

    #[test]
    fn a_connection_that_answers_was_there_all_the_time() {
        let connected = health(Standing::Connected);
        assert!(!is_settled(
            &connected,
            &connected,
            Duration::from_millis(10)
        ));
        assert!(is_settled(&connected, &connected, Duration::from_secs(2)));
        let waiting = Health {
            oldest: Some(Duration::from_secs(9)),
            ..connected.clone()
        };
        assert!(!is_settled(&connected, &waiting, Duration::from_secs(2)));
    }

    #[test]
    fn a_mount_that_has_ended_says_so() {
        let told = report(None, 0, (0, None), "eve@nas");
        assert_eq!(
            (told.state, told.server.as_str()),
            (State::Ended, "eve@nas")
        );
    }
}
