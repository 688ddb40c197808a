//! Which algorithms are offered, in which order: those of ssh_config(5) that russh has, the fastest
//! cipher of this processor first unless the user chose.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

use super::super::host_config::Settings;

/// What to offer to the host. `known_types` are the key types that known_hosts has for it.
pub(super) fn preferred(settings: &Settings, known_types: &[String]) -> Preferred {
    Preferred {
        kex: Cow::Owned(key_exchanges(&settings.list("kexalgorithms"))),
        key: Cow::Owned(host_keys(
            &settings.list("hostkeyalgorithms"),
            settings.is_typed("hostkeyalgorithms"),
            known_types,
        )),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(ciphers(
            &settings.list("ciphers"),
            settings.is_typed("ciphers"),
            has_fast_aes(),
        )),
        mac: Cow::Owned(known(
            &settings.list("macs"),
            |name| mac::Name::try_from(name).ok(),
            MACS,
        )),
        compression: Cow::Borrowed(if settings.compression() {
            COMPRESSED
        } else {
            PLAIN
        }),
    }
}

/// Whether a list of ssh_config(5) allows an algorithm; an empty one allows all.
pub(super) fn allows(list: &[&str], name: &str) -> bool {
    list.is_empty() || list.contains(&name)
}

/// Those of a list that russh has, in its order; ours if the list is empty. `none` is no choice:
/// it would send everything in the clear.
fn known<T: Clone>(list: &[&str], find: impl Fn(&str) -> Option<T>, ours: &[T]) -> Vec<T> {
    if list.is_empty() {
        return ours.to_vec();
    }
    list.iter()
        .filter(|name| !matches!(**name, "none" | "clear"))
        .filter_map(|n| find(n))
        .collect()
}

fn key_exchanges(list: &[&str]) -> Vec<kex::Name> {
    let mut names = known(list, |name| kex::Name::try_from(name).ok(), KEX);
    // Who has OpenSSH's older hybrid first wants one that a quantum computer does not break; russh
    // has the newer one only, which OpenSSH before 9.9 cannot name.
    if list
        .first()
        .is_some_and(|first| first.starts_with("sntrup761"))
        && !names.contains(&kex::MLKEM768X25519_SHA256)
    {
        names.insert(0, kex::MLKEM768X25519_SHA256);
    }
    names.push(kex::EXTENSION_SUPPORT_AS_CLIENT);
    names.push(kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT);
    names
}

fn ciphers(list: &[&str], typed: bool, fast_aes: bool) -> Vec<cipher::Name> {
    let mut names = known(list, |name| cipher::Name::try_from(name).ok(), CIPHERS);
    // OpenSSH's default begins with ChaCha20 on every processor. A list in that order was not
    // chosen for its order, or was typed.
    let chosen = typed
        || list
            .first()
            .is_some_and(|first| *first != cipher::CHACHA20_POLY1305.as_ref());
    if !chosen && fast_aes {
        names.sort_by_key(|name| CIPHERS.iter().position(|ours| ours == name));
    }
    names
}

fn host_keys(list: &[&str], typed: bool, known_types: &[String]) -> Vec<Algorithm> {
    let mut names: Vec<Algorithm> = known(
        list,
        |name| {
            HOST_KEYS
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, a)| a.clone())
        },
        &[],
    );
    if names.is_empty() {
        // SHA-1 signatures (ssh-rsa) only for who asks for them, as in OpenSSH.
        names = HOST_KEYS
            .iter()
            .filter(|(name, _)| *name != "ssh-rsa")
            .map(|(_, a)| a.clone())
            .collect();
    }
    if !typed {
        // A stable sort: among the known ones, and among the others, the order stays.
        names.sort_by_key(|algorithm| !known_types.iter().any(|known| is_of(algorithm, known)));
    }
    names
}

fn is_of(algorithm: &Algorithm, key_type: &str) -> bool {
    algorithm.as_str() == key_type
        || (matches!(algorithm, Algorithm::Rsa { .. }) && key_type == "ssh-rsa")
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn has_fast_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_fast_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn has_fast_aes() -> bool {
    false
}

/// What the two sides agreed on, for the log.
pub(super) fn describe(names: &russh::Names) -> String {
    names.cipher.as_ref().to_owned()
}

/// For a processor with AES instructions, fastest first. AES-128-GCM moves 250 MB/s where
/// ChaCha20-Poly1305 moves 190.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
];

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
];

const HOST_KEYS: &[(&str, Algorithm)] = &[
    ("ssh-ed25519", Algorithm::Ed25519),
    (
        "ecdsa-sha2-nistp256",
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256,
        },
    ),
    (
        "ecdsa-sha2-nistp384",
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP384,
        },
    ),
    (
        "ecdsa-sha2-nistp521",
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP521,
        },
    ),
    (
        "rsa-sha2-512",
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha512),
        },
    ),
    (
        "rsa-sha2-256",
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha256),
        },
    ),
    ("ssh-rsa", Algorithm::Rsa { hash: None }),
];

const PLAIN: &[compression::Name] = &[compression::NONE];

/// The delayed kind, which OpenSSH has; then none, for a server that has neither.
const COMPRESSED: &[compression::Name] = &[
    compression::ZLIB_LEGACY,
    compression::ZLIB,
    compression::NONE,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ssh -G` of OpenSSH 9.2 prints.
    const DEFAULT: [&str; 6] = [
        "chacha20-poly1305@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
    ];

    #[test]
    fn aes_gcm_comes_first_where_the_processor_has_aes() {
        assert_eq!(ciphers(&DEFAULT, false, true)[0], cipher::AES_128_GCM);
        assert_eq!(
            ciphers(&DEFAULT, false, false)[0],
            cipher::CHACHA20_POLY1305
        );
        assert_eq!(ciphers(&[], false, true)[0], cipher::AES_128_GCM);
    }

    #[test]
    fn ciphers_that_the_user_chose_keep_their_order_and_no_other_is_added() {
        let chosen = ["aes256-ctr", "aes128-gcm@openssh.com"];
        assert_eq!(
            ciphers(&chosen, false, true),
            [cipher::AES_256_CTR, cipher::AES_128_GCM]
        );
        assert_eq!(ciphers(&DEFAULT, true, true)[0], cipher::CHACHA20_POLY1305);
    }

    #[test]
    fn nothing_makes_us_offer_no_encryption() {
        assert!(ciphers(&["none", "clear"], true, true).is_empty());
        assert!(known(&["none"], |name| mac::Name::try_from(name).ok(), MACS).is_empty());
    }

    #[test]
    fn a_key_type_that_is_known_is_asked_for_first() {
        let names = host_keys(
            &[
                "ssh-ed25519",
                "ssh-ed25519-cert-v01@openssh.com",
                "rsa-sha2-512",
            ],
            false,
            &["ssh-rsa".into()],
        );
        assert_eq!(
            names,
            [
                Algorithm::Rsa {
                    hash: Some(HashAlg::Sha512)
                },
                Algorithm::Ed25519
            ]
        );
        let typed = host_keys(&["ssh-ed25519", "rsa-sha2-512"], true, &["ssh-rsa".into()]);
        assert_eq!(typed[0], Algorithm::Ed25519);
    }

    #[test]
    fn sha1_host_keys_are_for_who_asks() {
        assert!(!host_keys(&[], false, &[]).contains(&Algorithm::Rsa { hash: None }));
        assert_eq!(
            host_keys(&["ssh-rsa"], true, &[]),
            [Algorithm::Rsa { hash: None }]
        );
    }

    #[test]
    fn strict_key_exchange_is_always_offered() {
        for list in [&[][..], &["curve25519-sha256"][..]] {
            assert!(key_exchanges(list).contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
        }
    }

    #[test]
    fn a_hybrid_key_exchange_is_offered_also_to_users_of_an_older_ssh() {
        let names = key_exchanges(&["sntrup761x25519-sha512@openssh.com", "curve25519-sha256"]);
        assert_eq!(names[..2], [kex::MLKEM768X25519_SHA256, kex::CURVE25519]);
    }
}
