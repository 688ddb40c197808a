//! One regular file, through open(2) and copy_file_range(2).

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{close, read, write};

use super::attributes;
use super::item::Item;
use super::job::{Done, Job, Trouble, failed};
use super::names::{Way as ThereWay, make_way, remove};
use super::node::Fds;
use super::plan::{Kind, Look, new_file_mode};
use crate::ioctl::Way;
use crate::tools::{info, sys};

/// As much as the kernel takes at once: the mount answers when half a second has passed, and may
/// do a whole file by a link only if it is asked for the whole.
const WHOLE: usize = 0x7FFF_F000_0000_0000;
/// Elsewhere nobody stops a request: a piece that a disk copies in less than a second.
const PIECE: usize = 64 << 20;
/// What goes through this machine: what FUSE takes in one request at most.
const BUFFER_SIZE: usize = 1 << 20;

/// Copies a file, and keeps its attributes if that is wanted.
pub(super) fn copy(job: &Job, item: &Item) -> Result<Done, Trouble> {
    let cannot_open = |why| failed("cannot open", &item.source_path(), why);
    let fds = item.node.fds().map_err(cannot_open)?;
    let (from, source) = open_source(item, &fds)?;
    let Some(to) = open_destination(job, item, &fds, &source)? else {
        return Ok(Done::Left);
    };
    let number = job.begins(item.new_path());
    let copied = copy_content(job, item, &from, &to);
    let kept = match (&copied, job.options.preserve) {
        (Ok(_), true) => attributes::preserve(to.as_fd(), &source, || item.new_path()),
        _ => Ok(()),
    };
    // close(2) of a mount waits for the server to have it all, and tells what went wrong.
    let closed = close(to).map_err(|why| failed("failed to close", &item.new_path(), why));
    let (size, is_ours) = copied.inspect_err(|why| {
        if matches!(why, Trouble::Message(_)) {
            job.is_whole(number);
        }
    })?;
    job.is_whole(number);
    closed?;
    kept?;
    let way = match is_ours {
        true => Some(Way::Streamed),
        false => ask_way(job, item, &fds),
    };
    Ok(Done::File(way, size))
}

fn open_source(item: &Item, fds: &Fds) -> Result<(OwnedFd, Look), Trouble> {
    // Should it be a FIFO by now, nobody waits for its other end.
    let mut flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    flags.set(OFlag::O_NOFOLLOW, !item.follow);
    let from = openat(fds.from(), item.name.as_slice(), flags, Mode::empty());
    let from = from.map_err(|why| {
        let text = failed("cannot open", &item.source_path(), why);
        // "cannot open 'x' for reading: Permission denied"
        match text.rsplit_once(": ") {
            Some((what, why)) => format!("{what} for reading: {why}"),
            None => text,
        }
    })?;
    let look = fstat(&from).map_err(|why| failed("cannot stat", &item.source_path(), why))?;
    let look = Look::from(&look);
    if look.kind != Kind::File || look.id != item.look.id {
        let name = crate::tools::quote::quoted(&item.source_path());
        return Err(format!("skipping file {name}, as it was replaced while being copied").into());
    }
    Ok((from, look))
}

/// A new file, or the one that is there, emptied; none if it is to be left.
fn open_destination(
    job: &Job,
    item: &Item,
    fds: &Fds,
    source: &Look,
) -> Result<Option<OwnedFd>, Trouble> {
    let cannot = |why| failed("cannot create regular file", &item.new_path(), why);
    let name = item.to_name();
    // Until the owner is right, nobody else is let in.
    let mode = match job.options.preserve {
        true => source.mode & 0o700,
        false => new_file_mode(source.mode, job.umask),
    };
    let create = || {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(fds.to(), name, flags, Mode::from_bits_truncate(mode))
    };
    match create() {
        Err(Errno::EEXIST) => {}
        made => return Ok(Some(made.map_err(cannot)?)),
    }
    let through_link = match make_way(job, item, fds)? {
        ThereWay::Leave => return Ok(None),
        ThereWay::Free => return Ok(Some(create().map_err(cannot)?)),
        ThereWay::Write { through_link } => through_link,
    };
    let mut flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_NOFOLLOW, !through_link);
    match openat(fds.to(), name, flags, Mode::empty()) {
        Err(_) if job.options.force => {
            remove(job, item, fds)?;
            Ok(Some(create().map_err(cannot)?))
        }
        opened => Ok(Some(opened.map_err(cannot)?)),
    }
}

/// How many bytes, and whether they went through this program.
fn copy_content(
    job: &Job,
    item: &Item,
    from: &OwnedFd,
    to: &OwnedFd,
) -> Result<(u64, bool), Trouble> {
    let is_within = item.look.id.dev == item.node.to_id.dev;
    if is_within {
        let copied = copy_by_kernel(job, item, from, to)?;
        // Files like those of /proc say that they are empty; and it may be that it cannot be done.
        if copied > 0 {
            return Ok((copied, false));
        }
    }
    let streamed = stream(job, item, from, to)?;
    Ok((streamed, streamed > 0 || !is_within))
}

/// How many bytes the kernel, or the mount, copied: 0 if it does not copy these files.
fn copy_by_kernel(job: &Job, item: &Item, from: &OwnedFd, to: &OwnedFd) -> Result<u64, Trouble> {
    let at_once = if job.is_mount() { WHOLE } else { PIECE };
    let mut size = 0;
    loop {
        if job.is_stopped() {
            return Err(Trouble::Stopped);
        }
        match sys::copy_file_range(from, to, at_once) {
            Ok(0) => return Ok(size),
            Ok(count) => {
                size += count as u64;
                job.count_bytes(count as u64);
            }
            Err(Errno::EINTR) => {}
            Err(why) if size == 0 && is_unable(why) => return Ok(0),
            Err(why) => return Err(failed("error copying to", &item.new_path(), why).into()),
        }
    }
}

/// Whether copy_file_range(2) does not work for two files, where reading and writing may.
fn is_unable(why: Errno) -> bool {
    matches!(
        why,
        Errno::EXDEV
            | Errno::EOPNOTSUPP
            | Errno::ENOSYS
            | Errno::EINVAL
            | Errno::ETXTBSY
            | Errno::EPERM
    )
}

/// Read here and written there.
fn stream(job: &Job, item: &Item, from: &OwnedFd, to: &OwnedFd) -> Result<u64, Trouble> {
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut size = 0;
    loop {
        if job.is_stopped() {
            return Err(Trouble::Stopped);
        }
        let count = match read(from, &mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(why) => return Err(failed("error reading", &item.source_path(), why).into()),
        };
        let mut left = buffer.get(..count).unwrap_or_default();
        while !left.is_empty() {
            match write(to, left) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(why) => return Err(failed("error writing", &item.new_path(), why).into()),
            }
        }
        size += count as u64;
        job.count_bytes(count as u64);
    }
}

/// What the mount tells about how the content got there, if somebody wants to know.
fn ask_way(job: &Job, item: &Item, fds: &Fds) -> Option<Way> {
    if !job.screen.shows_summary || !job.is_mount() {
        return None;
    }
    match info::about(fds.to(), item.to_name()).ok()?.content()? {
        b"linked" => Some(Way::Linked),
        b"copied on the server" => Some(Way::Copied),
        b"streamed" => Some(Way::Streamed),
        _ => None,
    }
}
