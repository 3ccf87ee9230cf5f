//! What one run takes, seen from outside: CPU and memory from /proc, progress from the group's offsets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system CPU time.
    pub cpu_s: f64,
    /// The highest resident memory.
    pub rss_max_bytes: u64,
}

impl Usage {
    /// Of a process that is still there; zeros for one that is not.
    pub fn of(pid: u32) -> Usage {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // Fields 14 and 15, behind the name, which is in parentheses: ticks of 10 ms.
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        Usage { cpu_s: (ticks(11) + ticks(12)) as f64 / 100.0, rss_max_bytes: kib * 1024 }
    }
}

/// The CPU time of a whole machine so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    all: u64,
    /// A virtual machine wanted to run and its host ran something else.
    stolen: u64,
}

impl Machine {
    /// This one, now.
    pub fn now() -> Machine {
        Machine::read(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn read(stat: &str) -> Machine {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        // User, nice, system, idle, iowait, irq, softirq, steal. Guests, behind them, are in user already.
        let ticks: Vec<u64> = all.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
        Machine { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Which share of its CPU time was stolen since then.
    pub fn stolen_since(&self, before: &Machine) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the process started.
    pub wall_s: f64,
    /// Of the process so far.
    pub cpu_s: f64,
    /// Of the broker since the process started.
    pub broker_cpu_s: f64,
    /// Committed records of the input.
    pub records: u64,
}

/// Seconds of something per million records between a fifth and nine tenths of a run of `total` records: its
/// start and its end do not count. `None` if it was too short to be seen there twice.
pub fn steady(samples: &[Sample], total: u64, seconds: impl Fn(&Sample) -> f64) -> Option<f64> {
    let first = samples.iter().find(|sample| sample.records * 5 >= total)?;
    let last = samples.iter().rev().find(|sample| sample.records * 10 <= total * 9)?;
    let records = last.records.checked_sub(first.records).filter(|records| *records > 0)?;
    Some((seconds(last) - seconds(first)) * 1e6 / records as f64)
}

/// The bytes ever written to topics: the greatest size seen of each segment, also of those that were
/// deleted since. (A segment is there for seconds at least: it is deleted a second after the cut.)
pub struct Written {
    data: PathBuf,
    /// A topic of which this is true counts.
    counts: Box<dyn Fn(&str) -> bool>,
    segments: BTreeMap<PathBuf, u64>,
}

impl Written {
    /// Below a broker's folder, of the topics for whose partition folders `counts` holds.
    pub fn new(data: PathBuf, counts: impl Fn(&str) -> bool + 'static) -> Written {
        Written { data, counts: Box::new(counts), segments: BTreeMap::new() }
    }

    /// Looks once more.
    pub fn observe(&mut self) {
        for folder in entries(&self.data) {
            if !folder.file_name().and_then(|name| name.to_str()).is_some_and(&*self.counts) {
                continue;
            }
            for path in entries(&folder).filter(|path| path.extension().is_some_and(|end| end == "log")) {
                let bytes = path.metadata().map_or(0, |found| found.len());
                let greatest = self.segments.entry(path).or_default();
                *greatest = bytes.max(*greatest);
            }
        }
    }

    /// All that was seen.
    pub fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The bytes of all files below a folder.
pub fn size(folder: &Path) -> u64 {
    let of = |path: PathBuf| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => size(&path),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries(folder).map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(records: u64, cpu_s: f64) -> Sample {
        Sample { wall_s: 0.0, cpu_s, broker_cpu_s: 0.0, records }
    }

    #[test]
    fn neither_start_nor_end_is_part_of_the_steady_run() {
        // Ten seconds to start, two per million in between, twenty for the end.
        let samples = [(0, 10.0), (2_000_000, 14.0), (9_000_000, 28.0), (10_000_000, 48.0)];
        let samples = samples.map(|(records, cpu_s)| sample(records, cpu_s));
        assert_eq!(steady(&samples, 10_000_000, |sample| sample.cpu_s), Some(2.0));
        assert_eq!(steady(&samples[..2], 10_000_000, |sample| sample.cpu_s), None, "seen once");
    }

    #[test]
    fn what_the_host_stole_is_a_share_of_all_time_without_guests_twice() {
        let before = Machine::read("cpu  10 0 10 60 0 0 10 10 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        let after = Machine::read("cpu  40 0 20 110 0 0 10 20 25 0\n");
        assert_eq!(after.stolen_since(&before), 0.1);
        assert_eq!(after.stolen_since(&after), 0.0);
    }
}
