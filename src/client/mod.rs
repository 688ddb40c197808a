//! SFTP operations as typed calls, with what this server can do and what stands in for what it
//! cannot. Never caches.
//!
//! Calls that are no `async fn` submit their request before they return, so that calls made one
//! after the other leave in that order and share a round trip; the future they return only waits. Only
//! after a loss a call by path, and what has to do with it, may wait for its turn ([`turns`]).

mod calls;
mod connection;
mod copy_data;
mod copy_lane;
mod copy_new;
mod features;
mod files;
mod health;
mod lanes;
mod losses;
mod moves;
mod outline;
mod pending;
mod pieces;
mod pool;
mod recovery;
mod rename;
mod same_file;
mod settle;
mod spread;
mod stream;
mod symlink;
#[cfg(test)]
mod tests;
mod turns;
mod wanted;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;

use self::calls::Again;
pub(crate) use self::calls::Tried;
use self::connection::{Connection, Ticket};
pub(crate) use self::copy_data::{CopyData, CopyEnd};
pub(crate) use self::copy_new::{CopyLane, NewCopy, NewCopyError};
pub(crate) use self::features::Features;
use self::features::features;
pub(crate) use self::files::Handle;
pub(crate) use self::health::{Health, Standing};
use self::lanes::Lanes;
pub(crate) use self::losses::{Losses, LossesTogether};
use self::pending::Answer;
pub(crate) use self::pieces::Span;
use self::symlink::SymlinkOrder;
pub(crate) use self::wanted::{Wanted, is_abandoned, while_wanted};
use crate::error::{Error, Result};
use crate::sftp::{Attrs, Request, Response, StatusCode, Statvfs};
use crate::transport::{Dialer, Link};

/// How the server is talked to.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Connections at most (`-o max_conns=N`), opened when used; one for large copies on the server
    /// comes on top.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { connections_max: 8 }
    }
}

/// A server, logged in to.
pub(crate) struct Client {
    lanes: Arc<Lanes>,
    features: Features,
    /// In which order this server takes SYMLINK's arguments; see [`SymlinkOrder`].
    symlink_order: AtomicU8,
    /// It announced copy-data and then would not do it.
    copies_refused: AtomicBool,
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
        Ok(Self::new(
            Lanes::given(connection, Vec::new(), None, spread::MUCH),
            features,
        ))
    }

    /// As `over_many`, and whenever the first connection is lost the next one is what `link` gives.
    #[cfg(test)]
    pub(crate) async fn over_again(
        link: impl Fn() -> Link + Send + Sync + 'static,
        data: Vec<Link>,
        much: u64,
    ) -> Result<Self> {
        let (first, features) = greet(link()).await?;
        let mut lanes = Vec::new();
        for link in data {
            lanes.push(Connection::open(link).await?.0);
        }
        let dial = recovery::Dial {
            connect: Box::new(move || {
                let link = link();
                Box::pin(async move { Ok(Connection::open(link).await?.0) })
            }),
            is_asking: Box::new(|| false),
        };
        Ok(Self::new(Lanes::kept(first, dial, lanes, much), features))
    }

    /// As `over`, with a second connection to the same server for copies.
    #[cfg(test)]
    pub(crate) async fn over_two(link: Link, copies: Link) -> Result<Self> {
        let (connection, features) = greet(link).await?;
        let (copies, _) = Connection::open(copies).await?;
        let lanes = Lanes::given(connection, Vec::new(), Some(copies), spread::MUCH);
        Ok(Self::new(lanes, features))
    }

    /// As `over`, with these further connections to the same server for the data of files of which
    /// so many bytes are read or written.
    #[cfg(test)]
    pub(crate) async fn over_many(link: Link, data: Vec<Link>, much: u64) -> Result<Self> {
        let (connection, features) = greet(link).await?;
        let mut lanes = Vec::new();
        for link in data {
            lanes.push(Connection::open(link).await?.0);
        }
        Ok(Self::new(
            Lanes::given(connection, lanes, None, much),
            features,
        ))
    }

    fn new(lanes: Lanes, features: Features) -> Self {
        Self {
            lanes: Arc::new(lanes),
            features,
            symlink_order: AtomicU8::new(SymlinkOrder::Unknown as u8),
            copies_refused: AtomicBool::new(false),
        }
    }

    pub(crate) const fn features(&self) -> &Features {
        &self.features
    }

    /// How many connections there are, but for that for copies.
    pub(crate) fn connections(&self) -> usize {
        1 + self.lanes.data().open().len()
    }

    /// How the connection is.
    pub(crate) fn health(&self) -> Health {
        self.lanes.health()
    }

    /// The least that an answer took on the first connection; `None` before the first answer.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.lanes.round_trip()
    }

    /// Asks the server at once whether it is there; a connection on which nothing comes back in a
    /// few seconds is given up and made anew. Never waits.
    pub(crate) fn check(&self) {
        self.lanes.check();
    }

    /// From now on whatever waits for the server to come back fails, as does all that is asked later
    /// while it is away.
    pub(crate) fn give_up(&self) {
        self.lanes.give_up();
    }

    /// Why the server is gone, if it is.
    #[cfg(test)]
    pub(crate) fn lost(&self) -> Option<Error> {
        self.lanes.metadata().lost()
    }

    /// Asks by path: see [`Lanes::call`].
    fn call(&self, request: Request) -> impl Future<Output = Answer> + Send + use<> {
        let answer = self.call_on(request);
        async move { Ok(answer.await?.1) }
    }

    /// As `call`, and says which connection answered.
    fn call_on(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<(Arc<Connection>, Response)>> + Send + use<> {
        self.lanes.call(request, Again::Here)
    }

    // Attributes.

    pub(crate) fn lstat(&self, path: Bytes) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(self.call(Request::Lstat { path }))
    }

    /// As `lstat`, but of what a symbolic link leads to.
    pub(crate) fn stat(&self, path: Bytes) -> impl Future<Output = Result<Attrs>> + Send + use<> {
        attrs(self.call(Request::Stat { path }))
    }

    /// Follows symbolic links.
    pub(crate) fn setstat(
        &self,
        path: Bytes,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.call(Request::Setstat { path, attrs }))
    }

    /// Changes a symbolic link itself (lsetstat@openssh.com, OpenSSH 8.0).
    ///
    /// # Errors
    /// EOPNOTSUPP where the server has no such request: never through the link.
    pub(crate) async fn lsetstat(&self, path: Bytes, attrs: Attrs) -> Result<()> {
        if !self.features.extensions.lsetstat {
            return Err(Errno::EOPNOTSUPP.into());
        }
        done(self.call(Request::Lsetstat { path, attrs })).await
    }

    /// Space and inodes of the file system that holds `path`; `None` if the server cannot say.
    pub(crate) async fn statvfs(&self, path: Bytes) -> Result<Option<Statvfs>> {
        if !self.features.extensions.statvfs {
            return Ok(None);
        }
        match self.call(Request::Statvfs { path }).await? {
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
        one_name(self.call(request).await?)
    }

    pub(crate) fn remove(&self, path: Bytes) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.call(Request::Remove { path }))
    }

    /// As `remove`; `tried` goes with each try of the same removal.
    ///
    /// # Errors
    /// Those of a connection that was lost: it was not done.
    pub(crate) fn try_remove(
        &self,
        path: Bytes,
        tried: &Tried,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let again = Again::ByCaller(tried.clone());
        let answer = self.lanes.call(Request::Remove { path }, again);
        done(async move { Ok(answer.await?.1) })
    }

    pub(crate) fn mkdir(
        &self,
        path: Bytes,
        attrs: Attrs,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.call(Request::Mkdir { path, attrs }))
    }

    /// Waits until no directory above a path is being renamed, as far as that was asked for here; not for
    /// ever.
    pub(crate) async fn stays(&self, path: &[u8]) {
        self.lanes.stays(path).await;
    }

    pub(crate) fn rmdir(&self, path: Bytes) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.call(Request::Rmdir { path }))
    }

    /// As `rmdir`; `tried` goes with each try of the same removal.
    ///
    /// # Errors
    /// Those of a connection that was lost: it was not done.
    pub(crate) fn try_rmdir(
        &self,
        path: Bytes,
        tried: &Tried,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let again = Again::ByCaller(tried.clone());
        let answer = self.lanes.call(Request::Rmdir { path }, again);
        done(async move { Ok(answer.await?.1) })
    }

    /// RENAME (draft-ietf-secsh-filexfer-02, section 6.5). On OpenSSH it is link(2) and unlink(2)
    /// for regular files, so that it never replaces one; other servers do as they like.
    pub(crate) fn rename_plain(
        &self,
        from: Bytes,
        to: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        done(self.call(Request::Rename { from, to }))
    }

    /// link(2): hardlink@openssh.com (OpenSSH 5.7).
    ///
    /// # Errors
    /// EPERM where the server has no such request, as link(2) has it for a file system without
    /// hard links.
    pub(crate) fn hardlink(
        &self,
        from: Bytes,
        to: Bytes,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let has = self.features.extensions.hardlink;
        let ticket = has.then(|| self.call(Request::Hardlink { from, to }));
        async move {
            match ticket {
                Some(ticket) => done(ticket).await,
                None => Err(Errno::EPERM.into()),
            }
        }
    }

    pub(crate) async fn readlink(&self, path: Bytes) -> Result<Bytes> {
        one_name(self.call(Request::Readlink { path }).await?)
    }
}

/// Shakes hands and asks what the server can do.
async fn greet(link: Link) -> Result<(Connection, Features)> {
    let peer = link.peer.clone();
    let (connection, version) = Connection::open(link).await?;
    let features = features(&connection, version).await?;
    log::info!("connected to {peer}; {}", features.describe());
    Ok((connection, features))
}

async fn attrs(ticket: impl Future<Output = Answer>) -> Result<Attrs> {
    match ticket.await? {
        Response::Attrs(attrs) => Ok(attrs),
        other => Err(unexpected(other)),
    }
}

async fn done(ticket: impl Future<Output = Answer>) -> Result<()> {
    match ticket.await? {
        Response::Status {
            code: StatusCode::OK,
            ..
        } => Ok(()),
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
