//! Two kinds of work that must not meet: names are moved, or files are opened again by their names.
//! Many of one kind may be at work together.
//!
//! Who came first is let in first, so that an unending stream of one kind keeps nobody of the other
//! waiting for ever. A lock for readers and writers would not do: both kinds are many at once, as `rm -rf`
//! removes many names in one round trip.
//!
//! A guard is held while the server is waited for; none of the two kinds of work waits for the
//! other but here.

use std::collections::VecDeque;
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
    /// Rung when somebody who waits may be let in.
    changed: Notify,
}

#[derive(Default)]
struct Inside {
    moving: u32,
    opening: u32,
    /// Who waits, in the order in which they came.
    queue: VecDeque<(u64, Work)>,
    last: u64,
}

impl Inside {
    const fn of(&mut self, work: Work) -> (&mut u32, &mut u32) {
        match work {
            Work::MovingNames => (&mut self.moving, &mut self.opening),
            Work::OpeningAgain => (&mut self.opening, &mut self.moving),
        }
    }

    /// Lets somebody in, if nobody of the other kind is inside or came before.
    fn let_in(&mut self, work: Work, came_before: usize) -> bool {
        let is_turn = self
            .queue
            .iter()
            .take(came_before)
            .all(|(_, other)| *other == work);
        let (ours, others) = self.of(work);
        let may = is_turn && *others == 0;
        *ours += u32::from(may);
        may
    }
}

/// Somebody is at work, until this goes.
pub(super) struct Inmate<'a>(&'a Rooms, Work);

/// Somebody waits; gone also when the wait is given up.
struct Waiting<'a> {
    rooms: &'a Rooms,
    number: u64,
    work: Work,
}

impl Rooms {
    /// Waits until nobody is at work of the other kind, nor has waited for longer.
    pub(super) async fn enter(&self, work: Work) -> Inmate<'_> {
        let Some(waiting) = self.enter_or_wait(work) else {
            return Inmate(self, work);
        };
        loop {
            let changed = self.changed.notified();
            if waiting.is_let_in() {
                return Inmate(self, work);
            }
            changed.await;
        }
    }

    /// `None`: who asks is inside.
    fn enter_or_wait(&self, work: Work) -> Option<Waiting<'_>> {
        let mut inside = self.inside();
        if inside.let_in(work, usize::MAX) {
            return None;
        }
        inside.last += 1;
        let number = inside.last;
        inside.queue.push_back((number, work));
        Some(Waiting {
            rooms: self,
            number,
            work,
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    fn is_let_in(&self) -> bool {
        let mut inside = self.rooms.inside();
        let before = inside
            .queue
            .iter()
            .take_while(|(number, _)| *number != self.number);
        let before = before.count();
        inside.let_in(self.work, before)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.rooms
            .inside()
            .queue
            .retain(|(number, _)| *number != self.number);
        // Those behind may be let in now.
        self.rooms.changed.notify_waiters();
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
            self.0.changed.notify_waiters();
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

    #[test]
    fn who_waits_is_let_in_before_those_who_came_later() {
        let rooms = Rooms::default();
        let opening = rooms.enter(Work::OpeningAgain).now_or_never().unwrap();
        let mut mover = Box::pin(rooms.enter(Work::MovingNames));
        assert!((&mut mover).now_or_never().is_none());
        let mut late = Box::pin(rooms.enter(Work::OpeningAgain));
        assert!((&mut late).now_or_never().is_none());
        drop(opening);
        assert!((&mut late).now_or_never().is_none());
        let moving = (&mut mover).now_or_never().unwrap();
        assert!((&mut late).now_or_never().is_none());
        drop(moving);
        assert!((&mut late).now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_waiting_keeps_nobody_out() {
        let rooms = Rooms::default();
        let _opening = rooms.enter(Work::OpeningAgain).now_or_never().unwrap();
        let mut mover = Box::pin(rooms.enter(Work::MovingNames));
        assert!((&mut mover).now_or_never().is_none());
        let mut late = Box::pin(rooms.enter(Work::OpeningAgain));
        assert!((&mut late).now_or_never().is_none());
        drop(mover);
        assert!((&mut late).now_or_never().is_some());
    }
}
