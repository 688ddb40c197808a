//! The keys that can prove who we are: those of the agent, and those in files.
//!
//! **Invariant:** a private key is read, and its passphrase asked for, only after the server said
//! that it would take the key, if its public half can be known without.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::{PrivateKey, PublicKey, decode_secret_key, parse_public_key_base64};
use zeroize::Zeroizing;

use super::super::host_config::Settings;
use super::super::secrets::Prompter;
use super::wire::plain;

/// One key to offer.
pub(super) struct Identity {
    /// `None` only for a file whose public half is encrypted too and has no `.pub` beside it.
    pub(super) public: Option<PublicKey>,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// The agent signs; with a certificate if it has one.
    Agent(Box<AgentIdentity>),
    File(PathBuf),
}

/// What there is to offer, in ssh's order: the agent's keys that are also named as files, the
/// agent's others unless `IdentitiesOnly` is set, the files that the agent does not have. Files
/// that cannot serve are named in `notes`.
pub(super) fn gather(
    settings: &Settings,
    agent: Vec<AgentIdentity>,
    notes: &mut Vec<String>,
) -> Vec<Identity> {
    let mut files = Vec::new();
    for path in settings.identity_files() {
        match find_public(&path) {
            Ok(public) => files.push((path, public)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !settings.identity_file_is_default(&path) {
                    notes.push(format!("{} (no such file)", path.display()));
                }
            }
            Err(error) => notes.push(format!("{} ({})", path.display(), plain(&error))),
        }
    }
    let names = |identity: &AgentIdentity| {
        let key = identity.public_key();
        files
            .iter()
            .position(|(_, public)| is_same(public.as_ref(), &key))
    };
    let mut agent: Vec<_> = agent
        .into_iter()
        .map(|identity| (names(&identity), identity))
        .collect();
    agent.retain(|(named, _)| named.is_some() || !settings.identities_only());
    agent.sort_by_key(|(named, _)| named.unwrap_or(usize::MAX));
    let held: Vec<_> = agent.iter().filter_map(|(named, _)| *named).collect();
    let from_agent = agent.into_iter().map(|(_, identity)| Identity {
        public: Some(identity.public_key().into_owned()),
        origin: Origin::Agent(Box::new(identity)),
    });
    let left = files
        .into_iter()
        .enumerate()
        .filter(|(n, _)| !held.contains(n));
    let from_files = left.map(|(_, (path, public))| Identity {
        public,
        origin: Origin::File(path),
    });
    from_agent.chain(from_files).collect()
}

fn is_same(file: Option<&PublicKey>, agent: &PublicKey) -> bool {
    file.is_some_and(|file| file.key_data() == agent.key_data())
}

/// The public half of a key file: beside it in `.pub`, in it in the clear (OpenSSH's format), or
/// the file itself, if it names a key that only the agent has. `None` if it takes the passphrase.
pub(in super::super) fn find_public(path: &Path) -> io::Result<Option<PublicKey>> {
    let text = read(path);
    // The private key may be missing, too: the agent can have it.
    if let Some(key) = read(&with_pub(path))
        .ok()
        .and_then(|text| parse_public(&text))
    {
        return Ok(Some(key));
    }
    let text = text?;
    if let Some(key) = parse_public(&text) {
        return Ok(Some(key));
    }
    if let Ok(key) = PrivateKey::from_openssh(text.as_bytes()) {
        return Ok(Some(key.public_key().clone()));
    }
    Ok(decode_secret_key(&text, None)
        .ok()
        .map(|key| key.public_key().clone()))
}

fn parse_public(line: &str) -> Option<PublicKey> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| !word.starts_with('-'))?;
    parse_public_key_base64(words.next()?).ok()
}

fn with_pub(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?
        .take(FILE_SIZE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a private key, asking for the passphrase if there is one: three times, as ssh(1). Blocks.
///
/// # Errors
///
/// Why it cannot be had, in words.
pub(in super::super) fn load(path: &Path, prompter: &Prompter) -> Result<Arc<PrivateKey>, String> {
    check_permissions(path)?;
    let text = read(path).map_err(|error| plain(&error))?;
    match decode_secret_key(&text, None) {
        Ok(key) => return Ok(Arc::new(key)),
        Err(russh::keys::Error::KeyIsEncrypted) => {}
        Err(_) if text.contains("ENCRYPTED") => {}
        Err(_) if parse_public(&text).is_some() => return Err("only a public key".into()),
        Err(error) => return Err(format!("not a private key that can be read: {error}")),
    }
    let question = format!("Enter passphrase for key '{}': ", path.display());
    for _ in 0..PASSPHRASE_ATTEMPTS {
        let Some(passphrase) = prompter.secret(&question) else {
            return Err("its passphrase is needed, and there is nobody to ask".into());
        };
        // Nothing typed is how a person says that this key is not to be used.
        if passphrase.bytes().is_empty() {
            return Err("no passphrase given".into());
        }
        if let Some(key) = passphrase
            .text()
            .and_then(|text_of| decode_secret_key(&text, Some(text_of)).ok())
        {
            return Ok(Arc::new(key));
        }
    }
    Err("wrong passphrase".into())
}

/// As ssh(1), for files of our own: others must not be able to read them.
fn check_permissions(path: &Path) -> Result<(), String> {
    let file = std::fs::metadata(path).map_err(|error| plain(&error))?;
    if file.uid() == nix::unistd::getuid().as_raw() && file.mode() & 0o077 != 0 {
        return Err(format!(
            "not used: others can read it (mode {:04o}); `chmod 600 {}`",
            file.mode() & 0o7777,
            path.display()
        ));
    }
    Ok(())
}

/// ssh(1) asks as often.
const PASSPHRASE_ATTEMPTS: usize = 3;

/// A private key of RSA with 16384 bits takes 12 KiB.
const FILE_SIZE_MAX: u64 = 1 << 20;
