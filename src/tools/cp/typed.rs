//! What was typed on the command line is checked and sent on its way.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use super::item::{Batch, Item};
use super::job::{Job, failed};
use super::node::{Fds, Finish, Names, Node, look_at};
use super::operands::{Destination, ends_with_slash, join, name_inside, split, understand};
use super::plan::{Id, Kind, Look};
use super::walk;
use crate::tools::info;
use crate::tools::quote::quoted;

/// Where the sources go, opened.
struct Filled {
    /// The directory that new names are made in, as it was typed.
    path: Vec<u8>,
    fd: OwnedFd,
    /// The new name, if it is not that of the source; and whether it has to be a directory.
    name: Option<Vec<u8>>,
    must_be_dir: bool,
    /// The directory and all above it.
    within: Vec<Id>,
}

/// State from one source to the next.
#[derive(Default)]
struct Feed {
    /// The pair of directories of the last source: many come from one directory.
    last: Option<Arc<Node>>,
    batch: Batch,
    /// Sources with their new names.
    sources: HashSet<(Id, Vec<u8>)>,
    made: HashSet<Vec<u8>>,
}

/// Sends all sources on their way, and says what is wrong with those that cannot go.
pub(super) fn feed(job: &Job, operands: Vec<OsString>) {
    let is_dir = |path: &[u8]| Ok(look_at(AT_FDCWD, path, true)?.kind == Kind::Dir);
    let (sources, destination) = match understand(operands, &job.options.target, is_dir) {
        Ok(understood) => understood,
        Err(why) => return job.complain(&why),
    };
    let filled = open(&destination);
    if let Ok(filled) = &filled {
        job.found_mount(info::about(filled.fd.as_fd(), b".").is_ok());
    }
    let mut feed = Feed::default();
    for source in sources {
        if job.is_stopped() {
            return;
        }
        if let Err(why) = send(job, &mut feed, source.as_bytes(), &destination, &filled) {
            job.complain(&why);
        }
        job.pool.wait_for_room();
    }
    feed.leave(job);
}

fn open(destination: &Destination) -> Result<Filled, Errno> {
    let (path, name, must_be_dir) = match destination {
        Destination::Into(path) => (path.as_slice(), None, false),
        Destination::Name(path) => {
            let (parent, name) = split(path);
            (parent, Some(name.to_vec()), ends_with_slash(path))
        }
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let place = if path.is_empty() { b"." } else { path };
    let fd = match openat(AT_FDCWD, place, flags, Mode::empty()) {
        // Names can be made in a directory that may not be read.
        Err(Errno::EACCES) => openat(AT_FDCWD, place, flags | OFlag::O_PATH, Mode::empty())?,
        opened => opened?,
    };
    Ok(Filled {
        within: upwards(&fd)?,
        path: path.to_vec(),
        fd,
        name,
        must_be_dir,
    })
}

/// A directory and those above it.
fn upwards(fd: &OwnedFd) -> Result<Vec<Id>, Errno> {
    let id = |fd: &OwnedFd| Ok::<_, Errno>(Look::from(&fstat(fd)?).id);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = vec![id(fd)?];
    let mut at = openat(fd, "..", flags, Mode::empty())?;
    // The root is above itself.
    while found.last() != Some(&id(&at)?) {
        found.push(id(&at)?);
        at = openat(&at, "..", flags, Mode::empty())?;
    }
    Ok(found)
}

fn send(
    job: &Job,
    feed: &mut Feed,
    path: &[u8],
    destination: &Destination,
    filled: &Result<Filled, Errno>,
) -> Result<(), String> {
    let follow = job.options.follows(true) || ends_with_slash(path);
    let look = look_at(AT_FDCWD, path, follow);
    let look = look.map_err(|why| failed("cannot stat", path, why))?;
    if look.kind == Kind::Dir && !job.options.recursive {
        let name = quoted(path);
        return Err(format!("-r not specified; omitting directory {name}"));
    }
    let filled = match (filled, look.kind) {
        (Ok(filled), Kind::Dir) => filled,
        (Ok(filled), _) if !filled.must_be_dir => filled,
        (result, kind) => {
            let why = result.as_ref().err().copied().unwrap_or(Errno::ENOTDIR);
            return Err(failed(cannot_create(kind), path_of(destination), why));
        }
    };
    let (_, name) = split(path);
    let new_name = filled.name.as_deref().unwrap_or_else(|| name_inside(name));
    let new_path = join(&filled.path, new_name);
    if !feed.sources.insert((look.id, new_name.to_vec())) {
        warn_twice(job, path, look.kind);
        return Ok(());
    }
    let is_again = !feed.made.insert(new_name.to_vec());
    if is_again && look.kind != Kind::Dir {
        let (to, from) = (quoted(&new_path), quoted(path));
        return Err(format!("will not overwrite just-created {to} with {from}"));
    }
    if look.kind == Kind::Dir && filled.within.contains(&look.id) && !is_both(filled, look.id) {
        let (from, to) = (quoted(path), quoted(&new_path));
        return Err(format!(
            "cannot copy a directory, {from}, into itself, {to}"
        ));
    }
    if is_again {
        // Of two trees that become one, the later wins.
        feed.leave(job);
        job.pool.wait_until_idle();
    }
    let node = feed.node(job, path, filled)?;
    let item = Item {
        new_name: (new_name != name).then(|| new_name.to_vec()),
        node,
        name: name.to_vec(),
        look,
        follow,
    };
    let found = walk::sort(job, item, &mut feed.batch);
    job.pool.push_directories(found.into_iter().collect());
    Ok(())
}

/// Whether the source is what the new name stands for, which is said in other words.
fn is_both(filled: &Filled, id: Id) -> bool {
    let name = filled.name.as_deref();
    let there = name.and_then(|name| look_at(&filled.fd, name, false).ok());
    there.is_some_and(|there| there.id == id)
}

fn warn_twice(job: &Job, path: &[u8], kind: Kind) {
    let what = if kind == Kind::Dir {
        "directory"
    } else {
        "file"
    };
    let name = quoted(path);
    let text = format!("warning: source {what} {name} specified more than once");
    job.screen.complain(&text);
}

fn cannot_create(kind: Kind) -> &'static str {
    match kind {
        Kind::Dir => "cannot create directory",
        Kind::Symlink => "cannot create symbolic link",
        Kind::File => "cannot create regular file",
        Kind::Special(_) => "cannot create special file",
    }
}

fn path_of(destination: &Destination) -> &[u8] {
    match destination {
        Destination::Into(path) | Destination::Name(path) => path,
    }
}

impl Feed {
    /// The pair of a source's directory and the one to fill.
    fn node(&mut self, job: &Job, path: &[u8], filled: &Filled) -> Result<Arc<Node>, String> {
        let (parent, _) = split(path);
        if let Some(last) = self
            .last
            .as_ref()
            .filter(|last| last.source_path() == parent)
        {
            return Ok(Arc::clone(last));
        }
        self.leave(job);
        let cannot_open = |why| failed("cannot access", path, why);
        let place = if parent.is_empty() { b"." } else { parent };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let from = openat(AT_FDCWD, place, flags, Mode::empty()).map_err(cannot_open)?;
        let to = filled.fd.try_clone();
        let to = to.map_err(|why| cannot_open(Errno::try_from(why).unwrap_or(Errno::EMFILE)))?;
        let names = Names {
            from: parent.to_vec(),
            to: filled.path.clone(),
            follow: true,
        };
        let fds = Fds::new(from, to, &job.open);
        let node = Node::new(None, names, fds, Finish::Nothing).map_err(cannot_open)?;
        self.last = Some(Arc::clone(&node));
        Ok(node)
    }

    /// Nothing more comes from the last source's directory.
    fn leave(&mut self, job: &Job) {
        job.flush(&mut self.batch);
        if let Some(last) = self.last.take() {
            job.release(&last);
        }
    }
}
