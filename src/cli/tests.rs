use std::ffi::OsString;
use std::path::PathBuf;

use log::LevelFilter;

use super::*;
use crate::transport::Way;

fn parse_words(line: &[&str]) -> Result<Request, Stop> {
    let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
    parse(&arguments)
}

fn options(line: &[&str]) -> (Box<Typed>, bool) {
    match parse_words(line) {
        Ok(Request::Mount { typed, is_helper }) => (typed, is_helper),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn refusal(line: &[&str]) -> String {
    match parse_words(line) {
        Err(Stop::Wrong(why)) => why,
        Err(Stop::Clap(error)) => error.to_string(),
        Ok(request) => panic!("{line:?}: {request:?}"),
    }
}

#[test]
fn clap_finds_nothing_wrong_with_its_commands() {
    sftpfs_command().debug_assert();
    mount_helper_command().debug_assert();
    umount_helper_command().debug_assert();
}

#[test]
fn a_mount_as_sshfs_users_type_it() {
    let line = [
        "sftpfs",
        "-p",
        "2222",
        "alice@h:/srv",
        "/mnt",
        "-o",
        "ro,allow_other",
        "-C",
        "-oIdentityFile=/k,port=23",
        "-F",
        "/cfg",
        "-f",
        "-v",
    ];
    let (typed, is_helper) = options(&line);
    let mount = &typed.mount;
    assert!(!is_helper);
    assert_eq!(mount.source, "alice@h:/srv");
    assert_eq!(mount.target.host, "h");
    assert_eq!(mount.target.user.as_deref(), Some("alice"));
    assert_eq!(mount.target.port, Some(23), "-o comes after -p");
    assert_eq!(mount.target.config_file, Some(PathBuf::from("/cfg")));
    assert_eq!(
        mount.target.ssh_options,
        [("IdentityFile".to_owned(), "/k".to_owned())]
    );
    assert_eq!(mount.directory, b"/srv");
    assert_eq!(mount.mountpoint, PathBuf::from("/mnt"));
    assert!(mount.foreground && mount.read_only && mount.target.compression);
    assert!(
        mount.allow_other && mount.default_permissions,
        "the second follows from the first"
    );
    assert_eq!(mount.log_level, LevelFilter::Info);
    assert!(typed.warnings.is_empty(), "{:?}", typed.warnings);
}

#[test]
fn the_port_of_a_url_gives_way_to_the_one_behind_p() {
    let (typed, _) = options(&["sftpfs", "sftp://h:2222/x", "/mnt"]);
    assert_eq!(typed.mount.target.port, Some(2222));
    let (typed, _) = options(&["sftpfs", "sftp://h:2222/x", "/mnt", "-p", "22"]);
    assert_eq!(typed.mount.target.port, Some(22));
}

#[test]
fn debugging_stays_in_the_foreground_and_an_option_does_not() {
    let (typed, _) = options(&["sftpfs", "h:", "/mnt", "-d"]);
    assert!(typed.mount.foreground);
    assert_eq!(typed.mount.log_level, LevelFilter::Debug);
    let (typed, _) = options(&["sftpfs", "h:", "/mnt", "-o", "debug"]);
    assert!(!typed.mount.foreground);
    assert_eq!(typed.mount.log_level, LevelFilter::Debug);
}

#[test]
fn a_line_of_fstab_as_mount_hands_it_over() {
    let line = [
        "/sbin/mount.sftpfs",
        "u@h:/d",
        "/mnt",
        "-n",
        "-v",
        "-N",
        "/proc/1/ns/mnt",
        "-t",
        "fuse.sftpfs",
        "-o",
        "rw,noexec,nosuid,nodev,relatime,_netdev,user,x-systemd.automount,\
         comment=hi,nofail,IdentityFile=/etc/sftpfs/id,copy_is_hardlink",
    ];
    let (typed, is_helper) = options(&line);
    assert!(is_helper);
    assert_eq!(typed.mount.mount_flags, ["noexec"]);
    assert_eq!(typed.mount.target.ssh_options.len(), 1);
    assert!(typed.warnings.is_empty(), "{:?}", typed.warnings);
}

#[test]
fn that_copies_are_no_links_where_the_server_follows_links_is_said() {
    for (typed, warnings) in [
        ("copy_is_hardlink,symlinks=follow", 1),
        ("copy_is_hardlink=off,symlinks=follow", 0),
        ("copy_is_hardlink,symlinks=rebase", 0),
    ] {
        let (typed, _) = options(&["sftpfs", "h:", "/mnt", "-o", typed]);
        assert_eq!(typed.warnings.len(), warnings, "{:?}", typed.warnings);
    }
}

#[test]
fn mount_can_ask_for_a_check_only_and_for_tolerance() {
    let fake = parse_words(&["mount.sftpfs", "h:/", "/mnt", "-f"]);
    assert!(matches!(fake, Ok(Request::Nothing)), "{fake:?}");
    let (typed, _) = options(&["mount.fuse.sftpfs", "h:/", "/mnt", "-s", "-o", "frobnicate"]);
    assert!(typed.warnings[0].contains("unknown option 'frobnicate'"));
}

#[test]
fn umount_takes_directories_as_a_subcommand_and_as_a_helper() {
    for line in [
        &["sftpfs", "umount", "-l", "/a", "/b"][..],
        &["umount.sftpfs", "/a", "/b", "-nl", "-t", "fuse.sftpfs"],
    ] {
        let Ok(Request::Unmount { directories, how }) = parse_words(line) else {
            panic!("{line:?}");
        };
        assert_eq!(directories, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(how.lazy && !how.force);
    }
}

#[test]
fn a_source_is_never_a_subcommand() {
    let (typed, _) = options(&["sftpfs", "umount:/x", "/mnt"]);
    assert_eq!(typed.mount.target.host, "umount");
}

#[test]
fn each_wrong_command_line_says_what_is_wrong() {
    for (line, message) in [
        (&["sftpfs", "h:"][..], "MOUNTPOINT"),
        (&["sftpfs"], "SOURCE"),
        (&["sftpfs", "h", "/mnt"], "no ':' in it"),
        (
            &["sftpfs", "unmount", "/mnt"],
            "'unmount' is no command, and no source ([user@]host:[dir]): did you mean 'sftpfs umount'?",
        ),
        (
            &["sftpfs", "cpp", "-r", "a", "b", "c"],
            "'cpp' is no command, and no source ([user@]host:[dir]): did you mean 'sftpfs cp'?",
        ),
        (&["sftpfs", "cpp", "a"], "did you mean 'sftpfs cp'?"),
        (&["sftpfs", "inof", "a"], "did you mean 'sftpfs info'?"),
        (&["sftpfs", "h:", "/mnt", "-p", "0"], "1 to 65535"),
        (&["sftpfs", "h:", "/mnt", "-z"], "unexpected argument '-z'"),
        (&["sftpfs", "h:", "/mnt", "-o", "fsname=\"x"], "not closed"),
        (
            &["sftpfs", "h:", "/mnt", "-o", "idmap=file"],
            "needs uidfile=",
        ),
        (
            &["sftpfs", "h:", "/mnt", "-o", "idmap=user,uidfile=/x"],
            "need idmap=file",
        ),
        (
            &["sftpfs", "h:", "/mnt", "-o", "uidfile=/none/x"],
            "/none/x: No such file",
        ),
        (
            &["sftpfs", "h:", "/mnt", "-o", "setuid=no-such-user"],
            "setuid",
        ),
        (&["sftpfs", "umount"], "DIR"),
        (
            &["mount.sftpfs", "h:", "/mnt", "-o", "allow_othr"],
            "did you mean 'allow_other'?",
        ),
    ] {
        let error = refusal(line);
        assert!(error.contains(message), "{line:?}: {error}");
    }
}

#[test]
fn what_the_options_mean_together_does_not_depend_on_their_order() {
    let (typed, _) = options(&[
        "sftpfs",
        "h:",
        "/m",
        "-o",
        "fsname=shown,sftp_command=a b,ro,rw",
    ]);
    assert_eq!(typed.mount.source, "shown");
    assert_eq!(
        typed.mount.target.way,
        Way::Command(vec!["a".into(), "b".into()])
    );
    assert!(
        !typed.mount.read_only,
        "of two that contradict the last one holds"
    );
}

#[test]
fn help_lists_every_option_that_does_something() {
    use mount_options::OPTIONS;
    let help = options_help();
    for option in OPTIONS {
        let is_there = help.lines().any(|line| {
            let word = line.trim_start().split([' ', '=', '[']).next();
            line.starts_with("  ") && word == Some(option.name)
        });
        assert_eq!(words::has_effect(option), is_there, "{}", option.name);
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}
