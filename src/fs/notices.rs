//! What the kernel is told without having asked. Who tells never waits: a thread of `fuse` passes
//! it on, which no request waits for in turn.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

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

/// The way to the kernel, when there is one.
#[derive(Default)]
pub(super) struct Notices(OnceLock<SyncSender<Notice>>);

impl Notices {
    /// Whoever receives passes them on. Only the first call has an effect.
    pub(super) fn receive(&self) -> Receiver<Notice> {
        let (sender, receiver) = sync_channel(QUEUED_MAX);
        let _ = self.0.set(sender);
        receiver
    }

    pub(super) fn tell(&self, notice: Notice) {
        if let Some(sender) = self.0.get()
            && let Err(error) = sender.try_send(notice)
        {
            // What the kernel believes ends by itself, a little later.
            log::debug!("the kernel is not told: {error}");
        }
    }
}

/// More than one call can cause: `sftpfs cp` copies 256 files in one.
const QUEUED_MAX: usize = 4096;
