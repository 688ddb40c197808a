//! The other end of the wire, for tests: a whole SFTP server in memory, a scripted one, and what
//! asks them and the real ones one thing at a time.

mod allocations;
mod answer;
mod honesty;
mod longname;
mod paths;
mod program;
mod record;
mod script;
mod server;
mod session;
mod talk;
mod tests;
mod tree;

use tokio::io::DuplexStream;

use crate::transport::{Diagnosis, Link};

pub(crate) use allocations::peak;
pub(crate) use answer::status;
pub(crate) use program::{OPENSSH, Program};
pub(crate) use script::{Reply, script};
pub(crate) use server::{Cut, Options, Server};
pub(crate) use talk::Talk;

/// A stream as a transport would hand it to the client.
pub(crate) fn link(stream: DuplexStream) -> Link {
    Link {
        stream: Box::new(stream),
        peer: "a test".to_owned(),
        diagnosis: Diagnosis::default(),
    }
}
