//! The wire format of SFTP version 3 with OpenSSH's extensions: bytes in, values out, and back.
//!
//! Pure: no I/O, no clock, no state but the bytes of a frame that is not complete yet. Both
//! directions of every packet are here, so that the test server speaks through the same code.
//!
//! **Invariant:** no bytes make anything here panic, and nothing is allocated for what a packet
//! announces before the bytes for it are there.
//!
//! Sources: draft-ietf-secsh-filexfer-02 ("the draft") and section 4 of OpenSSH's PROTOCOL.

mod attrs;
mod extensions;
mod frame;
mod longname;
mod packet;
mod request;
mod response;
mod status;
mod wire;

pub use attrs::{Attrs, FileKind};
pub use extensions::{Extensions, Limits, Statvfs, UserGroupNames};
pub use frame::Frames;
pub use longname::LongName;
pub use packet::{Encoded, NameEntry, OpenFlags, RequestId};
pub use request::Request;
pub use response::Response;
pub use status::StatusCode;
pub use wire::Malformed;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
