//! Which algorithms libssh2 offers, in which order.

use ssh2::{Error, MethodType, Session};

use super::super::host_config::Settings;
use super::super::host_keys;

/// Sets the order for the coming handshake. What was typed (`-o Ciphers=...`) is taken as it is;
/// the lists of a configuration file are not, because OpenSSH's defaults leave out just the older
/// algorithms that this transport is for.
pub(super) fn prefer(session: &Session, settings: &Settings) -> Result<(), Error> {
    for (key, kinds, ours) in PREFERENCES {
        let typed = if settings.is_typed(key) {
            settings.list(key)
        } else {
            Vec::new()
        };
        for kind in *kinds {
            let supported = session.supported_algs(*kind)?;
            let wanted = if typed.is_empty() {
                ours
            } else {
                typed.as_slice()
            };
            let mut names: Vec<&str> = wanted
                .iter()
                .copied()
                .filter(|name| supported.contains(name))
                .collect();
            if *key == "hostkeyalgorithms" && typed.is_empty() {
                put_known_first(&mut names, settings);
            }
            // Nothing in common with what was typed is for the handshake to tell.
            if !names.is_empty() {
                session.method_pref(*kind, &names.join(","))?;
            }
        }
    }
    session.set_compress(settings.compression());
    Ok(())
}

/// What was agreed on that no server should still need.
pub(super) fn weak(session: &Session) -> Vec<String> {
    let kinds = [
        MethodType::Kex,
        MethodType::HostKey,
        MethodType::CryptSc,
        MethodType::MacSc,
    ];
    let agreed = kinds.into_iter().filter_map(|kind| session.methods(kind));
    agreed
        .filter(|name| is_weak(name))
        .map(str::to_owned)
        .collect()
}

/// SHA-1 in a signature or key exchange, and CBC, which leaks plaintext in SSH (CVE-2008-5161).
fn is_weak(name: &str) -> bool {
    let sha1 = name.ends_with("-sha1") && !name.starts_with("hmac-");
    sha1 || name.contains("-cbc") || name == "ssh-rsa"
}

/// A server with several keys must not show one that known_hosts does not have.
fn put_known_first(names: &mut [&str], settings: &Settings) {
    let known = host_keys::known_types(settings);
    names.sort_by_key(|name| {
        let key_type = if name.starts_with("rsa-sha2-") {
            "ssh-rsa"
        } else {
            name
        };
        !known.iter().any(|known| known == key_type)
    });
}

/// Key of ssh_config(5), what libssh2 calls it, and our order. Sound ones first; the older ones at
/// the end are why this transport exists. libssh2's AES-GCM is slower than its ChaCha20-Poly1305
/// (87 and 149 MB/s).
const PREFERENCES: &[(&str, &[MethodType], &[&str])] = &[
    (
        "kexalgorithms",
        &[MethodType::Kex],
        &[
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
            "diffie-hellman-group-exchange-sha256",
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group18-sha512",
            "diffie-hellman-group14-sha256",
            "diffie-hellman-group14-sha1",
            "diffie-hellman-group-exchange-sha1",
            "diffie-hellman-group1-sha1",
        ],
    ),
    (
        "hostkeyalgorithms",
        &[MethodType::HostKey],
        &[
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "rsa-sha2-512",
            "rsa-sha2-256",
            "ssh-rsa",
        ],
    ),
    (
        "ciphers",
        &[MethodType::CryptCs, MethodType::CryptSc],
        &[
            "chacha20-poly1305@openssh.com",
            "aes128-ctr",
            "aes192-ctr",
            "aes256-ctr",
            "aes128-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "aes256-cbc",
            "aes192-cbc",
            "aes128-cbc",
            "rijndael-cbc@lysator.liu.se",
        ],
    ),
    (
        "macs",
        &[MethodType::MacCs, MethodType::MacSc],
        &[
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-512-etm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-512",
            "hmac-sha1-etm@openssh.com",
            "hmac-sha1",
            "hmac-sha1-96",
        ],
    ),
];
