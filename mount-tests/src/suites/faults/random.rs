//! Connections that are cut again and again, at random moments, while programs work.

use std::fs;
use std::ops::Range;
use std::path::Path;
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
use crate::process;
use crate::wire::Which;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (kind, through) in [(Kind::Wire, "packets"), (Kind::Tcp, "tcp")] {
        for work in &WORKS {
            let name = format!("{}_is_right_under_random_cuts_of_{through}", work.name);
            // What is cut matters less than that it is; both have all works with --full.
            let long = kind == Kind::Tcp && !IN_SHORT.contains(&work.name);
            all.push(
                case(move |ctx| {
                    if long && !ctx.full {
                        ctx.skip("with packets it is tried, with TCP only with --full");
                    }
                    under_cuts(ctx, kind, &[*work], SHORT);
                })
                .called(name)
                .within_s(900),
            );
        }
    }
    for (kind, through) in [(Kind::Tcp, "tcp"), (Kind::Wire, "packets")] {
        let name = format!("a_thousand_random_cuts_of_{through}_change_no_byte");
        all.push(
            case(move |ctx| {
                if !ctx.full {
                    ctx.skip("takes half an hour: --full");
                }
                under_cuts(ctx, kind, &WORKS, LONG);
            })
            .called(name)
            .within_s(7200),
        );
    }
    all
}

/// How long it goes on.
#[derive(Clone, Copy)]
pub(super) struct Measure {
    /// Works are done again until there were so many cuts.
    pub(super) cuts: u64,
    /// Or until so many rounds were done.
    pub(super) rounds: u64,
}

fn under_cuts(ctx: &Ctx, kind: Kind, works: &[Work], measure: Measure) {
    let place = Place::new(ctx, kind);
    let Some(net) = place.net.clone() else {
        return under(ctx, place, works, measure, PAUSE, |_| false);
    };
    let login = net.login();
    under(ctx, place, works, measure, PAUSE, move |random| {
        cut(&net, login, random)
    });
}

/// Cuts all connections, or one. With SSH the pause until the next cut begins with the end of a
/// login, or a machine that is busy would never see a connection; some cuts come into a login.
pub(super) fn cut(net: &Net, login: u64, random: &mut Random) -> bool {
    let which = *random.pick(&[Which::All, Which::One]);
    let was_cut = net.cut_now(which, random.next()) > 0;
    if random.below(8) > 0 {
        let end = Instant::now() + LOGIN_MAX;
        process::wait_for(end, || net.is_logged_in(login).then_some(()));
    }
    was_cut
}

/// Does the works one after the other, again and again, until there were enough faults; each is
/// made by `fault`, which says whether it struck anything, after a pause of so many milliseconds.
pub(super) fn under(
    ctx: &Ctx,
    mut place: Place,
    works: &[Work],
    measure: Measure,
    pause: Range<u64>,
    fault: impl FnMut(&mut Random) -> bool + Send + 'static,
) {
    let sources = sources(ctx, works);
    for work in works {
        match super::fio::lacking(&sources, work.name) {
            Some(why) if works.len() == 1 => {
                drop(place);
                ctx.skip(why);
            }
            Some(why) => ctx.note(format!("without {}: {why}", work.name)),
            None => (),
        }
    }
    let faults = Arc::new(AtomicU64::new(0));
    let cutter = place
        .is_mount()
        .then(|| Cutter::start(ctx.seed, Arc::clone(&faults), pause, fault));
    let (mut round, mut longest) = (0, (Duration::ZERO, String::new()));
    let started = Instant::now();
    loop {
        for work in works {
            let seed = ctx.seed.wrapping_add(round * 1000);
            let what = format!(
                "{} (seed {seed}) after {} faults",
                work.name,
                faults.load(Ordering::SeqCst)
            );
            let took = one_work(&mut place, *work, &sources, seed, &what);
            longest = longest.max((took.0, format!("{}, {}", work.name, took.1)));
        }
        round += 1;
        if measure.cuts >= LONG.cuts && cutter.is_some() {
            ctx.note(format!(
                "{} faults after {:.0?}, round {round}",
                faults.load(Ordering::SeqCst),
                started.elapsed()
            ));
        }
        let enough = faults.load(Ordering::SeqCst) >= measure.cuts || round >= measure.rounds;
        if cutter.is_none() || enough {
            break;
        }
    }
    let Some(cutter) = cutter else { return };
    cutter.stop();
    let (faults, took) = (faults.load(Ordering::SeqCst), started.elapsed());
    let connections = place.net.as_ref().map_or(0, |net| net.connections());
    ctx.note(format!(
        "{faults} faults in {took:.0?}, {round} rounds, {connections} connections; the longest \
         step took {:.1?}: {}",
        longest.0, longest.1
    ));
    if faults < measure.cuts {
        place.fail(&format!(
            "only {faults} faults in {round} rounds: this proves nothing"
        ));
    }
    place.end(ctx);
}

/// Does one work in a directory of its own; gives its longest step.
fn one_work(
    place: &mut Place,
    work: Work,
    sources: &Sources,
    seed: u64,
    what: &str,
) -> (Duration, String) {
    let mut arena = arena(&place.behind, &work, sources, seed);
    if let Some(name) = arena.behind.file_name() {
        arena.dir = place.dir.join(name);
    }
    let longest = Arc::new(Mutex::new((Duration::ZERO, String::new())));
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
    longest
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Where a work is done that is run once with this seed, on a plain directory.
pub(super) fn arena(behind: &Path, work: &Work, sources: &Sources, seed: u64) -> Arena {
    let dir = behind.join(format!("{}-{seed}", work.name));
    Arena {
        behind: dir.clone(),
        dir,
        sources: sources.clone(),
        seed,
    }
}

/// What the works need; only what these need.
pub(super) fn sources(ctx: &Ctx, works: &[Work]) -> Sources {
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

/// Makes faults until it is stopped, or dropped.
pub(super) struct Cutter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cutter {
    /// After each pause of so many milliseconds; only faults that struck something are counted.
    pub(super) fn start(
        seed: u64,
        faults: Arc<AtomicU64>,
        pause: Range<u64>,
        mut fault: impl FnMut(&mut Random) -> bool + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = Arc::clone(&stop);
        let mut random = Random::new(seed ^ 0xc07);
        let thread = std::thread::spawn(move || {
            loop {
                let length = pause.end.saturating_sub(pause.start).max(1);
                std::thread::sleep(Duration::from_millis(pause.start + random.below(length)));
                if its_stop.load(Ordering::SeqCst) {
                    return;
                }
                if fault(&mut random) {
                    faults.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    pub(super) fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Milliseconds between two cuts.
pub(super) const PAUSE: Range<u64> = 50..501;
/// After so long the next cut comes, whether there is a connection or not.
const LOGIN_MAX: Duration = Duration::from_secs(5);
/// Every work meets several.
pub(super) const SHORT: Measure = Measure {
    cuts: 6,
    rounds: 30,
};
const LONG: Measure = Measure {
    cuts: 1000,
    rounds: 200,
};
/// Works whose connections are also cut between any two bytes, in a run that is not full.
const IN_SHORT: [&str; 4] = [
    "git_clone",
    "verified_writes",
    "an_appending_logger",
    "names",
];
