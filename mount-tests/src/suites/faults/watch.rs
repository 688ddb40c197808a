//! Work that must not hang: done in a thread of its own, step by step, each with a deadline.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::place::Place;

/// Where the work is.
#[derive(Clone)]
pub(super) struct Steps(Arc<Mutex<Step>>);

struct Step {
    what: String,
    since: Instant,
    /// How long it was, and what it did.
    longest: (Duration, String),
}

impl Step {
    fn note(&mut self) {
        let took = self.since.elapsed();
        if took > self.longest.0 {
            self.longest = (took, self.what.clone());
        }
    }
}

impl Steps {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Step {
            what: "the start".into(),
            since: Instant::now(),
            longest: (Duration::ZERO, String::new()),
        })))
    }

    /// The next step begins, with a deadline of its own.
    pub(super) fn next(&self, what: impl Display) {
        let mut step = self.lock();
        step.note();
        step.what = what.to_string();
        step.since = Instant::now();
    }

    /// The longest step, the current one included.
    pub(super) fn longest(&self) -> (Duration, String) {
        let mut step = self.lock();
        step.note();
        step.longest.clone()
    }

    fn now(&self) -> (String, Duration) {
        let step = self.lock();
        (step.what.clone(), step.since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the work. Where it fails or hangs the case fails, with what the daemon said; a hung thread
/// ends with the daemon, which is killed.
#[track_caller]
pub(super) fn watched(
    place: &mut Place,
    what: &str,
    limit: Duration,
    work: impl FnOnce(&Steps) -> Result<(), String> + Send + 'static,
) {
    if let Err(why) = attempted(place, limit, work) {
        place.fail(&format!("{what}: {why}"));
    }
}

/// The same, told instead of failing; where it hung the mount is dead.
pub(super) fn attempted(
    place: &mut Place,
    limit: Duration,
    work: impl FnOnce(&Steps) -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let steps = Steps::new();
    let its_steps = steps.clone();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let result = work(&its_steps);
        let (step, _) = its_steps.now();
        // Nobody listens any more after the deadline.
        let _ = done.send(result.map_err(|why| format!("{step}: {why}")));
    });
    loop {
        match ended.recv_timeout(Duration::from_millis(100)) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("the work panicked".into()),
            Err(mpsc::RecvTimeoutError::Timeout) => (),
        }
        let (step, age) = steps.now();
        if age > limit {
            let diagnosis = place.diagnosis();
            place.kill();
            // The threads that hung have their error now.
            let _ = ended.recv_timeout(Duration::from_secs(5));
            return Err(format!("{step}: {HUNG} {limit:?}{diagnosis}"));
        }
    }
}

/// Results that say what failed.
pub(super) trait Told<T> {
    /// With what was done, to what.
    fn told(self, what: impl Display) -> Result<T, String>;
}

impl<T> Told<T> for io::Result<T> {
    fn told(self, what: impl Display) -> Result<T, String> {
        self.map_err(|why| format!("{what}: {why}"))
    }
}

impl<T> Told<T> for nix::Result<T> {
    fn told(self, what: impl Display) -> Result<T, String> {
        self.map_err(|why| format!("{what}: {why}"))
    }
}

/// Says what is not so.
pub(super) fn hold(is_so: bool, what: impl Display) -> Result<(), String> {
    if is_so {
        Ok(())
    } else {
        Err(format!("{WRONG}: {what}"))
    }
}

/// Begins what is said of a result that is not as it should be, and of which no program was told.
pub(super) const WRONG: &str = "wrong, and no error told";

/// The longest wait between two tries of a mount to reach its server is 30 s; a try and what
/// follows from it come on top.
pub(super) const BACK_OFF: Duration = Duration::from_secs(60);

/// Is in what is said of a step that took too long.
pub(super) const HUNG: &str = "hung for";
