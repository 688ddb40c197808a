//! `cargo mount-tests [SUITE...]`: real mounts of a real SFTP server, tried case by case. Each
//! case also runs on a plain directory, which proves the case itself.

mod bench;
mod case;
mod cli;
mod demo;
mod lab;
mod link;
mod logind;
mod mount;
mod process;
mod report;
mod runner;
mod server;
mod suites;
mod sys;
mod wire;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;

use lab::Lab;
use mount::Program;
use report::Report;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    match first.as_ref().and_then(|word| word.to_str()) {
        Some("wire") => return wire::be_the_pipe(words),
        Some("link") => return link::be_the_link(words),
        Some("bench") => return bench::main(words),
        Some(bench::READERS) => return bench::be_the_readers(words),
        _ => (),
    }
    let cli = cli::parse();
    let suites = suites::all();
    if let Some(unknown) = unknown_suite(&cli.choice.wanted, &suites) {
        eprintln!("mount-tests: there is no suite {unknown}; --list shows them");
        return ExitCode::from(2);
    }
    if cli.list {
        list(&suites);
        return ExitCode::SUCCESS;
    }
    if let Err(why) = sys::adopt_orphans().and_then(|()| clean_up_at_a_signal(cli.keep)) {
        eprintln!("mount-tests: cannot watch over processes: {why}");
        return ExitCode::FAILURE;
    }
    let ended = run(&cli, &suites);
    lab::clean_up(cli.keep);
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mount-tests: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(cli: &cli::Cli, suites: &[case::Suite]) -> Result<bool, String> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let source = source
        .canonicalize()
        .map_err(|why| format!("{}: {why}", source.display()))?;
    let program = program(cli.with.as_deref(), &source)?;
    let lab = Arc::new(Lab::new(program, source)?);
    if cli.demo {
        return demo::show(&lab).map(|()| true);
    }
    println!("seed {}, folder {}", cli.choice.seed, lab.dir.display());
    let mut report = Report::default();
    runner::run(&lab, suites, &cli.choice, &mut report);
    Ok(report.finish())
}

/// What mounts: `--with`, the variable SFTPFS, or the workspace's own binary, built now.
fn program(with: Option<&str>, source: &Path) -> Result<Program, String> {
    if let Some(command) = with {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        return if words.is_empty() {
            Err("--with is empty".into())
        } else {
            Ok(Program::Other(words))
        };
    }
    if let Some(path) = std::env::var_os("SFTPFS") {
        let path = PathBuf::from(path);
        let path = path
            .canonicalize()
            .map_err(|why| format!("SFTPFS={}: {why}", path.display()))?;
        return Ok(Program::Sftpfs(path));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--package", "sftpfs", "--bin", "sftpfs"])
        .current_dir(source);
    let status = build
        .stdin(Stdio::null())
        .status()
        .map_err(|why| format!("cargo: {why}"))?;
    if !status.success() {
        return Err("sftpfs does not build".into());
    }
    let exe = std::env::current_exe().map_err(|why| why.to_string())?;
    // Both binaries of the workspace are built into the same place, but for --release.
    let target = exe
        .ancestors()
        .nth(2)
        .unwrap_or(source)
        .join("debug/sftpfs");
    if target.exists() {
        Ok(Program::Sftpfs(target))
    } else {
        Err(format!("no {}", target.display()))
    }
}

fn unknown_suite<'a>(wanted: &'a [String], suites: &[case::Suite]) -> Option<&'a str> {
    wanted
        .iter()
        .map(|wanted| wanted.split("::").next().unwrap_or(wanted))
        .find(|name| *name != "demo" && !suites.iter().any(|suite| suite.name == *name))
}

fn list(suites: &[case::Suite]) {
    for suite in suites {
        println!("{}: {}", suite.name, suite.about);
        for case in &suite.cases {
            println!("  {}::{}", suite.name, case.name);
        }
    }
}

/// Ctrl-C and SIGTERM leave nothing behind either.
pub fn clean_up_at_a_signal(keep: bool) -> std::io::Result<()> {
    let (mut ours, handlers) = UnixStream::pair()?;
    sys::signals_become_bytes(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP], handlers)?;
    std::thread::spawn(move || {
        let mut signal = [0];
        if ours.read_exact(&mut signal).is_ok() {
            eprintln!("\nmount-tests: signal {}: cleaning up", signal[0]);
            lab::clean_up(keep);
            std::process::exit(128 + i32::from(signal[0]));
        }
    });
    Ok(())
}
