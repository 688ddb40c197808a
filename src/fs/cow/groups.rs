//! Which names share storage on the server because one was made as a copy of the other.
//!
//! A *member* is a file as the mount shows it: one name, or several that link(2) made. A *group*
//! is the members whose names all lead to one inode of the server; it has two members at least.
//! Its first member is the *original*, the others are copies of it, by age. Names are absolute
//! paths of the server, any bytes but NUL. Pure state: no I/O and no clock; [`Change`] is what can
//! happen to it, as it is kept in the journal.

#[cfg(test)]
pub(in crate::fs) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

/// Names in the table from which on no copy joins it. A name of 100 bytes takes some 400 bytes of
/// memory (measured in a test), so this is 400 MB: a limit against running away, not a budget.
pub(in crate::fs) const NAMES_MAX: usize = 1 << 20;

/// One thing that happens to the names of copies. Every name is an absolute path of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fs) enum Change {
    /// `copy` became a copy of `source` ([`Groups::joined`]).
    Joined { source: Bytes, copy: Bytes },
    /// link(2) gave the file of `existing` the name `new` ([`Groups::linked`]).
    Linked { existing: Bytes, new: Bytes },
    /// The file of this name has storage of its own ([`Groups::left`]).
    Left(Bytes),
    /// All others moved to another storage ([`Groups::others_left`]).
    OthersLeft(Bytes),
    /// The name is gone ([`Groups::removed`]).
    Removed(Bytes),
    /// rename(2) succeeded ([`Groups::renamed`]).
    Renamed { from: Bytes, to: Bytes },
    /// A temporary name is about to be made on the server. No group changes.
    Temporary(Bytes),
    /// That name is gone again, or never was. No group changes.
    TemporaryGone(Bytes),
}

/// Members are numbered by age.
type MemberId = u64;
type GroupId = u64;

#[derive(Debug)]
struct Member {
    group: GroupId,
    names: Vec<Bytes>,
}

/// The table of names that share storage.
#[derive(Debug, Default)]
pub(in crate::fs) struct Groups {
    /// Sorted, so that all that lies below a directory is one range.
    names: BTreeMap<Bytes, MemberId>,
    members: HashMap<MemberId, Member>,
    /// By age: the first is the original. Never fewer than two.
    groups: BTreeMap<GroupId, BTreeSet<MemberId>>,
    last_id: u64,
    /// Counts changes of who shares storage.
    version: u64,
    /// See [`Groups::take_moved`].
    moved: Vec<Bytes>,
}

impl Groups {
    pub(in crate::fs) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Another number whenever somebody else shares storage than before.
    pub(in crate::fs) const fn version(&self) -> u64 {
        self.version
    }

    /// Names in the table.
    #[cfg(test)]
    pub(in crate::fs) fn len(&self) -> usize {
        self.names.len()
    }

    /// No copy can join any more: make real copies.
    pub(in crate::fs) fn is_full(&self) -> bool {
        // A copy and its source are two names.
        self.names.len() + 2 > NAMES_MAX
    }

    /// A write to this name would show in another file, unless it gets storage of its own first.
    pub(in crate::fs) fn shares(&self, path: &[u8]) -> bool {
        self.names.contains_key(path)
    }

    /// All names of the file that has this name, this one first; none if it shares nothing.
    pub(in crate::fs) fn names_of_member(&self, path: &[u8]) -> Vec<Bytes> {
        let Some((path, id)) = self.names.get_key_value(path) else {
            return Vec::new();
        };
        let others = self.names_of(*id).iter().filter(|name| *name != path);
        std::iter::once(path).chain(others).cloned().collect()
    }

    /// The other files of its group, by age, each with all its names.
    pub(in crate::fs) fn other_members(&self, path: &[u8]) -> Vec<Vec<Bytes>> {
        let Some((id, group)) = self.place_of(path) else {
            return Vec::new();
        };
        let members = self.groups.get(&group).into_iter().flatten();
        let others = members.filter(|member| **member != id);
        others.map(|id| self.names_of(*id).to_vec()).collect()
    }

    /// The others of its group are copies of it; false if it shares nothing.
    pub(in crate::fs) fn is_original(&self, path: &[u8]) -> bool {
        self.place_of(path)
            .and_then(|(id, group)| Some(self.groups.get(&group)?.first()? == &id))
            .unwrap_or(false)
    }

    /// Both names are in one group, as one file or as two. The server has one inode for both, so its
    /// rename(2) of one to the other does nothing and says OK: who wants the one name gone must
    /// remove it.
    pub(in crate::fs) fn share_storage(&self, one: &[u8], other: &[u8]) -> bool {
        match (self.place_of(one), self.place_of(other)) {
            (Some((_, one)), Some((_, other))) => one == other,
            _ => false,
        }
    }

    /// Whether [`apply`](Self::apply) would do anything: what changes nothing need not be recorded.
    pub(in crate::fs) fn concerns(&self, change: &Change) -> bool {
        match change {
            Change::Joined { .. } | Change::Temporary(_) | Change::TemporaryGone(_) => true,
            Change::Linked { existing, new } => self.shares(existing) || self.shares(new),
            Change::Left(path) | Change::OthersLeft(path) | Change::Removed(path) => {
                self.shares(path)
            }
            Change::Renamed { from, to } => self.at_or_below(from) || self.at_or_below(to),
        }
    }

    /// Makes one change: the same for what happens now and for what the journal tells.
    pub(in crate::fs) fn apply(&mut self, change: &Change) {
        match change {
            Change::Joined { source, copy } => {
                // A copy that does not fit shares with nobody, and the caller finds that.
                self.joined(source, copy);
            }
            Change::Linked { existing, new } => self.linked(existing, new),
            Change::Left(path) => self.left(path),
            Change::OthersLeft(path) => self.others_left(path),
            Change::Removed(path) => self.removed(path),
            Change::Renamed { from, to } => self.renamed(from, to),
            Change::Temporary(_) | Change::TemporaryGone(_) => {}
        }
    }

    /// The changes that make this table from an empty one.
    pub(in crate::fs) fn changes(&self) -> impl Iterator<Item = Change> {
        self.groups.values().flat_map(|members| {
            let mut files = members.iter().map(|id| self.names_of(*id));
            let original = files.next().unwrap_or_default();
            let source = original.first().cloned().unwrap_or_default();
            let copies = files.flat_map(move |names| {
                let copy = names.first().cloned().unwrap_or_default();
                let joined = Change::Joined {
                    source: source.clone(),
                    copy,
                };
                std::iter::once(joined).chain(further_names(names))
            });
            // After the first copy, as a file that shares nothing has no names here.
            let mut copies: Vec<Change> = copies.collect();
            copies.extend(further_names(original));
            copies
        })
    }

    /// `copy` became a new file that shares with `source`; it is no name of another file any more.
    /// Nothing changes if both are names of one file already. False if the table [is
    /// full](Self::is_full): then they do not share, and `copy` is no name of another file either.
    pub(in crate::fs) fn joined(&mut self, source: &Bytes, copy: &Bytes) -> bool {
        if self.are_one_file(source, copy) {
            return true;
        }
        let fits = !self.is_full();
        // Its old group may be the source's, which must not be dissolved in between.
        let before = self.take_name(copy);
        if fits {
            let group = match self.place_of(source) {
                Some((_, group)) => group,
                None => {
                    let group = self.next_id();
                    self.add_member(group, source);
                    group
                }
            };
            self.add_member(group, copy);
        }
        if let Some(group) = before {
            self.dissolve_if_alone(group);
        }
        fits
    }

    /// link(2): the file of `existing` has the name `new` too, which leads to nothing else any
    /// more. Not bounded by [`NAMES_MAX`]: a name left out would be written through.
    pub(in crate::fs) fn linked(&mut self, existing: &Bytes, new: &Bytes) {
        if self.are_one_file(existing, new) {
            return;
        }
        self.removed(new);
        let Some((id, _)) = self.place_of(existing) else {
            return;
        };
        self.names.insert(new.clone(), id);
        if let Some(member) = self.members.get_mut(&id) {
            member.names.push(new.clone());
        }
    }

    /// The file of this name, with all its names, has storage of its own. If it was the original,
    /// the oldest copy is the original now.
    pub(in crate::fs) fn left(&mut self, path: &[u8]) {
        let Some((id, group)) = self.place_of(path) else {
            return;
        };
        let names = self.names_of(id).to_vec();
        self.moved.extend(names);
        self.take_member_out(id, group);
    }

    fn take_member_out(&mut self, id: MemberId, group: GroupId) {
        if let Some(member) = self.members.remove(&id) {
            for name in member.names {
                self.names.remove(&name);
            }
        }
        self.forget_member(group, id);
        self.dissolve_if_alone(group);
    }

    /// Names that led to a storage that was shared, and lead to another one or nowhere since the
    /// last time this was asked: what has them open must not go on with it.
    pub(in crate::fs) fn take_moved(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.moved)
    }

    /// All other files of its group moved together to another storage, and share that. The table
    /// does not tell storages apart, so the group is as after [`left`](Self::left).
    pub(in crate::fs) fn others_left(&mut self, path: &[u8]) {
        let others = self.other_members(path);
        self.moved.extend(others.into_iter().flatten());
        if let Some((id, group)) = self.place_of(path) {
            self.take_member_out(id, group);
        }
    }

    /// The name is gone: unlinked, or another file has it now.
    pub(in crate::fs) fn removed(&mut self, path: &[u8]) {
        if let Some(group) = self.take_name(path) {
            self.dissolve_if_alone(group);
        }
    }

    /// rename(2) of a file, or of a directory with all that is below it. Whatever was at `to` is
    /// gone, and so is what was known below it.
    ///
    /// Nothing changes where rename(2) changes nothing: both names are of one inode of the server
    /// ([`share_storage`](Self::share_storage)), or one is below the other.
    pub(in crate::fs) fn renamed(&mut self, from: &[u8], to: &[u8]) {
        let nested = from.starts_with(&below(to)) || to.starts_with(&below(from));
        if from == to || nested || self.share_storage(from, to) {
            return;
        }
        for name in self.names_at_and_below(to) {
            self.removed(&name);
        }
        for old in self.names_at_and_below(from) {
            let new = carried(&old, from, to);
            let Some(id) = self.names.remove(&old) else {
                continue;
            };
            if let Some(member) = self.members.get_mut(&id) {
                let was = member.names.iter_mut().find(|name| **name == old);
                was.into_iter().for_each(|name| *name = new.clone());
            }
            self.names.insert(new, id);
            self.moved.push(old);
        }
    }

    fn place_of(&self, path: &[u8]) -> Option<(MemberId, GroupId)> {
        let id = *self.names.get(path)?;
        Some((id, self.members.get(&id)?.group))
    }

    fn are_one_file(&self, one: &[u8], other: &[u8]) -> bool {
        let id = self.names.get(one);
        one == other || id.is_some() && id == self.names.get(other)
    }

    fn names_of(&self, id: MemberId) -> &[Bytes] {
        self.members
            .get(&id)
            .map_or(&[], |member| member.names.as_slice())
    }

    fn below_it(&self, directory: &[u8]) -> impl Iterator<Item = &Bytes> {
        let below = below(directory);
        let from = (Bound::Included(below.as_slice()), Bound::Unbounded);
        let names = self.names.range::<[u8], _>(from).map(|(name, _)| name);
        names.take_while(move |name| name.starts_with(&below))
    }

    fn at_or_below(&self, path: &[u8]) -> bool {
        self.shares(path) || self.below_it(path).next().is_some()
    }

    /// Names that are this path or below it.
    pub(in crate::fs) fn names_at_and_below(&self, path: &[u8]) -> Vec<Bytes> {
        let at = self.names.get_key_value(path).map(|(name, _)| name);
        at.into_iter().chain(self.below_it(path)).cloned().collect()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn add_member(&mut self, group: GroupId, name: &Bytes) {
        self.version += 1;
        let id = self.next_id();
        let names = vec![name.clone()];
        self.names.insert(name.clone(), id);
        self.members.insert(id, Member { group, names });
        self.groups.entry(group).or_default().insert(id);
    }

    /// Takes a name out and, with its last name, the member. Returns the group, which may have one
    /// member now.
    fn take_name(&mut self, path: &[u8]) -> Option<GroupId> {
        let (name, id) = self.names.remove_entry(path)?;
        self.version += 1;
        self.moved.push(name);
        let member = self.members.get_mut(&id)?;
        let group = member.group;
        member.names.retain(|name| name != path);
        if member.names.is_empty() {
            self.members.remove(&id);
            self.forget_member(group, id);
        }
        Some(group)
    }

    fn forget_member(&mut self, group: GroupId, id: MemberId) {
        self.version += 1;
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(&id);
        }
    }

    fn dissolve_if_alone(&mut self, group: GroupId) {
        let members = self.groups.get(&group);
        if members.is_none_or(|members| members.len() > 1) {
            return;
        }
        for id in self.groups.remove(&group).unwrap_or_default() {
            let member = self.members.remove(&id);
            for name in member.into_iter().flat_map(|member| member.names) {
                self.names.remove(&name);
            }
        }
    }
}

/// The name of what is at `from` or below it once `from` is `to`.
pub(super) fn carried(name: &[u8], from: &[u8], to: &[u8]) -> Bytes {
    let below = name.get(from.len()..).unwrap_or_default();
    Bytes::from([to, below].concat())
}

/// What the paths below a directory begin with.
fn below(directory: &[u8]) -> Vec<u8> {
    let mut below = directory.to_vec();
    if !below.ends_with(b"/") {
        below.push(b'/');
    }
    below
}

/// Links that give a file its names after the first.
fn further_names(names: &[Bytes]) -> impl Iterator<Item = Change> {
    let mut names = names.iter();
    let first = names.next().cloned().unwrap_or_default();
    names.map(move |new| Change::Linked {
        existing: first.clone(),
        new: new.clone(),
    })
}
