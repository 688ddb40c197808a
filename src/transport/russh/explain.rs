//! russh's errors in words for a person: what failed, on what, why, what to do.

use russh::AlgorithmKind;

use super::super::host_config::Settings;
use super::handler::Failure;
use super::wire::{Head, plain};
use crate::error::Error;

/// Why the handshake with the host failed. `head` is what the server said first.
pub(super) fn handshake(settings: &Settings, failure: Failure, head: &Head) -> Error {
    let error = match failure {
        Failure::Ours(error) => return error,
        Failure::Ssh(error) => error,
    };
    let place = place(settings);
    let said = head.line();
    let is_ssh = said.as_ref().is_some_and(|line| line.starts_with("SSH-"));
    // Who cannot prove to be the server is not asked again and again.
    let is_false = matches!(error, russh::Error::WrongServerSig);
    let text = match (error, said) {
        (russh::Error::NoCommonAlgo { kind, ours, theirs }, _) => {
            no_common(&place, &kind, &ours, &theirs)
        }
        (russh::Error::WrongServerSig, _) => {
            format!("{place}: the server could not prove that it has the host key it shows")
        }
        (error, None) => format!(
            "{place} ended the connection before a word ({}); is an SSH server there, and does it \
             let this machine in?",
            ended(&error)
        ),
        (error, Some(line)) if is_ssh => {
            format!(
                "{place} ({line}): the SSH handshake failed: {}",
                ended(&error)
            )
        }
        (_, Some(line)) => format!("{place} is not an SSH server: it says \"{line}\""),
    };
    if is_false {
        return Error::denied(text);
    }
    Error::setup(text)
}

/// No answer in time.
pub(super) fn late(settings: &Settings, head: &Head) -> Error {
    let seconds = settings.connect_timeout().as_secs();
    let place = place(settings);
    Error::setup(match head.line() {
        Some(line) if line.starts_with("SSH-") => {
            format!("{place} ({line}): the SSH handshake took longer than {seconds} s")
        }
        Some(line) => format!("{place} is not an SSH server: it says \"{line}\""),
        None => format!(
            "{place} takes the connection but says nothing for {seconds} s; is an SSH server there?"
        ),
    })
}

/// Why a connection ended.
pub(super) fn ended(error: &russh::Error) -> String {
    match error {
        russh::Error::KeepaliveTimeout => "the server does not answer any more".to_owned(),
        russh::Error::Disconnect | russh::Error::HUP => "connection closed".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "connection closed".to_owned()
        }
        russh::Error::IO(error) => plain(error),
        russh::Error::NoAuthMethod => "no way to log in is left".to_owned(),
        other => other.to_string(),
    }
}

fn place(settings: &Settings) -> String {
    format!("{} port {}", settings.host_name(), settings.port())
}

fn no_common(place: &str, kind: &AlgorithmKind, ours: &[String], theirs: &[String]) -> String {
    let (what, option) = match kind {
        AlgorithmKind::Kex => ("key exchange", "KexAlgorithms"),
        AlgorithmKind::Key => ("host key algorithm", "HostKeyAlgorithms"),
        AlgorithmKind::Cipher => ("cipher", "Ciphers"),
        AlgorithmKind::Mac => ("MAC", "MACs"),
        AlgorithmKind::Compression => ("compression", "Compression"),
    };
    let mut offered: Vec<String> = theirs.to_vec();
    // What only marks an extension is no algorithm.
    offered.retain(|name| !name.starts_with("kex-strict-") && !name.starts_with("ext-info-"));
    let text = format!(
        "{place}: no common {what}: the server offers {}, we {}; allow one with -o {option}=..., \
         or try -o transport=openssh or -o transport=ssh2, which know others",
        offered.join(","),
        ours.iter()
            .filter(|n| !n.starts_with("kex-strict-") && !n.starts_with("ext-info-"))
            .cloned()
            .collect::<Vec<_>>()
            .join(",")
    );
    super::super::prompt::printable(&text)
}
