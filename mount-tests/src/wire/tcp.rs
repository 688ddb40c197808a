//! A port that leads to another one and counts the bytes: what a link really carries, SSH included.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::server::Server;

/// A relay in front of a server. Dropping it ends the listening, not the connections.
pub struct TcpMeter {
    /// Where to connect to, on 127.0.0.1.
    pub port: u16,
    bytes: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
}

impl TcpMeter {
    /// In front of this server.
    pub fn new(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (bytes, ending) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (its_bytes, its_ending, target) = (bytes.clone(), ending.clone(), server.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if its_ending.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                for (from, to) in [(&stream, &server), (&server, &stream)] {
                    let clones = (from.try_clone(), to.try_clone(), its_bytes.clone());
                    if let (Ok(from), Ok(to), bytes) = clones {
                        std::thread::spawn(move || carry(from, to, &bytes));
                    }
                }
            }
        });
        Self {
            port,
            bytes,
            ending,
        }
    }

    /// Bytes that went through until now, both ways together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// A known_hosts file in `dir` that has the server's key under this port.
    pub fn known_hosts(&self, server: &Server, dir: &Path) -> PathBuf {
        let key = std::fs::read_to_string(server.dir.join("host_key.pub")).expect("the host key");
        let path = dir.join(format!("known_hosts.{}", self.port));
        std::fs::write(&path, format!("[127.0.0.1]:{} {key}", self.port)).expect("known_hosts");
        path
    }
}

impl Drop for TcpMeter {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // It waits for a connection, so it gets one.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 1 << 17];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        bytes.fetch_add(len as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
