//! Connections die, servers go away and come back, disks are full: programs in the mount see no
//! error that a local disk would not have, and every byte is right.
//!
//! Each case does the same on a plain directory, where nothing fails. Random ones repeat with the
//! same `--seed`; what the machine does meanwhile is not repeated, so a seed that failed is worth
//! several tries.

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
    all
}
