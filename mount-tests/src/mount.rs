//! Mounts with the program under test and unmounts again, also after a panic, and looks whether
//! anything was left behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use crate::process::{self, Finished};
use crate::server::{Server, sftp_server_path};

/// A way to the server, as `-o transport=` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Auto,
    Russh,
    OpenSsh,
    Ssh2,
    Command,
}

impl Transport {
    /// All that are different from each other; `auto` is one of these.
    pub const ALL: [Self; 4] = [Self::Russh, Self::OpenSsh, Self::Ssh2, Self::Command];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Russh => "russh",
            Self::OpenSsh => "openssh",
            Self::Ssh2 => "ssh2",
            Self::Command => "command",
        })
    }
}

/// What mounts.
#[derive(Debug, Clone)]
pub enum Program {
    /// Ours.
    Sftpfs(PathBuf),
    /// Another one with sshfs' command line (`--with sshfs`), to try the tests themselves.
    Other(Vec<String>),
}

impl Program {
    /// The command without arguments.
    pub fn command(&self) -> Command {
        match self {
            Self::Sftpfs(path) => Command::new(path),
            Self::Other(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                command
            }
        }
    }

    /// Whether it is the one these tests are about.
    pub fn is_sftpfs(&self) -> bool {
        matches!(self, Self::Sftpfs(_))
    }
}

/// What to mount, where and how. A builder; every part has a working default.
#[derive(Debug, Clone)]
pub struct Plan {
    program: Program,
    transport: Transport,
    host: String,
    directory: PathBuf,
    /// Where.
    pub at: PathBuf,
    key: PathBuf,
    known_hosts: PathBuf,
    port: u16,
    options: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Plan {
    /// A mount of `directory` at `at` that should work.
    pub fn new(
        program: &Program,
        server: &Server,
        transport: Transport,
        directory: &Path,
        at: &Path,
    ) -> Self {
        Self {
            program: program.clone(),
            transport,
            host: format!("{}@127.0.0.1", server.user),
            directory: directory.to_owned(),
            at: at.to_owned(),
            key: server.user_key(),
            known_hosts: server.known_hosts(),
            port: server.port,
            options: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// One more `-o`.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// One more argument, before the source.
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// One more variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Another directory of the server.
    pub fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Another `user@host`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Another port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Another private key.
    pub fn key(mut self, key: PathBuf) -> Self {
        self.key = key;
        self
    }

    /// Another known_hosts file.
    pub fn known_hosts(mut self, file: PathBuf) -> Self {
        self.known_hosts = file;
        self
    }

    /// Another command that speaks SFTP, or does not.
    pub fn sftp_command(mut self, command: &str) -> Self {
        self.transport = Transport::Command;
        self.option(format!("sftp_command={command}"))
    }

    /// What stands before the mountpoint on the command line.
    pub fn source(&self) -> OsString {
        let mut source = OsString::from(&self.host);
        source.push(":");
        source.push(&self.directory);
        source
    }

    /// All options, as one `-o` takes them.
    pub fn options(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.transport == Transport::Command && self.program.is_sftpfs() {
            let given = self
                .options
                .iter()
                .any(|option| option.starts_with("sftp_command="));
            if let (false, Some(path)) = (given, sftp_server_path()) {
                all.push(format!("sftp_command={}", path.display()));
            }
        } else {
            all.extend([
                format!("IdentityFile={}", self.key.display()),
                "IdentitiesOnly=yes".into(),
                format!("UserKnownHostsFile={}", self.known_hosts.display()),
                "GlobalKnownHostsFile=/dev/null".into(),
                "StrictHostKeyChecking=yes".into(),
                "BatchMode=yes".into(),
            ]);
            if self.program.is_sftpfs() {
                all.push(format!("transport={}", self.transport));
            }
        }
        all.extend(self.options.iter().cloned());
        all
    }

    /// The whole command.
    pub fn command(&self) -> Command {
        let mut command = self.program.command();
        if self.transport != Transport::Command || !self.program.is_sftpfs() {
            command.args(["-F", "none", "-p", &self.port.to_string()]);
        }
        for option in self.options() {
            command.args(["-o", &option]);
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(&self.arguments)
            .arg(self.source())
            .arg(&self.at);
        command
    }

    /// Runs it without expecting anything.
    pub fn attempt(&self) -> Finished {
        process::run(&mut self.command(), MOUNT_LIMIT)
    }

    /// Mounts; the program has gone to the background and the mount answers.
    pub fn mount(&self) -> Result<Mount, String> {
        mount_with(&mut self.command(), &self.at)
    }
}

/// Mounts with a command that goes to the background when the mount answers.
pub fn mount_with(command: &mut Command, at: &Path) -> Result<Mount, String> {
    fs::create_dir_all(at).map_err(|why| format!("{}: {why}", at.display()))?;
    let before = process::children();
    let finished = process::run(command, MOUNT_LIMIT);
    let daemons: Vec<i32> = process::children()
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| !before.iter().any(|(old, _)| old == pid))
        .collect();
    let mount = Mount {
        at: at.to_owned(),
        daemons,
        ended: false,
    };
    if !finished.ok() {
        return Err(format!(
            "{command:?}: {}: {}",
            finished.ending(),
            finished.said()
        ));
    }
    if !is_mounted(at) {
        return Err(format!("exit code 0, but {} is not mounted", at.display()));
    }
    Ok(mount)
}

/// Mounts with a command that stays in the foreground; what it logs goes to a file.
#[expect(
    clippy::zombie_processes,
    reason = "the mount's end waits for it, as for a daemon"
)]
pub fn mount_in_foreground(command: &mut Command, at: &Path, log: &Path) -> Result<Mount, String> {
    fs::create_dir_all(at).map_err(|why| format!("{}: {why}", at.display()))?;
    let file = fs::File::create(log).map_err(|why| format!("{}: {why}", log.display()))?;
    let copy = file.try_clone().map_err(|why| why.to_string())?;
    command.stdout(copy).stderr(file);
    let child = process::start(command);
    let pid = child.id().cast_signed();
    let mut mount = Mount {
        at: at.to_owned(),
        daemons: vec![pid],
        ended: false,
    };
    let end = Instant::now() + MOUNT_LIMIT;
    let has_ended = || process::wait_for_adopted(pid, Instant::now());
    let ready = process::wait_for(end, || {
        (is_mounted(at) || has_ended().is_some()).then_some(())
    });
    if ready.is_some() && is_mounted(at) {
        return Ok(mount);
    }
    mount.end_hard();
    let said = fs::read_to_string(log).unwrap_or_default();
    Err(format!(
        "{command:?}: no mount: {}",
        process::tail(&said, 10)
    ))
}

/// A mount, ended at the latest when it is dropped.
pub struct Mount {
    at: PathBuf,
    /// The processes that appeared with it and are children of ours now.
    daemons: Vec<i32>,
    ended: bool,
}

impl Mount {
    /// The mountpoint.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// The daemon's process id.
    pub fn daemon(&self) -> Option<i32> {
        self.daemons.first().copied()
    }

    /// All processes that came with it.
    pub fn daemons(&self) -> &[i32] {
        &self.daemons
    }

    /// Unmounts as a user would, and says what was not clean about it: a busy mount, a daemon
    /// that stays or that ends with another exit code than 0.
    pub fn unmount(mut self) -> Result<(), String> {
        let end = Instant::now() + UNMOUNT_LIMIT;
        let mut last = String::new();
        let done = process::wait_for(end, || match unmount_at(&self.at) {
            Ok(()) => Some(()),
            Err(why) => {
                last = why;
                None
            }
        });
        if done.is_none() {
            return Err(format!("{} cannot be unmounted: {last}", self.at.display()));
        }
        self.expect_end()
    }

    /// Waits for the daemon to end after something that ends it, and looks for leftovers.
    pub fn expect_end(&mut self) -> Result<(), String> {
        self.ended = true;
        let end = Instant::now() + UNMOUNT_LIMIT;
        for pid in &self.daemons {
            match process::wait_for_adopted(*pid, end) {
                None => {
                    process::signal(*pid, Signal::SIGKILL);
                    process::wait_for_adopted(*pid, Instant::now() + Duration::from_secs(5));
                    detach(&self.at);
                    return Err(format!(
                        "process {pid} still ran {UNMOUNT_LIMIT:?} after the unmount"
                    ));
                }
                Some(WaitStatus::Exited(_, 0)) => (),
                Some(status) => {
                    detach(&self.at);
                    return Err(format!("the daemon's end was not clean: {status:?}"));
                }
            }
        }
        let gone = process::wait_for(end, || (!is_mounted(&self.at)).then_some(()));
        if gone.is_none() {
            detach(&self.at);
            return Err(format!("{} is still in mountinfo", self.at.display()));
        }
        Ok(())
    }

    /// Kills the daemon, so that everything that hangs in the mount gets an error, and detaches.
    pub fn abort(mut self) {
        self.end_hard();
    }

    /// Kills the daemon and leaves the mount, where every call fails then.
    pub fn kill_daemons(&self) {
        for pid in &self.daemons {
            process::signal(*pid, Signal::SIGKILL);
        }
    }

    fn end_hard(&mut self) {
        self.ended = true;
        self.kill_daemons();
        detach(&self.at);
        for pid in &self.daemons {
            process::wait_for_adopted(*pid, Instant::now() + Duration::from_secs(5));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if unmount_at(&self.at).is_err() || self.expect_end().is_err() {
            self.end_hard();
        }
    }
}

/// The lines of /proc/self/mountinfo whose mountpoint is this one or below it.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    info.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|at| at.starts_with(dir))
        .collect()
}

/// Whether something is mounted exactly there.
pub fn is_mounted(at: &Path) -> bool {
    mounts_below(at).iter().any(|mounted| mounted == at)
}

/// Unmounts whatever is mounted at or below a directory, the latest first, come what may.
pub fn detach(dir: &Path) {
    for at in mounts_below(dir).iter().rev() {
        if umount2(at, MntFlags::MNT_DETACH).is_err() {
            // What it cannot unmount, nobody can.
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(at)
                .status();
        }
    }
}

fn unmount_at(at: &Path) -> Result<(), String> {
    if nix::unistd::getuid().is_root() {
        return umount2(at, MntFlags::empty()).map_err(|why| why.to_string());
    }
    let mut command = Command::new("fusermount3");
    let finished = process::run(command.arg("-u").arg(at), Duration::from_secs(10));
    if finished.ok() {
        Ok(())
    } else {
        Err(finished.said())
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Far more than a mount on loopback takes, and less than a person would wait.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);
/// Unmounting writes back what is still on its way.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain"), PathBuf::from("/plain"));
    }
}
