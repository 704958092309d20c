//! [`Mark`]: filters of what is referred to, group by group.
//!
//! The snapshot is walked once to count (which also proves that nothing is missed: the sum of stored
//! lengths has to be what the usage counters say), then once for each range of groups whose filters fit
//! into [`FILTERS_MAX`] together. So memory is bounded by that, however many references there are; 64 MiB
//! are 33 million. Blocks: for a thread of its own.

use std::ops::Range;

use bytes::Bytes;
use cairn_proto::{
    ChunkId, Group,
    garbage_filter::{GarbageFilter, filter_bytes},
};

use crate::namespace::View;

/// Bytes of filters in memory at once; one group alone may exceed it.
const FILTERS_MAX: u64 = 64 << 20;

/// What is referred to of one group.
#[derive(Clone, Debug)]
pub(crate) struct Marked {
    /// Which.
    pub(crate) group: u32,
    /// How many references.
    pub(crate) references: u64,
    /// The filter.
    pub(crate) bits: Bytes,
}

/// A snapshot that has been counted.
pub(crate) struct Mark {
    view: View,
    /// Bits of groups.
    pub(crate) pg_bits: u32,
    /// Of the filters.
    pub(crate) salt: u64,
    counts: Vec<u64>,
    /// References of files.
    pub(crate) references: u64,
    /// Sum of their stored lengths.
    pub(crate) bytes: u64,
}

impl Mark {
    /// Counts.
    ///
    /// # Errors
    /// Why the snapshot cannot be trusted, as a sentence.
    pub(crate) fn count(view: View, pg_bits: u32, salt: u64) -> Result<Self, String> {
        let mut counts = vec![0u64; 1 << pg_bits];
        let (mut references, mut bytes) = (0u64, 0u64);
        let walked = view.references(&mut |chunk| {
            counts[Group::of(&chunk.id, pg_bits).0 as usize] += 1;
            references += 1;
            bytes += u64::from(chunk.stored_len);
            true
        });
        walked.map_err(|error| format!("the metadata cannot be read: {error}"))?;
        let counted = view.counters().map_err(|error| error.to_string())?.referenced_bytes;
        if counted != bytes {
            return Err(format!(
                "files refer to {bytes} bytes of chunks, but the usage counters say {counted}: nothing \
                 is collected. Run `cairn fsck --repair`"
            ));
        }
        let backups = view.backup_chunks(&mut |id| {
            counts[Group::of(&id, pg_bits).0 as usize] += 1;
        });
        backups.map_err(|error| format!("the metadata cannot be read: {error}"))?;
        Ok(Self { view, pg_bits, salt, counts, references, bytes })
    }

    /// Ranges of groups whose filters fit into memory together, in order.
    pub(crate) fn ranges(&self) -> Vec<Range<u32>> {
        ranges(&self.counts, FILTERS_MAX)
    }

    /// The filters of a range of groups.
    ///
    /// # Errors
    /// When the metadata cannot be read, as a sentence.
    pub(crate) fn filters(&self, groups: &Range<u32>) -> Result<Vec<Marked>, String> {
        let empty =
            |group: u32| GarbageFilter::with_room_for(self.counts[group as usize], self.salt);
        let mut filters: Vec<_> = groups.clone().map(empty).collect();
        let mut insert = |id: &ChunkId| {
            let group = Group::of(id, self.pg_bits).0;
            if groups.contains(&group) {
                filters[(group - groups.start) as usize].insert(id);
            }
        };
        let walked = self.view.references(&mut |chunk| {
            insert(&chunk.id);
            true
        });
        let walked = walked.and_then(|()| self.view.backup_chunks(&mut |id| insert(&id)));
        walked.map_err(|error| format!("the metadata cannot be read: {error}"))?;
        let marked = groups.clone().zip(filters).map(|(group, filter)| Marked {
            group,
            references: self.counts[group as usize],
            bits: filter.into_bits(),
        });
        Ok(marked.collect())
    }
}

fn ranges(counts: &[u64], most: u64) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut bytes = 0;
    for (group, count) in (0u32..).zip(counts) {
        let more = filter_bytes(*count);
        match ranges.last_mut() {
            Some(last) if bytes + more <= most => last.end = group + 1,
            Some(_) | None => {
                bytes = 0;
                ranges.push(group..group + 1);
            }
        }
        bytes += more;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_group_once_and_stay_within_memory() {
        assert_eq!(ranges(&[0; 4], 100), vec![Range { start: 0, end: 4 }]);
        // 4 references take 8 bytes.
        assert_eq!(ranges(&[4, 4, 4, 4, 400, 4], 16), [0..2, 2..4, 4..5, 5..6]);
        assert_eq!(ranges(&[7], 1), vec![Range { start: 0, end: 1 }]);
    }
}
