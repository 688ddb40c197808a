//! A private sshd for tests: one process a connection, ended with it; keys and all in a folder
//! that is removed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use super::Target;

const SSHD: &str = "/usr/sbin/sshd";

/// Listens on a free port of loopback until the process ends.
pub(super) struct Sshd {
    folder: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts one with these lines of sshd_config(5) on top; `None`, with the reason printed, if
    /// the programs are missing.
    pub(super) fn start(lines: &[&str]) -> Option<Self> {
        for program in [SSHD, "/usr/bin/ssh-keygen", "/usr/bin/ssh"] {
            if !Path::new(program).exists() {
                println!("skipped: there is no {program} here");
                return None;
            }
        }
        // sshd wants its empty folder even if it does not use it.
        let _ = fs::create_dir_all("/run/sshd");
        let folder = tempfile::tempdir().unwrap();
        let sshd = Self { folder, port: 0 };
        sshd.make_key("host_ed25519", "ed25519");
        sshd.make_key("host_rsa", "rsa");
        sshd.make_key("user", "ed25519");
        sshd.make_key("stranger", "ed25519");
        fs::copy(sshd.path("user.pub"), sshd.path("authorized")).unwrap();
        let at = |name: &str| sshd.path(name).display().to_string();
        let mut config = lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        config.push_str(&format!(
            "HostKey {}\nHostKey {}\nAuthorizedKeysFile {}\n",
            at("host_ed25519"),
            at("host_rsa"),
            at("authorized")
        ));
        config.push_str("StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n");
        config.push_str("Subsystem sftp internal-sftp\n");
        // A login shell with the start-up files of whoever runs this may say or do anything.
        config.push_str(&format!("SetEnv HOME={}\n", at("home")));
        fs::create_dir(sshd.path("home")).unwrap();
        fs::write(sshd.path("config"), config).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = sshd.path("config");
        let log = sshd.path("log");
        thread::spawn(move || {
            for connection in listener.incoming() {
                serve(connection.unwrap(), &config, &log);
            }
        });
        let sshd = Self { port, ..sshd };
        sshd.trust_host();
        Some(sshd)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The setting by which the server is known behind another port, too.
    pub(super) fn alias(&self) -> (String, String) {
        let name = format!("[127.0.0.1]:{}", self.port);
        ("HostKeyAlias".to_owned(), name)
    }

    /// A file of the server's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How to log in: as ourselves, with the key `user`, knowing the host, with no other
    /// configuration.
    pub(super) fn target(&self) -> Target {
        let at = |name: &str| self.path(name).display().to_string();
        let options = [
            ("IdentityFile", at("user")),
            ("IdentitiesOnly", "yes".to_owned()),
            ("IdentityAgent", "none".to_owned()),
            ("UserKnownHostsFile", at("known_hosts")),
            ("GlobalKnownHostsFile", "none".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("BatchMode", "yes".to_owned()),
        ];
        Target {
            host: Ipv4Addr::LOCALHOST.to_string(),
            user: Some(User::from_uid(geteuid()).unwrap().unwrap().name),
            port: Some(self.port),
            config_file: Some("none".into()),
            ssh_options: options
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            ..Target::default()
        }
    }

    /// The same with one option changed.
    pub(super) fn target_with(&self, key: &str, value: &str) -> Target {
        let mut target = self.target();
        target
            .ssh_options
            .insert(0, (key.to_owned(), value.to_owned()));
        target.ssh_options.retain({
            let mut seen = false;
            move |(name, _)| name != key || !std::mem::replace(&mut seen, true)
        });
        target
    }

    /// From now on the server is known by this public key alone, in the second line of known_hosts.
    pub(super) fn is_known_by(&self, key: &str) {
        let public = fs::read_to_string(self.path(key)).unwrap();
        let line = format!("# changed\n[127.0.0.1]:{} {public}", self.port);
        fs::write(self.path("known_hosts"), line).unwrap();
    }

    fn make_key(&self, name: &str, kind: &str) {
        let mut keygen = Command::new("/usr/bin/ssh-keygen");
        keygen
            .args(["-q", "-N", "", "-t", kind, "-f"])
            .arg(self.path(name));
        assert!(keygen.status().unwrap().success());
    }

    fn trust_host(&self) {
        let line = |key: &str| {
            let public = fs::read_to_string(self.path(key)).unwrap();
            format!("[127.0.0.1]:{} {public}", self.port)
        };
        let lines = [line("host_ed25519.pub"), line("host_rsa.pub")].concat();
        fs::write(self.path("known_hosts"), lines).unwrap();
    }
}

/// Hands a connection to an sshd of its own, as inetd does.
fn serve(connection: TcpStream, config: &Path, log: &Path) {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut sshd = Command::new(SSHD);
    sshd.args(["-i", "-e", "-f"]).arg(config);
    sshd.stdin(OwnedFd::from(connection.try_clone().unwrap()));
    sshd.stdout(OwnedFd::from(connection))
        .stderr(Stdio::from(log));
    let mut process = sshd.spawn().unwrap();
    thread::spawn(move || process.wait());
}
