//! `cairn profile`: what a mount is doing right now, by operation and by process.
//!
//! Out of band: the mount is found in the kernel's list of mounts and asked over its socket ([`ask`]);
//! it is never touched, so this works while every use of the mount hangs.

mod ask;
mod view;

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;
use ratatui::crossterm::{cursor, execute, terminal};
use schemars::JsonSchema;
use serde::Serialize;

use self::ask::Target;
use super::{
    failure::Failure,
    local_path,
    output::{self, JSON_VERSION},
};
use crate::{
    activity::report::{OperationReport, ProcessReport, Report},
    fuse::mount_table::{self, Mount},
};

/// Show what a mount is doing right now, by operation and by process
#[derive(Args, Debug)]
pub struct Profile {
    /// The mount, or a path in it; may be left out when there is only one
    #[arg(value_name = "MOUNT")]
    path: Option<PathBuf>,

    /// Show one interval and end
    #[arg(long)]
    once: bool,

    /// How many seconds to look at a time
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,

    /// Print JSON for programs, one line for each interval
    #[arg(long)]
    json: bool,
}

/// One interval of a mount's activity. `cairn profile --json`
#[derive(Serialize, JsonSchema)]
pub struct ProfileReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// Where the mount is.
    pub mount: String,
    /// Length of the interval.
    pub seconds: f64,
    /// Whether the mount is connected to its master.
    pub connected: bool,
    /// Kinds of operations that were done in the interval or are under way.
    pub operations: Vec<OperationProfile>,
    /// Processes whose operations these are, those that took the most time first. Only so many are
    /// remembered.
    pub processes: Vec<ProcessProfile>,
}

/// Operations of one kind.
#[derive(Serialize, JsonSchema)]
pub struct OperationProfile {
    /// Name of the system call.
    pub operation: String,
    /// Operations done in the interval.
    pub done: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Operations per second.
    pub per_second: f64,
    /// Mean time of an operation in microseconds.
    pub mean_us: Option<u64>,
    /// Time within which 99 of 100 were done, estimated, in microseconds.
    pub p99_us: Option<u64>,
    /// Time of the slowest in microseconds, of the interval rounded up to whole seconds.
    pub slowest_us: Option<u64>,
    /// Bytes moved per second.
    pub bytes_per_second: f64,
    /// Operations under way now.
    pub in_flight: u64,
    /// Age of the oldest of these in microseconds.
    pub oldest_us: Option<u64>,
}

/// Operations of one process.
#[derive(Serialize, JsonSchema)]
pub struct ProcessProfile {
    /// Its number; 0 is the kernel itself.
    pub pid: u32,
    /// Its name; `(ended)` when it is not there any more.
    pub name: String,
    /// Operations done in the interval.
    pub done: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Operations per second.
    pub per_second: f64,
    /// Bytes moved per second.
    pub bytes_per_second: f64,
    /// Time that the operations took together, in microseconds.
    pub busy_us: u64,
    /// The slowest operation of the interval, rounded up to whole seconds.
    pub slowest: Option<TimedOperation>,
    /// Operations under way now.
    pub in_flight: u64,
    /// The oldest of these.
    pub waiting: Option<TimedOperation>,
}

/// An operation and how long it took, or takes so far.
#[derive(Serialize, JsonSchema)]
pub struct TimedOperation {
    /// Name of the system call.
    pub operation: String,
    /// Microseconds.
    pub us: u64,
}

impl Profile {
    /// # Errors
    /// When there is no such mount, or it does not answer.
    pub fn run(&self) -> Result<bool, Failure> {
        let mount = self.mount()?;
        let target = Target::new(&mount)?;
        let live = !self.once && !self.json && io::stdout().is_terminal();
        let mut before = target.ask(self.interval)?;
        loop {
            thread::sleep(Duration::from_secs(self.interval));
            let now = target.ask(self.interval)?;
            let report = compare(&mount, &before, now.clone());
            before = now;
            if live {
                clear().map_err(output::unwritable)?;
            }
            match (self.json, self.once) {
                (true, true) => output::json(&report)?,
                (true, false) => println!("{}", line(&report)),
                (false, _) => view::print(&report, live),
            }
            if self.once {
                return Ok(true);
            }
        }
    }

    fn mount(&self) -> Result<Mount, Failure> {
        if let Some(path) = &self.path {
            return local_path::mount_of(path).filter(Mount::is_cairn).ok_or_else(|| {
                let shown = path.display();
                Failure::new(format!("{shown} is in no mount of Cairn; {}", known(&mounts())))
            });
        }
        let mut all = mounts();
        match all.len() {
            1 => Ok(all.remove(0)),
            0 => Err(Failure::new("no store is mounted here: cairn mount DIR")),
            _ => Err(Failure::new(format!("say which mount; {}", known(&all)))),
        }
    }
}

fn mounts() -> Vec<Mount> {
    mount_table::all().into_iter().filter(Mount::is_cairn).collect()
}

fn known(mounts: &[Mount]) -> String {
    let shown: Vec<_> = mounts.iter().map(|mount| mount.at.display().to_string()).collect();
    match shown.as_slice() {
        [] => "nothing is mounted: cairn mount DIR".to_owned(),
        shown => format!("mounted are: {}", shown.join(", ")),
    }
}

fn line(report: &ProfileReport) -> String {
    serde_json::to_string(report).expect("numbers and strings are JSON")
}

/// The next lines begin at the top of an empty terminal.
fn clear() -> io::Result<()> {
    execute!(io::stdout(), cursor::MoveTo(0, 0), terminal::Clear(terminal::ClearType::All))
}

/// What happened between two reports of a mount.
fn compare(mount: &Mount, before: &Report, now: Report) -> ProfileReport {
    let seconds = (now.age - before.age).max(0.001);
    let rate = |n: u64| n as f64 / seconds;
    let operations = now.operations.into_iter().filter_map(|operation| {
        let same = |o: &&OperationReport| o.operation == operation.operation;
        let earlier = before.operations.iter().find(same).cloned().unwrap_or_default();
        let done = operation.done.since(&earlier.done);
        let micros = |time: Option<Duration>| time.map(|t| t.as_micros() as u64);
        let count = done.count();
        (count > 0 || operation.in_flight > 0).then(|| OperationProfile {
            done: count,
            failed: operation.failed.saturating_sub(earlier.failed),
            per_second: rate(count),
            mean_us: micros(done.mean()),
            // An estimate within a bucket; it is not slower than the slowest.
            p99_us: micros(done.quantile(0.99))
                .map(|us| us.min(operation.slowest_us.unwrap_or(us))),
            slowest_us: operation.slowest_us.filter(|_| count > 0),
            bytes_per_second: rate(operation.bytes.saturating_sub(earlier.bytes)),
            in_flight: operation.in_flight,
            oldest_us: operation.oldest_us,
            operation: operation.operation,
        })
    });
    let mut processes: Vec<_> = now
        .processes
        .into_iter()
        .filter_map(|process| {
            let same = |p: &&ProcessReport| p.pid == process.pid;
            let earlier = before.processes.iter().find(same).cloned().unwrap_or_default();
            let done = process.done.saturating_sub(earlier.done);
            let timed = |t: crate::activity::report::Timed| TimedOperation {
                operation: t.operation,
                us: t.us,
            };
            (done > 0 || process.in_flight > 0).then(|| ProcessProfile {
                pid: process.pid,
                name: process.name,
                done,
                failed: process.failed.saturating_sub(earlier.failed),
                per_second: rate(done),
                bytes_per_second: rate(process.bytes.saturating_sub(earlier.bytes)),
                busy_us: process.nanos.saturating_sub(earlier.nanos) / 1000,
                slowest: process.slowest.filter(|_| done > 0).map(timed),
                in_flight: process.in_flight,
                waiting: process.waiting.map(timed),
            })
        })
        .collect();
    let time = |p: &ProcessProfile| p.busy_us.max(p.waiting.as_ref().map_or(0, |w| w.us));
    processes.sort_by_key(|process| std::cmp::Reverse(time(process)));
    ProfileReport {
        version: JSON_VERSION,
        mount: mount.at.display().to_string(),
        seconds,
        connected: now.connected,
        operations: operations.collect(),
        processes,
    }
}

/// For messages: the mount as people know it.
fn shown(at: &Path) -> String {
    at.display().to_string()
}

#[cfg(test)]
mod tests;
