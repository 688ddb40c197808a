//! What a run prints: each measurement as it is made, and the medians at the end.

use super::figures::{Ending, Measurement, Ratio, Run, Seconds, Summary, ratio};
use super::works::{Action, Work, Yardstick};

/// What there is to measure, with the commands themselves.
pub fn list(works: &[Work]) {
    for step in works.iter().flat_map(|work| work.steps) {
        match step.run {
            Action::Command(script) => println!("{}: {script}", step.row),
            Action::ListingsDuring(script, _) => println!("{}: while: {script}", step.row),
        }
        for (yardstick, script) in step.yardsticks {
            let name = match yardstick {
                Yardstick::Ssh => "ssh",
                Yardstick::Sftp => "sftp",
                Yardstick::Scp => "scp",
            };
            println!("    {name}: {script}");
        }
    }
}

/// What is going to be measured.
pub fn settings(run: &Run) {
    let cap = if run.mbit == 0 {
        "no cap".into()
    } else {
        format!("{} Mbit/s", run.mbit)
    };
    let disk = if run.machine.in_memory {
        "in memory"
    } else {
        "on disk, which is measured too"
    };
    println!(
        "RTT {} ms, {cap}, loss {}; {} rounds; files {disk}; {} CPUs, load {}",
        run.rtt_ms, run.loss, run.rounds, run.machine.cpus, run.machine.load_at_start
    );
    let amounts: Vec<String> = run
        .amounts
        .iter()
        .map(|(k, v)| format!("{k} {v}"))
        .collect();
    println!("{}", amounts.join(", "));
    for system in &run.systems {
        let warning = if system.is_debug_build {
            " -- NOT OPTIMISED: a debug build"
        } else {
            ""
        };
        println!("{}: {}{warning}", system.name, system.version);
    }
    println!();
}

/// One line for one measurement.
pub fn measurement(measurement: &Measurement) {
    let Measurement { row, system, .. } = measurement;
    let ending = match &measurement.ending {
        Ending::Done => format!("{:.3} s", measurement.seconds),
        Ending::Unfinished => format!("not finished after {:.0} s", measurement.seconds),
        Ending::Failed(why) => format!("FAILED: {why}"),
    };
    println!(
        "{row:16} {system:8} {}: {ending}, {} bytes, {} in a chain, cpu {:.2} + {:.2} s, {} MiB, load {:.1}",
        measurement.round + 1,
        short(measurement.bytes_up as f64 + measurement.bytes_down as f64),
        measurement.chain,
        measurement.client_cpu,
        measurement.server_cpu,
        measurement.peak_kib >> 10,
        measurement.load,
    );
}

/// The medians, and how each compares to sshfs.
pub fn summary(run: &Run) {
    println!(
        "\n{:16} {:8} {:>9} {:>9} {:>7} {:>7} {:>7} {:>8} {:>7} {:>7} {:>6}",
        "work",
        "system",
        "seconds",
        "x sshfs",
        "bytes",
        "turns",
        "chain",
        "s / RTT",
        "client",
        "server",
        "MiB"
    );
    for row in run.rows() {
        let sshfs = run.summary(row, "sshfs").seconds;
        for system in &run.systems {
            let summary = run.summary(row, &system.name);
            if summary.rounds + summary.failed > 0 {
                println!(
                    "{row:16} {:8} {}",
                    system.name,
                    figures(run, &summary, sshfs)
                );
            }
        }
    }
    for failure in run.failures() {
        println!("FAILED {failure}");
    }
    println!("load at the end {}", run.load_at_end);
}

fn figures(run: &Run, summary: &Summary, sshfs: Option<Seconds>) -> String {
    let in_rtt = match summary.seconds {
        Some(Seconds::Exactly(seconds)) if run.rtt_ms > 0.0 => {
            format!("{:.1}", seconds * 1000.0 / run.rtt_ms)
        }
        _ => "-".into(),
    };
    let failed = match summary.failed {
        0 => String::new(),
        failed => format!("  {failed} FAILED"),
    };
    format!(
        "{:>9} {:>9} {:>7} {:>7} {:>7} {in_rtt:>8} {:>7.2} {:>7.2} {:>6.0}{failed}",
        seconds(summary.seconds),
        times(ratio(summary.seconds, sshfs)),
        short(summary.bytes),
        short(summary.turns),
        short(summary.chain),
        summary.client_cpu,
        summary.server_cpu,
        summary.peak_kib / 1024.0,
    )
}

/// A time with three digits that count.
pub fn seconds(seconds: Option<Seconds>) -> String {
    match seconds {
        None => "-".into(),
        Some(Seconds::MoreThan(limit)) => format!("> {limit:.0}"),
        Some(Seconds::Exactly(seconds)) => three_digits(seconds),
    }
}

/// How many times faster.
pub fn times(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "-".into(),
        Some(Ratio::Exactly(ratio)) => two_digits(ratio),
        Some(Ratio::AtLeast(ratio)) => format!("> {}", two_digits(ratio)),
    }
}

fn three_digits(value: f64) -> String {
    let digits = if value < 1.0 {
        3
    } else if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$}")
}

fn two_digits(value: f64) -> String {
    let digits = if value < 1.0 {
        2
    } else {
        usize::from(value < 10.0)
    };
    format!("{value:.digits$}")
}

/// A large number in few characters.
fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e4, "k")];
    for (unit, name) in units {
        if value >= unit {
            let unit = if name == "k" { 1e3 } else { unit };
            return format!("{:.1}{name}", value / unit);
        }
    }
    format!("{value:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_count() {
        let exactly = |s| seconds(Some(Seconds::Exactly(s)));
        assert_eq!(exactly(0.01234), "0.012");
        assert_eq!(exactly(1.2345), "1.23");
        assert_eq!(exactly(12.345), "12.3");
        assert_eq!(exactly(123.45), "123");
        assert_eq!(seconds(Some(Seconds::MoreThan(180.0))), "> 180");
        assert_eq!(times(Some(Ratio::Exactly(0.456))), "0.46");
        assert_eq!(times(Some(Ratio::Exactly(23.6))), "24");
        assert_eq!(times(Some(Ratio::AtLeast(3.12))), "> 3.1");
        assert_eq!(short(123_456.0), "123.5k");
        assert_eq!(short(9_999.0), "9999");
    }
}
