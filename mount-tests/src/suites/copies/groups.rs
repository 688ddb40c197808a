//! Names that share storage on the server without being links: chains of them, over several
//! mounts, beside links that others made, and with the notes about them lost.

use std::fs;
use std::path::Path;

use super::programs::{PROGRAMS, cp};
use crate::case::{Case, Ctx, case};
use crate::suites::acts::append;
use crate::suites::site::{
    COPY_DATA, Copying, Look, Site, content, everything, inode, make_old, nothing_temporary, same,
    same_content, set_mtime,
};
use crate::wire::Manner;

pub(super) fn cases() -> Vec<Case> {
    [
        case(a_chain_of_copies_are_files_of_their_own),
        case(the_next_mount_still_knows_what_is_a_copy),
        case(a_mount_after_a_kill_still_knows_what_is_a_copy),
        case(renamed_copies_are_known_in_the_next_mount),
        case(without_its_notes_names_are_what_the_server_says),
        case(notes_that_are_no_notes_are_as_good_as_none),
        case(links_that_others_made_stay_links),
        case(links_of_an_earlier_mount_stay_links),
        case(setting_what_is_set_breaks_nothing),
        case(truncating_a_copy_at_open_copies_nothing),
        case(the_last_name_is_written_in_place),
        case(a_copy_that_others_replaced_is_left_alone),
        case(a_change_of_mode_copies_the_content),
        case(many_copies_at_once_are_files_of_their_own),
    ]
    .into_iter()
    .map(Case::on_mount_only)
    .collect()
}

const LEN: usize = 100_000;

fn site(ctx: &Ctx) -> Site {
    Site::new(ctx, Copying::Cow, Manner::default())
}

/// `source` and `copy`, which must be one file on the server or the case is none.
fn pair(site: &Site) -> (Look, Look) {
    make_old(&site.dir.join("source"), &content("groups", LEN));
    cp(&site.dir.join("source"), &site.dir.join("copy"));
    assert!(shared(site, "source", "copy"), "cp made no link");
    (
        Look::at(&site.dir.join("source")),
        Look::at(&site.dir.join("copy")),
    )
}

fn shared(site: &Site, one: &str, two: &str) -> bool {
    inode(&site.behind.join(one)) == inode(&site.behind.join(two))
}

/// As a new mount numbers its files anew.
#[track_caller]
fn same_but_number(what: &str, path: &Path, before: &Look) {
    let mut now = Look::at(path);
    now.ino = before.ino;
    same(what, &now, before);
}

fn a_chain_of_copies_are_files_of_their_own(ctx: &Ctx) {
    for first in 0..4 {
        let site = site(ctx);
        let dir = site.dir.join(format!("{first}"));
        fs::create_dir(&dir).unwrap();
        let names: Vec<_> = (0..4).map(|number| dir.join(format!("{number}"))).collect();
        let source = content("chain", LEN);
        make_old(&names[0], &source);
        for two in names.windows(2) {
            cp(&two[0], &two[1]);
        }
        let first_name = inode(&site.behind.join(format!("{first}/0")));
        for number in 1..4 {
            let now = inode(&site.behind.join(format!("{first}/{number}")));
            assert_eq!(now, first_name, "cp made no link");
        }
        let mut looks: Vec<Look> = names.iter().map(|path| Look::at(path)).collect();
        for step in 0..4 {
            let number = (first + step * 3) % 4;
            append(&names[number], &format!("{step}"));
            let now = Look::at(&names[number]);
            let mut expected = looks[number].content.clone();
            expected.extend(format!("{step}").bytes());
            same_content("the written one", &now.content, &expected);
            assert_eq!(now.ino, looks[number].ino, "its inode");
            looks[number] = now;
            for (path, before) in names.iter().zip(&looks) {
                same(&path.display().to_string(), &Look::at(path), before);
            }
        }
        site.end();
    }
}

fn the_next_mount_still_knows_what_is_a_copy(ctx: &Ctx) {
    for written in ["source", "copy"] {
        let mut site = site(ctx);
        let looks = pair(&site);
        let (other, before) = if written == "copy" {
            ("source", looks.0)
        } else {
            ("copy", looks.1)
        };
        site.remount();
        same_but_number("before any write", &site.dir.join(other), &before);
        append(&site.dir.join(written), "more");
        same_but_number("the other", &site.dir.join(other), &before);
        assert!(!shared(&site, "source", "copy"), "written through both");
        site.remount();
        append(&site.dir.join(other), "else");
        let now = fs::read(site.dir.join(written)).unwrap();
        assert!(now.ends_with(b"more"), "{written} in the third mount");
        for name in ["source", "copy"] {
            fs::remove_file(site.dir.join(name)).unwrap();
        }
        site.end();
    }
}

fn a_mount_after_a_kill_still_knows_what_is_a_copy(ctx: &Ctx) {
    let mut site = site(ctx);
    let (before, _) = pair(&site);
    site.kill();
    site.mount();
    append(&site.dir.join("copy"), "more");
    same_but_number("the source", &site.dir.join("source"), &before);
    site.kill();
    site.mount();
    append(&site.dir.join("source"), "else");
    assert!(fs::read(site.dir.join("copy")).unwrap().ends_with(b"more"));
    site.end();
}

fn renamed_copies_are_known_in_the_next_mount(ctx: &Ctx) {
    let mut site = site(ctx);
    fs::create_dir_all(site.dir.join("one/two")).unwrap();
    let (before, _) = pair(&site);
    fs::rename(site.dir.join("copy"), site.dir.join("one/two/copy")).unwrap();
    fs::rename(site.dir.join("one"), site.dir.join("three")).unwrap();
    site.remount();
    append(&site.dir.join("three/two/copy"), "more");
    same_but_number("the source", &site.dir.join("source"), &before);
    // A name that is made anew has nothing to do with what was there.
    fs::remove_file(site.dir.join("three/two/copy")).unwrap();
    fs::hard_link(site.dir.join("source"), site.dir.join("three/two/copy")).unwrap();
    site.remount();
    append(&site.dir.join("source"), "more");
    let link = fs::read(site.dir.join("three/two/copy")).unwrap();
    assert!(link.ends_with(b"more"), "a link in a copy's old place");
    site.end();
}

fn without_its_notes_names_are_what_the_server_says(ctx: &Ctx) {
    let mut site = site(ctx);
    pair(&site);
    site.unmount();
    fs::remove_dir_all(&site.state).unwrap();
    site.mount();
    is_a_link(&site);
    site.end();
}

/// Both names are one file, and nothing says otherwise.
#[track_caller]
fn is_a_link(site: &Site) {
    // SFTP tells how many links there are only in a listing.
    assert_eq!(fs::read_dir(&site.dir).unwrap().count(), 2);
    for name in ["source", "copy"] {
        assert_eq!(Look::at(&site.dir.join(name)).links, 2, "links of {name}");
    }
    append(&site.dir.join("copy"), "more");
    assert!(shared(site, "source", "copy"), "a link was broken");
    let now = fs::read(site.behind.join("source")).unwrap();
    assert!(now.ends_with(b"more"), "not written through the link");
}

fn notes_that_are_no_notes_are_as_good_as_none(ctx: &Ctx) {
    for garbage in [&b""[..], b"\0\0\0\0garbage\n", &[0xff; 5000]] {
        let mut site = site(ctx);
        pair(&site);
        site.unmount();
        let notes: Vec<_> = everything(&site.state)
            .into_iter()
            .filter(|path| path.is_file())
            .collect();
        assert!(!notes.is_empty(), "no notes in the state directory");
        for path in notes {
            fs::write(path, garbage).unwrap();
        }
        site.mount();
        is_a_link(&site);
        // It goes on from there.
        cp(&site.dir.join("source"), &site.dir.join("second"));
        append(&site.dir.join("second"), "else");
        let now = fs::read(site.behind.join("source")).unwrap();
        assert!(now.ends_with(b"more"), "the source");
        let now = fs::read(site.behind.join("second")).unwrap();
        assert!(now.ends_with(b"else"), "the copy");
        for name in ["source", "copy", "second"] {
            fs::remove_file(site.dir.join(name)).unwrap();
        }
        site.end();
    }
}

fn links_that_others_made_stay_links(ctx: &Ctx) {
    for written in ["source", "copy"] {
        let site = Site::planned(ctx, &ctx.behind, Copying::Cow, Manner::default());
        make_old(&site.behind.join("source"), &content("groups", LEN));
        fs::hard_link(site.behind.join("source"), site.behind.join("link")).unwrap();
        let mut site = site;
        site.mount();
        cp(&site.dir.join("source"), &site.dir.join("copy"));
        check_link(&site, written);
        for name in ["source", "link", "copy"] {
            fs::remove_file(site.dir.join(name)).unwrap();
        }
        site.end();
    }
}

fn links_of_an_earlier_mount_stay_links(ctx: &Ctx) {
    for written in ["source", "copy"] {
        let mut site = site(ctx);
        make_old(&site.dir.join("source"), &content("groups", LEN));
        fs::hard_link(site.dir.join("source"), site.dir.join("link")).unwrap();
        cp(&site.dir.join("source"), &site.dir.join("copy"));
        assert!(shared(&site, "source", "copy"), "cp made no link");
        site.remount();
        check_link(&site, written);
        for name in ["source", "link", "copy"] {
            fs::remove_file(site.dir.join(name)).unwrap();
        }
        site.end();
    }
}

/// `link` and `source` are one file, `copy` is another, whatever is written.
#[track_caller]
fn check_link(site: &Site, written: &str) {
    let on_server = |name: &str| fs::read(site.behind.join(name)).unwrap();
    let old = content("groups", LEN);
    append(&site.dir.join(written), "more");
    let mut new = old.clone();
    new.extend(b"more");
    let (linked, copied) = if written == "copy" {
        (&old, &new)
    } else {
        (&new, &old)
    };
    let what = |name: &str| format!("{name}, {written} written");
    assert!(
        shared(site, "source", "link"),
        "{}: the link was broken",
        what("link")
    );
    same_content(&what("source"), &on_server("source"), linked);
    same_content(&what("copy"), &on_server("copy"), copied);
    same_content(
        &what("copy here"),
        &fs::read(site.dir.join("copy")).unwrap(),
        copied,
    );
}

fn setting_what_is_set_breaks_nothing(ctx: &Ctx) {
    use std::os::unix::fs::PermissionsExt;
    let site = site(ctx);
    let (source, copy) = pair(&site);
    let path = site.dir.join("copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(copy.mode)).unwrap();
    set_mtime(&path, copy.mtime);
    std::os::unix::fs::chown(&path, Some(copy.owner.0), Some(copy.owner.1)).unwrap();
    let len = i64::try_from(copy.content.len()).unwrap();
    nix::unistd::truncate(&path, len).unwrap();
    assert!(shared(&site, "source", "copy"), "broken by equal values");
    // What cp -p and cp -a do at the end is just that.
    for program in PROGRAMS {
        if matches!(program.name, "cp -p" | "cp -a") {
            let to = site.dir.join(program.name);
            program.run(&site.dir.join("source"), &to);
            assert!(shared(&site, "source", program.name), "{}", program.name);
        }
    }
    same("the source", &Look::at(&site.dir.join("source")), &source);
    site.end();
}

fn truncating_a_copy_at_open_copies_nothing(ctx: &Ctx) {
    for written in ["copy", "source"] {
        let site = site(ctx);
        let looks = pair(&site);
        let (other, before) = if written == "copy" {
            ("source", looks.0)
        } else {
            ("copy", looks.1)
        };
        site.wire().reset();
        fs::write(site.dir.join(written), "short").unwrap();
        let counts = site.wire().counts();
        assert_eq!(counts.of(COPY_DATA), 0, "{counts:?}");
        assert!(counts.bytes() < 20_000, "{counts:?}");
        same("the other", &Look::at(&site.dir.join(other)), &before);
        let now = Look::at(&site.dir.join(written));
        assert_eq!((&now.content[..], now.mode), (&b"short"[..], before.mode));
        for name in ["source", "copy"] {
            fs::remove_file(site.dir.join(name)).unwrap();
        }
        site.end();
    }
}

fn the_last_name_is_written_in_place(ctx: &Ctx) {
    for gone in ["source", "copy"] {
        let site = site(ctx);
        pair(&site);
        let left = if gone == "copy" { "source" } else { "copy" };
        fs::remove_file(site.dir.join(gone)).unwrap();
        let number = inode(&site.behind.join(left));
        append(&site.dir.join(left), "more");
        assert_eq!(inode(&site.behind.join(left)), number, "copied needlessly");
        fs::remove_file(site.dir.join(left)).unwrap();
        site.end();
    }
}

fn a_copy_that_others_replaced_is_left_alone(ctx: &Ctx) {
    let mut site = site(ctx);
    site.option("attr_timeout=0,entry_timeout=0");
    site.remount();
    let (before, _) = pair(&site);
    fs::write(site.behind.join("new"), "somebody else's").unwrap();
    fs::rename(site.behind.join("new"), site.behind.join("copy")).unwrap();
    append(&site.dir.join("source"), "more");
    let others = fs::read(site.behind.join("copy")).unwrap();
    assert_eq!(others, b"somebody else's");
    append(&site.dir.join("copy"), "!");
    let others = fs::read(site.behind.join("copy")).unwrap();
    assert_eq!(others, b"somebody else's!");
    let mut expected = before.content;
    expected.extend(b"more");
    let source = fs::read(site.behind.join("source")).unwrap();
    same_content("the source", &source, &expected);
    site.end();
}

fn a_change_of_mode_copies_the_content(ctx: &Ctx) {
    use std::os::unix::fs::PermissionsExt;
    let mut site = site(ctx);
    let (before, _) = pair(&site);
    fs::set_permissions(site.dir.join("copy"), fs::Permissions::from_mode(0o400)).unwrap();
    same("the source", &Look::at(&site.dir.join("source")), &before);
    site.unmount();
    nothing_temporary(&site.behind);
    let copy = Look::at(&site.behind.join("copy"));
    same_content("the copy", &copy.content, &before.content);
    assert_eq!((copy.mode, copy.mtime), (0o400, before.mtime));
    let source = Look::at(&site.behind.join("source"));
    assert_eq!((source.mode, source.mtime), (before.mode, before.mtime));
    site.end();
}

/// Copies of one file, and copies of these, made and written by several programs at a time.
fn many_copies_at_once_are_files_of_their_own(ctx: &Ctx) {
    let site = site(ctx);
    let source = content("groups", LEN);
    make_old(&site.dir.join("source"), &source);
    let before = Look::at(&site.dir.join("source"));
    let worker = &|number: usize| {
        for round in 0..6 {
            let at = |name: &str| site.dir.join(format!("{name} {number} {round}"));
            cp(&site.dir.join("source"), &at("copy"));
            cp(&at("copy"), &at("second"));
            let mut expected = source.clone();
            expected.extend(format!("{number} {round}").bytes());
            append(&at("copy"), &format!("{number} {round}"));
            let what = |name: &str| format!("{name} {number} {round}");
            let now = fs::read(at("copy")).unwrap();
            same_content(&what("copy"), &now, &expected);
            let now = fs::read(at("second")).unwrap();
            same_content(&what("second"), &now, &source);
            if round % 2 == 0 {
                fs::remove_file(at("copy")).unwrap();
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || worker(number)))
            .collect();
        for thread in threads {
            if let Err(payload) = thread.join() {
                std::panic::resume_unwind(payload);
            }
        }
    });
    same("the source", &Look::at(&site.dir.join("source")), &before);
    append(&site.dir.join("source"), "at last");
    for number in 0..4 {
        let path = site.behind.join(format!("second {number} 5"));
        same_content("a second copy", &fs::read(path).unwrap(), &source);
    }
    site.end();
}
