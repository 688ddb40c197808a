//! Tells the kernel what it has not asked for.
//!
//! **Invariant:** no request waits for the thread that tells of pages and names. The kernel may make
//! it wait for a lock that a request holds, so that a request which waited for it would wait for
//! ever. Attributes alone take no such lock, and are told at once.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::sync_channel;
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::fs::{Filesystem, Ino, Notice};

/// Has `fs` tell the kernel what changes. The thread ends with the filesystem.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn start(notifier: Notifier, fs: &Filesystem) -> std::io::Result<()> {
    let (sender, receiver) = sync_channel(QUEUED_MAX);
    let direct = notifier.clone();
    let run = move || {
        for notice in receiver {
            tell(&notifier, &notice);
        }
    };
    thread::Builder::new()
        .name("sftpfs-notices".into())
        .spawn(run)?;
    fs.tell_kernel_by(Box::new(move |notice| {
        if let Notice::Attributes(_) = notice {
            tell(&direct, &notice);
        } else if let Err(error) = sender.try_send(notice) {
            // What the kernel believes ends by itself, a little later.
            log::debug!("the kernel is not told: {error}");
        }
    }));
    Ok(())
}

fn tell(notifier: &Notifier, notice: &Notice) {
    let number = |ino: Ino| INodeNo(ino.0);
    let told = match notice {
        // A negative offset: no pages.
        Notice::Attributes(ino) => notifier.inval_inode(number(*ino), -1, 0),
        Notice::Content(ino) => notifier.inval_inode(number(*ino), 0, 0),
        Notice::Name(parent, name) => {
            notifier.inval_entry(number(*parent), OsStr::from_bytes(name))
        }
    };
    if let Err(error) = told {
        log::debug!("the kernel does not take {notice:?}: {error}");
    }
}

/// More than one call can cause: `sftpfs cp` copies 256 files in one.
const QUEUED_MAX: usize = 4096;
