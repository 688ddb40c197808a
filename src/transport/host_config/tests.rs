use super::*;

/// Recorded: `ssh -G -- somehost` on Debian 12 without any configuration of the user's.
const DEFAULTS: &str = include_str!("recorded/debian12-defaults.txt");

/// Recorded: OpenSSH 9.2, `ssh -G -C -p 2200 -l joe -- Web` with a `Host Web` that sets much.
const MANY: &str = include_str!("recorded/openssh-9.2-many.txt");

fn local() -> Local {
    Local {
        home: "/home/me".into(),
        user: "me".into(),
        uid: 4242,
        host: "desk.example.org".into(),
    }
}

fn target(options: &[(&str, &str)]) -> Target {
    Target {
        host: "somehost".into(),
        ssh_options: options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        ..Target::default()
    }
}

fn parsed(output: &str) -> Settings {
    Settings::from_output(output, &target(&[]), local())
}

/// The defaults with these lines in place of what they say about the same keys.
fn defaults_but(lines: &[&str]) -> Settings {
    let is_replaced = |line: &str| {
        let key = line.split(' ').next().unwrap();
        lines.iter().any(|new| new.split(' ').next() == Some(key))
    };
    let kept = DEFAULTS.lines().filter(|line| !is_replaced(line));
    parsed(
        &kept
            .chain(lines.iter().copied())
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn recorded_defaults_are_understood() {
    let settings = parsed(DEFAULTS);
    assert_eq!(
        (settings.host_name(), settings.port(), settings.user()),
        ("somehost", 22, "root")
    );
    assert_eq!(settings.alias(), "somehost");
    assert_eq!(settings.known_hosts_name(), "somehost");
    assert_eq!(settings.strict_host_key_checking(), Strict::Ask);
    assert!(settings.hash_known_hosts());
    assert!(!settings.batch_mode() && !settings.identities_only() && !settings.compression());
    assert_eq!(settings.connect_timeout(), Duration::from_secs(30));
    assert_eq!(settings.server_alive(), (Duration::from_secs(15), 3));
    assert_eq!(settings.password_attempts(), 3);
    assert_eq!(settings.address_family(), Family::Any);
    assert_eq!(settings.bind_address(), None);
    let known = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
    assert_eq!(settings.global_known_hosts(), paths(&known));
    assert!(settings.list("ciphers").contains(&"aes128-gcm@openssh.com"));
}

#[test]
fn recorded_settings_are_understood() {
    let settings = parsed(MANY);
    assert_eq!(settings.host_name(), "web.example.org");
    assert_eq!((settings.port(), settings.user()), (2200, "joe"));
    assert_eq!(settings.alias(), "production");
    assert_eq!(settings.known_hosts_name(), "production");
    let identities = [
        "/home/me/.ssh/work",
        "/etc/keys/with blank",
        "/home/me/keys/joe@web.example.org:2200",
    ];
    assert_eq!(settings.identity_files(), paths(&identities));
    assert!(!settings.identity_file_is_default(Path::new("/home/me/.ssh/work")));
    assert!(settings.identities_only() && settings.batch_mode() && settings.compression());
    assert_eq!(settings.identity_agent(), Some("/root/agent.sock".into()));
    assert_eq!(
        settings.user_known_hosts()[1..],
        paths(&["/etc/known hosts"])
    );
    assert_eq!(settings.global_known_hosts(), paths(&[]));
    assert_eq!(settings.strict_host_key_checking(), Strict::AcceptNew);
    assert_eq!(settings.server_alive(), (Duration::from_secs(7), 2));
    assert_eq!(settings.connect_timeout(), Duration::from_secs(5));
    assert_eq!(settings.address_family(), Family::Inet6);
    assert_eq!(settings.bind_address().as_deref(), Some("::1"));
    assert_eq!(settings.password_attempts(), 1);
    // PasswordAuthentication is off, though it is listed.
    assert_eq!(settings.preferred_authentications(), ["publickey"]);
}

#[test]
fn strict_host_key_checking_is_read_as_ssh_prints_it() {
    let cases = [
        ("true", Strict::Yes),
        ("yes", Strict::Yes),
        ("false", Strict::No),
        ("off", Strict::Off),
        ("accept-new", Strict::AcceptNew),
        ("ask", Strict::Ask),
    ];
    for (text, strict) in cases {
        let settings = defaults_but(&[&format!("stricthostkeychecking {text}")]);
        assert_eq!(settings.strict_host_key_checking(), strict, "{text}");
    }
}

#[test]
fn default_identities_are_told_from_named_ones() {
    let settings = parsed(DEFAULTS);
    assert!(settings.identity_file_is_default(Path::new("/home/me/.ssh/id_ed25519")));
    let named = defaults_but(&["identityfile ~/.ssh/id_ed25519"]);
    assert!(!named.identity_file_is_default(Path::new("/home/me/.ssh/id_ed25519")));
}

#[test]
fn an_identity_with_an_unknown_token_is_left_to_ssh() {
    let settings = defaults_but(&["identityfile /keys/%C"]);
    assert_eq!(settings.identity_files(), paths(&[]));
    assert!(settings.needs_openssh().unwrap().contains("/keys/%C"));
}

#[test]
fn the_name_looked_up_in_known_hosts_is_the_one_connected_to() {
    let settings = defaults_but(&["hostname Real.Example.ORG", "port 2222"]);
    assert_eq!(settings.known_hosts_name(), "[real.example.org]:2222");
}

#[test]
fn a_keepalive_of_zero_counts_only_if_typed() {
    let typed = target(&[("ServerAliveInterval", "0")]);
    let settings = Settings::from_output(DEFAULTS, &typed, local());
    assert_eq!(settings.server_alive().0, Duration::ZERO);
}

#[test]
fn the_keepalive_of_debian_s_batch_mode_is_no_choice_of_the_user_s() {
    let settings = defaults_but(&["batchmode yes", "serveraliveinterval 300"]);
    assert_eq!(settings.server_alive().0, Duration::from_secs(15));
}

#[test]
fn no_agent_is_no_agent() {
    assert_eq!(defaults_but(&["identityagent none"]).identity_agent(), None);
    assert_eq!(
        defaults_but(&["identityagent $NO_SUCH_VARIABLE"]).identity_agent(),
        None
    );
}

#[test]
fn the_defaults_of_debian_need_no_openssh() {
    assert_eq!(parsed(DEFAULTS).needs_openssh(), None);
}

#[test]
fn settings_that_only_openssh_can_follow_are_named() {
    let cases = [
        ("proxyjump j.example.org", "ProxyJump j.example.org is set"),
        ("proxycommand nc %h %p", "ProxyCommand nc %h %p is set"),
        ("controlmaster auto", "ControlMaster auto is set"),
        (
            "pkcs11provider /usr/lib/p11.so",
            "PKCS11Provider /usr/lib/p11.so is set",
        ),
        (
            "securitykeyprovider /lib/sk.so",
            "SecurityKeyProvider /lib/sk.so is set",
        ),
        ("certificatefile ~/c", "CertificateFile ~/c is set"),
        (
            "knownhostscommand /bin/kh",
            "KnownHostsCommand /bin/kh is set",
        ),
        (
            "revokedhostkeys /etc/krl",
            "RevokedHostKeys /etc/krl is set",
        ),
        (
            "hostbasedauthentication yes",
            "HostbasedAuthentication is on",
        ),
        ("verifyhostkeydns true", "VerifyHostKeyDNS is on"),
    ];
    for (line, reason) in cases {
        assert_eq!(
            defaults_but(&[line]).needs_openssh().as_deref(),
            Some(reason)
        );
    }
    let harmless = [
        "proxycommand none",
        "controlpath none",
        "verifyhostkeydns ask",
        "tunnel yes",
    ];
    assert_eq!(defaults_but(&harmless).needs_openssh(), None);
}

#[test]
fn a_local_command_counts_if_it_is_permitted() {
    assert_eq!(defaults_but(&["localcommand date"]).needs_openssh(), None);
    let permitted = defaults_but(&["localcommand date", "permitlocalcommand yes"]);
    assert_eq!(
        permitted.needs_openssh().as_deref(),
        Some("LocalCommand is set")
    );
}

#[test]
fn gssapi_counts_if_the_user_asked_for_it() {
    let mut settings = parsed(DEFAULTS);
    assert!(settings.is_on("gssapiauthentication"));
    settings.gssapi_asked = true;
    assert_eq!(
        settings.needs_openssh().as_deref(),
        Some("GSSAPIAuthentication is on")
    );
}

#[test]
fn a_shared_connection_counts_if_somebody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("master");
    let settings = defaults_but(&[&format!("controlpath {}", socket.display())]);
    assert_eq!(settings.needs_openssh(), None);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(
        settings
            .needs_openssh()
            .unwrap()
            .contains("a shared connection is open")
    );
    drop(listener);
    assert_eq!(settings.needs_openssh(), None);
}

#[test]
fn a_certificate_or_a_security_key_beside_an_identity_counts() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let settings = defaults_but(&[&format!("identityfile {}", key.display())]);
    assert_eq!(settings.needs_openssh(), None);
    let public = folder.path().join("key.pub");
    std::fs::write(&public, "sk-ssh-ed25519@openssh.com AAAA me").unwrap();
    assert!(
        settings
            .needs_openssh()
            .unwrap()
            .contains("security device")
    );
    std::fs::write(&public, "ssh-ed25519 AAAA me").unwrap();
    assert_eq!(settings.needs_openssh(), None);
    std::fs::write(folder.path().join("key-cert.pub"), "").unwrap();
    assert!(settings.needs_openssh().unwrap().contains("key-cert.pub"));
}

#[test]
fn without_an_ssh_the_typed_options_stand_over_the_defaults() {
    let mut target = target(&[("User", "typed"), ("IdentityFile", "~/k"), ("Port", "99")]);
    target.port = Some(2022);
    let settings = Settings::without_ssh(&target, local());
    assert_eq!(
        (settings.host_name(), settings.user()),
        ("somehost", "typed")
    );
    // The first value wins, and -p stands before -o.
    assert_eq!(settings.port(), 2022);
    assert_eq!(settings.identity_files(), paths(&["/home/me/k"]));
    let known = ["/home/me/.ssh/known_hosts", "/home/me/.ssh/known_hosts2"];
    assert_eq!(settings.user_known_hosts(), paths(&known));
    assert_eq!(settings.strict_host_key_checking(), Strict::Ask);
    let methods = ["publickey", "keyboard-interactive", "password"];
    assert_eq!(settings.preferred_authentications(), methods);
    assert_eq!(settings.needs_openssh(), None);
}

#[test]
fn what_could_become_an_option_or_a_command_is_refused() {
    let hosts = [
        "",
        "-oProxyCommand=id",
        "a b",
        "a;b",
        "$(id)",
        "a\nb",
        "u@h",
        "ssh://h",
        "\u{1b}[2J",
    ];
    for host in hosts {
        let target = Target {
            host: host.into(),
            ..Target::default()
        };
        assert!(check(&target).is_err(), "{host:?}");
    }
    for user in ["", "-l", "a\0b", "`id`", "a'b"] {
        let target = Target {
            user: Some(user.into()),
            ..target(&[])
        };
        assert!(check(&target).is_err(), "{user:?}");
    }
    for option in [("", "x"), ("Pro xy", "x"), ("User", "a\nProxyCommand id")] {
        assert!(check(&target(&[option])).is_err(), "{option:?}");
    }
    for host in [
        "h",
        "::1",
        "fe80::1%eth0",
        "b\u{fc}cher.example",
        "10.0.0.1",
        "under_score",
    ] {
        let target = Target {
            host: host.into(),
            user: Some("DOM\\me".into()),
            ..Target::default()
        };
        assert!(check(&target).is_ok(), "{host:?}");
    }
}

#[test]
fn a_target_is_handed_on_to_ssh_word_by_word() {
    let mut target = target(&[("ProxyCommand", "nc %h %p")]);
    target.port = Some(2022);
    target.user = Some("me".into());
    target.compression = true;
    let words = ssh_arguments(&target, Some(Path::new("/etc/my config")));
    let expected = [
        "-F",
        "/etc/my config",
        "-p",
        "2022",
        "-l",
        "me",
        "-C",
        "-oProxyCommand=nc %h %p",
    ];
    assert_eq!(words, expected.map(OsString::from));
}

/// With no configuration but the options.
fn alone(options: &[(&str, &str)]) -> Option<Target> {
    if !Path::new("/usr/bin/ssh").exists() {
        println!("skipped: there is no ssh here");
        return None;
    }
    Some(Target {
        config_file: Some("none".into()),
        ..target(options)
    })
}

#[tokio::test]
async fn ssh_itself_resolves_the_settings() {
    let Some(target) = alone(&[("HostName", "%h.example.org"), ("Port", "2022")]) else {
        return;
    };
    let settings = Settings::resolve(&target).await.unwrap();
    assert_eq!(settings.host_name(), "somehost.example.org");
    assert_eq!(settings.port(), 2022);
    assert_eq!(settings.needs_openssh(), None);
}

#[tokio::test]
async fn an_option_that_ssh_rejects_gives_ssh_s_own_words() {
    let Some(target) = alone(&[("Foo", "1")]) else {
        return;
    };
    let error = Settings::resolve(&target).await.unwrap_err();
    let expected = "ssh does not take these settings for somehost: \
                    command-line: line 0: Bad configuration option: foo";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_ssh_command_that_knows_no_questions_is_left_alone_and_needed() {
    let mut target = target(&[("User", "joe")]);
    target.ssh_command = Some(vec!["/bin/false".into()]);
    let settings = Settings::resolve(&target).await.unwrap();
    assert_eq!(settings.user(), "joe");
    assert_eq!(
        settings.needs_openssh().as_deref(),
        Some("ssh_command=/bin/false is given")
    );
}

#[tokio::test]
async fn an_ssh_command_that_does_not_exist_is_named() {
    let mut target = target(&[]);
    target.ssh_command = Some(vec!["/nowhere/ssh".into()]);
    let error = Settings::resolve(&target).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot run /nowhere/ssh: there is no such program"
    );
}
