//! The filesystem against a plain model of one: random operations do the same to both, and both
//! look the same to a kernel, and on the server, after each few of them.

mod cases;
mod content;
mod copies;
mod everything;
mod foreign;
mod hang_ups;
mod kernel;
mod names;
mod ops;
mod reference;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use self::kernel::Kernel;
use self::ops::{Op, copying_ops, foreign_copying_ops, foreign_ops, ops, remounting_ops};
use self::reference::Reference;
use super::{Config, CopyIsHardlink, State};
use crate::sftp::Request;
use crate::testing::{Cut, Options, Server};

/// What is different from OpenSSH's newest server and the default choices.
#[derive(Debug, Clone, Default)]
struct Variant {
    options: Options,
    config: Config,
    /// Mounts remember which files share storage.
    keeps_state: bool,
    /// Of so many requests one loses its connection; and which, a seed for that.
    cuts: Option<(u64, u64)>,
}

/// Has connections end at requests that look random, before or behind them. Not while a file without
/// a name is open, which a client that is cut off cannot open again.
fn cut(kernel: &Kernel, one_in: u64, seed: u64) {
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    let takes_name = Arc::clone(&kernel.takes_name);
    kernel.server.cut_where(move |request, tree| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let takes_names = matches!(
            request,
            Request::Remove { .. }
                | Request::Rmdir { .. }
                | Request::Rename { .. }
                | Request::PosixRename { .. }
        );
        let must_not = takes_name.load(Ordering::Relaxed) || tree.has_nameless();
        let may = !must_not && random.is_multiple_of(one_in);
        may.then_some(match random >> 60 {
            // The last name of an open file may be gone then.
            _ if takes_names && tree.opens() > 0 => Cut::Before,
            0..8 => Cut::Before,
            _ => Cut::Behind,
        })
    });
}

fn run(variant: &Variant, ops: &[Op]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Nobody waits for the rest between two tries.
        .start_paused(variant.cuts.is_some())
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
        if let Some((one_in, seed)) = variant.cuts {
            cut(&kernel, one_in, seed);
            kernel.has_cuts = true;
        }
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
    // A try after a rest of half a minute is none too late.
    let patience = match variant.cuts {
        Some(_) => Duration::from_secs(24 * 3600),
        None => PATIENCE,
    };
    let in_time = runtime.block_on(async { tokio::time::timeout(patience, all).await });
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
        let copies = variant.config.copy_is_hardlink != CopyIsHardlink::Off;
        config.cases = if copies { 3 * CASES } else { CASES };
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

/// For each variant, and more where what is written may show elsewhere; as many as PROPTEST_CASES
/// says, if it is set.
const CASES: u32 = 32;

/// On a server that is as the options say.
fn over(options: Options) -> Variant {
    Variant {
        options,
        ..Variant::default()
    }
}

/// With these choices of the user's.
fn with(config: Config) -> Variant {
    Variant {
        config,
        ..Variant::default()
    }
}

fn without(extension: &str) -> Variant {
    over(Options::default().without(&[extension]))
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
    check(&over(options), ops());
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
    check(&over(options), ops());
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
    check(&over(options), ops);
}

#[test]
fn it_is_also_where_answers_are_short() {
    let options = Options {
        read_max: 1000,
        ..Options::default()
    };
    check(&over(options), ops());
}

#[test]
fn it_is_also_where_answers_come_in_any_order() {
    let options = Options {
        shuffle: Some(4711),
        read_max: 4096,
        ..Options::default()
    };
    check(&over(options), ops());
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
    check(&with(config), ops());
}

fn cut_often(variant: Variant) -> Variant {
    Variant {
        cuts: Some((12, 0)),
        ..variant
    }
}

#[test]
fn it_is_also_where_connections_are_lost() {
    check(&cut_often(Variant::default()), ops());
}

#[test]
fn it_is_also_where_connections_are_lost_and_every_write_waits() {
    let config = Config {
        sync: true,
        readahead_max: 0,
        ..Config::default()
    };
    check(&cut_often(with(config)), ops());
}

#[test]
fn it_is_also_where_connections_are_lost_and_nothing_is_believed_for_long() {
    check(&cut_often(nothing_believed()), ops());
}

#[test]
fn it_is_also_where_connections_are_lost_without_any_extension() {
    let options = Options {
        extensions: Vec::new(),
        ..Options::default()
    };
    check(&cut_often(over(options)), ops());
}

#[test]
fn copies_are_as_in_the_model_where_connections_are_lost() {
    check(&cut_often(copying(CopyIsHardlink::Off)), copying_ops());
}

#[test]
fn copies_that_are_links_are_files_of_their_own_where_connections_are_lost() {
    check(&cut_often(copying(CopyIsHardlink::Cow)), copying_ops());
}

#[test]
fn it_is_also_where_an_open_asks_nothing() {
    let config = Config {
        nocto: true,
        ..Config::default()
    };
    check(&with(config), ops());
}

fn nothing_believed() -> Variant {
    let config = Config {
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
        negative_timeout: Duration::ZERO,
        ..Config::default()
    };
    with(config)
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
    with(Config {
        copy_is_hardlink,
        ..Config::default()
    })
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
    with(config)
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
