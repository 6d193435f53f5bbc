//! CPU time and memory of processes of this machine, from `/proc`, and the limit of open files of our own.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::results::{Machine, ProcessUse};

/// The unit of the times in `/proc/PID/stat`: fixed at 100 a second for programs (proc(5)).
const TICKS_PER_S: f64 = 100.0;
/// Beside the sockets of the clients: signalling, epolls, the rest of the process.
const OTHER_FILES: u64 = 200;

/// What some processes have used up to a moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Used {
    at: Instant,
    pub(super) user_s: f64,
    pub(super) system_s: f64,
    pub(super) rss_mib: f64,
    pub(super) threads: u32,
}

impl Used {
    /// `None` when one of them is not there, or none was named.
    pub(super) fn read(pids: &[u32]) -> Option<Self> {
        let mut sum = Self { at: Instant::now(), user_s: 0.0, system_s: 0.0, rss_mib: 0.0, threads: 0 };
        for pid in pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let (user, system) = parse_stat(&stat)?;
            sum.user_s += user;
            sum.system_s += system;
            sum.rss_mib += status_number(&status, "VmRSS:")? / 1024.0;
            sum.threads += status_number(&status, "Threads:")? as u32;
        }
        (!pids.is_empty()).then_some(sum)
    }

    pub(super) fn own() -> Option<Self> {
        Self::read(&[std::process::id()])
    }

    pub(super) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// Between two moments.
    pub(super) fn until(&self, end: &Self, rss_max_mib: f64, pids: &[u32]) -> ProcessUse {
        let seconds = end.at.saturating_duration_since(self.at).as_secs_f64();
        let (cpu_user_s, cpu_system_s) = (end.user_s - self.user_s, end.system_s - self.system_s);
        ProcessUse {
            pids: pids.to_vec(),
            cpu_user_s,
            cpu_system_s,
            cores_used: if seconds > 0.0 { (cpu_user_s + cpu_system_s) / seconds } else { 0.0 },
            rss_start_mib: self.rss_mib,
            rss_end_mib: end.rss_mib,
            rss_max_mib: rss_max_mib.max(self.rss_mib).max(end.rss_mib),
            threads: end.threads,
        }
    }
}

/// User and system time. The name in brackets may hold anything, brackets too.
fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_S);
    Some((seconds()?, seconds()?))
}

fn status_number(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Makes room for as many sockets, as far as the hard limit goes; else says how many there may be.
pub(super) fn allow_files(sockets: u64) -> Result<(), u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = sockets + OTHER_FILES;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    if raised.is_ok() && current >= wanted {
        return Ok(());
    }
    Err(current.saturating_sub(OTHER_FILES))
}

pub(super) fn machine() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let cpu = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        cpu: cpu.unwrap_or_default(),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(parse_stat(stat), Some((2.5, 0.5)));
        assert_eq!(parse_stat("12 (x) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_foreign_one_is_not_there() {
        let used = Used::own().expect("we are running");
        assert!(used.rss_mib > 1.0 && used.threads >= 1);
        assert_eq!(Used::read(&[]), None);
        assert_eq!(Used::read(&[u32::MAX]), None);
    }
}
