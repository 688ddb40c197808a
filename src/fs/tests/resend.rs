//! What is sent again after a loss, and when: see [`Again`].

use tokio::sync::Semaphore;

use super::*;
use crate::fs::resend::{Again, Attempt, Came};
use crate::fs::unwritten::{Budget, Outgoing, Via, What};

async fn via_of_an_open_file() -> Via {
    let (_, fs) = mount(&[("f", b"")]).await;
    let fh = open(&fs, "f", WRITE).await;
    let file = fs.open_file(fh).unwrap();
    fs.via(&file, fh, false).await.unwrap()
}

fn byte(number: u64, via: &Via) -> Outgoing {
    let take = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let budget = Budget {
        of_file: take(),
        of_all: take(),
    };
    let what = What::Data {
        offset: number,
        data: text("d"),
        budget,
    };
    let via = via.clone();
    Outgoing { number, via, what }
}

fn next(again: &mut Again, unanswered: usize) -> Option<(u64, Attempt)> {
    let next = again.next(unanswered, true);
    next.map(|(next, attempt)| (next.number, attempt))
}

#[tokio::test]
async fn what_was_never_sent_follows_what_is_sent_again_at_once() {
    let via = via_of_an_open_file().await;
    let mut again = Again::default();
    for number in 1..=2 {
        let lost = Came::Lost(byte(number, &via), Error::Lost("reset".into()));
        assert!(again.take_in(lost).is_none());
    }
    assert_eq!(next(&mut again, 0), Some((1, Attempt::Again)));
    assert_eq!(next(&mut again, 1), Some((2, Attempt::Again)));
    // Those were in the queue, with the lost handle.
    for (number, unanswered) in [(3, 2), (4, 3)] {
        assert!(again.take_in(Came::Unsent(byte(number, &via))).is_none());
        assert_eq!(next(&mut again, unanswered), Some((number, Attempt::ByAny)));
    }
}

#[tokio::test]
async fn what_was_never_sent_is_not_taken_for_done() {
    let via = via_of_an_open_file().await;
    let mut again = Again::default();
    let lost = || Error::Lost("reset".into());
    assert!(again.take_in(Came::Unsent(byte(1, &via))).is_none());
    assert_eq!(next(&mut again, 0), Some((1, Attempt::ByAny)));
    assert!(again.take_in(Came::Lost(byte(1, &via), lost())).is_none());
    assert_eq!(next(&mut again, 0), Some((1, Attempt::Again)));
}
