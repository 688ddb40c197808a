//! A real SFTP server as a child process that speaks on its standard input and output.

use std::path::Path;
use std::process::Stdio;

use tokio::io::Join;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where Debian has OpenSSH's server.
pub(crate) const OPENSSH: &str = "/usr/lib/openssh/sftp-server";

/// The child; dropping it ends it.
pub(crate) struct Program {
    _child: Child,
}

impl Program {
    /// Runs a server in a directory. Names that are not absolute are names in there.
    pub(crate) fn run(
        command: &[&str],
        directory: &Path,
    ) -> std::io::Result<(Self, Join<ChildStdout, ChildStdin>)> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stream = tokio::io::join(child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Ok((Self { _child: child }, stream))
    }
}
