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
            case(files_opened_in_the_same_order_again_take_few_round_trips).on_mount_only(),
            case(a_file_of_a_known_order_is_opened_as_it_was_a_moment_ago).on_mount_only(),
            case(what_a_command_on_the_server_changes_is_read_anew_each_time).on_mount_only(),
            case(what_is_written_here_is_seen_at_once_though_it_was_fetched).on_mount_only(),
            case(who_lists_and_reads_nothing_has_no_files_fetched).on_mount_only(),
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

/// Two files of each directory, so that no listing says what comes next.
fn here_and_there() -> Vec<String> {
    let turn = |file: u64| (0..DIRS).map(move |dir| format!("tree/d{}/f{file}", (dir * 5) % DIRS));
    [3, 11].into_iter().flat_map(turn).collect()
}

/// Reads files one after the other, as one program does.
fn read_in_order(site: &Site, files: &[String]) -> Vec<u8> {
    let read = |file: &String| fs::read(site.dir.join(file)).unwrap();
    files.iter().flat_map(read).collect()
}

fn files_opened_in_the_same_order_again_take_few_round_trips(ctx: &Ctx) {
    let site = planted(ctx);
    let files = here_and_there();
    let first = read_in_order(&site, &files);
    let mut again = Vec::new();
    let trips = trips(ctx, &site, "16 files in the same order again", || {
        again = read_in_order(&site, &files);
    });
    assert!(first == again, "another content");
    // Without fetching ahead one or two for each file.
    assert!(trips <= files.len() as u64 / 2, "{trips} round trips");
    site.end();
}

fn a_file_of_a_known_order_is_opened_as_it_was_a_moment_ago(ctx: &Ctx) {
    let site = planted(ctx);
    let files = here_and_there();
    for _ in 0..2 {
        read_in_order(&site, &files);
    }
    // What comes behind them is fetched now, and changed on the server then.
    let (opened, coming) = files.split_at(4);
    site.wire().reset();
    read_in_order(&site, opened);
    let opens = site.wire().counts().of("OPEN");
    assert!(opens > opened.len() as u64, "nothing was fetched ahead");
    for file in coming {
        fs::write(site.behind.join(file), "another content").unwrap();
    }
    // Longer than the few round trips for which it is believed.
    std::thread::sleep(LATENCY * 20);
    for file in coming {
        let content = fs::read(site.dir.join(file)).unwrap();
        assert_eq!(content, b"another content", "{file}");
    }
    site.end();
}

/// As `while cat state && ssh HOST step; do cat result; done`: to log in takes more than four round trips.
fn what_a_command_on_the_server_changes_is_read_anew_each_time(ctx: &Ctx) {
    let site = planted(ctx);
    // So that the directories are listed, and the files known to have one name.
    read_in_order(&site, &here_and_there());
    for turn in 0..12 {
        fs::read(site.dir.join("tree/d1/f3")).unwrap();
        std::thread::sleep(LATENCY * 2);
        let content = format!("turn {turn:02}");
        fs::write(site.behind.join("tree/d0/f7"), &content).unwrap();
        std::thread::sleep(LATENCY * 2);
        let found = fs::read_to_string(site.dir.join("tree/d0/f7")).unwrap();
        assert_eq!(found, content);
    }
    site.end();
}

fn what_is_written_here_is_seen_at_once_though_it_was_fetched(ctx: &Ctx) {
    let site = planted(ctx);
    let files = here_and_there();
    for _ in 0..2 {
        read_in_order(&site, &files);
    }
    let (opened, coming) = files.split_at(4);
    read_in_order(&site, opened);
    // The same length, and in the same second: nothing else tells.
    let old = fs::read(site.dir.join(&coming[0])).unwrap();
    let new: Vec<u8> = old.iter().map(u8::to_ascii_uppercase).collect();
    for file in &coming[1..3] {
        let at = site.dir.join(file);
        let new = &new[..fs::metadata(&at).unwrap().len() as usize];
        fs::write(&at, new).unwrap();
        assert_eq!(fs::read(&at).unwrap(), new, "{file}");
    }
    fs::rename(site.dir.join(&coming[3]), site.dir.join(&coming[4])).unwrap();
    let moved = fs::read(site.dir.join(&coming[4])).unwrap();
    assert_eq!(moved, fs::read(site.behind.join(&coming[4])).unwrap());
    assert!(fs::read(site.dir.join(&coming[3])).is_err());
    site.end();
}

fn who_lists_and_reads_nothing_has_no_files_fetched(ctx: &Ctx) {
    let site = planted(ctx);
    fs::write(site.behind.join("tree/one"), "one").unwrap();
    fs::write(site.behind.join("tree/two"), "two").unwrap();
    site.wire().reset();
    // As `git status` does: files of its own first, and then the names of all others.
    for file in ["tree/one", "tree/two"] {
        fs::read(site.dir.join(file)).unwrap();
    }
    run("find", &["tree", "-ls"], &site.dir);
    // So long that all would be fetched that was thought to come.
    std::thread::sleep(LATENCY * 50);
    let opens = site.wire().counts().of("OPEN");
    ctx.note(format!("{opens} files opened on the server"));
    assert!(opens <= DIRS * FILES / 2, "{opens} files");
    site.end();
}
