//! The process as the system sees it; what the system does not tell is left out.

use std::{fmt, fs};

use super::{
    exposition::Exposition,
    families::{self, Family},
};

/// Memory, threads and files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    files: Option<u64>,
    files_max: Option<u64>,
}

impl Process {
    /// Linux tells by files; others tell nothing here.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").map(|files| files.count() as u64);
        Self {
            files: files.ok(),
            ..Self::parse(&status, &limits)
        }
    }

    fn parse(status: &str, limits: &str) -> Self {
        let kib = |name| number_behind(status, name).map(|kib| kib.saturating_mul(1024));
        Self {
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            threads: number_behind(status, "Threads:"),
            files: None,
            files_max: number_behind(limits, "Max open files"),
        }
    }
}

/// The number that follows `name` at the beginning of a line.
fn number_behind(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

pub(super) fn expose(out: &mut Exposition<'_>, process: &Process) -> fmt::Result {
    let values: [(&Family, Option<u64>); 5] = [
        (&families::PROCESS_RESIDENT, process.resident_bytes),
        (&families::PROCESS_VIRTUAL, process.virtual_bytes),
        (&families::PROCESS_THREADS, process.threads),
        (&families::PROCESS_FILES, process.files),
        (&families::PROCESS_FILES_MAX, process.files_max),
    ];
    for (family, value) in values {
        if let Some(value) = value {
            out.family(family)?.number(&[], value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read_by_their_names() {
        let status = "Name:\tdrillbit\nVmSize:\t    2048 kB\nVmRSS:\t      16 kB\nThreads:\t9\n";
        let limits =
            "Limit    Soft Limit  Hard Limit  Units\nMax open files   1024   4096  files\n";
        let process = Process::parse(status, limits);
        assert_eq!(
            process,
            Process {
                resident_bytes: Some(16 << 10),
                virtual_bytes: Some(2 << 20),
                threads: Some(9),
                files: None,
                files_max: Some(1024),
            }
        );
    }

    #[test]
    fn what_is_not_told_is_left_out() {
        assert_eq!(
            Process::parse("", "Max open files unlimited"),
            Process::default()
        );
    }
}
