//! Programs that walk through a tree: what they will want is there before they ask, and no older than
//! the timeouts allow.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::site::{Copying, Site};
use crate::case::{Ctx, Suite, case};
use crate::process;
use crate::wire::Manner;

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "walks",
        about: "trees that programs walk through, fetched ahead of them",
        every_transport: false,
        cases: vec![
            case(a_tree_is_read_in_few_round_trips).on_mount_only(),
            case(a_tree_is_listed_in_few_round_trips).on_mount_only(),
            case(a_tree_is_removed_in_one_round_trip_a_file).on_mount_only(),
            case(what_was_fetched_ahead_is_believed_no_longer_than_attributes).on_mount_only(),
        ],
    }
}

const DIRS: u64 = 8;
const FILES: u64 = 20;
const LATENCY: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_secs(60);

/// A tree on the server, and a mount that has not seen it yet.
fn planted(ctx: &Ctx) -> Site {
    for dir in 0..DIRS {
        let dir = ctx.behind.join(format!("tree/d{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES {
            let content = format!("{}/{file}\n", dir.display()).repeat(50);
            fs::write(dir.join(format!("f{file}")), content).unwrap();
        }
    }
    let latency = LATENCY;
    Site::new(
        ctx,
        Copying::Off,
        Manner {
            latency,
            ..Manner::default()
        },
    )
}

/// Round trips that some work waited for.
fn trips(ctx: &Ctx, site: &Site, how: &str, work: impl FnOnce()) -> u64 {
    site.wire().reset();
    work();
    let counts = site.wire().counts();
    ctx.note(format!(
        "{how}: {} round trips, {:?}",
        counts.chain, counts.requests
    ));
    counts.chain
}

fn run(program: &str, arguments: &[&str], at: &Path) {
    let mut command = Command::new(program);
    process::must_run(command.args(arguments).current_dir(at), LIMIT);
}

fn a_tree_is_read_in_few_round_trips(ctx: &Ctx) {
    let site = planted(ctx);
    let out = ctx.lab.fresh("out");
    let trips = trips(ctx, &site, "cp -r of 160 files", || {
        run("cp", &["-r", "tree", out.to_str().unwrap()], &site.dir);
    });
    run("diff", &["-r", out.to_str().unwrap(), "tree"], &site.behind);
    // Without fetching ahead it is three for each file.
    assert!(trips <= DIRS * FILES / 5, "{trips} round trips");
    fs::remove_dir_all(out).unwrap();
    site.end();
}

fn a_tree_is_listed_in_few_round_trips(ctx: &Ctx) {
    let site = planted(ctx);
    let trips = trips(ctx, &site, "find -ls of 8 directories", || {
        run("find", &["tree", "-ls"], &site.dir);
    });
    assert!(trips <= DIRS + 8, "{trips} round trips");
    site.end();
}

fn a_tree_is_removed_in_one_round_trip_a_file(ctx: &Ctx) {
    let site = planted(ctx);
    let trips = trips(ctx, &site, "rm -r of 160 files", || {
        run("rm", &["-r", "tree"], &site.dir);
    });
    // Besides one for each file, those for the directories.
    assert!(
        trips <= DIRS * FILES + 5 * (DIRS + 1),
        "{trips} round trips"
    );
    assert!(!site.behind.join("tree").exists());
    // Listings are read besides, but those are not waited for.
    let counts = site.wire().counts();
    let looks = counts.of("LSTAT") + counts.of("STAT");
    assert_eq!(counts.of("REMOVE"), DIRS * FILES);
    assert!(looks <= DIRS, "{looks} looks at files to be removed");
    site.end();
}

fn what_was_fetched_ahead_is_believed_no_longer_than_attributes(ctx: &Ctx) {
    const ATTRIBUTES: Duration = Duration::from_secs(1);
    let mut site = planted(ctx);
    site.option("attr_timeout=1");
    site.option("entry_timeout=1");
    site.remount();
    let dir = site.dir.join("tree/d0");
    assert_eq!(fs::read_dir(&dir).unwrap().count() as u64, FILES);
    for name in ["f0", "f1"] {
        fs::read(dir.join(name)).unwrap();
    }
    let counts = site.wire().counts();
    assert!(counts.of("OPEN") > 2, "nothing was fetched ahead");
    fs::write(site.behind.join("tree/d0/f9"), "another content").unwrap();
    // As long as it may be believed; that is what is claimed, not how fast anything is.
    std::thread::sleep(ATTRIBUTES + Duration::from_millis(200));
    assert_eq!(fs::read(dir.join("f9")).unwrap(), b"another content");
    site.end();
}
