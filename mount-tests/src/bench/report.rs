//! README's table and picture, made of the JSON files of several runs.

use std::fs;
use std::path::PathBuf;

use super::figures::Run;
use super::medians::{Seconds, ratio};
use super::plot;
use super::show::{seconds, times};
use super::works;

/// Reads the files, prints the table and draws the picture.
pub fn make(files: &[PathBuf], picture: Option<&PathBuf>) -> Result<(), String> {
    let mut runs = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
        let run = Run::from_json(&text).map_err(|why| format!("{}: {why}", file.display()))?;
        runs.push(run);
    }
    let runs = by_link(runs);
    print!("{}", table(&runs));
    if let Some(picture) = picture {
        let drawn = plot::draw(&runs);
        fs::write(picture, drawn).map_err(|why| format!("{}: {why}", picture.display()))?;
    }
    Ok(())
}

/// Runs over the same link with the same amounts as one, links with little delay first.
fn by_link(runs: Vec<Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for run in runs {
        let is_same = |other: &&mut Run| link(other) == link(&run) && other.amounts == run.amounts;
        match merged.iter_mut().find(is_same) {
            Some(other) => other.absorb(run),
            None => merged.push(run),
        }
    }
    merged.sort_by(|one, other| one.rtt_ms.total_cmp(&other.rtt_ms));
    merged
}

/// What a link is called.
pub fn link(run: &Run) -> String {
    let mut name = format!("RTT {} ms", run.rtt_ms);
    if run.mbit > 0 {
        name += &format!(", {} Mbit/s", run.mbit);
    }
    if run.loss > 0.0 {
        name += &format!(", {} % lost", run.loss * 100.0);
    }
    name
}

/// All rows of all runs, in the order in which the works are listed.
pub fn rows(runs: &[Run]) -> Vec<String> {
    let works = works::all();
    let known = works
        .iter()
        .flat_map(|work| work.steps)
        .map(|step| step.row);
    let is_measured = |row: &&str| runs.iter().any(|run| run.rows().contains(row));
    known.filter(is_measured).map(str::to_owned).collect()
}

/// What a row is called for people.
pub fn title(row: &str) -> &str {
    let works = works::all();
    let mut steps = works.iter().flat_map(|work| work.steps);
    steps
        .find(|step| step.row == row)
        .map_or(row, |step| step.title)
}

/// Seconds of sftpfs and sshfs, and how many times as fast sftpfs is.
fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "Seconds that sftpfs takes, that sshfs takes, and how many times as fast sftpfs is:\n\n\
         | work |",
    );
    for run in runs {
        text += &format!(" {} |", link(run));
    }
    text += &format!("\n|---|{}\n", "---|".repeat(runs.len()));
    for row in rows(runs) {
        text += &format!("| {} |", title(&row));
        for run in runs {
            text += &format!(" {} |", cell(run, &row));
        }
        text.push('\n');
    }
    text.push('\n');
    for run in runs {
        text += &format!("{}{}\n", caption(run), parts_of_the_link(run));
    }
    text
}

fn cell(run: &Run, row: &str) -> String {
    let ours = run.summary(row, "sftpfs");
    let theirs = run.summary(row, "sshfs");
    if ours.failed + theirs.failed > 0 {
        return "failed".into();
    }
    match times(ratio(ours.seconds, theirs.seconds)).as_str() {
        "-" if ours.seconds.is_none() => "-".into(),
        "-" => seconds(ours.seconds),
        times => {
            let (ours, theirs) = (seconds(ours.seconds), seconds(theirs.seconds));
            format!("{ours}, {theirs}: **{times} x**")
        }
    }
}

/// What was measured with what.
fn caption(run: &Run) -> String {
    let amount = |name: &str| run.amounts.get(name).copied().unwrap_or(0);
    let versions: Vec<String> = run.systems.iter().map(|s| s.version.clone()).collect();
    let mut different: Vec<&str> = Vec::new();
    for version in versions.iter().filter(|version| !version.is_empty()) {
        if !different.contains(&version.as_str()) {
            different.push(version);
        }
    }
    format!(
        "{}: {} MiB in a large file, {} small files read and {} written, {} in the repository, {} \
         entries in the wide directory; medians of up to {} rounds; {}; Linux {}, {} CPUs, load {:.1} to {:.1}.",
        link(run),
        amount("big_mib"),
        amount("small_files"),
        amount("new_files"),
        amount("git_files"),
        amount("wide_entries"),
        run.rounds,
        different.join(", "),
        run.machine.kernel,
        run.machine.cpus,
        run.machine.load_at_start,
        run.load_at_end,
    )
}

/// How much of a link with a cap the large file took, by each system.
fn parts_of_the_link(run: &Run) -> String {
    let mut text = String::new();
    for (row, does) in [("read", "reads"), ("write", "writes")] {
        for system in ["sftpfs", "sshfs", "ssh"] {
            if let Some(part) = part_of_the_link(run, row, system) {
                text += &format!(" {system} {does} at {:.0} % of the link.", part * 100.0);
            }
        }
    }
    text
}

fn part_of_the_link(run: &Run, row: &str, system: &str) -> Option<f64> {
    let Some(Seconds::Exactly(seconds)) = run.summary(row, system).seconds else {
        return None;
    };
    let bytes = run.amounts.get("big_mib")? << 20;
    let carried = f64::from(run.mbit) * 1e6 / 8.0 * DATA_OF_A_PACKET;
    (run.mbit > 0).then(|| bytes as f64 / seconds / carried)
}

/// Of 1500 bytes: without the headers of IP and of TCP with its timestamps.
const DATA_OF_A_PACKET: f64 = 1448.0 / 1500.0;

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run_of;
    use super::*;

    #[test]
    fn the_table_has_a_row_for_a_work_and_a_column_for_a_link() {
        let near = run_of(0.0, &[("read", "sftpfs", 2.0), ("read", "sshfs", 3.0)]);
        let far = run_of(20.0, &[("read", "sftpfs", 2.5), ("read", "sshfs", -60.0)]);
        let text = table(&by_link(vec![far, near]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            "| work | RTT 0 ms, 1000 Mbit/s | RTT 20 ms, 1000 Mbit/s |"
        );
        assert_eq!(lines[3], "|---|---|---|");
        let row = format!(
            "| {} | 2.00, 3.00: **1.5 x** | 2.50, > 60: **> 24 x** |",
            title("read")
        );
        assert_eq!(lines[4], row);
        assert_eq!(lines[5], "");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let runs = [run_of(0.0, &[("read", "sftpfs", 2.0)]), run_of(20.0, &[])];
        let text = table(&runs);
        assert!(text.contains("| 2.00 | - |"), "{text}");
    }

    #[test]
    fn runs_over_the_same_link_are_one_column() {
        let one = run_of(20.0, &[("read", "sftpfs", 1.0)]);
        let other = run_of(20.0, &[("write", "sftpfs", 2.0), ("read", "sftpfs", 3.0)]);
        let runs = by_link(vec![one, other]);
        assert_eq!(runs.len(), 1);
        assert_eq!(cell(&runs[0], "read"), "2.00");
    }

    #[test]
    fn the_part_of_the_link_is_that_of_the_data_it_can_carry() {
        let mut run = run_of(20.0, &[("read", "sftpfs", 10.0), ("read", "sshfs", -60.0)]);
        // 1448 bytes of 1500 are data, so 100 MiB/s is 86.9 % of 1000 Mbit/s.
        run.amounts.insert("big_mib".into(), 1000);
        assert_eq!(
            parts_of_the_link(&run),
            " sftpfs reads at 87 % of the link."
        );
        run.mbit = 0;
        assert_eq!(parts_of_the_link(&run), "");
    }

    #[test]
    fn runs_of_different_amounts_are_not_mixed() {
        let one = run_of(20.0, &[("read", "sftpfs", 1.0)]);
        let mut other = one.clone();
        other.amounts.insert("big_mib".into(), 64);
        assert_eq!(by_link(vec![one, other]).len(), 2);
    }
}
