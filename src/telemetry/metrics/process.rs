//! Figures of this process, read from `/proc` when somebody asks.
//!
//! Only files of constant size are read: walking `/proc/self/fd` with ten thousand sockets open
//! costs milliseconds, and is done only on kernels before 6.2, which do not give its size.
//!
//! Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>

use std::fs;

/// What `/proc` says; `None` where it cannot be read (another system, a restricted container).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    /// User and system time, in nanoseconds.
    pub(super) cpu_nanos: Option<u128>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        Self {
            resident_bytes: status_number(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: status_number(&status, "Threads:"),
            open_fds: open_fds(),
            max_fds: max_fds(&text("/proc/self/limits")),
            cpu_nanos: cpu_nanos(&text("/proc/self/stat")),
        }
    }
}

fn status_number(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        size => Some(size),
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The unit of the times in `/proc/self/stat`: Linux fixes `USER_HZ` at 100 for user space.
const NANOS_PER_TICK: u128 = 10_000_000;

fn cpu_nanos(stat: &str) -> Option<u128> {
    // The second field is the program's name in parentheses and may hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11).map(str::parse::<u128>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + system) * NANOS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_program_name() {
        let stat = "7 (a) R 1 (b)) S 1 7 7 0 -1 4194304 98 0 0 0 250 50 9 9 20 0 3 0 136733 1 2 3";
        assert_eq!(cpu_nanos(stat), Some(3_000_000_000));
        assert_eq!(cpu_nanos("7 (cut) S 1"), None);
        assert_eq!(cpu_nanos(""), None);
    }

    #[test]
    fn limits_and_status_are_read_by_name() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files    1024    4096   files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files  unlimited  unlimited files\n"), None);
        assert_eq!(status_number("Name:\tx\nVmRSS:\t    1952 kB\n", "VmRSS:"), Some(1952));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_threads_and_file_descriptors() {
        let before = Process::read();
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let with_files = Process::read();
        drop(held);
        assert!(before.resident_bytes.unwrap() > 100 * 1024);
        assert!(before.threads.unwrap() >= 1);
        assert!(before.cpu_nanos.is_some());
        // Other tests of this process open and close some too.
        assert!(with_files.open_fds.unwrap() >= 50);
        assert!(with_files.max_fds.unwrap() > with_files.open_fds.unwrap());
    }
}
