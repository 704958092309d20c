//! [`Store`]: the chunks of one node, on one or several data directories ([`Volume`]).
//!
//! A file per verb: [`put`](Store::put), [`get`](Store::get), [`locate`](Store::locate), [`have`](Store::have),
//! [`list`](Store::list), [`verify`](Store::verify). Below it: [`volume`] (one directory), [`writer`]
//! (its thread: append, one sync for a group, index, answer), [`index`], [`recovery`], [`reopen`] (of a
//! disk that was full).
//!
//! A chunk lives on the directory that its id picks among those that work and have room; whoever looks
//! for it looks at all of them.
//!
//! Bounds: hashing and reading run on [`IoPool`]s; bytes of puts and gets in flight are taken from two
//! semaphores by the callers ([`Store::admit_put`], [`Store::admit_get`]). What was done is counted in
//! [`activity`].

pub mod activity;
mod compact;
pub mod damaged;
mod drop_copies;
#[cfg(test)]
mod garbage_tests;
mod get;
pub mod groups;
mod have;
pub mod index;
pub mod list;
mod locate;
pub mod places;
mod put;
pub mod recovery;
mod reopen;
#[cfg(test)]
mod reopen_tests;
pub mod scrub;
pub mod sweep;
#[cfg(test)]
mod tests;
mod verify;
pub mod volume;
pub mod volume_state;
pub mod writer;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use cairn_daemon::metrics::Latency;
use cairn_proto::{ChunkError, ChunkId};
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use put::Put;
pub use verify::Checked;
pub use volume::{Volume, VolumeSetup, VolumeStatus};

use self::{activity::Activity, groups::Groups, scrub::ScrubActivity};
use crate::io_pool::IoPool;

/// Most bytes of chunks in one answer to a get, one chunk excepted.
pub const GET_BATCH_BYTES: u64 = 4 * 1024 * 1024;
const READERS: usize = 16;
const KIB: u64 = 1024;
/// What a batch costs in addition to its payload, so that empty ones are bounded too.
const BATCH_COST: u64 = 4 * KIB;

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Largest chunk.
    pub chunk_size: u32,
    /// Bytes of puts that may be in memory at once.
    pub put_bytes: u64,
    /// Bytes of gets that may be in memory at once.
    pub get_bytes: u64,
}

/// See the module.
pub struct Store {
    volumes: Vec<Volume>,
    limits: StoreLimits,
    epoch: AtomicU64,
    /// Everything counts as touched in this epoch: the one that was learned first after the start.
    floor: AtomicU64,
    epoch_learned: AtomicBool,
    epoch_change: Mutex<()>,
    hashers: IoPool,
    readers: IoPool,
    put_budget: Arc<Semaphore>,
    get_budget: Arc<Semaphore>,
    waiting_gets: AtomicU64,
    activity: Activity,
    groups: Arc<Groups>,
    scrubbed: ScrubActivity,
    sweeping: sweep::Sweeping,
    /// Last, so that it is dropped after the volumes: tells that their files are free.
    _gone: oneshot::Sender<()>,
}

impl Store {
    /// A store over volumes that have been opened, at least one, with the same [`Groups`]; and what tells, by an error, that the
    /// store is gone and the directories are free.
    pub fn new(volumes: Vec<Volume>, limits: StoreLimits) -> (Self, oneshot::Receiver<()>) {
        let (gone, is_gone) = oneshot::channel();
        let epoch = volumes.iter().map(Volume::epoch).max().unwrap_or(0).max(1);
        volumes.iter().for_each(|volume| volume.learn(epoch));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let kib = |bytes: u64| usize::try_from(bytes / KIB).unwrap_or(Semaphore::MAX_PERMITS);
        let groups = Arc::clone(volumes[0].groups());
        groups.watch(volumes.iter().map(Volume::holder).collect());
        let store = Self {
            groups,
            scrubbed: ScrubActivity::default(),
            volumes,
            limits,
            epoch: AtomicU64::new(epoch),
            floor: AtomicU64::new(epoch),
            epoch_learned: AtomicBool::new(false),
            epoch_change: Mutex::new(()),
            hashers: IoPool::new(cores),
            readers: IoPool::new(READERS),
            put_budget: Arc::new(Semaphore::new(kib(limits.put_bytes))),
            get_budget: Arc::new(Semaphore::new(kib(limits.get_bytes))),
            waiting_gets: AtomicU64::new(0),
            activity: Activity::default(),
            sweeping: sweep::Sweeping::default(),
            _gone: gone,
        };
        (store, is_gone)
    }

    /// Its bounds.
    pub fn limits(&self) -> StoreLimits {
        self.limits
    }

    /// Largest chunk in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.limits.chunk_size
    }

    /// Bytes of the room for puts and for gets that are taken now.
    pub fn admitted(&self) -> (u64, u64) {
        let taken = |budget: &Semaphore, most: u64| {
            let free = budget.available_permits() as u64 * KIB;
            (most / KIB * KIB).saturating_sub(free)
        };
        (
            taken(&self.put_budget, self.limits.put_bytes),
            taken(&self.get_budget, self.limits.get_bytes),
        )
    }

    /// By disk: its syncs.
    pub fn syncs(&self) -> impl Iterator<Item = (&str, &Latency)> {
        self.volumes.iter().map(Volume::syncs)
    }

    /// What was done so far.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What it holds of each placement group.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Number of copies that are known to be damaged.
    pub fn damaged(&self) -> u64 {
        self.volumes.iter().map(Volume::damaged).sum()
    }

    /// The garbage collection epoch that puts are stamped with.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The master's epoch: stored durably on every disk before anything is stamped with it. An older
    /// one is ignored. Blocks.
    pub fn learn_epoch(&self, epoch: u64) {
        let _change = self.epoch_change.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch > self.epoch() {
            // A disk that cannot has been marked as failed, or full, by this; the others carry the number.
            let stored = self.volumes.iter().filter(|v| v.store_epoch(epoch).is_ok()).count();
            if stored == 0 {
                return;
            }
            if !self.epoch_learned.load(Ordering::Acquire) {
                self.floor.store(epoch, Ordering::Release);
            }
            self.epoch.store(epoch, Ordering::Release);
        }
        self.epoch_learned.store(true, Ordering::Release);
    }

    /// Takes `bytes` of the room for puts; waits while there is none. Held until the put is answered.
    pub async fn admit_put(&self, bytes: u64) -> OwnedSemaphorePermit {
        admit(&self.put_budget, bytes, self.limits.put_bytes).await
    }

    /// Takes room for an answer with `chunks` chunks. Held until the answer has been sent.
    pub async fn admit_get(&self, chunks: usize) -> OwnedSemaphorePermit {
        let chunk = u64::from(self.limits.chunk_size);
        let bytes = (chunks as u64 * chunk).min(GET_BATCH_BYTES.max(chunk));
        let waits = Waits::new(&self.waiting_gets);
        let room = admit(&self.get_budget, bytes, self.limits.get_bytes).await;
        drop(waits);
        room
    }

    /// Whether somebody waits for room for an answer.
    pub fn gets_wait(&self) -> bool {
        self.waiting_gets.load(Ordering::Acquire) > 0
    }

    /// For people and heartbeats. Blocks briefly.
    pub fn status(&self) -> Vec<VolumeStatus> {
        self.volumes.iter().map(Volume::status).collect()
    }

    /// Returns once after a disk has failed, filled up, or come back. Cancel-safe; for one who waits.
    pub async fn disk_change(&self) {
        let changes = self.volumes.iter().map(|volume| Box::pin(volume.change()));
        select_all(changes).await;
    }

    /// Runs other blocking work on the bounded threads that reads use.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.readers.run(work).await
    }

    /// Finishes queued puts and leaves everything tidy. Blocks.
    pub fn close(&self) {
        self.volumes.iter().for_each(Volume::close);
    }

    /// Numbers of the volumes in the order in which a chunk with this id goes to them.
    fn order(&self, id: &ChunkId) -> impl Iterator<Item = usize> + use<> {
        let n = self.volumes.len();
        // Not the leading bytes: those pick the node, so they are not uniform on one.
        let bytes = id.as_bytes()[24..].try_into().expect("the last eight of 32 bytes");
        let start = usize::try_from(u64::from_be_bytes(bytes) % n as u64).expect("below a usize");
        (0..n).map(move |i| (start + i) % n)
    }

    /// The first volume in the chunk's order of which `takes` says yes; otherwise why there is none.
    fn pick(&self, id: &ChunkId, takes: &[Result<(), ChunkError>]) -> Result<usize, ChunkError> {
        let mut why = ChunkError::DiskFailed;
        for v in self.order(id) {
            match takes[v] {
                Ok(()) => return Ok(v),
                Err(ChunkError::NoSpace) => why = ChunkError::NoSpace,
                Err(_) => {}
            }
        }
        Err(why)
    }
}

/// Counts one who waits.
struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn admit(budget: &Arc<Semaphore>, bytes: u64, most: u64) -> OwnedSemaphorePermit {
    let kib = (bytes + BATCH_COST).min(most) / KIB;
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    Arc::clone(budget).acquire_many_owned(kib).await.expect("is never closed")
}
