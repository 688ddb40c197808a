//! Directories: made, read, and what is in them sent on its way.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::files;
use super::item::{Batch, Directory, Item};
use super::job::{Job, failed};
use super::node::{Fds, Finish, Names, Node, look_at, open_from, open_to};
use super::options::Dereference;
use super::plan::{Kind, Look, first_dir_mode, last_dir_mode};
use super::pool::Work;
use crate::tools::quote::quoted;

/// Directories found before they are entered, and the rest of the one being read waits.
const FOUND_MAX: usize = 1024;

/// What each thread does until the end.
pub(super) fn work(job: &Job) {
    while let Some(work) = job.pool.next() {
        let kind = work.kind();
        match work {
            Work::Directory(Directory::Enter(item)) => enter(job, item),
            Work::Directory(Directory::Read(node, entries)) => read(job, node, entries),
            Work::Small(files) | Work::Large(files) => files::copy(job, files),
        }
        job.pool.done(kind);
    }
}

/// A directory is made, or found there, and read.
fn enter(job: &Job, item: Item) {
    let node = match open(job, &item) {
        Ok(node) => node,
        Err(why) => {
            job.complain(&why);
            return job.release(&item.node);
        }
    };
    // From here on the pair stands for the item in the one above.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = node
        .fds()
        .and_then(|fds| openat(fds.from(), ".", flags, Mode::empty()))
        .and_then(Dir::from_fd);
    match dir {
        Ok(dir) => read(job, node, dir.into_iter()),
        Err(why) => {
            job.complain(&failed("cannot access", &node.source_path(), why));
            job.release(&node);
        }
    }
}

/// The pair that an item stands for.
fn open(job: &Job, item: &Item) -> Result<Arc<Node>, String> {
    let is_named = item.node.parent().is_none();
    let cannot_open = |why| failed("cannot access", &item.source_path(), why);
    let above = item.node.fds().map_err(cannot_open)?;
    let from = open_from(above.from(), &item.name, item.follow).map_err(cannot_open)?;
    refuse(job, item)?;
    let to_name = item.to_name();
    let is_new = match make(job, item, &above) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(why) => return Err(failed("cannot create directory", &item.new_path(), why)),
    };
    let to = open_to(above.to(), to_name).map_err(|why| in_the_way(item, &above, why))?;
    let finish = match is_new {
        true => finish_of_new(job, item, &to),
        false if job.options.preserve => Ok(Finish::Preserve(item.look)),
        false => Ok(Finish::Nothing),
    };
    let finish = finish.map_err(|why| failed("cannot access", &item.new_path(), why))?;
    let names = Names {
        from: item.name.clone(),
        to: to_name.to_vec(),
        follow: item.follow,
    };
    let fds = Fds::new(from, to, &job.open);
    let node = Node::new(Some(Arc::clone(&item.node)), names, fds, finish);
    let node = node.map_err(|why| failed("cannot access", &item.new_path(), why))?;
    if node.from_id == node.to_id {
        let (from, to) = (quoted(&item.source_path()), quoted(&item.new_path()));
        return Err(format!("{from} and {to} are the same file"));
    }
    if is_named {
        job.note_own(node.to_id);
    }
    if is_new {
        job.tell(&item.source_path(), &item.new_path());
    }
    Ok(node)
}

/// Why what is there is not filled.
fn in_the_way(item: &Item, above: &Fds, why: Errno) -> String {
    let (to, from) = (quoted(&item.new_path()), quoted(&item.source_path()));
    if !matches!(why, Errno::ENOTDIR | Errno::ELOOP) {
        return failed("cannot open", &item.new_path(), why);
    }
    let behind = look_at(above.to(), item.to_name(), true);
    if behind.is_ok_and(|behind| behind.id == item.look.id) {
        return format!("{from} and {to} are the same file");
    }
    format!("cannot overwrite non-directory {to} with directory {from}")
}

/// What would never end is not begun.
fn refuse(job: &Job, item: &Item) -> Result<(), String> {
    let id = item.look.id;
    if job.is_own(id) {
        let (from, to) = (quoted(&item.source_path()), quoted(&item.new_path()));
        return Err(format!(
            "cannot copy a directory, {from}, into itself, {to}"
        ));
    }
    let is_among = |node: &Arc<Node>| node.parent().is_some() && node.from_id == id;
    let may_be_cyclic = job.options.dereference == Dereference::Always;
    if may_be_cyclic && (is_among(&item.node) || item.node.above().any(is_among)) {
        let from = quoted(&item.source_path());
        return Err(format!("cannot copy cyclic symbolic link {from}"));
    }
    Ok(())
}

fn make(job: &Job, item: &Item, above: &Fds) -> Result<(), Errno> {
    let mode = first_dir_mode(item.look.mode, job.options.preserve);
    mkdirat(above.to(), item.to_name(), Mode::from_bits_truncate(mode))
}

/// Makes sure that a new directory can be filled, and says what is to be done to it afterwards.
fn finish_of_new(job: &Job, item: &Item, to: impl AsFd) -> Result<Finish, Errno> {
    let made = look_at(to.as_fd(), b".", false)?.mode;
    if made & 0o700 != 0o700 {
        fchmod(to.as_fd(), Mode::from_bits_truncate(made | 0o700))?;
    }
    if job.options.preserve {
        return Ok(Finish::Preserve(item.look));
    }
    let last = last_dir_mode(item.look.mode, made | 0o700, job.umask);
    Ok(last.map_or(Finish::Nothing, Finish::Mode))
}

/// Reads a directory to its end, or until enough directories are found in it.
fn read(job: &Job, node: Arc<Node>, mut entries: OwningIter) {
    let mut batch = Batch::default();
    let mut found = Vec::new();
    let fds = match node.fds() {
        Ok(fds) => fds,
        Err(why) => {
            job.complain(&failed("cannot access", &node.source_path(), why));
            return job.release(&node);
        }
    };
    for entry in entries.by_ref() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(why) => {
                job.complain(&failed("error reading directory", &node.source_path(), why));
                break;
            }
        };
        let name = entry.file_name().to_bytes();
        if job.is_stopped() {
            return;
        }
        if name == b"." || name == b".." {
            continue;
        }
        if let Some(item) = look(job, &node, &fds, name) {
            found.extend(sort(job, item, &mut batch));
        }
        help(job);
        if found.len() >= FOUND_MAX {
            job.flush(&mut batch);
            found.push(Directory::Read(Arc::clone(&node), entries));
            return job.pool.push_directories(found);
        }
    }
    job.flush(&mut batch);
    job.pool.push_directories(found);
    job.release(&node);
}

/// Copies with the others while too much waits.
fn help(job: &Job) {
    while let Some(work) = job.pool.help() {
        let kind = work.kind();
        if let Work::Small(files) | Work::Large(files) = work {
            files::copy(job, files);
        }
        job.pool.helped(kind);
    }
}

/// A name in a directory as something to copy.
fn look(job: &Job, node: &Arc<Node>, fds: &Fds, name: &[u8]) -> Option<Item> {
    let follow = job.options.follows(false);
    let item = |look| Item {
        node: Arc::clone(node),
        name: name.to_vec(),
        new_name: None,
        look,
        follow,
    };
    match look_at(fds.from(), name, follow) {
        Ok(look) => Some(item(look)),
        Err(why) => {
            let path = super::operands::join(&node.source_path(), name);
            job.complain(&failed("cannot stat", &path, why));
            None
        }
    }
}

/// Sends an item on its way; gives it back as work if it is a directory.
pub(super) fn sort(job: &Job, mut item: Item, batch: &mut Batch) -> Option<Directory> {
    if let Err(why) = same_filesystem(job, &item) {
        job.complain(&why);
        return None;
    }
    item.node.expect_one();
    if item.look.kind == Kind::Dir {
        return Some(Directory::Enter(item));
    }
    // What is no link needs no following: only for those the name and the file differ.
    if item.follow && is_itself(&item) {
        item.follow = false;
    }
    job.route(item, batch);
    None
}

fn is_itself(item: &Item) -> bool {
    let fds = item.node.fds();
    let look = fds.and_then(|fds| look_at(fds.from(), &item.name, false));
    look.is_ok_and(|look: Look| look.id == item.look.id)
}

/// Bytes go through this machine only if that is wanted.
fn same_filesystem(job: &Job, item: &Item) -> Result<(), String> {
    let has_content = matches!(item.look.kind, Kind::File | Kind::Dir);
    if job.options.stream || !has_content || item.look.id.dev == item.node.to_id.dev {
        return Ok(());
    }
    let (from, to) = (quoted(&item.source_path()), quoted(&item.new_path()));
    Err(format!(
        "{from} and {to} are on different file systems, so every byte would go through this \
         machine: use --stream if that is wanted, or cp(1)"
    ))
}
