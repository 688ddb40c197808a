//! What a person at a terminal sees and does: progress, and Ctrl-C.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{MINUTE, cp, many, needs_mount};
use crate::case::Ctx;
use crate::process;

pub(super) fn ctrl_c_ends_a_copy_at_once_and_names_what_is_incomplete(ctx: &Ctx) {
    needs_mount(ctx);
    // Nothing but holes, which copy-data fills: enough for some seconds.
    let large = fs::File::create(ctx.behind.join("large")).unwrap();
    large.set_len(8 << 30).unwrap();
    ctx.wait_for_name("large");
    let mut command = ctx.lab.program.command();
    let said = ctx.dir.with_extension("said");
    command
        .args(["cp", "large", "copy"])
        .current_dir(&ctx.dir)
        .stderr(fs::File::create(&said).unwrap());
    let mut child = process::start(&mut command);
    let copy = ctx.behind.join("copy");
    let has_begun = || {
        fs::metadata(&copy)
            .is_ok_and(|meta| meta.len() > 0)
            .then_some(())
    };
    assert!(
        process::wait_for(Instant::now() + MINUTE, has_begun).is_some(),
        "it has begun"
    );
    let begin = Instant::now();
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let status = process::wait_until(&mut child, begin + MINUTE).expect("it ends");
    let took = begin.elapsed();
    let text = fs::read_to_string(&said).unwrap();
    fs::remove_file(&said).unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(took < Duration::from_secs(3), "it took {took:.1?}");
    assert!(
        text.contains("sftpfs cp: interrupted: copied 0 of 1 files"),
        "{text}"
    );
    assert!(text.contains("'copy' is incomplete"), "{text}");
    ctx.note(format!("ended {took:.1?} after Ctrl-C"));
    fs::remove_file(ctx.dir.join("copy")).unwrap();
}

pub(super) fn progress_is_shown_and_taken_away(ctx: &Ctx) {
    ctx.needs_sftpfs();
    many(&ctx.dir.join("src"), 400);
    let done = cp(
        ctx,
        true,
        &ctx.dir,
        &["-r", "--progress=always", "src", "copy"],
    );
    assert!(done.ok(), "{}", done.said());
    let (line, last) = done
        .err
        .rsplit_once("\r\u{1b}[K")
        .expect("a line that was taken away");
    assert!(
        line.starts_with('\r') && line.contains("files, "),
        "{line:?}"
    );
    assert!(last.starts_with("400 files, 546 KiB"), "{last:?}");
    let quiet = cp(ctx, true, &ctx.dir, &["-r", "src", "quiet"]);
    assert_eq!(quiet.said(), "", "no terminal, no progress");
}
