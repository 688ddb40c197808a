//! Names and attributes: trees and wide directories.

use std::fs;
use std::path::Path;

use super::{Action, Step, Work, Yardstick, at_once};
use crate::bench::content;
use crate::bench::site::{Site, remove};

pub(super) fn works() -> Vec<Work> {
    vec![
        Work {
            name: "find",
            prepare: |site| content::sparse_tree(&site.server().join("tree")),
            before: |site| remove(&site.local().join("out")),
            steps: &[Step {
                row: "find",
                title: "`find -ls` of 1,000 files",
                is_cold: true,
                run: Action::Command("cd $AT && find tree -ls > $LOCAL/out"),
                yardsticks: &[(
                    Yardstick::Ssh,
                    "$SSH \"cd $SERVER && find tree -ls\" > $LOCAL/out",
                )],
                has_arrived: at_once,
                check: |site| lists(site, &tree_as_listed(&site.server(), "tree")),
            }],
        },
        Work {
            name: "ls-wide",
            prepare: |site| content::wide_directory(&site.server().join("wide"), site.size.wide),
            before: |site| remove(&site.local().join("out")),
            steps: &[Step {
                row: "ls-wide",
                title: "`ls -l` of a wide directory",
                is_cold: true,
                run: Action::Command("ls -l $AT/wide > $LOCAL/out"),
                yardsticks: &[(Yardstick::Ssh, "$SSH ls -l $SERVER/wide > $LOCAL/out")],
                has_arrived: at_once,
                check: |site| {
                    let names = (0..site.size.wide).map(|n| format!("entry{n:06}"));
                    lists(site, &names.collect::<Vec<_>>())
                },
            }],
        },
    ]
}

/// Whether the last words of the lines are just these names.
fn lists(site: &Site, names: &[String]) -> Result<(), String> {
    let listed = fs::read_to_string(site.local().join("out")).unwrap_or_default();
    let mut got: Vec<&str> = listed
        .lines()
        .filter(|line| !line.starts_with("total "))
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    got.sort_unstable();
    let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    if got == wanted {
        Ok(())
    } else {
        Err(format!(
            "{} names listed, {} are there",
            got.len(),
            wanted.len()
        ))
    }
}

/// All paths of a tree, below its parent.
fn tree_as_listed(parent: &Path, name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    for entry in fs::read_dir(parent.join(name))
        .into_iter()
        .flatten()
        .flatten()
    {
        let below = format!("{name}/{}", entry.file_name().display());
        if entry.path().is_dir() {
            all.extend(tree_as_listed(parent, &below));
        } else {
            all.push(below);
        }
    }
    all
}
