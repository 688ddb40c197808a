//! STAND-IN until client, fs and fuse land: a filesystem with one file. Never merged.
#![allow(missing_docs, clippy::all)]
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::*;

use crate::error::{Error, Result};

pub(super) struct Dialer(String);
impl Dialer {
    pub(super) async fn new(target: crate::transport::Target) -> Result<Self> {
        if target.host == "refused" {
            return Err(Error::setup("refused: connection refused by the stub"));
        }
        if target.host == "hang" {
            std::future::pending::<()>().await;
        }
        if target.host == "ask" {
            use std::io::Read;
            let mut tty = std::fs::File::open("/dev/tty").map_err(|e| Error::setup(e.to_string()))?;
            let mut s = nix::sys::termios::tcgetattr(&tty).unwrap();
            s.local_flags.remove(nix::sys::termios::LocalFlags::ECHO);
            nix::sys::termios::tcsetattr(&tty, nix::sys::termios::SetArg::TCSANOW, &s).unwrap();
            eprint!("password: ");
            let mut b = [0];
            let _ = tty.read(&mut b);
        }
        Ok(Self(target.host))
    }
}
pub(super) struct Client(String);
impl Client {
    pub(super) async fn connect(d: Dialer, _c: crate::client::Config) -> Result<Self> {
        Ok(Self(d.0))
    }
}
pub(super) struct Filesystem(String);
impl Filesystem {
    pub(super) async fn new(c: Client, _d: &[u8], _f: crate::fs::Config) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(c.0)))
    }
    pub(super) async fn shutdown(&self) -> Result<()> {
        log::info!("flushing");
        if self.0 == "slow" {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        if self.0 == "lossy" {
            return Err(Error::setup("3 bytes lost"));
        }
        log::info!("flushed");
        Ok(())
    }
}
pub(super) struct Face(Arc<Filesystem>);
impl Face {
    pub(super) fn new(fs: Arc<Filesystem>, _h: tokio::runtime::Handle) -> Self {
        Self(fs)
    }
}
fn attr(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino), size: if ino == 1 { 0 } else { 6 }, blocks: 1,
        atime: UNIX_EPOCH, mtime: UNIX_EPOCH, ctime: UNIX_EPOCH, crtime: UNIX_EPOCH,
        kind: if ino == 1 { FileType::Directory } else { FileType::RegularFile },
        perm: if ino == 1 { 0o755 } else { 0o644 }, nlink: 1, uid: 0, gid: 0, rdev: 0,
        blksize: 4096, flags: 0,
    }
}
const TTL: Duration = Duration::from_secs(1);
impl fuser::Filesystem for Face {
    fn lookup(&self, _r: &Request, _p: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "hello" { reply.entry(&TTL, &attr(2), Generation(0)) } else { reply.error(Errno::ENOENT) }
    }
    fn getattr(&self, _r: &Request, ino: INodeNo, _f: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }
    fn read(&self, _r: &Request, _i: INodeNo, _f: FileHandle, o: u64, _s: u32, _fl: OpenFlags, _l: Option<LockOwner>, reply: ReplyData) {
        let _ = &self.0;
        reply.data(if o == 0 { b"hello\n" } else { b"" });
    }
    fn readdir(&self, _r: &Request, _i: INodeNo, _f: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset == 0 {
            let _ = reply.add(INodeNo(2), 1, FileType::RegularFile, "hello");
        }
        reply.ok();
    }
}
