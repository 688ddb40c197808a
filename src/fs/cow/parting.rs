//! Before a file is given its storage for itself: who shares it, who of them is to move, and who of
//! them still shares it, as far as the server can be asked.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::error::Result;
use crate::fs::names::may_be_one_file;
use crate::fs::{Filesystem, Ino};
use crate::sftp::StatusCode;

/// Which names are to lead to another server file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parting {
    /// The file that must not share its storage any more.
    pub(super) ino: Ino,
    pub(super) path: Bytes,
    /// Whether the others move, and the file itself stays where it is.
    pub(super) others_move: bool,
    /// Names of the others.
    pub(super) others: Vec<Bytes>,
    /// Names of the file.
    pub(super) names: Vec<Bytes>,
    /// The inodes of all that may move, as far as they are known here.
    pub(super) files: Vec<Ino>,
}

/// What the server tells of a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// May be the same server file.
    pub(super) sharing: Vec<Bytes>,
    /// Lead to another one, or nowhere.
    pub(super) apart: Vec<Bytes>,
}

impl Filesystem {
    /// Whether the server has names of a file that are not known here and must go on leading to
    /// the same file; only the original of a group can have them.
    pub(super) async fn must_stay(&self, ino: Ino) -> bool {
        let original = {
            let tables = self.tables();
            let mut paths = tables.inodes.paths(ino).into_iter();
            paths.find(|path| tables.groups.is_original(path))
        };
        match original {
            Some(path) => self.has_unknown_names(ino, &path).await,
            None => false,
        }
    }

    /// Who gets the new server file: the file itself, or all others if it has further names, made
    /// by link(2), that must go on leading to one file. `None`: it shares with nobody.
    pub(super) fn plan_parting(&self, ino: Ino, must_stay: bool) -> Option<Parting> {
        let tables = self.tables();
        let mut paths = tables.inodes.paths(ino).into_iter();
        let path = paths.find(|path| tables.groups.shares(path))?;
        let names = tables.groups.names_of_member(&path);
        let others = tables.groups.other_members(&path).into_iter().flatten();
        let others: Vec<Bytes> = others.collect();
        let others_move = names.len() > 1 || must_stay;
        let movers = if others_move { &others } else { &names };
        let files = movers.iter().filter_map(|path| tables.inodes.at_path(path));
        let mut files: Vec<Ino> = files.chain([ino]).collect();
        files.sort_unstable();
        files.dedup();
        Some(Parting {
            ino,
            path,
            others_move,
            others,
            names,
            files,
        })
    }

    /// Whether the others still are the same server file: somebody may have replaced them there.
    /// `None` if the file itself is gone.
    ///
    /// # Errors
    /// If the file itself cannot be looked at.
    pub(super) async fn look_at_group(
        &self,
        path: &Bytes,
        others: &[Bytes],
    ) -> Result<Option<Looked>> {
        let mut looked = Looked::default();
        for some in others.chunks(LOOKS_MAX) {
            let before = self.client.lstat(path.clone());
            let each: Vec<_> = some
                .iter()
                .map(|path| self.client.lstat(path.clone()))
                .collect();
            // Once more behind them: while somebody writes to it, no two looks are alike.
            let after = self.client.lstat(path.clone());
            let (before, after) = match (before.await, after.await) {
                (Ok(before), Ok(after)) => (before, after),
                (Err(error), _) | (_, Err(error)) => {
                    let is_gone = error.is_refused_with(StatusCode::NO_SUCH_FILE);
                    return if is_gone { Ok(None) } else { Err(error) };
                }
            };
            let is_steady = may_be_one_file(&before, &after);
            for (path, other) in some.iter().zip(join_all(each).await) {
                let is_sharing = match &other {
                    Ok(other) => !is_steady || may_be_one_file(&before, other),
                    Err(error) => !error.is_refused_with(StatusCode::NO_SUCH_FILE),
                };
                let list = if is_sharing {
                    &mut looked.sharing
                } else {
                    &mut looked.apart
                };
                list.push(path.clone());
            }
        }
        Ok(Some(looked))
    }
}

/// Names that are looked at in one round trip.
pub(super) const LOOKS_MAX: usize = 64;
