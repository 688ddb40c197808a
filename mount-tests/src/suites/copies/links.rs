//! Links, renames and whole trees: what shall be one file stays one, and what is a copy does not
//! become one, also where all of them are one file on the server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::programs::cp;
use crate::case::{Case, Ctx, case};
use crate::process::must_run;
use crate::suites::acts::{append, must, run};
use crate::suites::site::{
    Copying, HARDLINK, Look, Site, content, inode, make_old, same, same_content,
};
use crate::wire::Manner;

/// Something that holds at a site.
type Claim = fn(&Site);

pub(super) fn cases() -> Vec<Case> {
    let tries: &[(&str, Claim)] = &[
        ("cp_l_and_ln_make_one_file", cp_l_and_ln),
        ("ln_f_replaces_and_links", ln_f),
        (
            "links_of_a_copy_are_links_of_the_copy_only",
            links_of_a_copy,
        ),
        ("links_of_the_source_stay_links", links_of_the_source),
        ("mv_moves_one_of_the_two", mv),
        ("cp_a_of_a_tree_keeps_its_links_and_nothing_else", tree),
        ("rsync_brings_a_copy_up_to_date_alone", rsync),
        ("git_clone_of_a_local_repository_works", git_clone),
        ("cp_reflink_always_fails_plainly", reflink_always),
    ];
    let mut all = Vec::new();
    for (what, run) in tries {
        for copying in [Copying::Off, Copying::Cow] {
            let case = case(move |ctx: &Ctx| {
                let site = Site::new(ctx, copying, Manner::default());
                run(&site);
                site.end();
            })
            .called(format!("{what}_{}", copying.word()))
            .within_s(60);
            all.push(if copying == Copying::Off {
                case
            } else {
                case.on_mount_only()
            });
        }
    }
    all.push(case(link_on_a_server_without).on_mount_only());
    all.push(case(link_on_a_server_that_lies).on_mount_only());
    all
}

/// Holds that both names are one file, here and on the server.
#[track_caller]
fn one_file(site: &Site, names: [&str; 2], links: u64) {
    let [one, two] = names.map(|name| Look::at(&site.dir.join(name)));
    same(&format!("{names:?}"), &one, &two);
    assert_eq!(one.links, links, "links of {names:?}");
    let [one, two] = names.map(|name| inode(&site.behind.join(name)));
    assert_eq!(one, two, "{names:?} on the server");
}

/// Holds that a copy is what the site makes of copies, before it is put to the test.
#[track_caller]
fn as_the_site_copies(site: &Site, one: &str, two: &str) {
    let [one, two] = [one, two].map(|name| inode(&site.behind.join(name)));
    assert_eq!(one == two, site.links(), "one file on the server");
}

fn cp_l_and_ln(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    make_old(&at("a"), b"content");
    must(&["cp", "-l"], &[&at("a"), &at("b")]);
    one_file(site, ["a", "b"], 2);
    must(&["ln"], &[&at("b"), &at("c")]);
    one_file(site, ["a", "c"], 3);
    append(&at("c"), " more");
    one_file(site, ["a", "b"], 3);
    assert_eq!(fs::read(at("a")).unwrap(), b"content more");
    fs::remove_file(at("a")).unwrap();
    one_file(site, ["b", "c"], 2);
}

fn ln_f(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    make_old(&at("a"), b"content");
    make_old(&at("b"), b"something else");
    cp(&at("b"), &at("copy of b"));
    as_the_site_copies(site, "b", "copy of b");
    must(&["ln", "-f"], &[&at("a"), &at("b")]);
    one_file(site, ["a", "b"], 2);
    append(&at("b"), " more");
    assert_eq!(fs::read(at("a")).unwrap(), b"content more");
    assert_eq!(fs::read(at("copy of b")).unwrap(), b"something else");
    // Once more, onto a name that is the same file already.
    let again = run(&["ln", "-f"], &[&at("a"), &at("b")]);
    one_file(site, ["a", "b"], 2);
    assert_ne!(again.code(), None, "{}", again.ending());
}

fn links_of_a_copy(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    make_old(&at("source"), &content("links", 100_000));
    cp(&at("source"), &at("copy"));
    as_the_site_copies(site, "source", "copy");
    let before = Look::at(&at("source"));
    fs::hard_link(at("copy"), at("link")).unwrap();
    one_file(site, ["copy", "link"], 2);
    same("the source", &Look::at(&at("source")), &before);
    append(&at("link"), "more");
    one_file(site, ["copy", "link"], 2);
    assert_eq!(fs::metadata(at("copy")).unwrap().len(), 100_004);
    same("the source", &Look::at(&at("source")), &before);
    append(&at("source"), "else");
    one_file(site, ["copy", "link"], 2);
    assert!(fs::read(at("copy")).unwrap().ends_with(b"more"));
    assert!(fs::read(at("source")).unwrap().ends_with(b"else"));
}

fn links_of_the_source(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    make_old(&at("source"), &content("links", 100_000));
    fs::hard_link(at("source"), at("link")).unwrap();
    cp(&at("link"), &at("copy"));
    as_the_site_copies(site, "source", "copy");
    let copy = Look::at(&at("copy"));
    assert_eq!(copy.links, 1, "links of the copy");
    one_file(site, ["source", "link"], 2);
    append(&at("source"), "more");
    one_file(site, ["source", "link"], 2);
    assert!(fs::read(at("link")).unwrap().ends_with(b"more"));
    same("the copy", &Look::at(&at("copy")), &copy);
    // And a copy of the copy, written to first.
    cp(&at("copy"), &at("second"));
    append(&at("copy"), "else");
    assert_eq!(fs::metadata(at("second")).unwrap().len(), 100_000);
    one_file(site, ["source", "link"], 2);
}

fn mv(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    fs::create_dir_all(at("dir/below")).unwrap();
    make_old(&at("source"), &content("mv", 100_000));
    cp(&at("source"), &at("copy"));
    as_the_site_copies(site, "source", "copy");
    let before = Look::at(&at("source"));
    must(&["mv"], &[&at("copy"), &at("dir/below/moved")]);
    assert!(!at("copy").exists());
    same("the source", &Look::at(&at("source")), &before);
    must(&["mv"], &[&at("dir"), &at("other")]);
    append(&at("other/below/moved"), "more");
    same("the source", &Look::at(&at("source")), &before);
    // One over the other: they are two files, so one of them goes.
    cp(&at("source"), &at("twin"));
    must(&["mv"], &[&at("twin"), &at("source")]);
    assert!(!at("twin").exists(), "mv over the source left both names");
    let now = Look::at(&at("source"));
    same_content("moved over the source", &now.content, &before.content);
    assert_eq!(now.links, 1, "links");
    assert!(!site.behind.join("twin").exists(), "left on the server");
}

fn tree(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    fs::create_dir_all(at("tree/sub")).unwrap();
    for number in 0..40 {
        let path = at(&format!("tree/sub/{number}"));
        make_old(&path, &content("tree", 70_000 + number));
    }
    fs::hard_link(at("tree/sub/7"), at("tree/hard")).unwrap();
    must(&["cp", "-a"], &[&at("tree"), &at("copy")]);
    must(&["diff", "-r"], &[&at("tree"), &at("copy")]);
    one_file(site, ["copy/hard", "copy/sub/7"], 2);
    if site.links() {
        for number in 0..40 {
            let [one, two] =
                ["tree", "copy"].map(|dir| inode(&site.behind.join(format!("{dir}/sub/{number}"))));
            assert_eq!(one, two, "{number}: one file on the server");
        }
    }
    let before = Look::at(&at("tree/hard"));
    append(&at("copy/hard"), "more");
    one_file(site, ["copy/hard", "copy/sub/7"], 2);
    one_file(site, ["tree/hard", "tree/sub/7"], 2);
    same("the source", &Look::at(&at("tree/hard")), &before);
    let others: Vec<Look> = (8..40)
        .map(|number| Look::at(&at(&format!("tree/sub/{number}"))))
        .collect();
    for number in 8..40 {
        append(&at(&format!("copy/sub/{number}")), "more");
    }
    for (number, before) in (8..40).zip(&others) {
        let path = at(&format!("tree/sub/{number}"));
        same(&format!("tree/sub/{number}"), &Look::at(&path), before);
    }
    must(&["rm", "-r"], &[&at("tree")]);
    assert_eq!(fs::read_dir(at("copy/sub")).unwrap().count(), 40);
}

fn rsync(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    let mut source = content("rsync", 300_000);
    make_old(&at("source"), &source);
    cp(&at("source"), &at("copy"));
    as_the_site_copies(site, "source", "copy");
    let before = Look::at(&at("copy"));
    for options in [["-a", "--inplace"], ["-a", "--whole-file"]] {
        append(&at("source"), "more");
        source.extend(b"more");
        same("the copy", &Look::at(&at("copy")), &before);
        cp(&at("copy"), &at("copy of the copy"));
        must(
            &["rsync", options[0], options[1]],
            &[&at("source"), &at("copy of the copy")],
        );
        let now = fs::read(at("copy of the copy")).unwrap();
        same_content("brought up to date", &now, &source);
        same_content("the source", &fs::read(at("source")).unwrap(), &source);
        same("the copy", &Look::at(&at("copy")), &before);
    }
}

fn git_clone(site: &Site) {
    let git = |dir: &Path, words: &[&str]| {
        let mut command = Command::new("git");
        command
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=T", "-c", "user.email=t@localhost"])
            .args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
            .args(words);
        must_run(&mut command, LIMIT)
    };
    let origin = site.dir.join("origin");
    fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "--quiet"]);
    for number in 0..3 {
        fs::write(origin.join(format!("{number}")), content("git", 50_000)).unwrap();
        git(&origin, &["add", "--all"]);
        git(&origin, &["commit", "--quiet", "--message", "Add one"]);
    }
    git(&site.dir, &["clone", "--quiet", "origin", "linked"]);
    git(
        &site.dir,
        &["clone", "--quiet", "--no-hardlinks", "origin", "copied"],
    );
    cp_a(site, "origin", "copy");
    for clone in ["linked", "copied", "copy"] {
        let dir = site.dir.join(clone);
        assert_eq!(git(&dir, &["status", "--porcelain"]), "", "{clone}");
        fs::write(dir.join("1"), "changed").unwrap();
        git(&dir, &["commit", "--quiet", "--all", "--message", "Change"]);
        git(&dir, &["gc", "--quiet", "--prune=now"]);
        git(&dir, &["fsck", "--strict"]);
        assert_eq!(git(&dir, &["rev-list", "--count", "HEAD"]), "4\n");
    }
    git(&origin, &["fsck", "--strict"]);
    assert_eq!(git(&origin, &["status", "--porcelain"]), "");
    assert_eq!(git(&origin, &["rev-list", "--count", "HEAD"]), "3\n");
}

fn cp_a(site: &Site, from: &str, to: &str) {
    must(&["cp", "-a"], &[&site.dir.join(from), &site.dir.join(to)]);
}

/// The kernel refuses it for every FUSE filesystem, and no copy may come of it.
fn reflink_always(site: &Site) {
    let at = |name: &str| site.dir.join(name);
    make_old(&at("source"), b"content");
    let before = Look::at(&at("source"));
    let finished = run(&["cp", "--reflink=always"], &[&at("source"), &at("copy")]);
    same("the source", &Look::at(&at("source")), &before);
    if !site.is_mount() && finished.ok() {
        // A file system that can.
        return;
    }
    assert_eq!(finished.code(), Some(1), "{}", finished.said());
    assert!(
        finished.err.contains("Operation not supported"),
        "{}",
        finished.err
    );
    let left = fs::metadata(at("copy")).map_or(0, |meta| meta.len());
    assert_eq!(left, 0, "bytes in the file that cp could not clone");
}

fn link_on_a_server_without(ctx: &Ctx) {
    let manner = Manner {
        hidden: vec![HARDLINK],
        ..Manner::default()
    };
    let site = Site::new(ctx, Copying::Cow, manner);
    let at = |name: &str| site.dir.join(name);
    make_old(&at("a"), b"content");
    for words in [&["ln"][..], &["cp", "-l"]] {
        let finished = run(words, &[&at("a"), &at("b")]);
        assert_eq!(finished.code(), Some(1), "{words:?}: {}", finished.said());
        assert!(
            finished.err.contains("Operation not permitted"),
            "{words:?}: {}",
            finished.err
        );
        assert!(!at("b").exists(), "{words:?} made something");
    }
    site.end();
}

/// A link that is not there is not reported as made.
fn link_on_a_server_that_lies(ctx: &Ctx) {
    let manner = Manner {
        lies: true,
        ..Manner::default()
    };
    let site = Site::new(ctx, Copying::Cow, manner);
    let at = |name: &str| site.dir.join(name);
    make_old(&at("a"), b"content");
    let finished = run(&["ln"], &[&at("a"), &at("b")]);
    assert!(
        !finished.ok(),
        "ln says it made a link; on the server: {}",
        site.behind.join("b").exists()
    );
    assert!(!at("b").exists());
    assert_eq!(fs::read(at("a")).unwrap(), b"content");
    site.end();
}

const LIMIT: Duration = Duration::from_secs(60);
