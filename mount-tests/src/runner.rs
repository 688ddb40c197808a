//! Runs the cases one after the other, each in a thread of its own with a deadline; a case that
//! hangs is a failure, and its mount is broken so that nothing hangs for ever.

use std::any::Any;
use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::case::{Case, Ctx, Places, Skipped, Suite, Ways};
use crate::lab::Lab;
use crate::mount::{Mount, Transport};
use crate::process;
use crate::report::{Report, Verdict};

/// What to run and where.
pub struct Choice {
    /// Suites, or `suite::part of a case's name`; all if empty.
    pub wanted: Vec<String>,
    /// None: what each suite wants for itself.
    pub transports: Option<Vec<Transport>>,
    /// Whether to run on mounts.
    pub on_mount: bool,
    /// Whether to run on a plain directory.
    pub on_directory: bool,
    /// For random choices.
    pub seed: u64,
    /// Take the time a thorough run needs.
    pub full: bool,
}

impl Choice {
    /// Whether this case was asked for.
    pub fn takes(&self, suite: &str, case: &str) -> bool {
        self.wanted.is_empty()
            || self
                .wanted
                .iter()
                .any(|wanted| match wanted.split_once("::") {
                    None => wanted == suite,
                    Some((wanted_suite, part)) => wanted_suite == suite && case.contains(part),
                })
    }
}

/// Runs everything chosen.
pub fn run(lab: &Arc<Lab>, suites: &[Suite], choice: &Choice, report: &mut Report) {
    keep_panics_for_the_report();
    for suite in suites {
        let cases: Vec<&Case> = suite
            .cases
            .iter()
            .filter(|case| choice.takes(suite.name, &case.name))
            .collect();
        if choice.on_directory {
            let cases: Vec<&Case> = cases
                .iter()
                .filter(|case| case.places == Places::Both)
                .copied()
                .collect();
            run_on(lab, None, suite.name, &cases, choice, report);
        }
        if choice.on_mount {
            let default = if suite.every_transport && lab.program.is_sftpfs() {
                Transport::ALL.to_vec()
            } else {
                vec![Transport::Auto]
            };
            let transports = choice.transports.as_ref().unwrap_or(&default);
            for (index, transport) in transports.iter().enumerate() {
                let cases: Vec<&Case> = cases
                    .iter()
                    .filter(|case| goes(case, *transport, index == 0))
                    .copied()
                    .collect();
                run_on(lab, Some(*transport), suite.name, &cases, choice, report);
            }
        }
    }
}

/// Whether a case is about this transport at all.
fn goes(case: &Case, transport: Transport, first: bool) -> bool {
    match case.ways {
        Ways::Any => true,
        Ways::Ssh => transport != Transport::Command,
        Ways::Once => first,
    }
}

/// Runs cases at one place: a mount with a transport, or a plain directory.
fn run_on(
    lab: &Arc<Lab>,
    transport: Option<Transport>,
    suite: &str,
    cases: &[&Case],
    choice: &Choice,
    report: &mut Report,
) {
    let place = transport.map_or_else(|| "directory".into(), |way| format!("mount/{way}"));
    let mut mount = None;
    for case in cases {
        if process::is_ending() {
            // The signal's thread ends the program; until then nothing new is begun.
            std::thread::park();
        }
        let name = format!("{suite}::{}", case.name);
        let started = Instant::now();
        let verdict = match prepare(lab, transport, &mut mount, case, choice) {
            Err(why) => Verdict::Failed(why),
            Ok(ctx) => {
                let before = process::children();
                let (verdict, hung) = run_case(case, &ctx);
                let failed = matches!(verdict, Verdict::Failed(_));
                if failed && hangs_on(&before) || hung {
                    mount.take().into_iter().for_each(Mount::abort);
                }
                remove(&ctx.behind);
                verdict
            }
        };
        report.add(&place, &name, started.elapsed(), verdict);
    }
    if let Some(mount) = mount {
        let started = Instant::now();
        let verdict = mount
            .unmount()
            .map_or_else(Verdict::Failed, |()| Verdict::Passed);
        let name = format!("{suite}::the_mount_ends_cleanly_after_all_cases");
        report.add(&place, &name, started.elapsed(), verdict);
    }
}

/// Sees to it that there is a mount, and an empty directory on it.
fn prepare(
    lab: &Arc<Lab>,
    transport: Option<Transport>,
    mount: &mut Option<Mount>,
    case: &Case,
    choice: &Choice,
) -> Result<Ctx, String> {
    let (dir, behind) = match transport {
        None => {
            let dir = lab.fresh("plain/case");
            (dir.clone(), dir)
        }
        Some(_) if case.places == Places::Mount => {
            // It mounts by itself.
            let dir = lab.fresh("export/case");
            (dir.clone(), dir)
        }
        Some(transport) => {
            if mount.as_ref().is_some_and(|mount| !answers(mount)) {
                mount.take().into_iter().for_each(Mount::abort);
            }
            if mount.is_none() {
                *mount = Some(lab.plan(transport, &lab.export()).mount()?);
            }
            let behind = lab.fresh("export/case");
            let name = behind.file_name().unwrap_or_default().to_owned();
            let at = mount.as_ref().map(|mount| mount.at().join(name));
            (at.unwrap_or_default(), behind)
        }
    };
    // Through the mount, which may know for some time yet that there was none on the server.
    fs::create_dir(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    Ok(Ctx {
        dir,
        behind,
        on_mount: transport.is_some(),
        transport: transport.unwrap_or(Transport::Auto),
        seed: choice.seed,
        full: choice.full,
        lab: Arc::clone(lab),
    })
}

/// Whether the mount still answers: asked by another process, as it may hang.
fn answers(mount: &Mount) -> bool {
    let mut stat = Command::new("stat");
    process::run(
        stat.arg("--file-system").arg(mount.at()),
        Duration::from_secs(10),
    )
    .ok()
}

/// Runs one case in its thread; whether that thread still hangs is told, too.
fn run_case(case: &Case, ctx: &Ctx) -> (Verdict, bool) {
    let (done, ended) = mpsc::channel();
    let (run, its_ctx) = (Arc::clone(&case.run), ctx.clone());
    let thread = std::thread::Builder::new()
        .name(case.name.clone())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| run(&its_ctx)));
            // Nobody listens any more after the deadline.
            let _ = done.send(result.map_err(|payload| verdict_of(payload.as_ref())));
        });
    if let Err(why) = thread {
        return (Verdict::Failed(format!("no thread: {why}")), false);
    }
    match ended.recv_timeout(case.limit) {
        Ok(Ok(())) => (Verdict::Passed, false),
        Ok(Err(verdict)) => (verdict, false),
        Err(_) => (
            Verdict::Failed(format!("hung: no end within {:?}", case.limit)),
            true,
        ),
    }
}

/// Whether a failed case has left processes that do not end even when killed: they wait for an
/// answer of the mount, which only its daemon's end gives them.
fn hangs_on(before: &[(i32, String)]) -> bool {
    let new = || {
        let all = process::children().into_iter();
        all.filter(|child| !before.contains(child))
            .collect::<Vec<_>>()
    };
    for (pid, _) in new() {
        process::signal(pid, Signal::SIGKILL);
    }
    let end = Instant::now() + Duration::from_secs(1);
    process::wait_for(end, || new().is_empty().then_some(())).is_none()
}

fn verdict_of(payload: &(dyn Any + Send)) -> Verdict {
    if let Some(Skipped(reason)) = payload.downcast_ref() {
        return Verdict::Skipped(reason.clone());
    }
    let text = LAST_PANIC.with(|last| last.take());
    Verdict::Failed(if text.is_empty() {
        "panicked".into()
    } else {
        text
    })
}

/// The report tells what a panic said; the standard error would tell it a second time.
fn keep_panics_for_the_report() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let short = place
            .rsplit_once("src/")
            .map_or(place.as_str(), |(_, short)| short);
        LAST_PANIC.with(|last| last.replace(format!("{short}: {text}")));
    }));
}

/// Removes a case's directory from behind, which works even if its mount is broken.
fn remove(behind: &PathBuf) {
    // What a case leaves unremovable is removed with the lab.
    let _ = fs::remove_dir_all(behind);
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}
