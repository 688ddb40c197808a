//! The `sftpfs` program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sftpfs::answer_ssh().unwrap_or_else(sftpfs::cli::main)
}
