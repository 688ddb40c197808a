//! The questions of a login while the mount runs: nobody is there to answer them, unless somebody
//! said that they are (`sftpfs reconnect`).
//!
//! **Invariant:** a question ends when nobody takes it any more.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::secrets::Secret;

/// Where a dialer's questions go; all copies are one.
#[derive(Clone, Default)]
pub(crate) struct Questions(Arc<State>);

#[derive(Default)]
struct State {
    /// Who takes them.
    taker: Mutex<Option<SyncSender<Question>>>,
    /// Questions that have no answer yet.
    open: AtomicUsize,
}

/// A question has no answer yet.
struct Asking<'a>(&'a State);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One question for a person.
pub(crate) struct Question {
    /// May be several lines; nothing in it drives a terminal.
    pub(crate) text: String,
    /// What is typed may be shown.
    pub(crate) echo: bool,
    answer: SyncSender<Secret>,
}

/// Somebody is there. Dropped, nobody is.
pub(crate) struct Listener {
    questions: Questions,
    asked: Receiver<Question>,
}

impl Questions {
    /// Takes the questions from now on; `None` if somebody else does.
    pub(crate) fn take(&self) -> Option<Listener> {
        let mut slot = self.0.taker.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return None;
        }
        let (sender, asked) = sync_channel(0);
        *slot = Some(sender);
        Some(Listener {
            questions: self.clone(),
            asked,
        })
    }

    pub(crate) fn are_taken(&self) -> bool {
        let slot = self.0.taker.lock().unwrap_or_else(PoisonError::into_inner);
        slot.is_some()
    }

    /// Whether a person is being asked something.
    pub(crate) fn are_open(&self) -> bool {
        self.are_taken() && self.0.open.load(Ordering::Relaxed) > 0
    }

    /// Waits for an answer. `None` if nobody is there, or would not say.
    pub(crate) fn ask(&self, text: String, echo: bool) -> Option<Secret> {
        let slot = self.0.taker.lock().unwrap_or_else(PoisonError::into_inner);
        let to = slot.clone()?;
        drop(slot);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        let _asking = Asking(&self.0);
        let (answer, answered) = sync_channel(1);
        to.send(Question { text, echo, answer }).ok()?;
        answered.recv().ok()
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Questions")
    }
}

impl Question {
    /// Dropping a question instead says that there is no answer.
    pub(crate) fn answer(self, secret: Secret) {
        // The attempt may have been called off meanwhile.
        let _ = self.answer.send(secret);
    }
}

impl Listener {
    /// The next question, if one comes in time.
    pub(crate) fn next(&self, within: Duration) -> Option<Question> {
        self.asked.recv_timeout(within).ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let slot = self.questions.0.taker.lock();
        *slot.unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(&mut text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_question_is_answered_by_who_takes_it() {
        let questions = Questions::default();
        let listener = questions.take().unwrap();
        let asker = questions.clone();
        let asking = std::thread::spawn(move || asker.ask("Code: ".into(), true));
        let question = listener.next(Duration::MAX).unwrap();
        assert_eq!((question.text.as_str(), question.echo), ("Code: ", true));
        assert!(questions.are_open());
        question.answer(secret("123"));
        assert_eq!(asking.join().unwrap().unwrap().bytes(), b"123");
        assert!(!questions.are_open());
    }

    #[test]
    fn nobody_there_is_no_answer() {
        let questions = Questions::default();
        assert!(questions.ask("?".into(), true).is_none());
        let listener = questions.take().unwrap();
        assert!(questions.are_taken() && questions.take().is_none());
        drop(listener);
        assert!(!questions.are_taken() && questions.ask("?".into(), true).is_none());
    }

    #[test]
    fn a_question_ends_when_its_listener_goes() {
        let questions = Questions::default();
        let listener = questions.take().unwrap();
        let asker = questions.clone();
        let asking = std::thread::spawn(move || asker.ask("Code: ".into(), true));
        let question = listener.next(Duration::MAX);
        drop((question, listener));
        assert!(asking.join().unwrap().is_none());
    }
}
