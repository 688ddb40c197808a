//! `sftpfs status` and `sftpfs reconnect`: find the mounts, ask them, and print what they say.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use crate::tools::status::{self, Mount, Time};
use crate::{clock, control, mount};

/// A mount is not connected.
const NOT_CONNECTED: u8 = 1;
/// There is no mount of sftpfs there.
const NO_MOUNT: u8 = 2;

/// Of the mount that a path is in, or of all.
pub(super) fn status(directory: Option<&Path>, json: bool) -> ExitCode {
    let found = match directory {
        Some(directory) => mount::holding(directory).map(|found| vec![found]),
        None => mount::all(),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return none("status", &error.to_string()),
    };
    let told: Vec<Mount<'_>> = found
        .iter()
        .map(|found| ask(found, control::status))
        .collect();
    print(&match (directory, json, told.as_slice()) {
        (Some(_), true, [one]) => status::json(one) + "\n",
        (Some(_), false, [one]) => status::in_full(one, &time()),
        (_, true, all) => status::json_array(all) + "\n",
        (_, false, []) => return none("status", "nothing is mounted by sftpfs"),
        (_, false, all) => status::in_short(all, &time()),
    });
    if told.is_empty() {
        return ExitCode::from(NO_MOUNT);
    }
    exit(told.iter().all(|mount| status::is_connected(&mount.told)))
}

/// Has the mount that a path is in try to reach its server.
pub(super) fn reconnect(directory: &Path) -> ExitCode {
    let found = match mount::holding(directory) {
        Ok(found) => found,
        Err(error) => return none("reconnect", &error.to_string()),
    };
    // It may ask for a password.
    mount::harden();
    let mount = ask(&found, control::reconnect);
    let outcome = status::outcome(&mount, &time());
    let is_connected = status::is_connected(&mount.told);
    if is_connected {
        print(&format!("{outcome}\n"));
    } else {
        eprintln!("sftpfs: reconnect: {outcome}");
    }
    exit(is_connected)
}

fn ask(found: &mount::Found, how: fn(&control::Place) -> crate::status::Told) -> Mount<'_> {
    Mount {
        source: &found.source,
        mountpoint: &found.mountpoint,
        told: how(&found.control),
    }
}

fn time() -> Time {
    let now = clock::date().duration_since(UNIX_EPOCH);
    Time {
        now: now.unwrap_or(Duration::ZERO),
        written: status::local_time,
    }
}

fn none(command: &str, why: &str) -> ExitCode {
    eprintln!("sftpfs: {command}: {why}");
    ExitCode::from(NO_MOUNT)
}

fn print(text: &str) {
    // Printing fails when nobody listens any more: the exit code says it all the same.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn exit(is_connected: bool) -> ExitCode {
    if is_connected {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_CONNECTED)
    }
}
