//! What is measured: mounts, and programs that are no mounts but show what the link can do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cli::Cli;
use super::site::Site;
use crate::process;

/// One of them.
#[derive(Debug, Clone)]
pub struct System {
    /// What it is called in tables.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A build of sftpfs and the options it is mounted with.
    Sftpfs {
        program: PathBuf,
        options: Vec<String>,
    },
    Sshfs,
    Rclone,
    /// Not mounts: a command of the work's own, over a connection that is up already.
    Ssh,
    Sftp,
    Scp,
    /// The server's directory itself.
    Local,
}

impl Kind {
    /// Whether it is mounted.
    pub fn is_mount(&self) -> bool {
        matches!(self, Self::Sftpfs { .. } | Self::Sshfs | Self::Rclone)
    }
}

impl System {
    /// The command that mounts the server's directory and goes to the background.
    pub fn mount_command(&self, site: &Site, at: &Path) -> Result<Command, String> {
        let source = format!("bench:{}", site.server().display());
        let mut command = match &self.kind {
            Kind::Sftpfs { program, options } => {
                let mut command = Command::new(program);
                for option in options {
                    command.args(["-o", option]);
                }
                command.arg("-F").arg(site.host.ssh_config());
                command
            }
            Kind::Rclone => {
                let mut command = Command::new("rclone");
                command.arg("mount").arg("--daemon");
                command.arg("--config").arg(site.host.rclone_config()?);
                command.arg("--cache-dir").arg(site.dir.join("home/rclone"));
                // It would wait 5 s before it begins to upload; the upload is part of the work.
                command.args(["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]);
                command
            }
            _ => {
                let mut command = Command::new("sshfs");
                command.arg("-F").arg(site.host.ssh_config());
                command
            }
        };
        command.arg(source).arg(at);
        site.at_home(&mut command);
        site.link.near().enter(&mut command);
        Ok(command)
    }

    /// What must be installed.
    fn program(&self) -> &Path {
        match &self.kind {
            Kind::Sftpfs { program, .. } => program,
            Kind::Sshfs => Path::new("sshfs"),
            Kind::Rclone => Path::new("rclone"),
            Kind::Ssh | Kind::Sftp | Kind::Scp => Path::new("ssh"),
            Kind::Local => Path::new("bash"),
        }
    }

    /// What it says its version is.
    pub fn version(&self) -> String {
        let (flag, name) = match &self.kind {
            Kind::Sftpfs { .. } => ("--version", "sftpfs"),
            Kind::Sshfs => ("--version", "SSHFS"),
            Kind::Rclone => ("version", "rclone"),
            Kind::Ssh | Kind::Sftp | Kind::Scp => ("-V", "OpenSSH"),
            Kind::Local => return String::new(),
        };
        let mut asked = Command::new(self.program());
        let said = process::run(asked.arg(flag), Duration::from_secs(10)).said();
        // sshfs tells of its libraries too, and the first of them is not sshfs.
        let its_own = said.lines().find(|line| line.contains(name));
        its_own.unwrap_or("unknown").to_owned()
    }
}

/// sftpfs first, then what else was asked for.
pub fn chosen(cli: &Cli) -> Result<Vec<System>, String> {
    let program = match std::env::var_os("SFTPFS") {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    let mut systems = vec![System {
        name: "sftpfs".into(),
        kind: Kind::Sftpfs {
            program: absolute(&program)?,
            options: cli.options.clone(),
        },
    }];
    for also in &cli.also {
        systems.push(another_build(also)?);
    }
    for name in &cli.against {
        for (known, kind) in others() {
            if name == "all" || name == known {
                systems.push(System {
                    name: known.into(),
                    kind,
                });
            }
        }
    }
    match systems
        .iter()
        .find(|system| !is_installed(system.program()))
    {
        None => Ok(systems),
        Some(missing) => Err(format!(
            "{} is not installed; --against chooses others",
            missing.name
        )),
    }
}

fn is_installed(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A path to a binary that was not optimised: its figures say little.
pub fn is_debug_build(system: &System) -> bool {
    let Kind::Sftpfs { program, .. } = &system.kind else {
        return false;
    };
    program.parent().is_some_and(|dir| dir.ends_with("debug"))
}

fn others() -> [(&'static str, Kind); 6] {
    [
        ("sshfs", Kind::Sshfs),
        ("rclone", Kind::Rclone),
        ("ssh", Kind::Ssh),
        ("sftp", Kind::Sftp),
        ("scp", Kind::Scp),
        ("local", Kind::Local),
    ]
}

/// `NAME=PATH[:OPTION,...]`
fn another_build(text: &str) -> Result<System, String> {
    let wrong = || format!("--also {text}: NAME=PATH or NAME=PATH:OPTIONS is wanted");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (program, options) = rest.split_once(':').unwrap_or((rest, ""));
    Ok(System {
        name: name.into(),
        kind: Kind::Sftpfs {
            program: absolute(Path::new(program))?,
            options: options
                .split(',')
                .filter(|o| !o.is_empty())
                .map(str::to_owned)
                .collect(),
        },
    })
}

/// Builds sftpfs as its users build it.
fn build() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--release",
        "--package",
        "sftpfs",
        "--bin",
        "sftpfs",
    ]);
    let status = build.current_dir(&source).status();
    let status = status.map_err(|why| format!("cargo: {why}"))?;
    if !status.success() {
        return Err("sftpfs does not build".into());
    }
    let exe = std::env::current_exe().map_err(|why| why.to_string())?;
    // target/debug/mount-tests, target/release/sftpfs.
    let target = exe.ancestors().nth(2).unwrap_or(&source);
    Ok(target.join("release/sftpfs"))
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    let found = path.canonicalize();
    found.map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_has_a_name_a_path_and_perhaps_options() {
        let system = another_build("old=/bin/true:max_conns=4,sync").unwrap();
        assert_eq!(system.name, "old");
        let Kind::Sftpfs { options, .. } = system.kind else {
            panic!("{:?}", system.kind);
        };
        assert_eq!(options, ["max_conns=4", "sync"]);
        assert!(another_build("/bin/true").is_err());
    }
}
