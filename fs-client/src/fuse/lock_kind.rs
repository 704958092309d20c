//! Whether a lock request is one of flock(2) or of fcntl(2).
//!
//! The kernel says so in a flag that fuser 0.18 does not pass on, and the two must not meet: a program
//! that takes both on one file would wait for itself. But flock(2) always means the whole file, and the
//! caller waits for our answer within its system call, whose number `/proc/TID/syscall` shows. Reading
//! it needs the right to trace the caller; without it a lock counts as one of fcntl(2), as NFS has it.
//! The lock that reading takes is held for writing by exec(2) only, which has ended all other threads
//! by then. See docs/adr/0007-flock-through-proc-syscall.md.

use std::{fs, io, time::Duration};

use cairn_proto::lock_ranges::LAST_BYTE;
use tokio::{task::spawn_blocking, time::sleep};

use crate::vfs::LockSpace;

/// A caller that has sent its request and not gone to sleep yet is looked at again, so many times.
const LOOKS: u32 = 200;
const BETWEEN: Duration = Duration::from_micros(500);

/// flock(2) for programs of 32 bits on a kernel of 64: the same number on x86 and on ARM.
const FLOCK_32: i64 = 143;

/// Of which kind the lock is that thread `tid` asks for.
pub(super) async fn space_of(tid: u32, start: u64, end: u64) -> LockSpace {
    if start != 0 || end < LAST_BYTE || tid == 0 {
        return LockSpace::Posix;
    }
    for _ in 0..LOOKS {
        let text = spawn_blocking(move || fs::read_to_string(format!("/proc/{tid}/syscall"))).await;
        match text.map_err(io::Error::other).and_then(|text| text) {
            Ok(text) if text.starts_with("running") => sleep(BETWEEN).await,
            Ok(text) if is_flock(&text) => return LockSpace::Flock,
            Ok(_) => return LockSpace::Posix,
            Err(error) => {
                tracing::debug!(tid, %error, "flock(2) cannot be told from fcntl(2)");
                return LockSpace::Posix;
            }
        }
    }
    LockSpace::Posix
}

/// The first word is the number of the system call.
fn is_flock(syscall: &str) -> bool {
    let number = syscall.split_whitespace().next().and_then(|word| word.parse::<i64>().ok());
    number.is_some_and(|number| number == libc::SYS_flock || number == FLOCK_32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_says_which_call_it_is() {
        let flock = libc::SYS_flock;
        assert!(is_flock(&format!("{flock} 0x3 0x2 0x0 0x0 0x0 0x0 0x7ffd 0x7f12")));
        assert!(!is_flock(&format!("{} 0x3 0x7 0x7ffd", libc::SYS_fcntl)));
        assert!(!is_flock("-1 0x7ffd 0x7f12"));
        assert!(!is_flock("running"));
        assert!(!is_flock(""));
    }

    #[tokio::test]
    async fn parts_of_files_are_never_flock() {
        assert_eq!(space_of(1, 0, 10).await, LockSpace::Posix);
        assert_eq!(space_of(1, 1, LAST_BYTE).await, LockSpace::Posix);
    }

    #[tokio::test]
    async fn who_is_not_in_flock_is_not_taken_for_it() {
        assert_eq!(space_of(std::process::id(), 0, LAST_BYTE).await, LockSpace::Posix);
    }
}
