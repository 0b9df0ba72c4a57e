//! What the kernel knows of a process: CPU time by thread and resident memory (Linux's `/proc`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process to be watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched(pub(crate) u32);

/// CPU time, user and system together, of each thread at one moment.
///
/// Per thread, because `/proc/PID/stat` counts in steps of 10 ms, which is a tenth of what is measured here.
/// Time of a thread that ends between two snapshots is lost: threads of the pools watched here outlive a query.
#[derive(Debug)]
pub(crate) struct CpuSnapshot(BTreeMap<String, u64>);

impl Watched {
    /// CPU time of all threads so far.
    pub(crate) fn cpu(self) -> Result<CpuSnapshot> {
        let tasks = self.file("task");
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("reading {}", tasks.display()))? {
            let task = task?;
            // A thread may end between the listing and the reading.
            if let Ok(line) = fs::read_to_string(task.path().join("schedstat")) {
                threads.insert(
                    task.file_name().to_string_lossy().into_owned(),
                    run_nanos(&line)?,
                );
            }
        }
        Ok(CpuSnapshot(threads))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(self) -> Result<f64> {
        let status = fs::read_to_string(self.file("status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("no VmRSS in the process's status")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}

impl CpuSnapshot {
    /// CPU time spent from `earlier` to this snapshot.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = |(thread, now): (&String, &u64)| now - earlier.0.get(thread).unwrap_or(&0);
        Duration::from_nanos(self.0.iter().map(spent).sum())
    }
}

/// The first field of a `schedstat` line: time on a CPU in nanoseconds.
fn run_nanos(schedstat: &str) -> Result<u64> {
    let field = schedstat
        .split_whitespace()
        .next()
        .context("empty schedstat")?;
    field
        .parse()
        .context("schedstat does not begin with a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_spends_cpu_time_and_holds_memory() {
        let this = Watched(std::process::id());
        let before = this.cpu().unwrap();
        let spin = std::time::Instant::now();
        while spin.elapsed() < Duration::from_millis(50) {}
        assert!(this.cpu().unwrap().since(&before) > Duration::from_millis(1));
        assert!(this.resident_mib().unwrap() > 0.5);
    }

    #[test]
    fn only_the_time_on_a_cpu_counts() {
        assert_eq!(run_nanos("554634407 42759374 38\n").unwrap(), 554_634_407);
        assert!(run_nanos("").is_err());
    }
}
