//! Where the references of a file lie: the first few in its inode, the others in segments of 128,
//! which files share until one of them changes its own.
//!
//! The slots of the inode's own references are empty in segment 0. A segment without references does
//! not exist. No reference lies at or beyond the end of the file.

use cairn_proto::{
    ChunkRef,
    limits::SEGMENT_REFS,
    range::{chunk_count, len_within},
};

use super::{Namespace, inodes::Inode};
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::{
            INLINE_REFS, LIST_SEGMENTS, ListEntry, ListRow, ReclaimRow, SegmentRow, ShareRow,
            Slots, ref_rows, slots, stored_bytes,
        },
        source::{self, Source},
    },
};

/// The references that a chunk index belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Home {
    Inode,
    Segment(u64),
}

impl Home {
    /// Where chunk `index` lies, and in which slot.
    pub(super) const fn of(index: u64) -> (Self, usize) {
        if index < INLINE_REFS {
            (Self::Inode, index as usize)
        } else {
            (Self::Segment(index / SEGMENT_REFS), (index % SEGMENT_REFS) as usize)
        }
    }
}

/// The references of one home, to be changed and stored again.
pub(super) struct Part {
    pub(super) home: Home,
    pub(super) slots: Slots,
    entry: Option<ListEntry>,
}

/// The place of segment `number` in the lists of `ino`.
const fn list_slot(number: u64) -> (u64, u32) {
    (number / LIST_SEGMENTS, (number % LIST_SEGMENTS) as u32)
}

pub(super) fn read_segment(source: &mut dyn Source, id: u64) -> Result<Slots, EngineError> {
    let key = keys::segment(id);
    let row: SegmentRow = source::row(source, &key)?
        .ok_or_else(|| EngineError::Damaged(format!("segment {id} is missing")))?;
    slots(&row.refs, SEGMENT_REFS, "a segment")
}

impl Namespace {
    pub(super) fn list_entry(
        &mut self,
        ino: u64,
        number: u64,
    ) -> Result<Option<ListEntry>, EngineError> {
        let (index, slot) = list_slot(number);
        let row: Option<ListRow> = source::row(&mut self.group, &keys::list(ino, index))?;
        Ok(row.and_then(|row| row.entries.into_iter().find(|entry| entry.slot == slot)))
    }

    /// Lets segment `number` of the file be (segment, stored bytes), or nothing.
    pub(super) fn set_list_entry(
        &mut self,
        ino: u64,
        number: u64,
        new: Option<(u64, u64)>,
    ) -> Result<(), EngineError> {
        let (index, slot) = list_slot(number);
        let key = keys::list(ino, index);
        let mut row: ListRow = source::row(&mut self.group, &key)?.unwrap_or_default();
        let at = row.entries.partition_point(|entry| entry.slot < slot);
        if row.entries.get(at).is_some_and(|entry| entry.slot == slot) {
            row.entries.remove(at);
        }
        if let Some((segment, stored)) = new {
            row.entries.insert(at, ListEntry { slot, segment, stored });
        }
        self.put_list(key, &row);
        Ok(())
    }

    fn put_list(&mut self, key: bytes::Bytes, row: &ListRow) {
        if row.entries.is_empty() {
            self.group.delete(key);
        } else {
            self.group.put_row(key, row);
        }
    }

    pub(super) fn load_part(&mut self, inode: &Inode, home: Home) -> Result<Part, EngineError> {
        let (slots, entry) = match home {
            Home::Inode => (slots(&inode.row.refs, INLINE_REFS, "an inode")?, None),
            Home::Segment(number) => match self.list_entry(inode.ino, number)? {
                None => (vec![None; SEGMENT_REFS as usize], None),
                Some(entry) => (read_segment(&mut self.group, entry.segment)?, Some(entry)),
            },
        };
        Ok(Part { home, slots, entry })
    }

    /// Stores a changed part, in a new segment when others use the old one. Updates `allocated`; the
    /// caller stores the inode.
    pub(super) fn store_part(&mut self, inode: &mut Inode, part: &Part) -> Result<(), EngineError> {
        let stored = stored_bytes(&part.slots);
        let number = match part.home {
            Home::Inode => {
                let before = stored_bytes(&slots(&inode.row.refs, INLINE_REFS, "an inode")?);
                inode.row.refs = ref_rows(&part.slots);
                inode.row.allocated = inode.row.allocated.saturating_sub(before) + stored;
                return Ok(());
            }
            Home::Segment(number) => number,
        };
        let before = part.entry.map_or(0, |entry| entry.stored);
        inode.row.allocated = inode.row.allocated.saturating_sub(before) + stored;
        let own = match part.entry {
            Some(entry) if stored != 0 && self.users(entry.segment)? == 1 => Some(entry.segment),
            Some(entry) => {
                self.release_segment(entry.segment)?;
                None
            }
            None => None,
        };
        if stored == 0 {
            return self.set_list_entry(inode.ino, number, None);
        }
        let segment = match own {
            Some(segment) => segment,
            None => self.ids.segment(self.group.engine().as_ref())?,
        };
        let row = SegmentRow { refs: ref_rows(&part.slots) };
        self.group.put_row(keys::segment(segment), &row);
        self.set_list_entry(inode.ino, number, Some((segment, stored)))
    }

    fn users(&mut self, segment: u64) -> Result<u64, EngineError> {
        let row: Option<ShareRow> = source::row(&mut self.group, &keys::share(segment))?;
        Ok(row.map_or(1, |row| row.users))
    }

    /// One more list names the segment.
    pub(super) fn share_segment(&mut self, segment: u64) -> Result<(), EngineError> {
        let users = self.users(segment)? + 1;
        self.group.put_row(keys::share(segment), &ShareRow { users });
        Ok(())
    }

    /// One list less names the segment; the last takes it with it.
    pub(super) fn release_segment(&mut self, segment: u64) -> Result<(), EngineError> {
        match self.users(segment)? {
            0 | 1 => self.group.delete(keys::segment(segment)),
            2 => self.group.delete(keys::share(segment)),
            users => {
                self.group.put_row(keys::share(segment), &ShareRow { users: users - 1 });
            }
        }
        Ok(())
    }

    /// Writes consecutive references from chunk `first` on. The caller stores the inode.
    pub(super) fn put_refs(
        &mut self,
        inode: &mut Inode,
        first: u64,
        refs: &[Option<ChunkRef>],
    ) -> Result<(), EngineError> {
        let mut part: Option<Part> = None;
        for (index, chunk) in (first..).zip(refs) {
            let (home, slot) = Home::of(index);
            if part.as_ref().is_none_or(|part| part.home != home) {
                if let Some(done) = part.take() {
                    self.store_part(inode, &done)?;
                }
                part = Some(self.load_part(inode, home)?);
            }
            if let Some(part) = &mut part {
                part.slots[slot] = *chunk;
            }
        }
        part.map_or(Ok(()), |done| self.store_part(inode, &done))
    }

    /// Cuts the references of a file at `size`, which is less than its length: the last one is
    /// clipped, those behind it go; whole segments are freed later. The caller sets the length.
    pub(super) fn cut(&mut self, inode: &mut Inode, size: u64) -> Result<(), EngineError> {
        let keep = chunk_count(size, self.chunk_size);
        let first_dropped = if keep <= INLINE_REFS { 0 } else { keep.div_ceil(SEGMENT_REFS) };
        let mut homes = vec![Home::Inode];
        if let Some(last) = keep.checked_sub(1) {
            homes.push(Home::of(last).0);
        }
        homes.dedup();
        for home in homes {
            let mut part = self.load_part(inode, home)?;
            let base = match home {
                Home::Inode => 0,
                Home::Segment(number) => number * SEGMENT_REFS,
            };
            let before = part.slots.clone();
            for (index, slot) in (base..).zip(&mut part.slots) {
                let len = len_within(index, size, self.chunk_size);
                *slot = slot.and_then(|chunk| chunk.clipped(len));
            }
            if part.slots != before {
                self.store_part(inode, &part)?;
            }
        }
        if chunk_count(inode.row.size, self.chunk_size) > INLINE_REFS {
            self.drop_segments_from(inode, first_dropped)?;
        }
        Ok(())
    }

    /// Takes segments `first..` off the file. Costs a row for each 64 of them, not one for each.
    fn drop_segments_from(&mut self, inode: &mut Inode, first: u64) -> Result<(), EngineError> {
        let (mut index, slot) = list_slot(first);
        let mut from_slot = slot;
        loop {
            let range = Table::Lists.of_from(inode.ino, index);
            let page = self.group.page(&range, 256)?;
            let Some((last, _)) = page.last().cloned() else { return Ok(()) };
            for (key, value) in page {
                let row: ListRow = source::decode(&key, value)?;
                let boundary = if source::second(&key)? == index { from_slot } else { 0 };
                let (kept, dropped): (Vec<_>, Vec<_>) =
                    row.entries.into_iter().partition(|entry| entry.slot < boundary);
                if dropped.is_empty() {
                    continue;
                }
                let stored: u64 = dropped.iter().map(|entry| entry.stored).sum();
                inode.row.allocated = inode.row.allocated.saturating_sub(stored);
                self.put_list(key, &ListRow { entries: kept });
                self.reclaim_later(dropped.iter().map(|entry| entry.segment).collect())?;
            }
            index = source::second(&last)?.saturating_add(1);
            from_slot = 0;
        }
    }

    fn reclaim_later(&mut self, segments: Vec<u64>) -> Result<(), EngineError> {
        let number = self.ids.segment(self.group.engine().as_ref())?;
        self.group.put_row(keys::reclaim(number), &ReclaimRow { segments });
        self.reclaim.wake_cut(number);
        Ok(())
    }
}
