//! The network swallows everything for a while, sshd is killed and started again, or the server is
//! stopped: programs wait, and go on as soon as it is back.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::super::site::content;
use super::place::Place;
use super::random::{Measure, SHORT, under};
use super::watch::{BACK_OFF, Told, hold, watched};
use super::works::WORKS;
use crate::bench::host::Host;
use crate::case::{Case, Ctx, case};
use crate::link::{Link, Shape};
use crate::mount::{Plan, mount_in_foreground};
use crate::process;
use crate::server::Server;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (seconds, long) in [(5, false), (60, true)] {
        for (busy, when) in [(true, "under_load"), (false, "while_idle")] {
            let name =
                format!("the_first_access_after_{seconds}_s_without_network_{when}_is_prompt");
            all.push(
                case(move |ctx| black_hole(ctx, seconds, busy, long))
                    .called(name)
                    .on_mount_only()
                    .within_s(400),
            );
        }
    }
    all.extend([
        case(a_large_upload_goes_on_soon_after_a_cut)
            .on_mount_only()
            .within_s(400),
        case(programs_go_on_when_sshd_is_killed_and_started_again).within_s(3600),
        case(programs_wait_while_the_server_is_stopped).within_s(3600),
    ]);
    all
}

/// A mount at the near end of a link, of a server at its far end.
struct Linked {
    // In the order in which they are to end.
    place: Place,
    _host: Host,
    link: Link,
}

impl Linked {
    fn new(ctx: &Ctx, rtt: Duration) -> Self {
        ctx.needs_root("to make a link between network namespaces");
        let shape = Shape {
            rtt,
            ..Shape::NOTHING
        };
        let link = match Link::with_devices(shape) {
            Ok(link) => link,
            Err(why) => ctx.skip(why.to_string()),
        };
        let host = Host::start(&ctx.lab.fresh("host"), &link).unwrap();
        let at = ctx.lab.fresh("mnt/hole");
        let log = ctx.lab.fresh("log");
        let mut command = ctx.lab.program.command();
        command.arg("-f").arg("-F").arg(host.ssh_config());
        if ctx.lab.program.is_sftpfs() {
            command.args(["-o", "negative_timeout=0"]);
        }
        let source = format!("bench:{}", ctx.behind.display());
        command.arg(source).arg(&at);
        command.env("XDG_STATE_HOME", ctx.lab.dir.join("state"));
        command
            .env("RUST_BACKTRACE", "1")
            .env_remove("SSH_AUTH_SOCK");
        link.near().enter(&mut command);
        let mount = mount_in_foreground(&mut command, &at, &log).unwrap();
        Self {
            place: Place::given(mount, &ctx.behind, &log),
            _host: host,
            link,
        }
    }
}

fn black_hole(ctx: &Ctx, seconds: u64, busy: bool, long: bool) {
    if long && !ctx.full {
        ctx.skip("takes more than a minute: --full");
    }
    let mut linked = Linked::new(ctx, Duration::from_millis(5));
    let place = &mut linked.place;
    fs::write(ctx.behind.join("fresh"), "never seen before").unwrap();
    fs::write(ctx.behind.join("known"), "seen before").unwrap();
    assert_eq!(
        fs::read_to_string(place.dir.join("known")).unwrap(),
        "seen before"
    );
    let load = busy.then(|| Load::start(place.dir.join("log")));
    if let Some(load) = &load {
        load.wait_for_more(5, "before");
    }
    linked.link.stall(true);
    // The network is gone for so long: that is what is tried, so nothing else tells the time.
    std::thread::sleep(Duration::from_secs(seconds));
    linked.link.stall(false);
    let back = Instant::now();
    let fresh = place.dir.join("fresh");
    watched(place, "the first access", BACK_OFF, move |_| {
        let text = fs::read_to_string(&fresh).told("read")?;
        hold(text == "never seen before", text)
    });
    let took = back.elapsed();
    ctx.note(format!(
        "{seconds} s without network; the first access took {took:.2?}"
    ));
    // TCP doubles the time between two tries: after 5 s the next one may come 3 s later, and a busy
    // machine takes longer. What is longer than the patience of both ends' TCP and keepalive finds a
    // new connection.
    let limit = if long { PROMPT } else { 5 * PROMPT };
    if took > limit {
        place.fail(&format!("the first access took {took:?}"));
    }
    if let Some(load) = load {
        load.wait_for_more(20, "after");
        let expected = load.stop();
        let found = fs::read(ctx.behind.join("log")).unwrap();
        if found != expected {
            let how = super::look::different(Some(&found), Some(&expected));
            place.fail(&format!("the log: {how}"));
        }
    }
    if long {
        // The server does not know that nobody is there any more at the other end of the connection
        // that was given up, and holds what was open there; a reset tells it.
        linked.link.cut();
    }
    linked.place.end(ctx);
}

/// Much is under way when the connection is lost: none of it waits for the rest of it.
fn a_large_upload_goes_on_soon_after_a_cut(ctx: &Ctx) {
    let mut linked = Linked::new(ctx, Duration::from_millis(150));
    let original = content("upload", UPLOAD);
    let behind = ctx.behind.join("upload");
    let (path, data) = (linked.place.dir.join("upload"), original.clone());
    let writer = std::thread::spawn(move || {
        let mut file = fs::File::create(path).told("create")?;
        file.write_all(&data).told("write")?;
        file.sync_all().told("fsync")
    });
    let has = |len: usize| {
        let there = || fs::metadata(&behind).map_or(0, |meta| meta.len()) >= len as u64;
        let end = Instant::now() + BACK_OFF;
        process::wait_for(end, || there().then_some(())).is_some()
    };
    // Many WRITEs are under way then, on several connections.
    if !has(UPLOAD / 3) {
        linked.place.fail("nothing arrives");
    }
    linked.link.cut();
    let cut = Instant::now();
    let arrived = fs::metadata(&behind).unwrap().len();
    let goes_on = has(usize::try_from(arrived).unwrap() + MORE);
    let took = cut.elapsed();
    ctx.note(format!("it goes on {took:.1?} after the cut"));
    if !goes_on || took > GOES_ON_WITHIN {
        linked
            .place
            .fail(&format!("it goes on {took:.1?} after the cut"));
    }
    let end = Instant::now() + 2 * BACK_OFF;
    if process::wait_for(end, || writer.is_finished().then_some(())).is_none() {
        linked
            .place
            .fail("the program that writes hangs after one cut");
    }
    if let Err(why) = writer.join().expect("no panic") {
        linked.place.fail(&why);
    }
    let found = fs::read(&behind).unwrap();
    if found != original {
        let how = super::look::different(Some(&found), Some(&original));
        linked.place.fail(&how);
    }
    linked.place.end(ctx);
}

/// A program that appends lines to a file, and fsyncs, without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    lines: Arc<Mutex<Result<u64, String>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let lines = Arc::new(Mutex::new(Ok(0)));
        let (its_stop, its_lines) = (Arc::clone(&stop), Arc::clone(&lines));
        let thread = std::thread::spawn(move || {
            let set = |lines| *its_lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
            let mut options = OpenOptions::new();
            let mut file = match options.append(true).create(true).open(path) {
                Ok(file) => file,
                Err(why) => return set(Err(why.to_string())),
            };
            for number in 0.. {
                if its_stop.load(Ordering::SeqCst) {
                    break;
                }
                let done = file.write_all(&line(number)).and_then(|()| {
                    if number % 10 == 9 {
                        file.sync_all()
                    } else {
                        Ok(())
                    }
                });
                match done {
                    Ok(()) => set(Ok(number + 1)),
                    Err(why) => return set(Err(format!("line {number}: {why}"))),
                }
            }
        });
        Self {
            stop,
            lines,
            thread,
        }
    }

    fn lines(&self) -> u64 {
        match &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(lines) => *lines,
            Err(why) => panic!("the program that writes got an error: {why}"),
        }
    }

    #[track_caller]
    fn wait_for_more(&self, count: u64, when: &str) {
        let before = self.lines();
        let more = process::wait_for(Instant::now() + BACK_OFF, || {
            (self.lines() >= before + count).then_some(())
        });
        assert!(
            more.is_some(),
            "{when} the network was gone: the program hangs"
        );
    }

    /// What the file must hold.
    fn stop(self) -> Vec<u8> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = process::wait_for(Instant::now() + BACK_OFF, || {
            self.thread.is_finished().then_some(())
        });
        assert!(ended.is_some(), "the program that writes hangs");
        (0..self.lines()).flat_map(line).collect()
    }
}

fn line(number: u64) -> Vec<u8> {
    let mut line = format!("line {number} ").into_bytes();
    line.extend(
        content("line", 3)
            .iter()
            .flat_map(|byte| format!("{byte:x}").into_bytes()),
    );
    line.push(b'\n');
    line
}

/// Another sshd than the lab's, which is not to be killed.
fn own_server(ctx: &Ctx) -> (Place, Option<Arc<Mutex<Server>>>) {
    if !ctx.on_mount {
        return (Place::plain(ctx), None);
    }
    let server = Server::start(&ctx.lab.fresh("sshd")).unwrap();
    let at = ctx.lab.fresh("mnt/own");
    fs::create_dir(&at).unwrap();
    let mut plan = Plan::new(&ctx.lab.program, &server, ctx.transport, &ctx.behind, &at)
        .env("XDG_STATE_HOME", ctx.lab.dir.join("state"));
    if ctx.lab.program.is_sftpfs() {
        plan = plan.option("negative_timeout=0");
    }
    let log = ctx.lab.fresh("log");
    let mount = super::place::mount_and_log(&plan, &log);
    let place = Place::given(mount, &ctx.behind, &log);
    (place, Some(Arc::new(Mutex::new(server))))
}

fn programs_go_on_when_sshd_is_killed_and_started_again(ctx: &Ctx) {
    let (place, server) = own_server(ctx);
    let measure = Measure {
        cuts: if ctx.full { 60 } else { 3 },
        ..SHORT
    };
    let its_server = server.clone();
    under(
        ctx,
        place,
        &WORKS[1..4],
        measure,
        700..2500,
        move |random| {
            let Some(server) = &its_server else {
                return false;
            };
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.kill();
            std::thread::sleep(Duration::from_millis(random.below(1500)));
            // A port that somebody took meanwhile would be a failure of the case, told by its works.
            server.start_again().is_ok()
        },
    );
    drop(server);
}

fn programs_wait_while_the_server_is_stopped(ctx: &Ctx) {
    let (place, server) = own_server(ctx);
    let measure = Measure {
        cuts: if ctx.full { 20 } else { 2 },
        ..SHORT
    };
    let its_server = server.clone();
    under(
        ctx,
        place,
        &WORKS[4..7],
        measure,
        500..1500,
        move |random| {
            let Some(server) = &its_server else {
                return false;
            };
            let server = server.lock().unwrap_or_else(PoisonError::into_inner);
            let stopped = server.signal_sessions(Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(1000 + random.below(3000)));
            server.signal_sessions(Signal::SIGCONT);
            stopped > 0
        },
    );
    drop(server);
}

/// Bytes, far more than a few WRITEs carry.
const UPLOAD: usize = 64 << 20;
/// More than what the server still got of the lost connections.
const MORE: usize = 2 << 20;
/// A login over a slow link, on a machine that has more to do.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
/// Of the issue: from the link's return to the first access' end.
const PROMPT: Duration = Duration::from_secs(2);
