//! What tests of copies stand on: a server, in memory or OpenSSH's, with one connection or with one
//! more for copies, and files whose bytes tell where they are from.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use crate::client::{Client, CopyData, CopyEnd, Span};
use crate::error::Result;
use crate::sftp::{Attrs, OpenFlags, Request};
use crate::testing::{OPENSSH, Options, Program, Server};
use crate::transport::{Diagnosis, Link};

pub(super) const WRITE: OpenFlags = OpenFlags(OpenFlags::WRITE.0 | OpenFlags::CREAT.0);
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

/// A server, a client of it, and the files on it.
pub(super) struct Bench {
    pub(super) client: Client,
    pub(super) files: Files,
    pub(super) name: &'static str,
}

pub(super) enum Files {
    Memory(Server),
    /// The servers run as long as this is there.
    Disk {
        directory: tempfile::TempDir,
        _programs: Vec<Program>,
    },
}

impl Bench {
    pub(super) async fn in_memory(options: Options, has_lane: bool) -> Self {
        let server = Server::new(options);
        let client = match has_lane {
            true => Client::over_two(server.link(), server.link()).await,
            false => Client::over(server.link()).await,
        };
        let name = if has_lane {
            "in memory, two"
        } else {
            "in memory"
        };
        let client = client.unwrap();
        server.take_requests();
        Self::over(client, server, name)
    }

    /// A client that a test made, of a server in memory.
    pub(super) const fn over(client: Client, server: Server, name: &'static str) -> Self {
        Self {
            client,
            files: Files::Memory(server),
            name,
        }
    }

    pub(super) async fn openssh(command: &[&str], has_lane: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut programs = Vec::new();
        let mut run = || {
            let (program, stream) = Program::run(command, directory.path())
                .expect("this test needs the package openssh-sftp-server");
            programs.push(program);
            Link {
                stream: Box::new(stream),
                peer: "OpenSSH".into(),
                diagnosis: Diagnosis::default(),
            }
        };
        let client = match has_lane {
            true => Client::over_two(run(), run()).await,
            false => Client::over(run()).await,
        };
        let name = if has_lane { "OpenSSH, two" } else { "OpenSSH" };
        let client = client.unwrap();
        let files = Files::Disk {
            directory,
            _programs: programs,
        };
        Self {
            client,
            files,
            name,
        }
    }

    pub(super) async fn all() -> [Self; 4] {
        [
            Self::in_memory(Options::default(), false).await,
            Self::in_memory(Options::default(), true).await,
            Self::openssh(&[OPENSSH], false).await,
            Self::openssh(&[OPENSSH], true).await,
        ]
    }

    pub(super) fn server(&self) -> &Server {
        match &self.files {
            Files::Memory(server) => server,
            Files::Disk { .. } => panic!("that one is in memory"),
        }
    }

    pub(super) fn on_disk(&self, path: &str) -> PathBuf {
        match &self.files {
            Files::Memory(_) => panic!("that one is on a disk"),
            Files::Disk { directory, .. } => directory.path().join(path),
        }
    }

    pub(super) fn put(&self, path: &str, data: &[u8]) {
        match &self.files {
            Files::Memory(server) => server.tree(|tree| tree.put(path.as_bytes(), data)),
            Files::Disk { .. } => fs::write(self.on_disk(path), data).unwrap(),
        }
    }

    pub(super) fn content(&self, path: &str) -> Bytes {
        match &self.files {
            Files::Memory(server) => server.tree(|tree| tree.content(path.as_bytes()).unwrap()),
            Files::Disk { .. } => fs::read(self.on_disk(path)).unwrap().into(),
        }
    }

    /// Both ends of a copy, open, the target made if it is not there.
    pub(super) async fn ends(&self, source: &str, target: &str) -> (CopyEnd, CopyEnd) {
        let open = async |path: &str, flags| {
            let path = Bytes::copy_from_slice(path.as_bytes());
            let opened = self.client.open(path.clone(), flags, Attrs::default());
            CopyEnd {
                handle: opened.await.unwrap(),
                path: Some(path),
            }
        };
        (
            open(source, OpenFlags::READ).await,
            open(target, WRITE).await,
        )
    }

    /// What a file system does with a copy: the server first, then the client, until all is there,
    /// or nothing goes on.
    pub(super) async fn copy_all(
        &self,
        ends: &(CopyEnd, CopyEnd),
        span: Span,
    ) -> (u64, Result<()>) {
        let mut total = 0;
        loop {
            let (some, result) = self.copy_once(ends, span.after(total)).await;
            total += some;
            if some == 0 || result.is_err() || total == span.len {
                return (total, result);
            }
        }
    }

    pub(super) async fn copy_once(
        &self,
        (source, target): &(CopyEnd, CopyEnd),
        span: Span,
    ) -> (u64, Result<()>) {
        let copied = self.client.copy_data(source, target, span, |_| true).await;
        let begun = match copied {
            Ok(CopyData::Copied(some)) => return (some, Ok(())),
            Ok(CopyData::Unable(begun)) => begun,
            Err(error) => return (0, Err(error)),
        };
        let (from, to) = (&source.handle, &target.handle);
        match self
            .client
            .stream(from, to, span.after(begun), |_| true)
            .await
        {
            Ok(some) => (begun + some, Ok(())),
            Err(error) => (begun, Err(error)),
        }
    }

    /// How many bytes were asked of copy-data, in how many requests.
    pub(super) fn asked_of_the_server(&self) -> (usize, u64) {
        let requests = self.server().take_requests();
        let lens = requests.iter().filter_map(|request| match request {
            Request::CopyData { len, .. } => Some(*len),
            _ => None,
        });
        (lens.clone().count(), lens.sum())
    }
}

pub(super) fn span(source_offset: u64, target_offset: u64, len: u64) -> Span {
    Span {
        source_offset,
        target_offset,
        len,
    }
}

pub(super) fn whole(len: u64) -> Span {
    span(0, 0, len)
}

/// Bytes that tell where they are from: no two places a multiple of 64 KiB apart look the same.
pub(super) fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap();
    let mut state = seed | 1;
    let mut data = Vec::with_capacity(len);
    while data.len() < len.min(PERIOD) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(PERIOD);
    while data.len() < len {
        data.extend_from_within(..PERIOD.min(len - data.len()));
    }
    data.truncate(len);
    data
}

/// A prime, so that it has no multiple in common with a chunk below 64 GiB.
const PERIOD: usize = 1_000_003;

/// What a target is after a copy of `data` into it.
pub(super) fn expected(source: &[u8], target: &[u8], span: Span) -> Vec<u8> {
    let [from, to, len] = [span.source_offset, span.target_offset, span.len]
        .map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let data = source.get(from..).unwrap_or_default();
    let data = &data[..data.len().min(len)];
    let mut target = target.to_vec();
    if !data.is_empty() {
        target.resize(target.len().max(to + data.len()), 0);
        target[to..to + data.len()].copy_from_slice(data);
    }
    target
}

#[track_caller]
pub(super) fn assert_content(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let differs = found
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other);
    panic!(
        "{what}: {} bytes where {} were due, the first other one at {differs:?}",
        found.len(),
        expected.len()
    );
}
