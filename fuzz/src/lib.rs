//! The wire format, compiled from its sources: it needs nothing of the rest, and so a fuzzer is
//! built in seconds and not with three SSH libraries.

#[path = "../../src/sftp/mod.rs"]
pub mod sftp;
