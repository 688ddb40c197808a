//! What several rounds say together: medians, and how many times as fast one is as another.

use super::figures::{Ending, Measurement};

/// What all rounds of one row say about one system.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// None: not measured, or it failed.
    pub seconds: Option<Seconds>,
    pub rounds: usize,
    pub failed: usize,
    pub bytes: f64,
    pub turns: f64,
    pub chain: f64,
    pub client_cpu: f64,
    pub server_cpu: f64,
    pub peak_kib: f64,
}

/// A median time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seconds {
    Exactly(f64),
    /// It did not finish within these.
    MoreThan(f64),
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => None,
        1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// One that did not finish is slower than all that did.
pub fn median_seconds(all: &[&Measurement]) -> Option<Seconds> {
    let unfinished = all.iter().find(|m| m.ending == Ending::Unfinished);
    let times: Vec<f64> = all
        .iter()
        .map(|m| match m.ending {
            Ending::Unfinished => f64::INFINITY,
            _ => m.seconds,
        })
        .collect();
    let middle = median(&times)?;
    match unfinished {
        Some(one) if middle.is_infinite() => Some(Seconds::MoreThan(one.seconds)),
        _ => Some(Seconds::Exactly(middle)),
    }
}

/// How many times faster the first is; None if that cannot be said.
pub fn ratio(ours: Option<Seconds>, theirs: Option<Seconds>) -> Option<Ratio> {
    match (ours?, theirs?) {
        (Seconds::Exactly(ours), Seconds::Exactly(theirs)) => Some(Ratio::Exactly(theirs / ours)),
        (Seconds::Exactly(ours), Seconds::MoreThan(theirs)) => Some(Ratio::AtLeast(theirs / ours)),
        (Seconds::MoreThan(_), _) => None,
    }
}

/// How many times faster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ratio {
    Exactly(f64),
    AtLeast(f64),
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run_of;
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn what_did_not_finish_is_slower_than_what_did() {
        let run = run_of(
            0.0,
            &[("a", "s", 5.0), ("a", "s", -60.0), ("a", "s", -60.0)],
        );
        assert_eq!(run.summary("a", "s").seconds, Some(Seconds::MoreThan(60.0)));
        let run = run_of(0.0, &[("a", "s", 5.0), ("a", "s", 6.0), ("a", "s", -60.0)]);
        assert_eq!(run.summary("a", "s").seconds, Some(Seconds::Exactly(6.0)));
    }

    #[test]
    fn a_ratio_to_what_did_not_finish_is_a_lower_bound() {
        let (ours, theirs) = (Some(Seconds::Exactly(2.0)), Some(Seconds::MoreThan(60.0)));
        assert_eq!(ratio(ours, theirs), Some(Ratio::AtLeast(30.0)));
        assert_eq!(ratio(theirs, ours), None);
        assert_eq!(ratio(ours, None), None);
    }
}
