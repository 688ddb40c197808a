//! Copies that take long: others do not wait for them, they end when they are interrupted, and
//! lengths that a request of the kernel cannot hold are no obstacle.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::programs::cp;
use crate::case::{Case, Ctx, case};
use crate::process;
use crate::suites::site::{COPY_DATA, Copying, Site, inode, nothing_temporary};
use crate::wire::Manner;

pub(super) fn cases() -> Vec<Case> {
    let interrupted = |hidden: &'static [&'static str], called: &str| {
        case(move |ctx: &Ctx| ends_when_interrupted(ctx, hidden))
            .called(format!("a_long_copy_{called}_ends_when_interrupted"))
    };
    [
        interrupted(&[], "by_the_server"),
        interrupted(&[COPY_DATA], "by_the_client"),
        case(a_file_over_4_gib_is_linked),
    ]
    .into_iter()
    .map(|case| case.on_mount_only().within_s(60))
    .collect()
}

/// Longer than any disk copies in the time of these cases; without holes for copy-data.
const LONG: u64 = 64 << 30;
/// What a person takes for at once, and what a busy machine needs.
const AT_ONCE: Duration = Duration::from_secs(2);

fn ends_when_interrupted(ctx: &Ctx, hidden: &[&'static str]) {
    let manner = Manner {
        hidden: hidden.to_vec(),
        ..Manner::default()
    };
    File::create(ctx.behind.join("source"))
        .and_then(|file| file.set_len(LONG))
        .unwrap();
    fs::write(ctx.behind.join("small"), "content").unwrap();
    let site = Site::new(ctx, Copying::Off, manner);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut command = Command::new("cp");
        command
            .args(["--sparse=never"])
            .args([site.dir.join("source"), site.dir.join("copy")]);
        let mut copying = process::start(&mut command);
        let target = ctx.behind.join("copy");
        let has_begun = || fs::metadata(&target).is_ok_and(|meta| meta.len() > 0);
        let begun = process::wait_for(Instant::now() + LIMIT, || has_begun().then_some(()));
        let started = Instant::now();
        let small = fs::read(site.dir.join("small")).unwrap();
        let listed = fs::read_dir(&site.dir).unwrap().count();
        let waited = started.elapsed();
        process::signal(copying.id().cast_signed(), signal);
        let started = Instant::now();
        let status = process::wait_until(&mut copying, started + LIMIT);
        let took = started.elapsed();
        let len = fs::metadata(&target).map_or(0, |meta| meta.len());
        fs::remove_file(site.dir.join("copy")).unwrap();
        assert!(begun.is_some(), "nothing was copied within {LIMIT:?}");
        assert!(status.is_some(), "{signal}: cp still runs after {took:?}");
        assert!(took < AT_ONCE, "{signal}: cp ended after {took:?}");
        assert!(len < LONG, "{signal}: it had ended by itself");
        assert_eq!((&small[..], listed), (&b"content"[..], 3));
        assert!(waited < AT_ONCE, "another program waited {waited:?}");
    }
    fs::remove_file(site.dir.join("source")).unwrap();
    site.end();
}

/// A request has 32 bits for its answer: the kernel asks for the rest in further ones.
fn a_file_over_4_gib_is_linked(ctx: &Ctx) {
    for copying in [Copying::Cow, Copying::Shared] {
        let len: u64 = (9 << 30) + 123;
        let path = ctx.behind.join("source");
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        for place in [0, 5 << 30, len - 3] {
            file.write_all_at(b"end", place).unwrap();
        }
        let site = Site::new(ctx, copying, Manner::default());
        cp(&site.dir.join("source"), &site.dir.join("copy"));
        assert_eq!(inode(&path), inode(&ctx.behind.join("copy")), "no link");
        let copy = File::open(site.dir.join("copy")).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), len);
        for place in [0, 5 << 30, len - 3] {
            let mut piece = [0; 3];
            copy.read_exact_at(&mut piece, place).unwrap();
            assert_eq!(&piece, b"end", "at {place}");
        }
        let counts = site.wire().counts();
        assert!(counts.bytes() < 8 << 20, "{counts:?}");
        drop(copy);
        fs::remove_file(site.dir.join("copy")).unwrap();
        fs::remove_file(site.dir.join("source")).unwrap();
        nothing_temporary(&ctx.behind);
        site.end();
    }
}

const LIMIT: Duration = Duration::from_secs(15);
