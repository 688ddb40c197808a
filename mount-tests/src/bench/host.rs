//! The server that is measured against: a private sshd on the far side of the link, and the
//! settings with which every client finds it under the name `bench`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::link::Link;
use crate::process;
use crate::server::{self, sftp_server_path, sshd_path};

/// A running sshd. Dropping it ends it.
pub struct Host {
    child: Child,
    dir: PathBuf,
    address: Ipv4Addr,
}

impl Host {
    /// Starts one, with its keys and settings in `dir`, which is made.
    pub fn start(dir: &Path, link: &Link) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
        for key in ["host_key", "user_key"] {
            server::make_key(&dir.join(key))?;
        }
        let address = link.far_address();
        write_settings(dir, address).map_err(|why| format!("{}: {why}", dir.display()))?;
        // sshd's privilege separation wants it; the package makes it only when its service runs.
        fs::create_dir_all("/run/sshd").map_err(|why| format!("/run/sshd: {why}"))?;
        let log = fs::File::create(dir.join("log")).map_err(|why| why.to_string())?;
        let mut command = Command::new(sshd_path()?);
        command.args(["-D", "-e", "-f"]);
        command.arg(dir.join("sshd_config"));
        command.stdout(Stdio::null()).stderr(log);
        link.far().enter(&mut command);
        let host = Self {
            child: process::start(&mut command),
            dir: dir.to_owned(),
            address,
        };
        host.wait_for_answer(link)?;
        Ok(host)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// ssh_config(5) for all clients.
    pub fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    /// The same, with one connection that all share.
    pub fn shared_ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config.shared")
    }

    /// What rclone calls a configuration.
    pub fn rclone_config(&self) -> Result<PathBuf, String> {
        let user = user()?;
        let at = |name: &str| self.dir.join(name).display().to_string();
        let text = format!(
            "[bench]\ntype = sftp\nhost = {}\nport = {PORT}\nuser = {user}\nkey_file = {}\n\
             known_hosts_file = {}\nshell_type = unix\nmd5sum_command = md5sum\n\
             sha1sum_command = sha1sum\n",
            self.address,
            at("user_key"),
            at("known_hosts"),
        );
        let path = self.dir.join("rclone.conf");
        fs::write(&path, text).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok(path)
    }

    fn wait_for_answer(&self, link: &Link) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(20);
        let answer = process::wait_for(end, || {
            let mut ssh = Command::new("ssh");
            ssh.arg("-F").arg(self.ssh_config()).args(["bench", "true"]);
            link.near().enter(&mut ssh);
            process::run(&mut ssh, Duration::from_secs(10))
                .ok()
                .then_some(())
        });
        answer.ok_or_else(|| {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            format!("sshd lets nobody in: {}", process::tail(&log, 5))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        process::signal(self.pid(), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(3);
        if process::wait_until(&mut self.child, end).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn write_settings(dir: &Path, address: Ipv4Addr) -> std::io::Result<()> {
    let at = |name: &str| dir.join(name).display().to_string();
    let pam = if server::password_is_locked() {
        "yes"
    } else {
        "no"
    };
    let sftp =
        sftp_server_path().map_or_else(|| "internal-sftp".into(), |p| p.display().to_string());
    fs::write(
        dir.join("sshd_config"),
        // Everything that decides on speed is as sshd has it by itself.
        format!(
            "ListenAddress {address}:{PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM {pam}\nUseDNS no\nPrintMotd no\n\
             Subsystem sftp {sftp}\n",
            at("host_key"),
            at("user_key.pub"),
        ),
    )?;
    let host_key = fs::read_to_string(dir.join("host_key.pub"))?;
    fs::write(
        dir.join("known_hosts"),
        format!("[{address}]:{PORT} {host_key}"),
    )?;
    let config = format!(
        "Host bench\n\
         HostName {address}\nPort {PORT}\nUser {}\nIdentityFile {}\nIdentitiesOnly yes\n\
         UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n\
         BatchMode yes\n",
        user().map_err(std::io::Error::other)?,
        at("user_key"),
        at("known_hosts"),
    );
    let shared = format!("{config}ControlPath {}\n", at("shared"));
    fs::write(dir.join("ssh_config.shared"), shared)?;
    fs::write(dir.join("ssh_config"), config)
}

fn user() -> Result<String, String> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let user = user.ok().flatten();
    Ok(user.ok_or("who runs this has no name in /etc/passwd")?.name)
}

/// Any will do: the far side has a network of its own.
const PORT: u16 = 2222;
