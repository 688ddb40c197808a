//! Sequences of operations that failed once, or of which it was doubted that they work.

use super::ops::Op;
use super::{Variant, copying, cow_doubting, run};
use crate::fs::{Access, Change, CopyIsHardlink};

pub(super) const READ: Access = Access {
    read: true,
    write: false,
    append: false,
    sync: false,
};
pub(super) const WRITE: Access = Access {
    read: true,
    write: true,
    append: false,
    sync: false,
};

const fn create(name: usize) -> Op {
    Op::Create {
        dir: 0,
        name,
        mode: 0o644,
        access: WRITE,
        exclusive: true,
        by_ann: false,
    }
}

const fn write(open: usize, fill: u8) -> Op {
    Op::Write {
        open,
        offset: 0,
        len: 10,
        fill,
        page: false,
    }
}

const fn open(path: usize, access: Access) -> Op {
    Op::Open {
        path,
        access,
        truncate: false,
    }
}

const fn copy(path: usize, name: usize) -> Op {
    Op::Copy {
        path,
        dir: 0,
        name,
        keep_open: false,
        clone: false,
    }
}

const fn read(open: usize) -> Op {
    Op::Read {
        open,
        offset: 0,
        len: 100,
    }
}

const RELEASE: Op = Op::Release { open: 0 };

#[test]
fn who_reads_a_copy_that_was_removed_reads_on() {
    // Names are in order, and so are opens: path 0 is a.
    for removed in [0, 1] {
        let ops = [
            create(0),
            write(0, 1),
            copy(0, 1),
            RELEASE,
            open(removed, READ),
            open(1 - removed, WRITE),
            Op::Unlink { path: removed },
            write(1, 2),
            Op::Flush { open: 1 },
            read(0),
        ];
        run(&copying(CopyIsHardlink::Cow), &ops);
    }
}

#[test]
fn who_reads_what_was_replaced_by_a_copy_reads_on_when_that_is_removed() {
    let ops = [
        create(0),
        write(0, 1),
        create(1),
        open(1, READ),
        Op::Release { open: 1 },
        copy(0, 1),
        Op::Unlink { path: 1 },
        write(0, 2),
        read(1),
    ];
    run(&copying(CopyIsHardlink::Cow), &ops);
}

#[test]
fn who_reads_a_shared_copy_reads_on_when_all_its_names_are_gone() {
    let ops = [
        create(0),
        write(0, 1),
        create(1),
        open(1, READ),
        Op::Release { open: 1 },
        copy(0, 1),
        Op::Unlink { path: 1 },
        Op::Unlink { path: 0 },
        read(1),
    ];
    run(&copying(CopyIsHardlink::Shared), &ops);
}

#[test]
fn a_copy_into_a_file_with_names_that_are_not_known_changes_all_of_them() {
    let link = Op::Link {
        path: 0,
        dir: 0,
        name: 1,
    };
    let variant = Variant {
        keeps_state: true,
        ..cow_doubting()
    };
    run(
        &variant,
        &[
            create(0),
            link,
            create(2),
            write(1, 1),
            Op::Remount,
            copy(2, 0),
        ],
    );
}

#[test]
fn who_gets_another_owner_is_told_the_size_that_others_gave_it() {
    let made = Op::Create {
        dir: 0,
        name: 0,
        mode: 0,
        access: Access {
            read: false,
            ..WRITE
        },
        exclusive: false,
        by_ann: true,
    };
    let link = Op::Link {
        path: 0,
        dir: 29,
        name: 2,
    };
    let by_others = Op::ForeignWrite {
        path: 9,
        len: 7336,
        fill: 193,
    };
    let change = Change {
        uid: Some(7),
        ..Change::default()
    };
    let give_away = Op::Setattr {
        path: 12,
        change,
        via_open: Some(36),
    };
    run(&cow_doubting(), &[made, link, by_others, give_away]);
}
