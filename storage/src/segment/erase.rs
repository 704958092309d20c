//! Erased records: their frames become tombstones, then the room of their payloads is given back.
//!
//! The caller has made durable that no index names the records. The order here is the other half of the
//! promise: a frame may only be believed while its payload is there, since a recovery that makes the
//! index anew believes frames. So tombstones are synced before a hole is punched.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
};

use cairn_proto::ChunkId;

use super::{
    Location, SegmentId,
    format::{FRAME_LEN, Frame, record_len},
    set::{SegmentError, SegmentSet},
};
use crate::{
    disk::{read_full, write_full},
    failpoints::{self, AFTER_PUNCH, AFTER_TOMBSTONE},
};

/// Holes are made of whole blocks of this size.
const BLOCK: u64 = 4096;

/// Erases records: bytes that were given back. A segment that is no longer there needs nothing.
///
/// # Errors
/// Whatever the disk answers; then some of the room is not given back, and nothing else is wrong.
pub fn erase(set: &SegmentSet, records: &[(ChunkId, Location)]) -> Result<u64, SegmentError> {
    let mut by_segment: BTreeMap<SegmentId, Vec<(ChunkId, Location)>> = BTreeMap::new();
    for record in records {
        by_segment.entry(record.1.segment).or_default().push(*record);
    }
    let mut returned = 0;
    for (segment, records) in by_segment {
        match erase_in(set, segment, &records) {
            Ok(bytes) => returned += bytes,
            Err(SegmentError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(returned)
}

fn erase_in(
    set: &SegmentSet,
    segment: SegmentId,
    records: &[(ChunkId, Location)],
) -> Result<u64, SegmentError> {
    let segment = set.get(segment)?;
    // An error of writing back is told once to each open file: what the writer of this segment has not synced yet must
    // fail its sync, not ours.
    let file = set.disk().open(&segment.id.file_name())?;
    let mut buried = Vec::with_capacity(records.len());
    for (id, at) in records {
        let mut bytes = [0; FRAME_LEN];
        read_full(&*segment.file, &mut bytes, at.offset)?;
        // Only what is known to be this record is written over.
        let frame = Frame::decode(&bytes, segment.salt, at.offset);
        let Some(frame) = frame.filter(|f| f.id == *id && f.len == at.len) else { continue };
        let tombstone = frame.encode_tombstone(segment.salt, at.offset);
        write_full(&*file, &mut [IoSlice::new(&tombstone)], at.offset)?;
        buried.push(*at);
    }
    file.sync()?;
    failpoints::hit(AFTER_TOMBSTONE);
    let mut returned = 0;
    for at in buried {
        let (start, end) = payload_blocks(at);
        if start < end && file.punch(start, end - start)? {
            returned += end - start;
        }
    }
    failpoints::hit(AFTER_PUNCH);
    Ok(returned)
}

/// The whole blocks that hold nothing but the record's payload.
fn payload_blocks(at: Location) -> (u64, u64) {
    let start = (at.offset + FRAME_LEN as u64).next_multiple_of(BLOCK);
    let end = (at.offset + record_len(at.len)) / BLOCK * BLOCK;
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_of_the_payload_go() {
        let at = |offset, len| Location { segment: SegmentId(1), offset, len };
        assert_eq!(payload_blocks(at(64, 65_536)), (4096, 65_536));
        assert_eq!(payload_blocks(at(4096 - 64, 4096)), (4096, 8192));
        let (start, end) = payload_blocks(at(64, 4096));
        assert!(start >= end, "no whole block lies in it");
    }
}
