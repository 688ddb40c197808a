//! What processes have cost, from /proc: CPU time of whole trees, children that ended included,
//! and peak memory.

use std::collections::HashMap;
use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// CPU seconds that these processes and all below them have used so far. A child that ended counts
/// as soon as its parent has waited for it, and as a zombie before.
pub fn cpu_seconds(roots: &[i32]) -> f64 {
    let stats = all_stats();
    let mut ticks = 0;
    for pid in tree(roots, &stats) {
        ticks += stats.get(&pid).map_or(0, |stat| stat.ticks);
    }
    // Precision is lost after some million years.
    ticks as f64 / ticks_per_second()
}

/// The sum of the peaks of resident memory (VmHWM) of the trees' processes that live, KiB.
pub fn peak_kib(roots: &[i32]) -> u64 {
    tree(roots, &all_stats())
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| peak_of(&status))
        .sum()
}

/// CPU seconds of all children that this process has waited for.
pub fn cpu_of_ended_children() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0.0;
    };
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = user.tv_usec() + system.tv_usec();
    (user.tv_sec() + system.tv_sec()) as f64 + micros as f64 / 1e6
}

struct Stat {
    parent: i32,
    ticks: u64,
}

fn all_stats() -> HashMap<i32, Stat> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid else { continue };
        let text = fs::read_to_string(format!("/proc/{pid}/stat"));
        if let Some(stat) = text.ok().and_then(|text| parse_stat(&text)) {
            stats.insert(pid, stat);
        }
    }
    stats
}

/// proc_pid_stat(5): fields 4 (ppid) and 14 to 17 (utime, stime, cutime, cstime).
fn parse_stat(text: &str) -> Option<Stat> {
    // The name in brackets may hold anything, so look for its last bracket.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let times = fields.get(11..15)?.iter();
    let ticks = times.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent, ticks })
}

fn tree(roots: &[i32], stats: &HashMap<i32, Stat>) -> Vec<i32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let below = stats.iter().filter(|(_, stat)| stat.parent == parent);
        found.extend(below.map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |ticks| ticks as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 42 1 1 0 -1 4194560 9 0 0 0 100 20 3 4 20 0 1 0 5 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (42, 127));
    }

    #[test]
    fn the_tree_holds_children_of_children_and_nobody_else() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1)];
        let stat = |(pid, parent)| (pid, Stat { parent, ticks: 1 });
        let stats: HashMap<i32, Stat> = parents.into_iter().map(stat).collect();
        assert_eq!(tree(&[2], &stats), [2, 3, 4]);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  77 kB\nVmRSS:\t 5 kB\n";
        assert_eq!(peak_of(status), Some(77));
    }
}
