//! [`Volume`]: one data directory at work: its segments, its index, its writer thread.
//!
//! A volume whose disk has failed takes no more puts and is read as far as it goes.

use std::{
    fmt::Display,
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use cairn_daemon::metrics::Latency;
use cairn_proto::{ChunkError, ChunkId};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use super::{
    groups::{Groups, Holder},
    index::{Counting, Entry, Index, IndexError, Totals},
    recovery::{Recovered, RecoveryError, recover},
    scrub::Pass,
    writer::{self, Job, Move, Outcome, QUEUE_LEN},
};
use crate::{
    capacity,
    disk::{Disk, Space},
    failpoints::{self, DAMAGE_AFTER_NOTE, DAMAGE_BEFORE_NOTE},
    segment::{
        set::SegmentSet,
        writer::{Record, SegmentShape},
    },
};

/// Bytes that the index needs to be free for its background work.
const INDEX_ROOM: u64 = 64 * 1024 * 1024;

/// What a volume is made of.
pub struct VolumeSetup {
    /// What people call it: its path.
    pub name: String,
    /// Where the segments are.
    pub disk: Arc<dyn Disk>,
    /// Directory of the index.
    pub index_dir: PathBuf,
    /// Bytes of index blocks that are kept in memory.
    pub index_cache: u64,
    /// How segments are cut.
    pub shape: SegmentShape,
    /// Free room to keep; `None`: the default for the disk's size.
    pub reserve: Option<u64>,
    /// The file system that the chunks belong to.
    pub fs: Uuid,
    /// Told which chunks count; the same for all directories of a node.
    pub counting: Counting,
}

/// The part that the writer thread shares with everybody else.
pub struct VolumeState {
    pub(super) name: String,
    pub(super) set: Arc<SegmentSet>,
    pub(super) index: Index,
    counting: Counting,
    pub(super) reserve: u64,
    /// Bytes of the newest segment that are allocated and unused.
    pub(super) allocated: AtomicU64,
    /// Number of the first segment that is not sealed.
    pub(super) first_unsealed: AtomicU64,
    pub(super) failed: AtomicBool,
    /// Syncs of new chunks.
    pub(super) syncs: Latency,
    /// Told once, when the disk fails.
    failure: Notify,
}

/// See the module.
pub struct Volume {
    state: Arc<VolumeState>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) pass: Mutex<Pass>,
}

/// What `status` shows of a volume.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// Its path.
    pub name: String,
    /// Size of its file system, and what may still be put.
    pub space: Space,
    /// Number and bytes of its chunks.
    pub totals: Totals,
    /// Whether it takes no more puts.
    pub failed: bool,
}

impl VolumeState {
    /// The disk is not to be used for puts any more; the error to answer.
    pub(super) fn fail(&self, action: &str, error: &dyn Display) -> ChunkError {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                disk = %self.name,
                "cannot {action} this disk: {error}. It takes no more chunks; the others go on. \
                 Replace the disk, or check it and start the node again"
            );
            self.counting.groups.forget();
            self.failure.notify_one();
        }
        ChunkError::DiskFailed
    }

    pub(super) fn look_up(&self, id: &ChunkId) -> Result<Option<Entry>, ChunkError> {
        self.index.get(id).map_err(|e| self.fail("read the index of", &e))
    }

    /// Whether the index may be written to. It could not go on after a write that found the disk full,
    /// so what can wait is not tried when something else has used up most of the reserve.
    pub(super) fn index_room(&self) -> Result<(), ChunkError> {
        let least = (self.reserve / 2).min(INDEX_ROOM);
        let space = self.space().map_err(|e| self.fail("ask for free space on", &e))?;
        if space.free < least { Err(ChunkError::NoSpace) } else { Ok(()) }
    }

    fn entry_counts(&self, id: &ChunkId, entry: &Entry) -> bool {
        !self.failed.load(Ordering::Acquire)
            && !entry.is_quarantined()
            && !self.index.damaged().contains(id)
    }

    pub(super) fn touch(&self, id: &ChunkId, epoch: u64) -> Result<Option<Entry>, ChunkError> {
        match self.look_up(id)? {
            Some(entry) if entry.is_touched(epoch) => return Ok(Some(entry)),
            Some(_) => self.index_room()?,
            None => return Ok(None),
        }
        self.index.touch(id, epoch).map_err(|e| self.fail("write the index of", &e))
    }

    pub(super) fn space(&self) -> io::Result<Space> {
        self.set.disk().space()
    }
}

impl Volume {
    /// Recovers what is there and starts the writer thread. Blocks.
    ///
    /// # Errors
    /// See [`RecoveryError`].
    pub fn open(setup: VolumeSetup) -> Result<Self, RecoveryError> {
        let set = Arc::new(SegmentSet::new(setup.disk, setup.fs));
        let Recovered { index, writer } =
            recover(&set, &setup.index_dir, setup.index_cache, setup.shape, &setup.counting)?;
        let capacity = set.disk().space()?.capacity;
        let state = Arc::new(VolumeState {
            name: setup.name,
            set,
            index,
            counting: setup.counting,
            reserve: setup.reserve.unwrap_or_else(|| capacity::default_reserve(capacity)),
            allocated: AtomicU64::new(0),
            first_unsealed: AtomicU64::new(writer.first_unsealed().0),
            failed: AtomicBool::new(false),
            syncs: Latency::default(),
            failure: Notify::new(),
        });
        let pass = state.index.scrub().ok().flatten().unwrap_or_default();
        let (jobs, queue) = mpsc::channel(QUEUE_LEN);
        let thread = writer::spawn(Arc::clone(&state), writer, queue)?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(Self { state, jobs, thread, pass: Mutex::new(pass) })
    }

    /// Stores verified chunks; returns when they are durable or have failed.
    pub async fn put(&self, records: Vec<Record>) -> Outcome {
        let n = records.len();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(jobs) = jobs else { return vec![Err(ChunkError::Unreachable); n] };
        let (done, answer) = oneshot::channel();
        if jobs.send(Job::Put { records, done }).await.is_err() {
            return vec![Err(ChunkError::DiskFailed); n];
        }
        drop(jobs);
        answer.await.unwrap_or_else(|_| vec![Err(ChunkError::DiskFailed); n])
    }

    /// Copies records to the end of the newest segment and lets the index name the copies, where it still
    /// names what they are copies of. Blocks; not for async code.
    ///
    /// # Errors
    /// `NoSpace`, or `DiskFailed`, also when the node is being stopped.
    pub(super) fn relocate(&self, moves: Vec<Move>) -> Result<(), ChunkError> {
        if moves.is_empty() { Ok(()) } else { self.ask_writer(|done| Job::Move { moves, done }) }
    }

    /// Seals the newest segment and begins another. Blocks; not for async code.
    ///
    /// # Errors
    /// `DiskFailed`, also when the node is being stopped.
    pub(super) fn roll(&self) -> Result<(), ChunkError> {
        self.ask_writer(|done| Job::Roll { done })
    }

    fn ask_writer(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), ChunkError>>) -> Job,
    ) -> Result<(), ChunkError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let jobs = jobs.ok_or(ChunkError::DiskFailed)?;
        let (done, answer) = oneshot::channel();
        jobs.blocking_send(job(done)).map_err(|_| ChunkError::DiskFailed)?;
        drop(jobs);
        answer.blocking_recv().unwrap_or(Err(ChunkError::DiskFailed))
    }

    /// Whether its index may be written to.
    pub(super) fn index_room(&self) -> Result<(), ChunkError> {
        self.state.index_room()
    }

    /// The disk is given up because of its index; the error to answer.
    pub(super) fn index_failed(&self, error: &IndexError) -> ChunkError {
        self.state.fail("use the index of", error)
    }

    /// The disk is given up; the error to answer.
    pub(super) fn failed_to(&self, action: &str, error: &dyn Display) -> ChunkError {
        self.state.fail(action, error)
    }

    /// Its segments.
    pub(super) fn segments(&self) -> &SegmentSet {
        &self.state.set
    }

    /// Number of the first segment that is not sealed.
    pub(super) fn first_unsealed(&self) -> &AtomicU64 {
        &self.state.first_unsealed
    }

    /// Bytes of the newest segment that are allocated and unused.
    pub(super) fn reserved(&self) -> u64 {
        self.state.allocated.load(Ordering::Relaxed)
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.state.name
    }

    /// Whether puts can go here now; otherwise why not.
    ///
    /// # Errors
    /// `DiskFailed` or `NoSpace`.
    pub fn takes(&self, bytes: u64) -> Result<(), ChunkError> {
        if self.has_failed() {
            return Err(ChunkError::DiskFailed);
        }
        let space = self.state.space().map_err(|e| self.state.fail("ask for free space on", &e))?;
        let allocated = self.state.allocated.load(Ordering::Relaxed);
        if capacity::room(space, allocated, self.state.reserve) < bytes {
            return Err(ChunkError::NoSpace);
        }
        Ok(())
    }

    /// The entry of a chunk whose bytes are not known to be damaged.
    pub fn good_entry(&self, id: &ChunkId) -> Option<Entry> {
        if self.has_failed() || self.state.index.damaged().contains(id) {
            return None;
        }
        self.state.look_up(id).ok().flatten()
    }

    /// Stamps a chunk with `epoch`; its entry, unless it is not here, or damaged.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be written.
    pub fn touch(&self, id: &ChunkId, epoch: u64) -> Result<Option<Entry>, ChunkError> {
        if self.has_failed() || self.state.index.damaged().contains(id) {
            return Ok(None);
        }
        self.state.touch(id, epoch)
    }

    /// Reads a chunk; its hash is not checked. Works on failed disks as far as it goes.
    ///
    /// # Errors
    /// `NotFound` or `Damaged`.
    pub fn read(&self, id: &ChunkId) -> Result<Bytes, ChunkError> {
        if self.is_damaged(id) {
            return Err(ChunkError::Damaged);
        }
        self.read_where(id, |_| true)
    }

    /// Reads a chunk and checks its hash, whatever is known of it.
    ///
    /// # Errors
    /// `NotFound` or `Damaged`.
    pub fn read_verified(&self, id: &ChunkId) -> Result<Bytes, ChunkError> {
        let data = self.read_where(id, |data| id.verify(data))?;
        if self.is_damaged(id)
            && let Err(e) = self.state.index.note_good(id)
        {
            tracing::warn!(disk = %self.state.name, chunk = %id, "cannot note that it is good again: {e}");
        }
        Ok(data)
    }

    /// What is unreadable or not `good` is noted, unless the chunk was moved while it was read.
    fn read_where(&self, id: &ChunkId, good: impl Fn(&[u8]) -> bool) -> Result<Bytes, ChunkError> {
        let mut entry = self.state.look_up(id)?.ok_or(ChunkError::NotFound)?;
        loop {
            if let Ok(data) = self.state.set.read(id, entry.at)
                && good(&data)
            {
                return Ok(data);
            }
            let now = self.state.look_up(id)?.ok_or(ChunkError::NotFound)?;
            if now.at == entry.at {
                self.note_damaged(id, entry);
                return Err(ChunkError::Damaged);
            }
            entry = now;
        }
    }

    fn note_damaged(&self, id: &ChunkId, entry: Entry) {
        let disk = &self.state.name;
        if !self.state.index.damaged().contains(id) {
            tracing::error!(%disk, chunk = %id, "damaged: its bytes do not match its id, or cannot be read");
        }
        failpoints::hit(DAMAGE_BEFORE_NOTE);
        if let Err(e) = self.state.index.note_damaged(id, entry.at) {
            tracing::warn!(%disk, chunk = %id, "cannot note durably that it is damaged: {e}");
        }
        failpoints::hit(DAMAGE_AFTER_NOTE);
    }

    /// Whether the chunk is known to be damaged here.
    pub fn is_damaged(&self, id: &ChunkId) -> bool {
        self.state.index.damaged().contains(id)
    }

    /// Number of chunks that are known to be damaged.
    pub fn damaged(&self) -> u64 {
        self.state.index.damaged().count()
    }

    /// For whoever counts.
    pub fn holder(&self) -> Weak<dyn Holder> {
        let state: Arc<dyn Holder> = Arc::clone(&self.state) as _;
        Arc::downgrade(&state)
    }

    /// The entry of a chunk, whatever is known of its bytes.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be read.
    pub fn entry(&self, id: &ChunkId) -> Result<Option<Entry>, ChunkError> {
        self.state.look_up(id)
    }

    /// Whether a copy with this entry counts in its group's digest.
    pub fn counts(&self, id: &ChunkId, entry: &Entry) -> bool {
        self.state.entry_counts(id, entry)
    }

    /// Takes out entries that are still as given; what went.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be written.
    pub fn remove(&self, entries: &[(ChunkId, Entry)]) -> Result<Totals, ChunkError> {
        self.state.index.remove(entries).map_err(|e| self.state.fail("write the index of", &e))
    }

    /// Where its chunks lie.
    pub fn index(&self) -> &Index {
        &self.state.index
    }

    /// The groups that it is counted in.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.state.counting.groups
    }

    /// Up to `limit` entries with ids greater than `after`, in order.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be read.
    pub fn page(
        &self,
        after: Option<&ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, Entry)>, ChunkError> {
        self.state.index.page(after, limit).map_err(|e| self.state.fail("read the index of", &e))
    }

    /// The epoch that was stored last.
    pub fn epoch(&self) -> u64 {
        self.state.index.epoch().unwrap_or(0)
    }

    /// Stores the garbage collection epoch durably.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be written.
    pub fn store_epoch(&self, epoch: u64) -> Result<(), ChunkError> {
        self.state.index.store_epoch(epoch).map_err(|e| self.state.fail("write the index of", &e))
    }

    /// Returns once after the disk has failed. Cancel-safe; for one who waits.
    pub async fn failure(&self) {
        self.state.failure.notified().await;
    }

    /// Whether it takes no more puts.
    pub fn has_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    /// Its name and its syncs.
    pub fn syncs(&self) -> (&str, &Latency) {
        (&self.state.name, &self.state.syncs)
    }

    /// Number and bytes of its chunks.
    pub fn totals(&self) -> Totals {
        self.state.index.totals()
    }

    /// For people.
    pub fn status(&self) -> VolumeStatus {
        let space = self.state.space().unwrap_or(Space { capacity: 0, free: 0 });
        let allocated = self.state.allocated.load(Ordering::Relaxed);
        let free = capacity::room(space, allocated, self.state.reserve);
        VolumeStatus {
            name: self.state.name.clone(),
            space: Space { capacity: space.capacity, free: free.min(space.capacity) },
            totals: self.totals(),
            failed: self.has_failed(),
        }
    }

    /// Finishes all queued puts, cuts the newest segment, syncs the index. Blocks.
    pub fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(disk = %self.state.name, "the writer thread panicked");
        }
    }
}

impl Holder for VolumeState {
    fn counts(&self, id: &ChunkId) -> bool {
        self.index.get(id).ok().flatten().is_some_and(|entry| self.entry_counts(id, &entry))
    }

    fn chunks(&self) -> u64 {
        self.index.totals().chunks
    }

    fn each(
        &self,
        from: Option<ChunkId>,
        before: Option<ChunkId>,
        tell: &mut dyn FnMut(ChunkId, u32),
    ) -> Result<(), ChunkError> {
        if self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let from = from.as_ref().map_or(Bound::Unbounded, |id| Bound::Included(&id.as_bytes()[..]));
        let before =
            before.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.as_bytes()[..]));
        for entry in self.index.entries((from, before)) {
            let (id, entry) = entry.map_err(|_| ChunkError::DiskFailed)?;
            if self.entry_counts(&id, &entry) {
                tell(id, entry.at.len);
            }
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.close();
    }
}
