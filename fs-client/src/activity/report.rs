//! [`Report`]: what a mount tells about its activity over its socket, and what `cairn profile` reads.
//!
//! Numbers grow since the start of the mount, so that anybody can take differences over any time;
//! "slowest" is that of the seconds asked for, "waiting" is now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use cairn_daemon::metrics::latency::Distribution;
use serde::{Deserialize, Serialize};

use super::{Activity, Flying, Operation, peaks::SECONDS, process_name::ProcessName};

/// What the kernel does for itself has no process: closing files, writing back.
const KERNEL: &str = "(kernel)";
/// The name of a process that ended before anybody asked for it.
pub const ENDED: &str = "(ended)";

/// See the head of this file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Age of the mount's daemon in seconds.
    pub age: f64,
    /// Whether it is connected to the master.
    pub connected: bool,
    /// By kind, those that never occurred left out.
    pub operations: Vec<OperationReport>,
    /// By process, the busiest of late; those whose name is `(ended)` are threads.
    pub processes: Vec<ProcessReport>,
}

/// Operations of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OperationReport {
    /// Its name.
    pub operation: String,
    /// How many were done, and how long they took.
    pub done: Distribution,
    /// How many of them failed.
    pub failed: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// The slowest of late, in microseconds.
    pub slowest_us: Option<u64>,
    /// How many are under way.
    pub in_flight: u64,
    /// For how long the oldest of these has been, in microseconds.
    pub oldest_us: Option<u64>,
}

/// Operations of one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its number; 0 is the kernel.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How many operations were done.
    pub done: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// How long they took together, in nanoseconds.
    pub nanos: u64,
    /// The slowest of late.
    pub slowest: Option<Timed>,
    /// How many are under way.
    pub in_flight: u64,
    /// The oldest of these.
    pub waiting: Option<Timed>,
}

/// An operation and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Its name.
    pub operation: String,
    /// How long it took, or takes so far, in microseconds.
    pub us: u64,
}

impl Timed {
    fn new(operation: Operation, time: Duration) -> Self {
        Self { operation: operation.name().to_owned(), us: micros(time) }
    }

    fn worse(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).max_by_key(|timed| timed.us)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Activity {
    /// Everything, with the slowest of the last `seconds`. Reads names of processes, so it may take a
    /// moment: not for the path of an operation.
    pub fn report(&self, connected: bool, seconds: u64) -> Report {
        self.learn_names();
        // The second that has just begun is one more.
        let span = seconds.clamp(1, SECONDS - 1) + 1;
        let flying: Vec<Flying> = self.lock().flying.values().copied().collect();
        Report {
            age: self.age().as_secs_f64(),
            connected,
            operations: self.operations(&flying, span),
            processes: self.processes(&flying, span),
        }
    }

    /// Reads the names that are not known, or not believed any more.
    fn learn_names(&self) {
        let mut wanted: Vec<u32> = {
            let table = self.lock();
            let unknown = table
                .callers
                .iter()
                .filter(|(_, caller)| caller.name.as_ref().is_none_or(ProcessName::is_old));
            let flying = table.flying.values().map(|f| f.pid);
            let flying = flying.filter(|pid| !table.callers.contains(pid));
            unknown.map(|(pid, _)| *pid).chain(flying).filter(|pid| *pid != 0).collect()
        };
        wanted.sort_unstable();
        wanted.dedup();
        for tid in wanted {
            let Some(name) = ProcessName::read(tid) else { continue };
            // Those that wait for their first operation are taken in, too: they want to be seen.
            let mut table = self.lock();
            table.callers.get_or_insert_mut(tid, Default::default).name = Some(name);
        }
    }

    fn operations(&self, flying: &[Flying], span: u64) -> Vec<OperationReport> {
        let (now, second) = (Instant::now(), self.second());
        let table = self.lock();
        let report = |(operation, kind): (Operation, &super::Kind)| {
            let mut under_way = flying.iter().filter(|f| f.operation == operation);
            let oldest = under_way.clone().map(|f| f.since).min();
            let in_flight = under_way.by_ref().count() as u64;
            let done = kind.done.snapshot();
            let slowest = table.peaks[operation.index()].worst(second, span);
            (done.count() > 0 || in_flight > 0).then(|| OperationReport {
                operation: operation.name().to_owned(),
                done,
                failed: kind.failed.load(Relaxed),
                bytes: kind.bytes.load(Relaxed),
                slowest_us: slowest.map(|(_, took)| micros(took)),
                in_flight,
                oldest_us: oldest.map(|since| micros(now.saturating_duration_since(since))),
            })
        };
        self.kinds().filter_map(report).collect()
    }

    /// The threads of a process are added up.
    fn processes(&self, flying: &[Flying], span: u64) -> Vec<ProcessReport> {
        let (now, second) = (Instant::now(), self.second());
        let table = self.lock();
        let mut names = HashMap::new();
        let mut all: BTreeMap<u32, ProcessReport> = BTreeMap::new();
        for (tid, caller) in &table.callers {
            let (pid, name) = match &caller.name {
                Some(known) => (known.pid, known.name.as_str()),
                None if *tid == 0 => (0, KERNEL),
                None => (*tid, ENDED),
            };
            names.insert(*tid, pid);
            let process = all.entry(pid).or_default();
            process.pid = pid;
            name.clone_into(&mut process.name);
            process.done += caller.done;
            process.failed += caller.failed;
            process.bytes += caller.bytes;
            process.nanos += caller.nanos;
            let slowest = caller.peaks.worst(second, span);
            let slowest = slowest.map(|(operation, took)| Timed::new(operation, took));
            process.slowest = Timed::worse(process.slowest.take(), slowest);
        }
        for one in flying {
            let pid = names.get(&one.pid).copied().unwrap_or(one.pid);
            let process = all.entry(pid).or_insert_with(|| ProcessReport {
                pid,
                name: if pid == 0 { KERNEL } else { ENDED }.to_owned(),
                ..Default::default()
            });
            process.in_flight += 1;
            let age = now.saturating_duration_since(one.since);
            let waiting = Timed::new(one.operation, age);
            process.waiting = Timed::worse(process.waiting.take(), Some(waiting));
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_done_and_what_is_under_way_is_reported() {
        let activity = Arc::new(Activity::default());
        let pid = std::process::id();
        activity.begin(Operation::Read, pid).end(Some(4096));
        activity.begin(Operation::Read, pid).end(None);
        activity.done(Operation::Write, 0, Instant::now(), Some(10));
        drop(activity.begin(Operation::Open, pid));
        let waiting = activity.begin(Operation::Fsync, pid);
        let report = activity.report(true, 10);
        let names: Vec<_> = report.operations.iter().map(|o| o.operation.as_str()).collect();
        assert_eq!(names, ["read", "write", "fsync"]);
        let read = &report.operations[0];
        assert_eq!((read.done.count(), read.failed, read.bytes, read.in_flight), (2, 1, 4096, 0));
        assert!(read.slowest_us.is_some() && read.oldest_us.is_none());
        let fsync = &report.operations[2];
        assert_eq!((fsync.done.count(), fsync.in_flight), (0, 1));
        assert!(fsync.oldest_us.is_some() && fsync.slowest_us.is_none());
        assert_eq!(report.processes.len(), 2);
        assert_eq!((report.processes[0].pid, report.processes[0].name.as_str()), (0, KERNEL));
        let this = &report.processes[1];
        assert_eq!((this.pid, this.done, this.failed, this.bytes), (pid, 2, 1, 4096));
        assert_eq!(this.waiting.as_ref().map(|w| w.operation.as_str()), Some("fsync"));
        assert_eq!(this.in_flight, 1);
        drop(waiting);
        assert_eq!(activity.kind(Operation::Fsync).in_flight.load(Relaxed), 0);
        let text = serde_json::to_string(&activity.report(false, 1)).unwrap();
        let again: Report = serde_json::from_str(&text).unwrap();
        assert!(!again.connected && again.processes[1].in_flight == 0);
    }

    #[test]
    fn only_so_many_processes_are_remembered() {
        let activity = Activity::default();
        for pid in 0..10_000 {
            activity.done(Operation::Getattr, 1_000_000_000 + pid, Instant::now(), Some(0));
        }
        let report = activity.report(true, 10);
        assert_eq!(report.processes.len(), super::super::PROCESSES.get());
        assert_eq!(report.operations[0].done.count(), 10_000);
        assert!(report.processes.iter().all(|process| process.name == ENDED));
    }
}
