//! `cargo mount-tests demo`: a private server is mounted, real work is done in the mount and
//! shown, and everything is taken down again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::mount::Transport;
use crate::process;

/// Shows it; stops at the first command that fails.
pub fn show(lab: &Arc<Lab>) -> Result<(), String> {
    let at = lab.dir.join("mnt/demo");
    let mut plan = lab.plan(Transport::Auto, &lab.export());
    plan.at.clone_from(&at);
    fs::write(
        lab.export().join("greeting.txt"),
        "Hello from the server.\n",
    )
    .map_err(|why| why.to_string())?;
    say("A private SSH server runs on loopback, with keys of its own. Mount its directory:");
    echo(&plan.command());
    let started = Instant::now();
    let mut mount = plan.mount()?;
    say(&format!(
        "mounted and answering after {} ms",
        started.elapsed().as_millis()
    ));
    let source = sources(lab);
    for (what, command) in steps() {
        say(what);
        let sftpfs = lab.program.command().get_program().to_owned();
        let command = command.replace("$SFTPFS", &sftpfs.to_string_lossy());
        shell(&command, &at, &source)?;
    }
    say("The server has it all:");
    shell(
        "ls -l $SERVER; diff -r project $SERVER/project && echo 'no difference'",
        &at,
        &lab.export(),
    )?;
    say("Unmount; the daemon ends when everything is written:");
    let mut umount = lab.program.command();
    umount.arg("umount").arg(&at);
    echo(&umount);
    process::must_run(&mut umount, Duration::from_secs(30));
    mount.expect_end()?;
    say("Nothing is left: no mount, no process.");
    Ok(())
}

/// What is done in the mount, and why.
fn steps() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "What is there, and how much room:",
            "cat greeting.txt; ls -la; df -h .",
        ),
        (
            "Copy a source tree in, with modes and times:",
            "cp -a $SERVER project; find project -type f | wc -l; du -sh project",
        ),
        (
            "A big file, there and back:",
            "dd if=/dev/urandom of=big bs=1M count=64 conv=fsync status=none; ls -l big; sha256sum big",
        ),
        (
            "A copy, made by the server, and a tree of copies:",
            "time cp big copy; cmp big copy && echo same; $SFTPFS cp -av project project2 | tail -1; \
             diff -r project project2 && echo same; $SFTPFS info .; rm -r copy project2",
        ),
        (
            "Version control:",
            "git init -q repo && cd repo && cp -r ../project/. . && git add -A && \
             git -c user.name=Demo -c user.email=demo@localhost commit -q -m 'First commit' && \
             git log --stat --oneline | tail -3 && git status --short && git gc -q && git fsck",
        ),
        (
            "Archives:",
            "tar -czf project.tar.gz project && tar -tzf project.tar.gz | wc -l && ls -l project.tar.gz",
        ),
        (
            "A database:",
            "sqlite3 data.db 'CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT \
             i+1 FROM n WHERE i<1000) INSERT INTO t SELECT i FROM n; SELECT sum(x) FROM t; PRAGMA integrity_check'",
        ),
        (
            "Links, renames and permissions:",
            "ln -s greeting.txt soft; ln greeting.txt hard; mv project renamed; mv renamed project; chmod 600 big; stat -c '%A %h %n' soft hard big",
        ),
        (
            "Errors are the right ones:",
            "mkdir project || rmdir project || cat missing || true",
        ),
        ("Clean up:", "rm -rf repo big data.db project.tar.gz; ls"),
    ]
}

/// The tree that is copied in: this program's own sources, if they are there.
fn sources(lab: &Lab) -> PathBuf {
    lab.source.join("src")
}

fn shell(command: &str, at: &Path, named: &Path) -> Result<(), String> {
    println!(
        "$ {}",
        command.replace("$SERVER", &named.display().to_string())
    );
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(at)
        .env("SERVER", named);
    // git shall not look at the settings of whoever runs this.
    shell
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let status = shell
        .stdin(Stdio::null())
        .status()
        .map_err(|why| format!("bash: {why}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command}: {status}"))
    }
}

fn echo(command: &Command) {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    println!("$ {}", words.join(" "));
}

fn say(text: &str) {
    println!("\n# {text}");
}
