//! The server's attributes and ours: numbers of users and groups, modes as the user wants to see
//! them, and what a change of attributes looks like on the wire.

use std::collections::HashMap;

use nix::errno::Errno;

use super::config::{Config, IdMap};
use crate::cache::Attr;
use crate::clock::Seconds;
use crate::error::{Error, Result};
use crate::sftp::{Attrs, FileKind};

/// A change of attributes that setattr(2)'s family asks for; `None` leaves a field as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) permissions: Option<u16>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<Seconds>,
    pub(crate) mtime: Option<Seconds>,
}

/// Translates between the server's attributes and ours.
#[derive(Debug, Clone)]
pub(super) struct Translator {
    ids: IdMap,
    /// The user and group that we are logged in as there.
    login: (u32, u32),
    uid: Option<u32>,
    gid: Option<u32>,
    file_mask: u32,
    dir_mask: u32,
}

impl Translator {
    pub(super) fn new(config: &Config, login: (u32, u32)) -> Self {
        let mask = config.umask.unwrap_or(0);
        Self {
            ids: config.id_map.clone(),
            login,
            uid: config.uid,
            gid: config.gid,
            file_mask: config.fmask.unwrap_or(mask),
            dir_mask: config.dmask.unwrap_or(mask),
        }
    }

    /// The server's attributes in our terms. What the server does not say is taken as least
    /// surprising: a regular file of the login user.
    ///
    /// # Errors
    /// EPERM for a number that a strict table does not have.
    pub(super) fn local(&self, attrs: &Attrs) -> Result<Attr> {
        let kind = attrs.kind().unwrap_or(FileKind::Regular);
        let mode = attrs.permissions.unwrap_or(if kind == FileKind::Directory {
            0o755
        } else {
            0o644
        });
        let owner = attrs.owner.unwrap_or(self.login);
        let (uid, gid) = self.local_owner(owner)?;
        let (atime, mtime) = attrs.times.unwrap_or((0, 0));
        Ok(Attr {
            kind,
            permissions: low_bits(mode & !self.mask(kind)),
            uid: self.uid.unwrap_or(uid),
            gid: self.gid.unwrap_or(gid),
            size: attrs.size.unwrap_or(0),
            atime,
            mtime,
            ctime: mtime,
        })
    }

    /// Attributes as they are shown after a request to change them.
    pub(super) fn changed(&self, attr: Attr, request: &Attrs) -> Attr {
        let mut attr = attr;
        if let Some(mode) = request.permissions {
            attr.permissions = low_bits(mode & !self.mask(attr.kind));
        }
        if let Some(Ok((uid, gid))) = request.owner.map(|owner| self.local_owner(owner)) {
            attr.uid = self.uid.unwrap_or(uid);
            attr.gid = self.gid.unwrap_or(gid);
        }
        if let Some(times) = request.times {
            (attr.atime, attr.mtime) = times;
        }
        attr
    }

    /// Permissions that are not shown.
    const fn mask(&self, kind: FileKind) -> u32 {
        match kind {
            FileKind::Directory => self.dir_mask,
            FileKind::Symlink => 0,
            _ => self.file_mask,
        }
    }

    /// The server's user and group as ours.
    fn local_owner(&self, (uid, gid): (u32, u32)) -> Result<(u32, u32)> {
        match &self.ids {
            IdMap::None => Ok((uid, gid)),
            IdMap::User {
                uid: our_uid,
                gid: our_gid,
            } => Ok((
                if uid == self.login.0 { *our_uid } else { uid },
                if gid == self.login.1 { *our_gid } else { gid },
            )),
            IdMap::Table { uids, gids, strict } => {
                let find = |table: &HashMap<u32, u32>, id| match table.get(&id) {
                    Some(ours) => Ok(*ours),
                    None if *strict => Err(Error::Errno(Errno::EPERM)),
                    None => Ok(id),
                };
                Ok((find(uids, uid)?, find(gids, gid)?))
            }
        }
    }

    /// Our user as the server's.
    ///
    /// # Errors
    /// EPERM for a number that a strict table does not have.
    pub(super) fn remote_uid(&self, uid: u32) -> Result<u32> {
        match &self.ids {
            IdMap::User { uid: ours, .. } if uid == *ours => Ok(self.login.0),
            IdMap::None | IdMap::User { .. } => Ok(uid),
            IdMap::Table { uids, strict, .. } => theirs(uids, uid, *strict),
        }
    }

    /// Our group as the server's.
    ///
    /// # Errors
    /// As [`Self::remote_uid`].
    pub(super) fn remote_gid(&self, gid: u32) -> Result<u32> {
        match &self.ids {
            IdMap::User { gid: ours, .. } if gid == *ours => Ok(self.login.1),
            IdMap::None | IdMap::User { .. } => Ok(gid),
            IdMap::Table { gids, strict, .. } => theirs(gids, gid, *strict),
        }
    }

    /// Whether these are the server's numbers of whoever is logged in there.
    pub(super) fn is_login(&self, owner: (u32, u32)) -> bool {
        owner == self.login
    }

    /// Whether this is the server's number of the user who is logged in there.
    pub(super) const fn is_login_user(&self, uid: u32) -> bool {
        uid == self.login.0
    }

    /// Whether a file that is shown as of this user is of the user who is logged in on the server.
    pub(super) fn is_shown_as_ours(&self, uid: u32) -> bool {
        self.uid.is_none()
            && self
                .local_owner(self.login)
                .is_ok_and(|(ours, _)| ours == uid)
    }

    /// The server's number of the user to whom belongs what `caller` makes.
    pub(super) fn maker(&self, caller: u32) -> u32 {
        if self.gives_away() {
            caller
        } else {
            self.login.0
        }
    }

    /// Whether what we make there belongs to whoever makes it here: true where we are root there
    /// and numbers mean the same on both sides, so that giving files away makes sense.
    pub(super) fn gives_away(&self) -> bool {
        self.login.0 == 0 && self.ids == IdMap::None && self.uid.is_none() && self.gid.is_none()
    }
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a file with these attributes is as the change would have it. The time of the last
    /// access counts only by itself: beside the other it is what `cp -p` saw before somebody read
    /// the file, and not worth a copy.
    pub(super) fn is_of(&self, attr: &Attr) -> bool {
        let same = |change: Option<u32>, is: u32| change.is_none_or(|change| change == is);
        same(self.uid, attr.uid)
            && same(self.gid, attr.gid)
            && (self.mtime.is_some() || same(self.atime, attr.atime))
            && same(self.mtime, attr.mtime)
            && self.permissions.is_none_or(|mode| mode == attr.permissions)
            && self.size.is_none_or(|size| size == attr.size)
    }

    /// Whether it names one of owner and group, or one of the two times, and so needs the other.
    pub(super) const fn is_half(&self) -> bool {
        self.uid.is_some() != self.gid.is_some() || self.atime.is_some() != self.mtime.is_some()
    }

    /// The requests that make this change, in order. SFTP carries owner and group, and both times,
    /// in pairs only; `there`, what the server has now, fills in the half that stays. The owner
    /// goes first and in a request of its own, because chown(2) takes set-user-ID bits that a new
    /// mode may want.
    ///
    /// # Errors
    /// EPERM for an owner that the server cannot be told.
    pub(super) fn requests(&self, there: &Attrs, translator: &Translator) -> Result<Vec<Attrs>> {
        let mut requests = Vec::new();
        if self.uid.is_some() || self.gid.is_some() {
            let (uid, gid) = there.owner.unwrap_or(translator.login);
            let owner = (
                self.uid.map_or(Ok(uid), |uid| translator.remote_uid(uid))?,
                self.gid.map_or(Ok(gid), |gid| translator.remote_gid(gid))?,
            );
            requests.push(Attrs {
                owner: Some(owner),
                ..Attrs::default()
            });
        }
        let (atime, mtime) = there.times.unwrap_or((0, 0));
        let times = (self.atime.is_some() || self.mtime.is_some())
            .then(|| (self.atime.unwrap_or(atime), self.mtime.unwrap_or(mtime)));
        let permissions = self.permissions.map(u32::from);
        if self.size.is_some() || permissions.is_some() || times.is_some() {
            requests.push(Attrs {
                size: self.size,
                permissions,
                times,
                ..Attrs::default()
            });
        }
        Ok(requests)
    }
}

/// The server's number for one of ours.
fn theirs(table: &HashMap<u32, u32>, ours: u32, strict: bool) -> Result<u32> {
    match table.iter().find(|(_, mapped)| **mapped == ours) {
        Some((theirs, _)) => Ok(*theirs),
        None if strict => Err(Error::Errno(Errno::EPERM)),
        None => Ok(ours),
    }
}

/// The twelve permission bits of a mode.
pub(super) fn low_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translator(id_map: IdMap) -> Translator {
        Translator::new(
            &Config {
                id_map,
                ..Config::default()
            },
            (500, 600),
        )
    }

    fn owned_by(owner: (u32, u32)) -> Attrs {
        Attrs {
            owner: Some(owner),
            permissions: Some(0o100_644),
            ..Attrs::default()
        }
    }

    #[test]
    fn the_login_user_becomes_the_mounting_user_and_back() {
        let translator = translator(IdMap::User {
            uid: 1000,
            gid: 1001,
        });
        let attr = translator.local(&owned_by((500, 600))).unwrap();
        assert_eq!((attr.uid, attr.gid), (1000, 1001));
        assert_eq!(translator.remote_uid(1000), Ok(500));
        assert_eq!(translator.remote_gid(1001), Ok(600));
        let other = translator.local(&owned_by((7, 8))).unwrap();
        assert_eq!((other.uid, other.gid), (7, 8));
    }

    #[test]
    fn a_strict_table_refuses_what_it_does_not_have() {
        let table = |strict| IdMap::Table {
            uids: HashMap::from([(500, 1000)]),
            gids: HashMap::from([(600, 1000)]),
            strict,
        };
        assert_eq!(
            translator(table(true)).local(&owned_by((1, 600))),
            Err(Errno::EPERM.into())
        );
        assert_eq!(
            translator(table(false))
                .local(&owned_by((1, 600)))
                .unwrap()
                .uid,
            1
        );
        assert_eq!(translator(table(true)).remote_uid(1000), Ok(500));
        assert_eq!(
            translator(table(true)).remote_uid(7),
            Err(Errno::EPERM.into())
        );
    }

    #[test]
    fn masks_take_bits_from_files_and_directories_apart() {
        let config = Config {
            umask: Some(0o077),
            dmask: Some(0o007),
            ..Config::default()
        };
        let translator = Translator::new(&config, (0, 0));
        let seen = |mode| {
            let attrs = Attrs {
                permissions: Some(mode),
                ..Attrs::default()
            };
            translator.local(&attrs).unwrap().permissions
        };
        assert_eq!((seen(0o100_666), seen(0o040_777)), (0o600, 0o770));
    }

    #[test]
    fn one_time_alone_keeps_the_other() {
        let there = Attrs {
            times: Some((10, 20)),
            ..Attrs::default()
        };
        let change = Change {
            atime: Some(99),
            ..Change::default()
        };
        let requests = change.requests(&there, &translator(IdMap::None)).unwrap();
        assert_eq!(
            requests,
            [Attrs {
                times: Some((99, 20)),
                ..Attrs::default()
            }]
        );
    }

    #[test]
    fn the_owner_is_changed_before_the_mode() {
        let there = owned_by((1, 2));
        let change = Change {
            uid: Some(5),
            permissions: Some(0o4755),
            ..Change::default()
        };
        let requests = change.requests(&there, &translator(IdMap::None)).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].owner, Some((5, 2)));
        assert_eq!(requests[1].permissions, Some(0o4755));
    }
}
