//! A system that is ready to work: mounted, or with its connection up.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::site::Site;
use super::system::{Kind, System};
use crate::mount::{self, Mount};
use crate::process;

/// Ready to work. Dropping it takes it down.
pub struct Attached {
    /// Where the work is done.
    pub place: PathBuf,
    /// The processes whose cost is the client's.
    pub clients: Vec<i32>,
    mount: Option<Mount>,
}

impl Attached {
    /// Mounts, or connects: always anew, so that nothing is remembered from before.
    pub fn new(site: &Site, system: &System) -> Result<Self, String> {
        if system.kind.is_mount() {
            let at = site.mountpoint();
            // What rclone keeps on the disk would outlive its mount.
            let _ = fs::remove_dir_all(site.dir.join("home/rclone"));
            let mut command = system.mount_command(site, &at)?;
            let mount = mount::mount_with(&mut command, &at)?;
            return Ok(Self {
                place: at,
                clients: mount.daemons().to_vec(),
                mount: Some(mount),
            });
        }
        let clients = match system.kind {
            Kind::Local => Vec::new(),
            _ => connect(site)?,
        };
        Ok(Self {
            place: site.server(),
            clients,
            mount: None,
        })
    }

    /// Takes it down as a user would, and says what went wrong.
    pub fn detach(mut self, system: &System) -> Result<(), String> {
        let Some(mount) = self.mount.take() else {
            return Ok(());
        };
        let ended = mount.unmount();
        match system.kind {
            Kind::Sftpfs { .. } => ended,
            // How others end is not ours to judge.
            _ => Ok(()),
        }
    }

    /// Takes it down when something hangs in it.
    pub fn abort(mut self) {
        if let Some(mount) = self.mount.take() {
            mount.abort();
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.mount.take().is_some() {
            return;
        }
        for pid in &self.clients {
            process::signal(*pid, Signal::SIGTERM);
            process::wait_for_adopted(*pid, Instant::now() + Duration::from_secs(5));
        }
    }
}

/// A connection in the background that ssh, sftp and scp share. Theirs is up when the clock
/// starts, as a mount's is.
fn connect(site: &Site) -> Result<Vec<i32>, String> {
    let before = process::children();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(site.host.shared_ssh_config());
    ssh.args(["-M", "-N", "-f", "bench"]);
    site.at_home(&mut ssh);
    site.link.near().enter(&mut ssh);
    let connected = process::run(&mut ssh, Duration::from_secs(30));
    if !connected.ok() {
        return Err(format!("ssh: {}: {}", connected.ending(), connected.said()));
    }
    let after = process::children().into_iter();
    Ok(after
        .map(|(pid, _)| pid)
        .filter(|pid| !before.iter().any(|(old, _)| old == pid))
        .collect())
}
