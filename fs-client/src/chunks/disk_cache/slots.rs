//! [`Slots`]: the two files of a disk cache.
//!
//! `chunks` is a row of slots, each as long as the largest chunk; a chunk begins where its slot begins,
//! and what its slot has beyond it is a hole that takes no room. `table` is a row of records, one for each
//! slot, little-endian:
//!
//! ```text
//! id [u8; 32], stamp u64, length u32 (0: nothing is there), 0 u32
//! ```
//!
//! Stamps grow in the order in which chunks came; a mount that ends renumbers them in the order of use.
//! Nothing is ever synced. Whatever a crash makes of the two is found out by the id: a record that is torn
//! or out of date names a chunk that its slot does not hold. So no checksum is needed, and a chunk is
//! written before its record.
//!
//! Every call may block for as long as the disk does: not for async workers.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read as _, Seek as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use cairn_proto::ChunkId;
use rustix::fs::{FallocateFlags, fallocate};

use super::{
    directory::{CHUNKS, TABLE, private},
    index::{Bounds, Left, tag},
};

/// Bytes of a record.
const RECORD: u64 = 48;
/// Records that are read and written in a go.
const BATCH: usize = 16 << 10;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Slots {
    table: File,
    chunks: File,
    bounds: Bounds,
}

/// What an earlier mount has left.
#[derive(Debug)]
pub(super) struct Contents {
    /// How many slots there are.
    pub(super) slots: u32,
    /// What is in them.
    pub(super) left: Vec<Left>,
    /// Greater than every stamp.
    pub(super) next_stamp: u64,
}

/// Whether the disk has no room, rather than a fault.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn record(id: &ChunkId, stamp: u64, len: u32) -> [u8; RECORD as usize] {
    let mut record = [0; RECORD as usize];
    record[..32].copy_from_slice(id.as_bytes());
    record[32..40].copy_from_slice(&stamp.to_le_bytes());
    record[40..44].copy_from_slice(&len.to_le_bytes());
    record
}

/// Stamp and length of a record; `None` when nothing is there or it makes no sense.
fn parse(record: &[u8], longest: u32) -> Option<(ChunkId, u64, u32)> {
    let id = ChunkId::from_bytes(record[..32].try_into().ok()?);
    let stamp = u64::from_le_bytes(record[32..40].try_into().ok()?);
    let len = u32::from_le_bytes(record[40..44].try_into().ok()?);
    let sound = len != 0 && len <= longest && record[44..] == [0; 4] && stamp < u64::MAX;
    sound.then_some((id, stamp, len))
}

impl Slots {
    /// Opens the files in `dir`, or makes them; they get no longer than `limit` bytes allow.
    pub(super) fn open(dir: &Path, limit: u64, slot_size: u32) -> io::Result<Self> {
        let open = |name| private().create(true).truncate(false).open(dir.join(name));
        let (table, chunks) = (open(TABLE)?, open(CHUNKS)?);
        let mut bounds = Bounds { limit, slot_size, sparse: true };
        let beyond = u64::from(bounds.most_slots()) * u64::from(slot_size);
        bounds.sparse = punch(&chunks, beyond, u64::from(slot_size)).is_ok();
        Ok(Self { table, chunks, bounds })
    }

    /// How much there may be.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Reads the table. What there is beyond it, or beyond what there may be, is cut off.
    pub(super) fn load(&self) -> io::Result<Contents> {
        let there = self.table.metadata()?.len() / RECORD;
        let slots = u32::try_from(there).unwrap_or(u32::MAX).min(self.bounds.most_slots());
        self.table.set_len(u64::from(slots) * RECORD)?;
        let end = self.at(slots);
        if self.chunks.metadata()?.len() > end {
            self.chunks.set_len(end)?;
        }
        let mut contents = Contents { slots, left: Vec::new(), next_stamp: 1 };
        let mut table = BufReader::with_capacity(1 << 20, &self.table);
        table.rewind()?;
        let mut record = [0; RECORD as usize];
        for slot in 0..slots {
            table.read_exact(&mut record)?;
            if let Some((id, stamp, len)) = parse(&record, self.bounds.slot_size) {
                contents.left.push(Left { stamp, tag: tag(&id), slot, len });
                contents.next_stamp = contents.next_stamp.max(stamp + 1);
            }
        }
        Ok(contents)
    }

    /// Reads from the beginning of `slot`; `UnexpectedEof` when it was never written.
    pub(super) fn read(&self, slot: u32, data: &mut [u8]) -> io::Result<()> {
        self.chunks.read_exact_at(data, self.at(slot))
    }

    /// Puts a chunk into `slot`, which holds `before` bytes that count no longer.
    pub(super) fn write(
        &self,
        slot: u32,
        (id, stamp): (&ChunkId, u64),
        data: &[u8],
        before: u32,
    ) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(|_| ErrorKind::InvalidInput)?;
        self.chunks.write_all_at(data, self.at(slot))?;
        let (kept, taken) = (self.bounds.cost(len), self.bounds.cost(before));
        if self.bounds.sparse && before != 0 && taken > kept {
            punch(&self.chunks, self.at(slot) + kept, taken - kept)?;
        }
        self.table.write_all_at(&record(id, stamp, len), u64::from(slot) * RECORD)
    }

    /// Empties `slot` and gives its room back.
    pub(super) fn clear(&self, slot: u32) -> io::Result<()> {
        let size = u64::from(self.bounds.slot_size);
        // Full disks refuse even that; then the room is found again when the next mount comes.
        let fine = |error: io::Error| if is_full(&error) { Ok(()) } else { Err(error) };
        if self.bounds.sparse {
            punch(&self.chunks, self.at(slot), size).or_else(fine)?;
        }
        let empty = [0; RECORD as usize];
        self.table.write_all_at(&empty, u64::from(slot) * RECORD).or_else(fine)
    }

    /// Gives room back that no slot accounts for, if there is much of it: a power cut may have lost
    /// records. `lengths` are those of what is in the slots.
    pub(super) fn trim(&self, lengths: impl Iterator<Item = u32> + Clone) -> io::Result<()> {
        let counted: u64 =
            lengths.clone().filter(|len| *len != 0).map(|l| self.bounds.cost(l)).sum();
        let taken = self.chunks.metadata()?.blocks() * 512;
        if !self.bounds.sparse || taken <= counted + counted / 32 + (1 << 20) {
            return Ok(());
        }
        for (slot, len) in (0..).zip(lengths) {
            let kept = if len == 0 { 0 } else { self.bounds.cost(len) };
            let rest = u64::from(self.bounds.slot_size).saturating_sub(kept);
            if rest > 0 {
                punch(&self.chunks, self.at(slot) + kept, rest)?;
            }
        }
        Ok(())
    }

    /// Gives each record the stamp that `ranks` has for its slot; 0: none.
    pub(super) fn renumber(&self, ranks: &[u32]) -> io::Result<()> {
        let mut at = 0;
        for ranks in ranks.chunks(BATCH) {
            let mut records = vec![0; ranks.len() * RECORD as usize];
            self.table.read_exact_at(&mut records, at)?;
            for (record, rank) in records.chunks_exact_mut(RECORD as usize).zip(ranks) {
                if *rank != 0 {
                    record[32..40].copy_from_slice(&u64::from(*rank).to_le_bytes());
                }
            }
            self.table.write_all_at(&records, at)?;
            at += records.len() as u64;
        }
        Ok(())
    }

    fn at(&self, slot: u32) -> u64 {
        u64::from(slot) * u64::from(self.bounds.slot_size)
    }
}

fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, at, len).map_err(io::Error::from)
}
