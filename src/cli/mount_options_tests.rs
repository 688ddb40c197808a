use std::collections::HashSet;
use std::time::Duration;

use super::*;

fn typed(text: &str) -> Typed {
    let mut typed = Typed::default();
    apply(&mut typed, text).unwrap();
    typed
}

fn refusal(text: &str) -> String {
    apply(&mut Typed::default(), text).unwrap_err()
}

#[test]
fn no_name_is_in_the_table_twice_or_hides_a_key_of_ssh() {
    let mut seen = HashSet::new();
    for option in OPTIONS {
        assert!(seen.insert(option.name), "{}", option.name);
        assert!(!option.help.is_empty(), "{}", option.name);
        // "user" is mount(8)'s and "port" is ours; both mean well.
        let hidden = ssh_keys::find(option.name);
        assert!(
            hidden.is_none() || ["user", "port"].contains(&option.name),
            "{}",
            option.name
        );
    }
}

#[test]
fn every_option_of_the_table_is_understood_or_refused_with_its_reason() {
    for option in OPTIONS {
        let text = match option.argument {
            No | Possible(_) => option.name.to_owned(),
            Needed(what) => format!("{}={}", option.name, example(option.name, what)),
        };
        let mut typed = Typed::default();
        let applied = apply(&mut typed, &text);
        match option.group {
            Refused => assert!(applied.unwrap_err().contains(option.help), "{text}"),
            NoEffect => assert!(typed.warnings[0].contains(option.help), "{text}"),
            _ => assert_eq!(applied, Ok(()), "{text}"),
        }
    }
}

fn example(name: &str, what: &str) -> &'static str {
    match (name, what) {
        ("transport", _) => "auto",
        ("log_level", _) => "info",
        ("reconnect_secret", _) => "ask",
        ("symlinks", _) => "raw",
        ("idmap", _) => "user",
        ("nomap", _) => "error",
        (_, "yes|no") => "yes",
        (_, "USER" | "GROUP") => "root",
        (_, "MASK") => "022",
        (_, "FILE") => "/etc/passwd",
        (_, "COMMAND") => "sh -c 'x y'",
        _ => "5",
    }
}

#[test]
fn each_kind_of_wrong_option_says_what_is_wrong() {
    for (text, message) in [
        (
            "allow_othr",
            "unknown option 'allow_othr': did you mean 'allow_other'?",
        ),
        ("identityfiel=/x", "did you mean 'IdentityFile'?"),
        (
            "ServerAliveIntervall=5",
            "did you mean 'ServerAliveInterval'?",
        ),
        ("frobnicate=1", "ssh.frobnicate=VALUE passes"),
        ("ro=1", "option 'ro' takes no value"),
        ("umask", "option 'umask' needs a value: umask=MASK"),
        ("umask=9", "option 'umask=9': '9' is not an octal mask"),
        ("attr_timeout=soon", "not a number of seconds"),
        ("max_conns=17", "'17' is not a number from 1 to 16"),
        ("max_conns=0", "from 1 to 16"),
        ("transport=telnet", "none of auto, russh, openssh, ssh2"),
        ("symlinks=maybe", "none of raw, rebase, contain, follow"),
        ("idmap=all", "none of none, user, file"),
        ("copy_is_hardlink=yes", "none of cow, shared, off"),
        ("sftp_command=", "the command is empty"),
        ("sftp_command=a 'b", "not closed"),
        ("fsname=", "the value is empty"),
        ("fsname=a\nb", "control characters"),
        (
            "IdentityFile",
            "option 'IdentityFile' of ssh_config(5) needs a value",
        ),
        ("ProxyCommand=a\nb", "no control characters"),
        ("ssh.Bad Key=1", "a key is letters and digits"),
        ("ssh.=1", "a key is letters and digits"),
        ("Port=ssh", "not a port"),
        ("allow_root", "not supported: use allow_other"),
        (
            "directport=22",
            "not supported: use sftp_command='nc HOST PORT'",
        ),
        ("remount", "unmount it and mount it again"),
    ] {
        let error = refusal(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn keys_of_ssh_config_are_passed_on_as_the_manual_spells_them() {
    let keys = typed("stricthostkeychecking=no").mount.target.ssh_options;
    assert_eq!(
        keys,
        [("StrictHostKeyChecking".to_owned(), "no".to_owned())]
    );
    let keys = typed("ssh.FutureKey=a=b").mount.target.ssh_options;
    assert_eq!(keys, [("FutureKey".to_owned(), "a=b".to_owned())]);
    assert_eq!(typed("PORT=22").mount.target.port, Some(22));
    assert_eq!(typed("User=bob").mount.target.ssh_options[0].1, "bob");
}

#[test]
fn timeouts_of_sshfs_are_ours() {
    let fs = typed("dcache_timeout=20").mount.fs;
    let twenty = Duration::from_secs(20);
    assert_eq!((fs.attr_timeout, fs.entry_timeout), (twenty, twenty));
    assert_eq!(typed("cache_stat_timeout=20").mount.fs.attr_timeout, twenty);
}

#[test]
fn following_or_containing_links_is_not_undone_by_transforming_them() {
    for (first, expected) in [
        ("follow_symlinks", Symlinks::Follow),
        ("contain_symlinks", Symlinks::Contain),
        ("symlinks=raw", Symlinks::Rebase),
    ] {
        let mut typed = typed(first);
        apply(&mut typed, "transform_symlinks").unwrap();
        assert_eq!(typed.mount.fs.symlinks, expected, "{first}");
    }
}

#[test]
fn user_mounts_are_noexec_unless_exec_comes_later() {
    let mut typed = typed("user");
    assert_eq!(typed.mount.mount_flags, ["noexec"]);
    apply(&mut typed, "exec").unwrap();
    assert!(typed.mount.mount_flags.is_empty());
}

#[test]
fn a_user_name_in_mounts_word_is_said_not_to_be_a_login() {
    assert!(typed("user=bob").warnings[0].contains("bob@HOST:DIR"));
}
