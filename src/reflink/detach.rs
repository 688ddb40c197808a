//! Lets go of what a process has from the one who started it, so that waiting for a program keeps
//! neither a pipe open nor a filesystem busy.

use std::fs::File;
use std::os::fd::RawFd;

/// Closes all open files but standard error and those named, and goes to the root directory.
/// Failure is no harm: then something stays open for a while.
pub(super) fn let_go(keep: &[RawFd]) {
    let _ = nix::unistd::chdir("/");
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
    for number in open_files() {
        if number > 2 && !keep.contains(&number) {
            // The one for the listing is among them, and closed already.
            let _ = nix::unistd::close(number);
        }
    }
}

/// Closes standard error as well.
pub(super) fn fall_silent() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

fn open_files() -> Vec<RawFd> {
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let number =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    listing.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn all_open_files_are_found() {
        let file = tempfile::tempfile().unwrap();
        let found = open_files();
        assert!(found.contains(&file.as_raw_fd()) && found.contains(&2));
    }
}
