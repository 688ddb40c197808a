//! How an operation comes to its reply. It is polled once on the thread that read it from the
//! kernel, where it finishes if memory knows the answer; else a task waits for it, and meanwhile
//! looks whether the program is to end: once a request was read by us, the kernel keeps even a
//! killed program waiting until it is answered.
//!
//! **Invariant:** every request is answered, once: by its operation, or by what ended the wait
//! before. What changes nothing is given up then. What changes something goes on to its end, so that
//! what is remembered stays true, and what it would have given the kernel is given back; but what is
//! not done when the connection is lost is not done later.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use fuser::Errno;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, sleep_until};

use super::convert::errno;
use super::replies::Refuse;
use crate::client::Standing;
use crate::error::Result;
use crate::fs::{Filesystem, Wanted, Wish, is_in_a_read, on_behalf_of, while_wanted, wish_of};

/// What becomes of an operation that its program waits for no more.
pub(super) enum Then<T> {
    /// It changes nothing: given up.
    Drop,
    /// It reads, and others may wait for the same: it goes on, unless too many do already.
    Read,
    /// It changes something: it goes on, and what it gives is undone.
    Undo(fn(&Arc<Filesystem>, T)),
    /// A write: given up as long as its data was not taken over. After that EINTR would have the
    /// program write it twice.
    Write(Arc<AtomicBool>),
    /// The kernel writes pages back, which an error of ours would lose: not for a sleep either.
    Page,
}

/// Runs operations for one mount.
#[derive(Clone)]
pub(super) struct Waiting {
    fs: Arc<Filesystem>,
    runtime: Handle,
    recall: Recall,
    /// Operations that go on though nobody waits.
    abandoned: Arc<AtomicUsize>,
}

/// Ends the waits of all programs at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recall(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    recalled: Arc<Notify>,
    /// The machine is about to sleep.
    is_closed: AtomicBool,
}

impl Recall {
    /// Answers all requests that wait now with EINTR: the machine is about to sleep, and a program
    /// that waits for us would keep it awake. Kept are those for which an error does harm that the
    /// program cannot prevent: pages written back, and reads of a page fault.
    pub(crate) fn all(&self) {
        self.0.recalled.notify_waiters();
    }

    /// As [`Recall::all`], and from now on no request waits for a server that does not answer, nor
    /// longer than a moment for another one.
    #[cfg(any(test, feature = "logind"))]
    pub(crate) fn close(&self) {
        // In this order: a request finds the one or is told of the other.
        self.0.is_closed.store(true, Ordering::SeqCst);
        self.all();
    }

    /// Requests wait again.
    pub(crate) fn open(&self) {
        self.0.is_closed.store(false, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::SeqCst)
    }
}

/// Why a wait ends before its operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The program is being killed, or is no more.
    Killed,
    /// The program is asked to end, and handles that.
    Asked,
    /// `soft=`: it took too long.
    Late,
    Recalled,
}

type Operation<T> = Pin<Box<dyn Future<Output = thread::Result<Result<T>>> + Send>>;

impl Waiting {
    pub(super) fn new(fs: Arc<Filesystem>, runtime: Handle, recall: Recall) -> Self {
        Self {
            fs,
            runtime,
            recall,
            abandoned: Arc::default(),
        }
    }

    /// Runs an operation on behalf of a thread, and replies by `tell`.
    pub(super) fn run<R: Refuse, T: Send + 'static>(
        &self,
        thread: u32,
        reply: R,
        then: Then<T>,
        operation: impl Future<Output = Result<T>> + Send + 'static,
        tell: impl FnOnce(R, T) + Send + 'static,
    ) {
        if matches!(then, Then::Undo(_)) && self.abandoned.load(Ordering::Relaxed) >= ABANDONED_MAX
        {
            // Nothing that goes on for nobody may pile up.
            return reply.refuse(Errno::EIO);
        }
        // A panic is told by the panic hook; here it must not end the thread.
        let wanted = Wanted::default();
        let operation = on_behalf_of(thread, while_wanted(wanted.clone(), operation));
        let operation = AssertUnwindSafe(operation).catch_unwind();
        let mut operation: Operation<T> = Box::pin(operation);
        let _entered = self.runtime.enter();
        let mut context = Context::from_waker(Waker::noop());
        match operation.as_mut().poll(&mut context) {
            Poll::Ready(done) => finish(reply, done, tell),
            Poll::Pending => {
                let recalled = Arc::clone(&self.recall.0.recalled).notified_owned();
                let waiting = self.clone();
                self.runtime.spawn(async move {
                    let ends = waiting.ends(thread, &then, recalled);
                    let wait = waiting.fs.waits().begin();
                    tokio::select! {
                        biased;
                        done = &mut operation => return finish(reply, done, tell),
                        refused = ends => reply.refuse(refused),
                    }
                    drop(wait);
                    wanted.abandon();
                    waiting.leave(operation, then).await;
                });
            }
        }
    }

    /// Ends when an operation is not to be waited for any longer, with what the program is told.
    async fn ends<T>(&self, thread: u32, then: &Then<T>, recalled: OwnedNotified) -> Errno {
        let late = async {
            match self.fs.config().soft {
                Some(patience) => self.is_late(patience).await,
                None => std::future::pending().await,
            }
        };
        let wished = async {
            loop {
                let why = wished(thread).await;
                if why == Why::Killed || !then.is_taken_over() {
                    return why;
                }
            }
        };
        let why = tokio::select! {
            why = wished => why,
            () = late => Why::Late,
            () = self.recalled(thread, then, recalled) => Why::Recalled,
        };
        match why {
            Why::Late => Errno::EIO,
            Why::Recalled if then.is_taken_over() => Errno::EIO,
            Why::Killed | Why::Asked | Why::Recalled => Errno::EINTR,
        }
    }

    /// Ends when the machine is about to sleep, for a call that can be ended then.
    async fn recalled<T>(&self, thread: u32, then: &Then<T>, recalled: OwnedNotified) {
        if matches!(then, Then::Page) {
            return std::future::pending().await;
        }
        if self.recall.is_closed() && self.is_answered() {
            sleep(LAST_MOMENT).await;
        }
        if !self.recall.is_closed() {
            recalled.await;
        }
        if matches!(then, Then::Read) && !is_in_a_read(thread) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the server is there and says something.
    fn is_answered(&self) -> bool {
        let health = self.fs.health();
        let is_silent = health.oldest.is_some_and(|age| age > LAST_MOMENT);
        health.standing == Standing::Connected && !is_silent
    }

    /// Ends after `patience`, or later if the server has answered something within that time: then
    /// it is there, and has much to do.
    async fn is_late(&self, patience: Duration) {
        let mut until = Instant::now() + patience;
        loop {
            sleep_until(until).await;
            let Some(oldest) = self.fs.oldest_question().filter(|age| *age < patience) else {
                return;
            };
            until = Instant::now() + (patience - oldest).max(LOOK_EVERY);
        }
    }

    /// Deals with what nobody waits for any more.
    async fn leave<T>(&self, operation: Operation<T>, then: Then<T>) {
        let undo = match then {
            Then::Drop | Then::Write(_) | Then::Page => return,
            Then::Read if self.abandoned.load(Ordering::Relaxed) >= ABANDONED_MAX => return,
            Then::Read => None,
            Then::Undo(undo) => Some(undo),
        };
        let _counted = Counted::abandoned(&self.abandoned);
        if let (Ok(Ok(value)), Some(undo)) = (operation.await, undo) {
            undo(&self.fs, value);
        }
    }
}

impl<T> Then<T> {
    fn is_taken_over(&self) -> bool {
        match self {
            Self::Write(taken) => taken.load(Ordering::Relaxed),
            Self::Drop | Self::Read | Self::Undo(_) | Self::Page => false,
        }
    }
}

/// One of those that are counted.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    /// One that goes on though nobody waits.
    fn abandoned(count: &'a AtomicUsize) -> Self {
        let counted = Self::new(count);
        if count.load(Ordering::Relaxed) == ABANDONED_MAX {
            log::warn!(
                "{ABANDONED_MAX} changes wait for the server and no program waits for them any \
                 more: further changes fail until it answers"
            );
        }
        counted
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Replies. A panic, also of the reply, is an I/O error for this request and nothing more.
fn finish<R: Refuse, T>(reply: R, done: thread::Result<Result<T>>, tell: impl FnOnce(R, T)) {
    match done {
        // A reply that a panic drops says EIO by itself.
        Ok(Ok(value)) => drop(catch_unwind(AssertUnwindSafe(|| tell(reply, value)))),
        Ok(Err(error)) => reply.refuse(errno(&error)),
        Err(_) => reply.refuse(Errno::EIO),
    }
}

/// Ends when a thread is to end. Never for one that cannot be seen.
async fn wished(thread: u32) -> Why {
    if thread == 0 {
        return std::future::pending().await;
    }
    sleep(LOOK_FIRST).await;
    for looks in 0_u32.. {
        match wish_of(thread) {
            Wish::Killed | Wish::Gone => return Why::Killed,
            Wish::Asked => return Why::Asked,
            Wish::Unknown => break,
            Wish::None if looks < LOOKS_OFTEN => sleep(LOOK_EVERY).await,
            Wish::None => sleep(LOOK_LATER).await,
        }
    }
    std::future::pending().await
}

/// Most requests are answered sooner, and cost nothing then.
const LOOK_FIRST: Duration = Duration::from_millis(250);
/// Often enough for Ctrl-C to seem immediate, seldom enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// As soon as a wait is long, nobody expects less of it, and there may be many.
const LOOK_LATER: Duration = Duration::from_millis(500);
const LOOKS_OFTEN: u32 = 20;
/// What a call gets that begins when the machine is about to sleep: enough for a server far away,
/// and a small part of the time until programs are frozen.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// Operations that may go on though nobody waits for them: far more than a person interrupts, and
/// some kilobytes each.
const ABANDONED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;
    use crate::client::Client;
    use crate::error::Error;
    use crate::fs::Config;
    use crate::testing::{Options, Server};
    use crate::transport::{Diagnosis, Link};

    /// What a program was told.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<std::result::Result<u32, i32>>>>);

    impl Refuse for Told {
        fn refuse(self, errno: Errno) {
            self.0.lock().unwrap().push(Err(errno.into()));
        }
    }

    impl Told {
        fn all(&self) -> Vec<std::result::Result<u32, i32>> {
            self.0.lock().unwrap().clone()
        }
    }

    fn tell(told: Told, value: u32) {
        told.0.lock().unwrap().push(Ok(value));
    }

    async fn waiting(soft: Option<Duration>) -> (Waiting, Recall) {
        let server = Server::new(Options::default());
        let link = Link {
            stream: Box::new(server.connect()),
            peer: "a server of a test".into(),
            diagnosis: Diagnosis::default(),
        };
        let client = Client::over(link).await.unwrap();
        let config = Config {
            soft,
            ..Config::default()
        };
        let fs = Filesystem::new(client, b"", config).await.unwrap();
        let recall = Recall::default();
        (Waiting::new(fs, Handle::current(), recall.clone()), recall)
    }

    /// An operation that waits until it is told its result.
    fn held() -> (
        oneshot::Sender<u32>,
        impl Future<Output = Result<u32>> + Send + 'static,
    ) {
        let (sender, receiver) = oneshot::channel();
        let lost = |_| Error::Protocol("nobody answers");
        (sender, async move { receiver.await.map_err(lost) })
    }

    async fn seconds(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    /// No thread has this number.
    const GONE: u32 = i32::MAX as u32;

    #[tokio::test(start_paused = true)]
    async fn what_memory_knows_is_answered_before_run_returns() {
        let (waiting, told) = (waiting(None).await.0, Told::default());
        waiting.run(0, told.clone(), Then::Drop, async { Ok(1) }, tell);
        let refused = async { Err(Error::Errno(nix::errno::Errno::EACCES)) };
        waiting.run(0, told.clone(), Then::Drop, refused, tell);
        assert_eq!(told.all(), [Ok(1), Err(libc::EACCES)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_nothing_is_given_up_with_its_program() {
        let (waiting, told) = (waiting(None).await.0, Told::default());
        let (answer, operation) = held();
        waiting.run(GONE, told.clone(), Then::Drop, operation, tell);
        seconds(1).await;
        assert_eq!(told.all(), [Err(libc::EINTR)]);
        assert!(answer.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_something_goes_on_and_what_it_gives_is_undone() {
        static UNDONE: AtomicUsize = AtomicUsize::new(0);
        let undo = |_: &Arc<Filesystem>, value: u32| {
            UNDONE.fetch_add(value as usize, Ordering::Relaxed);
        };
        let (waiting, told) = (waiting(None).await.0, Told::default());
        let (answer, operation) = held();
        waiting.run(GONE, told.clone(), Then::Undo(undo), operation, tell);
        seconds(1).await;
        assert_eq!(waiting.abandoned.load(Ordering::Relaxed), 1);
        answer.send(7).unwrap();
        seconds(1).await;
        assert_eq!(told.all(), [Err(libc::EINTR)]);
        assert_eq!(UNDONE.load(Ordering::Relaxed), 7);
        assert_eq!(waiting.abandoned.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_change_is_begun_while_too_many_go_on_for_nobody() {
        let (waiting, told) = (waiting(None).await.0, Told::default());
        waiting.abandoned.store(ABANDONED_MAX, Ordering::Relaxed);
        let then = || Then::Undo(|_, _| ());
        waiting.run(0, told.clone(), then(), async { Ok(1) }, tell);
        assert_eq!(told.all(), [Err(libc::EIO)]);
        waiting.run(0, told.clone(), Then::Drop, async { Ok(1) }, tell);
        assert_eq!(told.all(), [Err(libc::EIO), Ok(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hard_wait_lasts_and_a_soft_one_ends_with_eio() {
        let hard = Told::default();
        let (_hard, operation) = held();
        let waits = waiting(None).await.0;
        waits.run(0, hard.clone(), Then::Drop, operation, tell);
        let soft = Told::default();
        let (_soft, operation) = held();
        let waits = waiting(Some(Duration::from_secs(5))).await.0;
        waits.run(0, soft.clone(), Then::Drop, operation, tell);
        seconds(4).await;
        assert!(soft.all().is_empty());
        seconds(2).await;
        assert_eq!(soft.all(), [Err(libc::EIO)]);
        seconds(1_000_000).await;
        assert!(hard.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_recall_ends_the_waits_there_are_and_none_to_come() {
        let (waiting, recall) = waiting(None).await;
        let (first, later) = (Told::default(), Told::default());
        let ((_one, one), (_two, two)) = (held(), held());
        waiting.run(0, first.clone(), Then::Drop, one, tell);
        // Also one of which the task has not run yet.
        recall.all();
        waiting.run(0, later.clone(), Then::Drop, two, tell);
        seconds(1).await;
        assert_eq!(first.all(), [Err(libc::EINTR)]);
        assert!(later.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn before_a_sleep_nothing_goes_on_waiting_and_afterwards_all_does() {
        let (waiting, recall) = waiting(None).await;
        let (before, meanwhile, after) = (Told::default(), Told::default(), Told::default());
        let ((_one, one), (_two, two), (_three, three)) = (held(), held(), held());
        waiting.run(0, before.clone(), Then::Drop, one, tell);
        seconds(1).await;
        assert_eq!(waiting.fs.waits().now().0, 1);
        recall.close();
        waiting.run(0, meanwhile.clone(), Then::Drop, two, tell);
        seconds(1).await;
        assert_eq!(before.all(), [Err(libc::EINTR)]);
        assert_eq!(meanwhile.all(), [Err(libc::EINTR)]);
        assert_eq!(waiting.fs.waits().now().0, 0);
        recall.open();
        waiting.run(0, after.clone(), Then::Drop, three, tell);
        seconds(1).await;
        assert!(after.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_begins_before_a_sleep_gets_its_answer_if_that_comes_at_once() {
        let (waiting, recall) = waiting(None).await;
        let (told, late) = (Told::default(), Told::default());
        let ((answer, operation), (_late, never)) = (held(), held());
        recall.close();
        waiting.run(0, told.clone(), Then::Drop, operation, tell);
        waiting.run(0, late.clone(), Then::Drop, never, tell);
        sleep(LAST_MOMENT / 2).await;
        answer.send(7).unwrap();
        // The machine is awake again before the other one's moment is over.
        recall.open();
        seconds(1).await;
        assert_eq!(told.all(), [Ok(7)]);
        assert!(late.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn pages_written_back_are_not_lost_for_a_sleep() {
        let (waiting, recall) = waiting(None).await;
        let told = Told::default();
        let (answer, operation) = held();
        waiting.run(0, told.clone(), Then::Page, operation, tell);
        recall.close();
        seconds(1).await;
        assert!(told.all().is_empty());
        answer.send(7).unwrap();
        seconds(1).await;
        assert_eq!(told.all(), [Ok(7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_was_taken_over_is_never_told_to_be_tried_again() {
        let (waiting, recall) = waiting(None).await;
        for (is_taken, errno) in [(false, libc::EINTR), (true, libc::EIO)] {
            let told = Told::default();
            let then = Then::Write(Arc::new(AtomicBool::new(is_taken)));
            let (_answer, operation) = held();
            waiting.run(0, told.clone(), then, operation, tell);
            recall.all();
            seconds(1).await;
            assert_eq!(told.all(), [Err(errno)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_error_of_its_request_and_of_no_other() {
        let (waiting, told) = (waiting(None).await.0, Told::default());
        waiting.run(
            0,
            told.clone(),
            Then::Drop,
            async { panic!("at once") },
            tell,
        );
        let later = async {
            seconds(1).await;
            panic!("later")
        };
        waiting.run(0, told.clone(), Then::Undo(|_, _| ()), later, tell);
        seconds(2).await;
        waiting.run(0, told.clone(), Then::Drop, async { Ok(1) }, |_, _| {
            panic!("in the reply")
        });
        waiting.run(0, told.clone(), Then::Drop, async { Ok(1) }, tell);
        assert_eq!(told.all(), [Err(libc::EIO), Err(libc::EIO), Ok(1)]);
    }
}
