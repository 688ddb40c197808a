//! Which refusals would be the same again, by the words of OpenSSH's client and server.
//!
//! **Invariant:** words that are not known here are taken for trouble that may pass: who is taken
//! for denied is not tried again by itself.

use crate::error::Error;

/// [`Error::Denied`] with the `text` for a person if what was `said` means that, else
/// [`Error::Setup`].
pub(super) fn error(said: &str, text: String) -> Error {
    if said.lines().any(is_denial) {
        return Error::denied(text);
    }
    Error::setup(text)
}

fn is_denial(line: &str) -> bool {
    // sshconnect2.c, userauth: `me@host: Permission denied (publickey,password).`
    (line.contains(": Permission denied (") && line.ends_with(")."))
        || WORDS.iter().any(|words| line.contains(words))
}

/// Each with where it is said.
const WORDS: [&str; 4] = [
    // sshconnect.c; the reason is in the lines before.
    "Host key verification failed.",
    // auth.c of the server: auth_maxtries_exceeded.
    "Too many authentication failures",
    // clientloop.c: the server has no such subsystem.
    "subsystem request failed on channel",
    // readconf.c: an option that this ssh does not have, or a value that it does not take.
    "Bad configuration option: ",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_denied(said: &str) -> bool {
        matches!(error(said, "text".to_owned()), Error::Denied(text) if &*text == "text")
    }

    #[test]
    fn what_would_be_refused_again_is_denied() {
        for said in [
            "me@host: Permission denied (publickey,password).",
            "No ED25519 host key is known for h and you have requested strict checking.\n\
             Host key verification failed.",
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n\
             Disconnected from 10.0.0.1 port 22",
            "subsystem request failed on channel 0",
        ] {
            assert!(is_denied(said), "{said}");
        }
    }

    #[test]
    fn trouble_of_the_network_and_unknown_words_may_pass() {
        for said in [
            "",
            "ssh: connect to host h port 22: Connection refused",
            "ssh: connect to host h port 22: No route to host",
            "ssh: Could not resolve hostname h: Temporary failure in name resolution",
            "kex_exchange_identification: Connection closed by remote host",
            "Connection closed by 10.0.0.1 port 22",
            "Connection timed out during banner exchange",
            "bash: /bin/sftp: Permission denied",
            "something else",
        ] {
            assert!(!is_denied(said), "{said}");
        }
    }
}
