//! Which settings only OpenSSH's own client can follow.

use std::fs;
use std::path::Path;

use super::Settings;

impl Settings {
    /// The setting that the built-in clients cannot follow, in words; `None` if they can follow
    /// all of them.
    ///
    /// A setting that makes no difference to SFTP (forwardings, tunnels, RemoteCommand) is none:
    /// the child ssh is told to ignore it, too.
    pub(in crate::transport) fn needs_openssh(&self) -> Option<String> {
        if let Some(program) = &self.ssh_command {
            return Some(format!("ssh_command={} is given", program.display()));
        }
        for (key, name) in IF_SET {
            if let Some(value) = self.get(key) {
                return Some(format!("{name} {value} is set"));
            }
        }
        for (key, name) in IF_ON {
            if self.is_on(key) {
                return Some(format!("{name} is on"));
            }
        }
        self.needs_for_sharing()
            .or_else(|| self.needs_for_keys())
            .or_else(|| self.needs_for_rest())
    }

    fn needs_for_sharing(&self) -> Option<String> {
        let master = self.get("controlmaster").unwrap_or("false");
        if !matches!(master, "false" | "no") {
            return Some(format!("ControlMaster {master} is set"));
        }
        self.shared_connection()
            .map(|path| format!("a shared connection is open at {path}"))
    }

    fn needs_for_keys(&self) -> Option<String> {
        let provider = self
            .get("securitykeyprovider")
            .filter(|provider| *provider != "internal");
        if let Some(provider) = provider {
            return Some(format!("SecurityKeyProvider {provider} is set"));
        }
        for file in self
            .all("identityfile")
            .filter(|file| !file.eq_ignore_ascii_case("none"))
        {
            let Some(path) = self.expand(file) else {
                return Some(format!(
                    "the name of IdentityFile {file} can only be found by ssh"
                ));
            };
            if is_security_key(&path) {
                return Some(format!("{} is a key on a security device", path.display()));
            }
            let mut certificate = path.into_os_string();
            certificate.push("-cert.pub");
            if Path::new(&certificate).exists() {
                return Some(format!(
                    "there is a certificate {}",
                    Path::new(&certificate).display()
                ));
            }
        }
        None
    }

    fn needs_for_rest(&self) -> Option<String> {
        if self.gssapi_asked
            && self
                .preferred_authentications()
                .iter()
                .any(|m| m == "gssapi-with-mic")
        {
            return Some("GSSAPIAuthentication is on".to_owned());
        }
        if self.is_on("permitlocalcommand") && self.get("localcommand").is_some() {
            return Some("LocalCommand is set".to_owned());
        }
        None
    }
}

/// Whether a private key stands for a key on a FIDO device. A public key beside it tells; else the
/// public half in OpenSSH's format does, which is readable without the passphrase.
fn is_security_key(path: &Path) -> bool {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    if let Ok(line) = fs::read(&public) {
        return line.starts_with(b"sk-");
    }
    let Ok(key) = russh::keys::PrivateKey::read_openssh_file(path) else {
        return false;
    };
    key.algorithm().as_str().starts_with("sk-")
}

/// Keys that count if they have a value, and their names for people.
const IF_SET: [(&str, &str); 7] = [
    ("proxyjump", "ProxyJump"),
    ("proxycommand", "ProxyCommand"),
    ("pkcs11provider", "PKCS11Provider"),
    ("certificatefile", "CertificateFile"),
    ("knownhostscommand", "KnownHostsCommand"),
    ("revokedhostkeys", "RevokedHostKeys"),
    ("bindinterface", "BindInterface"),
];

/// Keys that count if they are on.
const IF_ON: [(&str, &str); 3] = [
    ("hostbasedauthentication", "HostbasedAuthentication"),
    ("verifyhostkeydns", "VerifyHostKeyDNS"),
    (
        "nohostauthenticationforlocalhost",
        "NoHostAuthenticationForLocalhost",
    ),
];
