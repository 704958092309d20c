//! [`VolumeState`]: what the writer thread of a volume shares with everybody else; and [`Core`], the part
//! of it that is replaced when the disk was full.
//!
//! A disk works, is full, or has failed. The index's engine refuses everything after a write that found
//! no room: then the disk is full. What is there is read and counts as before, puts and touches are
//! `NoSpace`, and [`super::reopen`] opens the index again as soon as there is room. A disk that fails in
//! any other way is given up: it is read as far as that goes.
//!
//! Whoever relies on what the index said, or works on index and segments, holds the core meanwhile: the
//! next one is not opened before the last holder is gone.
//!
//! Lock order: the lock of [`Groups`](super::groups::Groups), then `slot`, which is held for moments only.

use std::{
    fmt::Display,
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cairn_daemon::metrics::Latency;
use cairn_proto::{ChunkError, ChunkId};
use tokio::sync::Notify;

use super::{
    groups::Holder,
    index::{Counting, Entry, Index, IndexError, Totals},
    places::Places,
};
use crate::{
    disk::Space,
    segment::{
        set::SegmentSet,
        writer::{SegmentShape, SegmentWriter, is_full},
    },
};

/// Bytes that the index needs to be free for its background work.
const INDEX_ROOM: u64 = 64 * 1024 * 1024;
/// A disk with less room than this may have been full a moment ago; its index is not opened again.
const SCANT: u64 = 4 * 1024 * 1024;

/// See the module.
pub struct Core {
    pub(super) index: Index,
    /// Everything on this disk counts as touched in this epoch at least: what was touched before this
    /// core was opened may have been lost with the last one.
    pub(super) floor: u64,
    /// Tells it from the others of the volume.
    pub(super) number: u64,
}

/// Where the core is.
enum Slot {
    Open(Arc<Core>),
    /// It is being opened again: totals, and the number of damaged chunks, as they were.
    Closed(Totals, u64),
}

/// See the module.
pub struct VolumeState {
    pub(super) name: String,
    pub(super) set: Arc<SegmentSet>,
    slot: RwLock<Slot>,
    pub(super) counting: Counting,
    pub(super) index_dir: PathBuf,
    pub(super) index_cache: u64,
    pub(super) shape: SegmentShape,
    pub(super) reserve: u64,
    /// Bytes of the newest segment that are allocated and unused.
    pub(super) allocated: AtomicU64,
    /// Number of the first segment that is not sealed.
    pub(super) first_unsealed: AtomicU64,
    /// No stamp that was given here is newer.
    learned: AtomicU64,
    failed: AtomicBool,
    full: AtomicBool,
    /// There was little room at some moment since the core was opened.
    scant: AtomicBool,
    /// Where chunks lay that were put or read lately.
    pub(super) places: Places,
    /// Syncs of new chunks.
    pub(super) syncs: Latency,
    /// Told when the disk fails, is full, or works again.
    pub(super) change: Notify,
}

/// What a state is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) set: Arc<SegmentSet>,
    pub(super) index: Index,
    pub(super) counting: Counting,
    pub(super) index_dir: PathBuf,
    pub(super) index_cache: u64,
    pub(super) shape: SegmentShape,
    pub(super) reserve: u64,
}

impl VolumeState {
    pub(super) fn new(parts: Parts) -> Self {
        let core = Core { index: parts.index, floor: 0, number: 0 };
        Self {
            name: parts.name,
            set: parts.set,
            slot: RwLock::new(Slot::Open(Arc::new(core))),
            counting: parts.counting,
            index_dir: parts.index_dir,
            index_cache: parts.index_cache,
            shape: parts.shape,
            reserve: parts.reserve,
            allocated: AtomicU64::new(0),
            first_unsealed: AtomicU64::new(0),
            learned: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            scant: AtomicBool::new(false),
            places: Places::default(),
            syncs: Latency::default(),
            change: Notify::new(),
        }
    }

    /// Whether it is given up.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether its index takes nothing until it is opened again.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn slot(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, to be held for as long as what it says matters.
    ///
    /// # Errors
    /// `DiskFailed` while it is being opened again.
    pub(super) fn core(&self) -> Result<Arc<Core>, ChunkError> {
        match &*self.slot() {
            Slot::Open(core) => Ok(Arc::clone(core)),
            Slot::Closed(..) => Err(ChunkError::DiskFailed),
        }
    }

    /// Nobody gets the core from now on; who has it keeps it.
    pub(super) fn close(&self) {
        let close = || {
            let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
            if let Slot::Open(core) = &*slot {
                *slot = Slot::Closed(core.index.totals(), core.index.damaged().count());
            }
        };
        // Counts of what cannot be looked up would be wrong.
        self.counting.groups.forget_while(close);
    }

    /// Everybody gets this core from now on.
    pub(super) fn open(&self, core: Arc<Core>) {
        let open = || {
            *self.slot.write().unwrap_or_else(PoisonError::into_inner) = Slot::Open(core);
        };
        self.counting.groups.forget_while(open);
    }

    /// It takes chunks again.
    pub(super) fn works_again(&self) {
        self.scant.store(false, Ordering::Release);
        self.full.store(false, Ordering::Release);
        tracing::info!(disk = %self.name, "there is room again: this disk takes chunks again");
        self.change.notify_one();
    }

    /// The disk is not to be used for puts any more; the error to answer.
    pub(super) fn fail(&self, action: &str, error: &dyn Display) -> ChunkError {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                disk = %self.name,
                "cannot {action} this disk: {error}. It takes no more chunks; the others go on. \
                 Replace the disk, or check it and start the node again"
            );
            self.counting.groups.forget();
            self.change.notify_one();
        }
        ChunkError::DiskFailed
    }

    /// The segments could not be used; the error to answer. A full disk is not a failed one.
    pub(super) fn io_failed(&self, action: &str, error: &io::Error) -> ChunkError {
        if is_full(error) { ChunkError::NoSpace } else { self.fail(action, error) }
    }

    /// The index could not be used; the error to answer.
    pub(super) fn index_failed(&self, action: &str, error: &IndexError) -> ChunkError {
        let full = match error {
            IndexError::Full(_) => true,
            // Its background work found what it found, and does not tell.
            IndexError::Poisoned => self.is_full() || self.was_scant(),
            IndexError::Locked | IndexError::Io(_) | IndexError::Damaged(_) => false,
        };
        if !full || self.has_failed() {
            return self.fail(action, error);
        }
        if !self.full.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                disk = %self.name,
                "cannot {action} this disk: {error}. It is full: it takes chunks again by itself when \
                 there is room"
            );
            self.change.notify_one();
        }
        ChunkError::NoSpace
    }

    /// Room on the disk.
    pub(super) fn space(&self) -> io::Result<Space> {
        let space = self.set.disk().space()?;
        if space.free < self.least_room().max(SCANT) {
            self.scant.store(true, Ordering::Release);
        }
        Ok(space)
    }

    fn was_scant(&self) -> bool {
        // Asked once more, to see how it is now.
        let asked = self.space();
        self.scant.load(Ordering::Acquire) && asked.is_ok()
    }

    const fn least_room(&self) -> u64 {
        let half = self.reserve / 2;
        if half < INDEX_ROOM { half } else { INDEX_ROOM }
    }

    /// Whether there is enough room to open the index again.
    pub(super) fn has_room_again(&self) -> bool {
        match self.space() {
            Ok(space) => space.free >= self.least_room().max(SCANT),
            Err(e) => {
                self.io_failed("ask for free space on", &e);
                false
            }
        }
    }

    /// Whether the index may be written to. It could not go on after a write that found the disk full,
    /// so what can wait is not tried when something else has used up most of the reserve.
    pub(super) fn index_room(&self) -> Result<(), ChunkError> {
        if self.is_full() {
            return Err(ChunkError::NoSpace);
        }
        let space = self.space().map_err(|e| self.io_failed("ask for free space on", &e))?;
        if space.free < self.least_room() { Err(ChunkError::NoSpace) } else { Ok(()) }
    }

    /// Stamps of up to `epoch` may be given here.
    pub(super) fn learn(&self, epoch: u64) {
        self.learned.fetch_max(epoch, Ordering::AcqRel);
    }

    /// No stamp that was given here is newer.
    pub(super) fn learned(&self) -> u64 {
        self.learned.load(Ordering::Acquire)
    }

    /// The entry of a chunk in `core`.
    pub(super) fn entry_in(&self, core: &Core, id: &ChunkId) -> Result<Option<Entry>, ChunkError> {
        core.index.get(id).map_err(|e| self.index_failed("read the index of", &e))
    }

    /// Stamps a chunk with `epoch`; its entry, unless it is not here, or damaged.
    ///
    /// # Errors
    /// `NoSpace` when the stamp cannot be stored, or it is not known now what is here.
    pub(super) fn touch(&self, id: &ChunkId, epoch: u64) -> Result<Option<Entry>, ChunkError> {
        let core = match self.core() {
            Err(_) if self.is_full() => return Err(ChunkError::NoSpace),
            core => core?,
        };
        if core.index.damaged().contains(id) {
            return Ok(None);
        }
        match self.entry_in(&core, id)? {
            Some(entry) if entry.is_touched(epoch) => return Ok(Some(entry)),
            Some(_) => self.index_room()?,
            None => return Ok(None),
        }
        self.learn(epoch);
        core.index.touch(id, epoch).map_err(|e| self.index_failed("write the index of", &e))
    }

    /// Whether a copy with this entry counts in its group's digest.
    pub(super) fn entry_counts(&self, core: &Core, id: &ChunkId, entry: &Entry) -> bool {
        !self.has_failed() && !entry.is_quarantined() && !core.index.damaged().contains(id)
    }

    /// Number and bytes of its chunks.
    pub(super) fn totals(&self) -> Totals {
        match &*self.slot() {
            Slot::Open(core) => core.index.totals(),
            Slot::Closed(totals, _) => *totals,
        }
    }

    /// Number of chunks that are known to be damaged.
    pub(super) fn damaged(&self) -> u64 {
        match &*self.slot() {
            Slot::Open(core) => core.index.damaged().count(),
            Slot::Closed(_, damaged) => *damaged,
        }
    }

    /// Lets others know how far the segments are.
    pub(super) fn tell(&self, writer: &SegmentWriter) {
        self.allocated.store(writer.reserved(), Ordering::Relaxed);
        self.first_unsealed.store(writer.first_unsealed().0, Ordering::Release);
    }
}

impl Holder for VolumeState {
    fn counts(&self, id: &ChunkId) -> bool {
        let Ok(core) = self.core() else { return false };
        let entry = core.index.get(id).ok().flatten();
        entry.is_some_and(|entry| self.entry_counts(&core, id, &entry))
    }

    fn chunks(&self) -> u64 {
        self.totals().chunks
    }

    fn each(
        &self,
        from: Option<ChunkId>,
        before: Option<ChunkId>,
        tell: &mut dyn FnMut(ChunkId, u32),
    ) -> Result<(), ChunkError> {
        if self.has_failed() {
            return Ok(());
        }
        let from = from.as_ref().map_or(Bound::Unbounded, |id| Bound::Included(&id.as_bytes()[..]));
        let before =
            before.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.as_bytes()[..]));
        let core = self.core()?;
        for entry in core.index.entries((from, before)) {
            let (id, entry) = entry.map_err(|_| ChunkError::DiskFailed)?;
            if self.entry_counts(&core, &id, &entry) {
                tell(id, entry.at.len);
            }
        }
        Ok(())
    }
}
