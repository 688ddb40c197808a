#![doc = include_str!("README.md")]

// Top to bottom: a layer names only layers below it. `tidy` reads the sources and holds that.
pub mod cli;
mod reflink;

mod mount;

mod tools;

mod control;
mod fuse;

mod cache;
mod client;
mod fs;

pub mod sftp;
mod transport;

pub use transport::answer_ssh;

mod clock;
mod error;
mod ioctl;
mod status;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tidy;
