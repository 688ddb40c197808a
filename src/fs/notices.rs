//! What the kernel is told without having asked. Who tells never waits.

use std::sync::OnceLock;

use super::Ino;
use super::inodes::Name;

/// What the kernel knows and is not so any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A file's attributes.
    Attributes(Ino),
    /// A file's attributes and pages.
    Content(Ino),
    /// What a name leads to.
    Name(Ino, Name),
}

/// Passes a notice on, without waiting for anything.
type Teller = Box<dyn Fn(Notice) + Send + Sync>;

/// The way to the kernel, when there is one.
#[derive(Default)]
pub(super) struct Notices(OnceLock<Teller>);

impl Notices {
    /// How to tell. Only the first call has an effect.
    pub(super) fn tell_by(&self, teller: Teller) {
        let _ = self.0.set(teller);
    }

    pub(super) fn tell(&self, notice: Notice) {
        if let Some(teller) = self.0.get() {
            teller(notice);
        }
    }
}
