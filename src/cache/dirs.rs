//! Complete listings of directories, kept up to date with our own changes: they tell what a name
//! leads to, and that it leads nowhere.
//!
//! A listing is read page by page, and names are made and removed here meanwhile. What is changed
//! while a listing is under way is noted beside it and made to it when it is complete.
//!
//! **Invariant:** a change of ours that was answered is never undone by a listing, whenever that
//! was asked for: an entry's attributes are those of the listing only if nothing changed them since
//! it was begun.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use lru::LruCache;

use super::attrs::{Attr, Ino, Stamp};
use super::trust::Sighting;
use crate::sftp::FileKind;

/// One entry of a directory, never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Box<[u8]>,
    pub(crate) kind: FileKind,
    /// `None` if the server did not say enough, or we changed the file since.
    pub(crate) attr: Option<Attr>,
    /// st_nlink, if the listing told.
    pub(crate) links: Option<u32>,
    /// The how manieth it was in the server's own order; programs that read a listing of the
    /// server's go through it in that order.
    pub(crate) place: u32,
}

/// A directory as it was at one moment, with our own changes since.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// By name.
    entries: Vec<Listed>,
    /// Indices of `entries` by their places, once somebody lists the directory.
    by_place: OnceLock<Box<[u32]>>,
    /// When the server was asked: by our own changes, and by the clock.
    pub(crate) asked: Stamp,
    pub(crate) at: Instant,
    /// Since when listings have said the same, our own changes apart.
    same_since: Instant,
    /// The server has listed it; else we only know what we have made in it.
    is_read: bool,
    /// For which state of something else its link counts are right; any other makes them unknown.
    pub(crate) counted_for: u64,
}

/// What a listing says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    There(&'a Listed),
    NotThere,
}

/// A listing that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Made(FileKind),
    Gone,
    /// The file has other attributes.
    Touched,
}

/// Listings by directory, those least recently used given up first.
#[derive(Debug)]
pub(crate) struct DirCache {
    complete: LruCache<Ino, Arc<Directory>>,
    /// Entries of all of them.
    entries: usize,
    under_way: HashMap<Ino, Vec<UnderWay>>,
    last: u64,
}

#[derive(Debug)]
struct UnderWay {
    fetch: Fetch,
    counting_for: u64,
    /// The latest change of each name.
    changes: HashMap<Box<[u8]>, Change>,
    /// There were too many.
    is_spoilt: bool,
}

impl Directory {
    /// Entries in any order; of two with one name the last counts.
    fn new(mut entries: Vec<Listed>, (asked, at): (Stamp, Instant), counted_for: u64) -> Self {
        entries.reverse();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries.dedup_by(|later, kept| later.name == kept.name);
        entries.shrink_to_fit();
        Self {
            entries,
            by_place: OnceLock::new(),
            asked,
            at,
            same_since: at,
            is_read: true,
            counted_for,
        }
    }

    /// When it was listed, and since when that was the same.
    pub(crate) const fn sighting(&self) -> Sighting {
        Sighting {
            at: self.at,
            same_since: self.same_since,
        }
    }

    /// Whether a later listing says nothing else than this one and our own changes since.
    fn says_as(&self, later: &Self) -> bool {
        let is_same = |(before, now): (&Listed, &Listed)| {
            let says_the_same = match (before.attr, now.attr) {
                (Some(before), Some(now)) => before.says_as(&now),
                (None, None) => true,
                // What was to be asked again, as we had changed it, is new.
                _ => false,
            };
            before.name == now.name && before.kind == now.kind && says_the_same
        };
        self.entries.len() == later.entries.len()
            && self.entries.iter().zip(&later.entries).all(is_same)
    }

    /// By name.
    pub(crate) fn entries(&self) -> &[Listed] {
        &self.entries
    }

    /// In the server's own order, from the one of `index` on.
    pub(crate) fn in_order(&self, index: usize) -> impl Iterator<Item = &Listed> {
        let by_place = self.by_place.get_or_init(|| {
            let mut indices: Vec<u32> = (0..).take(self.entries.len()).collect();
            let place = |index: &u32| self.entries.get(*index as usize).map(|entry| entry.place);
            indices.sort_by_key(place);
            indices.into()
        });
        let indices = by_place.iter().skip(index);
        indices.filter_map(|index| self.entries.get(*index as usize))
    }

    /// Whether one who lists the directory need not ask: the server has listed it, and nothing was
    /// changed since that would have to be asked for again.
    pub(crate) fn tells_all(&self) -> bool {
        self.is_read && self.entries.iter().all(|entry| entry.attr.is_some())
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<&Listed> {
        let index = self.position(name).ok()?;
        self.entries.get(index)
    }

    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| (*entry.name).cmp(name))
    }

    /// Gives how many entries there are more.
    fn apply(&mut self, name: &[u8], change: Change) -> isize {
        self.by_place.take();
        match (self.position(name), change) {
            (Ok(index), Change::Gone) => {
                self.entries.remove(index);
                -1
            }
            (Ok(index), Change::Made(kind)) => {
                if let Some(entry) = self.entries.get_mut(index) {
                    (entry.kind, entry.attr, entry.links) = (kind, None, None);
                }
                0
            }
            (Ok(index), Change::Touched) => {
                if let Some(entry) = self.entries.get_mut(index) {
                    entry.attr = None;
                }
                0
            }
            (Err(index), Change::Made(kind)) => {
                let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
                let entry = Listed {
                    name: name.into(),
                    kind,
                    attr: None,
                    links: None,
                    place,
                };
                self.entries.insert(index, entry);
                1
            }
            (Err(_), Change::Gone | Change::Touched) => 0,
        }
    }

    /// Whether there is nothing to change: to look costs less than to copy a shared listing.
    fn is_so_already(&self, name: &[u8], change: Change) -> bool {
        match (self.find(name), change) {
            (Some(_), Change::Gone) | (None, Change::Made(_)) => false,
            (Some(entry), Change::Made(kind)) => entry.attr.is_none() && entry.kind == kind,
            (Some(entry), Change::Touched) => entry.attr.is_none(),
            (None, Change::Gone | Change::Touched) => true,
        }
    }
}

impl DirCache {
    pub(crate) fn new() -> Self {
        Self {
            complete: LruCache::unbounded(),
            entries: 0,
            under_way: HashMap::new(),
            last: 0,
        }
    }

    /// A listing is about to be asked for. Its link counts are right for `counting_for`.
    pub(crate) fn begin(&mut self, ino: Ino, counting_for: u64) -> Fetch {
        self.last += 1;
        let fetch = Fetch(self.last);
        self.under_way.entry(ino).or_default().push(UnderWay {
            fetch,
            counting_for,
            changes: HashMap::new(),
            is_spoilt: false,
        });
        fetch
    }

    /// A listing that was begun is not kept.
    pub(crate) fn cancel(&mut self, ino: Ino, fetch: Fetch) {
        self.take(ino, fetch);
    }

    /// A listing is complete; `asked` and `at` are of the moment before it was asked for. Not kept
    /// if it is too large, or was changed too often meanwhile.
    pub(crate) fn finish(
        &mut self,
        ino: Ino,
        fetch: Fetch,
        entries: Vec<Listed>,
        (asked, at): (Stamp, Instant),
    ) -> bool {
        let Some(meanwhile) = self.take(ino, fetch) else {
            return false;
        };
        if meanwhile.is_spoilt || entries.len() > LISTING_MAX {
            return false;
        }
        let mut directory = Directory::new(entries, (asked, at), meanwhile.counting_for);
        for (name, change) in &meanwhile.changes {
            directory.apply(name, *change);
        }
        let is_older = |known: &Arc<Directory>| known.asked > asked;
        if self.complete.peek(&ino).is_some_and(is_older) {
            return false;
        }
        if let Some(known) = self.complete.peek(&ino)
            && known.says_as(&directory)
        {
            directory.same_since = known.same_since.min(at);
        }
        self.store(ino, directory);
        true
    }

    /// A directory that we have just made.
    pub(crate) fn made_empty(&mut self, ino: Ino, asked: (Stamp, Instant)) {
        let directory = Directory::new(Vec::new(), asked, 0);
        self.store(
            ino,
            Directory {
                is_read: false,
                ..directory
            },
        );
    }

    /// What is known of a directory, fresh or not.
    pub(crate) fn get(&mut self, ino: Ino) -> Option<Arc<Directory>> {
        self.complete.get(&ino).cloned()
    }

    /// What is known of a name.
    pub(crate) fn find(&mut self, parent: Ino, name: &[u8]) -> Option<(Said<'_>, &Directory)> {
        let directory = self.complete.get(&parent)?;
        let said = directory.find(name).map_or(Said::NotThere, Said::There);
        Some((said, directory))
    }

    /// Whether what a listing that is under way says of a name is out of date.
    pub(crate) fn has_changed(&self, ino: Ino, fetch: Fetch, name: &[u8]) -> bool {
        let mut under_way = self.under_way.get(&ino).into_iter().flatten();
        under_way
            .find(|under_way| under_way.fetch == fetch)
            .is_none_or(|it| it.is_spoilt || it.changes.contains_key(name))
    }

    /// A name was made, or now leads to another file.
    pub(crate) fn made(&mut self, parent: Ino, name: &[u8], kind: FileKind) {
        self.apply(parent, name, Change::Made(kind));
    }

    pub(crate) fn gone(&mut self, parent: Ino, name: &[u8]) {
        self.apply(parent, name, Change::Gone);
    }

    /// The file that a name leads to has other attributes than a listing says.
    pub(crate) fn touched(&mut self, parent: Ino, name: &[u8]) {
        self.apply(parent, name, Change::Touched);
    }

    /// Whether a listing that was begun is still being read.
    pub(crate) fn is_under_way(&self, ino: Ino, fetch: Fetch) -> bool {
        let mut under_way = self.under_way.get(&ino).into_iter().flatten();
        under_way.any(|under_way| under_way.fetch == fetch)
    }

    /// The server was seen to have a name: a listing that says otherwise is out of date.
    pub(crate) fn seen(&mut self, parent: Ino, name: &[u8]) {
        let complete = self.complete.peek(&parent);
        if complete.is_some_and(|directory| directory.find(name).is_none())
            && let Some(old) = self.complete.pop(&parent)
        {
            self.entries -= old.entries.len();
        }
    }

    /// A directory is no more, or nothing is believed of it.
    pub(crate) fn forget(&mut self, ino: Ino) {
        if let Some(old) = self.complete.pop(&ino) {
            self.entries -= old.entries.len();
        }
        for under_way in self.under_way.get_mut(&ino).into_iter().flatten() {
            under_way.is_spoilt = true;
        }
    }

    fn apply(&mut self, parent: Ino, name: &[u8], change: Change) {
        for under_way in self.under_way.get_mut(&parent).into_iter().flatten() {
            under_way.note(name, change);
        }
        let Some(directory) = self.complete.peek_mut(&parent) else {
            return;
        };
        if directory.is_so_already(name, change) {
            return;
        }
        let more = Arc::make_mut(directory).apply(name, change);
        self.entries = self.entries.saturating_add_signed(more);
    }

    fn take(&mut self, ino: Ino, fetch: Fetch) -> Option<UnderWay> {
        let all = self.under_way.get_mut(&ino)?;
        let index = all.iter().position(|under_way| under_way.fetch == fetch)?;
        let taken = all.swap_remove(index);
        if all.is_empty() {
            self.under_way.remove(&ino);
        }
        Some(taken)
    }

    fn store(&mut self, ino: Ino, directory: Directory) {
        self.entries += directory.entries.len();
        if let Some(old) = self.complete.put(ino, Arc::new(directory)) {
            self.entries -= old.entries.len();
        }
        while self.entries > ENTRIES_MAX || self.complete.len() > DIRECTORIES_MAX.get() {
            let Some((_, old)) = self.complete.pop_lru() else {
                return;
            };
            self.entries -= old.entries.len();
        }
    }
}

impl UnderWay {
    fn note(&mut self, name: &[u8], change: Change) {
        if let Some(noted) = self.changes.get_mut(name) {
            *noted = match (*noted, change) {
                // What was made and then written to was still made.
                (made @ Change::Made(_), Change::Touched) => made,
                (_, later) => later,
            };
        } else if self.changes.len() < CHANGES_MAX {
            self.changes.insert(name.into(), change);
        } else {
            self.is_spoilt = true;
        }
    }
}

/// Entries of one listing that is kept; larger directories are read page by page each time.
pub(crate) const LISTING_MAX: usize = 1 << 14;
/// Entries of all listings, of 80 bytes and a name each: 15 MB.
const ENTRIES_MAX: usize = 1 << 17;
/// Listings, also empty ones.
const DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 14).unwrap();
/// Names changed here while one listing is read.
const CHANGES_MAX: usize = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const DIR: Ino = Ino(10);

    fn listed(name: &str, size: u64) -> Listed {
        let attr = Attr {
            kind: FileKind::Regular,
            permissions: 0o644,
            uid: 0,
            gid: 0,
            size,
            atime: 0,
            mtime: 0,
            ctime: 0,
        };
        Listed {
            name: name.as_bytes().into(),
            kind: FileKind::Regular,
            attr: Some(attr),
            links: Some(1),
            place: 0,
        }
    }

    /// A listing of `names` that was read while `meanwhile` was done.
    fn read(names: &[&str], meanwhile: impl FnOnce(&mut DirCache)) -> DirCache {
        let mut dirs = DirCache::new();
        let fetch = dirs.begin(DIR, 0);
        meanwhile(&mut dirs);
        let entries = names.iter().map(|name| listed(name, 1)).collect();
        dirs.finish(DIR, fetch, entries, (Stamp::default(), clock::now()));
        dirs
    }

    fn says(dirs: &mut DirCache, name: &str) -> Option<Option<u64>> {
        match dirs.find(DIR, name.as_bytes())?.0 {
            Said::There(entry) => Some(entry.attr.map(|attr| attr.size)),
            Said::NotThere => None,
        }
    }

    #[test]
    fn a_complete_listing_tells_what_is_there_and_what_is_not() {
        let mut dirs = read(&["b", "a"], |_| {});
        assert_eq!(says(&mut dirs, "a"), Some(Some(1)));
        assert_eq!(dirs.find(DIR, b"c").map(|it| it.0), Some(Said::NotThere));
        assert!(dirs.find(Ino(11), b"a").is_none());
    }

    #[test]
    fn our_changes_are_made_to_it_in_place() {
        let mut dirs = read(&["a", "b"], |_| {});
        dirs.gone(DIR, b"a");
        dirs.touched(DIR, b"b");
        dirs.made(DIR, b"c", FileKind::Directory);
        assert_eq!(says(&mut dirs, "a"), None);
        assert_eq!(says(&mut dirs, "b"), Some(None));
        assert_eq!(says(&mut dirs, "c"), Some(None));
        assert_eq!(dirs.entries, 2);
    }

    #[test]
    fn changes_made_while_it_is_read_count_more_than_what_it_says() {
        let mut dirs = read(&["gone", "touched", "again"], |dirs| {
            dirs.gone(DIR, b"gone");
            dirs.touched(DIR, b"touched");
            dirs.made(DIR, b"made", FileKind::Regular);
            dirs.touched(DIR, b"made");
            dirs.gone(DIR, b"again");
            dirs.made(DIR, b"again", FileKind::Directory);
        });
        assert_eq!(says(&mut dirs, "gone"), None);
        assert_eq!(says(&mut dirs, "touched"), Some(None));
        assert_eq!(says(&mut dirs, "made"), Some(None));
        assert_eq!(says(&mut dirs, "again"), Some(None));
    }

    #[test]
    fn a_directory_that_is_forgotten_while_it_is_read_is_not_kept() {
        let mut dirs = read(&["a"], |dirs| dirs.forget(DIR));
        assert!(dirs.find(DIR, b"a").is_none());
    }

    #[test]
    fn a_listing_is_dropped_when_the_server_has_a_name_that_it_has_not() {
        let mut dirs = read(&["a"], |_| {});
        dirs.seen(DIR, b"a");
        assert_eq!(says(&mut dirs, "a"), Some(Some(1)));
        dirs.seen(DIR, b"b");
        assert!(dirs.find(DIR, b"b").is_none());
        assert_eq!(dirs.entries, 0);
    }

    #[test]
    fn a_reader_keeps_the_listing_it_has() {
        let mut dirs = read(&["a"], |_| {});
        let before = dirs.get(DIR).unwrap();
        dirs.gone(DIR, b"a");
        assert!(before.find(b"a").is_some());
        assert_eq!(says(&mut dirs, "a"), None);
    }

    #[test]
    fn an_older_listing_does_not_replace_a_later_one() {
        let mut stamps = super::super::AttrCache::new(NonZeroUsize::MIN);
        let (early, late) = (stamps.stamp(), stamps.stamp());
        let mut dirs = DirCache::new();
        let (slow, fast) = (dirs.begin(DIR, 0), dirs.begin(DIR, 0));
        assert!(dirs.finish(DIR, fast, vec![listed("new", 1)], (late, clock::now())));
        assert!(!dirs.finish(DIR, slow, vec![listed("old", 1)], (early, clock::now())));
        assert_eq!(says(&mut dirs, "new"), Some(Some(1)));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut dirs = DirCache::new();
        for n in 0..40 {
            let fetch = dirs.begin(Ino(n), 0);
            let entries = (0..LISTING_MAX).map(|n| listed(&n.to_string(), 0));
            dirs.finish(
                Ino(n),
                fetch,
                entries.collect(),
                (Stamp::default(), clock::now()),
            );
        }
        assert!(dirs.entries <= ENTRIES_MAX);
        let held: usize = dirs.complete.iter().map(|(_, dir)| dir.entries.len()).sum();
        assert_eq!(held, dirs.entries);
        assert!(dirs.find(Ino(39), b"0").is_some());
        assert!(dirs.under_way.is_empty());
    }

    #[test]
    fn too_large_a_directory_is_not_kept() {
        let mut dirs = DirCache::new();
        let fetch = dirs.begin(DIR, 0);
        let entries = (0..=LISTING_MAX).map(|n| listed(&n.to_string(), 0));
        let entries: Vec<_> = entries.collect();
        assert!(!dirs.finish(DIR, fetch, entries, (Stamp::default(), clock::now())));
    }

    #[test]
    fn a_listing_that_says_the_same_again_has_been_so_since_the_first() {
        let (mut dirs, start) = (DirCache::new(), clock::now());
        let mut same_for = |after, names: &[&str], change: fn(&mut DirCache)| {
            change(&mut dirs);
            let at = start + std::time::Duration::from_secs(after);
            let fetch = dirs.begin(DIR, 0);
            let entries = names.iter().map(|name| listed(name, 1)).collect();
            assert!(dirs.finish(DIR, fetch, entries, (Stamp::default(), at)));
            let seen = dirs.get(DIR).unwrap().sighting();
            seen.at.duration_since(seen.same_since).as_secs()
        };
        assert_eq!(same_for(0, &["a", "b"], |_| {}), 0);
        assert_eq!(same_for(4, &["a", "b"], |_| {}), 4);
        // What we have changed is new when it is asked for again.
        let ours: fn(&mut DirCache) = |dirs| dirs.touched(DIR, b"a");
        assert_eq!(same_for(9, &["a", "b"], ours), 0);
        assert_eq!(same_for(12, &["a"], |_| {}), 0, "somebody else removed one");
    }
}
