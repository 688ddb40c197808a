//! `sftpfs reconnect` on a terminal: who is there is asked, once, and may leave by Ctrl-C.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::case::Ctx;
use crate::mount::{Plan, mount_with};
use crate::process::{self, Finished};
use crate::server::Server;

/// Runs a program on a terminal of its own; argument for argument is typed when it asks for a
/// passphrase.
const ON_A_TERMINAL: &str = r#"
import os, pty, select, signal, sys
end = sys.argv.index("--")
typed, words = sys.argv[1:end], sys.argv[end + 1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(words[0], words)
seen, since, status = b"", 0, None
while status is None:
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            status = os.waitpid(pid, 0)[1]
            break
    if typed and b"passphrase" in seen[since:]:
        since = len(seen)
        os.write(terminal, typed.pop(0).encode())
    ended, how = os.waitpid(pid, os.WNOHANG)
    status = how if ended else None
sys.stdout.write(seen.decode("utf-8", "replace"))
sys.stdout.flush()
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.WEXITSTATUS(status))
"#;

fn on_a_terminal(typed: &[&str], command: &Command) -> Command {
    let mut all = Command::new("python3");
    all.args(["-c", ON_A_TERMINAL]).args(typed).arg("--");
    all.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    all
}

/// As often as a person was asked.
fn questions(finished: &Finished) -> usize {
    finished.out.matches("passphrase").count()
}

pub(super) fn reconnect_asks_once_on_its_terminal_and_ctrl_c_ends_it(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let python = process::run(Command::new("python3").arg("--version"), PATIENCE);
    if !python.ok() {
        ctx.skip("there is no python3 here");
    }
    let server = Server::start(&ctx.lab.fresh("sshd")).unwrap();
    let key = ctx.lab.fresh("key");
    fs::copy(server.user_key(), &key).unwrap();
    let mut change = Command::new("ssh-keygen");
    change.args(["-q", "-p", "-P", "", "-N", SECRET, "-f"]);
    process::must_run(change.arg(&key), PATIENCE);
    let at = ctx.lab.fresh("mnt/asked");
    fs::create_dir(&at).unwrap();
    let plan = Plan::new(&ctx.lab.program, &server, ctx.transport, &ctx.behind, &at)
        .env("XDG_STATE_HOME", ctx.lab.dir.join("state"))
        .option("reconnect_secret=ask")
        .key(key);
    let typed = format!("{SECRET}\n");
    let mount = mount_with(&mut on_a_terminal(&[&typed], &asking(&plan)), &at).unwrap();
    fs::write(ctx.behind.join("f"), "content").unwrap();
    server.signal_sessions(Signal::SIGKILL);
    until_it_says(ctx, &at, "does not let us in");
    let mut reconnect = ctx.lab.program.command();
    reconnect.arg("reconnect").arg(&at);
    let left = process::run(&mut on_a_terminal(&["\x03"], &reconnect), PATIENCE);
    let signal = left.status.and_then(|status| status.signal());
    assert_eq!(
        signal,
        Some(libc::SIGINT),
        "{}: {}",
        left.ending(),
        left.said()
    );
    assert_eq!(questions(&left), 1, "{}", left.said());
    let told = process::run(
        &mut on_a_terminal(&["wrong\n", &typed], &reconnect),
        PATIENCE,
    );
    assert_eq!(told.code(), Some(0), "{}: {}", told.ending(), told.said());
    assert!(told.out.contains(": connected for "), "{}", told.said());
    assert_eq!(questions(&told), 2, "{}", told.said());
    assert_eq!(fs::read(at.join("f")).unwrap(), b"content");
    mount.unmount().unwrap();
}

/// The plan's command, for somebody who is there.
fn asking(plan: &Plan) -> Command {
    let batch = plan.command();
    let mut command = Command::new(batch.get_program());
    for word in batch.get_args() {
        match word.to_str() {
            Some("BatchMode=yes") => command.arg("BatchMode=no"),
            _ => command.arg(word),
        };
    }
    for (name, value) in batch.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("SSH_ASKPASS");
    command
}

fn until_it_says(ctx: &Ctx, at: &Path, words: &str) {
    let mut said = String::new();
    let end = std::time::Instant::now() + PATIENCE;
    let done = process::wait_for(end, || {
        let mut status = ctx.lab.program.command();
        let told = process::run(status.arg("status").arg(at), PATIENCE);
        said = told.said();
        said.contains(words).then_some(())
    });
    assert!(done.is_some(), "it does not say {words:?}: {said}");
}

const SECRET: &str = "open sesame";
const PATIENCE: Duration = Duration::from_secs(40);
