//! What was typed behind `bench`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::works::Work;

/// The command line, understood.
pub struct Cli {
    /// Round trip time of the link.
    pub rtt: Duration,
    /// Rate of the link, each way, in Mbit/s; 0 is as fast as it goes.
    pub mbit: u32,
    /// The part of the packets that is lost, 0 to 1.
    pub loss: f64,
    /// Works or rows to measure; all if empty.
    pub work: Vec<String>,
    /// What is measured beside sftpfs.
    pub against: Vec<String>,
    /// Other builds of sftpfs, as NAME=PATH[:OPTION,...].
    pub also: Vec<String>,
    /// Options of the sftpfs under test.
    pub options: Vec<String>,
    /// How often everything is measured.
    pub rounds: usize,
    /// After this long with a work, a system gets no further round of it.
    pub patience: Duration,
    /// After this long, a measurement counts as not finished.
    pub limit: Duration,
    /// Files in the tree of small files, instead of as many as suit the delay.
    pub files: Option<u32>,
    /// MiB of the large file, instead of 1024.
    pub big: Option<u32>,
    /// Entries of the wide directory, instead of 100,000.
    pub wide: Option<u32>,
    /// Small sizes.
    pub quick: bool,
    /// Where everything measured is written to.
    pub json: Option<PathBuf>,
    /// Only print the works.
    pub list: bool,
    /// Leave the folder.
    pub keep: bool,
    /// Measure nothing: the JSON files to make a table of.
    pub report: Vec<PathBuf>,
    /// Where the report's picture is written to.
    pub plot: Option<PathBuf>,
}

impl Cli {
    /// Whether a work, or one of its rows, was asked for.
    pub fn wants(&self, work: &Work) -> bool {
        let is_named = |name: &str| self.work.iter().any(|wanted| wanted == name);
        self.work.is_empty() || is_named(work.name) || work.steps.iter().any(|s| is_named(s.row))
    }
}

/// Parses; prints and exits on `--help` and on what it does not know.
pub fn parse(words: impl Iterator<Item = OsString>) -> Cli {
    let name = OsString::from("cargo mount-tests bench");
    let matches = command().get_matches_from(std::iter::once(name).chain(words));
    let number = |name: &str| matches.get_one::<f64>(name).copied();
    let seconds = |name: &str| Duration::from_secs_f64(number(name).unwrap_or(0.0).max(0.0));
    let rtt = Duration::from_secs_f64(number("rtt").unwrap_or(0.0).max(0.0) / 1000.0);
    Cli {
        rtt,
        mbit: matches.get_one("mbit").copied().unwrap_or(0),
        loss: number("loss").unwrap_or(0.0).clamp(0.0, 1.0),
        work: list(&matches, "work"),
        against: list(&matches, "against"),
        also: list(&matches, "also"),
        options: list(&matches, "option"),
        rounds: matches.get_one("rounds").copied().unwrap_or(3),
        patience: seconds("patience"),
        limit: seconds("limit"),
        files: matches.get_one("files").copied(),
        big: matches.get_one("big").copied(),
        wide: matches.get_one("wide").copied(),
        quick: matches.get_flag("quick"),
        json: matches.get_one::<PathBuf>("json").cloned(),
        list: matches.get_flag("list"),
        keep: matches.get_flag("keep"),
        report: matches
            .get_many::<PathBuf>("report")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        plot: matches.get_one::<PathBuf>("plot").cloned(),
    }
}

fn list(matches: &ArgMatches, name: &str) -> Vec<String> {
    let given = matches.get_many::<String>(name).into_iter().flatten();
    given.cloned().collect()
}

fn command() -> Command {
    Command::new("cargo mount-tests bench")
        .about("Times the same work on sftpfs and others. SFTPFS=path measures that binary.")
        .args(the_link())
        .args(what_to_measure())
        .args(how_much())
        .args(files())
        .arg(flag("list", "print what there is to measure"))
        .arg(flag("keep", "leave the folder with all files behind"))
}

fn the_link() -> [Arg; 3] {
    [
        option("rtt", "MS", "round trip time of the link")
            .value_parser(value_parser!(f64))
            .default_value("0"),
        option("mbit", "N", "rate of the link each way; 0: as it goes")
            .value_parser(value_parser!(u32))
            .default_value("0"),
        option("loss", "P", "part of the packets that is lost")
            .value_parser(value_parser!(f64))
            .default_value("0"),
    ]
}

fn what_to_measure() -> [Arg; 4] {
    let systems = [
        "sshfs", "rclone", "ssh", "sftp", "scp", "local", "all", "none",
    ];
    [
        option(
            "work",
            "NAME",
            "what to measure; all if not given, see --list",
        )
        .value_delimiter(',')
        .action(ArgAction::Append),
        option("against", "SYSTEM", "beside sftpfs; none: only sftpfs")
            .value_delimiter(',')
            .value_parser(systems)
            .default_value("sshfs,ssh"),
        option(
            "also",
            "NAME=PATH[:OPTIONS]",
            "another build of sftpfs, beside the others",
        )
        .action(ArgAction::Append),
        option("option", "OPTION", "an option of sftpfs' mount").action(ArgAction::Append),
    ]
}

fn how_much() -> [Arg; 7] {
    [
        option("rounds", "N", "how often everything is measured")
            .value_parser(value_parser!(usize)),
        option(
            "patience",
            "S",
            "no further round of what has taken longer than this",
        )
        .value_parser(value_parser!(f64))
        .default_value("8"),
        option(
            "limit",
            "S",
            "a command that takes longer than this has not finished",
        )
        .value_parser(value_parser!(f64))
        .default_value("120"),
        option(
            "files",
            "N",
            "small files, instead of as many as suit the delay",
        )
        .value_parser(value_parser!(u32).range(40..)),
        option("big", "MIB", "size of the large file").value_parser(value_parser!(u32).range(1..)),
        option("wide", "N", "entries of the wide directory")
            .value_parser(value_parser!(u32).range(1..)),
        flag("quick", "small sizes, to try the benchmark itself"),
    ]
}

fn files() -> [Arg; 3] {
    let file = |name: &'static str, help: &'static str| {
        option(name, "FILE", help).value_parser(value_parser!(PathBuf))
    };
    [
        file("json", "write everything measured there"),
        file(
            "report",
            "measure nothing: make README's table of such files",
        )
        .num_args(1..)
        .action(ArgAction::Append),
        file("plot", "with --report: draw the picture there (SVG)").requires("report"),
    ]
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help);
    arg.action(ArgAction::SetTrue)
}
