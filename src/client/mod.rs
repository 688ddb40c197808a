//! SFTP operations as typed calls, with what this server can do and what stands in for what it
//! cannot. Never caches.
//!
//! Calls that are no `async fn` submit their request before they return, so that calls made one
//! after the other leave in that order and share a round trip; the future they return only waits.

mod connection;
mod lanes;
mod outline;
mod pending;
#[cfg(test)]
mod tests;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use nix::errno::Errno;

use self::connection::Connection;
pub(crate) use self::connection::Ticket;
use self::lanes::Lanes;
use crate::error::{Error, Result};
use crate::sftp::{
    Attrs, Extensions, FileKind, Limits, NameEntry, OpenFlags, Request, Response, StatusCode,
    Statvfs,
};
use crate::transport::{Dialer, Link};

/// How the server is talked to.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Connections at most (`-o max_conns=N`), opened when used.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { connections_max: 1 }
    }
}

/// A server, logged in to.
pub(crate) struct Client {
    lanes: Lanes,
    features: Features,
    /// In which order this server takes SYMLINK's arguments; see [`SymlinkOrder`].
    symlink_order: AtomicU8,
}

/// What the server said it can do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Features {
    pub(crate) extensions: Extensions,
    /// Bytes that one READ may ask for.
    pub(crate) read_max: u32,
    /// Bytes that one WRITE may carry.
    pub(crate) write_max: u32,
}

/// A file or directory that the server has open for us, until the last clone of this is dropped.
/// Lives on one connection.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Open>);

struct Open {
    connection: Arc<Connection>,
    bytes: Bytes,
}

impl Drop for Open {
    /// Sends CLOSE when the last clone of a handle goes, behind all that was sent by it. Servers
    /// give a handle's name to the next file at once, so that nobody may use it after that; and
    /// nobody waits for the answer, which tells nothing that the writes' answers did not.
    fn drop(&mut self) {
        let handle = self.bytes.clone();
        drop(self.connection.submit(&Request::Close { handle }));
    }
}

impl Client {
    /// Connects, logs in, and asks what the server can do.
    ///
    /// # Errors
    /// [`Error::Setup`] with what to tell the user.
    pub(crate) async fn connect(dialer: Dialer, config: &Config) -> Result<Self> {
        let link = dialer.dial().await?;
        let (first, features) = greet(link).await?;
        let lanes = Lanes::new(first, dialer, config.connections_max);
        Ok(Self::new(lanes, features))
    }

    /// A client of whoever is at the other end of `link`, on that one connection.
    #[cfg(test)]
    pub(crate) async fn over(link: Link) -> Result<Self> {
        let (connection, features) = greet(link).await?;
        Ok(Self::new(Lanes::one(connection), features))
    }

    const fn new(lanes: Lanes, features: Features) -> Self {
        Self {
            lanes,
            features,
            symlink_order: AtomicU8::new(SymlinkOrder::Unknown as u8),
        }
    }

    pub(crate) const fn features(&self) -> &Features {
        &self.features
    }

    /// Why the server is gone, if it is.
    #[cfg(test)]
    pub(crate) fn lost(&self) -> Option<Error> {
        self.lanes.metadata().lost()
    }

    fn submit(&self, request: &Request) -> Ticket {
        self.lanes.metadata().submit(request)
    }

    // Attributes.

    pub(crate) fn lstat(&self, path: Bytes) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(self.submit(&Request::Lstat { path }))
    }

    /// As `lstat`, but of what a symbolic link leads to.
    pub(crate) fn stat(&self, path: Bytes) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(self.submit(&Request::Stat { path }))
    }

    pub(crate) fn fstat(
        &self,
        handle: &Handle,
    ) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(handle.submit(&Request::Fstat {
            handle: handle.0.bytes.clone(),
        }))
    }

    /// Follows symbolic links.
    pub(crate) fn setstat(
        &self,
        path: Bytes,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.submit(&Request::Setstat { path, attrs }))
    }

    pub(crate) fn fsetstat(
        &self,
        handle: &Handle,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(handle.submit(&Request::Fsetstat {
            handle: handle.0.bytes.clone(),
            attrs,
        }))
    }

    /// Changes a symbolic link itself (lsetstat@openssh.com, OpenSSH 8.0).
    ///
    /// # Errors
    /// EOPNOTSUPP where the server has no such request: never through the link.
    pub(crate) async fn lsetstat(&self, path: Bytes, attrs: Attrs) -> Result<()> {
        if !self.features.extensions.lsetstat {
            return Err(Errno::EOPNOTSUPP.into());
        }
        done(self.submit(&Request::Lsetstat { path, attrs })).await
    }

    /// Space and inodes of the file system that holds `path`; `None` if the server cannot say.
    pub(crate) async fn statvfs(&self, path: Bytes) -> Result<Option<Statvfs>> {
        if !self.features.extensions.statvfs {
            return Ok(None);
        }
        match self.submit(&Request::Statvfs { path }).await? {
            Response::Extended(body) => Ok(Some(Statvfs::decode(body)?)),
            other => Err(unexpected(other)),
        }
    }

    // Names.

    /// The absolute path of what was typed; `~` and `~user` where the server knows them
    /// (expand-path@openssh.com, OpenSSH 8.7).
    pub(crate) async fn resolve(&self, typed: Bytes) -> Result<Bytes> {
        let path = if typed.is_empty() {
            Bytes::from_static(b".")
        } else {
            typed
        };
        let request = if path.starts_with(b"~") && self.features.extensions.expand_path {
            Request::ExpandPath { path }
        } else {
            Request::Realpath { path }
        };
        one_name(self.submit(&request).await?)
    }

    pub(crate) fn remove(&self, path: Bytes) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.submit(&Request::Remove { path }))
    }

    pub(crate) fn mkdir(
        &self,
        path: Bytes,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.submit(&Request::Mkdir { path, attrs }))
    }

    pub(crate) fn rmdir(&self, path: Bytes) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.submit(&Request::Rmdir { path }))
    }

    /// rename(2), replacing what is at `to`: posix-rename@openssh.com (OpenSSH 4.9). Without it,
    /// RENAME, which most servers refuse if `to` exists: then what is there is moved aside first
    /// and brought back if the second step fails. Only an empty directory is replaced by another.
    ///
    /// # Errors
    /// Also EISDIR and ENOTDIR, and what rmdir says of a directory that is not empty.
    pub(crate) async fn rename(&self, from: Bytes, to: Bytes) -> Result<()> {
        if self.features.extensions.posix_rename {
            return done(self.submit(&Request::PosixRename { from, to })).await;
        }
        let refused = match self.rename_plain(from.clone(), to.clone()).await {
            Err(error @ Error::Refused { .. }) => error,
            other => return other,
        };
        let (old, new) = (self.lstat(to.clone()), self.lstat(from.clone()));
        let (Ok(old), Ok(new)) = (old.await, new.await) else {
            return Err(refused);
        };
        match (new.kind(), old.kind()) {
            (Some(FileKind::Directory), Some(FileKind::Directory)) => {
                return self.rename_over_directory(from, to, old).await;
            }
            (_, Some(FileKind::Directory)) => return Err(Errno::EISDIR.into()),
            (Some(FileKind::Directory), _) => return Err(Errno::ENOTDIR.into()),
            _ => {}
        }
        let aside = aside_name(&to);
        self.rename_plain(to.clone(), aside.clone()).await?;
        let renamed = self.rename_plain(from, to.clone()).await;
        if renamed.is_err() {
            self.rename_plain(aside, to).await?;
            return renamed;
        }
        self.remove(aside).await
    }

    /// What was at `to` is made anew if the second step fails: it was empty.
    async fn rename_over_directory(&self, from: Bytes, to: Bytes, old: Attrs) -> Result<()> {
        if to
            .strip_prefix(&from[..])
            .is_some_and(|below| below.starts_with(b"/"))
        {
            // rename(2): a directory cannot be moved into itself.
            return Err(Errno::EINVAL.into());
        }
        self.rmdir(to.clone()).await?;
        let renamed = self.rename_plain(from, to.clone()).await;
        if renamed.is_err() {
            let attrs = Attrs {
                permissions: old.permissions.map(|mode| mode & 0o7777),
                owner: old.owner,
                ..Attrs::default()
            };
            let made = self.mkdir(to.clone(), Attrs::default());
            let changed = self.setstat(to, attrs);
            made.await?;
            changed.await?;
        }
        renamed
    }

    /// RENAME (draft-ietf-secsh-filexfer-02, section 6.5). On OpenSSH it is link(2) and unlink(2)
    /// for regular files, so that it never replaces one; other servers do as they like.
    pub(crate) fn rename_plain(
        &self,
        from: Bytes,
        to: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.submit(&Request::Rename { from, to }))
    }

    /// link(2): hardlink@openssh.com (OpenSSH 5.7).
    ///
    /// # Errors
    /// EPERM where the server has no such request, as link(2) has it for a file system without
    /// hard links.
    pub(crate) async fn hardlink(&self, from: Bytes, to: Bytes) -> Result<()> {
        if !self.features.extensions.hardlink {
            return Err(Errno::EPERM.into());
        }
        done(self.submit(&Request::Hardlink { from, to })).await
    }

    pub(crate) async fn readlink(&self, path: Bytes) -> Result<Bytes> {
        one_name(self.submit(&Request::Readlink { path }).await?)
    }

    /// Makes a symbolic link at `link` that says `target`, and looks at it: its attributes are
    /// the result, in the same round trip.
    ///
    /// OpenSSH takes SYMLINK's arguments as (target, link), the reverse of the draft (OpenSSH
    /// PROTOCOL, section 4.1), and most servers do as it does. Where the link is not there after
    /// an OK, the server took them as the draft has them: what it made is undone, and from then
    /// on the other order is used. The same where `target` exists and the server refuses. Until
    /// then such a server refuses targets where nothing can be made.
    pub(crate) async fn symlink(&self, target: Bytes, link: Bytes) -> Result<Attrs> {
        let order = self.symlink_order();
        let (first, second) = match order {
            SymlinkOrder::Draft => (link.clone(), target.clone()),
            SymlinkOrder::OpenSsh | SymlinkOrder::Unknown => (target.clone(), link.clone()),
        };
        let made = done(self.submit(&Request::Symlink { first, second }));
        let seen = self.lstat(link.clone());
        let (made, seen) = (made.await, seen.await);
        // What else is there is not what was made.
        let is_link = |seen: &Attrs| seen.kind() == Some(FileKind::Symlink);
        if order != SymlinkOrder::Unknown {
            return made.and(seen);
        }
        if seen.as_ref().is_ok_and(is_link) {
            if made.is_ok() {
                self.set_symlink_order(SymlinkOrder::OpenSsh);
            }
            return made.and(seen);
        }
        if !self.took_draft_order(&made, &target, &link).await? {
            return made.and(seen);
        }
        let again = Request::Symlink {
            first: link.clone(),
            second: target,
        };
        let remade = done(self.submit(&again)).await;
        if remade.is_err() {
            // What was refused first says more.
            return made.and(remade).and(seen);
        }
        self.set_symlink_order(SymlinkOrder::Draft);
        self.lstat(link).await
    }

    /// Whether SYMLINK in OpenSSH's order, answered with `made` and without a link at `link`, may
    /// have been taken in the draft's order. What it made then is undone.
    async fn took_draft_order(
        &self,
        made: &Result<()>,
        target: &Bytes,
        link: &Bytes,
    ) -> Result<bool> {
        match made {
            Ok(()) => {
                let wrong = self.readlink(target.clone()).await;
                let is_wrong = wrong.is_ok_and(|says| says == link);
                if is_wrong {
                    self.remove(target.clone()).await?;
                }
                Ok(is_wrong)
            }
            // A link at `target` was refused because of what is there. In OpenSSH's order the
            // next try is refused for the same reason, so that it does no harm.
            Err(error)
                if error.is_refused_with(StatusCode::FAILURE)
                    || error.is_refused_with(StatusCode::FILE_ALREADY_EXISTS) =>
            {
                Ok(self.lstat(target.clone()).await.is_ok())
            }
            Err(_) => Ok(false),
        }
    }

    fn symlink_order(&self) -> SymlinkOrder {
        if self.features.extensions.symlink_order.as_deref() == Some(b"linkpath-targetpath") {
            return SymlinkOrder::Draft;
        }
        match self.symlink_order.load(Ordering::Relaxed) {
            order if order == SymlinkOrder::OpenSsh as u8 => SymlinkOrder::OpenSsh,
            order if order == SymlinkOrder::Draft as u8 => SymlinkOrder::Draft,
            _ => SymlinkOrder::Unknown,
        }
    }

    fn set_symlink_order(&self, order: SymlinkOrder) {
        self.symlink_order.store(order as u8, Ordering::Relaxed);
    }

    // Open files and directories.

    /// Opens a file on the connection that data takes.
    pub(crate) fn open(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let connection = self.lanes.data();
        let ticket = connection.submit(&Request::Open { path, flags, attrs });
        opened(connection, ticket)
    }

    /// Opens a file and looks at it, in one round trip: what `open` and `lstat` give.
    pub(crate) async fn open_and_look(
        &self,
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    ) -> Result<(Handle, Attrs)> {
        let connection = self.lanes.data();
        let open = connection.submit(&Request::Open {
            path: path.clone(),
            flags,
            attrs,
        });
        // By path and on the same connection: the handle is not known yet, the order is.
        let look = connection.submit(&Request::Stat { path });
        let handle = opened(connection, open).await?;
        match self::attrs(look).await {
            Ok(seen) => Ok((handle, seen)),
            Err(Error::Refused { .. }) => {
                let seen = self.fstat(&handle).await?;
                Ok((handle, seen))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn opendir(
        &self,
        path: Bytes,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let connection = self.lanes.metadata();
        let ticket = connection.submit(&Request::Opendir { path });
        opened(connection, ticket)
    }

    /// The next entries of a directory; `None` at its end.
    pub(crate) fn readdir(
        &self,
        handle: &Handle,
    ) -> impl Future<Output = Result<Option<Vec<NameEntry>>>> + Send + use<> {
        let ticket = handle.submit(&Request::Readdir {
            handle: handle.0.bytes.clone(),
        });
        async move {
            match ticket.await? {
                // Neither the end nor an entry: to ask again might never end.
                Response::Names(names) if names.is_empty() => {
                    Err(Error::Protocol("a page of a listing without entries"))
                }
                Response::Names(names) => Ok(Some(names)),
                Response::Status {
                    code: StatusCode::EOF,
                    ..
                } => Ok(None),
                other => Err(unexpected(other)),
            }
        }
    }

    /// Reads up to `len` bytes when there is a place for the request among those outstanding.
    /// Empty means the end of the file, and nothing else does; fewer bytes than asked for mean
    /// nothing.
    pub(crate) async fn read(&self, handle: &Handle, offset: u64, len: u32) -> Result<Bytes> {
        data(
            handle
                .0
                .connection
                .submit_data(&read_request(handle, offset, len))
                .await,
            len,
        )
        .await
    }

    /// As `read`, for data that nobody waits for yet; `None` if there is no place now.
    pub(crate) fn read_ahead(
        &self,
        handle: &Handle,
        offset: u64,
        len: u32,
    ) -> Option<impl Future<Output = Result<Bytes>> + Send + 'static + use<>> {
        let ticket = handle
            .0
            .connection
            .submit_ahead(&read_request(handle, offset, len))?;
        Some(data(ticket, len))
    }

    /// Sends a WRITE when there is a place for it; the future inside tells what became of it.
    pub(crate) async fn write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let request = Request::Write {
            handle: handle.0.bytes.clone(),
            offset,
            data,
        };
        done(handle.0.connection.submit_data(&request).await)
    }

    /// Brings a file's data to the server's disk (fsync@openssh.com, OpenSSH 6.5). Where the
    /// server has no such request this only means that it has the data.
    pub(crate) async fn fsync(&self, handle: &Handle) -> Result<()> {
        if !self.features.extensions.fsync {
            return Ok(());
        }
        done(handle.submit(&Request::Fsync {
            handle: handle.0.bytes.clone(),
        }))
        .await
    }
}

impl Features {
    /// One line for the log.
    fn describe(&self) -> String {
        let has = &self.extensions;
        let named = [
            (has.posix_rename, "posix-rename"),
            (has.statvfs, "statvfs"),
            (has.hardlink, "hardlink"),
            (has.fsync, "fsync"),
            (has.lsetstat, "lsetstat"),
            (has.copy_data, "copy-data"),
            (has.expand_path, "expand-path"),
        ];
        let (yes, no): (Vec<_>, Vec<_>) = named.into_iter().partition(|(has, _)| *has);
        let list = |of: Vec<(bool, &'static str)>| {
            of.into_iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!(
            "read {} write {} bytes a request; has: {}; has not: {}",
            self.read_max,
            self.write_max,
            list(yes),
            list(no)
        )
    }
}

impl Handle {
    fn submit(&self, request: &Request) -> Ticket {
        self.0.connection.submit(request)
    }
}

/// The order of SYMLINK's arguments, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum SymlinkOrder {
    Unknown,
    OpenSsh,
    Draft,
}

/// Shakes hands and asks what the server can do.
async fn greet(link: Link) -> Result<(Connection, Features)> {
    let peer = link.peer.clone();
    let (connection, version) = Connection::open(link).await?;
    let features = features(&connection, version).await?;
    log::info!("connected to {peer}; {}", features.describe());
    Ok((connection, features))
}

/// What VERSION and limits@openssh.com (OpenSSH 8.5) say.
async fn features(connection: &Connection, version: Response) -> Result<Features> {
    let Response::Version {
        version,
        extensions,
    } = version
    else {
        return Err(unexpected(version));
    };
    if version < 3 {
        return Err(Error::setup(format!(
            "the server speaks SFTP version {version}; version 3 is needed"
        )));
    }
    let extensions = Extensions::from_version(&extensions);
    let mut features = Features {
        extensions,
        read_max: IO_DEFAULT,
        write_max: IO_DEFAULT,
    };
    if features.extensions.limits {
        // A server that announces limits and then refuses to tell them is taken at the default.
        if let Ok(Response::Extended(body)) = connection.submit(&Request::Limits).await {
            let limits = Limits::decode(body)?;
            features.read_max = io_size(limits.read_max, limits.packet_max);
            features.write_max = io_size(limits.write_max, limits.packet_max);
        }
    }
    Ok(features)
}

/// What to ask for at once: the server's limit, held to what pays; 0 means it has none.
fn io_size(max: u64, packet_max: u64) -> u32 {
    let packet = if packet_max == 0 {
        u64::MAX
    } else {
        packet_max.saturating_sub(1024)
    };
    let max = if max == 0 { u64::from(IO_MAX) } else { max };
    u32::try_from(max.min(packet))
        .unwrap_or(IO_MAX)
        .clamp(IO_MIN, IO_MAX)
}

fn read_request(handle: &Handle, offset: u64, len: u32) -> Request {
    Request::Read {
        handle: handle.0.bytes.clone(),
        offset,
        len,
    }
}

async fn attrs(ticket: Ticket) -> Result<Attrs> {
    match ticket.await? {
        Response::Attrs(attrs) => Ok(attrs),
        other => Err(unexpected(other)),
    }
}

async fn done(ticket: Ticket) -> Result<()> {
    match ticket.await? {
        Response::Status {
            code: StatusCode::OK,
            ..
        } => Ok(()),
        other => Err(unexpected(other)),
    }
}

async fn opened(connection: Arc<Connection>, ticket: Ticket) -> Result<Handle> {
    match ticket.await? {
        Response::Handle(bytes) => Ok(Handle(Arc::new(Open { connection, bytes }))),
        other => Err(unexpected(other)),
    }
}

async fn data(ticket: Ticket, len: u32) -> Result<Bytes> {
    match ticket.await? {
        Response::Data(data) if data.len() > usize::try_from(len).unwrap_or(usize::MAX) => {
            Err(Error::Protocol("DATA longer than asked for"))
        }
        // No data without an error: neither is it the end of the file, nor may we ask for ever.
        Response::Data(data) if data.is_empty() => Err(Error::Protocol("empty DATA")),
        Response::Data(data) => Ok(data),
        Response::Status {
            code: StatusCode::EOF,
            ..
        } => Ok(Bytes::new()),
        other => Err(unexpected(other)),
    }
}

fn one_name(response: Response) -> Result<Bytes> {
    match response {
        Response::Names(names) if names.len() == 1 => names
            .into_iter()
            .next()
            .map(|entry| entry.name)
            .ok_or(Error::Protocol("no name")),
        other => Err(unexpected(other)),
    }
}

/// An answer that is not the one hoped for: the server's refusal, or nonsense.
fn unexpected(response: Response) -> Error {
    match response {
        Response::Status {
            code: StatusCode::OK,
            ..
        } => Error::Protocol("OK where an answer was due"),
        Response::Status { code, message, .. } => Error::Refused {
            code,
            message: String::from_utf8_lossy(&message).trim().into(),
        },
        _ => Error::Protocol("an answer of the wrong type"),
    }
}

/// A name beside `path` that nobody else has.
fn aside_name(path: &Bytes) -> Bytes {
    let mut aside = path.to_vec();
    aside.extend_from_slice(format!(".sftpfs-{:x}", std::process::id()).as_bytes());
    aside.into()
}

/// What every SFTP server must take (draft-ietf-secsh-filexfer-02, section 3: packets of 34,000
/// bytes).
const IO_DEFAULT: u32 = 32 << 10;
const IO_MIN: u32 = 4 << 10;
/// OpenSSH's own limit is 261,120; more has not been seen to pay.
const IO_MAX: u32 = 255 << 10;
