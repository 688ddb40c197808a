//! `mount-tests link [--rtt MS] [--mbit N] [--loss P] [--seed N] -- COMMAND...`: runs a program at
//! the near end of a link, for trying things by hand.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Link, Shape, sys as link_sys};
use crate::{process, sys};

const USAGE: &str = "\
usage: mount-tests link [--rtt MS] [--mbit N] [--loss SHARE] [--seed N] [--always] -- COMMAND...
  --rtt MS      milliseconds there and back (0)
  --mbit N      megabits a second each way (0: no cap)
  --loss SHARE  share of packets lost each way, 0 to 1 (0)
  --seed N      which ones (1)
  --always      a link even if all of that is 0
COMMAND finds the address of the far end in FAR_ADDR and its network namespace in FAR_NETNS (for
nsenter --net=). SIGUSR1 to this process, $LINK_PID, stalls the link and ends the stall, SIGUSR2
cuts all connections.";

/// What was asked for.
struct Wanted {
    shape: Shape,
    always: bool,
    command: Vec<OsString>,
}

/// The whole program `mount-tests link`.
pub fn be_the_link(words: impl Iterator<Item = OsString>) -> ExitCode {
    let wanted = match parse(words) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("mount-tests link: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&wanted) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("mount-tests link: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Wanted, String> {
    let mut shape = Shape {
        seed: 1,
        ..Shape::NOTHING
    };
    let mut always = false;
    while let Some(word) = words.next() {
        let word = word.to_string_lossy().into_owned();
        match word.as_str() {
            "--" => {
                let command: Vec<OsString> = words.collect();
                return if command.is_empty() {
                    Err("there is no COMMAND".into())
                } else {
                    Ok(Wanted {
                        shape,
                        always,
                        command,
                    })
                };
            }
            "--always" => always = true,
            "--rtt" => {
                let ms: f64 = number(&word, words.next())?;
                shape.rtt = Duration::try_from_secs_f64(ms / 1e3)
                    .map_err(|why| format!("--rtt {ms}: {why}"))?;
            }
            "--mbit" => shape.mbit = number(&word, words.next())?,
            "--seed" => shape.seed = number(&word, words.next())?,
            "--loss" => {
                shape.loss = number(&word, words.next())?;
                if !(0.0..=1.0).contains(&shape.loss) {
                    return Err(format!("--loss {}: it is a share, 0 to 1", shape.loss));
                }
            }
            _ => return Err(format!("{word}: what is that?")),
        }
    }
    Err("there is no -- COMMAND".into())
}

fn number<T: std::str::FromStr>(option: &str, word: Option<OsString>) -> Result<T, String> {
    word.and_then(|word| word.to_str()?.parse().ok())
        .ok_or_else(|| format!("{option} wants a number"))
}

fn run(wanted: &Wanted) -> Result<ExitCode, String> {
    let link = if wanted.always {
        Link::with_devices(wanted.shape)
    } else {
        Link::new(wanted.shape)
    };
    let link = link.map_err(|why| why.to_string())?;
    let (mut signals, handlers) = UnixStream::pair().map_err(|why| why.to_string())?;
    let ours = [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGCHLD,
    ];
    sys::signals_become_bytes(&ours, handlers).map_err(|why| why.to_string())?;
    let [program, arguments @ ..] = wanted.command.as_slice() else {
        return Err("there is no COMMAND".into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("FAR_ADDR", link.far_address().to_string())
        .env("FAR_NETNS", link.far().pid_or_path())
        .env("LINK_PID", std::process::id().to_string());
    link.near().enter(&mut command);
    link_sys::die_with_parent(&mut command);
    let started = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|why| format!("{}: {why}", program.display()))?;
    let mut is_stalled = false;
    let status = loop {
        if let Ok(Some(status)) = child.try_wait() {
            break status;
        }
        let mut signal = [0];
        signals
            .read_exact(&mut signal)
            .map_err(|why| why.to_string())?;
        obey(i32::from(signal[0]), &link, &mut is_stalled, &child);
    };
    tell(&link, started.elapsed());
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn obey(signal: i32, link: &Link, is_stalled: &mut bool, child: &Child) {
    match Signal::try_from(signal) {
        Ok(Signal::SIGUSR1 | Signal::SIGUSR2) if link.is_direct() => {
            eprintln!("link: nothing to stall or cut without --rtt, --mbit, --loss or --always");
        }
        Ok(Signal::SIGUSR1) => {
            *is_stalled = !*is_stalled;
            link.stall(*is_stalled);
            eprintln!("link: {}", if *is_stalled { "stalled" } else { "goes on" });
        }
        Ok(Signal::SIGUSR2) => {
            link.cut();
            eprintln!("link: cut");
        }
        Ok(Signal::SIGTERM) => process::signal(child.id().cast_signed(), Signal::SIGTERM),
        // The terminal has sent SIGINT to COMMAND as well; SIGCHLD says that it may have ended.
        _ => {}
    }
}

fn tell(link: &Link, took: Duration) {
    let meter = link.meter();
    let seconds = took.as_secs_f64();
    if link.is_direct() {
        let (bytes, packets) = (meter.up_bytes, meter.up_packets);
        eprintln!("link: {seconds:.3} s, {bytes} bytes in {packets} packets both ways");
        return;
    }
    let [up, down] = link.thread_times();
    eprintln!(
        "link: {seconds:.3} s, up {} bytes in {} packets, down {} bytes in {} packets, {} turns, \
         chain of {} round trips, link's CPU {:.3} s",
        meter.up_bytes,
        meter.up_packets,
        meter.down_bytes,
        meter.down_packets,
        meter.turns,
        meter.chain,
        (up + down).as_secs_f64()
    );
}
