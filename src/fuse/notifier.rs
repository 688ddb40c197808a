//! The thread that tells the kernel what it has not asked for.
//!
//! **Invariant:** no request waits for this thread. The kernel may make it wait for a lock that a
//! request holds, so that a request which waited for it would wait for ever.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Receiver;
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::fs::{Ino, Notice};

/// Starts the thread, which ends with the filesystem.
///
/// # Errors
/// If there can be no more threads.
pub(crate) fn start(notifier: Notifier, notices: Receiver<Notice>) -> std::io::Result<()> {
    let run = move || {
        for notice in notices {
            let number = |ino: Ino| INodeNo(ino.0);
            let told = match &notice {
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
    };
    thread::Builder::new().name("sftpfs-notices".into()).spawn(run)?;
    Ok(())
}
