//! Whether the server is the one it should be: its key against the known_hosts files, and what
//! `StrictHostKeyChecking` says when they do not know it.
//!
//! **Invariant:** a key that is revoked is never taken; one that differs from a known one is only
//! taken with `StrictHostKeyChecking=no`, and then no password is to be sent.

use std::path::PathBuf;

use aws_lc_rs::digest;
use data_encoding::BASE64_NOPAD;

use super::host_config::{Settings, Strict};
use super::known_hosts::{self, Entry, SSH_PORT};
use super::prompt::printable;
use crate::error::{Error, Result};

/// What the files say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Known,
    /// No key is known for the host.
    Unknown,
    /// Only other keys are known: of this type, or of others. A server that has a key of a known
    /// type is asked for that one, so that a key of another type is no reason to trust it.
    Changed {
        known: Entry,
    },
    Revoked {
        by: Entry,
    },
}

/// How far the server may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Trust {
    Full,
    /// The key changed and `StrictHostKeyChecking=no` lets that pass: as ssh(1), prove who we are
    /// with keys only, for a password would be told to whoever answers.
    KeysOnly,
}

/// Decides whether to go on with a server that showed `key`, a public key blob (RFC 4253 section
/// 6.6). Asks through `ask` (question to answer; `None` is nobody there) and adds a new key to the
/// first of the user's files, as `StrictHostKeyChecking` says. Blocks as long as `ask` does.
///
/// # Errors
///
/// [`Error::Denied`] if the key is refused.
pub(super) fn verify(
    settings: &Settings,
    key: &[u8],
    ask: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<Trust> {
    let name = name(settings);
    let strict = settings.strict_host_key_checking();
    check_revoked_file(settings, key)?;
    match judge(settings, key) {
        Verdict::Known => Ok(Trust::Full),
        Verdict::Revoked { by } => Err(revoked(&name, key, &place(&by))),
        Verdict::Changed { known } if matches!(strict, Strict::No | Strict::Off) => {
            log::warn!("{}", changed(&name, key, &known));
            log::warn!("going on, without passwords, because StrictHostKeyChecking is off");
            Ok(Trust::KeysOnly)
        }
        Verdict::Changed { known } => Err(Error::denied(changed(&name, key, &known))),
        Verdict::Unknown => {
            match strict {
                Strict::Yes => return Err(unknown(&name, key, "StrictHostKeyChecking=yes")),
                Strict::Ask => confirm(&name, key, ask)?,
                Strict::No | Strict::Off | Strict::AcceptNew => {}
            }
            remember(settings, &name, key);
            Ok(Trust::Full)
        }
    }
}

/// The types of the keys that are known for the host, best known first. To be asked for first,
/// or a server with several keys may show one that we do not know.
pub(super) fn known_types(settings: &Settings) -> Vec<String> {
    let mut types = Vec::new();
    for entry in known_hosts::entries(&files(settings), &name(settings)) {
        if !entry.revoked && !types.contains(&entry.key_type) {
            types.push(entry.key_type);
        }
    }
    types
}

/// `SHA256:...`, as ssh(1) shows it.
pub(super) fn fingerprint(key: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, key);
    format!("SHA256:{}", BASE64_NOPAD.encode(hash.as_ref()))
}

/// What the files say of `key`.
pub(super) fn judge(settings: &Settings, key: &[u8]) -> Verdict {
    let files = files(settings);
    let verdict = judge_by(known_hosts::entries(&files, &name(settings)), key);
    // ssh takes a key that is known for the host without the port, but is not put off by another
    // one there: that may be another server's.
    if matches!(verdict, Verdict::Unknown) && names_port(settings) {
        let plain = known_hosts::name_of(settings.host_name(), SSH_PORT);
        match judge_by(known_hosts::entries(&files, &plain), key) {
            better @ (Verdict::Known | Verdict::Revoked { .. }) => return better,
            Verdict::Unknown | Verdict::Changed { .. } => {}
        }
    }
    verdict
}

fn judge_by(entries: Vec<Entry>, key: &[u8]) -> Verdict {
    if let Some(by) = entries
        .iter()
        .find(|entry| entry.revoked && entry.key == key)
    {
        return Verdict::Revoked { by: by.clone() };
    }
    let mut others: Vec<_> = entries.into_iter().filter(|entry| !entry.revoked).collect();
    if others.iter().any(|entry| entry.key == key) {
        return Verdict::Known;
    }
    let key_type = known_hosts::type_of(key).unwrap_or_default();
    let same_type = others.iter().position(|entry| entry.key_type == key_type);
    if others.is_empty() {
        return Verdict::Unknown;
    }
    Verdict::Changed {
        known: others.swap_remove(same_type.unwrap_or(0)),
    }
}

/// The name that the files know the host by.
fn name(settings: &Settings) -> String {
    settings.known_hosts_name().to_ascii_lowercase()
}

/// Whether the port is in the name. ssh takes `HostKeyAlias` as it stands.
fn names_port(settings: &Settings) -> bool {
    settings.get("hostkeyalias").is_none() && settings.port() != SSH_PORT
}

fn files(settings: &Settings) -> Vec<PathBuf> {
    let mut files = settings.user_known_hosts();
    files.extend(settings.global_known_hosts());
    files
}

/// `RevokedHostKeys`: a file of public keys, one a line. What cannot be read refuses every key, as
/// ssh_config(5) says.
fn check_revoked_file(settings: &Settings, key: &[u8]) -> Result<()> {
    let Some(file) = settings.get("revokedhostkeys") else {
        return Ok(());
    };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::setup(format!(
            "RevokedHostKeys {file}: {error}; no host key can be trusted without it \
             (a list made by `ssh-keygen -k` needs -o transport=openssh)"
        ))
    })?;
    let key_text = data_encoding::BASE64.encode(key);
    if text.split_ascii_whitespace().any(|word| word == key_text) {
        return Err(revoked(&name(settings), key, file));
    }
    Ok(())
}

fn confirm(name: &str, key: &[u8], ask: &mut dyn FnMut(&str) -> Option<String>) -> Result<()> {
    let fingerprint = fingerprint(key);
    let mut question = format!(
        "The authenticity of host '{name}' can't be established.\n{} key fingerprint is {fingerprint}.\n\
         Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        kind(key),
    );
    loop {
        let Some(answer) = ask(&question) else {
            return Err(unknown(name, key, "there is nobody to ask"));
        };
        match answer.trim() {
            "yes" => return Ok(()),
            typed if typed == fingerprint => return Ok(()),
            "no" | "" => return Err(unknown(name, key, "you did not confirm it")),
            _ => "Please type 'yes', 'no' or the fingerprint: ".clone_into(&mut question),
        }
    }
}

fn remember(settings: &Settings, name: &str, key: &[u8]) {
    let Some(file) = settings.user_known_hosts().into_iter().next() else {
        return;
    };
    let kind_of_key = known_hosts::type_of(key).unwrap_or_default();
    let hash = settings.hash_known_hosts();
    match known_hosts::add(&file, name, kind_of_key, key, hash) {
        Ok(()) => log::warn!(
            "added the {} key of {name} to {}: {}",
            kind(key),
            file.display(),
            fingerprint(key)
        ),
        Err(error) => log::warn!(
            "cannot add the key of {name} to {}: {error}",
            file.display()
        ),
    }
}

fn changed(name: &str, key: &[u8], known: &Entry) -> String {
    format!(
        "{name}: the host key has changed: the server shows {} {}, but {} says {}.\n\
         Somebody may be intercepting the connection, or the server was set up anew. If you are \
         sure of the new key, remove the old one with `ssh-keygen -f {} -R '{name}'`.",
        kind(key),
        fingerprint(key),
        place(known),
        fingerprint(&known.key),
        known.file.display(),
    )
}

fn revoked(name: &str, key: &[u8], place: &str) -> Error {
    Error::denied(format!(
        "{name}: the host key {} {} is marked as revoked in {place}; not connecting",
        kind(key),
        fingerprint(key)
    ))
}

fn unknown(name: &str, key: &[u8], why: &str) -> Error {
    Error::denied(format!(
        "{name}: the host key {} {} is not known, and {why}; connect once with ssh to check and \
         store it, or use -o StrictHostKeyChecking=accept-new",
        kind(key),
        fingerprint(key)
    ))
}

fn place(entry: &Entry) -> String {
    format!("{}:{}", entry.file.display(), entry.line)
}

/// `ED25519`, as ssh(1) calls key types. The type is the server's word, so it is made printable.
fn kind(key: &[u8]) -> String {
    match known_hosts::type_of(key).unwrap_or("unreadable") {
        "ssh-ed25519" => "ED25519".to_owned(),
        "ssh-rsa" => "RSA".to_owned(),
        "ssh-dss" => "DSA".to_owned(),
        "sk-ssh-ed25519@openssh.com" => "ED25519-SK".to_owned(),
        other if other.starts_with("ecdsa-") => "ECDSA".to_owned(),
        other => printable(other),
    }
}
