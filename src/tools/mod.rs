//! `sftpfs cp` and `sftpfs info`: programs of the user's side. They know a mount by ordinary system
//! calls and by the ioctl(2)s of `ioctl.rs`, as anybody's program could; nothing of the driver is
//! named here, and no server is spoken to.

pub(crate) mod cp;
mod info;
mod numbers;
mod quote;
mod sys;

pub(crate) use info::info;
