//! An open directory: a listing that is remembered, or the server's as a stream that is read page
//! by page. Of that only the page being read and those asked for ahead are held, whatever the
//! directory's size; one who goes back further starts the listing anew.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::attr::Translator;
use super::told::Told;
use super::{Asked, Ino};
use crate::cache::{Directory, Fetch, LISTING_MAX, Listed};
use crate::client::{Client, Handle, Losses};
use crate::error::{Error, Result};
use crate::sftp::{FileKind, LongName, NameEntry};

/// One open(2) of a directory.
pub(super) struct OpenDir {
    pub(super) ino: Ino,
    /// The listing that this one reads from the server, until it is complete.
    pub(super) fetch: Option<Fetch>,
    /// Before the server was asked.
    pub(super) began: Asked,
    /// Held while the next page is waited for: readers of one open directory share its position
    /// anyway, and the kernel lets them in one at a time. No other operation takes it.
    pub(super) listing: Mutex<Listing>,
}

/// One entry of a listing.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) listed: Listed,
    /// When the server was asked for the page that this was on.
    pub(super) asked: Asked,
}

/// Where a listing is.
pub(super) struct Listing {
    client: Arc<Client>,
    path: Bytes,
    /// What is read instead of asking the server.
    remembered: Option<Arc<Directory>>,
    handle: Option<Handle>,
    /// READDIR requests under way, oldest first.
    asked: VecDeque<(Asked, Page)>,
    /// READDIR requests that may be under way: more with each page, since who reads on will want
    /// them all.
    pages_ahead: usize,
    entries: VecDeque<Row>,
    /// All entries so far, for those who list the directory after this one.
    kept: Option<Vec<Listed>>,
    /// The index of the first of `entries` in the whole directory.
    first: u64,
    is_complete: bool,
    /// Somebody has read of it.
    has_begun: bool,
    /// Pages in a row that held nothing but `.` and `..`.
    barren: u32,
    /// Names that cannot be shown.
    hidden: usize,
    /// All names so far, where `kept` does not tell: when it was begun anew in its middle, those are
    /// listed once more.
    told: Option<Told>,
    is_anew: bool,
    /// Names that were left out since it was begun anew after a loss.
    left_out: usize,
    losses: Losses,
}

type Page = Pin<Box<dyn Future<Output = Result<Option<Vec<NameEntry>>>> + Send>>;

impl Listing {
    /// A listing of an opened directory; asks for its first pages at once.
    pub(super) fn new(client: Arc<Client>, path: Bytes, handle: Handle, now: Asked) -> Self {
        let mut listing = Self {
            handle: Some(handle),
            kept: Some(Vec::new()),
            ..Self::without(client, path)
        };
        listing.ask(now);
        listing
    }

    /// A listing that is remembered; the server is asked only by one who begins anew.
    pub(super) fn remembered(client: Arc<Client>, path: Bytes, directory: Arc<Directory>) -> Self {
        Self {
            remembered: Some(directory),
            ..Self::without(client, path)
        }
    }

    fn without(client: Arc<Client>, path: Bytes) -> Self {
        Self {
            client,
            path,
            remembered: None,
            handle: None,
            asked: VecDeque::new(),
            pages_ahead: PAGES_AHEAD_FIRST,
            entries: VecDeque::new(),
            kept: None,
            first: 0,
            is_complete: false,
            has_begun: false,
            barren: 0,
            told: None,
            hidden: 0,
            is_anew: false,
            left_out: 0,
            losses: Losses::default(),
        }
    }

    /// All entries, once, when they are complete and were read without a break.
    pub(super) fn take_complete(&mut self) -> Option<Vec<Listed>> {
        if self.is_complete {
            self.kept.take()
        } else {
            None
        }
    }

    /// Reads on to the end.
    ///
    /// # Errors
    /// What the server says; EFBIG for a directory with more entries than are kept.
    pub(super) async fn read_all(
        &mut self,
        now: Asked,
        translator: &Translator,
    ) -> Result<Vec<Listed>> {
        while !self.is_complete {
            self.next_page(now, translator).await?;
            self.drop_before(self.end());
            if self.kept.is_none() {
                return Err(nix::errno::Errno::EFBIG.into());
            }
        }
        Ok(self.kept.take().unwrap_or_default())
    }

    /// Begins again from the first entry, if it was read before: rewinddir(3).
    pub(super) async fn rewind(&mut self) -> Result<()> {
        match self.has_begun {
            true => self.restart().await,
            false => Ok(()),
        }
    }

    /// Reads until the entry of `index` is here, unless the directory ends before it.
    pub(super) async fn read_to(
        &mut self,
        index: u64,
        now: Asked,
        translator: &Translator,
    ) -> Result<()> {
        if index < self.first {
            self.step_back().await?;
        }
        self.has_begun = true;
        self.drop_before(index.saturating_sub(KEPT_BEHIND));
        while self.end() <= index && !self.is_complete {
            self.next_page(now, translator).await?;
            self.drop_before(index.saturating_sub(KEPT_BEHIND));
        }
        Ok(())
    }

    /// The directory was renamed, perhaps: it is opened again, if it must be, by this path.
    pub(super) fn is_at(&mut self, path: Bytes) {
        self.path = path;
    }

    /// The entries from `index` on that are here.
    pub(super) fn rows(&self, index: u64) -> impl Iterator<Item = (u64, &Row)> {
        let skip = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (index..).zip(self.entries.iter().skip(skip))
    }

    /// Ends the listing on the server, behind what was asked for; nobody waits for that.
    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    /// Ends it, and nobody wants what was asked for.
    fn give_up(&mut self) {
        self.asked.clear();
        self.close();
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn ask(&mut self, now: Asked) {
        let Some(handle) = &self.handle else { return };
        while self.asked.len() < self.pages_ahead {
            self.asked
                .push_back((now, Box::pin(self.client.readdir(handle))));
        }
    }

    async fn next_page(&mut self, now: Asked, translator: &Translator) -> Result<()> {
        if let Some(directory) = &self.remembered {
            let from = usize::try_from(self.end()).unwrap_or(usize::MAX);
            let entries = directory.in_order(from);
            let asked = Asked {
                stamp: directory.asked,
                at: directory.at,
            };
            let rows = entries.take(REMEMBERED_PAGE).map(|listed| Row {
                listed: listed.clone(),
                asked,
            });
            self.entries.extend(rows);
            self.is_complete = self.end() >= directory.entries().len() as u64;
            return Ok(());
        }
        self.ask(now);
        let Some((asked, page)) = self.asked.front_mut() else {
            // It could not be opened again before, and whoever lists it was told.
            return Box::pin(self.open_anew()).await;
        };
        // Kept in the queue while it is waited for: a wait that is given up loses no page.
        let (asked, page) = (*asked, page.await);
        self.asked.pop_front();
        let page = match page {
            Err(error) if error.is_of_connection() => {
                return Box::pin(self.go_on_anew(&error)).await;
            }
            page => page?,
        };
        self.pages_ahead = (self.pages_ahead * 2).min(PAGES_AHEAD_MAX);
        self.take_in_page(page, asked, translator)
    }

    fn take_in_page(
        &mut self,
        page: Option<Vec<NameEntry>>,
        asked: Asked,
        translator: &Translator,
    ) -> Result<()> {
        let Some(names) = page else {
            self.is_complete = true;
            self.give_up();
            return Ok(());
        };
        self.comes_to_an_end(&names)?;
        let before = self.end();
        for entry in &names {
            self.take_in(entry, asked, translator);
        }
        // Pages that were told before do not show that it comes any further.
        if self.end() > before {
            self.losses = Losses::default();
        }
        Ok(())
    }

    /// Takes in what was asked for and asks for no more: nobody reads on, but who lists the directory
    /// next need not ask if this was all. `rm -r` looks whether there is anything, and then lists it.
    pub(super) async fn take_in_rest(&mut self, translator: &Translator) {
        while self.kept.is_some()
            && let Some((asked, page)) = self.asked.front_mut()
        {
            let (asked, page) = (*asked, page.await);
            self.asked.pop_front();
            let taken = page.and_then(|page| self.take_in_page(page, asked, translator));
            if taken.is_err() {
                return;
            }
            self.drop_before(self.end());
        }
    }

    /// The connection was lost in the middle: the listing is begun anew, and what was listed before
    /// is left out of it.
    async fn go_on_anew(&mut self, error: &Error) -> Result<()> {
        self.losses.count(error)?;
        self.give_up();
        tokio::time::sleep(self.losses.rest()).await;
        self.open_anew().await
    }

    async fn open_anew(&mut self) -> Result<()> {
        self.handle = Some(self.client.opendir(self.path.clone()).await?);
        (self.is_anew, self.left_out, self.hidden) = (true, 0, 0);
        let told = self
            .told
            .get_or_insert_with(|| names_of(self.kept.as_ref()));
        told.begin_anew();
        if !told.is_whole() {
            log::warn!(
                "\"{}\" has very many entries: some are listed twice, as the connection was lost",
                self.path.escape_ascii()
            );
        }
        Ok(())
    }

    /// Notes that a name is told; false if it was before.
    fn tell(&mut self, name: &[u8]) -> bool {
        let Some(told) = &mut self.told else {
            return true;
        };
        if self.is_anew && told.has(name) {
            self.left_out += 1;
            return false;
        }
        told.add(name);
        true
    }

    fn take_in(&mut self, entry: &NameEntry, asked: Asked, translator: &Translator) {
        let place = self.end();
        if !is_name(&entry.name) {
            return self.hide(&entry.name);
        }
        let Some(listed) = listed(entry, place, translator) else {
            return;
        };
        if !self.tell(&listed.name) {
            return;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(listed.clone());
            if kept.len() > LISTING_MAX {
                let told = || names_of(self.kept.as_ref());
                self.told.get_or_insert_with(told);
                self.kept = None;
            }
        }
        self.entries.push_back(Row { listed, asked });
    }

    /// A server may say anything, and a name with a `/` in it would lead a program elsewhere.
    fn hide(&mut self, name: &[u8]) {
        self.hidden += 1;
        let level = match self.hidden {
            1 => log::Level::Warn,
            _ => log::Level::Debug,
        };
        let shown = name.escape_ascii();
        log::log!(level, "hiding a name that cannot be one: \"{shown}\"");
    }

    /// A server could go on for ever with names that are no entries, or that were told before a loss.
    fn comes_to_an_end(&mut self, names: &[NameEntry]) -> Result<()> {
        let is_barren = names.iter().all(|entry| is_dot(&entry.name));
        self.barren = if is_barren { self.barren + 1 } else { 0 };
        let told = self.told.as_ref().and_then(Told::len);
        let repeats =
            told.is_some_and(|told| self.left_out > told.saturating_mul(2).max(LEFT_OUT_MIN));
        if self.barren > BARREN_MAX || self.hidden > HIDDEN_MAX || repeats {
            return Err(Error::Protocol("a listing without entries that never ends"));
        }
        Ok(())
    }

    /// For one who goes on far behind: places are those of the order in which the listing was read.
    async fn step_back(&mut self) -> Result<()> {
        if self.remembered.is_none() {
            return self.restart().await;
        }
        self.entries.clear();
        (self.first, self.is_complete) = (0, false);
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.give_up();
        (self.told, self.is_anew) = (Some(names_of(None)), false);
        (self.left_out, self.hidden) = (0, 0);
        (self.kept, self.remembered) = (None, None);
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

fn names_of(kept: Option<&Vec<Listed>>) -> Told {
    Told::of(kept.into_iter().flatten().map(|listed| &listed.name[..]))
}

/// An entry of a name that can be shown, but for the dots.
fn listed(entry: &NameEntry, place: u64, translator: &Translator) -> Option<Listed> {
    let name = &entry.name[..];
    if is_dot(name) {
        return None;
    }
    let links = LongName::parse(&entry.longname).map(|longname| longname.links);
    let attrs = &entry.attrs;
    let says_all = attrs.permissions.is_some() && attrs.size.is_some();
    let attr = translator.local(attrs).ok().filter(|_| says_all);
    Some(Listed {
        name: name.into(),
        kind: attrs.kind().unwrap_or(FileKind::Regular),
        attr,
        links,
        place: u32::try_from(place).unwrap_or(u32::MAX),
    })
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX && !name.contains(&b'/') && !name.contains(&0)
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"" | b"." | b"..")
}

/// OpenSSH sends both dots in one page; two pages of one each are thinkable.
const BARREN_MAX: u32 = 4;
/// More names that cannot be any no directory has by accident.
const HIDDEN_MAX: usize = 10_000;
/// Names that may be left out, however few were told: some may have been made again meanwhile.
const LEFT_OUT_MIN: usize = 1000;
/// Longer names cannot go through the kernel (FUSE_NAME_MAX, fs/fuse/fuse_i.h).
const NAME_MAX: usize = 1024;
/// Requests under way at first: OpenSSH answers each with 100 entries.
const PAGES_AHEAD_FIRST: usize = 4;
/// Requests under way at most: 6,400 entries a round trip.
const PAGES_AHEAD_MAX: usize = 64;
/// Entries of a remembered listing that are handed on at once.
const REMEMBERED_PAGE: usize = 256;
/// Entries kept behind the reader, for one who steps back a little (seekdir of the last page).
const KEPT_BEHIND: u64 = 512;
