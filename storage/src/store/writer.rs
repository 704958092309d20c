//! The writer thread of a data directory: takes queued puts, appends them, syncs once for all that
//! were queued, publishes them in the index, answers.
//!
//! The order is the promise: append, sync, index, answer. So an answered put is durable, and the index
//! never names bytes that are not. Whoever puts a chunk that is already in the same group gets its
//! answer with the group. A failed sync ends the directory's life as a place for puts.
//!
//! The queue is bounded by the bytes that callers may have in flight, and by [`QUEUE_LEN`].

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};

use cairn_proto::{ChunkError, ChunkId};
use tokio::sync::{mpsc, oneshot};

use super::{index::Entry, put::Put, volume::VolumeState};
use crate::{
    capacity,
    failpoints::{self, AFTER_APPEND, AFTER_HASH, AFTER_INDEX, AFTER_SYNC},
    segment::{
        Location, SegmentId,
        format::record_len,
        writer::{Record, SegmentWriter, is_full},
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

/// Verified chunks to store.
pub struct Job {
    /// The chunks.
    pub records: Vec<Record>,
    /// Told when all of them are durable or have failed. Nobody may be listening any more.
    pub done: oneshot::Sender<Outcome>,
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
    std::thread::Builder::new().name("cairn-writer".into()).spawn(move || {
        let unsynced_index = 0;
        Writer { state, writer, unsynced_index }.run(jobs);
    })
}

struct Writer {
    state: Arc<VolumeState>,
    writer: SegmentWriter,
    unsynced_index: u64,
}

/// What is written together and synced once.
#[derive(Default)]
struct Group {
    answers: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    entries: Vec<(ChunkId, Entry)>,
    ids: HashSet<ChunkId>,
    /// Stored already, to be stamped with the newest epoch.
    touched: Vec<(ChunkId, u64)>,
    marks: BTreeMap<SegmentId, u64>,
    bytes: u64,
    /// The disk was full when records of it were to be synced: all of it fails.
    lost: bool,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(job) = next.take() {
                self.append(job, &mut group);
                if group.bytes < GROUP_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            self.finish(group);
        }
        if !self.state.failed.load(Ordering::Acquire) {
            let sealed = self.writer.seal();
            let synced = self.state.index.sync();
            if let Err(e) = sealed {
                tracing::warn!(disk = %self.state.name, "cannot cut the newest segment: {e}");
            }
            if let Err(e) = synced {
                tracing::warn!(disk = %self.state.name, "cannot sync the index: {e}");
            }
        }
    }

    /// Writes the chunks of a job that are not stored and not in the group.
    fn append(&mut self, job: Job, group: &mut Group) {
        failpoints::hit(AFTER_HASH);
        let mut outcome: Outcome = Vec::with_capacity(job.records.len());
        let ids: Vec<_> = job.records.iter().map(|r| r.id).collect();
        let mut fresh = Vec::new();
        for record in job.records {
            outcome.push(match self.is_new(&record.id, group) {
                Ok(true) => {
                    group.ids.insert(record.id);
                    fresh.push(record);
                    Ok(Put::Stored)
                }
                Ok(false) => {
                    group.touched.push((record.id, record.epoch));
                    Ok(Put::Known)
                }
                Err(e) => Err(e),
            });
        }
        if let Err(e) = self.write(&fresh, group) {
            let failed: HashSet<_> = fresh.iter().map(|r| r.id).collect();
            group.ids.retain(|id| !failed.contains(id));
            // A chunk may be in the job twice: both depended on the write.
            for (outcome, id) in outcome.iter_mut().zip(&ids) {
                if failed.contains(id) {
                    *outcome = Err(e);
                }
            }
        }
        group.answers.push((job.done, outcome));
    }

    fn is_new(&self, id: &ChunkId, group: &Group) -> Result<bool, ChunkError> {
        if self.state.failed.load(Ordering::Acquire) {
            return Err(ChunkError::DiskFailed);
        }
        if group.ids.contains(id) {
            return Ok(false);
        }
        // An older copy that is damaged is replaced.
        Ok(self.state.index.damaged().contains(id) || self.state.look_up(id)?.is_none())
    }

    fn write(&mut self, records: &[Record], group: &mut Group) -> Result<(), ChunkError> {
        if records.is_empty() {
            return Ok(());
        }
        if group.lost {
            return Err(ChunkError::NoSpace);
        }
        let bytes = records
            .iter()
            .map(|r| record_len(u32::try_from(r.data.len()).unwrap_or(u32::MAX)))
            .sum::<u64>();
        let space = self.state.space().map_err(|e| self.state.fail("ask for free space on", &e))?;
        if capacity::room(space, self.writer.reserved(), self.state.reserve) < bytes {
            return Err(ChunkError::NoSpace);
        }
        let places = match self.writer.append(records) {
            Ok(places) => places,
            Err(e) if is_full(&e) => {
                // Nothing more for this group: the next append cuts off what it has written.
                group.lost |= self.writer.has_given_up();
                return Err(ChunkError::NoSpace);
            }
            Err(e) => return Err(self.state.fail("write to", &e)),
        };
        failpoints::hit(AFTER_APPEND);
        for (record, at) in records.iter().zip(places) {
            group.entries.push((record.id, Entry { at, epoch: record.epoch }));
            group.marks.insert(at.segment, end_of(at));
        }
        group.bytes += bytes;
        Ok(())
    }

    /// Sync, index, answers.
    fn finish(&mut self, mut group: Group) {
        let result = self.make_durable(&mut group);
        self.state.allocated.store(self.writer.reserved(), Ordering::Relaxed);
        for (done, mut outcome) in group.answers {
            if let Err(e) = result {
                outcome.iter_mut().filter(|o| o.is_ok()).for_each(|o| *o = Err(e));
            }
            // A caller that has gone away does not want to know.
            let _ = done.send(outcome);
        }
    }

    fn make_durable(&mut self, group: &mut Group) -> Result<(), ChunkError> {
        if self.state.failed.load(Ordering::Acquire) {
            return Err(ChunkError::DiskFailed);
        }
        if group.lost {
            return Err(ChunkError::NoSpace);
        }
        let state = &self.state;
        if !group.entries.is_empty() {
            let started = Instant::now();
            self.writer.sync().map_err(|e| match is_full(&e) {
                true => ChunkError::NoSpace,
                false => state.fail("sync", &e),
            })?;
            state.syncs.record(started.elapsed());
            failpoints::hit(AFTER_SYNC);
            state
                .index
                .publish(&group.entries, &group.marks)
                .map_err(|e| state.fail("write the index of", &e))?;
            failpoints::hit(AFTER_INDEX);
        }
        for (id, epoch) in &group.touched {
            state.index.touch(&[*id], *epoch).map_err(|e| state.fail("write the index of", &e))?;
        }
        self.unsynced_index += group.bytes;
        if self.unsynced_index >= INDEX_SYNC_BYTES {
            self.unsynced_index = 0;
            state.index.sync().map_err(|e| state.fail("sync the index of", &e))?;
        }
        Ok(())
    }
}

fn end_of(at: Location) -> u64 {
    at.offset + record_len(at.len)
}
