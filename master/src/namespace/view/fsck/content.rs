//! The references of a file: whole, before its end, adding up.

use cairn_proto::{
    limits::SEGMENT_REFS,
    range::{chunk_count, len_within},
};

use super::{Check, Stop};
use crate::{
    engine::{Direction, EngineError},
    namespace::{Remedy, segments::read_segment},
    tables::{
        keys::Table,
        rows::{INLINE_REFS, InodeRow, LIST_SEGMENTS, ListRow, Slots, slots, stored_bytes},
        source,
    },
};

impl Check<'_> {
    pub(super) fn file(&mut self, ino: u64, row: &InodeRow) -> Result<(), Stop> {
        let version = row.version;
        let refs = slots(&row.refs, INLINE_REFS, "an inode")?;
        let mut allocated = stored_bytes(&refs);
        self.references(ino, row, 0, &refs);
        let reader = self.reader();
        for pair in reader.scan(Table::Lists.of(ino), Direction::Forward) {
            let (key, value) = pair?;
            let list: ListRow = source::decode(&key, value)?;
            let base = source::second(&key)? * LIST_SEGMENTS;
            for entry in list.entries {
                let number = base + u64::from(entry.slot);
                let refs = match read_segment(&mut self.source, entry.segment) {
                    Ok(refs) => refs,
                    Err(EngineError::Damaged(why)) => {
                        self.say(format!("inode {ino}: {why}"));
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let stored = stored_bytes(&refs);
                if stored != entry.stored || stored == 0 {
                    let (segment, counted) = (entry.segment, entry.stored);
                    let what = format!(
                        "inode {ino} counts {counted} bytes in segment {segment}, which has {stored}"
                    );
                    self.say_with(what, Remedy::Stored { ino, version, number, segment, stored });
                }
                if number == 0 && refs.iter().zip(0..INLINE_REFS).any(|(r, _)| r.is_some()) {
                    self.say(format!(
                        "inode {ino}: its first segment holds the inode's own chunks"
                    ));
                }
                allocated += stored;
                self.references(ino, row, number * SEGMENT_REFS, &refs);
                self.step()?;
            }
        }
        if allocated != row.allocated {
            let what = format!("inode {ino} refers to {allocated} bytes, not {}", row.allocated);
            self.say_with(what, Remedy::Allocated { ino, version, allocated });
        }
        Ok(())
    }

    fn references(&mut self, ino: u64, row: &InodeRow, base: u64, refs: &Slots) {
        let end = chunk_count(row.size, self.chunk_size);
        for (index, chunk) in (base..).zip(refs) {
            let Some(chunk) = chunk else { continue };
            self.progress.references += 1;
            if index >= end || chunk.logical_len > len_within(index, row.size, self.chunk_size) {
                self.say(format!("inode {ino}: chunk {index} reaches beyond its end"));
            }
            if chunk.stored_len == 0 || chunk.logical_len == 0 {
                self.say(format!("inode {ino}: chunk {index} is empty"));
            }
        }
    }
}
