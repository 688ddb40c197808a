//! The connection is cut before each packet in turn, either way, while a copy is made or while one
//! of two that share storage gets a file of its own: each name then holds the old or the new
//! content in whole, and the next mount finds nothing left over.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::site::{
    Copying, LONG_AGO, Look, Site, content, inode, make_old, nothing_temporary, same_content,
};
use crate::case::{Case, Ctx, Suite, case};
use crate::process;
use crate::wire::{Manner, Way};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "cuts",
        about: "a connection cut at any packet of a copy leaves whole files and no other",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    SESSIONS
        .iter()
        .map(|session| {
            case(move |ctx: &Ctx| cut_everywhere(ctx, session))
                .called(session.name)
                .on_mount_only()
                .within_s(300)
        })
        .collect()
}

/// Something done to `source` and `copy`, and what may be found then.
struct Session {
    name: &'static str,
    copying: Copying,
    /// Whether there is a copy already, by a link.
    copied: bool,
    /// What is done. It may fail: there is no connection any more.
    act: fn(&Path),
    /// What `source` and `copy` may hold afterwards; nothing for a name that need not exist.
    may: fn() -> [Vec<Vec<u8>>; 2],
}

const SESSIONS: &[Session] = &[
    Session {
        name: "a_copy_is_there_in_whole_or_not",
        copying: Copying::Cow,
        copied: false,
        act: |dir| cp(dir, "copy"),
        may: || [vec![old()], vec![vec![], old()]],
    },
    Session {
        name: "a_copy_over_a_file_is_there_in_whole_or_not",
        copying: Copying::Cow,
        copied: false,
        act: |dir| cp(dir, "file"),
        may: || [vec![old()], vec![]],
    },
    Session {
        name: "a_shared_copy_is_there_in_whole_or_not",
        copying: Copying::Shared,
        copied: false,
        act: |dir| cp(dir, "copy"),
        may: || [vec![old()], vec![vec![], old()]],
    },
    Session {
        name: "a_written_copy_is_old_or_new",
        copying: Copying::Cow,
        copied: true,
        act: |dir| write(&dir.join("copy")),
        may: || [vec![old()], vec![old(), written()]],
    },
    Session {
        name: "a_written_source_is_old_or_new",
        copying: Copying::Cow,
        copied: true,
        act: |dir| write(&dir.join("source")),
        may: || [vec![old(), written()], vec![old()]],
    },
    Session {
        name: "an_overwritten_copy_is_old_or_new",
        copying: Copying::Cow,
        copied: true,
        // Empty in between: that is what O_TRUNC means.
        act: |dir| drop(fs::write(dir.join("copy"), "short")),
        may: || [vec![old()], vec![old(), vec![], b"short".to_vec()]],
    },
    Session {
        name: "a_truncated_source_is_old_or_new",
        copying: Copying::Cow,
        copied: true,
        act: |dir| {
            let _ = nix::unistd::truncate(&dir.join("source"), 1000);
        },
        may: || [vec![old(), old()[..1000].to_vec()], vec![old()]],
    },
    Session {
        name: "a_copy_with_another_mode_keeps_its_content",
        copying: Copying::Cow,
        copied: true,
        act: |dir| {
            drop(fs::set_permissions(
                dir.join("copy"),
                fs::Permissions::from_mode(0o600),
            ));
        },
        may: || [vec![old()], vec![old()]],
    },
];

/// Longer than `cp` may take here.
const ACT_MAX: Duration = Duration::from_secs(30);

/// Several requests of a server without limits, and little to compare.
const LEN: usize = 150_000;

fn old() -> Vec<u8> {
    content("cuts", LEN)
}

fn written() -> Vec<u8> {
    let mut content = old();
    content[70_000..70_007].copy_from_slice(b"written");
    content
}

fn cp(dir: &Path, to: &str) {
    let mut command = Command::new("cp");
    // With or without success.
    process::run(
        command.arg(dir.join("source")).arg(dir.join(to)),
        Duration::from_secs(20),
    );
}

fn write(path: &Path) {
    // With or without success.
    let _ = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(b"written", 70_000));
}

fn cut_everywhere(ctx: &Ctx, session: &Session) {
    let mut tried = 0;
    // A cut before an answer finds the server as one before the next request does, mostly.
    let every = if ctx.full { 1 } else { 2 };
    for (way, step) in [(Way::Up, 1), (Way::Down, every)] {
        let mut packet = 1;
        // Every other one ends the daemon as well, in the same moment.
        while cut_at(ctx, session, way, packet, tried % 2 == 1) {
            packet += step;
            tried += 1;
            assert!(packet < 300, "no end of packets");
        }
    }
    assert!(tried >= 6, "only {tried} places to cut at");
    ctx.note(format!("{}: cut at {tried} places", session.name));
}

/// Whether it came to the cut.
fn cut_at(ctx: &Ctx, session: &Session, way: Way, packet: u64, killed: bool) -> bool {
    let what = format!("cut before packet {packet} {way:?}");
    let behind = ctx.behind.join(format!("{way:?}-{packet}"));
    fs::create_dir(&behind).unwrap();
    make_old(&behind.join("source"), &old());
    fs::write(behind.join("file"), "in the way").unwrap();
    let mut site = Site::at(ctx, &behind, session.copying, Manner::default());
    if session.copied {
        cp(&site.dir, "copy");
        let linked = inode(&behind.join("source")) == inode(&behind.join("copy"));
        assert!(linked, "{what}: cp made no link");
    }
    let victim = killed.then(|| site.daemon()).flatten();
    site.wire().cut_before(way, packet, victim);
    let was_cut = act_until_cut(&mut site, session);
    if !was_cut {
        site.unmount();
    }
    site.wire().mend();
    found(&what, session, &behind, was_cut);
    site.mount();
    if session.copying == Copying::Cow {
        still_independent(&what, &site);
    }
    site.unmount();
    nothing_temporary(&behind);
    fs::remove_dir_all(&behind).unwrap();
    was_cut
}

/// Does what the session does, to its end or to the cut: programs would wait for the server to come
/// back then, so the daemon ends. Whether it came to the cut.
fn act_until_cut(site: &mut Site, session: &Session) -> bool {
    let (act, dir) = (session.act, site.dir.clone());
    let thread = std::thread::spawn(move || act(&dir));
    let end = Instant::now() + ACT_MAX;
    let done = || (thread.is_finished() || site.wire().is_cut()).then_some(());
    assert!(
        process::wait_for(end, done).is_some(),
        "neither done nor cut"
    );
    if thread.is_finished() && !site.wire().disarm() {
        return false;
    }
    // Detached only when the program has ended: it would go on in the empty directory below.
    site.kill_daemon();
    let done = || thread.is_finished().then_some(());
    assert!(
        process::wait_for(Instant::now() + ACT_MAX, done).is_some(),
        "a program hangs in a mount without a daemon"
    );
    site.kill();
    site.wire().disarm();
    true
}

/// Looks at the server's files.
fn found(what: &str, session: &Session, behind: &Path, was_cut: bool) {
    for (name, may) in ["source", "copy"].iter().zip((session.may)()) {
        let content = fs::read(behind.join(name)).ok();
        let allowed = match &content {
            None => *name == "copy" && !session.copied,
            Some(content) => may.contains(content),
        };
        let len = content.as_ref().map(Vec::len);
        assert!(allowed, "{what}: {name} holds {len:?} bytes of something");
        if !was_cut && let Some(last) = may.last() {
            assert!(content.as_ref() == Some(last), "{name} without any cut");
        }
    }
    let over = fs::read(behind.join("file")).unwrap_or_default();
    let allowed = [&b"in the way"[..], b""].contains(&&over[..]) || over == old();
    assert!(
        allowed,
        "{what}: file holds {} bytes of something",
        over.len()
    );
    // Who was not written has kept its time, also where the other was given a file of its own.
    for (name, may) in ["source", "copy"].iter().zip((session.may)()) {
        if may.len() == 1 && behind.join(name).exists() {
            let look = Look::at(&behind.join(name));
            assert_eq!(look.mtime, LONG_AGO, "{what}: the time of {name}");
        }
    }
    let source = Look::at(&behind.join("source"));
    assert_eq!(source.mode, 0o664, "{what}: the mode of the source");
}

/// In a new mount: what is written to one name does not show in another, nor on the server.
fn still_independent(what: &str, site: &Site) {
    let names: Vec<&str> = ["source", "copy", "file"]
        .into_iter()
        .filter(|name| site.dir.join(name).exists())
        .collect();
    let mut model: Vec<Vec<u8>> = names
        .iter()
        .map(|name| fs::read(site.dir.join(name)).unwrap())
        .collect();
    for (number, name) in names.iter().enumerate().rev() {
        let mut file = File::options()
            .append(true)
            .open(site.dir.join(name))
            .unwrap();
        file.write_all(name.as_bytes()).unwrap();
        drop(file);
        model[number].extend(name.as_bytes());
        for (name, expected) in names.iter().zip(&model) {
            for place in [&site.dir, &site.behind] {
                let now = fs::read(place.join(name)).unwrap();
                same_content(
                    &format!("{what}, in the next mount: {name}"),
                    &now,
                    expected,
                );
            }
        }
    }
}
