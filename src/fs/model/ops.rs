//! What may happen. Numbers are taken modulo what exists, so that any sequence makes sense and a
//! part of a failing one is one too.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::fs::{Access, Change};

#[derive(Debug, Clone)]
pub(super) enum Op {
    Lookup {
        dir: usize,
        name: usize,
    },
    Getattr {
        path: usize,
    },
    Setattr {
        path: usize,
        change: Change,
        via_open: Option<usize>,
    },
    Create {
        dir: usize,
        name: usize,
        mode: u32,
        access: Access,
        exclusive: bool,
        by_ann: bool,
    },
    Open {
        path: usize,
        access: Access,
        truncate: bool,
    },
    Write {
        open: usize,
        offset: u64,
        len: usize,
        fill: u8,
        page: bool,
    },
    Read {
        open: usize,
        offset: u64,
        len: u32,
    },
    Flush {
        open: usize,
    },
    Fsync {
        open: usize,
    },
    Release {
        open: usize,
    },
    Grow {
        open: usize,
        end: u64,
    },
    Mkdir {
        dir: usize,
        name: usize,
        mode: u32,
        by_ann: bool,
    },
    Rmdir {
        path: usize,
    },
    Unlink {
        path: usize,
    },
    Rename {
        path: usize,
        dir: usize,
        name: usize,
        keep: bool,
    },
    Link {
        path: usize,
        dir: usize,
        name: usize,
    },
    Symlink {
        dir: usize,
        name: usize,
        target: usize,
        by_ann: bool,
    },
    Readlink {
        path: usize,
    },
    Readdir {
        dir: usize,
        plus: bool,
        at_a_time: usize,
    },
    Forget {
        known: usize,
        half: bool,
    },
    /// What cp(1) does: open, make or empty the target, and copy_file_range(2) or FICLONE.
    Copy {
        path: usize,
        dir: usize,
        name: usize,
        keep_open: bool,
        clone: bool,
    },
    CopyRange {
        from_open: usize,
        to_open: usize,
        from: u64,
        to: u64,
        len: u64,
    },
    /// Unmount, and mount again.
    Remount,
    /// Somebody else changes a file's content.
    ForeignWrite {
        path: usize,
        len: usize,
        fill: u8,
    },
    ForeignPut {
        dir: usize,
        name: usize,
        len: usize,
    },
    ForeignMkdir {
        dir: usize,
        name: usize,
    },
    ForeignRemove {
        path: usize,
    },
    ForeignRename {
        path: usize,
        dir: usize,
        name: usize,
    },
    ForeignChmod {
        path: usize,
        mode: u16,
    },
}

/// Names that there are, so that they meet.
pub(super) const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d \xff", b"-"];
/// What symbolic links say; some of it exists at times.
pub(super) const TARGETS: [&[u8]; 5] = [b"a", b"b", b"../a", b"/no/where", b"\xff"];

fn any_index() -> impl Strategy<Value = usize> {
    0..64_usize
}

fn name() -> impl Strategy<Value = usize> {
    0..NAMES.len()
}

fn access() -> impl Strategy<Value = Access> {
    (0..3, any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(mode, append, sync)| Access {
        read: mode != 1,
        write: mode != 0,
        append: append && mode != 0,
        sync,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let ids = || option::of(prop_oneof![Just(0_u32), Just(1000), Just(7)]);
    let times = || option::of(0..2_000_000_000_u32);
    let size = option::of(0..20_000_u64);
    (
        option::of(0..0o1777_u16),
        ids(),
        ids(),
        size,
        times(),
        times(),
    )
        .prop_map(|(permissions, uid, gid, size, atime, mtime)| Change {
            permissions,
            uid,
            gid,
            size,
            atime,
            mtime,
        })
}

fn on_names() -> impl Strategy<Value = Op> {
    let (path, dir) = (any_index, any_index);
    let mode = || 0..0o777_u32;
    prop_oneof![
        2 => (dir(), name()).prop_map(|(dir, name)| Op::Lookup { dir, name }),
        2 => path().prop_map(|path| Op::Getattr { path }),
        3 => (path(), change(), option::of(any_index()))
            .prop_map(|(path, change, via_open)| Op::Setattr { path, change, via_open }),
        3 => (dir(), name(), mode(), any::<bool>())
            .prop_map(|(dir, name, mode, by_ann)| Op::Mkdir { dir, name, mode, by_ann }),
        2 => path().prop_map(|path| Op::Rmdir { path }),
        3 => path().prop_map(|path| Op::Unlink { path }),
        6 => (path(), dir(), name(), any::<bool>())
            .prop_map(|(path, dir, name, keep)| Op::Rename { path, dir, name, keep }),
        3 => (path(), dir(), name()).prop_map(|(path, dir, name)| Op::Link { path, dir, name }),
        2 => (dir(), name(), 0..TARGETS.len(), any::<bool>())
            .prop_map(|(dir, name, target, by_ann)| Op::Symlink { dir, name, target, by_ann }),
        1 => path().prop_map(|path| Op::Readlink { path }),
        2 => (dir(), any::<bool>(), 1..5_usize)
            .prop_map(|(dir, plus, at_a_time)| Op::Readdir { dir, plus, at_a_time }),
        4 => (any_index(), any::<bool>()).prop_map(|(known, half)| Op::Forget { known, half }),
    ]
}

fn on_content() -> impl Strategy<Value = Op> {
    let open = any_index;
    let create = (
        any_index(),
        name(),
        0..0o777_u32,
        access(),
        any::<bool>(),
        any::<bool>(),
    );
    prop_oneof![
        5 => create.prop_map(|(dir, name, mode, access, exclusive, by_ann)| {
            Op::Create { dir, name, mode, access, exclusive, by_ann }
        }),
        3 => (any_index(), access(), prop::bool::weighted(0.3))
            .prop_map(|(path, access, truncate)| Op::Open { path, access, truncate }),
        8 => (open(), 0..12_000_u64, 1..9000_usize, any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(open, offset, len, fill, page)| {
                Op::Write { open, offset, len, fill, page }
            }),
        5 => (open(), 0..20_000_u64, 1..9000_u32)
            .prop_map(|(open, offset, len)| Op::Read { open, offset, len }),
        1 => open().prop_map(|open| Op::Flush { open }),
        1 => open().prop_map(|open| Op::Fsync { open }),
        2 => open().prop_map(|open| Op::Release { open }),
        1 => (open(), 0..20_000_u64).prop_map(|(open, end)| Op::Grow { open, end }),
    ]
}

fn copies() -> impl Strategy<Value = Op> {
    let (path, dir, open) = (any_index, any_index, any_index);
    let begin = || prop_oneof![3 => Just(0_u64), 2 => 0..9000_u64];
    let len = prop_oneof![Just(0xffff_f000_u64), 1..9000_u64];
    prop_oneof![
        4 => (path(), dir(), name(), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(path, dir, name, keep_open, clone)| {
                Op::Copy { path, dir, name, keep_open, clone }
            }),
        1 => (open(), open(), begin(), begin(), len)
            .prop_map(|(from_open, to_open, from, to, len)| {
                Op::CopyRange { from_open, to_open, from, to, len }
            }),
    ]
}

fn by_others() -> impl Strategy<Value = Op> {
    let (path, dir) = (any_index, any_index);
    prop_oneof![
        (path(), 0..9000_usize, any::<u8>()).prop_map(|(path, len, fill)| Op::ForeignWrite {
            path,
            len,
            fill
        }),
        (dir(), name(), 0..9000_usize).prop_map(|(dir, name, len)| Op::ForeignPut {
            dir,
            name,
            len
        }),
        (dir(), name()).prop_map(|(dir, name)| Op::ForeignMkdir { dir, name }),
        path().prop_map(|path| Op::ForeignRemove { path }),
        (path(), dir(), name()).prop_map(|(path, dir, name)| Op::ForeignRename { path, dir, name }),
        (path(), 0..0o777_u16).prop_map(|(path, mode)| Op::ForeignChmod { path, mode }),
    ]
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![on_names(), on_content()], 1..50)
}

pub(super) fn foreign_ops() -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![on_names(), on_content(), by_others()], 1..50)
}

/// A file with content and a chain of copies, to begin with.
fn chain() -> Vec<Op> {
    let access = Access {
        read: true,
        write: true,
        append: false,
        sync: false,
    };
    let copy = |name| Op::Copy {
        path: name - 1,
        dir: 0,
        name,
        keep_open: name == 2,
        clone: false,
    };
    let create = Op::Create {
        dir: 0,
        name: 0,
        mode: 0o644,
        access,
        exclusive: true,
        by_ann: false,
    };
    let write = Op::Write {
        open: 0,
        offset: 0,
        len: 3000,
        fill: 1,
        page: false,
    };
    vec![create, write, copy(1), copy(2)]
}

/// Some begin with a chain of copies.
fn with_chain(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Vec<Op>> {
    (any::<bool>(), vec(op, 1..50)).prop_map(|(is_chained, ops)| match is_chained {
        true => [chain(), ops].concat(),
        false => ops,
    })
}

pub(super) fn copying_ops() -> impl Strategy<Value = Vec<Op>> {
    with_chain(prop_oneof![2 => on_names(), 3 => on_content(), 2 => copies()])
}

pub(super) fn foreign_copying_ops() -> impl Strategy<Value = Vec<Op>> {
    with_chain(prop_oneof![2 => on_names(), 3 => on_content(), 3 => copies(), 1 => by_others()])
}

/// With a new mount now and then.
pub(super) fn remounting_ops() -> impl Strategy<Value = Vec<Op>> {
    with_chain(prop_oneof![
        8 => on_names(),
        12 => on_content(),
        8 => copies(),
        1 => Just(Op::Remount),
    ])
}
