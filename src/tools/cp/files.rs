//! Files that are copied many at a time by the mount, and what becomes of those that are not.

use nix::errno::Errno;

use super::item::{Files, Item};
use super::job::{Done, Job, Trouble};
use super::options::Existing;
use super::plan::Kind;
use super::{file, names};
use crate::ioctl::{COPY, COPY_PRESERVE, COPY_SIZE, CopyHeader, CopyResult};
use crate::tools::quote::quoted;
use crate::tools::sys;

pub(super) fn copy(job: &Job, files: Files) {
    match files {
        Files::Batch(items) => copy_batch(job, items),
        Files::Link(item, place) => {
            let result = names::link(job, &item, &place);
            job.done(&item, result);
        }
        Files::One(item) => {
            let result = match item.look.kind {
                Kind::Symlink => names::symlink(job, &item),
                _ => file::copy(job, &item),
            };
            job.done(&item, result);
        }
    }
}

/// Asks the mount until each is copied, or is to be copied alone.
fn copy_batch(job: &Job, items: Vec<Item>) {
    let mut left = items.into_iter().peekable();
    while left.peek().is_some() {
        if job.is_stopped() {
            return left.for_each(|item| job.done(&item, Err(Trouble::Stopped)));
        }
        let asked = match job.no_batches() {
            true => Err(Errno::ENOTTY),
            false => ask(job, left.clone().collect::<Vec<_>>().as_slice()),
        };
        let results = match asked {
            // One result at least, or this would never end.
            Ok(results) if !results.is_empty() => results,
            answer => {
                if matches!(answer, Err(Errno::ENOTTY | Errno::EOPNOTSUPP)) {
                    job.give_up_batches();
                }
                return left.for_each(|item| job.pool.push_files(Files::One(item)));
            }
        };
        let mut again = Vec::new();
        for (result, item) in results.into_iter().zip(left.by_ref()) {
            match result.outcome {
                Err(libc::EAGAIN) => again.push(item),
                _ => settle(job, item, result),
            }
        }
        again.extend(left);
        left = again.into_iter().peekable();
    }
}

/// One question to the mount: how each of the first names went. The mount may answer for fewer
/// than were asked, so that nobody waits long for it.
fn ask(job: &Job, items: &[Item]) -> Result<Vec<CopyResult>, Errno> {
    let first = items.first().ok_or(Errno::EINVAL)?;
    let header = CopyHeader {
        source: first.node.from_id.ino,
        flags: if job.options.preserve {
            COPY_PRESERVE
        } else {
            0
        },
        umask: job.umask,
        names: u32::try_from(items.len()).map_err(|_| Errno::EINVAL)?,
    };
    let mut buffer = header.encode().to_vec();
    for item in items {
        buffer.extend_from_slice(&item.name);
        buffer.push(0);
    }
    buffer.resize(usize::try_from(COPY_SIZE).map_err(|_| Errno::EINVAL)?, 0);
    let fds = first.node.fds()?;
    let count = sys::ioctl(fds.to(), COPY, &mut buffer)?;
    let results = buffer
        .chunks_exact(CopyResult::SIZE)
        .take(count.min(items.len()));
    results
        .map(|bytes| CopyResult::decode(bytes).ok_or(Errno::EIO))
        .collect()
}

/// What the mount said about one name.
fn settle(job: &Job, item: Item, result: CopyResult) {
    match result.outcome.map_err(Errno::from_raw) {
        Ok((way, size)) => {
            job.count_bytes(size);
            job.done(&item, Ok(Done::File(Some(way), size)));
        }
        Err(Errno::EEXIST) if job.options.existing == Existing::Keep => {
            job.done(&item, Ok(Done::Left));
        }
        Err(why @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EIO | Errno::EROFS)) => {
            let (from, to) = (quoted(&item.source_path()), quoted(&item.new_path()));
            let text = format!("cannot copy {from} to {to}: {}", why.desc());
            job.done(&item, Err(text.into()));
        }
        // It is there already, or something is wrong with it: alone, we learn what.
        Err(_) => job.pool.push_files(Files::One(item)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::tests::item;
    use super::super::options::Options;
    use super::super::pool::Work;
    use super::*;

    #[test]
    fn where_no_mount_answers_each_file_is_copied_alone() {
        let job = Job::new(Options::default(), 0o022);
        let items = [b"a", b"b"].map(|name| item(name, Kind::File, 1));
        copy(&job, Files::Batch(items.to_vec()));
        assert!(
            job.no_batches(),
            "the root directory is on no mount of ours"
        );
        for name in [b"a", b"b"] {
            let Some(Work::Small(files)) = job.pool.next() else {
                panic!("it is to be copied");
            };
            assert!(matches!(files, Files::One(item) if item.name == name));
        }
    }
}
