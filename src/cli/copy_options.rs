//! The command line of `sftpfs cp`, whose words are those of cp(1).

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::tools::cp::{Dereference, Existing, Options, Progress, Target};

/// What was typed: how to copy, and the operands.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) options: Options,
    pub(super) operands: Vec<OsString>,
}

pub(super) fn command() -> Command {
    let path = || value_parser!(OsString);
    Command::new("cp")
        .about("Copies files and trees inside a mount, on the server")
        .override_usage(
            "sftpfs cp [OPTION]... [-T] SOURCE DEST\n       \
             sftpfs cp [OPTION]... SOURCE... DIRECTORY\n       \
             sftpfs cp [OPTION]... -t DIRECTORY SOURCE...",
        )
        .args(flags())
        .arg(
            Arg::new("target-directory")
                .short('t')
                .long("target-directory")
                .value_name("DIRECTORY")
                .value_parser(path())
                .help("Copy into this directory"),
        )
        .arg(
            Arg::new("progress")
                .long("progress")
                .value_name("WHEN")
                .value_parser(["auto", "always", "never"])
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("always")
                .help("Show progress; auto, the default, does on a terminal"),
        )
        .arg(
            Arg::new("OPERANDS")
                .num_args(0..)
                .value_parser(path())
                .hide(true),
        )
}

/// Those without a value. Of some that contradict each other the last one holds.
fn flags() -> [Arg; 13] {
    let flag = |name, short, help| {
        let arg = Arg::new(name).action(ArgAction::SetTrue);
        // cp(1) has no long names for these.
        let arg = match name {
            "keep-links" | "follow-named" => arg,
            _ => arg.long(name),
        };
        let arg = arg.overrides_with(name).help(help);
        if short == ' ' { arg } else { arg.short(short) }
    };
    [
        flag("archive", 'a', "Same as -dRp"),
        flag("recursive", 'r', "Copy directories with what is in them").visible_short_alias('R'),
        flag(
            "preserve",
            'p',
            "Keep mode, times, and owner where that is allowed",
        ),
        flag(
            "keep-links",
            'd',
            "Same as -P, and keep hard links among what is copied",
        ),
        flag("no-dereference", 'P', "Never follow symbolic links"),
        flag("dereference", 'L', "Always follow symbolic links"),
        flag(
            "follow-named",
            'H',
            "Follow symbolic links on the command line",
        ),
        flag(
            "no-target-directory",
            'T',
            "DEST is the new name, also where it is a directory",
        ),
        flag("no-clobber", 'n', "Leave files that are there"),
        flag("update", 'u', "Leave files that are there and not older"),
        flag("force", 'f', "Remove what cannot be opened, and try again"),
        flag("verbose", 'v', "Say what is copied, and how at the end"),
        flag(
            "stream",
            ' ',
            "Copy from and to other file systems too, through this machine",
        ),
    ]
}

/// The last one that was typed among flags that contradict each other.
fn last_of<'a>(matches: &ArgMatches, names: &[&'a str]) -> Option<&'a str> {
    let typed = names.iter().filter(|name| matches.get_flag(name));
    let place = |name: &&&str| matches.indices_of(name).and_then(Iterator::last);
    typed.max_by_key(place).copied()
}

pub(super) fn parse(matches: &mut ArgMatches) -> Copy {
    let archive = matches.get_flag("archive");
    let dereference = match last_of(
        matches,
        &[
            "archive",
            "keep-links",
            "no-dereference",
            "dereference",
            "follow-named",
        ],
    ) {
        None => Dereference::Usual,
        Some("dereference") => Dereference::Always,
        Some("follow-named") => Dereference::Named,
        Some(_) => Dereference::Never,
    };
    let directory = matches.remove_one("target-directory");
    let target = match (directory, matches.get_flag("no-target-directory")) {
        (Some(_), true) => Target::IntoAndName,
        (Some(directory), false) => Target::Into(directory),
        (None, true) => Target::Name,
        (None, false) => Target::Last,
    };
    let progress = matches.get_one::<String>("progress").map(String::as_str);
    let options = Options {
        recursive: archive || matches.get_flag("recursive"),
        dereference,
        preserve: archive || matches.get_flag("preserve"),
        preserve_links: archive || matches.get_flag("keep-links"),
        // As in cp(1), -n is stronger than -u.
        existing: match (matches.get_flag("no-clobber"), matches.get_flag("update")) {
            (true, _) => Existing::Keep,
            (false, true) => Existing::Update,
            (false, false) => Existing::Overwrite,
        },
        force: matches.get_flag("force"),
        verbose: matches.get_flag("verbose"),
        progress: match progress {
            Some("always") => Progress::Always,
            Some("never") => Progress::Never,
            _ => Progress::Auto,
        },
        stream: matches.get_flag("stream"),
        target,
    };
    let operands = matches
        .remove_many("OPERANDS")
        .unwrap_or_default()
        .collect();
    Copy { options, operands }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Copy {
        let words = ["cp"].iter().chain(words);
        parse(&mut command().try_get_matches_from(words).unwrap())
    }

    #[test]
    fn words_mean_what_they_mean_to_cp() {
        let Copy { options, operands } = parsed(&["-a", "a", "b"]);
        assert_eq!(operands, ["a", "b"]);
        let archive = Options {
            recursive: true,
            dereference: Dereference::Never,
            preserve: true,
            preserve_links: true,
            ..Options::default()
        };
        assert_eq!(options, archive);
        assert_eq!(parsed(&["-dpR", "a", "b"]).options, archive);
        let plain = parsed(&["-r", "-n", "-u", "--stream", "-tdir", "a"]).options;
        assert_eq!(plain.existing, Existing::Keep);
        assert_eq!(plain.target, Target::Into("dir".into()));
        assert!(plain.stream && plain.recursive && !plain.preserve);
        assert_eq!(plain.dereference, Dereference::Usual);
    }

    #[test]
    fn the_last_word_about_links_holds() {
        let of = |words: &[&str]| parsed(words).options.dereference;
        assert_eq!(of(&["-a", "-L", "a", "b"]), Dereference::Always);
        assert_eq!(of(&["-L", "-a", "a", "b"]), Dereference::Never);
        assert_eq!(of(&["-rP", "-H", "a", "b"]), Dereference::Named);
        assert_eq!(of(&["-H", "-d", "-H", "-r", "a", "b"]), Dereference::Named);
    }

    #[test]
    fn progress_is_shown_when_it_is_asked_for() {
        let of = |words: &[&str]| parsed(words).options.progress;
        assert_eq!(of(&["a", "b"]), Progress::Auto);
        assert_eq!(of(&["--progress", "a", "b"]), Progress::Always);
        assert_eq!(of(&["--progress=never", "a", "b"]), Progress::Never);
    }
}
