//! A whole SFTP server in memory, with OpenSSH's manners, for tests of everything above the wire.
//!
//! [`Server::connect`] gives a stream to talk to it; all connections see one [`Tree`], and so does
//! the test, as somebody else at work on the same files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::AbortHandle;

use super::link;
use super::session::Session;
use super::tree::Tree;
use crate::sftp::{Extensions, Frames, Request, Response};
use crate::transport::Link;

/// How the server is. The default is OpenSSH 9.2 with all its extensions, run by root.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The directory where it is started: where relative paths begin.
    pub(crate) home: Bytes,
    /// Advertised in VERSION; a request of one that is not among them is unsupported.
    pub(crate) extensions: Vec<(Bytes, Bytes)>,
    /// Bytes that one READ gives at most.
    pub(crate) read_max: usize,
    /// A longer packet ends the connection.
    pub(crate) packet_max: usize,
    /// Handles that one connection may have open.
    pub(crate) handles_max: usize,
    /// Answers to requests that came together are sent in an order made from this seed.
    pub(crate) shuffle: Option<u64>,
    /// SYMLINK's first path is the new link, as in the draft.
    pub(crate) symlink_has_link_first: bool,
    /// The users, who are groups of their own too: number and name.
    pub(crate) users: BTreeMap<u32, Bytes>,
}

impl Default for Options {
    fn default() -> Self {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let extensions = OPENSSH_EXTENSIONS.map(|(name, data)| (text(name), text(data)));
        Self {
            home: text("/home/ann"),
            extensions: extensions.into(),
            read_max: 261_120,
            packet_max: 262_144,
            handles_max: 1000,
            shuffle: None,
            symlink_has_link_first: false,
            users: BTreeMap::from([(0, text("root")), (1000, text("ann"))]),
        }
    }
}

const OPENSSH_EXTENSIONS: [(&str, &str); 11] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

impl Options {
    /// A server that has all extensions but these.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.extensions
            .retain(|(name, _)| names.iter().all(|without| name != without));
        self
    }

    /// Whether a request is one of an extension that is not advertised.
    pub(super) fn lacks(&self, request: &Request) -> bool {
        let has = Extensions::from_version(&self.extensions);
        match request {
            Request::PosixRename { .. } => !has.posix_rename,
            Request::Statvfs { .. } => !has.statvfs,
            Request::Fstatvfs { .. } => !has.fstatvfs,
            Request::Hardlink { .. } => !has.hardlink,
            Request::Fsync { .. } => !has.fsync,
            Request::Lsetstat { .. } => !has.lsetstat,
            Request::Limits => !has.limits,
            Request::ExpandPath { .. } => !has.expand_path,
            Request::CopyData { .. } => !has.copy_data,
            Request::HomeDirectory { .. } => !has.home_directory,
            Request::UsersGroupsById { .. } => !has.users_groups_by_id,
            _ => false,
        }
    }

    pub(super) fn home_of(&self, user: &[u8]) -> Option<Bytes> {
        if user == b"root" || user.is_empty() {
            return Some(Bytes::from_static(b"/root"));
        }
        let known = self.users.values().any(|name| name == user);
        known.then(|| [b"/home/", user].concat().into())
    }

    /// Empty for a number that nobody has.
    pub(super) fn name_of(&self, id: u32) -> Bytes {
        self.users.get(&id).cloned().unwrap_or_default()
    }
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

struct Shared {
    options: Options,
    state: Mutex<State>,
}

struct State {
    tree: Tree,
    /// All requests so far, of all connections.
    requests: Vec<Request>,
    intercept: Option<Intercept>,
    cut: Option<Picker>,
    connections: Vec<AbortHandle>,
}

type Intercept = Box<dyn FnMut(&Request) -> Option<Response> + Send>;
type Picker = Box<dyn FnMut(&Request, &Tree) -> Option<Cut> + Send>;

/// Where a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The request is not done.
    Before,
    /// It is done, and the answer lost.
    Behind,
}

impl Server {
    pub(crate) fn new(options: Options) -> Self {
        let tree = Tree::new(&options.home);
        let (requests, connections) = (Vec::new(), Vec::new());
        let state = State {
            tree,
            requests,
            intercept: None,
            cut: None,
            connections,
        };
        Self(Arc::new(Shared {
            options,
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Does something to the files behind the clients' backs, or looks at them.
    pub(crate) fn tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> T {
        work(&mut self.state().tree)
    }

    /// The requests since the last time this was asked: what an operation costs.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// Lets a test answer in the server's place. `None` leaves the request to the server.
    pub(crate) fn intercept(
        &self,
        answer: impl FnMut(&Request) -> Option<Response> + Send + 'static,
    ) {
        self.state().intercept = Some(Box::new(answer));
    }

    /// Ends a connection at a request that the test picks; nothing behind it is done.
    pub(crate) fn cut_when(&self, mut pick: impl FnMut(&Request) -> Option<Cut> + Send + 'static) {
        self.cut_where(move |request, _| pick(request));
    }

    /// As [`Self::cut_when`], for a test that also looks at what is there before the request.
    pub(crate) fn cut_where(
        &self,
        pick: impl FnMut(&Request, &Tree) -> Option<Cut> + Send + 'static,
    ) {
        self.state().cut = Some(Box::new(pick));
    }

    fn cut_at(&self, request: &Request) -> Option<Cut> {
        let State { tree, cut, .. } = &mut *self.state();
        cut.as_mut().and_then(|pick| pick(request, tree))
    }

    /// Ends all connections, as a network does. New ones are served.
    pub(crate) fn hang_up(&self) {
        self.state()
            .connections
            .drain(..)
            .for_each(|connection| connection.abort());
    }

    /// A new connection, for `Client::over`.
    pub(crate) fn link(&self) -> Link {
        link(self.connect())
    }

    /// A new connection, served by a task of the current runtime until either side ends it.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(STREAM_BUFFER);
        let connection = Connection {
            server: self.clone(),
            session: Session::new(),
        };
        let task = tokio::spawn(connection.serve(theirs));
        self.state().connections.push(task.abort_handle());
        ours
    }
}

/// Holds the largest packet, so that a client that writes one does not wait for the server.
const STREAM_BUFFER: usize = 512 * 1024;

struct Connection {
    server: Server,
    session: Session,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.session.end(&mut self.server.state().tree);
    }
}

impl Connection {
    /// Until the client hangs up or says what is no packet.
    async fn serve(mut self, mut stream: DuplexStream) {
        let options = self.server.0.options.clone();
        let mut frames = Frames::new(options.packet_max);
        let mut order = options.shuffle.map(Order);
        while stream
            .read_buf(frames.buffer())
            .await
            .is_ok_and(|count| count > 0)
        {
            let mut answers = Vec::new();
            let ended = loop {
                match frames.next().map(|frame| frame.map(Request::decode)) {
                    Ok(Some(Ok((id, request)))) => {
                        let cut = self.server.cut_at(&request);
                        if cut != Some(Cut::Before) {
                            answers.push(self.answer(&options, request).encode(id));
                        }
                        if cut.is_some() {
                            return;
                        }
                    }
                    Ok(None) => break false,
                    Ok(Some(Err(_))) | Err(_) => break true,
                }
            };
            if let Some(order) = &mut order {
                order.shuffle(&mut answers);
            }
            for answer in answers {
                if stream.write_all(&answer.into_bytes()).await.is_err() {
                    return;
                }
            }
            if ended {
                return;
            }
        }
    }

    fn answer(&mut self, options: &Options, request: Request) -> Response {
        let mut state = self.server.state();
        let State {
            tree,
            requests,
            intercept,
            ..
        } = &mut *state;
        requests.push(request.clone());
        if let Some(answer) = intercept.as_mut().and_then(|intercept| intercept(&request)) {
            return answer;
        }
        self.session.answer(tree, options, request)
    }
}

/// xorshift64: an order that a seed repeats.
struct Order(u64);

impl Order {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            items.swap(end, usize::try_from(self.0 % (end as u64 + 1)).unwrap());
        }
    }
}
