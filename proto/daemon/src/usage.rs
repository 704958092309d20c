//! [`Usage`]: processor time and memory of this process, read from `/proc/self`.

use std::fs;

/// What a process takes of its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since the process started, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes in memory.
    pub resident_bytes: u64,
}

impl Usage {
    /// This process, now. Numbers that the system does not tell are 0.
    pub fn now() -> Self {
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let page = rustix::param::page_size() as u64;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        Self {
            cpu_ms: cpu_ticks(&stat).saturating_mul(1000) / ticks,
            resident_bytes: field(&statm, 1).saturating_mul(page),
        }
    }
}

/// `utime` and `stime` of a line of `/proc/PID/stat`: the 14th and 15th field. The second, the
/// program's name in parentheses, may hold blanks.
fn cpu_ticks(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    field(rest, 11) + field(rest, 12)
}

fn field(line: &str, position: usize) -> u64 {
    line.split_ascii_whitespace().nth(position).and_then(|f| f.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_no_obstacle() {
        let line = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100";
        assert_eq!(cpu_ticks(line), 12);
        assert_eq!(cpu_ticks(""), 0);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        let mut sum = 0_u64;
        while Usage::now().cpu_ms == usage.cpu_ms {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
