//! `sftpfs cp` and `sftpfs info`: what cp(1) does, on a plain directory and on the server.

mod describe;
mod messages;
mod on_server;
mod terminal;
mod trees;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::case::{Case, Ctx, Suite, case};
use crate::process::{self, Finished};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "copy_tool",
        about: "sftpfs cp does what cp does, on the server; sftpfs info tells how",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(trees::random_trees_are_copied_as_cp_copies_them).within_s(300),
        case(trees::random_trees_are_copied_as_with_cp_where_copies_are_links)
            .on_mount_only()
            .within_s(300),
        case(messages::messages_and_exit_codes_are_those_of_cp).within_s(120),
        case(messages::existing_files_are_treated_as_cp_treats_them).within_s(120),
        case(on_server::hundreds_of_small_files_are_copied_by_the_server).within_s(120),
        case(on_server::a_large_file_is_copied_by_the_server).within_s(120),
        case(on_server::with_hard_links_a_tree_takes_no_space_and_stays_apart)
            .on_mount_only()
            .within_s(120),
        case(on_server::another_file_system_is_refused_unless_it_is_streamed).within_s(120),
        case(terminal::ctrl_c_ends_a_copy_at_once_and_names_what_is_incomplete).within_s(120),
        case(terminal::progress_is_shown_and_taken_away),
        case(trees::a_deep_tree_is_copied_with_few_descriptors).within_s(120),
        case(trees::what_sftp_cannot_make_is_named_and_left_out),
        case(on_server::info_tells_the_path_and_how_the_content_came),
    ]
}

const MINUTE: Duration = Duration::from_secs(60);

fn needs_mount(ctx: &Ctx) {
    ctx.needs_sftpfs();
    if !ctx.on_mount {
        ctx.skip("is about what the mount does");
    }
}

/// `sftpfs cp`, or cp(1), in a directory.
fn cp(ctx: &Ctx, is_ours: bool, dir: &Path, words: &[&str]) -> Finished {
    let mut command = match is_ours {
        true => ctx.lab.program.command(),
        false => Command::new("cp"),
    };
    if is_ours {
        command.arg("cp");
    }
    command
        .args(words)
        .current_dir(dir)
        .env("LC_ALL", "C.UTF-8");
    process::run(&mut command, MINUTE)
}

/// What a person reads, without whose it is; order is nobody's promise.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.replace("sftpfs cp", "cp"));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// So many small files in directories of a hundred.
fn many(at: &Path, count: usize) {
    for number in 0..count {
        let dir = at.join(format!("{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file {number}")), vec![b'x'; number * 7]).unwrap();
    }
}
