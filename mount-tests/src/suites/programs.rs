//! Programs that people run in a mount, doing what people do with them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::tools::git;
use crate::case::{Case, Ctx, Suite, case};
use crate::process::{self, must_run};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "programs",
        about: "git, rsync, tar, SQLite and cargo do their work in the mount",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(git_clones_commits_and_collects_garbage).within_s(180),
        case(rsync_moves_nothing_the_second_time).within_s(120),
        case(tar_goes_in_and_out).within_s(120),
        case(sqlite_keeps_its_database_whole).within_s(120),
        case(sqlite_survives_a_killed_writer).within_s(120),
        case(cargo_builds_a_crate).within_s(240),
        case(mv_between_the_mount_and_a_local_disk_keeps_everything).within_s(60),
        case(an_editor_saves_by_rename_with_a_backup),
    ]
}

fn git_clones_commits_and_collects_garbage(ctx: &Ctx) {
    let origin = ctx.lab.fresh("origin");
    make_repository(&origin);
    let clone = ctx.dir.join("clone");
    let cloned = || git(&clone);
    must_run(
        git(&ctx.dir)
            .args(["clone", "--quiet"])
            .arg(&origin)
            .arg(&clone),
        MINUTE,
    );
    assert_eq!(
        must_run(cloned().args(["status", "--porcelain"]), MINUTE),
        ""
    );
    assert_eq!(
        must_run(cloned().args(["rev-list", "--count", "HEAD"]), MINUTE),
        "30\n"
    );
    fs::write(clone.join("file 7"), "changed\n").unwrap();
    assert_eq!(
        must_run(cloned().args(["status", "--porcelain"]), MINUTE),
        " M \"file 7\"\n"
    );
    must_run(
        cloned().args(["commit", "--quiet", "--all", "--message", "Change one"]),
        MINUTE,
    );
    must_run(
        cloned().args(["checkout", "--quiet", "-b", "other", "HEAD~10"]),
        MINUTE,
    );
    assert_eq!(
        must_run(cloned().args(["status", "--porcelain"]), MINUTE),
        ""
    );
    must_run(cloned().args(["checkout", "--quiet", "-"]), MINUTE);
    must_run(
        cloned().args(["gc", "--quiet", "--aggressive", "--prune=now"]),
        MINUTE,
    );
    must_run(cloned().args(["fsck", "--strict", "--no-dangling"]), MINUTE);
    assert_eq!(
        fs::read_to_string(clone.join("file 7")).unwrap(),
        "changed\n"
    );
    assert_eq!(
        must_run(cloned().args(["status", "--porcelain"]), MINUTE),
        ""
    );
    assert_eq!(
        must_run(
            git(&ctx.behind.join("clone")).args(["status", "--porcelain"]),
            MINUTE
        ),
        ""
    );
    fs::remove_dir_all(origin).unwrap();
}

fn make_repository(at: &Path) {
    fs::create_dir(at).unwrap();
    must_run(git(at).args(["init", "--quiet"]), MINUTE);
    for number in 0..30 {
        fs::create_dir_all(at.join(format!("dir/{}", number % 5))).unwrap();
        fs::write(
            at.join(format!("file {number}")),
            format!("{number}\n").repeat(number * 50),
        )
        .unwrap();
        fs::write(
            at.join(format!("dir/{}/{number}", number % 5)),
            number.to_string(),
        )
        .unwrap();
        must_run(git(at).args(["add", "--all"]), MINUTE);
        must_run(
            git(at).args(["commit", "--quiet", "--message", &format!("Add {number}")]),
            MINUTE,
        );
    }
}

/// A small tree with a bit of everything, times in whole seconds.
fn make_tree(at: &Path) {
    fs::create_dir_all(at.join("sub/empty")).unwrap();
    for number in 0..200 {
        fs::write(at.join(format!("sub/{number}")), vec![1; number * 997]).unwrap();
    }
    std::os::unix::fs::symlink("sub/7", at.join("link")).unwrap();
    fs::hard_link(at.join("sub/8"), at.join("hard")).unwrap();
    let everything = "find . -exec touch -h -d '2020-02-02 02:02:02' {} +";
    must_run(
        Command::new("sh").args(["-c", everything]).current_dir(at),
        MINUTE,
    );
}

fn rsync(from: &Path, to: &Path) -> String {
    let mut command = Command::new("rsync");
    command
        .args(["-aH", "--itemize-changes"])
        .arg(from.join(""))
        .arg(to.join(""));
    must_run(&mut command, MINUTE)
}

fn rsync_moves_nothing_the_second_time(ctx: &Ctx) {
    let source = ctx.lab.fresh("source");
    make_tree(&source);
    let target = ctx.dir.join("copy");
    let first = rsync(&source, &target);
    assert!(first.lines().count() >= 200, "{first}");
    assert_eq!(rsync(&source, &target), "", "the second run into the mount");
    // Without anything remembered.
    assert_eq!(
        rsync(&source, &ctx.behind.join("copy")),
        "",
        "the server's files"
    );
    let back = ctx.lab.fresh("back");
    rsync(&target, &back);
    assert_eq!(rsync(&target, &back), "", "the second run out of the mount");
    assert_eq!(rsync(&source, &back), "", "there and back");
    must_run(
        Command::new("diff").arg("-r").arg(&source).arg(&target),
        MINUTE,
    );
    for dir in [source, back] {
        fs::remove_dir_all(dir).unwrap();
    }
}

fn tar_goes_in_and_out(ctx: &Ctx) {
    let source = ctx.lab.fresh("source");
    make_tree(&source);
    let packed = ctx.dir.join("tree.tar.gz");
    let tar = |dir: &Path, args: &[&str], file: &Path| {
        must_run(
            Command::new("tar")
                .args(args)
                .arg(file)
                .arg("-C")
                .arg(dir)
                .arg("."),
            MINUTE,
        )
    };
    tar(&source, &["-czf"], &packed);
    let unpacked = ctx.dir.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    must_run(
        Command::new("tar")
            .arg("-xzpf")
            .arg(&packed)
            .arg("-C")
            .arg(&unpacked),
        MINUTE,
    );
    assert_eq!(rsync(&source, &unpacked), "", "unpacked in the mount");
    // Packed out of the mount again; the archive itself compares with the source.
    let again = ctx.lab.fresh("again.tar");
    tar(&unpacked, &["-cf"], &again);
    let differences = process::run(
        Command::new("tar")
            .arg("-df")
            .arg(&again)
            .arg("-C")
            .arg(&source),
        MINUTE,
    );
    assert!(differences.ok(), "{}", differences.said());
    fs::remove_dir_all(source).unwrap();
}

fn sqlite(database: &Path, statements: &str) -> String {
    must_run(
        Command::new("sqlite3")
            .arg("-batch")
            .arg(database)
            .arg(statements),
        MINUTE,
    )
}

fn sqlite_keeps_its_database_whole(ctx: &Ctx) {
    let database = ctx.dir.join("data.db");
    sqlite(
        &database,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX i ON t(text);",
    );
    for round in 0..10 {
        let insert = format!(
            "BEGIN; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<200) \
             INSERT INTO t(text) SELECT 'round {round} row ' || x FROM n; COMMIT;"
        );
        sqlite(&database, &insert);
    }
    sqlite(&database, "BEGIN; DELETE FROM t; ROLLBACK;");
    sqlite(
        &database,
        "UPDATE t SET text = text || '!' WHERE id % 7 = 0; VACUUM;",
    );
    assert_eq!(
        sqlite(&database, "SELECT count(*) FROM t; PRAGMA integrity_check;"),
        "2000\nok\n"
    );
    let behind = ctx.behind.join("data.db");
    assert_eq!(
        sqlite(&behind, "SELECT count(*) FROM t; PRAGMA integrity_check;"),
        "2000\nok\n"
    );
}

fn sqlite_survives_a_killed_writer(ctx: &Ctx) {
    let database = ctx.dir.join("data.db");
    sqlite(&database, "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    let mut endless = Command::new("sqlite3");
    endless.arg("-batch").arg(&database).arg(
        "BEGIN; PRAGMA cache_size=10; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) \
         INSERT INTO t SELECT randomblob(500) FROM n;",
    );
    // The deadline kills it in the middle of its transaction.
    assert!(
        process::run(&mut endless, Duration::from_secs(2))
            .status
            .is_none()
    );
    assert_eq!(
        sqlite(&database, "SELECT count(*) FROM t; PRAGMA integrity_check;"),
        "1\nok\n"
    );
}

fn cargo_builds_a_crate(ctx: &Ctx) {
    let at = ctx.dir.join("hello");
    fs::create_dir_all(at.join("src")).unwrap();
    let manifest =
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(at.join("Cargo.toml"), manifest).unwrap();
    fs::write(
        at.join("src/lib.rs"),
        "pub fn text() -> &'static str { \"built in the mount\" }\n",
    )
    .unwrap();
    fs::write(
        at.join("src/main.rs"),
        "fn main() { println!(\"{}\", hello::text()) }\n",
    )
    .unwrap();
    let cargo = || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&at)
            .env_remove("CARGO_TARGET_DIR")
            .args(["run", "--offline"]);
        command
    };
    assert_eq!(must_run(&mut cargo(), 3 * MINUTE), "built in the mount\n");
    let again = process::run(&mut cargo(), MINUTE);
    assert!(
        again.ok() && !again.err.contains("Compiling"),
        "built a second time: {}",
        again.said()
    );
    // A change is noticed, within the second that SFTP's times have.
    std::thread::sleep(Duration::from_millis(1100));
    fs::write(
        at.join("src/lib.rs"),
        "pub fn text() -> &'static str { \"changed\" }\n",
    )
    .unwrap();
    assert_eq!(must_run(&mut cargo(), 3 * MINUTE), "changed\n");
}

fn mv_between_the_mount_and_a_local_disk_keeps_everything(ctx: &Ctx) {
    let source = ctx.lab.fresh("source");
    let compare_with = ctx.lab.fresh("compare");
    make_tree(&source);
    make_tree(&compare_with);
    let inside = ctx.dir.join("moved");
    must_run(Command::new("mv").arg(&source).arg(&inside), MINUTE);
    assert_eq!(rsync(&compare_with, &inside), "", "moved in");
    must_run(Command::new("mv").arg(&inside).arg(&source), MINUTE);
    assert_eq!(rsync(&compare_with, &source), "", "moved out");
    assert_eq!(fs::read_dir(&ctx.behind).unwrap().count(), 0);
    for dir in [source, compare_with] {
        fs::remove_dir_all(dir).unwrap();
    }
}

fn an_editor_saves_by_rename_with_a_backup(ctx: &Ctx) {
    let path = ctx.dir.join("text");
    fs::write(&path, "one\ntwo\n").unwrap();
    must_run(
        Command::new("sed")
            .args(["-i.bak", "s/two/three/"])
            .arg(&path),
        MINUTE,
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\nthree\n");
    assert_eq!(
        fs::read_to_string(ctx.dir.join("text.bak")).unwrap(),
        "one\ntwo\n"
    );
    assert_eq!(fs::read_dir(&ctx.behind).unwrap().count(), 2);
}

const MINUTE: Duration = Duration::from_secs(60);
