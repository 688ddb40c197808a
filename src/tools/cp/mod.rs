//! `sftpfs cp`: cp(1) for whole trees inside one mount. The mount copies on the server; this
//! program finds out what there is, asks for many files at a time, and does by itself what it must.
//!
//! One thread feeds what was typed; a few take from the [`pool`] what is to be done and put in what
//! they find; one shows progress and one waits for signals.

mod attributes;
mod file;
mod files;
mod interrupt;
mod item;
mod job;
mod links;
mod names;
mod node;
mod operands;
mod options;
mod plan;
mod pool;
mod progress;
mod screen;
mod typed;
mod walk;

use std::ffi::OsString;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use nix::sys::stat::{Mode, umask};

pub(crate) use operands::{Target, split};
pub(crate) use options::{Dereference, Existing, Options, Progress};

use super::sys;
use job::Job;

/// Round trips to the server at once, as each thread waits for one: small trees have their files
/// in many directories, each of which is a question of its own.
const THREADS: usize = 16;

/// Copies. Whether all of it was copied; what was not is said on standard error.
pub(crate) fn cp(options: Options, operands: Vec<OsString>) -> bool {
    sys::raise_descriptor_limit();
    // There is no other way to ask for it; no other thread makes files yet.
    let mask = umask(Mode::empty());
    umask(mask);
    let job = Arc::new(Job::new(options, mask.bits()));
    let threads = match start(&job) {
        Ok(threads) => threads,
        Err(why) => {
            job.complain(&format!("cannot start a thread: {why}"));
            return false;
        }
    };
    typed::feed(&job, operands);
    job.pool.fed();
    job.pool.wait_until_idle();
    if job.is_stopped() {
        // The thread that waits for signals ends the process.
        loop {
            std::thread::park();
        }
    }
    job.pool.end();
    job.progress_ends();
    // They end by themselves; one that panicked has said so.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    job.screen.end();
    let ways = job.tally().ways;
    // After a message that nothing could be copied there is nothing to sum up.
    if job.screen.shows_summary && !(job.has_failed() && ways.is_nothing()) {
        job.screen.sum_up(&ways.summary());
    }
    !job.has_failed()
}

fn start(job: &Arc<Job>) -> std::io::Result<Vec<JoinHandle<()>>> {
    // Threads inherit it: a signal is for the one that waits for it.
    interrupt::signals().thread_block()?;
    interrupt::watch(job)?;
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let job = Arc::clone(job);
        let thread = Builder::new().name(format!("cp-{number}"));
        threads.push(thread.spawn(move || walk::work(&job))?);
    }
    if job.screen.shows_progress {
        let job = Arc::clone(job);
        let thread = Builder::new().name("cp-progress".into());
        threads.push(thread.spawn(move || job.show_progress())?);
    }
    Ok(threads)
}
