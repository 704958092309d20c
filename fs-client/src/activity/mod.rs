//! [`Activity`]: what a mount is asked to do: by operation since the start, by process, and right now.
//!
//! The FUSE edge begins an operation here and ends it; the metrics page and [`report`] read. Recording
//! takes a few additions and one short lock; no text is made and nothing is read of a caller, which
//! waits for us. Bounded: the kinds of operations are fixed, of processes only the [`PROCESSES`] that
//! were active last are remembered, and what is under way has a task that is larger than its entry
//! here.

mod operation;
mod peaks;
mod process_name;
pub mod report;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cairn_daemon::metrics::Latency;
use lru::LruCache;

pub use self::operation::Operation;
use self::{peaks::Peaks, process_name::ProcessName};

/// Processes that are remembered.
const PROCESSES: NonZeroUsize = NonZeroUsize::new(256).expect("is not 0");

/// Operations of one kind since the start.
#[derive(Debug, Default)]
pub struct Kind {
    /// How many, and how long each took; those that failed included.
    pub done: Latency,
    /// How many were answered with an error.
    pub failed: AtomicU64,
    /// Bytes that they moved for applications.
    pub bytes: AtomicU64,
    /// How many are under way.
    pub in_flight: AtomicU64,
}

/// An operation that is under way.
#[derive(Clone, Copy, Debug)]
struct Flying {
    operation: Operation,
    pid: u32,
    since: Instant,
}

/// A thread of a caller; [`report`] adds up those of one process.
#[derive(Debug, Default)]
struct Caller {
    done: u64,
    failed: u64,
    bytes: u64,
    nanos: u64,
    peaks: Peaks,
    name: Option<ProcessName>,
}

#[derive(Debug)]
struct Table {
    flying: BTreeMap<u64, Flying>,
    tickets: u64,
    callers: LruCache<u32, Caller>,
    peaks: Vec<Peaks>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Activity {
    started: Instant,
    kinds: [Kind; Operation::COUNT],
    table: Mutex<Table>,
}

impl Default for Activity {
    fn default() -> Self {
        let table = Table {
            flying: BTreeMap::new(),
            tickets: 0,
            callers: LruCache::new(PROCESSES),
            peaks: vec![Peaks::default(); Operation::COUNT],
        };
        Self {
            started: Instant::now(),
            kinds: std::array::from_fn(|_| Kind::default()),
            table: Mutex::new(table),
        }
    }
}

impl Activity {
    /// `operation` of thread `pid` (0: the kernel itself) begins and may take a while.
    pub fn begin(self: &Arc<Self>, operation: Operation, pid: u32) -> Underway {
        let flying = Flying { operation, pid, since: Instant::now() };
        self.kind(operation).in_flight.fetch_add(1, Relaxed);
        let mut table = self.lock();
        table.tickets += 1;
        let ticket = table.tickets;
        table.flying.insert(ticket, flying);
        drop(table);
        Underway { activity: Arc::clone(self), ticket, flying, outcome: None }
    }

    /// An operation that began at `since` and was answered at once; `Some` with the bytes moved when
    /// it succeeded.
    pub fn done(&self, operation: Operation, pid: u32, since: Instant, outcome: Option<u64>) {
        let flying = Flying { operation, pid, since };
        self.finish(&flying, outcome, &mut self.lock());
    }

    fn finish(&self, flying: &Flying, outcome: Option<u64>, table: &mut Table) {
        let took = flying.since.elapsed();
        let second = self.second();
        let kind = self.kind(flying.operation);
        kind.done.record(took);
        let bytes = outcome.unwrap_or(0);
        kind.bytes.fetch_add(bytes, Relaxed);
        let failed = u64::from(outcome.is_none());
        kind.failed.fetch_add(failed, Relaxed);
        table.peaks[flying.operation.index()].note(second, took, flying.operation);
        let caller = table.callers.get_or_insert_mut(flying.pid, Caller::default);
        caller.done += 1;
        caller.failed += failed;
        caller.bytes += bytes;
        caller.nanos += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        caller.peaks.note(second, took, flying.operation);
    }

    /// How many operations are under way.
    pub fn underway(&self) -> usize {
        self.lock().flying.len()
    }

    /// Every kind of operation.
    pub fn kinds(&self) -> impl Iterator<Item = (Operation, &Kind)> {
        Operation::ALL.into_iter().zip(&self.kinds)
    }

    /// The operations of one kind.
    pub fn kind(&self, operation: Operation) -> &Kind {
        &self.kinds[operation.index()]
    }

    /// Seconds since the start.
    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn age(&self) -> Duration {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation that is under way, until it is dropped.
#[derive(Debug)]
pub struct Underway {
    activity: Arc<Activity>,
    ticket: u64,
    flying: Flying,
    /// With [`Underway::end`]: the bytes, when it succeeded.
    outcome: Option<Option<u64>>,
}

impl Underway {
    /// It is about to be answered: `Some` with the bytes moved when it succeeded.
    pub fn end(mut self, outcome: Option<u64>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut table = self.activity.lock();
        table.flying.remove(&self.ticket);
        if let Some(outcome) = self.outcome {
            self.activity.finish(&self.flying, outcome, &mut table);
        }
        drop(table);
        self.activity.kind(self.flying.operation).in_flight.fetch_sub(1, Relaxed);
    }
}
