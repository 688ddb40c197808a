//! What cannot be mounted ends with one clear message, a non-zero exit code and nothing left
//! behind, within seconds.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::case::{Case, Ctx, Suite, case};
use crate::mount::{Plan, Transport, is_mounted};
use crate::process::{self, Finished};
use crate::server::{ORDINARY_USER, free_port, sftp_server_path};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "bad_input",
        about: "what cannot be mounted ends with a clear message and leaves nothing behind",
        every_transport: true,
        cases: cases().into_iter().map(Case::on_mount_only).collect(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(a_host_that_does_not_exist_is_named)
            .over_ssh()
            .within_s(60),
        case(a_refused_port_is_named).over_ssh(),
        case(a_key_the_server_does_not_know_is_a_refused_login).over_ssh(),
        case(a_changed_host_key_is_refused_with_both_fingerprints).over_ssh(),
        case(an_unknown_host_key_is_refused_when_nobody_can_be_asked).over_ssh(),
        case(a_missing_directory_is_named),
        case(a_file_as_the_directory_is_named),
        case(a_directory_that_may_not_be_read_is_named).over_ssh(),
        case(a_mountpoint_that_is_not_there_is_named),
        case(a_file_as_the_mountpoint_is_named),
        case(a_mountpoint_that_is_not_empty_is_refused),
        case(nonempty_mounts_over_files_and_gives_them_back),
        case(a_mountpoint_that_is_mounted_already_is_refused),
        case(a_command_that_echoes_is_no_sftp_server).once(),
        case(a_command_that_ends_at_once_is_no_sftp_server).once(),
        case(a_command_that_greets_is_no_sftp_server).once(),
        case(a_command_that_is_not_there_is_named).once(),
        case(a_command_that_says_nothing_is_given_up)
            .once()
            .within_s(90),
        case(a_banner_before_the_protocol_is_shown).once(),
        case(a_port_that_speaks_another_protocol_is_refused)
            .over_ssh()
            .within_s(60),
        case(an_unknown_option_names_the_nearest).once(),
        case(a_bad_value_names_the_option).once(),
        case(a_source_without_a_colon_is_refused).once(),
        case(a_source_like_an_option_is_refused).once(),
        case(a_missing_dev_fuse_says_what_to_do).once(),
    ]
}

/// Holds that it fails in the way a user can understand; gives what was said.
#[track_caller]
fn fails(plan: &Plan, words: &[&str]) -> String {
    let before = process::children().len();
    let finished = plan.attempt();
    judge(&finished, words);
    assert!(!is_mounted(&plan.at), "left mounted");
    let left = process::wait_for(std::time::Instant::now() + PATIENCE, || {
        (process::children().len() <= before).then_some(())
    });
    assert!(left.is_some(), "left running: {:?}", process::children());
    finished.err
}

#[track_caller]
fn judge(finished: &Finished, words: &[&str]) {
    let said = finished.err.trim_end();
    let code = finished.code();
    assert!(
        code.is_some_and(|code| code != 0),
        "{}: {said}",
        finished.ending()
    );
    assert!(said.starts_with("sftpfs: "), "no message of ours: {said:?}");
    assert!(!said.contains("panicked"), "{said}");
    // ssh's own words on a changed host key take 14 lines.
    assert!(said.lines().count() <= 20, "too much is said: {said}");
    for word in words {
        let found = word
            .split('|')
            .any(|word| said.to_lowercase().contains(&word.to_lowercase()));
        assert!(found, "nothing about {word:?}: {said}");
    }
}

fn a_host_that_does_not_exist_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(&ctx.plan().host("user@host.invalid"), &["host.invalid"]);
}

fn a_refused_port_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let port = free_port().unwrap();
    fails(
        &ctx.plan().port(port),
        &["127.0.0.1", &port.to_string(), "refused"],
    );
}

fn a_key_the_server_does_not_know_is_a_refused_login(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx
        .plan()
        .key(ctx.lab.server.wrong_key())
        .option("IdentityAgent=none");
    fails(
        &plan,
        &["127.0.0.1", "permission denied|log in|login|authentication"],
    );
}

fn a_changed_host_key_is_refused_with_both_fingerprints(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let server = &ctx.lab.server;
    let said = fails(
        &ctx.plan().known_hosts(server.changed_known_hosts()),
        &["host key|host identification"],
    );
    assert!(
        said.contains(&server.fingerprint("host_key")),
        "the key it has: {said}"
    );
    // ssh(1) shows only the new one, and where the old one stands.
    if ctx.transport != Transport::OpenSsh {
        assert!(
            said.contains(&server.fingerprint("wrong_key")),
            "the key it had: {said}"
        );
    }
}

fn an_unknown_host_key_is_refused_when_nobody_can_be_asked(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let empty = ctx.lab.fresh("known_hosts");
    fs::write(&empty, "").unwrap();
    fails(&ctx.plan().known_hosts(empty), &["host key", "127.0.0.1"]);
}

fn a_missing_directory_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let missing = ctx.behind.join("not there");
    fails(
        &ctx.plan().directory(&missing),
        &["not there", "no such file|does not exist|is not there"],
    );
}

fn a_file_as_the_directory_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fs::write(ctx.behind.join("a file"), "").unwrap();
    fails(
        &ctx.plan().directory(&ctx.behind.join("a file")),
        &["a file", "not a directory|no directory"],
    );
}

fn a_directory_that_may_not_be_read_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ctx.needs_root("to log in as another user");
    let closed = ctx.behind.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(closed.join("inside")).unwrap();
    let plan = ctx.plan().host(format!("{ORDINARY_USER}@127.0.0.1"));
    fails(
        &plan.directory(&closed.join("inside")),
        &["inside", "permission denied|may not be read"],
    );
}

fn a_mountpoint_that_is_not_there_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx.plan();
    fs::remove_dir(&plan.at).unwrap();
    fails(
        &plan,
        &[
            &plan.at.display().to_string(),
            "no such|does not exist|is not there",
        ],
    );
}

fn a_file_as_the_mountpoint_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx.plan();
    fs::remove_dir(&plan.at).unwrap();
    fs::write(&plan.at, "").unwrap();
    fails(
        &plan,
        &[
            &plan.at.display().to_string(),
            "not a directory|no directory",
        ],
    );
    fs::remove_file(&plan.at).unwrap();
}

fn a_mountpoint_that_is_not_empty_is_refused(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx.plan();
    fs::write(plan.at.join("f"), "kept").unwrap();
    fails(
        &plan,
        &[&plan.at.display().to_string(), "not empty", "nonempty"],
    );
    assert_eq!(fs::read(plan.at.join("f")).unwrap(), b"kept");
}

fn nonempty_mounts_over_files_and_gives_them_back(ctx: &Ctx) {
    let plan = ctx.plan().option("nonempty");
    fs::write(plan.at.join("f"), "kept").unwrap();
    let mount = plan.mount().unwrap();
    assert!(fs::metadata(mount.at().join("f")).is_err());
    mount.unmount().unwrap();
    assert_eq!(fs::read(plan.at.join("f")).unwrap(), b"kept");
}

fn a_mountpoint_that_is_mounted_already_is_refused(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let plan = ctx.plan();
    let mount = plan.mount().unwrap();
    fs::write(ctx.behind.join("f"), "still there").unwrap();
    let finished = plan.attempt();
    judge(&finished, &[&plan.at.display().to_string(), "mounted"]);
    assert_eq!(fs::read(mount.at().join("f")).unwrap(), b"still there");
    mount.unmount().unwrap();
}

fn a_command_that_echoes_is_no_sftp_server(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(&ctx.plan().sftp_command("cat"), &["sftp"]);
}

fn a_command_that_ends_at_once_is_no_sftp_server(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(&ctx.plan().sftp_command("true"), &["true", "end|closed"]);
    let said = fails(
        &ctx.plan()
            .sftp_command("sh -c 'echo the reason >&2; exit 7'"),
        &["the reason"],
    );
    assert!(!said.is_empty());
}

fn a_command_that_greets_is_no_sftp_server(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(
        &ctx.plan().sftp_command("sh -c 'echo hello'"),
        &["hello", "sftp"],
    );
}

fn a_command_that_is_not_there_is_named(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(
        &ctx.plan().sftp_command("no-such-command-here"),
        &["no-such-command-here", "not found|no such"],
    );
}

fn a_command_that_says_nothing_is_given_up(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let finished = process::run(
        &mut ctx.plan().sftp_command("sleep 1000").command(),
        Duration::from_secs(80),
    );
    judge(&finished, &["sleep|answer|time"]);
}

fn a_banner_before_the_protocol_is_shown(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let Some(server) = sftp_server_path() else {
        ctx.skip("there is no sftp-server program")
    };
    let command = format!(
        "sh -c 'echo Welcome to the machine; exec {}'",
        server.display()
    );
    fails(&ctx.plan().sftp_command(&command), &["Welcome"]);
}

fn a_port_that_speaks_another_protocol_is_refused(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(20) {
            // A client that hangs up first is what we want to see.
            let _ = { stream }.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    });
    fails(&ctx.plan().port(port), &["127.0.0.1"]);
}

fn an_unknown_option_names_the_nearest(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(
        &ctx.plan().option("alow_other"),
        &["alow_other", "allow_other"],
    );
    fails(
        &ctx.plan().option("IdentitiFile=/x"),
        &["IdentitiFile", "IdentityFile"],
    );
}

fn a_bad_value_names_the_option(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fails(&ctx.plan().option("max_conns=many"), &["max_conns", "many"]);
    fails(&ctx.plan().option("umask=999"), &["umask", "999"]);
}

fn a_source_without_a_colon_is_refused(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let mut command = ctx.lab.program.command();
    command.arg("just-a-host").arg(&ctx.plan().at);
    judge(&process::run(&mut command, PATIENCE), &["just-a-host", ":"]);
}

fn a_source_like_an_option_is_refused(ctx: &Ctx) {
    ctx.needs_sftpfs();
    let mut command = ctx.lab.program.command();
    let canary = ctx.lab.fresh("canary");
    let source = format!("-oProxyCommand=touch {}:/", canary.display());
    command.arg("--").arg(source).arg(&ctx.plan().at);
    judge(&process::run(&mut command, PATIENCE), &[]);
    assert!(!canary.exists(), "an option was taken from the host's name");
}

fn a_missing_dev_fuse_says_what_to_do(ctx: &Ctx) {
    ctx.needs_sftpfs();
    ctx.needs_root("to hide /dev/fuse");
    let plan = ctx.plan();
    let mount = plan.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", DEV_WITHOUT_FUSE, "sh"]);
    command.arg(mount.get_program()).args(mount.get_args());
    judge(&process::run(&mut command, PATIENCE), &["/dev/fuse"]);
    assert!(!is_mounted(&plan.at));
    assert!(Path::new("/dev/fuse").exists());
}

/// Runs its arguments where /dev has the usual devices but for fuse; nobody else sees it.
const DEV_WITHOUT_FUSE: &str = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && \
     mknod -m 666 /dev/zero c 1 5 && mknod -m 666 /dev/urandom c 1 9 && \
     mknod -m 666 /dev/random c 1 8 && exec \"$@\"";

/// For what should take well under a second.
const PATIENCE: Duration = Duration::from_secs(10);
