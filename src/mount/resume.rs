//! Notices that the machine has slept: a timer on the wall clock, set for a time that never comes,
//! which the kernel ends when that clock jumps, as it does at the end of a suspend (timerfd_create(2),
//! TFD_TIMER_CANCEL_ON_SET). It costs nothing meanwhile. Somebody who sets the clock is taken for the
//! same: connections of which the server answers nothing for some seconds are made anew then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells of jumps of the wall clock.
pub(super) struct Resume(AsyncFd<Timer>);

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Resume {
    /// To be called on the runtime that will wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?);
        timer.arm()?;
        Ok(Self(watched(timer)?))
    }

    /// Calls `jumped` after each jump of the clock, until it says that nobody is interested.
    pub(super) async fn each(self, jumped: impl Fn() -> bool) {
        while let Ok(mut ready) = self.0.readable().await {
            match self.0.get_ref().0.wait() {
                // Not a jump, and still waiting.
                Err(Errno::EAGAIN | Errno::EINTR) => ready.clear_ready(),
                Err(Errno::ECANCELED) | Ok(()) => {
                    ready.clear_ready();
                    if self.0.get_ref().arm().is_err() || !jumped() {
                        return;
                    }
                }
                Err(error) => return log::info!("the clock is not watched any more: {error}"),
            }
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the descriptor must stay the timer's while it is watched"
)]
fn watched(timer: Timer) -> io::Result<AsyncFd<Timer>> {
    // SAFETY: it is open, and closed with the timer, which the watch owns.
    let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
    Ok(watched?)
}

impl Timer {
    fn arm(&self) -> nix::Result<()> {
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        let never = Expiration::OneShot(TimeSpec::new(NEVER, 0));
        match self.0.set(never, flags) {
            // It was ended just now, and is set again all the same.
            Err(Errno::ECANCELED) => Ok(()),
            set => set,
        }
    }
}

/// In the year 4000.
const NEVER: i64 = 64_060_588_800;
