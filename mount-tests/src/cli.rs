//! What was typed.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::mount::Transport;
use crate::runner::Choice;

/// The command line, understood.
pub struct Cli {
    /// What to run.
    pub choice: Choice,
    /// Only print what there is.
    pub list: bool,
    /// Leave the folder for looking at it.
    pub keep: bool,
    /// Mount with this instead of sftpfs.
    pub with: Option<String>,
    /// `demo`: show, do not test.
    pub demo: bool,
}

/// Parses; prints and exits on `--help` and on what it does not know.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    let on = text(&matches, "on");
    let wanted: Vec<String> = matches
        .get_many::<String>("suite")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let full = matches.get_flag("full");
    let seed = matches.get_one::<u64>("seed").copied();
    // A run that others wait for fails for a reason of its own, not because of today's dice.
    let seed = seed.unwrap_or_else(|| if full { seed_of_the_day() } else { SEED });
    Cli {
        demo: wanted.iter().any(|word| word == "demo"),
        choice: Choice {
            wanted,
            transports: transports(&matches),
            on_mount: on != "directory",
            on_directory: on != "mount",
            seed,
            full,
        },
        list: matches.get_flag("list"),
        keep: matches.get_flag("keep"),
        with: matches.get_one::<String>("with").cloned(),
    }
}

fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    Command::new("cargo mount-tests")
        .about("Real mounts of a real OpenSSH server. SFTPFS=path mounts with that binary.")
        .arg(
            Arg::new("suite")
                .value_name("SUITE")
                .num_args(0..)
                .help("suites to run, or SUITE::PART of a case's name, or `demo`; all if none"),
        )
        .arg(
            option(
                "transport",
                "WAY",
                "a way to the server, instead of each suite's own choice",
            )
            .value_parser(["russh", "openssh", "ssh2", "command", "auto", "all"]),
        )
        .arg(
            option("on", "PLACE", "where to run")
                .value_parser(["mount", "directory", "both"])
                .default_value("both"),
        )
        .arg(
            option(
                "seed",
                "N",
                "for random choices; always the same if not given, a new one with --full",
            )
            .value_parser(clap::value_parser!(u64)),
        )
        .arg(option(
            "with",
            "COMMAND",
            "mount with this instead, e.g. sshfs, to try the tests",
        ))
        .arg(flag("full", "take the time a thorough run needs"))
        .arg(flag("list", "print suites and cases, run nothing"))
        .arg(flag("keep", "leave the folder with all files behind"))
}

fn transports(matches: &ArgMatches) -> Option<Vec<Transport>> {
    match matches.get_one::<String>("transport")?.as_str() {
        "russh" => Some(vec![Transport::Russh]),
        "openssh" => Some(vec![Transport::OpenSsh]),
        "ssh2" => Some(vec![Transport::Ssh2]),
        "command" => Some(vec![Transport::Command]),
        "all" => Some(Transport::ALL.to_vec()),
        _ => Some(vec![Transport::Auto]),
    }
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// Failed once: fallocate(2) of a range that is there moves mtime.
const SEED: u64 = 1_795_365_331;

fn seed_of_the_day() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| since.as_secs())
}
