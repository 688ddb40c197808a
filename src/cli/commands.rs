//! Does what was asked, prints what went wrong, and chooses the exit code.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::mount_options::Typed;
use super::{Request, status};
use crate::mount::{self, UnmountHow};
use crate::tools;
use crate::transport::Secret;

/// mount(8) and umount(8), "EXIT STATUS": mount failure.
const MOUNT_FAILURE: u8 = 32;
/// umount(8): some of them succeeded.
const SOME_SUCCEEDED: u8 = 64;

pub(super) fn run(request: Request) -> ExitCode {
    match request {
        Request::Nothing => ExitCode::SUCCESS,
        Request::Reflink(command) => crate::reflink::run(command),
        Request::Unmount { directories, how } => unmount(&directories, how),
        Request::Copy(copy) => exit(tools::cp::cp(copy.options, copy.operands)),
        Request::Status { directory, json } => status::status(directory.as_deref(), json),
        Request::Reconnect(directory) => status::reconnect(&directory),
        Request::Info(files) => exit(tools::info(&files)),
        Request::Mount { typed, is_helper } => match mount(*typed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("sftpfs: {why}");
                ExitCode::from(if is_helper { MOUNT_FAILURE } else { 1 })
            }
        },
    }
}

/// Of programs that have said what is wrong.
fn exit(is_well: bool) -> ExitCode {
    ExitCode::from(u8::from(!is_well))
}

fn mount(mut typed: Typed) -> Result<(), String> {
    for warning in &typed.warnings {
        eprintln!("sftpfs: {warning}");
    }
    if typed.password_on_stdin {
        typed.mount.target.password = Some(read_password(std::io::stdin().lock())?);
    }
    mount::run(typed.mount).map_err(|error| error.to_string())
}

/// One line, without its end.
fn read_password(from: impl BufRead) -> Result<Secret, String> {
    // OpenSSH reads passwords of at most 1023 bytes; more than this is no password.
    const PASSWORD_SIZE_MAX: u64 = 4096;
    let mut line = Vec::with_capacity(4096);
    from.take(PASSWORD_SIZE_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("option 'password_stdin': standard input: {error}"))?;
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\r' | b'\n'))
    {
        line.pop();
    }
    if line.is_empty() {
        return Err("option 'password_stdin': there is no password on standard input".into());
    }
    Secret::new(&mut line).ok_or_else(|| "option 'password_stdin': the line is too long".into())
}

fn unmount(directories: &[PathBuf], how: UnmountHow) -> ExitCode {
    let unmount_one = |directory: &Path| match mount::unmount(directory, how) {
        Ok(()) => true,
        Err(why) => {
            eprintln!("sftpfs: umount: {why}");
            false
        }
    };
    let succeeded = directories
        .iter()
        .filter(|directory| unmount_one(directory))
        .count();
    if succeeded == directories.len() {
        return ExitCode::SUCCESS;
    }
    ExitCode::from(if succeeded == 0 {
        MOUNT_FAILURE
    } else {
        SOME_SUCCEEDED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_not_there_is_said() {
        let error = read_password(&b"\n"[..]).unwrap_err();
        assert!(error.contains("no password on standard input"), "{error}");
    }
}
