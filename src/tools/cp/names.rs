//! Symbolic links, and further names of files that are copied already.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::attributes;
use super::item::{Item, Place};
use super::job::{Done, Job, Trouble, failed};
use super::node::{Fds, look_at};
use super::operands::join;
use super::plan::{Look, Over, over};
use crate::tools::quote::quoted;

/// What is to be done about a name that is there.
pub(super) enum Way {
    /// Nothing is there (any more).
    Free,
    /// It is to be left.
    Leave,
    /// It is a file to be written into.
    Write { through_link: bool },
}

/// Looks at what is there under an item's new name, and removes it if it has to go.
pub(super) fn make_way(job: &Job, item: &Item, fds: &Fds) -> Result<Way, Trouble> {
    let there = match look_at(fds.to(), item.to_name(), false) {
        Ok(there) => there,
        Err(Errno::ENOENT) => return Ok(Way::Free),
        Err(why) => return Err(failed("cannot stat", &item.new_path(), why).into()),
    };
    let behind = look_at(fds.to(), item.to_name(), true).ok();
    let to = || quoted(&item.new_path());
    match over(&item.look, &there, behind.as_ref(), &job.options) {
        Over::Leave => Ok(Way::Leave),
        Over::Write { through_link } => Ok(Way::Write { through_link }),
        Over::Remove => {
            if is_one(item, fds, behind.as_ref()) {
                return Err(same(item));
            }
            remove(job, item, fds)?;
            Ok(Way::Free)
        }
        Over::Same => Err(same(item)),
        Over::IsDirectory => {
            Err(format!("cannot overwrite directory {} with non-directory", to()).into())
        }
        Over::Dangling => Err(format!("not writing through dangling symlink {}", to()).into()),
    }
}

fn same(item: &Item) -> Trouble {
    let (from, to) = (quoted(&item.source_path()), quoted(&item.new_path()));
    format!("{from} and {to} are the same file").into()
}

/// Whether a link would take the place of the very file it leads to.
fn is_one(item: &Item, fds: &Fds, there: Option<&Look>) -> bool {
    let source = look_at(fds.from(), &item.name, true);
    matches!((source, there), (Ok(source), Some(there)) if source.id == there.id)
}

/// Removes the name that is in the way.
pub(super) fn remove(job: &Job, item: &Item, fds: &Fds) -> Result<(), Trouble> {
    match unlinkat(fds.to(), item.to_name(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => {
            if job.options.verbose {
                job.screen
                    .tell(&format!("removed {}", quoted(&item.new_path())));
            }
            Ok(())
        }
        Err(Errno::ENOENT) => Ok(()),
        Err(why) => Err(failed("cannot remove", &item.new_path(), why).into()),
    }
}

/// Makes a symbolic link like the source.
pub(super) fn symlink(job: &Job, item: &Item) -> Result<Done, Trouble> {
    let cannot_read = |why| failed("cannot read symbolic link", &item.source_path(), why);
    let fds = item.node.fds().map_err(cannot_read)?;
    let text = readlinkat(fds.from(), item.name.as_slice()).map_err(cannot_read)?;
    let make = || symlinkat(text.as_os_str(), fds.to(), item.to_name());
    let mut made = make();
    if made == Err(Errno::EEXIST) {
        match make_way(job, item, &fds)? {
            Way::Leave => return Ok(Done::Left),
            Way::Free | Way::Write { .. } => made = make(),
        }
    }
    made.map_err(|why| failed("cannot create symbolic link", &item.new_path(), why))?;
    if job.options.preserve {
        attributes::preserve_link(fds.to(), item.to_name(), &item.look, || item.new_path())?;
    }
    Ok(Done::Link)
}

/// Makes a further name of a file that is copied already.
pub(super) fn link(job: &Job, item: &Item, to: &Place) -> Result<Done, Trouble> {
    let cannot = |why: Errno| {
        let first = quoted(&join(&to.node.new_path(), &to.name));
        let name = quoted(&item.new_path());
        format!("cannot create hard link {name} to {first}: {}", why.desc())
    };
    let fds = item.node.fds().map_err(cannot)?;
    let first = to.node.fds().map_err(cannot)?;
    let make = || {
        let (old, new) = (to.name.as_slice(), item.to_name());
        linkat(first.to(), old, fds.to(), new, AtFlags::empty())
    };
    let mut made = make();
    if made == Err(Errno::EEXIST) {
        let id = |fds: &Fds, name: &[u8]| look_at(fds.to(), name, false).map(|look| look.id);
        if id(&fds, item.to_name()) == id(&first, &to.name) {
            return Ok(Done::Link);
        }
        match make_way(job, item, &fds)? {
            Way::Leave => return Ok(Done::Left),
            Way::Free => {}
            Way::Write { .. } => remove(job, item, &fds)?,
        }
        made = make();
    }
    made.map_err(cannot)?;
    Ok(Done::Link)
}
