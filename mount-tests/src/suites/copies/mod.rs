//! Copies made inside one mount by the programs people use: each is whole, and with
//! `copy_is_hardlink` off or `cow` each is a file of its own whatever is then done to it or to its
//! source.

pub(super) mod changes;
mod figures;
mod groups;
mod handles;
mod links;
mod long;
pub(super) mod programs;
mod ranges;

use crate::case::{Case, Suite, case};
use crate::suites::site::{Copying, manners};

/// The suite.
pub fn suite() -> Suite {
    let mut cases = Vec::new();
    for copying in [Copying::Off, Copying::Cow, Copying::Shared] {
        for (server, manner) in manners(copying) {
            cases.extend(on_each(copying, server, &manner));
        }
    }
    cases.extend(links::cases());
    cases.extend(ranges::cases());
    cases.extend(handles::cases());
    cases.extend(groups::cases());
    cases.extend(long::cases());
    cases.extend(figures::cases());
    Suite {
        name: "copies",
        about: "copies inside a mount are copies, on any server, whatever is done to them",
        every_transport: false,
        cases,
    }
}

/// The cases that are tried with each choice of `copy_is_hardlink` on each server.
fn on_each(copying: Copying, server: &str, manner: &crate::wire::Manner) -> Vec<Case> {
    let called = |what: &str| format!("{what}_{}_on_a_server_{server}", copying.word());
    let (one, two) = (manner.clone(), manner.clone());
    let full = server == "full";
    let both = vec![
        case(move |ctx| programs::copy_whole_files(ctx, copying, &one, full))
            .called(called("programs_copy_whole_files"))
            .within_s(120),
        case(move |ctx| changes::do_not_show_in_the_other(ctx, copying, &two, full))
            .called(called(if copying == Copying::Shared {
                "changes_show_in_both_names"
            } else {
                "changes_do_not_show_in_the_other_file"
            }))
            .within_s(120),
    ];
    // A plain directory has no such choice and no such server: there it proves the cases.
    if copying == Copying::Off && full {
        both
    } else {
        both.into_iter().map(Case::on_mount_only).collect()
    }
}
