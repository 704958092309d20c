//! [`Volume`]: one data directory at work: its segments, its index, its writer thread.
//!
//! A volume whose disk has failed takes no more puts and is read as far as it goes. One whose disk is full
//! is read, and takes puts again when there is room: see [`super::volume_state`].

use std::{
    fmt::Display,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use cairn_daemon::metrics::Latency;
use cairn_proto::{ChunkError, ChunkId};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    groups::{Groups, Holder},
    index::{Counting, Entry, IndexError, Totals},
    places::Places,
    recovery::{Recovered, RecoveryError, recover},
    scrub::Pass,
    volume_state::{Core, Parts, VolumeState},
    writer::{self, Job, Move, Outcome, QUEUE_LEN},
};
use crate::{
    capacity,
    disk::{Disk, Space},
    failpoints::{self, DAMAGE_AFTER_NOTE, DAMAGE_BEFORE_NOTE},
    segment::{
        Location,
        set::SegmentSet,
        writer::{Record, SegmentShape},
    },
};

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
        let pass = index.scrub().ok().flatten().unwrap_or_default();
        let state = Arc::new(VolumeState::new(Parts {
            name: setup.name,
            set,
            index,
            counting: setup.counting,
            index_dir: setup.index_dir,
            index_cache: setup.index_cache,
            shape: setup.shape,
            reserve: setup.reserve.unwrap_or_else(|| capacity::default_reserve(capacity)),
        }));
        state.tell(&writer);
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

    /// The disk is given up because of its index, or is full; the error to answer.
    pub(super) fn index_failed(&self, error: &IndexError) -> ChunkError {
        self.state.index_failed("use the index of", error)
    }

    /// The disk is given up; the error to answer.
    pub(super) fn failed_to(&self, action: &str, error: &dyn Display) -> ChunkError {
        self.state.fail(action, error)
    }

    /// The same for an error of the disk, which may be full.
    pub(super) fn io_failed(&self, action: &str, error: &io::Error) -> ChunkError {
        self.state.io_failed(action, error)
    }

    /// Where chunks lay that were put or read lately.
    pub(super) fn places(&self) -> &Places {
        &self.state.places
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
        if self.is_full() {
            return Err(ChunkError::NoSpace);
        }
        let asked = self.state.space();
        let space = asked.map_err(|e| self.state.io_failed("ask for free space on", &e))?;
        let allocated = self.state.allocated.load(Ordering::Relaxed);
        if capacity::room(space, allocated, self.state.reserve) < bytes {
            return Err(ChunkError::NoSpace);
        }
        Ok(())
    }

    /// The entry of a chunk whose bytes are not known to be damaged.
    pub fn good_entry(&self, id: &ChunkId) -> Option<Entry> {
        let core = self.state.core().ok().filter(|_| !self.has_failed())?;
        if core.index.damaged().contains(id) {
            return None;
        }
        self.state.entry_in(&core, id).ok().flatten()
    }

    /// Stamps a chunk with `epoch`; its entry, unless it is not here, or damaged.
    ///
    /// # Errors
    /// `NoSpace` when the stamp cannot be stored now, `DiskFailed` when the index cannot be written.
    pub fn touch(&self, id: &ChunkId, epoch: u64) -> Result<Option<Entry>, ChunkError> {
        if self.has_failed() { Ok(None) } else { self.state.touch(id, epoch) }
    }

    /// Some of `ids` will be read at once: has the disk read what of them is here.
    pub fn expect(&self, ids: &[ChunkId]) {
        let Ok(core) = self.state.core() else { return };
        let here = ids.iter().filter_map(|id| self.state.entry_in(&core, id).ok().flatten());
        self.state.set.expect(here.map(|entry| entry.at).collect());
    }

    /// Reads a chunk; its hash is not checked. Works on failed disks as far as it goes.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, or `DiskFailed` when it is not known what is here.
    pub fn read(&self, id: &ChunkId) -> Result<Bytes, ChunkError> {
        let core = self.state.core()?;
        if core.index.damaged().contains(id) {
            return Err(ChunkError::Damaged);
        }
        let (data, at) = self.read_where(&core, id, |_| true)?;
        self.state.places.note(id, at);
        Ok(data)
    }

    /// As [`Volume::read`], of a chunk whose bytes the kernel has in memory: waits for no device. `None`:
    /// read it the long way.
    pub fn read_now(&self, id: &ChunkId) -> Option<Bytes> {
        let at = self.state.places.of(id)?;
        let core = self.state.core().ok()?;
        if core.index.damaged().contains(id) {
            return None;
        }
        self.state.set.read_now(id, at)
    }

    /// Where a chunk lies; what is there is not looked at.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, or `DiskFailed` when it is not known what is here.
    pub(super) fn locate(&self, id: &ChunkId) -> Result<Location, ChunkError> {
        let core = self.state.core()?;
        if core.index.damaged().contains(id) {
            return Err(ChunkError::Damaged);
        }
        let entry = self.state.entry_in(&core, id)?.ok_or(ChunkError::NotFound)?;
        self.state.places.note(id, entry.at);
        Ok(entry.at)
    }

    /// As [`Volume::locate`], if it was put, read or looked for lately: asks no index.
    pub(super) fn locate_now(&self, id: &ChunkId) -> Option<Location> {
        let at = self.state.places.of(id)?;
        let core = self.state.core().ok()?;
        (!core.index.damaged().contains(id)).then_some(at)
    }

    /// Reads a chunk and checks its hash, whatever is known of it.
    ///
    /// # Errors
    /// As for [`Volume::read`].
    pub fn read_verified(&self, id: &ChunkId) -> Result<Bytes, ChunkError> {
        let core = self.state.core()?;
        let (data, _) = self.read_where(&core, id, |data| id.verify(data))?;
        if core.index.damaged().contains(id)
            && let Err(e) = core.index.note_good(id)
        {
            tracing::warn!(disk = %self.state.name, chunk = %id, "cannot note that it is good again: {e}");
            self.index_failed(&e);
        }
        Ok(data)
    }

    /// What is unreadable or not `good` is noted, unless the chunk was moved while it was read.
    fn read_where(
        &self,
        core: &Core,
        id: &ChunkId,
        good: impl Fn(&[u8]) -> bool,
    ) -> Result<(Bytes, Location), ChunkError> {
        let mut entry = self.state.entry_in(core, id)?.ok_or(ChunkError::NotFound)?;
        loop {
            if let Ok(data) = self.state.set.read(id, entry.at)
                && good(&data)
            {
                return Ok((data, entry.at));
            }
            let now = self.state.entry_in(core, id)?.ok_or(ChunkError::NotFound)?;
            if now.at == entry.at {
                self.note_damaged(core, id, entry);
                return Err(ChunkError::Damaged);
            }
            entry = now;
        }
    }

    fn note_damaged(&self, core: &Core, id: &ChunkId, entry: Entry) {
        let disk = &self.state.name;
        if !core.index.damaged().contains(id) {
            tracing::error!(%disk, chunk = %id, "damaged: its bytes do not match its id, or cannot be read");
        }
        failpoints::hit(DAMAGE_BEFORE_NOTE);
        if let Err(e) = core.index.note_damaged(id, entry.at) {
            tracing::warn!(%disk, chunk = %id, "cannot note durably that it is damaged: {e}");
            self.index_failed(&e);
        }
        failpoints::hit(DAMAGE_AFTER_NOTE);
    }

    /// Whether the chunk is known to be damaged here.
    pub fn is_damaged(&self, id: &ChunkId) -> bool {
        self.state.core().is_ok_and(|core| core.index.damaged().contains(id))
    }

    /// Number of chunks that are known to be damaged.
    pub fn damaged(&self) -> u64 {
        self.state.damaged()
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
    pub(super) fn entry_in(&self, core: &Core, id: &ChunkId) -> Result<Option<Entry>, ChunkError> {
        self.state.entry_in(core, id)
    }

    /// Whether a copy with this entry counts in its group's digest.
    pub(super) fn counts(&self, core: &Core, id: &ChunkId, entry: &Entry) -> bool {
        self.state.entry_counts(core, id, entry)
    }

    /// Takes out entries that are still as given; what went.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full, `DiskFailed` when the index cannot be written.
    pub(super) fn remove(
        &self,
        core: &Core,
        entries: &[(ChunkId, Entry)],
    ) -> Result<Totals, ChunkError> {
        let removed = core.index.remove(entries);
        self.places().forget_all(entries.iter().map(|(id, _)| id));
        removed.map_err(|e| self.state.index_failed("write the index of", &e))
    }

    /// Where its chunks lie, to be held for as long as that matters.
    ///
    /// # Errors
    /// `DiskFailed` while the index is being opened again.
    pub(super) fn core(&self) -> Result<Arc<Core>, ChunkError> {
        self.state.core()
    }

    /// Stamps of up to `epoch` may be given here.
    pub(super) fn learn(&self, epoch: u64) {
        self.state.learn(epoch);
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
        self.page_of(&*self.state.core()?, after, limit)
    }

    /// The same of one core.
    pub(super) fn page_of(
        &self,
        core: &Core,
        after: Option<&ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, Entry)>, ChunkError> {
        let page = core.index.page(after, limit);
        page.map_err(|e| self.state.index_failed("read the index of", &e))
    }

    /// The epoch that was stored last.
    pub fn epoch(&self) -> u64 {
        self.state.core().ok().and_then(|core| core.index.epoch().ok()).unwrap_or(0)
    }

    /// Stores the garbage collection epoch durably.
    ///
    /// # Errors
    /// `DiskFailed` when the index cannot be written.
    pub fn store_epoch(&self, epoch: u64) -> Result<(), ChunkError> {
        // Also when it is stored later: see the re-opening.
        self.learn(epoch);
        let stored = self.state.core()?.index.store_epoch(epoch);
        stored.map_err(|e| self.state.index_failed("write the index of", &e))
    }

    /// Returns once after the disk has failed, filled up, or come back. Cancel-safe; for one who waits.
    pub async fn change(&self) {
        self.state.change.notified().await;
    }

    /// Whether it takes no more puts.
    pub fn has_failed(&self) -> bool {
        self.state.has_failed()
    }

    /// Whether its index takes nothing until there is room again.
    pub fn is_full(&self) -> bool {
        self.state.is_full()
    }

    /// Its name and its syncs.
    pub fn syncs(&self) -> (&str, &Latency) {
        (&self.state.name, &self.state.syncs)
    }

    /// Number and bytes of its chunks.
    pub fn totals(&self) -> Totals {
        self.state.totals()
    }

    /// For people.
    pub fn status(&self) -> VolumeStatus {
        let space = self.state.space().unwrap_or(Space { capacity: 0, free: 0 });
        let allocated = self.state.allocated.load(Ordering::Relaxed);
        let free = match self.is_full() {
            true => 0,
            false => capacity::room(space, allocated, self.state.reserve),
        };
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

impl Drop for Volume {
    fn drop(&mut self) {
        self.close();
    }
}
