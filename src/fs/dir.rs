//! An open directory: the server's listing as a stream that is read page by page. Only the page
//! being read and the few asked for ahead are held, whatever the directory's size; one who goes
//! back further starts the listing anew.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::inodes::Name;
use super::{Asked, Ino};
use crate::client::{Client, Handle};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, LongName, NameEntry};

/// One open(2) of a directory.
pub(super) struct OpenDir {
    pub(super) ino: Ino,
    /// Held while the next page is waited for: readers of one open directory share its position
    /// anyway, and the kernel lets them in one at a time. No other operation takes it.
    pub(super) listing: Mutex<Listing>,
}

/// One entry of a directory as the server lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: Name,
    pub(super) attrs: Attrs,
    /// st_nlink, if the long name tells.
    pub(super) links: Option<u32>,
    /// When the server was asked for the page that this was on.
    pub(super) asked: Asked,
}

/// Where a listing is.
pub(super) struct Listing {
    client: Arc<Client>,
    path: Bytes,
    handle: Option<Handle>,
    /// READDIR requests under way, oldest first.
    asked: VecDeque<(Asked, Page)>,
    entries: VecDeque<Listed>,
    /// The index of the first of `entries` in the whole directory.
    first: u64,
    is_complete: bool,
    /// Somebody has read from the beginning: reading from there again is rewinddir(3).
    has_begun: bool,
    /// Pages in a row that held nothing but `.` and `..`.
    barren: u32,
}

type Page = Pin<Box<dyn Future<Output = Result<Option<Vec<NameEntry>>>> + Send>>;

impl Listing {
    /// A listing of an opened directory; asks for its first pages at once.
    pub(super) fn new(client: Arc<Client>, path: Bytes, handle: Handle, now: Asked) -> Self {
        let mut listing = Self {
            client,
            path,
            handle: Some(handle),
            asked: VecDeque::new(),
            entries: VecDeque::new(),
            first: 0,
            is_complete: false,
            has_begun: false,
            barren: 0,
        };
        listing.ask(now);
        listing
    }

    /// The entries from `index` on that are here: at least one, unless the directory ends there.
    pub(super) async fn from(
        &mut self,
        index: u64,
        now: Asked,
    ) -> Result<impl Iterator<Item = (u64, &Listed)>> {
        if index < self.first || (index == 0 && self.has_begun) {
            self.restart().await?;
        }
        self.has_begun = true;
        self.drop_before(index.saturating_sub(KEPT_BEHIND));
        while self.end() <= index && !self.is_complete {
            self.next_page(now).await?;
            self.drop_before(index.saturating_sub(KEPT_BEHIND));
        }
        let skip = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        Ok((index..).zip(self.entries.iter().skip(skip)))
    }

    /// Ends the listing on the server; nobody waits for that.
    pub(super) fn close(&mut self) {
        self.asked.clear();
        self.handle = None;
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn ask(&mut self, now: Asked) {
        let Some(handle) = &self.handle else { return };
        while self.asked.len() < PAGES_AHEAD {
            self.asked
                .push_back((now, Box::pin(self.client.readdir(handle))));
        }
    }

    async fn next_page(&mut self, now: Asked) -> Result<()> {
        self.ask(now);
        let Some((asked, page)) = self.asked.front_mut() else {
            self.is_complete = true;
            return Ok(());
        };
        // Kept in the queue while it is waited for: a wait that is given up loses no page.
        let (asked, page) = (*asked, page.await);
        self.asked.pop_front();
        match page? {
            Some(names) => {
                self.count_barren(&names)?;
                self.entries
                    .extend(names.iter().filter_map(|entry| listed(entry, asked)));
            }
            None => {
                self.is_complete = true;
                self.close();
            }
        }
        Ok(())
    }

    /// A server could go on for ever with names that are no entries.
    fn count_barren(&mut self, names: &[NameEntry]) -> Result<()> {
        let is_barren = names.iter().all(|entry| is_dot(&entry.name));
        self.barren = if is_barren { self.barren + 1 } else { 0 };
        if self.barren > BARREN_MAX {
            return Err(Error::Protocol("a listing without entries that never ends"));
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.close();
        self.entries.clear();
        (self.first, self.is_complete) = (0, false);
        self.handle = Some(self.client.opendir(self.path.clone()).await?);
        Ok(())
    }

    fn drop_before(&mut self, index: u64) {
        while self.first < index && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// An entry that can be shown: a server may say anything, and a name with a `/` or a `..` in it
/// would lead a program elsewhere.
fn listed(entry: &NameEntry, asked: Asked) -> Option<Listed> {
    let name = &entry.name[..];
    if is_dot(name) {
        return None;
    }
    if name.len() > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
        log::warn!(
            "hiding a name that cannot be one: \"{}\"",
            name.escape_ascii()
        );
        return None;
    }
    let links = LongName::parse(&entry.longname).map(|longname| longname.links);
    Some(Listed {
        name: name.into(),
        attrs: entry.attrs.clone(),
        links,
        asked,
    })
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"" | b"." | b"..")
}

/// OpenSSH sends both dots in one page; two pages of one each are thinkable.
const BARREN_MAX: u32 = 4;
/// Longer names cannot go through the kernel (FUSE_NAME_MAX, fs/fuse/fuse_i.h).
const NAME_MAX: usize = 1024;
/// Requests under way: OpenSSH answers each with 100 entries.
const PAGES_AHEAD: usize = 4;
/// Entries kept behind the reader, for one who steps back a little (seekdir of the last page).
const KEPT_BEHIND: u64 = 512;
