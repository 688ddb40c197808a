//! Connections die, servers go away and come back, disks are full: programs in the mount see no
//! error that a local disk would not have, and every byte is right.
//!
//! Each case does the same on a plain directory, where nothing fails. Random ones repeat with the
//! same `--seed`; what the machine does meanwhile is not repeated, so a seed that failed is worth
//! several tries.

mod against;
mod bad;
mod disk;
mod fio;
mod holes;
mod killed;
mod limits;
mod look;
mod packets;
mod place;
mod random;
mod session;
mod watch;
mod works;

use crate::case::{Case, Suite, case};

/// The suite.
pub fn suite() -> Suite {
    Suite {
        name: "faults",
        about: "connections die and come back, and no byte is lost and no program sees an error",
        every_transport: false,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case(packets::a_cut_before_any_request_is_no_error).within_s(3600),
        case(packets::a_cut_before_any_answer_is_no_error).within_s(3600),
        case(packets::a_reset_after_any_byte_sent_is_no_error).within_s(3600),
        case(packets::a_reset_after_any_byte_received_is_no_error).within_s(3600),
    ];
    all.extend(random::cases());
    all.extend(holes::cases());
    all.extend([
        case(killed::an_fsync_that_returned_is_on_the_server_when_the_daemon_is_killed)
            .within_s(900),
        case(disk::a_full_disk_is_told_as_a_local_disk_tells_it).within_s(300),
        case(disk::a_disk_that_becomes_read_only_is_told_as_such).within_s(300),
        case(limits::a_quota_that_is_reached_is_an_error_and_loses_nothing).within_s(300),
        case(limits::a_disk_that_fails_under_an_open_writer_is_told).within_s(300),
    ]);
    all.extend(bad::cases());
    all.push(
        case(against::what_others_make_of_the_same_cuts_is_told)
            .on_mount_only()
            .within_s(3600),
    );
    all
}
