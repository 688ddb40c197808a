//! Counts what a piece of code allocates, so that a bound on memory is measured and not claimed.
//!
//! Each thread counts for itself: tests that run beside do not disturb the count.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The most bytes that `work` held at one time beyond what was held before, and what it gives.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let value = work();
    (usize::try_from(PEAK.get() - before).unwrap(), value)
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

fn count(change: isize) {
    // A thread that is ending has no counters any more, and nobody who asks for them.
    let held = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(change));
        held.get()
    });
    if let Ok(held) = held {
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held)));
    }
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call is handed to the system's allocator as it came; only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller keeps alloc's contract, which is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn the_peak_is_what_was_held_at_once() {
    let (bytes, ()) = peak(|| {
        for _ in 0..10 {
            drop(std::hint::black_box(vec![0_u8; 1000]));
        }
    });
    assert_eq!(bytes, 1000);
}
