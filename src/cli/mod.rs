//! What was typed becomes what it means: command lines of `sftpfs`, of mount(8)'s helper
//! `mount.sftpfs` and of umount(8)'s helper `umount.sftpfs`.

mod commands;
mod copy_options;
mod id_files;
mod mount_options;
mod near_miss;
mod option_string;
mod settle;
mod source;
mod ssh_keys;
mod status;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use log::LevelFilter;

use crate::mount::{self, UnmountHow};
use crate::transport::Target;
use mount_options::Typed;

/// What the user wants done.
#[derive(Debug)]
enum Request {
    Mount {
        typed: Box<Typed>,
        /// Called by mount(8): its exit codes are not ours.
        is_helper: bool,
    },
    Unmount {
        directories: Vec<PathBuf>,
        how: UnmountHow,
    },
    /// A command to run, and its arguments.
    Reflink(Vec<OsString>),
    Copy(copy_options::Copy),
    Info(Vec<OsString>),
    /// Of all mounts if none is named.
    Status {
        directory: Option<PathBuf>,
        json: bool,
    },
    Reconnect(PathBuf),
    /// mount(8)'s `-f`: all but the doing.
    Nothing,
}

/// Why there is no [`Request`].
#[derive(Debug)]
enum Stop {
    /// clap's errors and its answers to --help and --version.
    Clap(clap::Error),
    /// A sentence for the user.
    Wrong(String),
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<String> for Stop {
    fn from(error: String) -> Self {
        Self::Wrong(error)
    }
}

/// The whole program: parses, does, prints at most one error, and says with which code to exit.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match parse(&arguments) {
        Ok(request) => commands::run(request),
        Err(Stop::Clap(error)) => {
            // Printing fails when nobody listens any more (`sftpfs --help | head -1`): no error.
            let _ = error.print();
            ExitCode::from(u8::from(error.use_stderr()))
        }
        Err(Stop::Wrong(why)) => {
            eprintln!("sftpfs: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The program's name decides whose command line it is.
fn parse(arguments: &[OsString]) -> Result<Request, Stop> {
    let name = arguments
        .first()
        .and_then(|path| Path::new(path).file_name());
    let name = name.unwrap_or_default().as_encoded_bytes();
    if name.starts_with(b"mount.") {
        parse_mount_helper(arguments)
    } else if name.starts_with(b"umount.") {
        parse_unmount(&umount_helper_command().try_get_matches_from(arguments)?)
    } else {
        parse_sftpfs(arguments)
    }
}

fn parse_sftpfs(arguments: &[OsString]) -> Result<Request, Stop> {
    mistyped_command(arguments)?;
    let mut matches = sftpfs_command().try_get_matches_from(arguments)?;
    if let Some((name, mut matches)) = matches.remove_subcommand() {
        return match name.as_str() {
            "cp" => Ok(Request::Copy(copy_options::parse(&mut matches))),
            "info" => Ok(parse_info(&mut matches)),
            "reflink" => Ok(parse_reflink(matches)),
            "status" => Ok(Request::Status {
                directory: matches.remove_one("DIR"),
                json: matches.get_flag("json"),
            }),
            "reconnect" => Ok(Request::Reconnect(
                matches.remove_one("DIR").unwrap_or_default(),
            )),
            _ => parse_unmount(&matches),
        };
    }
    let mut typed = Typed::default();
    place(&mut typed, &mut matches)?;
    let mount = &mut typed.mount;
    mount.target.port = matches
        .get_one::<u16>("port")
        .copied()
        .or(mount.target.port);
    mount.target.config_file = matches.remove_one("config");
    mount.target.compression = matches.get_flag("compression");
    mount.foreground = matches.get_flag("foreground") || matches.get_flag("debug");
    for text in option_strings(&mut matches)? {
        mount_options::apply(&mut typed, &text)?;
    }
    if matches.get_flag("single-thread") {
        typed
            .warnings
            .push("-s has no effect: sftpfs always works on many requests at once".into());
    }
    let verbosity = matches
        .get_count("verbose")
        .max(2 * u8::from(matches.get_flag("debug")));
    raise_log_level(&mut typed.mount, verbosity);
    settle::settle(&mut typed)?;
    Ok(Request::Mount {
        typed: Box::new(typed),
        is_helper: false,
    })
}

fn parse_mount_helper(arguments: &[OsString]) -> Result<Request, Stop> {
    let mut matches = mount_helper_command().try_get_matches_from(arguments)?;
    let mut typed = Typed::default();
    place(&mut typed, &mut matches)?;
    for text in option_strings(&mut matches)? {
        match mount_options::apply(&mut typed, &text) {
            // mount(8): sloppy means to tolerate options that are not known.
            Err(why) if matches.get_flag("sloppy") => typed.warnings.push(why),
            other => other?,
        }
    }
    raise_log_level(&mut typed.mount, matches.get_count("verbose"));
    if matches.get_flag("fake") {
        return Ok(Request::Nothing);
    }
    settle::settle(&mut typed)?;
    Ok(Request::Mount {
        typed: Box::new(typed),
        is_helper: true,
    })
}

fn parse_unmount(matches: &ArgMatches) -> Result<Request, Stop> {
    let directories = matches
        .get_many::<PathBuf>("DIR")
        .unwrap_or_default()
        .cloned()
        .collect();
    let how = UnmountHow {
        lazy: matches.get_flag("lazy"),
        force: matches.get_flag("force"),
    };
    Ok(Request::Unmount { directories, how })
}

fn parse_reflink(mut matches: ArgMatches) -> Request {
    let command = matches.remove_many("COMMAND").unwrap_or_default();
    Request::Reflink(command.collect())
}

fn parse_info(matches: &mut ArgMatches) -> Request {
    Request::Info(matches.remove_many("FILE").unwrap_or_default().collect())
}

/// SOURCE and MOUNTPOINT.
fn place(typed: &mut Typed, matches: &mut ArgMatches) -> Result<(), Stop> {
    let shown: OsString = matches.remove_one("SOURCE").unwrap_or_default();
    let parsed = source::parse(&shown)?;
    typed.mount.source = source::printable(shown.as_encoded_bytes());
    typed.mount.directory = parsed.directory;
    typed.mount.target = Target {
        host: parsed.host,
        user: parsed.user,
        port: parsed.port,
        ..Target::default()
    };
    typed.mount.mountpoint = matches.remove_one("MOUNTPOINT").unwrap_or_default();
    Ok(())
}

/// `sftpfs unmount /mnt` and `sftpfs cpp a b` look like mounts, of which clap would say what is wrong.
fn mistyped_command(arguments: &[OsString]) -> Result<(), String> {
    let typed = arguments.get(1).and_then(|typed| typed.to_str());
    let typed = typed.unwrap_or_default();
    match near_miss::command(typed).filter(|meant| *meant != typed) {
        Some(meant) => Err(format!(
            "'{typed}' is no command, and no source ([user@]host:[dir]): did you mean 'sftpfs {meant}'?"
        )),
        None => Ok(()),
    }
}

fn option_strings(matches: &mut ArgMatches) -> Result<Vec<String>, Stop> {
    let typed: Vec<OsString> = matches.remove_many("options").unwrap_or_default().collect();
    let mut options = Vec::new();
    for text in typed {
        let Ok(text) = text.into_string() else {
            return Err(Stop::Wrong("the options behind -o are not UTF-8".into()));
        };
        options.extend(option_string::split(&text)?);
    }
    Ok(options)
}

/// `-v` never makes it quieter than `log_level=` did.
fn raise_log_level(mount: &mut mount::Options, count: u8) {
    let asked = match count {
        0 => LevelFilter::Off,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    mount.log_level = mount.log_level.max(asked);
}

/// `sftpfs`.
fn sftpfs_command() -> Command {
    Command::new("sftpfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mounts a directory of an SFTP server as a filesystem")
        .override_usage(
            "sftpfs [USER@]HOST:[DIR] MOUNTPOINT [OPTIONS]\n       \
             sftpfs sftp://[USER@]HOST[:PORT][/DIR] MOUNTPOINT [OPTIONS]\n       \
             sftpfs umount DIR...\n       \
             sftpfs reflink [--] COMMAND [ARG...]\n       \
             sftpfs cp [OPTION]... SOURCE... DEST\n       \
             sftpfs info FILE...\n       \
             sftpfs status [--json] [DIR]\n       \
             sftpfs reconnect DIR",
        )
        .after_help(options_help())
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .args(place_args())
        .arg(options_arg())
        .arg(switch("foreground", 'f', "Stay in the foreground"))
        .arg(switch(
            "debug",
            'd',
            "Stay in the foreground and log what is done",
        ))
        .arg(count("verbose", 'v', "Log more; twice for all requests"))
        .arg(
            Arg::new("port")
                .short('p')
                .value_name("PORT")
                .value_parser(values::port)
                .help("TCP port of the server"),
        )
        .arg(
            Arg::new("config")
                .short('F')
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Another ssh_config(5) file"),
        )
        .arg(switch("compression", 'C', "Compress what is sent"))
        .arg(switch(
            "single-thread",
            's',
            "Accepted for sshfs; no effect",
        ))
        .subcommand(
            Command::new("umount")
                .about("Unmounts, and waits until everything is written")
                .args(unmount_args()),
        )
        .subcommand(reflink_command())
        .subcommand(copy_options::command())
        .subcommand(info_command())
        .subcommand(status_command())
        .subcommand(reconnect_command())
}

/// `sftpfs reflink`. That there is no command is said with env(1)'s exit code, by [`reflink`].
///
/// [`reflink`]: crate::reflink
fn reflink_command() -> Command {
    let command = Arg::new("COMMAND")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString))
        .help("The program to run, and its arguments");
    Command::new("reflink")
        .about("Runs a program whose clones (cp --reflink) in a mount the mount makes")
        .override_usage("sftpfs reflink [--] COMMAND [ARG...]")
        .arg(command)
}

/// `sftpfs info`.
fn info_command() -> Command {
    Command::new("info")
        .about("Tells where files are on the server, and how their content came to be there")
        .arg(
            Arg::new("FILE")
                .required(true)
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .help("Files and directories in a mount; the mount's root tells what it counted"),
        )
}

/// `sftpfs status`.
fn status_command() -> Command {
    Command::new("status")
        .about("Tells whether mounts are connected, since when, and what waits")
        .arg(directory_arg().help("Any path in a mount; without it all mounts of yours"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("For scripts"),
        )
}

/// `sftpfs reconnect`.
fn reconnect_command() -> Command {
    Command::new("reconnect")
        .about("Has a mount try to reach its server now, and says how that went")
        .arg(directory_arg().required(true).help("Any path in the mount"))
}

fn directory_arg() -> Arg {
    Arg::new("DIR").value_parser(value_parser!(PathBuf))
}

/// `mount.sftpfs SOURCE MOUNTPOINT [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]`, as mount(8) says.
fn mount_helper_command() -> Command {
    Command::new("mount.sftpfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Helper of mount(8) for type sftpfs")
        .args(place_args())
        .arg(options_arg())
        .arg(switch("sloppy", 's', "Tolerate unknown options"))
        .arg(switch("fake", 'f', "Check the command line only"))
        .arg(switch("no-mtab", 'n', "No effect"))
        .arg(count("verbose", 'v', "Log more"))
        .arg(
            Arg::new("namespace")
                .short('N')
                .value_name("NS")
                .help("No effect: mount(8) enters it"),
        )
        .arg(
            Arg::new("type")
                .short('t')
                .value_name("TYPE")
                .help("No effect: always fuse.sftpfs"),
        )
}

/// `umount.sftpfs DIR [-nlfrv] [-N NS] [-t TYPE]`, as umount(8) says.
fn umount_helper_command() -> Command {
    Command::new("umount.sftpfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Helper of umount(8) for type sftpfs")
        .args(unmount_args())
        .arg(switch("no-mtab", 'n', "No effect"))
        .arg(switch("read-only", 'r', "No effect"))
        .arg(count("verbose", 'v', "No effect"))
        .arg(
            Arg::new("namespace")
                .short('N')
                .value_name("NS")
                .help("No effect"),
        )
        .arg(
            Arg::new("type")
                .short('t')
                .value_name("TYPE")
                .help("No effect"),
        )
}

fn place_args() -> [Arg; 2] {
    [
        Arg::new("SOURCE")
            .required(true)
            .value_parser(value_parser!(OsString))
            .help("The server and the directory there; none is the login directory"),
        Arg::new("MOUNTPOINT")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("An empty directory here"),
    ]
}

fn unmount_args() -> [Arg; 3] {
    [
        Arg::new("DIR")
            .required(true)
            .num_args(1..)
            .value_parser(value_parser!(PathBuf))
            .help("Where something is mounted"),
        switch("lazy", 'l', "Detach now, also while it is in use"),
        switch(
            "force",
            'f',
            "Give up requests that the server does not answer",
        ),
    ]
}

fn options_arg() -> Arg {
    Arg::new("options")
        .short('o')
        .value_name("OPTION[,OPTION...]")
        .value_parser(value_parser!(OsString))
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help("Mount options, see below")
}

fn switch(name: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(name)
        .short(short)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn count(name: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(name)
        .short(short)
        .action(ArgAction::Count)
        .help(help)
}

/// `--help`'s list of mount options.
fn options_help() -> String {
    use mount_options::{Group, OPTIONS};
    let mut help = String::new();
    for (group, heading) in [
        (Group::Connection, "Connection"),
        (Group::Files, "Files"),
        (Group::Ids, "Users and permissions"),
        (Group::Speed, "Caches and speed"),
        (Group::Mount, "The mount"),
    ] {
        help.push_str(&format!("{heading} (-o):\n"));
        for option in OPTIONS.iter().filter(|option| option.group == group) {
            help.push_str(&format!("  {:<27} {}\n", option.usage(), option.help));
        }
        help.push('\n');
    }
    help.push_str(
        "Any key of ssh_config(5) is an option too, e.g. -o IdentityFile=~/.ssh/id_backup;\n\
         ssh.KEY=VALUE passes one on unseen. Options of mount(8) and sshfs(1) that need nothing\n\
         done are accepted. More in sftpfs(1) and mount.sftpfs(8).",
    );
    help
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod words;
#[cfg(test)]
pub(crate) use words::{flags_of_mount_helper, flags_of_sftpfs, is_option, option_names};
