//! How far a copy is, as counts, and what is said about it. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ioctl::Way;
use crate::tools::numbers::{bytes, counted, duration, grouped};

/// Counts so far. Files are all that is no directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) files_known: u64,
    pub(super) files_done: u64,
    pub(super) bytes_known: u64,
    pub(super) bytes_done: u64,
    /// Whether everything to copy is known.
    pub(super) is_complete: bool,
    pub(super) ways: Ways,
}

/// How content came to be copied; files of each kind, and the bytes that stayed on the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) linked: u64,
    pub(super) copied: u64,
    pub(super) streamed: u64,
    /// Nobody told how.
    pub(super) untold: u64,
    /// Symbolic links, and further names of copied files.
    pub(super) links: u64,
    pub(super) bytes: u64,
    pub(super) bytes_saved: u64,
}

impl Ways {
    /// A file of this size is there now.
    pub(super) fn add(&mut self, way: Option<Way>, size: u64) {
        let count = match way {
            Some(Way::Linked) => &mut self.linked,
            Some(Way::Copied) => &mut self.copied,
            Some(Way::Streamed) => &mut self.streamed,
            None => &mut self.untold,
        };
        *count += 1;
        self.bytes += size;
        if matches!(way, Some(Way::Linked | Way::Copied)) {
            self.bytes_saved += size;
        }
    }

    /// What was done, in one line.
    pub(super) fn summary(&self) -> String {
        let files = self.linked + self.copied + self.streamed + self.untold;
        let mut text = format!("{}, {}", counted(files, "file", "files"), bytes(self.bytes));
        if self.links > 0 {
            text.push_str(&format!(", {}", counted(self.links, "link", "links")));
        }
        let ways = [
            (self.linked, "linked"),
            (self.copied, "copied on the server"),
            (self.streamed, "streamed"),
            (self.untold, "copied in a way that nobody told"),
        ];
        let ways = ways.into_iter().filter(|(count, _)| *count > 0);
        let ways: Vec<_> = ways
            .map(|(count, way)| format!("{} {way}", grouped(count)))
            .collect();
        if !ways.is_empty() && ways.len() as u64 > u64::from(self.untold == files) {
            text.push_str(&format!(": {}", ways.join(", ")));
        }
        if self.bytes_saved > 0 {
            let saved = bytes(self.bytes_saved);
            text.push_str(&format!("; {saved} did not cross the network"));
        }
        text
    }

    /// Nothing was copied.
    pub(super) const fn is_nothing(&self) -> bool {
        self.linked + self.copied + self.streamed + self.untold + self.links == 0
    }
}

/// The last seconds, by which speed is judged.
#[derive(Debug, Default)]
pub(super) struct Speed(VecDeque<(Duration, u64, u64)>);

/// Speed is that of the last seconds: long enough to be steady, short enough to be true.
const WINDOW: Duration = Duration::from_secs(8);

impl Speed {
    /// Notes how far it is at a time since the start.
    pub(super) fn note(&mut self, at: Duration, tally: &Tally) {
        self.0.push_back((at, tally.bytes_done, tally.files_done));
        while self.0.get(1).is_some_and(|second| second.0 + WINDOW <= at) {
            self.0.pop_front();
        }
    }

    /// Bytes and files in a second; none before there is something to judge by.
    fn rates(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = (last.0 - first.0).as_secs_f64();
        // Far fewer than 2^52.
        let rate = |from: u64, to: u64| (to - from) as f64 / seconds;
        (seconds >= 0.5).then(|| (rate(first.1, last.1), rate(first.2, last.2)))
    }

    /// One line of at most so many characters, without an end of line.
    pub(super) fn line(&self, tally: &Tally, columns: usize) -> String {
        let more = if tally.is_complete { "" } else { "+" };
        let (done, known) = (grouped(tally.files_done), grouped(tally.files_known));
        let files = format!("{done}/{known}{more} files");
        let (done, known) = (bytes(tally.bytes_done), bytes(tally.bytes_known));
        let mut parts = vec![format!("{done}/{known}{more}")];
        if let Some((by_bytes, by_files)) = self.rates() {
            parts.push(format!("{}/s", bytes(whole(by_bytes))));
            let left = seconds_left(tally, by_bytes, by_files);
            parts.extend(left.map(|left| format!("{} left", duration(left))));
        }
        fitting(files, &parts, columns.saturating_sub(1))
    }
}

/// The first part and as many of the others as fit, the later ones rather than the earlier.
fn fitting(mut first: String, others: &[String], columns: usize) -> String {
    for skipped in 0..=others.len() {
        let rest = others.get(skipped..).unwrap_or_default();
        let shown: Vec<&str> = [first.as_str()]
            .into_iter()
            .chain(rest.iter().map(String::as_str))
            .collect();
        let text = shown.join(", ");
        if text.len() <= columns {
            return text;
        }
    }
    first.truncate(columns);
    first
}

/// None while not everything to copy is known, or nothing moves.
fn seconds_left(tally: &Tally, by_bytes: f64, by_files: f64) -> Option<u64> {
    const DAYS_100: f64 = 8_640_000.0;
    let left = |known: u64, done: u64, rate: f64| match known.saturating_sub(done) {
        0 => 0.0,
        left => left as f64 / rate,
    };
    // Small files take their time by number, large ones by size.
    let seconds = left(tally.bytes_known, tally.bytes_done, by_bytes).max(left(
        tally.files_known,
        tally.files_done,
        by_files,
    ));
    // A large file counts when it is done: its number is no measure while it is copied.
    let seconds = match by_files == 0.0 {
        true => left(tally.bytes_known, tally.bytes_done, by_bytes),
        false => seconds,
    };
    (tally.is_complete && seconds < DAYS_100).then(|| whole(seconds.ceil()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is too large or no number at all becomes the nearest there is"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_summary_says_how_content_got_there() {
        let mut ways = Ways::default();
        (0..1200).for_each(|_| ways.add(Some(Way::Linked), 4 << 20));
        (0..30).for_each(|_| ways.add(Some(Way::Copied), 32 << 20));
        (0..4).for_each(|_| ways.add(Some(Way::Streamed), 1 << 10));
        assert_eq!(
            ways.summary(),
            "1,234 files, 5.6 GiB: 1,200 linked, 30 copied on the server, 4 streamed; \
             5.6 GiB did not cross the network"
        );
    }

    #[test]
    fn a_summary_claims_nothing_that_nobody_told() {
        let mut ways = Ways::default();
        assert_eq!(ways.summary(), "0 files, 0 B");
        ways.add(None, 10);
        ways.links = 1;
        assert_eq!(ways.summary(), "1 file, 10 B, 1 link");
        ways.add(Some(Way::Copied), 10);
        assert_eq!(
            ways.summary(),
            "2 files, 20 B, 1 link: 1 copied on the server, 1 copied in a way that nobody told; \
             10 B did not cross the network"
        );
    }

    #[test]
    fn the_line_tells_speed_and_the_time_left_once_both_are_known() {
        let mut speed = Speed::default();
        let mut tally = Tally {
            files_known: 1234,
            bytes_known: 100 << 20,
            ..Tally::default()
        };
        speed.note(seconds(0), &tally);
        assert_eq!(speed.line(&tally, 80), "0/1,234+ files, 0 B/100 MiB+");
        (tally.files_done, tally.bytes_done) = (617, 10 << 20);
        speed.note(seconds(1), &tally);
        assert_eq!(
            speed.line(&tally, 80),
            "617/1,234+ files, 10.0 MiB/100 MiB+, 10.0 MiB/s"
        );
        tally.is_complete = true;
        assert_eq!(
            speed.line(&tally, 80),
            "617/1,234 files, 10.0 MiB/100 MiB, 10.0 MiB/s, 0:09 left"
        );
        assert_eq!(
            speed.line(&tally, 40),
            "617/1,234 files, 10.0 MiB/s, 0:09 left"
        );
        assert_eq!(speed.line(&tally, 16), "617/1,234 files");
    }

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let mut speed = Speed::default();
        let mut tally = Tally::default();
        for second in 0..100 {
            // Ten times as fast from the 50th second on.
            tally.bytes_done += if second < 50 { 100 } else { 1000 };
            speed.note(seconds(second), &tally);
        }
        assert_eq!(speed.rates(), Some((1000.0, 0.0)));
        assert!(speed.0.len() <= 10);
    }

    #[test]
    fn time_left_is_by_whatever_takes_longer() {
        let tally = Tally {
            files_known: 100,
            files_done: 50,
            bytes_known: 100,
            bytes_done: 90,
            is_complete: true,
            ..Tally::default()
        };
        assert_eq!(seconds_left(&tally, 10.0, 1.0), Some(50));
        assert_eq!(seconds_left(&tally, 1.0, 50.0), Some(10));
        assert_eq!(seconds_left(&tally, 1.0, 0.0), Some(10), "one large file");
        assert_eq!(seconds_left(&tally, 0.0, 1.0), None, "nothing moves");
    }
}
