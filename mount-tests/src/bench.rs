//! `cargo mount-tests bench`: times the same work on sftpfs, sshfs, rclone and on plain ssh, over
//! a link of chosen delay and rate.

mod attached;
mod cli;
mod content;
mod cost;
mod figures;
pub mod host;
mod medians;
mod mixed;
mod plot;
mod readers;
mod report;
mod show;
mod site;
mod size;
mod system;
mod timed;
mod trial;
mod works;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

pub use readers::{READERS, be_the_readers};

use crate::{lab, process, sys};
use cli::Cli;
use figures::Run;
use site::Site;
use system::System;
use works::Work;

/// The whole subcommand: the exit code says whether sftpfs did everything right. What others cannot
/// do, such as keep modes, is only told.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = cli::parse(words);
    if cli.list {
        show::list(&works::all());
        return ExitCode::SUCCESS;
    }
    if !cli.report.is_empty() {
        return match report::make(&cli.report, cli.plot.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("mount-tests: {why}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(why) = sys::adopt_orphans().and_then(|()| crate::clean_up_at_a_signal(cli.keep)) {
        eprintln!("mount-tests: cannot watch over processes: {why}");
        return ExitCode::FAILURE;
    }
    wait_while_all_is_taken_down();
    let measured = measure(&cli);
    lab::clean_up(cli.keep);
    match measured {
        Ok(run) if !run.has_failed("sftpfs") => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mount-tests: {why}");
            ExitCode::FAILURE
        }
    }
}

/// After a signal another thread takes everything down and ends the program. Whatever breaks here
/// because of it has nothing more to say.
fn wait_while_all_is_taken_down() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        while process::is_ending() {
            std::thread::park();
        }
        usual(panic);
    }));
}

/// Measures, prints and writes the JSON file.
fn measure(cli: &Cli) -> Result<Run, String> {
    let works: Vec<Work> = works::all()
        .into_iter()
        .filter(|work| cli.wants(work))
        .collect();
    let systems = system::chosen(cli)?;
    let site = Site::start(cli)?;
    let mut run = Run::new(cli, &site, &systems);
    show::settings(&run);
    for work in &works {
        // The next works may succeed, and what was measured before must not be lost.
        if let Err(why) = measure_work(cli, &site, work, &systems, &mut run) {
            run.note_failure(work.name, &why);
        }
        site.tidy_up(cli.keep)?;
        run.load_at_end = figures::load();
        if let Some(file) = &cli.json {
            fs::write(file, run.to_json()).map_err(|why| format!("{}: {why}", file.display()))?;
        }
    }
    show::summary(&run);
    Ok(run)
}

/// All rounds of one work, the systems in another order each time, so that what else happens on
/// this machine hits all of them alike.
fn measure_work(
    cli: &Cli,
    site: &Site,
    work: &Work,
    systems: &[System],
    run: &mut Run,
) -> Result<(), String> {
    (work.prepare)(site).map_err(|why| format!("cannot prepare {}: {why}", work.name))?;
    for round in 0..cli.rounds {
        for place in 0..systems.len() {
            let system = &systems[(place + round) % systems.len()];
            if !work.is_for(system) || run.is_settled(work, system, cli.patience) {
                continue;
            }
            for measurement in trial::run(site, system, work, round, cli.limit) {
                assert!(!process::is_ending(), "everything is being taken down");
                show::measurement(&measurement);
                run.measurements.push(measurement);
            }
        }
    }
    Ok(())
}
