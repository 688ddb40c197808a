//! What is timed: the table of all works. Each is shell commands, in files by kind.

mod git;
mod large;
mod lists;
mod making;
mod small;

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::site::Site;
use super::system::{Kind, System};
use crate::process;

/// Something a user does.
pub struct Work {
    /// What `--work` calls it.
    pub name: &'static str,
    /// Makes, once, what it works with.
    pub prepare: fn(&Site) -> io::Result<()>,
    /// Before each measurement: removes what the last one left, on the server and here.
    pub before: fn(&Site) -> io::Result<()>,
    /// What is timed, one after the other.
    pub steps: &'static [Step],
}

/// Something that is timed: one row of the table.
pub struct Step {
    /// What `--work` and the JSON file call it.
    pub row: &'static str,
    /// What README's table calls it.
    pub title: &'static str,
    /// Whether it gets a mount that knows nothing; else the one of the step before.
    pub is_cold: bool,
    /// What is timed.
    pub run: Action,
    /// What comes to the same with programs that are no mounts.
    pub yardsticks: &'static [(Yardstick, &'static str)],
    /// Whether the server has everything; the clock stops only then.
    pub has_arrived: fn(&Site) -> bool,
    /// Whether the result is right, byte by byte.
    pub check: fn(&Site) -> Result<(), String>,
}

/// What is timed. Commands find `$AT` (the mount), `$SERVER` (the same directory, on the server),
/// `$LOCAL` (a directory here) and what else [`Site::shell`] says.
pub enum Action {
    /// The time is that of the command.
    Command(&'static str),
    /// The time is the median of `ls -l` of one directory after the other while this command runs
    /// over and over; the second is the file that grows once it does.
    ListingsDuring(&'static str, fn(&Site) -> std::path::PathBuf),
}

/// Systems that are no mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yardstick {
    Ssh,
    Sftp,
    Scp,
}

impl Work {
    /// Whether a system can do it.
    pub fn is_for(&self, system: &System) -> bool {
        self.steps.iter().any(|step| step.is_for(system))
    }
}

impl Step {
    /// Whether a system can do it.
    pub fn is_for(&self, system: &System) -> bool {
        system.kind.is_mount() || system.kind == Kind::Local || self.yardstick(system).is_some()
    }

    /// The command for a system that is no mount.
    pub fn yardstick(&self, system: &System) -> Option<&'static str> {
        let wanted = match system.kind {
            Kind::Ssh => Yardstick::Ssh,
            Kind::Sftp => Yardstick::Sftp,
            Kind::Scp => Yardstick::Scp,
            _ => return None,
        };
        let mut yardsticks = self.yardsticks.iter();
        yardsticks
            .find(|(of, _)| *of == wanted)
            .map(|(_, script)| *script)
    }
}

/// Everything, in the order of the tables.
pub fn all() -> Vec<Work> {
    let mut all = large::works();
    all.extend(small::works());
    all.extend(lists::works());
    all.extend(git::works());
    all.extend(making::works());
    all
}

/// For works that leave nothing behind.
fn nothing(_: &Site) -> io::Result<()> {
    Ok(())
}

/// For works after which nothing is on its way.
fn at_once(_: &Site) -> bool {
    true
}

/// Whether two files have the same content.
fn same_file(one: &Path, other: &Path) -> Result<(), String> {
    succeeds(Command::new("cmp").args([one, other]))
}

/// Whether two trees have the same names and content.
fn same_tree(one: &Path, other: &Path) -> Result<(), String> {
    succeeds(Command::new("diff").arg("-rq").args([one, other]))
}

/// Whether a tree is as an archive has it: names, content, types, modes and times.
fn same_as_archive(archive: &Path, parent: &Path) -> Result<(), String> {
    let mut tar = Command::new("tar");
    succeeds(tar.arg("-C").arg(parent).arg("-df").arg(archive))
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let done = process::run(command, Duration::from_secs(120));
    if done.ok() {
        Ok(())
    } else {
        let said = process::tail(&done.said(), 3);
        Err(format!(
            "wrong result: {}: {said}",
            command.get_program().display()
        ))
    }
}

/// A tree as names and sizes, to see whether all of it is there.
fn has_names_and_sizes(original: &Path, copy: &Path) -> bool {
    let (mut wanted, mut got) = (Vec::new(), Vec::new());
    let both = names_and_sizes(original, Path::new(""), &mut wanted)
        .and_then(|()| names_and_sizes(copy, Path::new(""), &mut got));
    wanted.sort();
    got.sort();
    both.is_ok() && wanted == got
}

fn names_and_sizes(
    root: &Path,
    below: &Path,
    found: &mut Vec<(std::path::PathBuf, u64)>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            names_and_sizes(root, &name, found)?;
            found.push((name, 0));
        } else {
            found.push((name, meta.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let works = all();
        let rows: Vec<_> = works.iter().flat_map(|w| w.steps).map(|s| s.row).collect();
        let different: BTreeSet<_> = rows.iter().collect();
        assert_eq!(rows.len(), different.len());
    }

    #[test]
    fn the_first_step_of_a_work_is_cold() {
        assert!(all().iter().all(|work| work.steps[0].is_cold));
    }

    #[test]
    fn a_tree_that_lacks_bytes_has_not_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for root in [&one, &two] {
            std::fs::create_dir_all(root.join("sub")).unwrap();
            std::fs::write(root.join("sub/file"), b"content").unwrap();
        }
        assert!(has_names_and_sizes(&one, &two));
        std::fs::write(two.join("sub/file"), b"cont").unwrap();
        assert!(!has_names_and_sizes(&one, &two));
    }
}
