//! Random operations on the mount and on a plain directory side by side: every result and, every
//! few steps, the whole tree must be the same.

pub(super) mod operation;
pub(super) mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use super::random::Random;
use crate::case::{Case, Ctx, Suite, case};
use crate::mount::Mount;
use operation::{Operation, World};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "differential",
        about: "random operations on the mount and on a plain directory side by side",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(random_operations_give_the_same_results).within_s(600),
        case(random_operations_give_the_same_results_with_direct_io)
            .within_s(300)
            .on_mount_only(),
        case(random_operations_give_the_same_results_with_nothing_cached)
            .within_s(300)
            .on_mount_only(),
    ]
}

fn random_operations_give_the_same_results(ctx: &Ctx) {
    let rounds = if ctx.full { 20 } else { 4 };
    for round in 0..rounds {
        side_by_side(&ctx.dir, &ctx.behind, ctx, ctx.seed + round, 1500);
    }
}

fn random_operations_give_the_same_results_with_direct_io(ctx: &Ctx) {
    let mount = ctx.plan().option("direct_io").mount().unwrap();
    compare_on(&mount, ctx);
    mount.unmount().unwrap();
}

fn random_operations_give_the_same_results_with_nothing_cached(ctx: &Ctx) {
    let mount = ctx.plan().option("dir_cache=no").mount().unwrap();
    compare_on(&mount, ctx);
    mount.unmount().unwrap();
}

fn compare_on(mount: &Mount, ctx: &Ctx) {
    side_by_side(
        mount.at(),
        &ctx.behind,
        ctx,
        ctx.seed + 100,
        if ctx.full { 10_000 } else { 1000 },
    );
}

/// Does `steps` random operations below `tested`, and the same below a plain directory. `behind`
/// is where the server has the files of `tested`.
fn side_by_side(tested: &Path, behind: &Path, ctx: &Ctx, seed: u64, steps: u32) {
    let name = format!("seed-{seed}");
    let plain = ctx.lab.fresh("plain/model");
    for dir in [&tested.join(&name), &plain] {
        fs::create_dir(dir).unwrap();
    }
    let (mut ours, mut model) = (World::new(tested.join(&name)), World::new(plain.clone()));
    let mut random = Random::new(seed);
    let mut log: Vec<String> = Vec::new();
    for step in 0..steps {
        let operation = Operation::random(&mut random);
        let (got, expected) = (ours.apply(&operation), model.apply(&operation));
        log.push(format!("{step}: {operation:?} -> {expected:?}"));
        if got != expected {
            fail(seed, &log, &format!("gave {got:?}"));
        }
        if step % TREE_EVERY == 0 {
            compare(&ours.root, &plain, seed, &log, "the tree differs");
        }
    }
    ours.close_all();
    model.close_all();
    compare(
        &ours.root,
        &plain,
        seed,
        &log,
        "the tree differs after all files were closed",
    );
    compare(
        &behind.join(&name),
        &plain,
        seed,
        &log,
        "the server's tree differs at the end",
    );
    fs::remove_dir_all(&ours.root).unwrap();
    let left: Vec<PathBuf> = fs::read_dir(behind)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left on the server: {left:?}");
    fs::remove_dir_all(&plain).unwrap();
}

#[track_caller]
fn compare(tested: &Path, plain: &Path, seed: u64, log: &[String], what: &str) {
    let (got, expected) = (tree::describe(tested), tree::describe(plain));
    if got != expected {
        let differences: Vec<String> = expected
            .iter()
            .filter(|line| !got.contains(line))
            .map(|line| format!("  missing {line}"))
            .chain(
                got.iter()
                    .filter(|line| !expected.contains(line))
                    .map(|line| format!("  instead {line}")),
            )
            .collect();
        fail(seed, log, &format!("{what}:\n{}", differences.join("\n")));
    }
}

#[track_caller]
fn fail(seed: u64, log: &[String], what: &str) -> ! {
    let from = log.len().saturating_sub(40);
    panic!(
        "--seed {seed}: {what}\nthe last operations, with the results of a plain directory:\n{}",
        log[from..].join("\n")
    );
}

/// Comparing trees costs far more than an operation.
const TREE_EVERY: u32 = 10;
