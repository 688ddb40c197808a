//! What a copy costs: bytes over the link and round trips, counted; and time, told.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use super::programs::cp;
use crate::case::{Case, Ctx, case};
use crate::suites::site::{COPY_DATA, Copying, Site, content, inode};
use crate::wire::{Manner, TcpMeter};

pub(super) fn cases() -> Vec<Case> {
    [
        case(a_linked_copy_sends_little_over_ssh),
        case(a_copy_by_the_server_sends_little_over_ssh),
        case(a_linked_copy_takes_few_round_trips),
        case(a_copy_by_the_server_takes_few_round_trips),
        case(a_small_copy_takes_few_round_trips),
    ]
    .into_iter()
    .map(|case| case.on_mount_only().within_s(120))
    .collect()
}

/// Bytes that a copy may move over the link, however long the file.
const BYTES_MAX: u64 = 64 << 10;
/// Round trips that a linked copy may take.
const TRIPS_MAX: u64 = 11;

fn size(ctx: &Ctx) -> u64 {
    if ctx.full { 1 << 30 } else { 256 << 20 }
}

/// A file without holes, made at the speed of the disk.
fn make_big(path: &Path, size: u64) {
    use std::io::Write;
    let mut file = File::create(path).unwrap();
    let mut piece = content("big", 1 << 20);
    for number in 0..size >> 20 {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&piece).unwrap();
    }
    let rest = usize::try_from(size % (1 << 20)).unwrap();
    file.write_all(&piece[..rest]).unwrap();
}

fn over_ssh(ctx: &Ctx, copying: Copying) {
    let meter = TcpMeter::new(&ctx.lab.server);
    make_big(&ctx.behind.join("source"), size(ctx));
    let mut plan = ctx
        .plan()
        .port(meter.port)
        .known_hosts(meter.known_hosts(&ctx.lab.server, &ctx.lab.dir));
    if copying == Copying::Cow {
        plan = plan.option("copy_is_hardlink=cow");
    }
    let mount = plan.mount().unwrap();
    fs::metadata(mount.at().join("source")).unwrap();
    let (before, started) = (meter.bytes(), Instant::now());
    cp(&mount.at().join("source"), &mount.at().join("copy"));
    let (bytes, took) = (meter.bytes() - before, started.elapsed());
    // By the server's own cp, to compare with.
    let started = Instant::now();
    cp(&ctx.behind.join("source"), &ctx.behind.join("local"));
    let local = started.elapsed();
    ctx.note(format!(
        "cp of {} MiB, copy_is_hardlink={}: {bytes} bytes over SSH, {took:.2?}; the server's own cp: {local:.2?}",
        size(ctx) >> 20,
        copying.word()
    ));
    mount.unmount().unwrap();
    let linked = inode(&ctx.behind.join("source")) == inode(&ctx.behind.join("copy"));
    assert_eq!(linked, copying == Copying::Cow, "one file on the server");
    let equal = crate::process::run(
        std::process::Command::new("cmp")
            .arg(ctx.behind.join("source"))
            .arg(ctx.behind.join("copy")),
        Duration::from_secs(60),
    );
    assert!(equal.ok(), "{}", equal.said());
    assert!(bytes < BYTES_MAX, "{bytes} bytes over SSH");
}

fn a_linked_copy_sends_little_over_ssh(ctx: &Ctx) {
    over_ssh(ctx, Copying::Cow);
}

fn a_copy_by_the_server_sends_little_over_ssh(ctx: &Ctx) {
    over_ssh(ctx, Copying::Off);
}

/// Copies with a latency that keeps apart what waits and what does not; gives round trips.
fn trips(ctx: &Ctx, copying: Copying, size: u64) -> u64 {
    make_big(&ctx.behind.join("source"), size);
    let manner = Manner {
        latency: LATENCY,
        ..Manner::default()
    };
    let site = Site::new(ctx, copying, manner);
    // As a shell does that completes the name; a copy of what nobody has looked at takes one more.
    fs::metadata(site.dir.join("source")).unwrap();
    site.wire().reset();
    let started = Instant::now();
    cp(&site.dir.join("source"), &site.dir.join("copy"));
    let took = started.elapsed();
    let counts = site.wire().counts();
    let by_time = took.as_secs_f64() / LATENCY.as_secs_f64();
    ctx.note(format!(
        "cp of {} KiB, copy_is_hardlink={}: {} round trips ({by_time:.1} times the latency), {} bytes, {:?}",
        size >> 10,
        copying.word(),
        counts.trips,
        counts.bytes(),
        counts.requests
    ));
    let linked = inode(&site.behind.join("source")) == inode(&site.behind.join("copy"));
    assert_eq!(linked, copying == Copying::Cow, "one file on the server");
    assert_eq!(counts.of(COPY_DATA) > 0, copying == Copying::Off);
    assert!(counts.bytes() < BYTES_MAX, "{} bytes", counts.bytes());
    site.end();
    counts.trips
}

fn a_linked_copy_takes_few_round_trips(ctx: &Ctx) {
    let trips = trips(ctx, Copying::Cow, size(ctx));
    assert!(trips <= TRIPS_MAX, "{trips} round trips");
}

fn a_copy_by_the_server_takes_few_round_trips(ctx: &Ctx) {
    // Each piece of a long copy is asked for and looked at, so what counts is bytes, as for SSH.
    let trips = trips(ctx, Copying::Off, 8 << 20);
    assert!(trips <= 2 * TRIPS_MAX, "{trips} round trips");
}

fn a_small_copy_takes_few_round_trips(ctx: &Ctx) {
    let trips = trips(ctx, Copying::Cow, 70_000);
    assert!(trips <= TRIPS_MAX, "{trips} round trips");
}

/// Long against what this machine needs to answer.
const LATENCY: Duration = Duration::from_millis(40);
