//! What others change on the server is seen here: at the next open at the latest, and after the
//! attributes' lifetime without one.

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{names_in, refused};
use crate::case::{Case, Ctx, case};
use crate::process;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(a_file_rewritten_on_the_server_is_read_anew_after_open),
        case(a_file_grown_on_the_server_is_read_to_its_new_end_after_open),
        case(a_file_replaced_on_the_server_by_one_of_the_same_size_is_read_anew),
        case(names_made_on_the_server_appear_in_time),
        case(names_removed_on_the_server_go_in_time),
        case(a_kind_changed_on_the_server_is_noticed_in_time),
        case(what_is_written_here_is_there_for_others_after_close),
    ]
}

/// What a listing or a name may be believed without asking, at most: the default of
/// `entry_timeout` and `dir_timeout`, and some patience (sshfs: 20 s).
const IN_TIME: Duration = Duration::from_secs(22);

fn eventually(what: &str, ask: impl FnMut() -> Option<()>) {
    let end = Instant::now() + IN_TIME;
    assert!(
        process::wait_for(end, ask).is_some(),
        "{what} not within {IN_TIME:?}"
    );
}

fn a_file_rewritten_on_the_server_is_read_anew_after_open(ctx: &Ctx) {
    ctx.put_behind("f", "old content");
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"old content");
    fs::write(ctx.behind.join("f"), "new").unwrap();
    // SFTP's times are whole seconds, so a change is told by size or time.
    let mut text = String::new();
    File::open(ctx.dir.join("f"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "new");
}

fn a_file_grown_on_the_server_is_read_to_its_new_end_after_open(ctx: &Ctx) {
    fs::write(ctx.dir.join("log"), "one\n").unwrap();
    assert_eq!(fs::read(ctx.dir.join("log")).unwrap(), b"one\n");
    let mut log = File::options()
        .append(true)
        .open(ctx.behind.join("log"))
        .unwrap();
    std::io::Write::write_all(&mut log, b"two\n").unwrap();
    assert_eq!(fs::read(ctx.dir.join("log")).unwrap(), b"one\ntwo\n");
}

fn a_file_replaced_on_the_server_by_one_of_the_same_size_is_read_anew(ctx: &Ctx) {
    ctx.put_behind("f", "aaaa");
    let old = File::options()
        .write(true)
        .open(ctx.behind.join("f"))
        .unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
        .unwrap();
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"aaaa");
    fs::write(ctx.behind.join("g"), "bbbb").unwrap();
    fs::rename(ctx.behind.join("g"), ctx.behind.join("f")).unwrap();
    assert_eq!(fs::read(ctx.dir.join("f")).unwrap(), b"bbbb");
}

fn names_made_on_the_server_appear_in_time(ctx: &Ctx) {
    refused(File::open(ctx.dir.join("new")), Errno::ENOENT);
    assert!(names_in(&ctx.dir).is_empty());
    fs::write(ctx.behind.join("new"), "content").unwrap();
    eventually("the new name was found", || {
        File::open(ctx.dir.join("new")).ok().map(drop)
    });
    eventually("the new name was listed", || {
        (names_in(&ctx.dir) == ["new"]).then_some(())
    });
    assert_eq!(fs::read(ctx.dir.join("new")).unwrap(), b"content");
}

fn names_removed_on_the_server_go_in_time(ctx: &Ctx) {
    fs::write(ctx.dir.join("f"), "content").unwrap();
    assert_eq!(names_in(&ctx.dir), ["f"]);
    fs::remove_file(ctx.behind.join("f")).unwrap();
    eventually("the name went", || {
        fs::metadata(ctx.dir.join("f")).err().map(drop)
    });
    refused(File::open(ctx.dir.join("f")), Errno::ENOENT);
    eventually("the listing changed", || {
        names_in(&ctx.dir).is_empty().then_some(())
    });
}

fn a_kind_changed_on_the_server_is_noticed_in_time(ctx: &Ctx) {
    fs::write(ctx.dir.join("x"), "a file").unwrap();
    fs::remove_file(ctx.behind.join("x")).unwrap();
    fs::create_dir(ctx.behind.join("x")).unwrap();
    fs::write(ctx.behind.join("x/f"), "below").unwrap();
    eventually("the directory was seen", || {
        fs::read(ctx.dir.join("x/f"))
            .ok()
            .filter(|text| text == b"below")
            .map(drop)
    });
}

fn what_is_written_here_is_there_for_others_after_close(ctx: &Ctx) {
    for round in 0..50 {
        let text = format!("round {round}");
        fs::write(ctx.dir.join("f"), &text).unwrap();
        assert_eq!(fs::read_to_string(ctx.behind.join("f")).unwrap(), text);
    }
}
