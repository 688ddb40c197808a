//! What cases about copies do to files again and again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;

/// Runs a program by its words, and paths behind them.
pub(super) fn run(words: &[&str], paths: &[&Path]) -> process::Finished {
    let mut command = Command::new(words[0]);
    command.env("LC_ALL", "C").args(&words[1..]).args(paths);
    process::run(&mut command, LIMIT)
}

/// The same for one that must not fail.
#[track_caller]
pub(super) fn must(words: &[&str], paths: &[&Path]) {
    let finished = run(words, paths);
    assert!(finished.ok(), "{words:?} {paths:?}: {}", finished.said());
}

pub(super) fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// No program that is run here takes more than seconds.
const LIMIT: Duration = Duration::from_secs(60);
