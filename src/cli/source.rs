//! What is mounted: `[user@]host:[dir]` or `sftp://[user@]host[:port][/dir]`.
//!
//! **Invariant:** a host or user that leaves this file is not empty, does not start with `-` (ssh
//! would take it for an option) and holds no control characters and no blanks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A source, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Empty for the login directory; bytes, as names on the server are.
    pub(super) directory: Vec<u8>,
}

const URL_SCHEME: &[u8] = b"sftp://";

/// Takes a source apart; the error is a sentence for the user.
pub(super) fn parse(typed: &OsStr) -> Result<Source, String> {
    let bytes = typed.as_bytes();
    let parsed = match bytes.strip_prefix(URL_SCHEME) {
        Some(rest) => parse_url(rest),
        None => parse_plain(bytes),
    };
    parsed.map_err(|why| format!("source '{}': {why}", printable(bytes)))
}

fn parse_plain(typed: &[u8]) -> Result<Source, String> {
    let Some((login, directory)) = split_host(typed) else {
        return Err("no ':' in it; it is written [user@]host:[dir], \
                    e.g. alice@server:/srv/data, or sftp://host/dir"
            .into());
    };
    let (user, host) = split_user(login);
    Ok(Source {
        user: user.map(checked_user).transpose()?,
        host: checked_host(unbracket(host)?)?,
        port: None,
        directory: directory.to_vec(),
    })
}

fn parse_url(rest: &[u8]) -> Result<Source, String> {
    let slash = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (user, host_and_port) = split_user(authority);
    let (host, port) = match split_host(host_and_port) {
        Some((host, port)) => (host, Some(super::values::port(text(port, "port")?)?)),
        None => (host_and_port, None),
    };
    let user = user.map(percent_decode).transpose()?;
    if user.as_ref().is_some_and(|user| user.contains(&b':')) {
        return Err(
            "a password in an address is seen by everyone on this machine; \
                    leave it out, it is asked for"
                .into(),
        );
    }
    let path = percent_decode(path)?;
    // As curl does: /~/dir is below the login directory. "sftp://host" is the login directory.
    let directory = match path.strip_prefix(b"/~") {
        Some([]) => Vec::new(),
        Some([b'/', below @ ..]) => below.to_vec(),
        _ => path,
    };
    Ok(Source {
        user: user.as_deref().map(checked_user).transpose()?,
        host: checked_host(unbracket(host)?)?,
        port,
        directory,
    })
}

/// Splits at the first colon outside of brackets.
fn split_host(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut in_brackets = false;
    let colon = bytes.iter().position(|&b| {
        match b {
            b'[' => in_brackets = true,
            b']' => in_brackets = false,
            _ => {}
        }
        b == b':' && !in_brackets
    })?;
    Some((bytes.get(..colon)?, bytes.get(colon + 1..)?))
}

/// Splits at the last `@`: user names with one in them exist (alice@corp@host).
fn split_user(login: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match login.iter().rposition(|&b| b == b'@') {
        Some(at) => {
            let (user, host) = login.split_at(at);
            (Some(user), host.get(1..).unwrap_or_default())
        }
        None => (None, login),
    }
}

fn unbracket(host: &[u8]) -> Result<&[u8], String> {
    match host {
        [b'[', inside @ .., b']'] => Ok(inside),
        _ if host.contains(&b'[') || host.contains(&b']') => {
            Err("the brackets of an IPv6 address do not match, e.g. [::1]:/dir".into())
        }
        _ => Ok(host),
    }
}

fn checked_host(host: &[u8]) -> Result<String, String> {
    if host.is_empty() {
        return Err("the host is missing before the ':'".into());
    }
    checked_word(host, "host")
}

fn checked_user(user: &[u8]) -> Result<String, String> {
    if user.is_empty() {
        return Err("the user is missing before the '@'".into());
    }
    checked_word(user, "user")
}

/// What ssh could misread is refused: options, control characters, blanks.
fn checked_word(word: &[u8], what: &str) -> Result<String, String> {
    if word.starts_with(b"-") {
        return Err(format!("a {what} never starts with '-'"));
    }
    if word.iter().any(|b| b.is_ascii_control() || *b == b' ') {
        return Err(format!(
            "a {what} holds no blanks and no control characters"
        ));
    }
    text(word, what).map(str::to_owned)
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"))
}

fn percent_decode(encoded: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            decoded.push(first);
            rest = after;
            continue;
        }
        let byte = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(byte) = byte.filter(|&byte| byte != 0) else {
            return Err("'%' in an address is followed by two hexadecimal digits, \
                        e.g. %20 for a blank"
                .into());
        };
        decoded.push(byte);
        rest = after.get(2..).unwrap_or_default();
    }
    Ok(decoded)
}

/// For messages, df and mountinfo: what was typed, with control characters made visible.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(user: Option<&str>, host: &str, port: Option<u16>, directory: &str) -> Source {
        Source {
            user: user.map(str::to_owned),
            host: host.into(),
            port,
            directory: directory.into(),
        }
    }

    #[test]
    fn a_source_is_taken_apart() {
        for (typed, expected) in [
            ("h:", source(None, "h", None, "")),
            ("h:/srv", source(None, "h", None, "/srv")),
            ("h:a:b", source(None, "h", None, "a:b")),
            ("u@h:~/x", source(Some("u"), "h", None, "~/x")),
            ("u@corp@h:/x@y", source(Some("u@corp"), "h", None, "/x@y")),
            ("[::1]:/d", source(None, "::1", None, "/d")),
            (
                "u@[fe80::1%eth0]:",
                source(Some("u"), "fe80::1%eth0", None, ""),
            ),
            ("sftp://h", source(None, "h", None, "")),
            ("sftp://h/", source(None, "h", None, "/")),
            (
                "sftp://u@h:2222/a%20b",
                source(Some("u"), "h", Some(2222), "/a b"),
            ),
            ("sftp://[::1]:22/~/x", source(None, "::1", Some(22), "x")),
            ("sftp://h/~", source(None, "h", None, "")),
            ("sftp://h/~alice", source(None, "h", None, "/~alice")),
        ] {
            assert_eq!(parse(OsStr::new(typed)), Ok(expected), "{typed}");
        }
    }

    #[test]
    fn a_directory_is_bytes() {
        let parsed = parse(OsStr::from_bytes(b"h:/\xff")).unwrap();
        assert_eq!(parsed.directory, b"/\xff");
    }

    #[test]
    fn each_wrong_source_says_what_is_wrong() {
        for (typed, message) in [
            ("server", "no ':' in it"),
            ("/dir", "no ':' in it"),
            (":/dir", "the host is missing"),
            ("u@:/dir", "the host is missing"),
            ("@h:/dir", "the user is missing"),
            ("-oProxyCommand=x:/", "a host never starts with '-'"),
            ("u@-h:/", "a host never starts with '-'"),
            ("-u@h:/", "a user never starts with '-'"),
            ("h\x07:/", "no control characters"),
            ("a b:/", "no blanks"),
            ("[::1:/d", "no ':' in it"),
            ("[::1]x:/d", "brackets"),
            ("sftp://u:secret@h/", "a password in an address"),
            ("sftp://h:99999/", "not a port"),
            ("sftp://h/%zz", "two hexadecimal digits"),
            ("sftp:///dir", "the host is missing"),
        ] {
            let error = parse(OsStr::new(typed)).unwrap_err();
            assert!(error.contains(message), "{typed:?}: {error}");
        }
    }

    #[test]
    fn a_message_shows_no_control_characters() {
        let error = parse(OsStr::new("h\x1b[31m:/")).unwrap_err();
        assert!(!error.contains('\x1b'), "{error:?}");
    }
}
