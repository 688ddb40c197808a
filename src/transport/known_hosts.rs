//! The known_hosts files: which keys they have for a host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! **Invariant:** a file is only read, and added to at its end; a line that makes no sense is
//! passed over, as ssh does.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use data_encoding::BASE64;

/// One line of a file that speaks of the host asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) file: PathBuf,
    /// Counted from 1.
    pub(super) line: usize,
    /// `@revoked`: this key must never be taken, from any host it matches.
    pub(super) revoked: bool,
    /// `ssh-ed25519`, ...
    pub(super) key_type: String,
    /// The public key blob (RFC 4253 section 6.6).
    pub(super) key: Vec<u8>,
}

/// All entries for `name` (as [`name_of`] makes it) in `files`, in order. A file that is missing
/// or cannot be read has none.
pub(super) fn entries(files: &[PathBuf], name: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    for file in files {
        match read(file) {
            Ok(text) => found.extend(parse(file, &text, name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("{}: {error}", file.display()),
        }
    }
    found
}

/// How the files call a host: in lower case, with the port if it is not 22.
pub(super) fn name_of(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == SSH_PORT {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

/// Adds a key at the end of `file`, which is made (and its folder) if it is missing.
///
/// # Errors
///
/// What the filesystem says.
pub(super) fn add(
    file: &Path,
    name: &str,
    key_type: &str,
    key: &[u8],
    hash: bool,
) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)?;
    let name = if hash { hashed(name)? } else { name.to_owned() };
    let line = format!(
        "{}{name} {key_type} {}\n",
        missing_line_end(&mut file)?,
        BASE64.encode(key)
    );
    // One write: two mounts that start at once do not mix their lines.
    file.write_all(line.as_bytes())
}

/// A line end if the last line has none: somebody edited the file by hand.
fn missing_line_end(file: &mut std::fs::File) -> io::Result<&'static str> {
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok("");
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(if last == *b"\n" { "" } else { "\n" })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(file)?
        .take(FILE_SIZE_MAX)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn parse(file: &Path, text: &[u8], name: &str) -> Vec<Entry> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines
        // A comment may be in any encoding; what counts in a line is ASCII.
        .filter_map(|(n, line)| parse_line(file, n + 1, &String::from_utf8_lossy(line), name))
        .collect()
}

fn parse_line(file: &Path, line: usize, text: &str, name: &str) -> Option<Entry> {
    let mut words = text
        .split([' ', '\t', '\r'])
        .filter(|word| !word.is_empty());
    let mut hosts = words.next().filter(|word| !word.starts_with('#'))?;
    let revoked = hosts == "@revoked";
    if revoked {
        hosts = words.next()?;
    } else if hosts.starts_with('@') {
        // @cert-authority: certificates are for OpenSSH's client; an unknown marker is an error.
        return None;
    }
    let (key_type, key) = (words.next()?, words.next()?);
    let key = BASE64.decode(key.as_bytes()).ok()?;
    // The type stands in the key too (RFC 4253 section 6.6); if they differ the line is damaged.
    if type_of(&key)? != key_type || !matches(hosts, name) {
        return None;
    }
    Some(Entry {
        file: file.to_owned(),
        line,
        revoked,
        key_type: key_type.to_owned(),
        key,
    })
}

/// The type that a public key blob begins with.
pub(super) fn type_of(key: &[u8]) -> Option<&str> {
    let (len, rest) = key.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    str::from_utf8(rest.get(..len)?).ok()
}

/// Whether a line's first field means `name`: hashed, or patterns of which a negated one wins.
fn matches(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix(HASHED) {
        return matches_hash(hashed, name).unwrap_or(false);
    }
    let mut matched = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_pattern(pattern, name) => return false,
            Some(_) => {}
            None => matched |= matches_pattern(pattern, name),
        }
    }
    matched
}

/// `salt|HMAC-SHA1(salt, name)`, both in base64.
fn matches_hash(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = BASE64.decode(salt.as_bytes()).ok()?;
    let hash = BASE64.decode(hash.as_bytes()).ok()?;
    Some(hmac::sign(&hmac_key(&salt), name.as_bytes()).as_ref() == hash)
}

fn hashed(name: &str) -> io::Result<String> {
    // As long as the hash, which is what OpenSSH takes (host_hash of hostfile.c).
    let mut salt = [0; 20];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no random numbers"))?;
    let hash = hmac::sign(&hmac_key(&salt), name.as_bytes());
    Ok(format!(
        "{HASHED}{}|{}",
        BASE64.encode(&salt),
        BASE64.encode(hash.as_ref())
    ))
}

fn hmac_key(salt: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt)
}

/// `*` and `?`, without regard to case (ssh_config(5), PATTERNS). The name is in lower case.
pub(super) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on after the last star, if what follows it fits only further on.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

pub(super) const SSH_PORT: u16 = 22;

/// What marks a hashed name, and its only kind.
const HASHED: &str = "|1|";

/// A file of 100,000 hosts has 20 MB.
const FILE_SIZE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of the given type; its bytes mean nothing.
    fn key(key_type: &str, body: &[u8]) -> Vec<u8> {
        let mut key = u32::try_from(key_type.len())
            .unwrap()
            .to_be_bytes()
            .to_vec();
        key.extend_from_slice(key_type.as_bytes());
        key.extend_from_slice(body);
        key
    }

    fn found(text: &str, name: &str) -> Vec<usize> {
        parse(Path::new("f"), text.as_bytes(), name)
            .iter()
            .map(|entry| entry.line)
            .collect()
    }

    fn line(hosts: &str) -> String {
        format!(
            "{hosts} ssh-ed25519 {} comment\n",
            BASE64.encode(&key("ssh-ed25519", b"abc"))
        )
    }

    #[test]
    fn plain_names_comments_and_damaged_lines() {
        let text = format!(
            "# host\n\n{}host\nhost ssh-rsa {}\n{}",
            line("host"),
            "!!",
            line("other,host")
        );
        assert_eq!(found(&text, "host"), [3, 6]);
        assert_eq!(found(&text, "hos"), [0; 0]);
    }

    #[test]
    fn a_comment_in_any_encoding_hides_no_line() {
        let mut text = line("@revoked host").into_bytes();
        text.truncate(text.len() - 1);
        text.extend_from_slice(b" B\xfcro\n");
        let entries = parse(Path::new("f"), &text, "host");
        assert!(entries.len() == 1 && entries[0].revoked);
    }

    #[test]
    fn a_key_that_is_not_of_the_type_before_it_is_passed_over() {
        let text = format!(
            "host ssh-rsa {}\n",
            BASE64.encode(&key("ssh-ed25519", b"abc"))
        );
        assert_eq!(found(&text, "host"), [0; 0]);
    }

    #[test]
    fn patterns_and_negation() {
        let text = line("*.example.org,!bad.example.org,10.0.0.?");
        assert_eq!(found(&text, "good.example.org"), [1]);
        assert_eq!(found(&text, "bad.example.org"), [0; 0]);
        assert_eq!(found(&text, "10.0.0.7"), [1]);
        assert_eq!(found(&text, "10.0.0.77"), [0; 0]);
    }

    #[test]
    fn only_negated_patterns_match_nothing() {
        assert_eq!(found(&line("!a"), "b"), [0; 0]);
    }

    #[test]
    fn stars_go_back_and_try_again() {
        assert!(matches_pattern("*ab*ab", "ababxab"));
        assert!(!matches_pattern("*ab*abc", "ababxab"));
        assert!(matches_pattern("*", ""));
        assert!(matches_pattern("EXAMPLE.*", "example.org"));
        assert!(!matches_pattern("", "a"));
    }

    #[test]
    fn another_port_is_part_of_the_name() {
        assert_eq!(name_of("Host", 22), "host");
        assert_eq!(name_of("::1", 2222), "[::1]:2222");
        let text = line("[host]:2222");
        assert_eq!(found(&text, &name_of("host", 2222)), [1]);
        assert_eq!(found(&text, "host"), [0; 0]);
    }

    #[test]
    fn hashed_names_that_openssh_made() {
        let text = line("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=");
        assert_eq!(found(&text, "192.168.1.61"), [1]);
        assert_eq!(found(&text, "192.168.1.62"), [0; 0]);
    }

    #[test]
    fn what_is_hashed_is_found_again() {
        let text = line(&hashed("[host]:2222").unwrap());
        assert_eq!(found(&text, "[host]:2222"), [1]);
        assert_eq!(found(&text, "host"), [0; 0]);
    }

    #[test]
    fn markers() {
        let text = format!(
            "@revoked {}@cert-authority {}@huh {}",
            line("*"),
            line("*"),
            line("*")
        );
        let found = parse(Path::new("f"), text.as_bytes(), "host");
        assert_eq!(
            found
                .iter()
                .map(|e| (e.line, e.revoked))
                .collect::<Vec<_>>(),
            [(1, true)]
        );
    }

    #[test]
    fn a_key_is_added_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new").join("known_hosts");
        add(
            &file,
            "host",
            "ssh-ed25519",
            &key("ssh-ed25519", b"abc"),
            false,
        )
        .unwrap();
        let first = std::fs::read_to_string(&file).unwrap();
        assert_eq!(first, "host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5YWJj\n");
        std::fs::write(&file, first.trim_end()).unwrap();
        add(
            &file,
            "other",
            "ssh-ed25519",
            &key("ssh-ed25519", b"abc"),
            true,
        )
        .unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&first), "{text}");
        assert_eq!(
            (found(&text, "host"), found(&text, "other")),
            (vec![1], vec![2])
        );
    }

    #[test]
    fn names_are_found_by_ssh_keygen_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        // A real key: ssh-keygen passes over what it cannot parse.
        let key = BASE64.decode(REAL_KEY.as_bytes()).unwrap();
        add(&file, "[host]:2222", "ssh-ed25519", &key, true).unwrap();
        let output = std::process::Command::new("ssh-keygen")
            .args(["-F", "[host]:2222", "-f"])
            .arg(&file)
            .output()
            .expect("needs ssh-keygen");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("found: line 1"),
            "{output:?}"
        );
    }

    const REAL_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
}
