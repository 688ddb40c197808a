//! Changes of attributes that are answered before the server has made them: mode, owner and times of
//! a file that is open for writing here, where nothing speaks against it. They are sent in their
//! place among the file's writes; what goes wrong is told as an error of a write is.
//!
//! Nobody waits where it is known that the server will do it: the file is ours there, and it has made
//! such a change before in this mount. Once it refuses one that was to be sure, all wait again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::attr::{Change, Translator};
use super::handles::OpenFile;
use super::second_question::Refused;
use super::shared_file::SharedFile;
use super::unwritten::Via;
use super::write::send;
use super::{Attr, Filesystem, Ino, Known};
use crate::clock;
use crate::error::{Error, Operation};
use crate::sftp::Attrs;

/// Whose a file is on the server, in its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// User and group.
    pub(super) owner: (u32, u32),
    /// To whom it belonged when this mount made it: who we really are there.
    pub(super) maker: Option<u32>,
}

/// A kind of change that a server may make or refuse, whatever the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Mode = 1,
    Times = 2,
    /// The owner and group that it has.
    SameOwner = 4,
    OtherOwner = 8,
}

/// Which kinds of changes the server was seen to make.
#[derive(Debug, Default)]
pub(super) struct Proven {
    made: AtomicU8,
    /// It refused one that was to be sure.
    refused: AtomicU8,
}

impl Proven {
    fn has(&self, class: Class) -> bool {
        let bits = self.made.load(Ordering::Relaxed) & !self.refused.load(Ordering::Relaxed);
        bits & class as u8 != 0
    }

    fn made(&self, class: Class) {
        self.made.fetch_or(class as u8, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.refused.store(u8::MAX, Ordering::Relaxed);
    }
}

impl Standing {
    /// Whether the half that a change leaves as it is is known: of a file that we made, and still
    /// have open, all but the mtime, which the server sets. tar(1) leaves the atime.
    const fn knows_rest(&self, change: &Change) -> bool {
        let leaves_mtime = change.atime.is_some() && change.mtime.is_none();
        self.maker.is_some() && !leaves_mtime
    }

    /// The kinds of changes that requests make, if a server that keeps to POSIX has no reason to
    /// refuse any of them or to make another one of it; `attr` is what the file has.
    fn allows(
        &self,
        requests: &[Attrs],
        attr: &Attr,
        translator: &Translator,
    ) -> Option<Vec<Class>> {
        let (uid, _) = self.owner;
        let is_ours = self
            .maker
            .map_or_else(|| translator.is_login_user(uid), |maker| maker == uid);
        let is_root = self.maker == Some(0);
        let mut classes = Vec::new();
        for request in requests {
            if request.size.is_some() || !(is_ours || is_root) {
                return None;
            }
            if let Some(owner) = request.owner {
                // chown(2) takes set-ID bits away, of which the server decides.
                if attr.permissions & SET_ID != 0 || (owner != self.owner && !is_root) {
                    return None;
                }
                classes.push(match owner == self.owner {
                    true => Class::SameOwner,
                    false => Class::OtherOwner,
                });
            }
            if let Some(mode) = request.permissions {
                // The server keeps these only of some.
                if mode & SPECIAL != 0 {
                    return None;
                }
                classes.push(Class::Mode);
            }
            classes.extend(request.times.map(|_| Class::Times));
        }
        Some(classes)
    }
}

/// A change that may be answered ahead, but for proof.
pub(super) struct Sure {
    shared: Arc<SharedFile>,
    via: Via,
    requests: Vec<Attrs>,
    attr: Attr,
    classes: Vec<Class>,
}

impl Filesystem {
    /// A change of a file that is open for writing here, if nothing speaks against it.
    pub(super) fn sure_change(&self, ino: Ino, change: &Change) -> Option<Sure> {
        if self.config.sync || change.size.is_some() {
            return None;
        }
        let shared = self.handles.shared(ino)?;
        // Others may have written to it since, and where nothing is believed that is to be told.
        if self.config.attr_timeout.is_zero() && shared.is_written() {
            return None;
        }
        let standing = shared.standing()?;
        let via = self.via_of(&shared)?;
        let attr = self.tables().attrs.last(ino)?;
        if change.is_half() && !standing.knows_rest(change) {
            return None;
        }
        let there = Attrs {
            owner: Some(standing.owner),
            times: Some((attr.atime, attr.mtime)),
            ..Attrs::default()
        };
        let requests = change.requests(&there, &self.translator).ok()?;
        let classes = standing.allows(&requests, &attr, &self.translator)?;
        Some(Sure {
            shared,
            via,
            requests,
            attr,
            classes,
        })
    }

    /// The handle that a change goes through: the one that was used last, so that it need not wait
    /// for what is on its way through another.
    fn via_of(&self, shared: &SharedFile) -> Option<Via> {
        let full = |file: &OpenFile| file.full_handle().filter(|_| file.access.write);
        let last = shared.newest().and_then(|fh| self.handles.file(fh));
        let file = last.filter(|file| full(file).is_some()).or_else(|| {
            self.handles
                .any_file(shared.ino, |file| full(file).is_some())
        })?;
        let (handle, id) = (full(&file)?, (file.fh, false));
        let appends = file.access.append;
        Some(Via {
            handle,
            id,
            appends,
        })
    }

    /// Makes a change without waiting for the server, if it is known to make such ones. `is_asked`: a
    /// program is to be told what goes wrong.
    pub(super) fn change_ahead(self: &Arc<Self>, sure: &Sure, is_asked: bool) -> Option<Known> {
        let Sure { shared, via, .. } = sure;
        if !sure.classes.iter().all(|class| self.proven.has(*class)) {
            return None;
        }
        self.hear();
        if !shared.is_own() && !self.is_own(shared.ino) {
            return None;
        }
        let must_start = shared.change(via, sure.requests.clone(), is_asked)?;
        for owner in sure.requests.iter().filter_map(|request| request.owner) {
            shared.set_owner(owner);
        }
        let mut will_be = sure.attr;
        for request in &sure.requests {
            will_be = self.translator.changed(will_be, request);
        }
        let now = clock::wall();
        self.tables().change(shared.ino, clock::now(), |attr| {
            attr.permissions = will_be.permissions;
            (attr.uid, attr.gid) = (will_be.uid, will_be.gid);
            (attr.atime, attr.mtime) = (will_be.atime, will_be.mtime);
            attr.ctime = attr.ctime.max(now);
        });
        self.tell_aliases(shared.ino);
        if must_start {
            tokio::spawn(send(Arc::clone(self), Arc::clone(shared)));
        }
        self.unsettled(shared.ino)
    }

    /// The server has made a change that was sure, while somebody waited for it.
    pub(super) fn was_made(&self, sure: &Sure) {
        sure.classes
            .iter()
            .for_each(|class| self.proven.made(*class));
    }

    /// The server refused a change that was answered ahead.
    pub(super) async fn refused_ahead(&self, shared: &SharedFile, error: Error) -> Error {
        let path = self.path(shared.ino).unwrap_or_else(|_| self.root());
        if !error.tells_nothing() {
            self.proven.refused();
        }
        log::warn!(
            "changing mode, owner or times of \"{}\": {error}",
            path.escape_ascii()
        );
        self.explain(Operation::SetAttributes, error, Refused::Attributes(path))
            .await
            .into()
    }
}

/// S_ISUID and S_ISGID.
const SET_ID: u16 = 0o6000;
/// Those and S_ISVTX.
const SPECIAL: u32 = 0o7000;
