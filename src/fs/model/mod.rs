//! The filesystem against a plain model of one: random operations do the same to both, and both
//! look the same to a kernel, and on the server, after each few of them.

mod content;
mod copies;
mod everything;
mod foreign;
mod kernel;
mod names;
mod ops;
mod reference;

use std::time::Duration;

use proptest::prelude::*;

use self::kernel::Kernel;
use self::ops::{Op, copying_ops, foreign_copying_ops, foreign_ops, ops, remounting_ops};
use self::reference::Reference;
use super::{Access, Config, CopyIsHardlink, State};
use crate::testing::{Options, Server};

/// What is different from OpenSSH's newest server and the default choices.
#[derive(Debug, Clone, Default)]
struct Variant {
    options: Options,
    config: Config,
    /// Mounts remember which files share storage.
    keeps_state: bool,
}

fn run(variant: &Variant, ops: &[Op]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let all = async {
        let server = Server::new(variant.options.clone());
        let place = tempfile::tempdir().unwrap();
        let mut config = variant.config.clone();
        if variant.keeps_state {
            config.state = Some(State {
                directory: place.path().to_owned(),
                identity: "ann@the-model".into(),
            });
        }
        let mut kernel = Kernel::mount(server, &config, Reference::new()).await;
        for (count, op) in (1..).zip(ops) {
            match op {
                Op::Remount => kernel = kernel.remount(&config).await,
                op => kernel.act(op).await,
            }
            if count % LOOK_EVERY == 0 {
                kernel.look_at_everything().await;
            }
        }
        kernel.look_at_everything().await;
        kernel.end().await;
    };
    let in_time = runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await });
    assert!(in_time.is_ok(), "somebody waits for ever");
}

/// A case takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_EVERY: usize = 6;

fn check(variant: &Variant, ops: impl Strategy<Value = Vec<Op>>) {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..Default::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&ops, |ops| {
        run(variant, &ops);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// For each variant; more with PROPTEST_CASES.
const CASES: u32 = 32;

fn without(extension: &str) -> Variant {
    Variant {
        options: Options::default().without(&[extension]),
        ..Variant::default()
    }
}

#[test]
fn the_filesystem_is_as_the_model() {
    check(&Variant::default(), ops());
}

#[test]
fn it_is_also_without_any_extension() {
    let options = Options {
        extensions: Vec::new(),
        ..Options::default()
    };
    check(
        &Variant {
            options,
            ..Variant::default()
        },
        ops(),
    );
}

#[test]
fn it_is_also_without_posix_rename() {
    check(&without("posix-rename@openssh.com"), ops());
}

#[test]
fn it_is_also_without_hardlink() {
    check(&without("hardlink@openssh.com"), ops());
}

#[test]
fn it_is_also_without_lsetstat() {
    check(&without("lsetstat@openssh.com"), ops());
}

#[test]
fn it_is_also_without_statvfs_and_fsync() {
    let options = Options::default().without(&["statvfs@openssh.com", "fsync@openssh.com"]);
    check(
        &Variant {
            options,
            ..Variant::default()
        },
        ops(),
    );
}

#[test]
fn it_is_also_where_the_draft_has_the_order_of_symlinks_arguments() {
    let options = Options {
        symlink_has_link_first: true,
        ..Options::default()
    };
    // The first link tells, if the server can make it in the wrong order; see Client::symlink.
    let first = Op::Symlink {
        dir: 0,
        name: 1,
        target: 0,
        by_ann: false,
    };
    let ops = ops().prop_map(move |ops| [vec![first.clone()], ops].concat());
    check(
        &Variant {
            options,
            ..Variant::default()
        },
        ops,
    );
}

#[test]
fn it_is_also_where_answers_are_short() {
    let options = Options {
        read_max: 1000,
        ..Options::default()
    };
    check(
        &Variant {
            options,
            ..Variant::default()
        },
        ops(),
    );
}

#[test]
fn it_is_also_where_answers_come_in_any_order() {
    let options = Options {
        shuffle: Some(4711),
        read_max: 4096,
        ..Options::default()
    };
    check(
        &Variant {
            options,
            ..Variant::default()
        },
        ops(),
    );
}

#[test]
fn it_is_also_where_little_may_be_unwritten() {
    let options = Options {
        read_max: 4096,
        ..Options::default()
    };
    let config = Config {
        write_behind_max: 1000,
        ..Config::default()
    };
    check(
        &Variant {
            options,
            config,
            ..Variant::default()
        },
        ops(),
    );
}

#[test]
fn it_is_also_where_every_write_waits_and_nothing_is_read_ahead() {
    let config = Config {
        sync: true,
        readahead_max: 0,
        ..Config::default()
    };
    check(
        &Variant {
            config,
            ..Variant::default()
        },
        ops(),
    );
}

fn nothing_believed() -> Variant {
    let config = Config {
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
        negative_timeout: Duration::ZERO,
        ..Config::default()
    };
    Variant {
        config,
        ..Variant::default()
    }
}

#[test]
fn it_is_also_where_nothing_is_believed_for_long() {
    check(&nothing_believed(), ops());
}

#[test]
fn what_others_do_on_the_server_is_seen_when_what_was_known_has_expired() {
    check(&nothing_believed(), foreign_ops());
}

fn copying(copy_is_hardlink: CopyIsHardlink) -> Variant {
    Variant {
        config: Config {
            copy_is_hardlink,
            ..Config::default()
        },
        ..Variant::default()
    }
}

/// Copies are links that a write breaks, on a server that is as the options say.
fn cow_over(options: Options) -> Variant {
    Variant {
        options,
        ..copying(CopyIsHardlink::Cow)
    }
}

/// As [`cow_over`], where nothing is believed.
fn cow_doubting() -> Variant {
    let config = Config {
        copy_is_hardlink: CopyIsHardlink::Cow,
        ..nothing_believed().config
    };
    Variant {
        config,
        ..Variant::default()
    }
}

#[test]
fn copies_are_as_in_the_model() {
    check(&copying(CopyIsHardlink::Off), copying_ops());
}

#[test]
fn copies_that_are_links_are_files_of_their_own() {
    check(&copying(CopyIsHardlink::Cow), copying_ops());
}

#[test]
fn they_are_also_without_statvfs() {
    let options = Options::default().without(&["statvfs@openssh.com"]);
    check(&cow_over(options), copying_ops());
}

#[test]
fn they_are_also_without_copy_data() {
    let options = Options::default().without(&["copy-data"]);
    check(&cow_over(options), copying_ops());
}

#[test]
fn they_are_also_without_hardlink() {
    let options = Options::default().without(&["hardlink@openssh.com"]);
    check(&cow_over(options), copying_ops());
}

#[test]
fn they_are_also_where_answers_are_short() {
    let options = Options {
        read_max: 1000,
        ..Options::default()
    };
    check(&cow_over(options), copying_ops());
}

#[test]
fn they_are_also_where_answers_come_in_any_order() {
    let options = Options {
        shuffle: Some(4711),
        read_max: 4096,
        ..Options::default()
    };
    check(&cow_over(options), copying_ops());
}

#[test]
fn they_are_also_where_little_may_be_unwritten() {
    let mut variant = copying(CopyIsHardlink::Cow);
    variant.config.write_behind_max = 1000;
    check(&variant, copying_ops());
}

#[test]
fn they_are_also_where_nothing_is_believed_for_long() {
    check(&cow_doubting(), copying_ops());
}

#[test]
fn they_are_also_where_others_change_files() {
    check(&cow_doubting(), foreign_copying_ops());
}

#[test]
fn they_are_also_in_the_next_mount() {
    let variant = Variant {
        keeps_state: true,
        ..copying(CopyIsHardlink::Cow)
    };
    // Of hard links a new mount learns nothing, and would believe what it is told of each alone.
    let without_links = remounting_ops().prop_map(|ops| {
        let is_link = |op: &Op| matches!(op, Op::Link { .. });
        ops.into_iter().filter(|op| !is_link(op)).collect()
    });
    check(&variant, without_links);
}

#[test]
fn they_are_also_in_the_next_mount_with_hard_links_among_them() {
    let variant = Variant {
        keeps_state: true,
        ..cow_doubting()
    };
    check(&variant, remounting_ops());
}

#[test]
fn shared_copies_are_one_file() {
    check(&copying(CopyIsHardlink::Shared), copying_ops());
}

// Found by these tests, or by thinking about them.

const READ: Access = Access {
    read: true,
    write: false,
    append: false,
    sync: false,
};
const WRITE: Access = Access {
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
