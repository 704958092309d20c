//! How long an operation may take, and when its caller no longer wants it.
//!
//! A program that handles Ctrl+C goes on after the interrupted call: it closes its files and ends. The
//! signal is no longer pending then, so it is remembered for [`AFTERWARDS`] who was interrupted: a close
//! by such a process does not wait either. Bytes that were written are still written back.
//!
//! What is read of a caller must not wait for it: it waits for us. Of the files in `/proc/PID`, `status`
//! takes no lock that a caller holds; `stat` and others take the one that exec(2) holds while it closes
//! files, and `cmdline` the one that munmap(2) holds while it writes pages back.

use std::{
    collections::HashMap,
    fs,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cairn_proto::FsError;
use tokio::time::timeout;

/// How often a waiting operation looks whether its caller was told to stop.
const STEP: Duration = Duration::from_millis(250);

/// Signals with which people and shells end programs, also those that handle them.
const STOPPING: u64 =
    bit(libc::SIGINT) | bit(libc::SIGTERM) | bit(libc::SIGQUIT) | bit(libc::SIGHUP);
/// Signals that stop a program without ending it.
const PAUSING: u64 =
    bit(libc::SIGSTOP) | bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);

/// How long the closes of a process that was interrupted are not waited for.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// Processes remembered at most.
const REMEMBERED: usize = 1024;

/// Which threads were interrupted, and when.
#[derive(Debug, Default)]
pub struct Interruptions(Mutex<HashMap<u32, Instant>>);

impl Interruptions {
    fn note(&self, pid: u32) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= REMEMBERED {
            table.retain(|_, when| when.elapsed() < AFTERWARDS);
        }
        if table.len() < REMEMBERED {
            table.insert(pid, Instant::now());
        }
    }

    fn is_recent(&self, pid: u32) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&pid).is_some_and(|when| when.elapsed() < AFTERWARDS)
    }
}

/// The result of `work`, within `limit` and while process `pid` wants it; `closing`: it is a close.
///
/// # Errors
/// `TimedOut`, `Interrupted`; `work` is dropped then.
pub async fn within<T>(
    interruptions: &Interruptions,
    pid: u32,
    closing: bool,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, FsError> {
    let started = Instant::now();
    let mut work = pin!(work);
    loop {
        if let Ok(value) = timeout(STEP, &mut work).await {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            return Err(FsError::TimedOut);
        }
        let told = told_to_stop(pid).await;
        if told {
            interruptions.note(pid);
        }
        if told || closing && interruptions.is_recent(pid) {
            return Err(FsError::Interrupted);
        }
    }
}

/// Whether process `pid` has been told to end. Read on a thread that may wait, all the same.
async fn told_to_stop(pid: u32) -> bool {
    if pid == 0 {
        return false;
    }
    status_of(pid).await.is_some_and(|status| stops(&status))
}

async fn status_of(pid: u32) -> Option<String> {
    let status =
        tokio::task::spawn_blocking(move || fs::read_to_string(format!("/proc/{pid}/status")));
    timeout(STEP, status).await.ok()?.ok()?.ok()
}

/// How soon a signal ends the wait for a lock: at first, and after a while.
const SIGNAL_STEPS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(80));
/// A signal for a process is taken by one of its threads, which may be another than the one that waits
/// here. If it is not taken for so many looks, it is this one's.
const UNTAKEN: u32 = 4;

/// Watches for a signal that a thread would act on if it were not waiting for us.
#[derive(Debug)]
pub struct Signals {
    tid: u32,
    step: Duration,
    untaken: u32,
}

impl Signals {
    /// Watches thread `tid`.
    pub fn of(tid: u32) -> Self {
        Self { tid, step: SIGNAL_STEPS.0, untaken: 0 }
    }

    /// Returns when there is one. Dropping it in between loses nothing.
    pub async fn next(&mut self) {
        loop {
            tokio::time::sleep(self.step).await;
            self.step = (self.step * 2).min(SIGNAL_STEPS.1);
            let Some(status) = status_of(self.tid).await else { continue };
            match signalled(&status) {
                Signalled::No => self.untaken = 0,
                Signalled::Process if self.untaken < UNTAKEN => self.untaken += 1,
                Signalled::Process | Signalled::Thread => return,
            }
        }
    }
}

/// Who a signal is for that is not taken yet.
#[derive(Debug, PartialEq, Eq)]
enum Signalled {
    No,
    /// Any thread of its process.
    Process,
    /// The thread itself, or the first one of its process, which takes what it can.
    Thread,
}

fn signalled(status: &str) -> Signalled {
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u32>().ok())
    };
    let deaf = mask(status, "SigBlk:") | mask(status, "SigIgn:");
    // What is ignored by default and has no handler is dropped by the kernel when it is sent.
    if mask(status, "SigPnd:") & !deaf != 0 {
        return Signalled::Thread;
    }
    if mask(status, "ShdPnd:") & !deaf == 0 {
        return Signalled::No;
    }
    let first = number("Tgid:").is_some() && number("Tgid:") == number("Pid:");
    if first { Signalled::Thread } else { Signalled::Process }
}

/// Whether a process with this `/proc/PID/status` has been told to end.
fn stops(status: &str) -> bool {
    let pending = mask(status, "SigPnd:") | mask(status, "ShdPnd:");
    let deliverable = pending & !mask(status, "SigBlk:") & !mask(status, "SigIgn:");
    let deadly = deliverable & !mask(status, "SigCgt:") & !PAUSING;
    (deadly | deliverable & STOPPING) != 0
}

/// The signals in the line that begins with `name`.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tcat\nSigQ:\t0/95\nSigPnd:\t{:016x}\nShdPnd:\t{pending:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n",
            0
        )
    }

    #[test]
    fn only_signals_that_end_a_program_stop_it() {
        let (int, kill, alarm) = (bit(libc::SIGINT), bit(libc::SIGKILL), bit(libc::SIGALRM));
        assert!(!stops(&status(0, 0, 0, 0)));
        assert!(stops(&status(kill, 0, 0, 0)));
        assert!(stops(&status(int, 0, 0, 0)));
        assert!(stops(&status(int, 0, 0, int)), "a handler for Ctrl+C wants to run");
        assert!(!stops(&status(int, int, 0, 0)), "blocked");
        assert!(!stops(&status(int, 0, int, 0)), "ignored");
        assert!(stops(&status(alarm, 0, 0, 0)), "deadly by default");
        assert!(!stops(&status(alarm, 0, 0, alarm)), "a timer's handler can wait");
        assert!(!stops(&status(bit(libc::SIGTSTP), 0, 0, 0)), "Ctrl+Z ends nothing");
        assert!(!stops("nonsense"));
    }

    #[test]
    fn any_signal_that_is_acted_on_ends_the_wait_for_a_lock() {
        let alarm = bit(libc::SIGALRM);
        let threads = |tgid: u32, status: String| format!("Tgid:\t{tgid}\nPid:\t7\n{status}");
        assert_eq!(signalled(&threads(7, status(0, 0, 0, alarm))), Signalled::No);
        assert_eq!(signalled(&threads(7, status(alarm, 0, 0, alarm))), Signalled::Thread);
        assert_eq!(signalled(&threads(5, status(alarm, 0, 0, alarm))), Signalled::Process);
        assert_eq!(signalled(&threads(7, status(alarm, alarm, 0, alarm))), Signalled::No);
        assert_eq!(signalled(&threads(7, status(alarm, 0, alarm, 0))), Signalled::No);
        let own = status(0, 0, 0, 0).replace("SigPnd:\t0000", "SigPnd:\t8000");
        assert_eq!(signalled(&threads(5, own)), Signalled::Thread);
        assert_eq!(signalled("nonsense"), Signalled::No);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_dropped() {
        let never = std::future::pending::<()>();
        let nobody = Interruptions::default();
        let limit = Duration::from_millis(1);
        assert_eq!(within(&nobody, 0, false, limit, never).await, Err(FsError::TimedOut));
        assert_eq!(within(&nobody, 0, false, limit, async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn who_was_interrupted_does_not_wait_at_close() {
        let interruptions = Interruptions::default();
        interruptions.note(7);
        let limit = Duration::from_secs(60);
        let never = std::future::pending::<()>();
        assert_eq!(within(&interruptions, 7, true, limit, never).await, Err(FsError::Interrupted));
        assert_eq!(within(&interruptions, 7, true, limit, async { 7 }).await, Ok(7));
    }
}
