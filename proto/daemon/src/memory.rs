//! Memory of a process. [`give_back`]: what it needed once goes back to the system when it rests.
//! [`keep_freed`]: until then it is there for what comes next. [`one_heap`]: what one thread frees is there for all
//! others.
//!
//! The allocator keeps what was freed, because asking the system for it again is slow. That is right while
//! there is work; a daemon that has nothing to do should not sit on the peak of last night.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use crate::usage::Usage;

const LOOK: Duration = Duration::from_secs(15);
/// A process rests when it has used less than this of a processor between two looks: heartbeats and the
/// like are below.
const RESTING: Duration = Duration::from_millis(300);
/// So many looks in a row.
const LOOKS: u32 = 4;

/// Looks again and again; never ends. May be dropped at any time.
pub async fn give_back() -> Infallible {
    let mut rest = Rest::default();
    loop {
        sleep(LOOK).await;
        if rest.begins(Duration::from_millis(Usage::now().cpu_ms)) {
            // It takes the allocator's locks for some milliseconds.
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    }
}

/// glibc gives memory of freed MiB-sized buffers back to the kernel at once and faults it in again
/// for the next; keeping it is worth up to a factor of two. Call once, first thing in `main`.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator; the values are within its documented range.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * 1024 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 * 1024 * 1024);
    }
}

/// Has all threads allocate from one heap. Otherwise each has its own, and each of those keeps its peak:
/// measured in a mount whose buffers hold at most 300 MiB, filled by some threads and freed by others, 430 MiB
/// instead of 300, at the same speed. To be called before other threads are there.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim gives free memory back to the system; it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[derive(Debug, Default)]
struct Rest {
    used: Duration,
    quiet: u32,
}

impl Rest {
    /// Whether the process has begun to rest, now that it has used `used` in all. Once for each rest.
    fn begins(&mut self, used: Duration) -> bool {
        let resting = used.saturating_sub(self.used) < RESTING;
        self.used = used;
        self.quiet = if resting { self.quiet.saturating_add(1) } else { 0 };
        self.quiet == LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_begins_once_after_the_last_work() {
        let mut rest = Rest::default();
        let millis = [5000, 5001, 5100, 5399, 5400, 5401, 6000, 6001, 6001, 6001, 6001, 6001];
        let begins: Vec<_> = millis.map(|ms| rest.begins(Duration::from_millis(ms))).to_vec();
        let when: Vec<_> = (0..begins.len()).filter(|n| begins[*n]).collect();
        assert_eq!(when, [4, 10]);
    }
}
