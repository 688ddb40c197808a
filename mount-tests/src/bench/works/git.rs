//! Version control: a repository cloned into the mount, and its status.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Action, Step, Work, at_once};
use crate::bench::content;
use crate::bench::site::{Site, remove};
use crate::process;

pub(super) fn works() -> Vec<Work> {
    vec![Work {
        name: "git",
        prepare,
        before: |site| {
            remove(&site.server().join("clone"))?;
            remove(&site.local().join("out"))
        },
        steps: &[
            Step {
                row: "git-clone",
                title: "`git clone`",
                is_cold: true,
                // With a URL git packs and unpacks as it does over a network, and links nothing.
                run: Action::Command("git clone -q file://$LOCAL/repo $AT/clone"),
                yardsticks: &[],
                has_arrived: |site| site.server().join("clone/.git/index").exists(),
                check: is_cloned,
            },
            Step {
                row: "git-status-cold",
                title: "`git status`, cold",
                is_cold: true,
                run: Action::Command(STATUS),
                yardsticks: &[],
                has_arrived: at_once,
                check: is_clean,
            },
            Step {
                row: "git-status-warm",
                title: "`git status`, warm",
                is_cold: false,
                run: Action::Command(STATUS),
                yardsticks: &[],
                has_arrived: at_once,
                check: is_clean,
            },
        ],
    }]
}

const STATUS: &str = "git -C $AT/clone status > $LOCAL/out";

fn prepare(site: &Site) -> io::Result<()> {
    let repo = site.local().join("repo");
    content::small_tree(&repo, site.size.git_files)?;
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=B",
            "-c",
            "user.email=b@localhost",
            "commit",
            "-qm",
            "All",
        ],
        &["gc", "-q"],
    ] {
        let mut git = Command::new("git");
        site.at_home(git.arg("-C").arg(&repo).args(words));
        let done = process::run(&mut git, Duration::from_secs(60));
        if !done.ok() {
            return Err(io::Error::other(done.said()));
        }
    }
    Ok(())
}

fn is_cloned(site: &Site) -> Result<(), String> {
    let clone = site.server().join("clone");
    let mut diff = Command::new("diff");
    diff.args(["-rq", "--exclude=.git"]);
    super::succeeds(diff.arg(site.local().join("repo")).arg(&clone))?;
    git_succeeds(site, &clone, &["fsck", "--strict"])
}

fn is_clean(site: &Site) -> Result<(), String> {
    let said = std::fs::read_to_string(site.local().join("out")).unwrap_or_default();
    if said.contains("nothing to commit, working tree clean") {
        Ok(())
    } else {
        Err(format!("git status says: {said}"))
    }
}

fn git_succeeds(site: &Site, repo: &Path, words: &[&str]) -> Result<(), String> {
    let mut git = Command::new("git");
    site.at_home(git.arg("-C").arg(repo).args(words));
    super::succeeds(&mut git)
}
