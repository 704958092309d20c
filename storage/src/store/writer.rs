//! The writer thread of a data directory: takes queued puts, appends them, syncs once for all that
//! were queued, publishes them in the index, answers.
//!
//! The order is the promise: append, sync, index, answer. So an answered put is durable, and the index
//! never names bytes that are not. Whoever puts a chunk that is already in the same group gets its
//! answer with the group. A failed sync ends the directory's life as a place for puts. Between jobs the
//! thread looks after the disk: one that was full is opened again here ([`Reopening`]).
//!
//! The queue is bounded by the bytes that callers may have in flight, and by [`QUEUE_LEN`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use cairn_proto::{ChunkError, ChunkId};
use tokio::sync::{mpsc, oneshot};

use super::{index::Entry, put::Put, reopen::Reopening, volume_state::VolumeState};
use crate::{
    capacity,
    failpoints::{
        self, AFTER_APPEND, AFTER_COPY, AFTER_HASH, AFTER_INDEX, AFTER_RELOCATE, AFTER_SYNC,
    },
    segment::{
        Location, SegmentId,
        format::record_len,
        writer::{Record, SegmentWriter},
    },
};

/// Most jobs that wait.
pub const QUEUE_LEN: usize = 4096;
/// A group is synced at the latest when it has this many bytes.
const GROUP_BYTES: u64 = 16 * 1024 * 1024;
/// The index is made durable after this many bytes: a start after power loss scans no more.
const INDEX_SYNC_BYTES: u64 = 1024 * 1024 * 1024;

/// Result of each chunk of a job, in order.
pub type Outcome = Vec<Result<Put, ChunkError>>;

/// A record that is to lie elsewhere.
pub struct Move {
    /// A copy of it.
    pub record: Record,
    /// Where it lies.
    pub from: Location,
}

/// What the thread does.
pub enum Job {
    /// Store verified chunks.
    Put {
        /// The chunks.
        records: Vec<Record>,
        /// Told when all of them are durable or have failed. Nobody may be listening any more.
        done: oneshot::Sender<Outcome>,
    },
    /// Copy records and let the index name the copies.
    Move {
        /// The records.
        moves: Vec<Move>,
        /// Told when the copies are durable and named.
        done: oneshot::Sender<Result<(), ChunkError>>,
    },
    /// Seal the newest segment and begin another.
    Roll {
        /// Told when that is so.
        done: oneshot::Sender<Result<(), ChunkError>>,
    },
}

/// Starts the thread. It ends when the queue's sender is gone and all jobs are done.
///
/// # Errors
/// When the system has no more threads.
pub fn spawn(
    state: Arc<VolumeState>,
    writer: SegmentWriter,
    jobs: mpsc::Receiver<Job>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("cairn-writer".into()).spawn(move || {
        let reopening = Reopening::new(Arc::clone(&state));
        let (unsynced_index, looked) = (0, Instant::now());
        Writer { state, writer, unsynced_index, reopening, looked }.run(jobs);
    })
}

/// Wakes a thread that waits for a job.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next job; `Pending` when none came within about `patience`.
fn receive(jobs: &mut mpsc::Receiver<Job>, patience: Duration) -> Poll<Option<Job>> {
    if let Ok(job) = jobs.try_recv() {
        return Poll::Ready(Some(job));
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let job = jobs.poll_recv(&mut context);
    if job.is_pending() {
        thread::park_timeout(patience);
        return jobs.poll_recv(&mut context);
    }
    job
}

struct Writer {
    state: Arc<VolumeState>,
    writer: SegmentWriter,
    unsynced_index: u64,
    reopening: Reopening,
    /// When the disk was looked after.
    looked: Instant,
}

/// What is written together and synced once.
#[derive(Default)]
struct Group {
    answers: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    entries: Vec<(ChunkId, Entry)>,
    /// What the group writes, each with the newest epoch of those who put it.
    ids: HashMap<ChunkId, u64>,
    marks: BTreeMap<SegmentId, u64>,
    bytes: u64,
    /// What is long reaches the disk when it is appended, the rest with the sync.
    writing: Duration,
    /// The disk was full when records of it were to be synced: all of it fails.
    lost: bool,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = self.next(&mut jobs) {
            let mut group = Group::default();
            let (mut next, mut chore) = (Some(first), None);
            while let Some(job) = next.take() {
                match job {
                    Job::Put { records, done } => self.append(records, done, &mut group),
                    other => chore = Some(other),
                }
                if group.bytes < GROUP_BYTES && chore.is_none() {
                    next = jobs.try_recv().ok();
                }
            }
            self.finish(group);
            let (done, result) = match chore {
                Some(Job::Move { moves, done }) => (done, self.relocate(moves)),
                Some(Job::Roll { done }) => (done, self.roll()),
                Some(Job::Put { .. }) | None => continue,
            };
            self.state.tell(&self.writer);
            // A caller that has gone away does not want to know.
            let _ = done.send(result);
        }
        self.end();
    }

    /// The next job; `None` when the node stops. Looks after the disk meanwhile.
    fn next(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        loop {
            if self.looked.elapsed() >= self.reopening.patience {
                if self.reopening.look(&mut self.writer) {
                    self.unsynced_index = 0;
                }
                self.looked = Instant::now();
            }
            if let Poll::Ready(job) = receive(jobs, self.reopening.patience) {
                return job;
            }
        }
    }

    fn end(mut self) {
        if self.state.has_failed() {
            return;
        }
        if let Err(e) = self.writer.seal() {
            tracing::warn!(disk = %self.state.name, "cannot cut the newest segment: {e}");
        }
        // The index of a full disk takes nothing.
        if !self.state.is_full()
            && let Ok(core) = self.state.core()
            && let Err(e) = core.index.sync()
        {
            tracing::warn!(disk = %self.state.name, "cannot sync the index: {e}");
        }
    }

    /// Whether anything may be written.
    fn check(&self) -> Result<(), ChunkError> {
        if self.state.has_failed() {
            return Err(ChunkError::DiskFailed);
        }
        if self.state.is_full() { Err(ChunkError::NoSpace) } else { Ok(()) }
    }

    /// Writes the chunks of a job that are not stored and not in the group.
    fn append(&mut self, records: Vec<Record>, done: oneshot::Sender<Outcome>, group: &mut Group) {
        failpoints::hit(AFTER_HASH);
        let mut outcome: Outcome = Vec::with_capacity(records.len());
        let ids: Vec<_> = records.iter().map(|r| r.id).collect();
        let mut fresh = Vec::new();
        for record in records {
            outcome.push(match self.is_new(&record, group) {
                Ok(true) => {
                    group.ids.insert(record.id, record.epoch);
                    fresh.push(record);
                    Ok(Put::Stored)
                }
                Ok(false) => Ok(Put::Known),
                Err(e) => Err(e),
            });
        }
        if let Err(e) = self.write(&fresh, group) {
            let failed: HashSet<_> = fresh.iter().map(|r| r.id).collect();
            group.ids.retain(|id, _| !failed.contains(id));
            // A chunk may be in the job twice: both depended on the write.
            for (outcome, id) in outcome.iter_mut().zip(&ids) {
                if failed.contains(id) {
                    *outcome = Err(e);
                }
            }
        }
        group.answers.push((done, outcome));
    }

    /// Whether the chunk has to be written. If not, it is stamped.
    fn is_new(&self, record: &Record, group: &mut Group) -> Result<bool, ChunkError> {
        let Record { id, epoch, .. } = record;
        self.check()?;
        self.state.learn(*epoch);
        if let Some(newest) = group.ids.get_mut(id) {
            *newest = (*newest).max(*epoch);
            return Ok(false);
        }
        // An older copy that is damaged is replaced: it is none.
        Ok(self.state.touch(id, *epoch)?.is_none())
    }

    fn write(&mut self, records: &[Record], group: &mut Group) -> Result<(), ChunkError> {
        if records.is_empty() {
            return Ok(());
        }
        if group.lost {
            return Err(ChunkError::NoSpace);
        }
        let started = Instant::now();
        let appended = self.append_records(records);
        group.writing += started.elapsed();
        let (places, bytes) = appended.inspect_err(|_| {
            // Nothing more for this group: the next append cuts off what it has written.
            group.lost |= self.writer.has_given_up();
        })?;
        failpoints::hit(AFTER_APPEND);
        for (record, at) in records.iter().zip(places) {
            group.entries.push((record.id, Entry::new(at, record.epoch)));
            group.marks.insert(at.segment, end_of(at));
        }
        group.bytes += bytes;
        Ok(())
    }

    /// Where the records lie, and their bytes.
    fn append_records(&mut self, records: &[Record]) -> Result<(Vec<Location>, u64), ChunkError> {
        let bytes = records
            .iter()
            .map(|r| record_len(u32::try_from(r.data.len()).unwrap_or(u32::MAX)))
            .sum::<u64>();
        let asked = self.state.space();
        let space = asked.map_err(|e| self.state.io_failed("ask for free space on", &e))?;
        if capacity::room(space, self.writer.reserved(), self.state.reserve) < bytes {
            return Err(ChunkError::NoSpace);
        }
        match self.writer.append(records) {
            Ok(places) => Ok((places, bytes)),
            Err(e) => Err(self.state.io_failed("write to", &e)),
        }
    }

    /// The order is that of puts: the index never names bytes that are not durable.
    fn relocate(&mut self, moves: Vec<Move>) -> Result<(), ChunkError> {
        self.check()?;
        let (records, from): (Vec<_>, Vec<_>) =
            moves.into_iter().map(|m| (m.record, m.from)).unzip();
        let (places, bytes) = self.append_records(&records)?;
        let state = &self.state;
        self.writer.sync().map_err(|e| state.io_failed("sync", &e))?;
        self.check()?;
        failpoints::hit(AFTER_COPY);
        let marks = places.iter().map(|at| (at.segment, end_of(*at))).collect();
        let ids = records.iter().map(|record| record.id);
        let moved: Vec<_> =
            ids.zip(from).zip(places).map(|((id, from), to)| (id, from, to)).collect();
        let named = state.core()?.index.relocate(&moved, &marks);
        named.map_err(|e| state.index_failed("write the index of", &e))?;
        failpoints::hit(AFTER_RELOCATE);
        self.unsynced_index += bytes;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), ChunkError> {
        self.check()?;
        self.writer.roll().map_err(|e| self.state.io_failed("begin a segment on", &e))
    }

    /// Sync, index, answers.
    fn finish(&mut self, mut group: Group) {
        let result = self.make_durable(&mut group);
        self.state.tell(&self.writer);
        for (done, mut outcome) in group.answers {
            if let Err(e) = result {
                outcome.iter_mut().filter(|o| o.is_ok()).for_each(|o| *o = Err(e));
            }
            // A caller that has gone away does not want to know.
            let _ = done.send(outcome);
        }
    }

    fn make_durable(&mut self, group: &mut Group) -> Result<(), ChunkError> {
        self.check()?;
        if group.lost {
            return Err(ChunkError::NoSpace);
        }
        let state = &self.state;
        if !group.entries.is_empty() {
            let started = Instant::now();
            self.writer.sync().map_err(|e| state.io_failed("sync", &e))?;
            state.syncs.record(group.writing + started.elapsed());
            // Somebody else may have been told of an error meanwhile.
            self.check()?;
            failpoints::hit(AFTER_SYNC);
            for (id, entry) in &mut group.entries {
                entry.epoch =
                    group.ids.get(id).map_or(entry.epoch, |newest| entry.epoch.max(*newest));
            }
            let published = state.core()?.index.publish(&group.entries, &group.marks);
            published.map_err(|e| state.index_failed("write the index of", &e))?;
            state.places.note_all(group.entries.iter().map(|(id, entry)| (*id, entry.at)));
            failpoints::hit(AFTER_INDEX);
        }
        self.unsynced_index += group.bytes;
        if self.unsynced_index >= INDEX_SYNC_BYTES {
            self.unsynced_index = 0;
            let synced = state.core()?.index.sync();
            synced.map_err(|e| state.index_failed("sync the index of", &e))?;
        }
        Ok(())
    }
}

fn end_of(at: Location) -> u64 {
    at.offset + record_len(at.len)
}
