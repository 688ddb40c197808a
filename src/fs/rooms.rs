//! Two kinds of work that must not meet: names are moved, or files are opened again by their names.
//! Many of one kind may be at work together.
//!
//! A guard is held while the server is waited for; none of the two kinds of work waits for the
//! other but here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Who is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// rename(2), unlink(2).
    MovingNames,
    /// By the names that are known.
    OpeningAgain,
}

#[derive(Default)]
pub(super) struct Rooms {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Default)]
struct Inside {
    moving: u32,
    opening: u32,
}

impl Inside {
    const fn of(&mut self, work: Work) -> (&mut u32, &mut u32) {
        match work {
            Work::MovingNames => (&mut self.moving, &mut self.opening),
            Work::OpeningAgain => (&mut self.opening, &mut self.moving),
        }
    }
}

/// Somebody is at work, until this goes.
pub(super) struct Inmate<'a>(&'a Rooms, Work);

impl Rooms {
    /// Waits until nobody is at work of the other kind.
    pub(super) async fn enter(&self, work: Work) -> Inmate<'_> {
        loop {
            let left = self.left.notified();
            if self.has_entered(work) {
                return Inmate(self, work);
            }
            left.await;
        }
    }

    fn has_entered(&self, work: Work) -> bool {
        let mut inside = self.inside();
        let (ours, others) = inside.of(work);
        if *others > 0 {
            return false;
        }
        *ours += 1;
        true
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inmate<'_> {
    fn drop(&mut self) {
        let mut inside = self.0.inside();
        let (ours, _) = inside.of(self.1);
        *ours -= 1;
        let is_empty = *ours == 0;
        drop(inside);
        if is_empty {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn those_of_one_kind_work_together_and_the_others_wait() {
        let rooms = Rooms::default();
        let one = rooms.enter(Work::MovingNames).now_or_never().unwrap();
        let other = rooms.enter(Work::MovingNames).now_or_never().unwrap();
        let mut waits = Box::pin(rooms.enter(Work::OpeningAgain));
        assert!((&mut waits).now_or_never().is_none());
        drop(one);
        assert!((&mut waits).now_or_never().is_none());
        drop(other);
        assert!((&mut waits).now_or_never().is_some());
    }
}
