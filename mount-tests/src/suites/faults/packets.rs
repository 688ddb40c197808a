//! One cut, at each packet of the session in turn: before the server gets a request, or after it
//! did what was asked and before its answer comes back.

use std::fs;
use std::path::Path;

use super::look::{Links, Tree, look, same, without_links};
use super::place::{Kind, Net, Place};
use super::session;
use super::watch::{BACK_OFF, watched};
use crate::case::Ctx;
use crate::wire::{Way, Which};

/// The session goes on, whichever request is lost with its connection.
pub(super) fn a_cut_before_any_request_is_no_error(ctx: &Ctx) {
    cut_each(ctx, Kind::Wire, Way::Up);
}

/// The same for the answers: what was done is neither done twice nor said to have failed.
pub(super) fn a_cut_before_any_answer_is_no_error(ctx: &Ctx) {
    cut_each(ctx, Kind::Wire, Way::Down);
}

/// The same with a real sshd and TCP: the cut comes somewhere between two bytes.
pub(super) fn a_reset_after_any_byte_sent_is_no_error(ctx: &Ctx) {
    cut_each(ctx, Kind::Tcp, Way::Up);
}

/// And of what comes back.
pub(super) fn a_reset_after_any_byte_received_is_no_error(ctx: &Ctx) {
    cut_each(ctx, Kind::Tcp, Way::Down);
}

fn cut_each(ctx: &Ctx, kind: Kind, way: Way) {
    let expected = plain(ctx);
    let mut place = Place::new(ctx, kind);
    if !place.is_mount() {
        // It is the same each time.
        one(&mut place, &ctx.dir, &ctx.behind, &expected, "plain");
        return;
    }
    // So many packets, or bytes, has a session that nothing interrupts.
    let len = measure(&mut place, way, &expected);
    let runs = match (kind, ctx.full) {
        (Kind::Wire, true) => len,
        (Kind::Tcp, true) => FULL_RESETS,
        (Kind::Wire, false) => SAMPLE,
        (Kind::Tcp, false) => SAMPLE / 2,
    };
    let step = (len / runs.max(1)).max(1);
    let (mut at, mut cuts) = (1 + ctx.seed % step, 0);
    // For whoever looks into a failure: FAULTS_FROM=700.
    let from = std::env::var("FAULTS_FROM").ok();
    if let Some(from) = from.and_then(|from| from.parse().ok()) {
        at = from;
    }
    let wanted = len.min(runs).min(len.saturating_sub(at) / step) * 2 / 3;
    while at <= len {
        if cuts > 0 && cuts % REMOUNT_AFTER == 0 {
            place.end(ctx);
            place = Place::new(ctx, kind);
        }
        let which = if cuts % 2 == 0 {
            Which::All
        } else {
            Which::One
        };
        if cut_at(&mut place, way, at, which, &expected) {
            cuts += 1;
        }
        // Not always the same ones between two multiples.
        at += step;
    }
    ctx.note(format!("{cuts} cuts at every {step} of {len}"));
    assert!(cuts >= wanted, "only {cuts} cuts in {len}");
    place.end(ctx);
}

/// What the session makes on a plain directory.
pub(super) fn plain(ctx: &Ctx) -> Tree {
    let dir = ctx.lab.fresh("plain");
    fs::create_dir(&dir).unwrap();
    session::prepare(&dir);
    let mut place = Place::at(&on_directory(ctx), Kind::Wire, &dir, &[]);
    let its_dir = dir.clone();
    watched(&mut place, "a plain directory", BACK_OFF, move |steps| {
        session::run(&its_dir, steps)
    });
    let tree = look(&dir, Links::Counted).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    tree
}

fn on_directory(ctx: &Ctx) -> Ctx {
    Ctx {
        on_mount: false,
        ..ctx.clone()
    }
}

fn measure(place: &mut Place, way: Way, expected: &Tree) -> u64 {
    let counted = |place: &Place| match place.net() {
        Net::Wire(wire) => {
            let counts = wire.counts();
            match way {
                Way::Up => counts.packets_up,
                Way::Down => counts.packets_down,
            }
        }
        Net::Tcp(relay) => relay.bytes_this_way(way),
    };
    let before = counted(place);
    let name = "uncut";
    let (dir, behind) = (place.dir.join(name), place.behind.join(name));
    one(place, &dir, &behind, expected, name);
    counted(place) - before
}

/// Whether it came to the cut.
fn cut_at(place: &mut Place, way: Way, at: u64, which: Which, expected: &Tree) -> bool {
    let name = format!("{way:?}-{at}");
    let (dir, behind) = (place.dir.join(&name), place.behind.join(&name));
    let before = place.net().connections();
    fs::create_dir(&behind).unwrap();
    session::prepare(&behind);
    place.net().plan_cut(way, at, which);
    let what = format!("cut {way:?} at {at} ({which:?})");
    one(place, &dir, &behind, expected, &what);
    let was_cut = place.net().has_happened();
    // One for data that was cut alone is replaced only when there is much data again.
    if was_cut && which == Which::All && place.net().connections() == before {
        place.fail(&format!("{what}: cut, and never connected again"));
    }
    was_cut
}

/// Runs the session once and looks at what it made.
fn one(place: &mut Place, dir: &Path, behind: &Path, expected: &Tree, what: &str) {
    if !behind.join("many").exists() {
        fs::create_dir_all(behind).unwrap();
        session::prepare(behind);
    }
    let (its_dir, its_expected, is_mount) = (dir.to_owned(), expected.clone(), place.is_mount());
    watched(place, what, BACK_OFF, move |steps| {
        session::run(&its_dir, steps)?;
        if is_mount {
            steps.next("look at everything in the mount");
            let seen = look(&its_dir, Links::Ignored)?;
            same("in the mount", &without_links(&its_expected), &seen)?;
        }
        Ok(())
    });
    let found =
        look(behind, Links::Counted).and_then(|found| same("on the server", expected, &found));
    let left = if place.is_mount() {
        place.nothing_left()
    } else {
        Ok(())
    };
    if let Err(why) = found.and(left) {
        place.fail(&format!("{what}: {why}"));
    }
    if place.is_mount() {
        fs::remove_dir_all(behind).unwrap();
    }
}

/// Cuts of one way in a run that is not full.
const SAMPLE: u64 = 16;
/// There are far more bytes than packets.
const FULL_RESETS: u64 = 150;
/// A mount lives through so many of them.
const REMOUNT_AFTER: u64 = 25;
