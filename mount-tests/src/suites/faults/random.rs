//! Connections that are cut again and again, at random moments, while programs work.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::random::Random;
use super::super::tools;
use super::place::{Kind, Net, Place};
use super::watch::{Steps, watched};
use super::works::{Arena, PROGRAM_MAX, Sources, WORKS, Work};
use crate::case::{Case, Ctx, case};
use crate::wire::Which;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (kind, through) in [(Kind::Wire, "packets"), (Kind::Tcp, "tcp")] {
        for work in &WORKS {
            let name = format!("{}_is_right_under_random_cuts_of_{through}", work.name);
            all.push(
                case(move |ctx| under_cuts(ctx, kind, &[*work], SHORT))
                    .called(name)
                    .within_s(900),
            );
        }
    }
    all.push(case(a_thousand_random_cuts_change_no_byte).within_s(7200));
    all
}

fn a_thousand_random_cuts_change_no_byte(ctx: &Ctx) {
    if !ctx.full {
        ctx.skip("takes half an hour: --full");
    }
    under_cuts(ctx, Kind::Tcp, &WORKS, LONG);
}

/// How long it goes on.
#[derive(Clone, Copy)]
struct Measure {
    /// Works are done again until there were so many cuts.
    cuts: u64,
    /// Or until so many rounds were done.
    rounds: u64,
}

/// Does the works one after the other, again and again, until there were enough cuts.
fn under_cuts(ctx: &Ctx, kind: Kind, works: &[Work], measure: Measure) {
    let sources = sources(ctx, works);
    let mut place = Place::new(ctx, kind);
    let cuts = Arc::new(AtomicU64::new(0));
    let net = place.net.clone();
    let cutter = net
        .as_ref()
        .map(|net| Cutter::start(Arc::clone(net), ctx.seed, Arc::clone(&cuts)));
    let (mut round, mut longest) = (0, Duration::ZERO);
    let started = Instant::now();
    loop {
        for work in works {
            let seed = ctx.seed.wrapping_add(round * 1000);
            let what = format!(
                "{} (seed {seed}) after {} cuts",
                work.name,
                cuts.load(Ordering::SeqCst)
            );
            let took = one_work(&mut place, *work, &sources, seed, &what);
            longest = longest.max(took);
        }
        round += 1;
        let enough = cuts.load(Ordering::SeqCst) >= measure.cuts || round >= measure.rounds;
        if cutter.is_none() || enough {
            break;
        }
    }
    let Some(cutter) = cutter else { return };
    cutter.stop();
    let (cuts, took) = (cuts.load(Ordering::SeqCst), started.elapsed());
    let connections = net.as_ref().map_or(0, |net| net.connections());
    ctx.note(format!(
        "{cuts} cuts in {took:.0?}, {round} rounds, {connections} connections; the longest step \
         took {longest:.1?}"
    ));
    if cuts < measure.cuts {
        place.fail(&format!(
            "only {cuts} cuts in {round} rounds: this proves nothing"
        ));
    }
    place.end(ctx);
}

/// Does one work in a directory of its own; the longest that one of its steps took.
fn one_work(place: &mut Place, work: Work, sources: &Sources, seed: u64, what: &str) -> Duration {
    let name = format!("{}-{seed}", work.name);
    let arena = Arena {
        dir: place.dir.join(&name),
        behind: place.behind.join(&name),
        sources: sources.clone(),
        seed,
    };
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let its_longest = Arc::clone(&longest);
    let its_arena = arena.clone();
    // A step may be a whole program.
    watched(
        place,
        what,
        PROGRAM_MAX + Duration::from_secs(10),
        move |steps: &Steps| {
            steps.next("mkdir");
            fs::create_dir(&its_arena.dir).map_err(|why| why.to_string())?;
            let done = (work.run)(&its_arena, steps);
            *its_longest.lock().unwrap_or_else(PoisonError::into_inner) = steps.longest();
            done
        },
    );
    if let Err(why) = fs::remove_dir_all(&arena.behind) {
        place.fail(&format!("{what}: {why}"));
    }
    *longest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the works need; only what these need.
fn sources(ctx: &Ctx, works: &[Work]) -> Sources {
    let scratch = ctx.lab.fresh("scratch");
    fs::create_dir(&scratch).unwrap();
    let fsx = works
        .iter()
        .any(|work| work.name == "fsx")
        .then(|| tools::installed(ctx, "fsx", "0.3.2"));
    // Real files that every checkout has.
    let from = ctx.lab.source.join("src");
    Sources::make(&scratch, &from, fsx).unwrap()
}

/// Cuts until it is stopped.
pub(super) struct Cutter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Cutter {
    /// Cuts every 50 to 500 ms, all connections or one; only what was there to be cut is counted.
    pub(super) fn start(net: Arc<Net>, seed: u64, cuts: Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = Arc::clone(&stop);
        let mut random = Random::new(seed ^ 0xc07);
        let thread = std::thread::spawn(move || {
            while !its_stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50 + random.below(451)));
                let which = *random.pick(&[Which::All, Which::One]);
                if net.cut_now(which, random.next()) > 0 {
                    cuts.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
    }
}

/// Every work meets several.
const SHORT: Measure = Measure {
    cuts: 8,
    rounds: 30,
};
const LONG: Measure = Measure {
    cuts: 1000,
    rounds: 200,
};
