//! The `-o` grammar: one table of names, arguments, meanings and help, from which parsing, near
//! misses, `--help` and the man page's test are made.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::{near_miss, ssh_keys, values};
use crate::fs::{CopyIsHardlink, Symlinks};
use crate::mount;
use crate::transport::{ReconnectSecret, Way};

/// What the options add up to, before the parts that need more than the options are decided.
#[derive(Debug, Default)]
pub(super) struct Typed {
    pub(super) mount: mount::Options,
    pub(super) id_map: Option<IdMapWord>,
    pub(super) uid_file: Option<PathBuf>,
    pub(super) gid_file: Option<PathBuf>,
    /// `nomap=error`.
    pub(super) ids_strict: bool,
    /// `fsname=`.
    pub(super) source_shown: Option<String>,
    pub(super) password_on_stdin: bool,
    /// One line each, for the user.
    pub(super) warnings: Vec<String>,
}

/// `idmap=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdMapWord {
    None,
    User,
    File,
}

/// One option.
pub(super) struct MountOption {
    pub(super) name: &'static str,
    pub(super) argument: Argument,
    pub(super) group: Group,
    /// One line for `--help`; for [`NoEffect`] and [`Refused`] the reason.
    pub(super) help: &'static str,
    apply: Apply,
}

impl MountOption {
    /// As it is typed: `ro`, `port=N`, `copy_is_hardlink[=HOW]`.
    pub(super) fn usage(&self) -> String {
        match self.argument {
            No => self.name.to_owned(),
            Needed(what) => format!("{}={what}", self.name),
            Possible(what) => format!("{}[={what}]", self.name),
        }
    }
}

type Apply = fn(&mut Typed, &str) -> Result<(), String>;

/// Whether a `=value` follows, and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    No,
    Needed(&'static str),
    Possible(&'static str),
}

/// The headings of `--help`, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Connection,
    Files,
    Ids,
    Speed,
    Mount,
    /// Accepted, and nothing needs doing.
    Accepted,
    /// Accepted with a warning that says why it does nothing.
    NoEffect,
    /// Not accepted, with the reason.
    Refused,
}

use Argument::{Needed, No, Possible};
use Group::{Accepted, Connection, Files, Ids, Mount, NoEffect, Refused, Speed};

const fn option(
    name: &'static str,
    argument: Argument,
    group: Group,
    help: &'static str,
    apply: Apply,
) -> MountOption {
    MountOption {
        name,
        argument,
        group,
        help,
        apply,
    }
}

/// Options that leave everything as it is.
const fn inert(
    name: &'static str,
    argument: Argument,
    group: Group,
    help: &'static str,
) -> MountOption {
    option(name, argument, group, help, |_, _| Ok(()))
}

/// Every option but the keys of ssh_config(5) and `x-*`.
#[rustfmt::skip] // A table: one option, one line.
pub(super) static OPTIONS: &[MountOption] = &[
    option("port", Needed("N"), Connection, "TCP port of the server, as -p",
        |o, v| set(&mut o.mount.target.port, values::port(v).map(Some))),
    option("transport", Needed("WAY"), Connection, "auto, russh, openssh or ssh2",
        |o, v| set(&mut o.mount.target.way, way(v))),
    option("sftp_command", Needed("COMMAND"), Connection, "run this, which speaks SFTP, instead of ssh",
        |o, v| set(&mut o.mount.target.way, values::words(v).map(Way::Command))),
    option("ssh_command", Needed("COMMAND"), Connection, "run this instead of 'ssh'",
        |o, v| set(&mut o.mount.target.ssh_command, values::words(v).map(Some))),
    option("sftp_server", Needed("NAME"), Connection, "subsystem, or with a / the program on the server",
        |o, v| set(&mut o.mount.target.sftp_server, not_empty(v).map(Some))),
    option("max_conns", Needed("N"), Connection, "connections at most, 1 to 16",
        |o, v| set(&mut o.mount.client.connections_max, values::count(v, 1, 16))),
    option("password_stdin", No, Connection, "read the password from standard input",
        |o, _| { o.password_on_stdin = true; Ok(()) }),
    option("reconnect_secret", Needed("WHAT"), Connection, "secrets that opened the connection: keep, ask or never",
        |o, v| set(&mut o.mount.target.reconnect_secret, reconnect_secret(v))),
    option("log_level", Needed("LEVEL"), Connection, "error, warn, info, debug or trace",
        |o, v| set(&mut o.mount.log_level, log_level(v))),
    option("debug", No, Connection, "as log_level=debug",
        |o, _| set(&mut o.mount.log_level, Ok(LevelFilter::Debug))),
    option("sshfs_debug", No, Connection, "as log_level=debug",
        |o, _| set(&mut o.mount.log_level, Ok(LevelFilter::Debug))),

    option("symlinks", Needed("HOW"), Files, "raw, rebase, contain or follow",
        |o, v| set(&mut o.mount.fs.symlinks, symlinks(v))),
    option("follow_symlinks", No, Files, "as symlinks=follow",
        |o, _| set(&mut o.mount.fs.symlinks, Ok(Symlinks::Follow))),
    option("transform_symlinks", No, Files, "as symlinks=rebase",
        |o, _| { transform_symlinks(&mut o.mount.fs.symlinks); Ok(()) }),
    option("contain_symlinks", No, Files, "as symlinks=contain",
        |o, _| set(&mut o.mount.fs.symlinks, Ok(Symlinks::Contain))),
    option("no_contain_symlinks", No, Files, "as symlinks=raw, which is the default",
        |o, _| set(&mut o.mount.fs.symlinks, Ok(Symlinks::Raw))),
    option("disable_hardlink", No, Files, "refuse link(2)",
        |o, _| { o.mount.fs.disable_hardlink = true; Ok(()) }),
    option("copy_is_hardlink", Possible("HOW"), Files, "copies of whole files become links: cow, shared or off",
        copy_is_hardlink),
    option("sync", No, Files, "write(2) waits for the server",
        |o, _| { o.mount.fs.sync = true; Ok(()) }),
    option("sshfs_sync", No, Files, "as sync",
        |o, _| { o.mount.fs.sync = true; Ok(()) }),
    option("async", No, Files, "write(2) does not wait, the default",
        |o, _| { o.mount.fs.sync = false; Ok(()) }),
    option("hard", No, Files, "wait for a server that is away until it is back, the default",
        |o, _| { o.mount.fs.soft = None; Ok(()) }),
    option("soft", Needed("SECONDS"), Files, "fail with EIO after waiting so long for the server",
        |o, v| set(&mut o.mount.fs.soft, patience(v).map(Some))),
    option("direct_io", No, Files, "no page cache",
        |o, _| { o.mount.fs.direct_io = true; Ok(()) }),
    option("kernel_cache", No, Files, "keep pages even if the file changed on the server",
        |o, _| { o.mount.fs.kernel_cache = true; Ok(()) }),

    option("idmap", Needed("HOW"), Ids, "none, user or file",
        |o, v| set(&mut o.id_map, id_map(v).map(Some))),
    option("uidfile", Needed("FILE"), Ids, "user:number-on-the-server lines, for idmap=file",
        |o, v| set(&mut o.uid_file, path(v).map(Some))),
    option("gidfile", Needed("FILE"), Ids, "group:number-on-the-server lines, for idmap=file",
        |o, v| set(&mut o.gid_file, path(v).map(Some))),
    option("nomap", Needed("HOW"), Ids, "numbers in no file: ignore or error",
        |o, v| set(&mut o.ids_strict, nomap(v))),
    option("uid", Needed("USER"), Ids, "all files seem to belong to this user",
        |o, v| set(&mut o.mount.fs.uid, values::user(v).map(Some))),
    option("gid", Needed("GROUP"), Ids, "all files seem to belong to this group",
        |o, v| set(&mut o.mount.fs.gid, values::group(v).map(Some))),
    option("umask", Needed("MASK"), Ids, "permissions taken from everything, octal",
        |o, v| set(&mut o.mount.fs.umask, values::octal(v).map(Some))),
    option("fmask", Needed("MASK"), Ids, "permissions taken from all but directories",
        |o, v| set(&mut o.mount.fs.fmask, values::octal(v).map(Some))),
    option("dmask", Needed("MASK"), Ids, "permissions taken from directories",
        |o, v| set(&mut o.mount.fs.dmask, values::octal(v).map(Some))),

    option("readahead", Needed("SIZE"), Speed, "bytes read ahead at most; 0 for none",
        |o, v| set(&mut o.mount.fs.readahead_max, values::size(v))),
    option("write_behind", Needed("SIZE"), Speed, "bytes on their way to the server at most",
        |o, v| set(&mut o.mount.fs.write_behind_max, values::size(v))),
    option("dir_cache", Needed("yes|no"), Speed, "remember attributes and names",
        |o, v| set(&mut o.mount.fs.cache, values::yes_or_no(v))),
    option("cache", Needed("yes|no"), Speed, "as dir_cache",
        |o, v| set(&mut o.mount.fs.cache, values::yes_or_no(v))),
    option("attr_timeout", Needed("SECONDS"), Speed, "how long attributes are believed at least",
        |o, v| set(&mut o.mount.fs.attr_timeout, values::seconds(v))),
    option("entry_timeout", Needed("SECONDS"), Speed, "how long names are believed at least",
        |o, v| set(&mut o.mount.fs.entry_timeout, values::seconds(v))),
    option("negative_timeout", Needed("SECONDS"), Speed, "how long names are believed not to exist",
        |o, v| set(&mut o.mount.fs.negative_timeout, values::seconds(v))),
    option("timeout_max", Needed("SECONDS"), Speed, "how long what stays the same is believed at most",
        |o, v| set(&mut o.mount.fs.timeout_max, values::seconds(v).map(Some))),
    option("nocto", No, Speed, "open a file to read without asking while its attributes are believed",
        |o, _| { o.mount.fs.nocto = true; Ok(()) }),
    option("dcache_timeout", Needed("SECONDS"), Speed, "attr_timeout and entry_timeout in one",
        stat_timeout),
    option("cache_timeout", Needed("SECONDS"), Speed, "as dcache_timeout", stat_timeout),
    option("dcache_stat_timeout", Needed("SECONDS"), Speed, "as dcache_timeout",
        stat_timeout),
    option("cache_stat_timeout", Needed("SECONDS"), Speed, "as dcache_timeout", stat_timeout),
    option("dcache_dir_timeout", Needed("SECONDS"), Speed, "accepted for sshfs; listings are always asked for",
        |_, v| values::seconds(v).map(drop)),
    option("cache_dir_timeout", Needed("SECONDS"), Speed, "as dcache_dir_timeout",
        |_, v| values::seconds(v).map(drop)),

    option("allow_other", No, Mount, "other users may enter; turns default_permissions on",
        |o, _| { o.mount.allow_other = true; Ok(()) }),
    option("default_permissions", No, Mount, "the kernel checks permissions",
        |o, _| { o.mount.default_permissions = true; Ok(()) }),
    option("ro", No, Mount, "read only", |o, _| { o.mount.read_only = true; Ok(()) }),
    option("rw", No, Mount, "writable, the default", |o, _| { o.mount.read_only = false; Ok(()) }),
    option("nonempty", No, Mount, "mount over a directory that is not empty",
        |o, _| { o.mount.nonempty = true; Ok(()) }),
    option("fsname", Needed("NAME"), Mount, "the source that df shows",
        |o, v| set(&mut o.source_shown, not_empty(v).map(Some))),
    option("setuid", Needed("USER"), Mount, "run as this user (only root may)",
        |o, v| set(&mut o.mount.run_as, not_empty(v).map(Some))),
    option("noexec", No, Mount, "no program in it can be run", |o, _| { flag(o, "noexec"); Ok(()) }),
    option("exec", No, Mount, "programs can be run, the default", |o, _| { unflag(o, "noexec"); Ok(()) }),
    option("dirsync", No, Mount, "shown by mount(8); directories are always synchronous",
        |o, _| { flag(o, "dirsync"); Ok(()) }),
    option("noatime", No, Mount, "shown by mount(8); the server keeps access times",
        |o, _| { flag(o, "noatime"); Ok(()) }),
    option("nodiratime", No, Mount, "shown by mount(8); the server keeps access times",
        |o, _| { flag(o, "nodiratime"); Ok(()) }),
    option("nosymfollow", No, Mount, "no symbolic link in it is followed",
        |o, _| { flag(o, "nosymfollow"); Ok(()) }),
    // mount(8): an fstab line that users may mount implies noexec, nosuid and nodev.
    option("user", Possible("NAME"), Mount, "a user may mount it (fstab); implies noexec", user_word),
    option("users", No, Mount, "every user may mount it (fstab); implies noexec",
        |o, _| { flag(o, "noexec"); Ok(()) }),

    inert("defaults", No, Accepted, "nothing special"),
    inert("suid", No, Accepted, "never honoured: always nosuid"),
    inert("nosuid", No, Accepted, "always so"),
    inert("dev", No, Accepted, "never honoured: always nodev"),
    inert("nodev", No, Accepted, "always so"),
    inert("owner", No, Accepted, "for mount(8)"),
    inert("group", No, Accepted, "for mount(8)"),
    inert("nouser", No, Accepted, "for mount(8)"),
    inert("nousers", No, Accepted, "for mount(8)"),
    inert("noowner", No, Accepted, "for mount(8)"),
    inert("nogroup", No, Accepted, "for mount(8)"),
    inert("auto", No, Accepted, "for mount(8)"),
    inert("noauto", No, Accepted, "for mount(8)"),
    inert("nofail", No, Accepted, "for mount(8)"),
    inert("fail", No, Accepted, "for mount(8)"),
    inert("_netdev", No, Accepted, "for mount(8) and systemd: wait for the network"),
    inert("helper", Needed("NAME"), Accepted, "for mount(8)"),
    inert("uhelper", Needed("NAME"), Accepted, "for umount(8)"),
    inert("comment", Needed("TEXT"), Accepted, "for mount(8)"),
    inert("silent", No, Accepted, "for mount(8)"),
    inert("loud", No, Accepted, "for mount(8)"),
    inert("atime", No, Accepted, "the server keeps access times"),
    inert("diratime", No, Accepted, "the server keeps access times"),
    inert("relatime", No, Accepted, "the server keeps access times"),
    inert("norelatime", No, Accepted, "the server keeps access times"),
    inert("strictatime", No, Accepted, "the server keeps access times"),
    inert("nostrictatime", No, Accepted, "the server keeps access times"),
    inert("lazytime", No, Accepted, "the server keeps access times"),
    inert("nolazytime", No, Accepted, "the server keeps access times"),
    inert("symfollow", No, Accepted, "the default"),
    inert("auto_cache", No, Accepted, "always so"),
    inert("reconnect", No, Accepted, "for sshfs"),
    inert("intr", No, Accepted, "for NFS"),

    inert("delay_connect", No, NoEffect, "sftpfs always connects first, so that errors are seen"),
    inert("subtype", Needed("NAME"), NoEffect, "the type is always fuse.sftpfs"),
    inert("auto_unmount", No, NoEffect, "sftpfs unmounts when it ends"),
    inert("drop_privileges", No, NoEffect, "use setuid=USER to run as an ordinary user"),
    inert("no_check_root", No, NoEffect, "the directory on the server is always checked"),
    inert("workaround", Needed("LIST"), NoEffect, "what a server needs is found out"),
    inert("sshfs_verbose", No, NoEffect, "use -v or log_level=info"),
    inert("ssh_protocol", Needed("N"), NoEffect, "only version 2 of SSH is left"),
    inert("no_readahead", No, NoEffect, "use readahead=0"),
    inert("sync_readdir", No, NoEffect, "listings are always complete before they are shown"),
    inert("sync_read", No, NoEffect, "use readahead=0"),
    inert("async_read", No, NoEffect, "reads are always sent ahead; see readahead="),
    inert("max_read", Needed("N"), NoEffect, "the server says what it takes"),
    inert("max_write", Needed("N"), NoEffect, "the server says what it takes"),
    inert("max_readahead", Needed("N"), NoEffect, "use readahead=SIZE"),
    inert("max_background", Needed("N"), NoEffect, "chosen by sftpfs"),
    inert("congestion_threshold", Needed("N"), NoEffect, "chosen by sftpfs"),
    inert("big_writes", No, NoEffect, "always so"),
    inert("large_read", No, NoEffect, "always so"),
    inert("splice_read", No, NoEffect, "chosen by sftpfs"),
    inert("splice_write", No, NoEffect, "chosen by sftpfs"),
    inert("splice_move", No, NoEffect, "chosen by sftpfs"),
    inert("clone_fd", No, NoEffect, "always so where it is possible"),
    inert("max_threads", Needed("N"), NoEffect, "chosen by sftpfs"),
    inert("max_idle_threads", Needed("N"), NoEffect, "chosen by sftpfs"),
    inert("writeback_cache", Possible("yes|no"), NoEffect, "see write_behind="),
    inert("unreliable_append", No, NoEffect, "appending is reliable"),
    inert("dcache_link_timeout", Needed("SECONDS"), NoEffect, "link targets live as long as attributes"),
    inert("cache_link_timeout", Needed("SECONDS"), NoEffect, "link targets live as long as attributes"),
    inert("dcache_max_size", Needed("N"), NoEffect, "memory is bounded by sftpfs"),
    inert("cache_max_size", Needed("N"), NoEffect, "memory is bounded by sftpfs"),
    inert("dcache_clean_interval", Needed("SECONDS"), NoEffect, "nothing needs cleaning"),
    inert("cache_clean_interval", Needed("SECONDS"), NoEffect, "nothing needs cleaning"),
    inert("dcache_min_clean_interval", Needed("SECONDS"), NoEffect, "nothing needs cleaning"),
    inert("cache_min_clean_interval", Needed("SECONDS"), NoEffect, "nothing needs cleaning"),
    inert("ac_attr_timeout", Needed("SECONDS"), NoEffect, "use attr_timeout="),
    inert("noforget", No, NoEffect, "inode numbers stay as long as the mount lives"),
    inert("remember", Needed("SECONDS"), NoEffect, "inode numbers stay as long as the mount lives"),
    inert("hard_remove", No, NoEffect, "no .fuse_hidden files are ever made"),
    inert("use_ino", No, NoEffect, "SFTP has no inode numbers"),
    inert("readdir_ino", No, NoEffect, "SFTP has no inode numbers"),
    inert("nopath", No, NoEffect, "chosen by sftpfs"),
    inert("nointr", No, NoEffect, "chosen by sftpfs"),

    inert("allow_root", No, Refused, "use allow_other, which lets root and all others in, \
        with default_permissions"),
    inert("remount", No, Refused, "unmount it and mount it again"),
    inert("bind", No, Refused, "a bind mount is made by mount(8) with the mounted directory as its source"),
    inert("directport", Needed("PORT"), Refused, "use sftp_command='nc HOST PORT'"),
    inert("vsock", Needed("CID:PORT"), Refused, "use sftp_command='socat - VSOCK-CONNECT:CID:PORT'"),
    inert("passive", No, Refused, "use sftp_command=COMMAND"),
    inert("slave", No, Refused, "use sftp_command=COMMAND"),
    inert("modules", Needed("LIST"), Refused, "libfuse's modules are not part of sftpfs"),
];

/// Applies one option, e.g. `ro` or `port=22`; the error is a sentence for the user.
pub(super) fn apply(typed: &mut Typed, text: &str) -> Result<(), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if let Some(option) = OPTIONS.iter().find(|option| option.name == name) {
        return apply_known(typed, option, value);
    }
    // mount(8) and systemd keep what they need for themselves behind these.
    if name.starts_with("x-") || name.starts_with("X-") {
        return Ok(());
    }
    apply_ssh_key(typed, name, value)
}

fn apply_known(typed: &mut Typed, option: &MountOption, value: Option<&str>) -> Result<(), String> {
    let name = option.name;
    match (option.argument, value) {
        (No, Some(_)) => return Err(format!("option '{name}' takes no value")),
        (Needed(what), None) => {
            return Err(format!("option '{name}' needs a value: {name}={what}"));
        }
        _ => {}
    }
    match option.group {
        Refused => return Err(format!("option '{name}' is not supported: {}", option.help)),
        NoEffect => typed
            .warnings
            .push(format!("option '{name}' has no effect: {}", option.help)),
        _ => {}
    }
    (option.apply)(typed, value.unwrap_or_default())
        .map_err(|why| format!("option '{name}={}': {why}", value.unwrap_or_default()))
}

fn apply_ssh_key(typed: &mut Typed, name: &str, value: Option<&str>) -> Result<(), String> {
    let key = match name.strip_prefix("ssh.") {
        Some(key) => key,
        None => ssh_keys::find(name).ok_or_else(|| unknown(name))?,
    };
    let Some(value) = value else {
        return Err(format!(
            "option '{name}' of ssh_config(5) needs a value: {name}=VALUE"
        ));
    };
    let is_word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_word || value.bytes().any(|b| b.is_ascii_control()) {
        return Err(format!(
            "option '{name}': a key is letters and digits, \
                            and a value holds no control characters"
        ));
    }
    if key.eq_ignore_ascii_case("port") {
        return set(&mut typed.mount.target.port, values::port(value).map(Some));
    }
    typed
        .mount
        .target
        .ssh_options
        .push((key.to_owned(), value.to_owned()));
    Ok(())
}

fn unknown(name: &str) -> String {
    let known = OPTIONS
        .iter()
        .map(|option| option.name)
        .chain(ssh_keys::KEYS.iter().copied());
    match near_miss::nearest(name, known) {
        Some(near) => format!("unknown option '{name}': did you mean '{near}'?"),
        None => format!(
            "unknown option '{name}'; 'sftpfs --help' lists them, and ssh.{name}=VALUE passes a \
             key of ssh_config(5) on unseen"
        ),
    }
}

fn set<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn not_empty(value: &str) -> Result<String, String> {
    match value {
        "" => Err("the value is empty".into()),
        _ if value.bytes().any(|b| b.is_ascii_control()) => {
            Err("the value holds control characters".into())
        }
        _ => Ok(value.to_owned()),
    }
}

fn path(value: &str) -> Result<PathBuf, String> {
    not_empty(value).map(PathBuf::from)
}

fn one_of<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(*meaning);
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(format!("'{value}' is none of {}", words.join(", ")))
}

fn way(value: &str) -> Result<Way, String> {
    match value {
        "auto" => Ok(Way::Auto),
        "russh" => Ok(Way::Russh),
        "openssh" => Ok(Way::OpenSsh),
        "ssh2" => Ok(Way::LibSsh2),
        _ => Err(format!("'{value}' is none of auto, russh, openssh, ssh2")),
    }
}

fn reconnect_secret(value: &str) -> Result<ReconnectSecret, String> {
    match value {
        "keep" => Ok(ReconnectSecret::Keep),
        "ask" => Ok(ReconnectSecret::Ask),
        "never" => Ok(ReconnectSecret::Never),
        _ => Err(format!("'{value}' is none of keep, ask, never")),
    }
}

fn log_level(value: &str) -> Result<LevelFilter, String> {
    one_of(
        value,
        &[
            ("error", LevelFilter::Error),
            ("warn", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ],
    )
}

/// Less than a second would fail on a server that is only slow.
fn patience(value: &str) -> Result<Duration, String> {
    let patience = values::seconds(value)?;
    match patience < Duration::from_secs(1) {
        true => Err(format!("'{value}' is too short: 1 second is the least")),
        false => Ok(patience),
    }
}

fn symlinks(value: &str) -> Result<Symlinks, String> {
    one_of(
        value,
        &[
            ("raw", Symlinks::Raw),
            ("rebase", Symlinks::Rebase),
            ("contain", Symlinks::Contain),
            ("follow", Symlinks::Follow),
        ],
    )
}

/// sshfs lets this be combined with follow_ and contain_symlinks, which both go further.
fn transform_symlinks(symlinks: &mut Symlinks) {
    if *symlinks == Symlinks::Raw {
        *symlinks = Symlinks::Rebase;
    }
}

fn id_map(value: &str) -> Result<IdMapWord, String> {
    one_of(
        value,
        &[
            ("none", IdMapWord::None),
            ("user", IdMapWord::User),
            ("file", IdMapWord::File),
        ],
    )
}

fn nomap(value: &str) -> Result<bool, String> {
    one_of(value, &[("ignore", false), ("error", true)])
}

fn copy_is_hardlink(typed: &mut Typed, value: &str) -> Result<(), String> {
    typed.mount.fs.copy_is_hardlink = match value {
        "" => CopyIsHardlink::Cow,
        _ => one_of(
            value,
            &[
                ("cow", CopyIsHardlink::Cow),
                ("shared", CopyIsHardlink::Shared),
                ("off", CopyIsHardlink::Off),
            ],
        )?,
    };
    Ok(())
}

fn stat_timeout(typed: &mut Typed, value: &str) -> Result<(), String> {
    let timeout = values::seconds(value)?;
    typed.mount.fs.attr_timeout = timeout;
    typed.mount.fs.entry_timeout = timeout;
    Ok(())
}

fn user_word(typed: &mut Typed, name: &str) -> Result<(), String> {
    flag(typed, "noexec");
    if !name.is_empty() {
        typed.warnings.push(format!(
            "option 'user={name}' is mount(8)'s; to log in as {name} mount {name}@HOST:DIR"
        ));
    }
    Ok(())
}

fn flag(typed: &mut Typed, word: &str) {
    unflag(typed, word);
    typed.mount.mount_flags.push(word.to_owned());
}

fn unflag(typed: &mut Typed, word: &str) {
    typed.mount.mount_flags.retain(|flag| flag != word);
}

#[cfg(test)]
#[path = "mount_options_tests.rs"]
mod tests;
