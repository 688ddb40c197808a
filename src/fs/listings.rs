//! Listings that are remembered: who may believe them, and reading them unasked. A directory is
//! read in the background when names in it are looked up one after the other, and again before what
//! is known of it gets too old, while it is in use.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use nix::errno::Errno;

use super::config::Symlinks;
use super::dir::Listing;
use super::survive::surviving;
use super::tables::Shown;
use super::{Asked, Attr, Entry, Filesystem, Ino};
use crate::cache::{Directory, Listed, Said, Sighting};
use crate::clock;
use crate::error::Result;
use crate::sftp::FileKind;

/// Which listings are being read unasked, and which are worth it.
pub(super) struct Listings {
    under_way: HashMap<Ino, Shared<BoxFuture<'static, ()>>>,
    /// Directories in which names were looked up that no listing told of, and when first.
    misses: LruCache<Ino, (Instant, u32)>,
    /// Directories that cannot be listed, or have too many entries, and since when.
    hopeless: LruCache<Ino, Instant>,
}

/// What a listing says of a name, as far as it is believed.
enum Heard {
    There(Shown),
    NotThere,
    Nothing,
}

impl Listings {
    pub(super) fn new() -> Self {
        let size = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self {
            under_way: HashMap::new(),
            misses: LruCache::new(size),
            hopeless: LruCache::new(size),
        }
    }

    /// Notes that a name was looked up in vain; whether the directory had better be listed.
    fn missed(&mut self, ino: Ino, now: Instant) -> bool {
        let (since, count) = self.misses.get_or_insert_mut(ino, || (now, 0));
        if now.duration_since(*since) > MISSES_COUNT_FOR {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count >= MISSES
    }

    fn is_hopeless(&mut self, ino: Ino, now: Instant) -> bool {
        let since = self.hopeless.get(&ino).copied();
        since.is_some_and(|since| now.duration_since(since) < HOPELESS_FOR)
    }
}

impl Filesystem {
    /// A directory's listing, if it is believed.
    pub(super) fn listing(&self, ino: Ino) -> Option<Arc<Directory>> {
        let directory = self.tables().dirs.get(ino)?;
        let until = self.config.entry_trust().until(directory.sighting());
        (clock::now() < until).then_some(directory)
    }

    /// What the listing of its directory says of a name. A name that was heard of often enough
    /// without a listing has the directory listed for the next.
    fn hear_of(&self, parent: Ino, name: &[u8]) -> Heard {
        let now = clock::now();
        let mut tables = self.tables();
        let (entries, absence) = (self.config.entry_trust(), self.config.negative_timeout);
        let heard = match (tables.remembered(parent, name), tables.dirs.get(parent)) {
            (Some(shown), _) => {
                let lasts = entries.lasts(shown.sighting());
                Some((Heard::There(shown), shown.asked.at, lasts))
            }
            (None, Some(directory)) => Some((Heard::NotThere, directory.at, absence)),
            (None, None) => None,
        };
        let is_worth_it = match &heard {
            // It must be asked for.
            Some((Heard::There(Shown { attr: None, .. }), ..)) | None => {
                tables.listings.missed(parent, now)
            }
            // What is not believed at all need not be asked for again.
            Some((_, at, life)) => {
                !life.is_zero() && now.saturating_duration_since(*at) > *life / 2
            }
        };
        drop(tables);
        if is_worth_it {
            if heard.is_none() {
                self.visited(parent, false);
            }
            self.list_soon(parent);
        }
        match heard {
            Some((heard, at, life)) if now.saturating_duration_since(at) < life => heard,
            _ => Heard::Nothing,
        }
    }

    /// For how long a name that leads nowhere, as was just found, may be believed to.
    pub(crate) fn negative_ttl(&self, parent: Ino, name: &[u8]) -> Duration {
        let life = self.config.negative_timeout;
        match self.tables().dirs.find(parent, name) {
            Some((Said::NotThere, directory)) => {
                let age = clock::now().saturating_duration_since(directory.at);
                let left = life.saturating_sub(age);
                // Too old: the server was asked.
                if left.is_zero() { life } else { left }
            }
            _ => life,
        }
    }

    /// What a name leads to, as its directory's listing says. Counts as told to the kernel.
    ///
    /// # Errors
    /// ENOENT if the listing says so.
    pub(super) fn listed_entry(&self, parent: Ino, name: &[u8]) -> Result<Option<Entry>> {
        if self.config.entry_timeout.is_zero() {
            return Ok(None);
        }
        let shown = match self.hear_of(parent, name) {
            Heard::There(shown) => shown,
            Heard::NotThere => return Err(Errno::ENOENT.into()),
            Heard::Nothing => return Ok(None),
        };
        let Some(attr) = shown.attr else {
            return Ok(None);
        };
        if shown.kind == FileKind::Symlink && self.config.symlinks == Symlinks::Follow {
            return Ok(None);
        }
        let ino = {
            let mut tables = self.tables();
            // Of one of several names more must be known: see `look_at_name`.
            let known = tables.inodes.find(parent, name);
            let has_other_name = known.is_some_and(|ino| tables.inodes.has_other_name(ino));
            let later = tables.kind_since((parent, name), shown.kind, shown.asked);
            if has_other_name || later.is_some() {
                return Ok(None);
            }
            let ino = tables.inodes.enter(parent, name, shown.kind);
            tables.inodes.looked_up(ino);
            tables.count_links(ino, shown.kind, shown.links);
            ino
        };
        let known = self.learn_listed(ino, attr, shown.asked, shown.sighting());
        let until = self.config.entry_trust().until(shown.sighting());
        self.tables().attrs.set_named(ino, Some(until));
        let ttl = until.saturating_duration_since(clock::now());
        let ttl = ttl.min(self.config.entry_timeout);
        Ok(Some(Entry { ino, known, ttl }))
    }

    /// What the listing of its directory says of a file that has one name.
    pub(super) fn listed_attr(&self, ino: Ino) -> Option<(Attr, Asked, Sighting)> {
        let mut tables = self.tables();
        let (parent, name) = match tables.inodes.places(ino) {
            [(parent, name)] => (*parent, name.clone()),
            _ => return None,
        };
        let shown = tables.remembered(parent, &name)?;
        let follows = shown.kind == FileKind::Symlink && self.config.symlinks == Symlinks::Follow;
        let attr = shown.attr.filter(|_| !follows)?;
        let sighting = shown.sighting();
        let until = self.config.attr_trust().until(sighting);
        (clock::now() < until).then_some((attr, shown.asked, sighting))
    }

    /// Has a directory listed, if it is not being listed already and that is worth it. Nobody waits.
    pub(super) fn list_soon(&self, ino: Ino) {
        let Some(filesystem) = self.me.upgrade() else {
            return;
        };
        if self.config.entry_timeout.is_zero() {
            return;
        }
        let mut tables = self.tables();
        let is_vain = tables.listings.is_hopeless(ino, clock::now());
        if is_vain || tables.listings.under_way.contains_key(&ino) {
            return;
        }
        // Kept while it is listed: its number must not become another's.
        tables.inodes.opened(ino);
        let reading = async move { filesystem.list(ino).await }.boxed().shared();
        tables.listings.under_way.insert(ino, reading.clone());
        drop(tables);
        tokio::spawn(reading);
    }

    /// The end of a listing that is being read unasked, if there is one.
    pub(super) fn listing_under_way(&self, ino: Ino) -> Option<Shared<BoxFuture<'static, ()>>> {
        self.tables().listings.under_way.get(&ino).cloned()
    }

    async fn list(&self, ino: Ino) {
        let began = self.now();
        let fetch = self.tables().begin_listing(ino);
        let listed = surviving(self.list_all(ino, began)).await;
        let mut tables = self.tables();
        match listed {
            Ok(entries) => {
                tables
                    .dirs
                    .finish(ino, fetch, entries, (began.stamp, began.at));
            }
            Err(error) => {
                log::debug!("a directory is not listed ahead: {error}");
                tables.dirs.cancel(ino, fetch);
                tables.listings.hopeless.put(ino, began.at);
            }
        }
        tables.listings.under_way.remove(&ino);
        tables.listings.misses.pop(&ino);
        tables.inodes.closed(ino);
        drop(tables);
        self.is_listed(ino);
        self.go_ahead();
    }

    async fn list_all(&self, ino: Ino, began: Asked) -> Result<Vec<Listed>> {
        let path = self.path(ino)?;
        #[cfg(test)]
        super::survive::trip(&path);
        let handle = self.client.opendir(path.clone()).await?;
        let client = Arc::clone(&self.client);
        let mut listing = Listing::new(client, path, handle, began);
        listing.read_all(began, &self.translator).await
    }
}

/// A way from a filesystem to itself, for what goes on when nobody waits.
pub(super) type Me = Weak<Filesystem>;

/// So many names looked up in vain within a while have the directory listed.
const MISSES: u32 = 2;
const MISSES_COUNT_FOR: Duration = Duration::from_secs(5);
/// A directory that could not be listed is left alone for so long.
const HOPELESS_FOR: Duration = Duration::from_secs(60);
/// Directories about which that is remembered.
const REMEMBERED: usize = 1024;
