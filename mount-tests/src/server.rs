//! A private OpenSSH server on loopback: its own port, host key, user key and configuration, in a
//! folder that is removed afterwards. The machine's own sshd is never touched.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::process;

/// A running sshd. Dropping it ends it and the sessions it holds.
pub struct Server {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The folder with keys, configuration and log.
    pub dir: PathBuf,
    /// Who may log in, by the key only: whoever runs the tests.
    pub user: String,
}

impl Server {
    /// Starts one with its files in `dir`, which is made.
    pub fn start(dir: &Path) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|why| format!("cannot make {}: {why}", dir.display()))?;
        let user = nix::unistd::User::from_uid(nix::unistd::getuid())
            .ok()
            .flatten()
            .ok_or("who runs this has no name in /etc/passwd")?
            .name;
        for key in ["host_key", "user_key", "wrong_key"] {
            make_key(&dir.join(key))?;
        }
        fs::copy(dir.join("user_key.pub"), dir.join("authorized_keys"))
            .map_err(|why| format!("cannot write authorized_keys: {why}"))?;
        if nix::unistd::getuid().is_root() {
            // sshd's privilege separation wants it; the package makes it only when its service runs.
            fs::create_dir_all("/run/sshd").map_err(|why| format!("/run/sshd: {why}"))?;
        }
        let mut last = String::new();
        // Another process may take the port between our asking and sshd's binding.
        for _ in 0..5 {
            match Self::start_on(free_port()?, dir, &user) {
                Ok(server) => return Ok(server),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn start_on(port: u16, dir: &Path, user: &str) -> Result<Self, String> {
        write_config(dir, port)?;
        let host_key =
            fs::read_to_string(dir.join("host_key.pub")).map_err(|why| why.to_string())?;
        fs::write(
            dir.join("known_hosts"),
            format!("[127.0.0.1]:{port} {host_key}"),
        )
        .map_err(|why| format!("cannot write known_hosts: {why}"))?;
        let log = fs::File::create(dir.join("log")).map_err(|why| why.to_string())?;
        let mut command = Command::new(sshd_path()?);
        command
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"));
        command.stdout(Stdio::null()).stderr(log);
        let mut child = process::start(&mut command);
        let end = Instant::now() + Duration::from_secs(10);
        let answer = process::wait_for(end, || {
            if child.try_wait().ok().flatten().is_some() {
                return Some(false);
            }
            answers(port).then_some(true)
        });
        let server = Self {
            child,
            port,
            dir: dir.to_owned(),
            user: user.to_owned(),
        };
        if answer == Some(true) {
            return Ok(server);
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        Err(format!(
            "sshd does not answer on port {port}: {}",
            process::tail(&log, 5)
        ))
    }

    /// The private key that opens the server.
    pub fn user_key(&self) -> PathBuf {
        self.dir.join("user_key")
    }

    /// A private key that does not.
    pub fn wrong_key(&self) -> PathBuf {
        self.dir.join("wrong_key")
    }

    /// The known_hosts file with the server's true key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// A known_hosts file with another key under the server's name.
    pub fn changed_known_hosts(&self) -> PathBuf {
        let wrong = fs::read_to_string(self.dir.join("wrong_key.pub")).expect("the wrong key");
        let path = self.dir.join("known_hosts.changed");
        fs::write(&path, format!("[127.0.0.1]:{} {wrong}", self.port)).expect("a known_hosts file");
        path
    }

    /// The SHA256 fingerprint of a key in the folder (`host_key`, `wrong_key`), as ssh shows it.
    pub fn fingerprint(&self, key: &str) -> String {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-l", "-f"])
            .arg(self.dir.join(format!("{key}.pub")));
        let shown = process::must_run(&mut keygen, Duration::from_secs(10));
        shown
            .split_whitespace()
            .nth(1)
            .expect("a fingerprint")
            .to_owned()
    }
}

impl Server {
    /// Kills it and every session, as a crash of the server's machine does.
    pub fn kill(&mut self) {
        let mut all = process::descendants_of(self.child.id());
        all.push(self.child.id().cast_signed());
        for pid in all {
            process::signal(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// The process that listens.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Starts it again on the port it had.
    pub fn start_again(&mut self) -> Result<(), String> {
        let again = Self::start_on(self.port, &self.dir, &self.user)?;
        *self = again;
        Ok(())
    }

    /// Stops, or continues, every session's processes, but for those that listen.
    pub fn signal_sessions(&self, sent: Signal) -> usize {
        let all = process::descendants_of(self.child.id());
        for pid in &all {
            process::signal(*pid, sent);
        }
        all.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            // It has been killed, and its number may be another's by now.
            return;
        }
        let sessions = process::children_of(self.child.id());
        process::signal(self.child.id().cast_signed(), Signal::SIGTERM);
        for (pid, _) in &sessions {
            process::signal(*pid, Signal::SIGTERM);
        }
        if process::wait_until(&mut self.child, Instant::now() + Duration::from_secs(3)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where OpenSSH's SFTP server program is, for the transport `command`.
pub fn sftp_server_path() -> Option<PathBuf> {
    let places = [
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/lib/ssh/sftp-server",
    ];
    places.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A port nobody listens on at this moment.
pub fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|why| format!("no free port: {why}"))?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|why| why.to_string())
}

/// The program, by its full path.
pub fn sshd_path() -> Result<PathBuf, String> {
    // sshd runs itself anew for every connection and so wants to be called by its full path.
    let places = [
        "/usr/sbin/sshd",
        "/usr/local/sbin/sshd",
        "/usr/bin/sshd",
        "/sbin/sshd",
    ];
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| "there is no sshd; install openssh-server".into())
}

fn write_config(dir: &Path, port: u16) -> Result<(), String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\n\
         HostKey {}\n\
         AuthorizedKeysFile {}\n\
         PidFile none\n\
         # The folder is below /tmp, which others may write to.\n\
         StrictModes no\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         UsePAM {}\n\
         # Every case may mount anew, with several connections.\n\
         MaxStartups 200\n\
         MaxSessions 200\n\
         UseDNS no\n\
         PrintMotd no\n\
         # A home without start-up files: those of whoever runs this may take long, and wait\n\
         # for each other once a case killed a shell that was in the middle of them.\n\
         SetEnv HOME={}\n\
         Subsystem sftp {}\n\
         # An ordinary account that every system has; its shell would let nobody in.\n\
         Match User {ORDINARY_USER}\n\
         ForceCommand internal-sftp\n",
        at("host_key"),
        at("authorized_keys"),
        // Without PAM sshd refuses a root whose password is locked, as on a fresh cloud image;
        // with PAM it may trip over pam_loginuid in a container. So only where it must.
        if password_is_locked() { "yes" } else { "no" },
        at("home"),
        sftp_server_path()
            .map_or_else(|| "internal-sftp".into(), |path| path.display().to_string()),
    );
    let home = dir.join("home");
    fs::create_dir_all(&home).map_err(|why| format!("{}: {why}", home.display()))?;
    let path = dir.join("sshd_config");
    fs::write(&path, &config).map_err(|why| format!("{}: {why}", path.display()))?;
    // OpenSSH 9.8 and later punish a client that fails to log in, as our cases do; older ones do
    // not know the word.
    let newer = format!("PerSourcePenalties no\n{config}");
    fs::write(&path, newer).map_err(|why| format!("{}: {why}", path.display()))?;
    let mut check = Command::new(sshd_path()?);
    if !process::run(check.args(["-t", "-f"]).arg(&path), Duration::from_secs(10)).ok() {
        fs::write(&path, config).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(())
}

/// The ordinary account for mounts that are not root's on the server.
pub const ORDINARY_USER: &str = "nobody";

/// Whether root's password is locked, so that sshd lets it in only with PAM.
pub fn password_is_locked() -> bool {
    let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
    shadow.lines().any(|line| line.starts_with("root:!"))
}

/// Makes a key pair without a passphrase.
pub fn make_key(path: &Path) -> Result<(), String> {
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "sftpfs mount-tests",
            "-f",
        ])
        .arg(path);
    let made = process::run(&mut keygen, Duration::from_secs(20));
    if !made.ok() {
        return Err(format!("ssh-keygen: {}: {}", made.ending(), made.said()));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|why| why.to_string())
}

/// Whether an SSH server greets there.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut greeting = [0; 4];
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}
