//! Large files: read, written, copied, and read here and there.

use std::fs;

use super::{Action, Step, Work, Yardstick, at_once, nothing, same_file};
use crate::bench::content;
use crate::bench::site::{Site, remove};

pub(super) fn works() -> Vec<Work> {
    vec![
        Work {
            name: "read",
            prepare: |site| content::large_file(&site.server().join("big"), site.size.big_mib),
            before: |site| remove(&site.local().join("out")),
            steps: &[Step {
                row: "read",
                title: "read a large file",
                is_cold: true,
                run: Action::Command("dd if=$AT/big of=$LOCAL/out bs=1M"),
                yardsticks: &[
                    (Yardstick::Ssh, "$SSH cat $SERVER/big > $LOCAL/out"),
                    (Yardstick::Sftp, "$SFTP bench:$SERVER/big $LOCAL/out"),
                    (Yardstick::Scp, "$SCP bench:$SERVER/big $LOCAL/out"),
                ],
                has_arrived: at_once,
                check: |site| same_file(&site.server().join("big"), &site.local().join("out")),
            }],
        },
        Work {
            name: "write",
            prepare: |site| content::large_file(&site.local().join("big"), site.size.big_mib),
            before: |site| remove(&site.server().join("in")),
            steps: &[Step {
                row: "write",
                title: "write a large file",
                is_cold: true,
                run: Action::Command("dd if=$LOCAL/big of=$AT/in bs=1M"),
                yardsticks: &[
                    (Yardstick::Ssh, "$SSH \"cat > $SERVER/in\" < $LOCAL/big"),
                    (
                        Yardstick::Sftp,
                        "echo put $LOCAL/big $SERVER/in | $SFTP -b - bench",
                    ),
                    (Yardstick::Scp, "$SCP $LOCAL/big bench:$SERVER/in"),
                ],
                has_arrived: |site| has_size(site, "in", site.size.big_mib),
                check: |site| same_file(&site.local().join("big"), &site.server().join("in")),
            }],
        },
        random("random-1", &ONE_READER),
        random("random-64", &MANY_READERS),
        Work {
            name: "cp-inside",
            prepare: |site| content::large_file(&site.server().join("part"), site.size.part_mib),
            before: |site| remove(&site.server().join("copy")),
            steps: &[Step {
                row: "cp-inside",
                title: "`cp` inside the mount",
                is_cold: true,
                run: Action::Command("cp $AT/part $AT/copy"),
                yardsticks: &[(Yardstick::Ssh, "$SSH cp $SERVER/part $SERVER/copy")],
                has_arrived: |site| has_size(site, "copy", site.size.part_mib),
                check: |site| same_file(&site.server().join("part"), &site.server().join("copy")),
            }],
        },
        during("ls-during-read", &LISTING_WHILE_READING),
        during("ls-during-write", &LISTING_WHILE_WRITING),
    ]
}

fn random(name: &'static str, steps: &'static [Step]) -> Work {
    Work {
        name,
        prepare: |site| content::large_file(&site.server().join("big"), site.size.big_mib),
        before: nothing,
        steps,
    }
}

static ONE_READER: [Step; 1] = [random_step(
    "random-1",
    "random 4 KiB reads, 1 reader",
    "$BENCH random-reads $AT/big 1 $SINGLE_READS $SERVER/big",
)];

static MANY_READERS: [Step; 1] = [random_step(
    "random-64",
    "random 4 KiB reads, 64 readers",
    "$BENCH random-reads $AT/big 64 $SHARED_READS $SERVER/big",
)];

const fn random_step(row: &'static str, title: &'static str, script: &'static str) -> Step {
    Step {
        row,
        title,
        is_cold: true,
        run: Action::Command(script),
        yardsticks: &[],
        has_arrived: at_once,
        // The readers compare what they read.
        check: |_| Ok(()),
    }
}

fn during(name: &'static str, steps: &'static [Step]) -> Work {
    Work {
        name,
        prepare: |site| {
            content::sparse_tree(&site.server().join("tree"))?;
            content::large_file(&site.server().join("big"), site.size.big_mib)?;
            content::large_file(&site.local().join("big"), site.size.big_mib)
        },
        before: |site| {
            remove(&site.server().join("in"))?;
            remove(&site.local().join("out"))
        },
        steps,
    }
}

static LISTING_WHILE_READING: [Step; 1] = [listing_step(
    "ls-during-read",
    "`ls -l` during a large read",
    Action::ListingsDuring("dd if=$AT/big of=$LOCAL/out bs=1M", |site| {
        site.local().join("out")
    }),
)];

static LISTING_WHILE_WRITING: [Step; 1] = [listing_step(
    "ls-during-write",
    "`ls -l` during a large write",
    Action::ListingsDuring("dd if=$LOCAL/big of=$AT/in bs=1M", |site| {
        site.server().join("in")
    }),
)];

const fn listing_step(row: &'static str, title: &'static str, run: Action) -> Step {
    Step {
        row,
        title,
        is_cold: true,
        run,
        yardsticks: &[],
        has_arrived: at_once,
        // Each listing is compared when it is made.
        check: |_| Ok(()),
    }
}

fn has_size(site: &Site, name: &str, mib: u64) -> bool {
    fs::metadata(site.server().join(name)).is_ok_and(|meta| meta.len() == mib << 20)
}
