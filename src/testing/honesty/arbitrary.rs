//! Arbitrary requests over a few names and handles, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Step, text};
use crate::sftp::{Attrs, OpenFlags, Request};

/// Few names, so that they meet.
fn path() -> impl Strategy<Value = Bytes> {
    let common = ["a", "b", "d", "d/a", "d/b", "d/d", "e", "s", "d/s"]
        .map(text)
        .to_vec();
    let odd = [
        "",
        ".",
        "..",
        "d/",
        "a/",
        "a/x",
        "s/a",
        "d/d/a",
        "missing/x",
        "d/..",
        "d/.",
    ];
    let long = Bytes::from(vec![b'n'; 256]);
    let odd = odd.map(text).into_iter().chain([long]).collect::<Vec<_>>();
    prop_oneof![6 => select(common).boxed(), 1 => select(odd).boxed()]
}

fn handle() -> impl Strategy<Value = Bytes> {
    let handles = ["\0\0\0\0", "\0\0\0\u{1}", "\0\0\0\u{2}", "\0\0\0\u{9}", "x"].map(text);
    prop_oneof![6 => select(handles[..2].to_vec()), 1 => select(handles[2..].to_vec())]
}

fn offset() -> impl Strategy<Value = u64> {
    select(&[0, 0, 1, 100, 70_000, u64::MAX][..])
}

fn attrs() -> impl Strategy<Value = Attrs> {
    let size = option::weighted(0.3, offset());
    let permissions = option::weighted(0.4, select(&[0o777_u32, 0o600, 0o444, 0o100_755][..]));
    let times = select(&[(0, 0), (1, 1_000_000_000), (2, u32::MAX)][..]);
    let owner = option::weighted(0.2, select(&[(0, 0), (1, 2)][..]));
    (size, permissions, option::weighted(0.4, times), owner).prop_map(
        |(size, permissions, times, owner)| Attrs {
            size,
            permissions,
            times,
            owner,
            extended: Vec::new(),
        },
    )
}

fn open() -> impl Strategy<Value = Request> {
    let flags = select(
        &[
            0_u32, 1, 2, 3, 0x0a, 0x1a, 0x2a, 0x0b, 0x06, 0x0e, 0x12, 0x09, 0x3a,
        ][..],
    );
    let mode = option::of(select(&[0o600_u32, 0o644, 0o777][..]));
    (path(), flags, mode).prop_map(|(path, flags, permissions)| Request::Open {
        path,
        flags: OpenFlags(flags),
        attrs: Attrs {
            permissions,
            ..Attrs::default()
        },
    })
}

fn on_handles() -> impl Strategy<Value = Request> {
    let data = vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let copied = select(&[1_u64, 50, 65_536, 70_000][..]);
    prop_oneof![
        2 => (handle(), offset(), data)
            .prop_map(|(handle, offset, data)| Request::Write { handle, offset, data }),
        2 => (handle(), offset(), select(&[0_u32, 1, 100, u32::MAX][..]))
            .prop_map(|(handle, offset, len)| Request::Read { handle, offset, len }),
        1 => handle().prop_map(|handle| Request::Close { handle }),
        1 => handle().prop_map(|handle| Request::Fstat { handle }),
        1 => handle().prop_map(|handle| Request::Fsync { handle }),
        1 => handle().prop_map(|handle| Request::Fstatvfs { handle }),
        1 => (handle(), attrs()).prop_map(|(handle, attrs)| Request::Fsetstat { handle, attrs }),
        1 => (handle(), offset(), copied, handle(), offset()).prop_map(
            |(from, from_offset, len, to, to_offset)| Request::CopyData {
                from, from_offset, len, to, to_offset
            }
        ),
    ]
}

fn on_a_path() -> impl Strategy<Value = Request> {
    prop_oneof![
        1 => path().prop_map(|path| Request::Stat { path }),
        1 => path().prop_map(|path| Request::Lstat { path }),
        1 => path().prop_map(|path| Request::Readlink { path }),
        1 => path().prop_map(|path| Request::Realpath { path }),
        1 => path().prop_map(|path| Request::Remove { path }),
        1 => path().prop_map(|path| Request::Rmdir { path }),
        1 => path().prop_map(|path| Request::Statvfs { path }),
        1 => path().prop_map(|path| Request::ExpandPath { path }),
        3 => (path(), attrs()).prop_map(|(path, attrs)| Request::Mkdir { path, attrs }),
        1 => (path(), attrs()).prop_map(|(path, attrs)| Request::Setstat { path, attrs }),
        1 => (path(), attrs()).prop_map(|(path, attrs)| Request::Lsetstat { path, attrs }),
    ]
}

fn on_two_paths() -> impl Strategy<Value = Request> {
    let target = select(
        ["a", "d", "s", "../a", "../d", "missing", ""]
            .map(text)
            .to_vec(),
    );
    prop_oneof![
        1 => (path(), path()).prop_map(|(from, to)| Request::Rename { from, to }),
        2 => (path(), path()).prop_map(|(from, to)| Request::PosixRename { from, to }),
        1 => (path(), path()).prop_map(|(from, to)| Request::Hardlink { from, to }),
        1 => (target, path()).prop_map(|(first, second)| Request::Symlink { first, second }),
    ]
}

/// Any one thing to ask.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![open(), on_handles(), on_a_path(), on_two_paths()];
    prop_oneof![8 => request.prop_map(Step::Ask), 1 => path().prop_map(Step::List)]
}
