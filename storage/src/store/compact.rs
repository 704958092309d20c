//! Compaction: room of erased chunks that holes could not give back.
//!
//! A sealed segment that no entry names is removed. One of which less than three quarters are named is
//! rewritten: what is named is copied by the writer thread, with its stamp, made durable, and named there;
//! then the old file goes. The newest segment is sealed first when it is mostly dead. Whoever reads from
//! the old place meanwhile looks again in the index.
//!
//! Of a sealed segment entries only go, so a count of them is never too low; a segment of which not every
//! counted entry was found stays.

use std::{collections::BTreeMap, io, ops::Bound, sync::atomic::Ordering};

use cairn_proto::{ChunkError, ChunkId};

use super::{Volume, volume_state::Core, writer::Move};
use crate::{
    failpoints::{self, AFTER_REMOVE, BEFORE_REMOVE},
    segment::{
        SegmentId,
        format::{HEADER_LEN, record_len},
        scan::Scan,
        set::{Segment, SegmentError},
        writer::Record,
    },
};

/// A rewritten segment gives back this much at least: two blocks.
const WASTE_MIN: u64 = 8 * 1024;
/// The newest segment is sealed for this much at least.
const WASTE_MIN_NEWEST: u64 = 1024 * 1024;
/// Copied in one step: puts wait no longer than for that.
const STEP_BYTES: usize = 2 * 1024 * 1024;

/// What was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reclaimed {
    /// Segments that nothing named.
    pub(super) removed: u64,
    /// Segments of which the rest was copied.
    pub(super) rewritten: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// False when something was left for the next time.
    pub(super) complete: bool,
}

/// What entries name of one segment.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    entries: u64,
    bytes: u64,
}

/// What a core's entries name, segment by segment.
pub(super) struct Survey {
    core: u64,
    /// The first segment that may not have been counted whole.
    end: SegmentId,
    named: BTreeMap<SegmentId, Named>,
}

impl Survey {
    /// Looks at every entry. Blocks.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full, `DiskFailed` when it fails.
    pub(super) fn of(volume: &Volume, core: &Core) -> Result<Self, ChunkError> {
        // Read before entries are counted: a segment that is sealed in between is not counted whole.
        let end = first_unsealed(volume);
        Ok(Self { core: core.number, end, named: count(volume, core)? })
    }

    /// Whether [`reclaim`] removes the segment as a whole: no entry names it, and none will.
    pub(super) fn is_to_go(&self, segment: SegmentId) -> bool {
        segment < self.end && !self.named.contains_key(&segment)
    }
}

/// Gives room back; `tick` hears how much so far and says false to end. `survey`: one that was made before.
/// Blocks.
///
/// # Errors
/// `NoSpace` when the disk is full, `DiskFailed` when it fails.
pub(super) fn reclaim(
    volume: &Volume,
    survey: Option<Survey>,
    tick: &mut dyn FnMut(u64) -> bool,
) -> Result<Reclaimed, ChunkError> {
    let mut done = Reclaimed { removed: 0, rewritten: 0, bytes: 0, complete: true };
    // Another core could name what this one does not.
    let core = &*volume.core()?;
    let mut survey = match survey.filter(|survey| survey.core == core.number) {
        Some(survey) => survey,
        None => Survey::of(volume, core)?,
    };
    if newest_is_wasteful(volume, survey.end, &survey.named)? {
        volume.roll()?;
        survey = Survey::of(volume, core)?;
    }
    let Survey { end, named, .. } = survey;
    let failed = |e: &io::Error| volume.io_failed("list the segments of", e);
    for id in volume.segments().list_below(end).map_err(|e| failed(&e))? {
        if !tick(done.bytes) {
            done.complete = false;
            break;
        }
        match one(volume, core, id, named.get(&id).copied().unwrap_or_default(), &mut done) {
            Ok(()) => {}
            Err(ChunkError::NoSpace) => {
                tracing::warn!(disk = volume.name(), segment = %id, "no room to rewrite a segment: its dead part stays");
                done.complete = false;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What entries name of each segment. Entries of segments that are still growing are counted in part.
fn count(volume: &Volume, core: &Core) -> Result<BTreeMap<SegmentId, Named>, ChunkError> {
    let mut named: BTreeMap<SegmentId, Named> = BTreeMap::new();
    for entry in core.index.entries((Bound::Unbounded, Bound::Unbounded)) {
        // Who opens the index again waits for this.
        if volume.is_full() {
            return Err(ChunkError::NoSpace);
        }
        let (_, entry) = entry.map_err(|e| volume.index_failed(&e))?;
        let named = named.entry(entry.at.segment).or_default();
        named.entries += 1;
        named.bytes += record_len(entry.at.len);
    }
    Ok(named)
}

const fn is_wasteful(named: u64, taken: u64, least: u64) -> bool {
    taken.saturating_sub(named) >= least && named / 3 < taken / 4
}

fn first_unsealed(volume: &Volume) -> SegmentId {
    SegmentId(volume.first_unsealed().load(Ordering::Acquire))
}

fn newest_is_wasteful(
    volume: &Volume,
    newest: SegmentId,
    named: &BTreeMap<SegmentId, Named>,
) -> Result<bool, ChunkError> {
    let reserved = volume.reserved();
    let taken = match volume.segments().get(newest) {
        Ok(segment) => segment.file.taken().map_err(|e| volume.io_failed("examine", &e))?,
        // There is none yet.
        Err(_) => return Ok(false),
    };
    let bytes = named.get(&newest).map_or(0, |named| named.bytes);
    Ok(is_wasteful(bytes, taken.saturating_sub(reserved), WASTE_MIN_NEWEST))
}

fn one(
    volume: &Volume,
    core: &Core,
    id: SegmentId,
    named: Named,
    done: &mut Reclaimed,
) -> Result<(), ChunkError> {
    let segment = match volume.segments().get(id) {
        Ok(segment) => segment,
        Err(SegmentError::Io(e)) if e.kind() != io::ErrorKind::NotFound => {
            return Err(volume.io_failed("open a segment of", &e));
        }
        // What cannot be read is not ours to remove.
        Err(_) => return Ok(()),
    };
    let taken = segment.file.taken().map_err(|e| volume.io_failed("examine", &e))?;
    if named.entries == 0 {
        remove(volume, core, id)?;
        done.removed += 1;
        done.bytes += taken;
        return Ok(());
    }
    if !is_wasteful(named.bytes, taken, WASTE_MIN) {
        return Ok(());
    }
    if rewrite(volume, core, &segment, named)? {
        remove(volume, core, id)?;
        done.rewritten += 1;
        done.bytes += taken.saturating_sub(named.bytes);
    } else {
        done.complete = false;
    }
    Ok(())
}

/// The file of a segment that no entry names.
fn remove(volume: &Volume, core: &Core, id: SegmentId) -> Result<(), ChunkError> {
    core.index.forget_segment(id).map_err(|e| volume.index_failed(&e))?;
    failpoints::hit(BEFORE_REMOVE);
    // Before, so that few are sent there in vain; and what was noted meanwhile.
    volume.places().forget_segment(id);
    volume.segments().remove(id).map_err(|e| volume.io_failed("remove a segment of", &e))?;
    volume.places().forget_segment(id);
    failpoints::hit(AFTER_REMOVE);
    Ok(())
}

/// Copies what entries name of a segment; true when that was everything.
fn rewrite(
    volume: &Volume,
    core: &Core,
    segment: &Segment,
    named: Named,
) -> Result<bool, ChunkError> {
    let unreadable = |e: &io::Error| volume.io_failed("read", e);
    let mut scan = Scan::new(segment, HEADER_LEN, true).map_err(|e| unreadable(&e))?;
    let (mut found, mut bytes, mut moves) = (0, 0, Vec::new());
    while let Some(record) = scan.next_record().map_err(|e| unreadable(&e))? {
        let id: ChunkId = record.frame.id;
        let Some(entry) = volume.entry_in(core, &id)?.filter(|entry| entry.at == record.at) else {
            continue;
        };
        // A damaged chunk keeps its segment until it is healed.
        let Ok(data) = volume.read_verified(&id) else { return Ok(false) };
        found += 1;
        bytes += data.len();
        moves.push(Move { record: Record { id, data, epoch: entry.epoch }, from: record.at });
        if bytes >= STEP_BYTES {
            bytes = 0;
            volume.relocate(std::mem::take(&mut moves))?;
        }
    }
    volume.relocate(moves)?;
    Ok(found == named.entries)
}
