//! `sftpfs cp`, `sftpfs info` and `sftpfs status`: programs of the user's side. They know a mount by
//! ordinary system calls, by the ioctl(2)s of `ioctl.rs` and by what it says on its control socket
//! (`status.rs`), as anybody's program could; nothing of the driver is named here, and no server is
//! spoken to.

pub(crate) mod cp;
mod info;
mod numbers;
mod quote;
pub(crate) mod status;
mod sys;

pub(crate) use info::info;
