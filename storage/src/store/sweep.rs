//! Sweep: what the master's marks do not name goes, in two steps. A chunk that nothing refers to and that
//! was last put or touched before the floor is quarantined; one that a trusted earlier cycle has
//! quarantined is erased. Quarantined chunks serve; a put or a touch ends the quarantine.
//!
//! Everything is decided for each entry under the index's lock, so a chunk is either touched before the
//! decision, and stays, or gone when it is asked for. A node that was started counts everything as
//! touched in the first epoch that it learned: touches and quarantines of earlier runs may have been lost.
//! The same holds for a disk whose index was opened again ([`super::reopen`]). A full disk is left out.
//!
//! Order of an erasure: the index without the entry, durable; tombstones, durable; holes. See
//! [`crate::segment::erase`]. Room is given back by [`super::compact`] afterwards.

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_proto::{ChunkError, ChunkId, Group, garbage_filter::GarbageFilter};

use super::{
    Store, Volume,
    compact::{self, Survey},
    groups::ids_of,
    index::{Change, Entry},
    volume_state::Core,
};
use crate::{
    failpoints::{self, AFTER_ERASE, AFTER_ERASE_SYNC},
    segment::{Location, erase::erase, set::SegmentError, writer::is_full},
};

/// Entries that are decided in one step.
const STEP: usize = 512;
/// Erased records that may wait for their tombstones.
const WAITING: usize = 32 * 1024;

/// What the master wants: see the message `SweepPlan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cycle's epoch.
    pub epoch: u64,
    /// What was put or touched in this epoch or later stays.
    pub floor: u64,
    /// Bits of placement groups.
    pub pg_bits: u32,
    /// Quarantines from this epoch on are trusted.
    pub erase_from: u64,
    /// Most bytes that may be quarantined.
    pub quarantine_bytes_max: u64,
    /// Count only.
    pub dry_run: bool,
    /// Give room back afterwards.
    pub reclaim: bool,
}

/// Chunks and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Chunks.
    pub chunks: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        self.chunks += 1;
        self.bytes += u64::from(entry.at.len);
    }
}

/// What a sweep has found and done so far: see the message `SweepProgress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Groups.
    pub groups: u32,
    /// Referred to.
    pub live: Tally,
    /// Not referred to, touched since the floor.
    pub young: Tally,
    /// Newly in quarantine.
    pub quarantined: Tally,
    /// In quarantine by this cycle already.
    pub waiting: Tally,
    /// Taken out of quarantine.
    pub restored: Tally,
    /// Gone.
    pub erased: Tally,
    /// Given back to the file systems.
    pub returned_bytes: u64,
}

/// Why a sweep does not begin, or stops. A sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The master's epoch is another.
    #[error("this node has epoch {known}, the sweep is of epoch {asked}")]
    Epoch {
        /// The node's.
        known: u64,
        /// The plan's.
        asked: u64,
    },
    /// The plan contradicts itself.
    #[error("the plan of the sweep makes no sense: floor {floor}, epoch {epoch}")]
    Plan {
        /// The plan's floor.
        floor: u64,
        /// The plan's epoch.
        epoch: u64,
    },
    /// Two at once.
    #[error("another sweep is under way on this node")]
    Busy,
    /// Far more would go than expected.
    #[error(
        "more than the {0} bytes that the usage counters account for would be quarantined: nothing more \
         was touched"
    )]
    TooMuch(u64),
    /// A disk failed.
    #[error("a disk failed during the sweep: {0}")]
    Disk(ChunkError),
}

/// One sweep under way. At most one exists for a store.
pub struct Sweep {
    store: Arc<Store>,
    plan: Plan,
    /// Everything counts as touched in this epoch at least.
    started_in: u64,
    swept: Swept,
    /// By volume.
    waiting: Vec<Waiting>,
}

/// Erased in the index, not yet on disk.
#[derive(Default)]
struct Waiting {
    /// Number of the core in which they are erased. Another may have them again.
    core: u64,
    records: Vec<(ChunkId, Location)>,
}

/// What a store knows of its sweeps.
#[derive(Debug)]
pub(super) struct Sweeping {
    /// One is under way.
    busy: AtomicBool,
    /// Room may lie in segments that could be given back.
    reclaim_due: AtomicBool,
}

impl Default for Sweeping {
    /// An earlier run may have left room behind.
    fn default() -> Self {
        Self { busy: AtomicBool::new(false), reclaim_due: AtomicBool::new(true) }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.store.sweeping.busy.store(false, Ordering::Release);
    }
}

/// What becomes of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Live,
    Young,
    Quarantine,
    Waiting,
    Restore,
    Erase,
}

impl Sweep {
    /// Begins.
    ///
    /// # Errors
    /// When the plan is not of the epoch that this node has, or another sweep is under way.
    pub fn begin(store: &Arc<Store>, plan: Plan) -> Result<Self, Stopped> {
        let known = store.epoch();
        if plan.epoch != known || !store.epoch_learned.load(Ordering::Acquire) {
            return Err(Stopped::Epoch { known, asked: plan.epoch });
        }
        if plan.floor >= plan.epoch {
            return Err(Stopped::Plan { floor: plan.floor, epoch: plan.epoch });
        }
        if store.sweeping.busy.swap(true, Ordering::AcqRel) {
            return Err(Stopped::Busy);
        }
        Ok(Self {
            store: Arc::clone(store),
            plan,
            started_in: store.floor.load(Ordering::Acquire),
            swept: Swept::default(),
            waiting: store.volumes.iter().map(|_| Waiting::default()).collect(),
        })
    }

    /// What was found and done so far.
    pub fn swept(&self) -> &Swept {
        &self.swept
    }

    /// Decides about every chunk of one group. Blocks for as long as the disks take.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub fn group(&mut self, group: Group, filter: &GarbageFilter) -> Result<(), Stopped> {
        let store = Arc::clone(&self.store);
        for (number, volume) in store.volumes.iter().enumerate() {
            if !volume.has_failed() && !volume.is_full() {
                self.group_on(number, volume, group, filter)?;
            }
        }
        self.swept.groups += 1;
        Ok(())
    }

    fn group_on(
        &mut self,
        number: usize,
        volume: &Volume,
        group: Group,
        filter: &GarbageFilter,
    ) -> Result<(), Stopped> {
        let (after, before) = ids_of(group, self.plan.pg_bits);
        let end =
            before.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.as_bytes()[..]));
        let mut after = after;
        let core = volume.core().map_err(Stopped::Disk)?;
        loop {
            let from =
                after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.as_bytes()[..]));
            let page: Result<Vec<_>, _> = core.index.entries((from, end)).take(STEP).collect();
            let page = page.map_err(|e| Stopped::Disk(volume.index_failed(&e)))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            self.decide(number, volume, &core, &page, filter)?;
        }
    }

    fn decide(
        &mut self,
        number: usize,
        volume: &Volume,
        core: &Core,
        page: &[(ChunkId, Entry)],
        filter: &GarbageFilter,
    ) -> Result<(), Stopped> {
        let mut suspects = Vec::new();
        for (id, entry) in page {
            match self.verdict(core, entry, filter.contains(id)) {
                // What is kept as it is needs no lock; it cannot become less worth keeping.
                Verdict::Live => self.swept.live.add(entry),
                Verdict::Young => self.swept.young.add(entry),
                Verdict::Quarantine | Verdict::Waiting | Verdict::Restore | Verdict::Erase => {
                    suspects.push((*id, *entry));
                }
            }
        }
        if self.plan.dry_run {
            for (id, entry) in &suspects {
                let verdict = self.verdict(core, entry, filter.contains(id));
                self.count(verdict, entry);
            }
            return Ok(());
        }
        let ids: Vec<_> = suspects.into_iter().map(|(id, _)| id).collect();
        let (mut erased, mut too_much) = (Vec::new(), false);
        volume.index_room().map_err(Stopped::Disk)?;
        let revised = core.index.revise(&ids, |id, entry| {
            let change = self.change(core, entry, filter.contains(id));
            too_much |= change.is_none();
            if change == Some(Change::Erase) {
                erased.push((*id, entry.at));
            }
            change.unwrap_or(Change::Keep)
        });
        revised.map_err(|e| Stopped::Disk(volume.index_failed(&e)))?;
        if !erased.is_empty() {
            volume.places().forget_all(erased.iter().map(|(id, _)| id));
            failpoints::hit(AFTER_ERASE);
        }
        if self.waiting[number].core != core.number {
            self.waiting[number] = Waiting { core: core.number, records: Vec::new() };
            self.store.sweeping.reclaim_due.store(true, Ordering::Release);
        }
        self.waiting[number].records.append(&mut erased);
        if self.waiting[number].records.len() >= WAITING {
            self.bury(number, false)?;
        }
        if too_much {
            return Err(Stopped::TooMuch(self.plan.quarantine_bytes_max));
        }
        Ok(())
    }

    /// What happens to an entry, counted; `None`: more than may be would be quarantined.
    fn change(&mut self, core: &Core, entry: &Entry, referred: bool) -> Option<Change> {
        let verdict = self.verdict(core, entry, referred);
        let bytes = self.swept.quarantined.bytes + u64::from(entry.at.len);
        if verdict == Verdict::Quarantine && bytes > self.plan.quarantine_bytes_max {
            return None;
        }
        self.count(verdict, entry);
        Some(match verdict {
            Verdict::Live | Verdict::Young | Verdict::Waiting => Change::Keep,
            Verdict::Quarantine => Change::Put(Entry { quarantined: self.plan.epoch, ..*entry }),
            Verdict::Restore => Change::Put(Entry { quarantined: 0, ..*entry }),
            Verdict::Erase => Change::Erase,
        })
    }

    fn verdict(&self, core: &Core, entry: &Entry, referred: bool) -> Verdict {
        let Plan { epoch, floor, erase_from, .. } = self.plan;
        if referred {
            return if entry.is_quarantined() { Verdict::Restore } else { Verdict::Live };
        }
        let settled = self.started_in.max(core.floor);
        if entry.epoch.max(settled) >= floor {
            return Verdict::Young;
        }
        // A quarantine of an earlier run may have been ended by a touch that was lost; one of a cycle
        // that was not trusted proves nothing.
        let trusted = entry.quarantined > settled && entry.quarantined >= erase_from;
        match (trusted, entry.quarantined < epoch) {
            (true, true) => Verdict::Erase,
            (true, false) => Verdict::Waiting,
            (false, _) => Verdict::Quarantine,
        }
    }

    fn count(&mut self, verdict: Verdict, entry: &Entry) {
        let tally = match verdict {
            Verdict::Live => &mut self.swept.live,
            Verdict::Young => &mut self.swept.young,
            Verdict::Quarantine => &mut self.swept.quarantined,
            Verdict::Waiting => &mut self.swept.waiting,
            Verdict::Restore => &mut self.swept.restored,
            Verdict::Erase => &mut self.swept.erased,
        };
        tally.add(entry);
    }

    /// Gives the room of erased records back, as far as that goes in place. With `reclaim`, what lies in segments that
    /// are about to be removed as a whole is left to that, and how it was found out is returned.
    ///
    /// Should the node end before, an index that is made anew has those chunks again, whole as they are: garbage for
    /// another cycle.
    fn bury(&mut self, number: usize, reclaim: bool) -> Result<Option<Survey>, Stopped> {
        let number_of_core = self.waiting[number].core;
        let mut records = std::mem::take(&mut self.waiting[number].records);
        if records.is_empty() {
            return Ok(None);
        }
        let volume = &self.store.volumes[number];
        let due = &self.store.sweeping.reclaim_due;
        // Held to the end: the index is not made anew from segments that change.
        let core = volume.core().ok().filter(|core| core.number == number_of_core);
        let Some(core) = core.filter(|_| !volume.is_full()) else {
            due.store(true, Ordering::Release);
            return Ok(None);
        };
        if let Err(e) = core.index.sync() {
            due.store(true, Ordering::Release);
            return Err(Stopped::Disk(volume.index_failed(&e)));
        }
        failpoints::hit(AFTER_ERASE_SYNC);
        let bytes = records.iter().map(|(_, at)| u64::from(at.len)).sum();
        self.store.activity.erased.add_many(records.len() as u64, bytes);
        let survey = match reclaim.then(|| Survey::of(volume, &core)).transpose() {
            Ok(survey) => survey,
            Err(ChunkError::NoSpace) => {
                due.store(true, Ordering::Release);
                return Ok(None);
            }
            Err(e) => return Err(Stopped::Disk(e)),
        };
        records.retain(|(_, at)| survey.as_ref().is_none_or(|survey| !survey.is_to_go(at.segment)));
        match erase(volume.segments(), &records) {
            Ok(bytes) => {
                self.swept.returned_bytes += bytes;
                self.store.activity.returned.fetch_add(bytes, Ordering::Relaxed);
            }
            // The room comes back when the segments are rewritten.
            Err(SegmentError::Io(e)) if is_full(&e) => {
                due.store(true, Ordering::Release);
            }
            // The chunks are gone all the same. A sync that failed ends the disk for puts, as ever.
            Err(e) => return Err(Stopped::Disk(volume.failed_to("erase chunks on", &e))),
        }
        Ok(survey)
    }

    /// Buries what is erased. Then, if that was asked for and anything may have gone since it was last
    /// done, gives back what could not be given back in place. `tick` is called now and then; false ends
    /// the second part early. Blocks.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub fn finish(&mut self, tick: &mut dyn FnMut(&Swept) -> bool) -> Result<(), Stopped> {
        let store = Arc::clone(&self.store);
        let mut surveys = Vec::with_capacity(store.volumes.len());
        for number in 0..store.volumes.len() {
            surveys.push(self.bury(number, self.plan.reclaim)?);
        }
        if self.plan.dry_run {
            return Ok(());
        }
        store.activity.sweeps.fetch_add(1, Ordering::Relaxed);
        let due = &store.sweeping.reclaim_due;
        due.fetch_or(self.swept.erased.chunks > 0, Ordering::AcqRel);
        if !self.plan.reclaim || !due.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        for (volume, survey) in store.volumes.iter().zip(surveys) {
            if volume.has_failed() {
                continue;
            }
            if volume.is_full() {
                due.store(true, Ordering::Release);
                continue;
            }
            let before = self.swept.returned_bytes;
            let swept = &mut self.swept;
            let reclaimed = compact::reclaim(volume, survey, &mut |returned| {
                swept.returned_bytes = before + returned;
                tick(swept)
            });
            let reclaimed = reclaimed.map_err(Stopped::Disk)?;
            self.swept.returned_bytes = before + reclaimed.bytes;
            store.activity.reclaimed(&reclaimed);
            due.fetch_or(!reclaimed.complete, Ordering::AcqRel);
        }
        Ok(())
    }
}
