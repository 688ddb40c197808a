//! Servers that are out of order: the connection is given up and replaced, and programs notice
//! nothing; no wrong byte comes through.

use std::fs;
use std::time::Duration;

use super::packets::plain;
use super::place::{Kind, Place};
use super::watch::{BACK_OFF, watched};
use super::{look, session};
use crate::case::{Case, Ctx, case};
use crate::wire::{Badness, Way};

pub(super) fn cases() -> Vec<Case> {
    BAD.iter()
        .map(|bad| {
            case(move |ctx| goes_on(ctx, bad))
                .called(bad.claim)
                .on_mount_only()
                .within_s(3600)
        })
        .collect()
}

/// A way to be out of order, and what is to come of it.
struct Bad {
    claim: &'static str,
    how: Badness,
    /// Whether the connection must be replaced: what is only slow is not.
    replaced: bool,
    /// How long a step may take.
    limit: Duration,
    /// It takes as long as a server may be silent.
    long: bool,
}

const fn bad(claim: &'static str, how: Badness) -> Bad {
    Bad {
        claim,
        how,
        replaced: true,
        limit: BACK_OFF,
        long: false,
    }
}

const BAD: &[Bad] = &[
    bad("a_server_that_sends_rubbish_is_left", Badness::SendsRubbish),
    bad(
        "a_server_that_sends_an_endless_packet_is_left",
        Badness::SendsEndlessPacket,
    ),
    bad(
        "a_server_that_answers_what_nobody_asked_is_left",
        Badness::AnswersAnotherQuestion,
    ),
    bad(
        "a_server_that_sends_more_data_than_asked_for_is_left",
        Badness::SendsTooMuchData,
    ),
    bad(
        "a_server_that_answers_in_another_type_is_left",
        Badness::AnswersInAnotherType,
    ),
    bad(
        "a_server_that_sends_half_of_a_packet_does_no_harm",
        Badness::SendsHalfPackets,
    ),
    Bad {
        replaced: false,
        ..bad(
            "a_server_that_answers_slowly_is_waited_for",
            Badness::AnswersSlowly(3),
        )
    },
    Bad {
        long: true,
        limit: SILENCE_MAX,
        ..bad(
            "a_server_that_stops_answering_is_left",
            Badness::StopsAnswering,
        )
    },
    Bad {
        long: true,
        limit: SILENCE_MAX,
        ..bad("a_server_that_stops_reading_is_left", Badness::StopsReading)
    },
];

fn goes_on(ctx: &Ctx, bad: &Bad) {
    if bad.long && !ctx.full {
        ctx.skip("a server may be silent for 5 minutes: --full");
    }
    let expected = plain(ctx);
    let mut place = Place::new(ctx, Kind::Wire);
    let mut happened = 0;
    // At several places of the session, with what has been sent by then.
    let places: &[u64] = match (bad.long, ctx.full) {
        (true, _) => &[150],
        (false, false) => &[1, 111],
        (false, true) => &[1, 4, 30, 57, 90, 111, 140, 171, 190, 222, 250],
    };
    for at in places {
        let what = format!("{:?} from answer {at} on", bad.how);
        let behind = ctx.behind.join(format!("{at}"));
        fs::create_dir(&behind).unwrap();
        session::prepare(&behind);
        let before = place.net().connections();
        place.wire().go_bad_before(Way::Down, *at, bad.how);
        let (dir, its_expected) = (place.dir.join(format!("{at}")), expected.clone());
        watched(&mut place, &what, bad.limit, move |steps| {
            session::run(&dir, steps)?;
            steps.next("look at everything in the mount");
            let seen = look::look(&dir, look::Links::Ignored)?;
            look::same("in the mount", &look::without_links(&its_expected), &seen)
        });
        let found = look::look(&behind, look::Links::Counted);
        if let Err(why) = found.and_then(|found| look::same("on the server", &expected, &found)) {
            place.fail(&format!("{what}: {why}"));
        }
        let replaced = place.net().connections() > before;
        if place.net().has_happened() && (replaced || !bad.replaced) {
            happened += 1;
        }
        fs::remove_dir_all(&behind).unwrap();
    }
    // What spoils an answer of one type may meet none; half a packet may still be a whole answer.
    if happened == 0 {
        place.fail(&format!("{:?}: nothing came of it", bad.how));
    }
    place.end(ctx);
}

/// As long as a server may say nothing while requests wait, and what follows.
const SILENCE_MAX: Duration = Duration::from_secs(400);
