//! stat(2), and chmod(2), chown(2), truncate(2), utimensat(2).

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;

use super::attr::Change;
use super::handles::{Fh, OpenFile};
use super::interrupt::further_groups;
use super::likeness::Doing;
use super::second_question::Refused;
use super::{Attr, Caller, Filesystem, Ino, Known};
use crate::client::{Handle, Losses, is_abandoned};
use crate::error::{Error, Operation, Result};
use crate::sftp::{Attrs, FileKind};

/// What a change of attributes goes through.
enum Through {
    Handle(Handle),
    Path(Bytes),
    /// A symbolic link itself.
    Link(Bytes),
}

impl Filesystem {
    /// Attributes of a file.
    pub(crate) async fn getattr(&self, ino: Ino) -> Result<Known> {
        if let Some(shared) = self.handles.shared(ino)
            && !shared.is_written()
        {
            if let Some(known) = self.unsettled(ino) {
                return Ok(known);
            }
            shared.written().await;
        }
        if let Some(known) = self.known(ino) {
            return Ok(known);
        }
        if let Some((attr, asked, sighting)) = self.listed_attr(ino) {
            return Ok(self.learn_listed(ino, attr, asked, sighting));
        }
        if ino == Ino::ROOT {
            return self.root_attributes().await;
        }
        self.ask_attributes(ino).await
    }

    /// Asks the server, whatever is known.
    pub(super) async fn ask_attributes(&self, ino: Ino) -> Result<Known> {
        let asked = self.now();
        let attrs = self.ask(ino).await?;
        self.learn(ino, &attrs, asked)
    }

    /// What the server says of a file: by an open handle where there is one.
    async fn ask(&self, ino: Ino) -> Result<Attrs> {
        let answer = self.ask_anyhow(ino).await;
        match answer {
            Ok(attrs) => Ok(attrs),
            Err(error) => Err(self
                .explain(Operation::Stat, error, Refused::Other)
                .await
                .into()),
        }
    }

    async fn ask_anyhow(&self, ino: Ino) -> Result<Attrs> {
        let mut losses = Losses::default();
        loop {
            let open = self.handles.any_file(ino, |file| file.handle().is_some());
            let by = open.and_then(|file| Some((file.handle()?, file)));
            let Some((handle, file)) = by else {
                return self
                    .at_path(|| self.path(ino), |path| self.look(path))
                    .await?
                    .1;
            };
            let mark = file.shared.mark();
            match self.client.fstat(&handle).await {
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                Ok(attrs) => {
                    self.saw(&file, &handle, self.look_at(mark, &attrs));
                    return Ok(attrs);
                }
                refused => return refused,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// access(2) where the kernel does not judge by the mode itself (without
    /// `default_permissions`). Whether the server lets the login user do it, only trying tells; what
    /// the mode says to the file's owner, and that nobody executes a file without an `x`, is told.
    ///
    /// # Errors
    /// EACCES.
    pub(crate) async fn access(&self, ino: Ino, mask: u16, caller: Caller) -> Result<()> {
        let attr = self.getattr(ino).await?.attr;
        let by_owner = attr.permissions >> 6 & 0o7;
        let is_owner = caller.uid == attr.uid && caller.uid != 0;
        let allowed = if is_owner { by_owner } else { 0o7 };
        let is_executable = attr.kind == FileKind::Directory || attr.permissions & 0o111 != 0;
        let allowed = if is_executable {
            allowed
        } else {
            allowed & !X_OK
        };
        if mask & 0o7 & !allowed != 0 {
            return Err(Errno::EACCES.into());
        }
        Ok(())
    }

    /// Whether a caller may read a file that he names by its number, as far as its mode and those of
    /// the directories above it tell, and modes are checked at all.
    ///
    /// # Errors
    /// EACCES; ESTALE for a number that leads nowhere.
    pub(crate) async fn may_read(&self, ino: Ino, caller: Caller) -> Result<()> {
        self.path(ino)?;
        if !self.config.default_permissions {
            return Ok(());
        }
        let above = self.tables().inodes.above(ino);
        for directory in above {
            self.may(directory, caller, X_OK).await?;
        }
        self.may(ino, caller, R_OK).await
    }

    /// Whether a caller may do something with a file that he names by its number, where modes are
    /// to be judged by here (`default_permissions`); elsewhere the server alone decides.
    ///
    /// # Errors
    /// As [`Self::may_read`].
    pub(super) async fn may(&self, ino: Ino, caller: Caller, what: u16) -> Result<()> {
        if self.config.default_permissions
            && !may_by_mode(&self.getattr(ino).await?.attr, caller, what)
        {
            return Err(Errno::EACCES.into());
        }
        Ok(())
    }

    /// Changes attributes; through `fh` if the program named a file that it has open.
    pub(crate) async fn setattr(
        self: &Arc<Self>,
        ino: Ino,
        change: Change,
        fh: Option<Fh>,
    ) -> Result<Known> {
        if change.is_empty() {
            return self.getattr(ino).await;
        }
        let sure = self.sure_change(ino, &change);
        if let Some(known) = sure.as_ref().and_then(|sure| self.change_ahead(sure, true)) {
            return Ok(known);
        }
        if !self.is_own(ino) {
            // What the file is already, a `cp -p` may say again without parting the two.
            let known = self.ask_attributes(ino).await?;
            if change.is_of(&known.attr) {
                return Ok(known);
            }
        }
        let _passes = self
            .pass_as_owner(&[ino], ino, change.size.unwrap_or(u64::MAX))
            .await?;
        if let Some(shared) = self.handles.shared(ino) {
            // Writes that arrive later would bring the old size or time back.
            shared.written().await;
        }
        let there = if change.is_half() {
            // Not what is remembered: another client may have changed the half that stays.
            self.ask(ino).await?
        } else {
            Attrs::default()
        };
        let requests = change.requests(&there, &self.translator)?;
        // By its path another file would be changed, if there is one now.
        self.open_lost_of(ino).await;
        let shared = self.handles.shared(ino);
        let doing = change.size.map_or(Doing::Attributes, Doing::Resize);
        let changing = shared.as_ref().map(|shared| shared.begin(doing));
        self.tables().changed(ino);
        let asked = self.now();
        let done = self
            .apply_to(ino, (change.size.is_some(), fh), requests)
            .await;
        if change.size.is_some()
            && let Some(shared) = self.handles.shared(ino)
        {
            shared.content_changed();
        }
        let seen = match done {
            Ok(seen) => seen,
            Err(error) => return Err(self.refused_change(ino, &change, error).await),
        };
        if let Some(sure) = &sure {
            self.was_made(sure);
        }
        if let (Some(owner), Some(shared)) = (seen.owner, self.handles.shared(ino)) {
            shared.set_owner(owner);
        }
        self.learn(ino, &seen, asked)?;
        changing.map(|changing| changing.done(doing));
        self.touch(ino);
        self.tell_aliases(ino);
        self.known(ino)
            .map_or_else(|| self.learn(ino, &seen, asked), Ok)
    }

    /// How to reach a file for a change of attributes: by an open handle where there is one, since
    /// that is the very file; a new size needs a handle that may write.
    fn through(&self, ino: Ino, resize: bool, fh: Option<Fh>) -> Result<Through> {
        let kind = self
            .tables()
            .inodes
            .kind(ino)
            .ok_or(Error::Errno(Errno::ESTALE))?;
        if kind == FileKind::Symlink {
            return Ok(Through::Link(self.path(ino)?));
        }
        let fitting = |file: &OpenFile| match resize {
            true => file.full_handle().filter(|_| file.access.write),
            false => file.handle(),
        };
        let named = fh.and_then(|fh| self.handles.file(fh));
        let handle = named.and_then(|file| fitting(&file)).or_else(|| {
            let open = self.handles.any_file(ino, |file| fitting(file).is_some());
            open.and_then(|file| fitting(&file))
        });
        match handle {
            Some(handle) => Ok(Through::Handle(handle)),
            None => Ok(Through::Path(self.path(ino)?)),
        }
    }

    /// Makes changes, again if the connection is lost: they say what shall be, not what is added.
    async fn apply_to(
        &self,
        ino: Ino,
        (resize, fh): (bool, Option<Fh>),
        requests: Vec<Attrs>,
    ) -> Result<Attrs> {
        let mut losses = Losses::default();
        loop {
            if let Some(file) = fh.and_then(|fh| self.handles.file(fh))
                && file.is_lost()
            {
                self.handle(&file).await?;
            }
            // None of a file that was removed, and is open.
            let path = || Ok(self.path(ino).ok());
            let apply = async |_| {
                let through = self.through(ino, resize, fh)?;
                if is_abandoned() {
                    return Err(Errno::EINTR.into());
                }
                self.apply(&through, requests.clone()).await
            };
            match self.at_path(path, apply).await?.1 {
                // Not late, behind what was done since.
                Err(error) if error.is_of_connection() && is_abandoned() => return Err(error),
                Err(error) if error.is_of_connection() => losses.count(&error)?,
                done => return done,
            }
            tokio::time::sleep(losses.rest()).await;
        }
    }

    /// Sends the changes and a look at the result behind them, in one round trip.
    async fn apply(&self, through: &Through, requests: Vec<Attrs>) -> Result<Attrs> {
        let client = &self.client;
        match through {
            Through::Handle(handle) => {
                let sent = requests
                    .into_iter()
                    .map(|attrs| client.fsetstat(handle, attrs));
                let sent: Vec<_> = sent.collect();
                all(sent, client.fstat(handle)).await
            }
            Through::Path(path) => {
                let sent = requests
                    .into_iter()
                    .map(|attrs| client.setstat(path.clone(), attrs));
                let sent: Vec<_> = sent.collect();
                all(sent, client.stat(path.clone())).await
            }
            Through::Link(path) => {
                for attrs in requests {
                    client.lsetstat(path.clone(), attrs).await?;
                }
                client.lstat(path.clone()).await
            }
        }
    }

    async fn refused_change(&self, ino: Ino, change: &Change, error: Error) -> Error {
        let path = self.path(ino).unwrap_or_else(|_| self.root());
        let Some(new_size) = change.size else {
            return self
                .explain(Operation::SetAttributes, error, Refused::Attributes(path))
                .await
                .into();
        };
        let size = self.tables().attrs.last(ino).map_or(0, |attr| attr.size);
        let refused = Refused::Resize {
            path,
            grows: new_size > size,
        };
        self.explain(Operation::Truncate, error, refused)
            .await
            .into()
    }

    /// Makes a file that we just made what its maker asked for: the server's umask may have taken
    /// bits of the mode, and the owner is the login user there.
    pub(super) fn correction(
        &self,
        parent: Ino,
        attrs: &Attrs,
        mode: Option<u32>,
        caller: Caller,
    ) -> Change {
        let mut change = Change::default();
        let got = attrs.permissions.unwrap_or(0);
        // A directory's set-group-ID bit is inherited on the server; it is not asked for.
        let kept = if attrs.kind() == Some(FileKind::Directory) {
            got & 0o2000
        } else {
            0
        };
        change.permissions = mode
            .filter(|mode| (mode & 0o7777) | kept != got & 0o7777)
            .map(|mode| super::attr::low_bits(mode | kept));
        if !self.translator.gives_away() {
            return change;
        }
        let inherits = self
            .tables()
            .attrs
            .last(parent)
            .is_some_and(|parent| parent.permissions & 0o2000 != 0);
        let (uid, gid) = attrs.owner.unwrap_or((caller.uid, caller.gid));
        change.uid = (uid != caller.uid).then_some(caller.uid);
        change.gid = (gid != caller.gid && !inherits).then_some(caller.gid);
        if (change.uid.is_some() || change.gid.is_some()) && change.permissions.is_none() {
            // chown(2) takes set-ID bits away that the maker asked for.
            change.permissions = mode
                .filter(|mode| mode & 0o6000 != 0)
                .map(|mode| super::attr::low_bits(mode | kept));
        }
        change
    }
}

/// Whether a mode lets a caller do something: bits of access(2)'s mask.
pub(super) fn may_by_mode(attr: &Attr, caller: Caller, what: u16) -> bool {
    let shift = match caller {
        Caller { uid: 0, .. } => return true,
        Caller { uid, .. } if uid == attr.uid => 6,
        Caller { gid, .. } if gid == attr.gid || further_groups().contains(&attr.gid) => 3,
        _ => 0,
    };
    attr.permissions >> shift & what == what
}

/// Waits for all; the first refusal counts, whatever comes after it.
async fn all(
    changes: Vec<impl Future<Output = Result<()>>>,
    look: impl Future<Output = Result<Attrs>>,
) -> Result<Attrs> {
    for change in changes {
        change.await?;
    }
    look.await
}

/// The bits of access(2)'s mask that ask for reading and for execution (unistd.h).
const R_OK: u16 = 0o4;
const X_OK: u16 = 0o1;
