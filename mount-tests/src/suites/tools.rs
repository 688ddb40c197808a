//! Programs that several suites run: of crates.io, built once into `target/tools`, and git.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::case::Ctx;
use crate::process;

/// The program of a crate, installed if it is not there yet. Skips the case if it cannot be had.
pub(super) fn installed(ctx: &Ctx, name: &str, version: &str) -> PathBuf {
    let root = ctx.lab.source.join("target/tools");
    let path = root.join("bin").join(name);
    if says_version(&path, version) {
        return path;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut install = Command::new(cargo);
    install
        .args(["install", "--quiet", "--locked", "--root"])
        .arg(&root);
    install.args([name, "--version", version]);
    install.env("CARGO_TARGET_DIR", root.join("build"));
    let finished = process::run(&mut install, Duration::from_secs(580));
    if !finished.ok() {
        let why = process::tail(&finished.said(), 3);
        ctx.skip(format!(
            "{name} {version} cannot be installed: {}: {why}",
            finished.ending()
        ));
    }
    path
}

fn says_version(path: &Path, version: &str) -> bool {
    path.exists()
        && process::run(Command::new(path).arg("--version"), Duration::from_secs(10))
            .out
            .trim()
            .ends_with(version)
}

/// git with a configuration of its own, as the user's may sign, hook or rename.
pub(super) fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir);
    for setting in [
        "user.name=Tests",
        "user.email=tests@localhost",
        "safe.directory=*",
        "gc.auto=0",
    ] {
        command.args(["-c", setting]);
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}
