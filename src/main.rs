//! `sftpfs`.
fn main() {}
