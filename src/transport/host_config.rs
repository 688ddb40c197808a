//! What ssh_config(5) makes of the target, as OpenSSH itself resolves it (`ssh -G`).
//!
//! **Invariant:** nothing here connects. No text of the user becomes an option of a program: the
//! target is checked first, and the host stands behind `--`.

mod local;
mod needs;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use self::local::Local;
use super::{Target, command};
use crate::error::{Error, Result};

/// What ssh_config(5) makes of the target, for this one host.
///
/// Keys are lower-case and values as `ssh -G` prints them; a key that may be given more than once
/// appears once for each value, in order.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    values: Vec<(String, String)>,
    /// Keys, lower-case, that came from the command line (`-o Key=Value`).
    typed: HashSet<String>,
    /// The program that was given in place of `ssh`.
    ssh_command: Option<PathBuf>,
    /// Whether the user, not the distribution, turned GSSAPI on.
    gssapi_asked: bool,
    /// Whether ssh was asked and answered.
    from_ssh: bool,
    local: Local,
}

/// `StrictHostKeyChecking` of ssh_config(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strict {
    /// An unknown host is refused.
    Yes,
    /// An unknown host is added without asking; a changed key still forbids passwords.
    No,
    /// An unknown host is added without asking; a changed key is refused.
    AcceptNew,
    /// The user is asked about an unknown host.
    Ask,
    /// As `No`; what older ssh calls it.
    Off,
}

/// `AddressFamily` of ssh_config(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    Inet,
    Inet6,
}

impl Settings {
    /// Asks `ssh -G`, which evaluates `Host`, `Match`, `Include` and canonicalisation; without an
    /// ssh on this machine, OpenSSH's defaults and the target say all.
    ///
    /// # Errors
    /// [`Error::Setup`] for a target that could pass for an option, and with ssh's own words if
    /// it rejects an option or its configuration.
    pub(super) async fn resolve(target: &Target) -> Result<Self> {
        check(target)?;
        let local = Local::of_this_process();
        let Some(output) = ask_ssh(target, target.config_file.as_deref()).await? else {
            return Ok(Self::without_ssh(target, local));
        };
        let mut settings = Self::from_output(&output, target, local);
        settings.gssapi_asked = settings.is_on("gssapiauthentication")
            && (settings.is_typed("gssapiauthentication")
                || target.config_file.is_some()
                || settings.local.has_ticket()
                || own_config_turns_gssapi_on(target, &settings.local).await?);
        Ok(settings)
    }

    /// Without asking anybody.
    #[cfg(test)]
    pub(super) fn assumed(target: &Target) -> Self {
        Self::without_ssh(target, Local::of_this_process())
    }

    /// Reads what `ssh -G` printed: a line each of key, blank, value.
    fn from_output(output: &str, target: &Target, local: Local) -> Self {
        let values = output
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self {
            values,
            typed: target
                .ssh_options
                .iter()
                .map(|(key, _)| key.to_ascii_lowercase())
                .collect(),
            ssh_command: target
                .ssh_command
                .as_ref()
                .and_then(|words| words.first())
                .map(Into::into),
            gssapi_asked: false,
            from_ssh: !output.is_empty(),
            local,
        }
    }

    /// The target's own options over the defaults of ssh_config(5). The first value of a key wins,
    /// as there.
    fn without_ssh(target: &Target, local: Local) -> Self {
        let mut settings = Self::from_output("", target, local);
        let mut add = |key: &str, value: &str| settings.values.push((key.into(), value.into()));
        if let Some(user) = &target.user {
            add("user", user);
        }
        if let Some(port) = target.port {
            add("port", &port.to_string());
        }
        if target.compression {
            add("compression", "yes");
        }
        for (key, value) in &target.ssh_options {
            add(&key.to_ascii_lowercase(), value.trim().trim_matches('"'));
        }
        let user = settings.local.user.clone();
        let mut missing = vec![("hostname", target.host.as_str()), ("user", user.as_str())];
        missing.extend(DEFAULT_FILES);
        if settings.get("identityfile").is_none() {
            missing.extend(DEFAULT_IDENTITIES.map(|file| ("identityfile", file)));
        }
        missing.retain(|(key, _)| *key == "identityfile" || settings.get(key).is_none());
        settings.values.extend(
            missing
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        settings
    }

    /// The first value of a key (lower-case); `none` counts as not set.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.all(key)
            .next()
            .filter(|value| !value.eq_ignore_ascii_case("none"))
    }

    /// A key's value, split at commas; empty if it is not set.
    pub(super) fn list(&self, key: &str) -> Vec<&str> {
        let value = self.get(key).unwrap_or_default();
        value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// Whether `-o Key=...` was typed for a key (lower-case).
    pub(super) fn is_typed(&self, key: &str) -> bool {
        self.typed.contains(key)
    }

    /// Whether an OpenSSH client is here that has answered; false if its defaults were assumed.
    pub(super) fn is_from_ssh(&self) -> bool {
        self.from_ssh
    }

    /// The socket of a connection that is open and shared (`ControlPath`).
    pub(super) fn shared_connection(&self) -> Option<&str> {
        self.get("controlpath")
            .filter(|path| UnixStream::connect(path).is_ok())
    }

    /// The name or address to connect to.
    pub(super) fn host_name(&self) -> &str {
        self.get("hostname").unwrap_or_default()
    }

    /// The TCP port.
    pub(super) fn port(&self) -> u16 {
        self.get("port")
            .and_then(|port| port.parse().ok())
            .unwrap_or(22)
    }

    /// The user to log in as.
    pub(super) fn user(&self) -> &str {
        self.get("user").unwrap_or(&self.local.user)
    }

    /// What the host is called where people see it: `HostKeyAlias`, or the name connected to.
    pub(super) fn alias(&self) -> &str {
        self.get("hostkeyalias").unwrap_or_else(|| self.host_name())
    }

    /// The name that known_hosts files hold for this host, as ssh looks it up: `HostKeyAlias`
    /// as it is; else the name connected to (not the one typed) in lower case, as `[name]:port`
    /// off port 22.
    pub(super) fn known_hosts_name(&self) -> String {
        if let Some(alias) = self.get("hostkeyalias") {
            return alias.to_owned();
        }
        let name = self.host_name().to_ascii_lowercase();
        match self.port() {
            22 => name,
            port => format!("[{name}]:{port}"),
        }
    }

    /// Private keys to offer, `~` and %-tokens expanded; they may not exist.
    pub(super) fn identity_files(&self) -> Vec<PathBuf> {
        self.all("identityfile")
            .filter_map(|file| self.expand(file))
            .collect()
    }

    /// Whether this identity file is one that ssh tries when none is named. ssh says nothing if
    /// such a file is missing.
    pub(super) fn identity_file_is_default(&self, path: &Path) -> bool {
        // ssh adds its defaults, all of them, only if no file is named: `ssh -G` then prints
        // several, each of them known.
        let named: Vec<_> = self.all("identityfile").collect();
        !self.is_typed("identityfile")
            && named.len() > 1
            && named.iter().all(|file| is_default_identity(file))
            && self.identity_files().iter().any(|file| file == path)
    }

    /// Only the identity files are offered, whatever else the agent holds.
    pub(super) fn identities_only(&self) -> bool {
        self.is_on("identitiesonly")
    }

    /// The agent's socket: `IdentityAgent`, or `SSH_AUTH_SOCK` of the environment.
    pub(super) fn identity_agent(&self) -> Option<PathBuf> {
        let value = self.all("identityagent").next().unwrap_or("SSH_AUTH_SOCK");
        if value.eq_ignore_ascii_case("none") {
            return None;
        }
        let variable = match value.strip_prefix('$') {
            None if value == "SSH_AUTH_SOCK" => value,
            // `${NAME}/rest` is expanded with the tokens; `$NAME` stands alone.
            Some(name) if !name.starts_with('{') => name,
            _ => return self.expand(value),
        };
        std::env::var_os(variable)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    /// The user's known_hosts files; the first is the one that is written.
    pub(super) fn user_known_hosts(&self) -> Vec<PathBuf> {
        self.files("userknownhostsfile")
    }

    /// The machine's known_hosts files.
    pub(super) fn global_known_hosts(&self) -> Vec<PathBuf> {
        self.files("globalknownhostsfile")
    }

    /// What to do about a host that no known_hosts file names.
    pub(super) fn strict_host_key_checking(&self) -> Strict {
        match self.get("stricthostkeychecking").unwrap_or("ask") {
            "true" | "yes" => Strict::Yes,
            "false" | "no" => Strict::No,
            "off" => Strict::Off,
            "accept-new" => Strict::AcceptNew,
            _ => Strict::Ask,
        }
    }

    /// Names written to known_hosts are hashed.
    pub(super) fn hash_known_hosts(&self) -> bool {
        self.is_on("hashknownhosts")
    }

    /// Nothing is asked on the terminal.
    pub(super) fn batch_mode(&self) -> bool {
        self.is_on("batchmode")
    }

    /// How long connecting may take; 30 s unless set, where ssh waits for TCP to give up.
    pub(super) fn connect_timeout(&self) -> Duration {
        let seconds = self
            .get("connecttimeout")
            .and_then(|value| value.parse().ok());
        seconds
            .filter(|seconds| *seconds > 0)
            .map_or(CONNECT_TIMEOUT, Duration::from_secs)
    }

    /// How often the server is asked whether it lives, and how many times in vain before it is
    /// given up: 15 s and 3 unless configured. A zero duration means never.
    ///
    /// ssh's own default is never, which leaves a mount hanging; `ssh -G` prints that as 0, and
    /// Debian's ssh in batch mode prints 300, so these two count only if they were typed.
    pub(super) fn server_alive(&self) -> (Duration, u32) {
        let typed = self.is_typed("serveraliveinterval");
        let seconds = self
            .get("serveraliveinterval")
            .and_then(|text| text.parse().ok());
        let interval = match seconds {
            Some(0) if typed => Duration::ZERO,
            Some(300) if self.batch_mode() && !typed => SERVER_ALIVE_INTERVAL,
            None | Some(0) => SERVER_ALIVE_INTERVAL,
            Some(seconds) => Duration::from_secs(seconds),
        };
        let count = self
            .get("serveralivecountmax")
            .and_then(|count| count.parse().ok());
        (interval, count.unwrap_or(3))
    }

    /// The stream is compressed.
    pub(super) fn compression(&self) -> bool {
        self.is_on("compression")
    }

    /// How many times a password is asked for.
    pub(super) fn password_attempts(&self) -> u32 {
        self.get("numberofpasswordprompts")
            .and_then(|count| count.parse().ok())
            .unwrap_or(3)
    }

    /// Authentication methods in the order to try them (RFC 4252 names), without those that are
    /// turned off (`PasswordAuthentication no` and the like).
    pub(super) fn preferred_authentications(&self) -> Vec<String> {
        let mut methods = self.list("preferredauthentications");
        if methods.is_empty() {
            methods.extend(AUTHENTICATIONS.map(|(method, ..)| method));
        }
        methods.retain(|method| {
            let switch = AUTHENTICATIONS.iter().find(|(name, ..)| name == method);
            switch.is_none_or(|(_, key, default)| match self.get(key) {
                Some(_) => self.is_on(key),
                None => *default,
            })
        });
        methods.into_iter().map(str::to_owned).collect()
    }

    /// Which addresses of the host may be used.
    pub(super) fn address_family(&self) -> Family {
        match self.get("addressfamily") {
            Some("inet") => Family::Inet,
            Some("inet6") => Family::Inet6,
            _ => Family::Any,
        }
    }

    /// The local address to connect from.
    pub(super) fn bind_address(&self) -> Option<String> {
        self.get("bindaddress").map(str::to_owned)
    }

    /// All values of a key that may be given more than once.
    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let same = move |entry: &&(String, String)| entry.0 == key;
        self.values
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on. ssh prints some as `yes` and some as `true`, and pubkeyauthentication
    /// may be `unbound` or `host-bound`, which are ways of yes.
    fn is_on(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or("no").to_ascii_lowercase();
        matches!(value.as_str(), "yes" | "true" | "unbound" | "host-bound")
    }

    /// A list of files in one value. ssh prints them without quotes, so a name with a blank
    /// in it is told by what follows the blank: no new path.
    fn files(&self, key: &str) -> Vec<PathBuf> {
        let mut files: Vec<String> = Vec::new();
        for word in self
            .get(key)
            .unwrap_or_default()
            .split(' ')
            .filter(|word| !word.is_empty())
        {
            match files.last_mut() {
                Some(last) if !word.starts_with(['/', '~', '$', '%']) => {
                    last.push(' ');
                    last.push_str(word);
                }
                _ => files.push(word.to_owned()),
            }
        }
        files.iter().filter_map(|file| self.expand(file)).collect()
    }

    /// A path with `~`, `${NAME}` and %-tokens replaced; `None` if there is one that only ssh
    /// itself can replace (see `needs_openssh`), or for `none`.
    fn expand(&self, text: &str) -> Option<PathBuf> {
        if text.eq_ignore_ascii_case("none") {
            return None;
        }
        self.local.expand(text, |token| match token {
            'h' => Some(self.host_name().to_owned()),
            'k' => Some(self.alias().to_owned()),
            'n' => self.all("host").next().map(str::to_owned),
            'p' => Some(self.port().to_string()),
            'r' => Some(self.user().to_owned()),
            'j' => Some(self.get("proxyjump").unwrap_or_default().to_owned()),
            _ => None,
        })
    }
}

/// The words that hand a target on to ssh, all but the host itself.
pub(super) fn ssh_arguments(target: &Target, config_file: Option<&Path>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(file) = config_file {
        words.extend(["-F".into(), file.into()]);
    }
    if let Some(port) = target.port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = &target.user {
        words.extend(["-l".into(), user.into()]);
    }
    if target.compression {
        words.push("-C".into());
    }
    let options = target.ssh_options.iter();
    words.extend(options.map(|(key, value)| format!("-o{key}={value}").into()));
    words
}

/// The words that start ssh: `-o ssh_command`, or just `ssh`.
pub(super) fn ssh_words(target: &Target) -> Vec<OsString> {
    target
        .ssh_command
        .clone()
        .unwrap_or_else(|| vec!["ssh".into()])
}

/// Runs `ssh -G`. `None` if there is no ssh here, or if what was given in its place does not know
/// `-G`: that one reports its own errors when it is run to connect.
async fn ask_ssh(target: &Target, config_file: Option<&Path>) -> Result<Option<String>> {
    let mut words = ssh_words(target);
    words.push("-G".into());
    words.extend(ssh_arguments(target, config_file));
    words.extend(["--".into(), target.host.clone().into()]);
    let mut ssh = command::prepare(&words)?;
    ssh.stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(ASK_TIMEOUT, ssh.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return if target.ssh_command.is_none() {
                Ok(None)
            } else {
                Err(command::cannot_run(&words, &error))
            };
        }
        Ok(Err(error)) => return Err(command::cannot_run(&words, &error)),
        Err(_) => {
            return Err(Error::setup(format!(
                "`ssh -G {}` gave no answer in time",
                target.host
            )));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.lines().any(|line| line.starts_with("hostname ")) {
        return Ok(Some(text.into_owned()));
    }
    if target.ssh_command.is_some() {
        log::debug!("the ssh_command does not know -G; ssh_config(5) is left to it");
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("Pseudo-terminal"))
        .collect();
    Err(Error::setup(format!(
        "ssh does not take these settings for {}: {}",
        target.host,
        said.join("\n")
    )))
}

/// Debian's /etc/ssh/ssh_config turns GSSAPI on for everybody; whether the user's own file does,
/// too, is what counts.
async fn own_config_turns_gssapi_on(target: &Target, local: &Local) -> Result<bool> {
    let file = local.home.join(".ssh/config");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return Ok(false);
    };
    let text = text.to_ascii_lowercase();
    if !text.contains("gssapi") && !text.contains("include") {
        return Ok(false);
    }
    let output = ask_ssh(target, Some(&file)).await?.unwrap_or_default();
    Ok(output
        .lines()
        .any(|line| line == "gssapiauthentication yes"))
}

/// Refuses what could become an option or a second command on its way through ssh, a shell of the
/// user's ProxyCommand, or a terminal.
fn check(target: &Target) -> Result<()> {
    let host = target.host.as_str();
    if !is_plain(host) || host.contains(|c: char| c.is_whitespace() || "$\\@/".contains(c)) {
        return Err(Error::setup(format!(
            "{host:?} cannot be the name of a host"
        )));
    }
    if let Some(user) = target.user.as_deref().filter(|user| !is_plain(user)) {
        return Err(Error::setup(format!(
            "{user:?} cannot be the name of a user on {host}"
        )));
    }
    if let Some(server) = target
        .sftp_server
        .as_deref()
        .filter(|server| !is_printable(server))
    {
        return Err(Error::setup(format!(
            "sftp_server={server:?} is no name of a program"
        )));
    }
    for (key, value) in &target.ssh_options {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::setup(format!(
                "{key:?} is no option of ssh_config(5)"
            )));
        }
        if value.contains(char::is_control) {
            return Err(Error::setup(format!(
                "the value of {key} has a control character in it"
            )));
        }
    }
    Ok(())
}

/// What ssh(1) allows in names of hosts and users (ssh.c, `valid_hostname` and `valid_ruser`).
fn is_plain(name: &str) -> bool {
    is_printable(name) && !name.contains(|c: char| "'`\";&<>|(){}".contains(c))
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_control)
}

fn is_default_identity(file: &str) -> bool {
    let known = DEFAULT_IDENTITIES.contains(&file);
    known || matches!(file, "~/.ssh/id_dsa" | "~/.ssh/id_xmss")
}

/// Long enough for a `Match exec` that asks a slow network.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const SERVER_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// In the order of ssh_config(5), PreferredAuthentications: method, the key that turns it off, and
/// that key's default.
const AUTHENTICATIONS: [(&str, &str, bool); 5] = [
    ("gssapi-with-mic", "gssapiauthentication", false),
    ("hostbased", "hostbasedauthentication", false),
    ("publickey", "pubkeyauthentication", true),
    ("keyboard-interactive", "kbdinteractiveauthentication", true),
    ("password", "passwordauthentication", true),
];

/// ssh_config(5), IdentityFile.
const DEFAULT_IDENTITIES: [&str; 5] = [
    "~/.ssh/id_rsa",
    "~/.ssh/id_ecdsa",
    "~/.ssh/id_ecdsa_sk",
    "~/.ssh/id_ed25519",
    "~/.ssh/id_ed25519_sk",
];

/// ssh_config(5), UserKnownHostsFile and GlobalKnownHostsFile.
const DEFAULT_FILES: [(&str, &str); 2] = [
    (
        "userknownhostsfile",
        "~/.ssh/known_hosts ~/.ssh/known_hosts2",
    ),
    (
        "globalknownhostsfile",
        "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
    ),
];
