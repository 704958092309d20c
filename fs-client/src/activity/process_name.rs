//! [`ProcessName`]: to which process a thread belongs and what it is called.
//!
//! A caller waits for us, so nothing is read of it that could wait for the caller: of `/proc/PID` only
//! `status`, which takes no lock that it holds. And never while an operation is carried out: only when
//! somebody asks for a report.

use std::{
    fs,
    time::{Duration, Instant},
};

/// A name is believed for this long; a number may be given to another process afterwards.
const BELIEVED: Duration = Duration::from_secs(10);

/// What a thread said about itself.
#[derive(Clone, Debug)]
pub(super) struct ProcessName {
    /// The process.
    pub(super) pid: u32,
    /// Its name.
    pub(super) name: String,
    read: Instant,
}

impl ProcessName {
    /// Of thread `tid`; `None` when it has ended.
    pub(super) fn read(tid: u32) -> Option<Self> {
        let status = |id: u32| fs::read_to_string(format!("/proc/{id}/status")).ok();
        let thread = status(tid)?;
        let pid = field(&thread, "Tgid:").and_then(|pid| pid.parse().ok()).unwrap_or(tid);
        let process = if pid == tid { None } else { status(pid) };
        let name = field(process.as_deref().unwrap_or(&thread), "Name:")?.to_owned();
        Some(Self { pid, name, read: Instant::now() })
    }

    pub(super) fn is_old(&self) -> bool {
        self.read.elapsed() > BELIEVED
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let here = std::process::id();
        let thread = std::thread::spawn(|| {
            let link = fs::read_link("/proc/thread-self").unwrap();
            let tid: u32 = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (tid, ProcessName::read(tid).unwrap())
        });
        let (tid, name) = thread.join().unwrap();
        assert_ne!(tid, here);
        assert_eq!((name.pid, name.is_old()), (here, false));
        assert_eq!(name.name, ProcessName::read(here).unwrap().name);
        assert_eq!(field("Name:\ta b\nTgid:\t7\n", "Tgid:"), Some("7"));
    }
}
