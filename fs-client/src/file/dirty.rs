//! [`DirtyMap`]: bytes that were written and not handed to a node yet, by chunk. Pure, but for the
//! budget permits that its chunks carry.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use cairn_proto::range::spans;
use tokio::sync::OwnedSemaphorePermit;

use super::{cut::overlay, ranges::Ranges};

/// A part of the byte budget: one chunk buffer. Given back when dropped.
pub type Permit = OwnedSemaphorePermit;

/// The dirty bytes of one chunk.
#[derive(Debug)]
pub struct DirtyChunk {
    /// Indexed like the chunk; zero outside `ranges`.
    data: Vec<u8>,
    ranges: Ranges,
    /// Count of the map when the first byte came.
    born: u64,
    permit: Option<Permit>,
}

impl DirtyChunk {
    fn new(born: u64, permit: Option<Permit>) -> Self {
        Self { data: Vec::new(), ranges: Ranges::default(), born, permit }
    }

    fn write(&mut self, start: u32, bytes: &[u8], chunk_size: u32) {
        let (from, to) = (start as usize, start as usize + bytes.len());
        if to > self.data.capacity() {
            let wanted = to.max(self.data.capacity() * 2).min(chunk_size as usize);
            self.data.reserve_exact(wanted - self.data.len());
        }
        if from == self.data.len() {
            self.data.extend_from_slice(bytes);
        } else {
            if to > self.data.len() {
                self.data.resize(to, 0);
            }
            self.data[from..to].copy_from_slice(bytes);
        }
        self.ranges.insert(start, to as u32);
    }

    /// What it consists of: data (zero outside the ranges), ranges, permit.
    pub fn into_parts(self) -> (Bytes, Ranges, Option<Permit>) {
        (self.data.into(), self.ranges, self.permit)
    }

    /// A copy of data and ranges.
    pub fn copy(&self) -> (Bytes, Ranges) {
        (Bytes::copy_from_slice(&self.data), self.ranges.clone())
    }

    /// A copy of the part `start..end`, indexed like the chunk all the same.
    pub fn copy_range(&self, start: u32, end: u32) -> (Ranges, Bytes) {
        let mut ranges = Ranges::default();
        let mut data = vec![0; end as usize];
        for (s, e) in self.ranges.within(start, end) {
            ranges.insert(s, e);
            data[s as usize..e as usize].copy_from_slice(&self.data[s as usize..e as usize]);
        }
        (ranges, data.into())
    }

    /// Which bytes are dirty.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Copies the dirty bytes over `out`, which begins at position `start` of the chunk.
    pub fn overlay(&self, start: u32, out: &mut [u8]) {
        overlay(&self.ranges, &self.data, start, out);
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct DirtyMap {
    chunk_size: u32,
    chunks: BTreeMap<u64, DirtyChunk>,
    births: u64,
}

impl DirtyMap {
    /// An empty map for chunks of `chunk_size` bytes.
    pub fn new(chunk_size: u32) -> Self {
        Self { chunk_size, chunks: BTreeMap::new(), births: 0 }
    }

    /// How many chunks a write of `len` bytes at `offset` would add.
    pub fn missing(&self, offset: u64, len: u64) -> usize {
        spans(offset, len, self.chunk_size).filter(|s| !self.chunks.contains_key(&s.index)).count()
    }

    /// Takes `data` in. `permit` is asked for each chunk that is added. Answers the chunks that are
    /// dirty from end to end now.
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        mut permit: impl FnMut() -> Option<Permit>,
    ) -> Vec<u64> {
        let mut full = Vec::new();
        let mut rest = data;
        for span in spans(offset, data.len() as u64, self.chunk_size) {
            let (bytes, after) = rest.split_at(span.len() as usize);
            rest = after;
            let chunk = match self.chunks.entry(span.index) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    self.births += 1;
                    entry.insert(DirtyChunk::new(self.births, permit()))
                }
            };
            chunk.write(span.start, bytes, self.chunk_size);
            if chunk.ranges.covers(0, self.chunk_size) {
                full.push(span.index);
            }
        }
        full
    }

    /// The dirty part of chunk `index`.
    pub fn get(&self, index: u64) -> Option<&DirtyChunk> {
        self.chunks.get(&index)
    }

    /// Takes chunk `index` out.
    pub fn take(&mut self, index: u64) -> Option<DirtyChunk> {
        self.chunks.remove(&index)
    }

    /// Whether chunk `index` is dirty from end to end.
    pub fn is_full(&self, index: u64) -> bool {
        self.chunks.get(&index).is_some_and(|c| c.ranges.covers(0, self.chunk_size))
    }

    /// A mark between everything written so far and everything written later.
    pub fn mark(&self) -> u64 {
        self.births
    }

    /// Indexes of the chunks that were first written before `mark`.
    pub fn before(&self, mark: u64) -> Vec<u64> {
        self.chunks.iter().filter(|(_, c)| c.born <= mark).map(|(index, _)| *index).collect()
    }

    /// The chunks in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &DirtyChunk)> {
        self.chunks.iter().map(|(index, chunk)| (*index, chunk))
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> BTreeMap<u64, DirtyChunk> {
        std::mem::take(&mut self.chunks)
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u32 = 16;

    proptest! {
        #[test]
        fn what_was_written_is_what_is_read_back(
            writes in prop::collection::vec((0u64..100, 1usize..40), 1..10),
        ) {
            let mut map = DirtyMap::new(CHUNK);
            let mut model = vec![None; 160];
            for (i, &(offset, len)) in writes.iter().enumerate() {
                let byte = u8::try_from(i + 1).unwrap();
                let added = map.missing(offset, len as u64);
                let mut asked = 0;
                let full = map.write(offset, &vec![byte; len], || { asked += 1; None });
                prop_assert_eq!(asked, added);
                for index in full {
                    prop_assert!(map.is_full(index));
                }
                model[usize::try_from(offset).unwrap()..][..len].fill(Some(byte));
            }
            for index in 0..10u64 {
                let at = usize::try_from(index).unwrap() * CHUNK as usize;
                let expected = &model[at..at + CHUNK as usize];
                let mut out = [0; CHUNK as usize];
                if let Some(chunk) = map.get(index) {
                    chunk.overlay(0, &mut out);
                    prop_assert!(chunk.data.capacity() <= CHUNK as usize);
                }
                let written: Vec<u8> = expected.iter().map(|b| b.unwrap_or(0)).collect();
                prop_assert_eq!(&out[..], &written[..]);
                prop_assert_eq!(map.is_full(index), expected.iter().all(Option::is_some));
            }
        }
    }

    #[test]
    fn a_mark_divides_old_chunks_from_new_ones() {
        let mut map = DirtyMap::new(CHUNK);
        map.write(0, &[1; 20], || None);
        let mark = map.mark();
        map.write(40, &[1; 4], || None);
        map.write(4, &[2; 4], || None);
        assert_eq!(map.before(mark), [0, 1]);
        assert_eq!(map.before(map.mark()), [0, 1, 2]);
    }
}
