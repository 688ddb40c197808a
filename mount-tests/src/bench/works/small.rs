//! Many small files: read, written, removed.

use std::io;
use std::process::Command;
use std::time::Duration;

use super::{Action, Step, Work, Yardstick, at_once, has_names_and_sizes, nothing};
use super::{same_as_archive, same_tree};
use crate::bench::content;
use crate::bench::site::{Site, remove};
use crate::process;

pub(super) fn works() -> Vec<Work> {
    vec![
        out("tar-c", &TAR_C),
        out("grep", &GREP),
        out("cp-out", &CP_OUT),
        into("tar-x", &TAR_X),
        into("cp-in", &CP_IN),
        Work {
            name: "rm",
            prepare: prepare_here,
            before: |site| {
                remove(&site.server().join("tree"))?;
                copy_tree(&site.local().join("tree"), &site.server().join("tree"))
            },
            steps: &[Step {
                row: "rm",
                title: "`rm -r` of small files",
                is_cold: true,
                run: Action::Command("rm -r $AT/tree"),
                yardsticks: &[(Yardstick::Ssh, "$SSH rm -r $SERVER/tree")],
                has_arrived: |site| !site.server().join("tree").exists(),
                check: |_| Ok(()),
            }],
        },
    ]
}

fn out(name: &'static str, steps: &'static [Step]) -> Work {
    Work {
        name,
        prepare: |site| content::small_tree(&site.server().join("tree"), site.size.small_files),
        before: |site| remove(&site.local().join("out")),
        steps,
    }
}

fn into(name: &'static str, steps: &'static [Step]) -> Work {
    Work {
        name,
        prepare: prepare_here,
        before: |site| remove(&site.server().join("tree")),
        steps,
    }
}

/// The tree here, and an archive of it.
fn prepare_here(site: &Site) -> io::Result<()> {
    content::small_tree(&site.local().join("tree"), site.size.new_files)?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(site.local()).arg("-cf");
    let made = process::run(
        tar.arg(site.local().join("tar")).arg("tree"),
        Duration::from_secs(60),
    );
    if made.ok() {
        nothing(site)
    } else {
        Err(io::Error::other(made.said()))
    }
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    let copied = process::run(
        Command::new("cp").arg("-a").args([from, to]),
        Duration::from_secs(60),
    );
    if copied.ok() {
        Ok(())
    } else {
        Err(io::Error::other(copied.said()))
    }
}

// GNU tar does not read the files if its output is /dev/null.
static TAR_C: [Step; 1] = [Step {
    row: "tar-c",
    title: "`tar c` of small files",
    is_cold: true,
    run: Action::Command("tar -C $AT -cf $LOCAL/out tree"),
    yardsticks: &[(Yardstick::Ssh, "$SSH tar -C $SERVER -c tree > $LOCAL/out")],
    has_arrived: at_once,
    check: |site| same_as_archive(&site.local().join("out"), &site.server()),
}];

static GREP: [Step; 1] = [Step {
    row: "grep",
    title: "`grep -r` in small files",
    is_cold: true,
    run: Action::Command("cd $AT && grep -r needle tree > $LOCAL/out"),
    yardsticks: &[(
        Yardstick::Ssh,
        "$SSH \"cd $SERVER && grep -r needle tree\" > $LOCAL/out",
    )],
    has_arrived: at_once,
    check: |site| {
        let files = u32::div_ceil(site.size.small_files, 7);
        let found = std::fs::read_to_string(site.local().join("out")).unwrap_or_default();
        let mut numbers: Vec<u32> = found
            .lines()
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let wanted: Vec<u32> = (0..files).map(|number| number * 7).collect();
        if numbers == wanted {
            Ok(())
        } else {
            Err(format!("wrong lines: {found}"))
        }
    },
}];

static CP_OUT: [Step; 1] = [Step {
    row: "cp-out",
    title: "`cp -a` of small files out",
    is_cold: true,
    run: Action::Command("cp -a $AT/tree $LOCAL/out"),
    yardsticks: &[(Yardstick::Scp, "$SCP -rp bench:$SERVER/tree $LOCAL/out")],
    has_arrived: at_once,
    check: |site| same_tree(&site.server().join("tree"), &site.local().join("out")),
}];

static TAR_X: [Step; 1] = [Step {
    row: "tar-x",
    title: "`tar x` of small files",
    is_cold: true,
    run: Action::Command("tar -C $AT -xf $LOCAL/tar"),
    yardsticks: &[(Yardstick::Ssh, "$SSH tar -C $SERVER -x < $LOCAL/tar")],
    has_arrived: is_all_there,
    check: |site| same_as_archive(&site.local().join("tar"), &site.server()),
}];

static CP_IN: [Step; 1] = [Step {
    row: "cp-in",
    title: "`cp -a` of small files in",
    is_cold: true,
    run: Action::Command("cp -a $LOCAL/tree $AT/tree"),
    yardsticks: &[(Yardstick::Scp, "$SCP -rp $LOCAL/tree bench:$SERVER/tree")],
    has_arrived: is_all_there,
    check: |site| same_as_archive(&site.local().join("tar"), &site.server()),
}];

fn is_all_there(site: &Site) -> bool {
    has_names_and_sizes(&site.local().join("tree"), &site.server().join("tree"))
}
