//! How the content of copies comes about: on the server, as a link, or through here; and what
//! `sftpfs info` tells of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::describe::must_be_same;
use super::{MINUTE, cp, many, needs_mount};
use crate::case::Ctx;
use crate::process::{self, must_run};
use crate::suites::random::Random;

pub(super) fn hundreds_of_small_files_are_copied_by_the_server(ctx: &Ctx) {
    needs_mount(ctx);
    many(&ctx.behind.join("src"), 700);
    ctx.wait_for_name("src");
    let done = cp(ctx, true, &ctx.dir, &["-rv", "src", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = done.err.lines().last().unwrap_or_default();
    assert!(
        summary.starts_with("700 files, 1.6 MiB: 700 copied on the server; "),
        "{summary}"
    );
    assert!(
        summary.ends_with("1.6 MiB did not cross the network"),
        "{summary}"
    );
    // 700 files and 8 directories.
    assert_eq!(done.out.lines().count(), 708);
    must_be_same(
        "in the mount",
        &ctx.dir.join("copy"),
        &ctx.behind.join("src"),
    );
    must_be_same(
        "on the server",
        &ctx.behind.join("copy"),
        &ctx.behind.join("src"),
    );
    // Again: all are there, and copied one by one.
    fs::write(ctx.dir.join("copy/0/file 5"), "changed").unwrap();
    let again = cp(ctx, true, &ctx.dir, &["-r", "src/.", "copy"]);
    assert!(again.ok() && again.said().is_empty(), "{}", again.said());
    must_be_same(
        "the second time",
        &ctx.dir.join("copy"),
        &ctx.behind.join("src"),
    );
}

pub(super) fn a_large_file_is_copied_by_the_server(ctx: &Ctx) {
    needs_mount(ctx);
    let content = Random::new(ctx.seed).bytes(40 << 20);
    ctx.put_behind("large", &content);
    let done = cp(ctx, true, &ctx.dir, &["-v", "large", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = "1 file, 40.0 MiB: 1 copied on the server; 40.0 MiB did not cross the network\n";
    assert_eq!(done.err, summary);
    assert!(fs::read(ctx.behind.join("copy")).unwrap() == content);
}

pub(super) fn with_hard_links_a_tree_takes_no_space_and_stays_apart(ctx: &Ctx) {
    ctx.needs_sftpfs();
    many(&ctx.behind.join("src"), 300);
    ctx.wait_for_name("src");
    let mount = ctx.plan().option("copy_is_hardlink").mount().unwrap();
    let done = cp(ctx, true, mount.at(), &["-av", "src", "copy"]);
    assert!(done.ok(), "{}", done.said());
    let summary = done.err.lines().last().unwrap_or_default();
    // An empty file shares nothing.
    let expected = "300 files, 307 KiB: 299 linked, 1 copied on the server; ";
    assert!(summary.starts_with(expected), "{summary}");
    must_be_same(
        "in the mount",
        &mount.at().join("copy"),
        &mount.at().join("src"),
    );
    let inode = |name: &str| fs::metadata(ctx.behind.join(name)).unwrap().ino();
    assert_eq!(inode("src/1/file 107"), inode("copy/1/file 107"));
    fs::write(mount.at().join("copy/1/file 107"), "mine").unwrap();
    assert_eq!(
        fs::read(ctx.behind.join("src/1/file 107")).unwrap(),
        vec![b'x'; 749]
    );
    assert_eq!(
        fs::read(ctx.behind.join("copy/1/file 107")).unwrap(),
        b"mine"
    );
    let mut info = ctx.lab.program.command();
    let told = must_run(
        info.arg("info").arg(mount.at().join("copy/1/file 108")),
        MINUTE,
    );
    let shared = format!(
        "shared with:    '{}'",
        ctx.behind.join("src/1/file 108").display()
    );
    assert!(
        told.contains("content:        linked") && told.contains(&shared),
        "{told}"
    );
    mount.unmount().unwrap();
}

pub(super) fn another_file_system_is_refused_unless_it_is_streamed(ctx: &Ctx) {
    needs_mount(ctx);
    let local = ctx.lab.fresh("local");
    many(&local, 30);
    let from = local.to_str().unwrap();
    let refused = cp(ctx, true, &ctx.dir, &["-r", from, "copy"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.err.contains("use --stream") && refused.err.contains("cp(1)"),
        "{refused:?}"
    );
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    assert!(!ctx.behind.join("copy").exists());
    let streamed = cp(ctx, true, &ctx.dir, &["-av", "--stream", from, "copy"]);
    assert!(streamed.ok(), "{}", streamed.said());
    let summary = streamed.err.lines().last().unwrap_or_default();
    assert!(summary.ends_with(": 30 streamed"), "{summary}");
    must_be_same("streamed in", &ctx.behind.join("copy"), &local);
    let back = ctx.lab.fresh("back");
    let done = cp(
        ctx,
        true,
        &ctx.dir,
        &["-a", "--stream", "copy", back.to_str().unwrap()],
    );
    assert!(done.ok(), "{}", done.said());
    must_be_same("streamed out", &back, &local);
    for dir in [local, back] {
        fs::remove_dir_all(dir).unwrap();
    }
}

pub(super) fn info_tells_the_path_and_how_the_content_came(ctx: &Ctx) {
    ctx.needs_sftpfs();
    fs::write(ctx.dir.join("a"), "hello").unwrap();
    let info = |file: &Path| {
        let mut command = ctx.lab.program.command();
        process::run(command.arg("info").arg(file), MINUTE)
    };
    let told = info(&ctx.dir.join("a"));
    if !ctx.on_mount {
        assert_eq!(told.code(), Some(1));
        let name = ctx.dir.join("a");
        let said = format!(
            "sftpfs info: '{}' is not on an sftpfs mount\n",
            name.display()
        );
        return assert_eq!(told.err, said);
    }
    let path = format!("on the server:  '{}'", ctx.behind.join("a").display());
    assert!(told.ok() && told.out.contains(&path), "{}", told.said());
    must_run(
        Command::new("cp").args(["a", "b"]).current_dir(&ctx.dir),
        MINUTE,
    );
    let told = info(&ctx.dir.join("b"));
    assert!(
        told.out.contains("content:        copied on the server"),
        "{}",
        told.said()
    );
    assert_eq!(info(&ctx.dir.join("gone")).code(), Some(1));
    let mount = ctx.plan().mount().unwrap();
    must_run(
        Command::new("cp").args(["a", "c"]).current_dir(mount.at()),
        MINUTE,
    );
    let told = info(mount.at());
    let copies = "copies:         0 linked, 1 made by the server, 0 streamed";
    assert!(
        told.out.contains(copies) && told.out.contains("5 B did not cross"),
        "{}",
        told.out
    );
    mount.unmount().unwrap();
}
