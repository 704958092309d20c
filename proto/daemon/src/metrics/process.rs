//! The metrics that every program has, under the names that Prometheus' own libraries give them.

use std::{fs, sync::OnceLock};

use super::registry::Registry;
use crate::usage::Usage;

/// Adds them.
pub(super) fn register(registry: &mut Registry) {
    registry.counter(
        "process_cpu_seconds",
        "User and system processor time of this process",
        || Usage::now().cpu_ms as f64 / 1000.0,
    );
    registry.gauge(
        "process_resident_memory_bytes",
        "Memory of this process that is in RAM",
        || Usage::now().resident_bytes,
    );
    registry.gauge("process_open_fds", "Open file descriptors of this process", open_files);
    registry.gauge("process_max_fds", "File descriptors that this process may open", || {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current.unwrap_or(u64::MAX)
    });
    let started = OnceLock::new();
    registry.gauge(
        "process_start_time_seconds",
        "When this process started, in seconds since 1970",
        move || *started.get_or_init(start_time),
    );
}

fn open_files() -> usize {
    // The one that lists them is among them.
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1))
}

fn start_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    boot_time(&boot) + ticks_at_start(&stat) / ticks as f64
}

/// Seconds since 1970 in `/proc/stat`.
fn boot_time(stat: &str) -> f64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0)
}

/// The 22nd field of a line of `/proc/PID/stat`. The second, the program's name in parentheses, may
/// hold blanks.
fn ticks_at_start(stat: &str) -> f64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_started_a_moment_ago_and_has_files_open() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_time();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(open_files() >= 3);
        assert_eq!(boot_time("cpu 1 2\nbtime 17\n"), 17.0);
    }
}
