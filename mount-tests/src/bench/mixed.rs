//! Listings while something large is copied: how long another process waits.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::attached::Attached;
use super::content;
use super::medians::median;
use super::site::Site;
use super::timed;
use crate::process;

/// Seconds that each `ls -l` of one directory after the other took while `copy` ran over and over.
/// `growing` is the file by which one sees that it runs.
pub fn listings(
    site: &Site,
    attached: &Attached,
    copy: &str,
    growing: &Path,
    limit: Duration,
) -> Result<Option<f64>, String> {
    let end = Instant::now() + limit;
    let again = format!("while :; do {copy} 2>/dev/null; done");
    let copying = Copying(process::start(&mut site.shell(&again, &attached.place)));
    let runs = || (fs::metadata(growing).ok()?.len() > UNDER_WAY).then_some(());
    // rclone uploads when all is copied, so its copy is never seen to grow; but it runs.
    process::wait_for(Instant::now() + Duration::from_secs(10), runs);
    let mut seconds = Vec::new();
    // Below directories that nobody lists, or they would be listed ahead.
    let numbers = (1..).filter(|number: &u32| !number.is_multiple_of(5));
    for number in numbers.take(site.size.listings as usize) {
        let directory = content::directory_of(number);
        let mut ls = Command::new("ls");
        ls.arg("-l")
            .arg(attached.place.join("tree").join(&directory));
        let left = end.saturating_duration_since(Instant::now());
        let listed = timed::run(&mut ls, left)?;
        match listed.status {
            None => return Ok(None),
            Some(status) if status.success() => seconds.push(listed.took.as_secs_f64()),
            Some(_) => return Err(format!("ls: {}", listed.said)),
        }
    }
    drop(copying);
    Ok(median(&seconds))
}

struct Copying(Child);

impl Drop for Copying {
    fn drop(&mut self) {
        // The group leads all that it started. One that has ended is no error.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        process::wait_until(&mut self.0, Instant::now() + Duration::from_secs(10));
    }
}

/// Bytes after which a copy is surely under way.
const UNDER_WAY: u64 = 8 << 20;
