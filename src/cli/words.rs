//! The words that can be typed, for the tests that hold the documents against them.

use std::collections::BTreeSet;

use super::mount_options::{Group, MountOption, OPTIONS};
use super::ssh_keys;

/// Whether it does something; all others are accepted or refused with a word.
pub(super) fn has_effect(option: &MountOption) -> bool {
    !matches!(
        option.group,
        Group::Accepted | Group::NoEffect | Group::Refused
    )
}

/// Mount options with an effect as they are typed (`port=N`), and the names of those without.
pub(crate) fn option_names() -> (BTreeSet<String>, BTreeSet<&'static str>) {
    let with = OPTIONS.iter().filter(|option| has_effect(option));
    let without = OPTIONS.iter().filter(|option| !has_effect(option));
    (
        with.map(|option| option.usage()).collect(),
        without.map(|option| option.name).collect(),
    )
}

/// Whether something like `port=N`, `ro`, `-f`, `IdentityFile=...` or `x-*` can be typed.
pub(crate) fn is_option(typed: &str) -> bool {
    let name = typed.split(['=', '[', ' ']).next().unwrap_or_default();
    if let Some(flag) = name.strip_prefix('-') {
        return flags_of_sftpfs().contains(flag);
    }
    let is_open = ["x-", "ssh."].iter().any(|prefix| name.starts_with(prefix));
    let is_listed = OPTIONS.iter().any(|option| option.name == name);
    is_listed || is_open || ssh_keys::find(name).is_some() || name == "Key"
}

/// The short flags of `sftpfs` and its subcommand.
pub(crate) fn flags_of_sftpfs() -> BTreeSet<String> {
    let command = super::sftpfs_command();
    let mut flags: BTreeSet<String> = command.get_subcommands().flat_map(flags_of).collect();
    flags.extend(flags_of(&command));
    flags
}

/// The short flags of `mount.sftpfs`.
pub(crate) fn flags_of_mount_helper() -> BTreeSet<String> {
    flags_of(&super::mount_helper_command())
}

fn flags_of(command: &clap::Command) -> BTreeSet<String> {
    let flags = command.get_arguments().filter_map(clap::Arg::get_short);
    // clap adds these two itself.
    flags.chain(['h', 'V']).map(String::from).collect()
}
