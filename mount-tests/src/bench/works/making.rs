//! Programs that make files out of files.

use std::process::Command;
use std::time::Duration;

use super::{Action, Step, Work, Yardstick};
use crate::bench::content;
use crate::bench::site::remove;
use crate::process;

pub(super) fn works() -> Vec<Work> {
    vec![Work {
        name: "build",
        prepare: |_| Ok(()),
        before: |site| {
            let project = site.server().join("project");
            remove(&project)?;
            content::c_project(&project, site.size.sources)
        },
        steps: &[Step {
            row: "build",
            title: "`make` of a small program",
            is_cold: true,
            run: Action::Command("make -s -C $AT/project CC=cc"),
            yardsticks: &[(Yardstick::Ssh, "$SSH make -s -C $SERVER/project CC=cc")],
            has_arrived: |site| site.server().join("project/program").exists(),
            check: |site| {
                let program = site.server().join("project/program");
                let said = process::run(&mut Command::new(program), Duration::from_secs(10)).out;
                if said.trim() == site.size.sources.to_string() {
                    Ok(())
                } else {
                    Err(format!("the program that was built says {said:?}"))
                }
            },
        }],
    }]
}
