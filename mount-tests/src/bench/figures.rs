//! What was measured, as it is kept in the JSON file, and what follows from it.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use super::cli::Cli;
use super::medians::{Summary, median, median_seconds};
use super::site::Site;
use super::system::{self, System};
use super::works::Work;

/// One run of the benchmark, on one link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub rtt_ms: f64,
    /// 0: no cap.
    pub mbit: u32,
    pub loss: f64,
    pub rounds: usize,
    pub limit_seconds: f64,
    pub machine: Machine,
    pub amounts: BTreeMap<String, u64>,
    /// In the order of the tables.
    pub systems: Vec<SystemUsed>,
    pub measurements: Vec<Measurement>,
    /// Works that could not even begin.
    pub notes: Vec<String>,
    pub load_at_end: f64,
}

/// Where it ran.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpus: usize,
    pub kernel: String,
    /// Seconds since 1970.
    pub began: u64,
    pub load_at_start: f64,
    /// Whether the files of the server were in memory.
    pub in_memory: bool,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SystemUsed {
    pub name: String,
    pub version: String,
    pub is_mount: bool,
    pub is_debug_build: bool,
}

/// One step of one work, done once by one system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measurement {
    pub row: String,
    pub system: String,
    pub round: usize,
    pub ending: Ending,
    /// The limit, if it did not finish; 0 if it failed.
    pub seconds: f64,
    /// IP packets with their headers. Without delay and cap all are under `up`.
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub packets: u64,
    /// How often data went up after data had come down; 0 without delay and cap.
    pub turns: u64,
    /// Round trips that had to follow one another; 0 without delay and cap.
    pub chain: u64,
    /// CPU seconds of what was mounted, with its helpers.
    pub client_cpu: f64,
    /// CPU seconds of sshd and what it started.
    pub server_cpu: f64,
    /// CPU seconds of the simulated link, which shares the CPUs with everybody.
    #[serde(default)]
    pub link_cpu: f64,
    /// The client's peak of resident memory.
    pub peak_kib: u64,
    /// The load of the machine before (1 minute).
    pub load: f64,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// And the result was right.
    #[default]
    Done,
    /// The limit came first.
    Unfinished,
    /// With an error, or a wrong result.
    Failed(String),
}

impl Measurement {
    /// One that has not been made yet.
    pub fn new(row: &str, system: &str, round: usize, load: f64) -> Self {
        Self {
            row: row.into(),
            system: system.into(),
            round,
            load,
            ..Self::default()
        }
    }
}

impl Run {
    /// A run in which nothing was measured yet.
    pub fn new(cli: &Cli, site: &Site, systems: &[System]) -> Self {
        let size = &site.size;
        let amounts = [
            ("big_mib", size.big_mib),
            ("part_mib", size.part_mib),
            ("small_files", size.small_files.into()),
            ("new_files", size.new_files.into()),
            ("wide_entries", size.wide.into()),
            ("single_reads", size.single_reads.into()),
            ("shared_reads", size.shared_reads.into()),
            ("git_files", size.git_files.into()),
            ("sources", size.sources.into()),
            ("listings", size.listings.into()),
        ];
        Self {
            rtt_ms: cli.rtt.as_secs_f64() * 1000.0,
            mbit: cli.mbit,
            loss: cli.loss,
            rounds: cli.rounds,
            limit_seconds: cli.limit.as_secs_f64(),
            machine: machine(site.is_in_memory),
            amounts: amounts.map(|(name, value)| (name.into(), value)).into(),
            systems: systems.iter().map(used).collect(),
            measurements: Vec::new(),
            notes: Vec::new(),
            load_at_end: 0.0,
        }
    }

    /// What a JSON file holds.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|why| format!("\"{why}\""))
    }

    /// Reads a JSON file back.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|why| why.to_string())
    }

    /// Takes over what another run over the same link measured.
    pub fn absorb(&mut self, other: Self) {
        for system in other.systems {
            if !self.systems.iter().any(|known| known.name == system.name) {
                self.systems.push(system);
            }
        }
        self.rounds = self.rounds.max(other.rounds);
        self.measurements.extend(other.measurements);
        self.notes.extend(other.notes);
        self.load_at_end = other.load_at_end;
    }

    /// Takes note of a work that could not be measured at all.
    pub fn note_failure(&mut self, work: &str, why: &str) {
        eprintln!("mount-tests: {why}");
        self.notes.push(format!("{work}: {why}"));
    }

    /// Everything that went wrong; being too slow did not.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.measurements.iter().filter_map(|m| match &m.ending {
            Ending::Failed(why) => Some(format!("{} {}: {why}", m.row, m.system)),
            _ => None,
        });
        self.notes.iter().cloned().chain(failed)
    }

    /// Whether a work could not begin, or a system did one wrong.
    pub fn has_failed(&self, system: &str) -> bool {
        let is_failure = |m: &Measurement| matches!(m.ending, Ending::Failed(_));
        let mut its = self.measurements.iter().filter(|m| m.system == system);
        !self.notes.is_empty() || its.any(is_failure)
    }

    /// Whether a system takes so long with a work that another round would tell nothing new.
    pub fn is_settled(&self, work: &Work, system: &System, patience: std::time::Duration) -> bool {
        let of_work = |m: &&Measurement| {
            m.system == system.name && work.steps.iter().any(|step| step.row == m.row)
        };
        let all = self.measurements.iter().filter(of_work);
        all.map(|m| m.seconds).sum::<f64>() > patience.as_secs_f64()
    }

    /// All rows that were measured, in order.
    pub fn rows(&self) -> Vec<&str> {
        let mut rows: Vec<&str> = Vec::new();
        for measurement in &self.measurements {
            if !rows.contains(&measurement.row.as_str()) {
                rows.push(&measurement.row);
            }
        }
        rows
    }

    /// What all rounds say.
    pub fn summary(&self, row: &str, system: &str) -> Summary {
        let all = self.measurements.iter();
        let all: Vec<&Measurement> = all.filter(|m| m.row == row && m.system == system).collect();
        let good: Vec<&Measurement> = all
            .iter()
            .copied()
            .filter(|m| !matches!(m.ending, Ending::Failed(_)))
            .collect();
        let of = |value: fn(&Measurement) -> f64| {
            let values: Vec<f64> = good.iter().map(|m| value(m)).collect();
            median(&values).unwrap_or(0.0)
        };
        Summary {
            seconds: median_seconds(&good),
            rounds: good.len(),
            failed: all.len() - good.len(),
            bytes: of(|m| (m.bytes_up + m.bytes_down) as f64),
            turns: of(|m| m.turns as f64),
            chain: of(|m| m.chain as f64),
            client_cpu: of(|m| m.client_cpu),
            server_cpu: of(|m| m.server_cpu),
            peak_kib: of(|m| m.peak_kib as f64),
        }
    }
}

/// The load of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_ascii_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn used(system: &System) -> SystemUsed {
    SystemUsed {
        name: system.name.clone(),
        version: system.version(),
        is_mount: system.kind.is_mount(),
        is_debug_build: system::is_debug_build(system),
    }
}

fn machine(in_memory: bool) -> Machine {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        kernel: kernel.trim().into(),
        began: now.map_or(0, |since| since.as_secs()),
        load_at_start: load(),
        in_memory,
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::medians::Seconds;
    use super::*;

    /// A run with these medians: (row, system, seconds, or more than these if negative).
    pub fn run_of(rtt_ms: f64, times: &[(&str, &str, f64)]) -> Run {
        let measurement = |(row, system, seconds): &(&str, &str, f64)| Measurement {
            seconds: seconds.abs(),
            ending: if *seconds < 0.0 {
                Ending::Unfinished
            } else {
                Ending::Done
            },
            ..Measurement::new(row, system, 0, 0.0)
        };
        let system = |name: &str| SystemUsed {
            name: name.into(),
            version: "1".into(),
            is_mount: true,
            is_debug_build: false,
        };
        Run {
            rtt_ms,
            mbit: 1000,
            loss: 0.0,
            rounds: 1,
            limit_seconds: 60.0,
            machine: Machine::default(),
            amounts: BTreeMap::new(),
            systems: ["sftpfs", "sshfs", "rclone"].map(system).into(),
            measurements: times.iter().map(measurement).collect(),
            notes: Vec::new(),
            load_at_end: 0.0,
        }
    }

    #[test]
    fn a_failed_round_counts_as_a_failure_and_not_as_a_time() {
        let mut run = run_of(0.0, &[("a", "s", 5.0), ("a", "s", 1.0)]);
        run.measurements[1].ending = Ending::Failed("wrong bytes".into());
        let summary = run.summary("a", "s");
        assert_eq!(summary.seconds, Some(Seconds::Exactly(5.0)));
        assert_eq!((summary.rounds, summary.failed), (1, 1));
        assert_eq!(run.failures().count(), 1);
        assert!(run.has_failed("s") && !run.has_failed("other"));
    }

    #[test]
    fn json_holds_everything() {
        let mut run = run_of(20.0, &[("a", "sftpfs", 5.25)]);
        run.measurements[0].ending = Ending::Failed("no \"luck\"".into());
        let back = Run::from_json(&run.to_json()).unwrap();
        assert_eq!(format!("{run:?}"), format!("{back:?}"));
    }
}
