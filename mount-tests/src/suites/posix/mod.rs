//! What POSIX programs rely on, with the exact error numbers.

mod attributes;
mod create;
mod data;
mod directories;
mod links;
mod locks;
mod names;
mod outside;
mod permissions;
mod rename;
mod space;
mod unlinked;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::case::Suite;

/// The suite.
pub fn suite() -> Suite {
    let cases = [
        create::cases(),
        data::cases(),
        attributes::cases(),
        links::cases(),
        directories::cases(),
        rename::cases(),
        unlinked::cases(),
        names::cases(),
        locks::cases(),
        space::cases(),
        outside::cases(),
        permissions::cases(),
    ];
    Suite {
        name: "posix",
        about: "what POSIX programs rely on, with the exact error numbers",
        every_transport: true,
        cases: cases.into_iter().flatten().collect(),
    }
}

/// Holds that a call was refused with this error number.
#[track_caller]
fn refused<T: Debug, E: Number>(result: Result<T, E>, expected: Errno) {
    match result {
        Ok(value) => panic!("not refused, but gave {value:?}; expected {expected}"),
        Err(error) => assert_eq!(error.number(), expected),
    }
}

/// An error with an error number in it.
trait Number {
    fn number(&self) -> Errno;
}

impl Number for io::Error {
    fn number(&self) -> Errno {
        Errno::from_raw(self.raw_os_error().unwrap_or(0))
    }
}

impl Number for Errno {
    fn number(&self) -> Errno {
        *self
    }
}

/// The names in a directory, sorted.
#[track_caller]
fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A file opened for reading and writing, made if it is not there.
#[track_caller]
fn open_rw(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}
