//! [`DirtyMap`]: bytes that were written and not handed to a node yet, by chunk. Pure, but for the
//! budget permits that its chunks carry.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use cairn_proto::range::{ChunkSpan, spans};
use tokio::sync::OwnedSemaphorePermit;

use super::extents::{EXTENT, Extents};

/// A part of the byte budget. Given back when dropped.
pub type Permit = OwnedSemaphorePermit;

/// What a chunk takes, however little of it was written: its entry, and its upload when it is its turn.
const CHUNK: usize = 4096;

/// The most that a write of `len` bytes takes of the budget, wherever it goes.
pub const fn cost_at_most(len: usize, chunk_size: u32) -> usize {
    let chunk = if chunk_size == 0 { 1 } else { chunk_size as usize };
    len + (len / chunk + 2) * (EXTENT + CHUNK)
}

/// The dirty bytes of one chunk.
#[derive(Debug)]
pub struct DirtyChunk {
    ours: Extents<Vec<u8>>,
    /// Count of the map when the first byte came.
    born: u64,
    /// What it takes of the budget.
    cost: usize,
    permit: Option<Permit>,
}

impl DirtyChunk {
    fn new(born: u64) -> Self {
        Self { ours: Extents::default(), born, cost: 0, permit: None }
    }

    fn pay(&mut self, cost: usize, permit: Option<Permit>) {
        self.cost += cost;
        match (&mut self.permit, permit) {
            (Some(all), Some(permit)) => all.merge(permit),
            (all @ None, permit) => *all = permit,
            (Some(_), None) => {}
        }
    }

    /// The bytes and their part of the budget.
    pub fn into_parts(self) -> (Extents<Bytes>, Option<Permit>) {
        (self.ours.freeze(), self.permit)
    }

    /// The bytes.
    pub fn ours(&self) -> &Extents<Vec<u8>> {
        &self.ours
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct DirtyMap {
    chunk_size: u32,
    chunks: BTreeMap<u64, DirtyChunk>,
    births: u64,
    /// What all of them take of the budget.
    cost: usize,
}

impl DirtyMap {
    /// An empty map for chunks of `chunk_size` bytes.
    pub fn new(chunk_size: u32) -> Self {
        Self { chunk_size, chunks: BTreeMap::new(), births: 0, cost: 0 }
    }

    /// What a write of `len` bytes at `offset` would take of the budget.
    pub fn lacks(&self, offset: u64, len: u64) -> usize {
        let lacks = |span: ChunkSpan| match self.chunks.get(&span.index) {
            Some(chunk) => chunk.ours.lacks(span.start, span.end),
            None => span.len() as usize + EXTENT + CHUNK,
        };
        spans(offset, len, self.chunk_size).map(lacks).sum()
    }

    /// Takes `data` in. `permit` is asked for a part of the budget for each chunk that grows. Answers the
    /// chunks that are dirty from end to end now.
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        mut permit: impl FnMut(usize) -> Option<Permit>,
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
                    entry.insert(DirtyChunk::new(self.births))
                }
            };
            let entry = if chunk.cost == 0 { CHUNK } else { 0 };
            let cost = chunk.ours.lacks(span.start, span.end) + entry;
            if cost > 0 {
                chunk.pay(cost, permit(cost));
                self.cost += cost;
            }
            chunk.ours.write(span.start, bytes, self.chunk_size);
            if chunk.ours.covers(0, self.chunk_size) {
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
        let chunk = self.chunks.remove(&index)?;
        self.cost -= chunk.cost;
        Some(chunk)
    }

    /// Whether chunk `index` is dirty from end to end.
    pub fn is_full(&self, index: u64) -> bool {
        self.chunks.get(&index).is_some_and(|c| c.ours.covers(0, self.chunk_size))
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
        self.cost = 0;
        std::mem::take(&mut self.chunks)
    }

    /// What all of it takes of the budget.
    pub fn cost(&self) -> usize {
        self.cost
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

    const SIZE: u32 = 16;

    proptest! {
        #[test]
        fn what_was_written_is_what_is_read_back(
            writes in prop::collection::vec((0u64..100, 1usize..40), 1..10),
        ) {
            let mut map = DirtyMap::new(SIZE);
            let mut model = vec![None; 160];
            for (i, &(offset, len)) in writes.iter().enumerate() {
                let byte = u8::try_from(i + 1).unwrap();
                let (lacks, before) = (map.lacks(offset, len as u64), map.cost());
                prop_assert!(lacks <= cost_at_most(len, SIZE));
                let mut asked = 0;
                let full = map.write(offset, &vec![byte; len], |cost| { asked += cost; None });
                prop_assert_eq!((asked, map.cost()), (lacks, before + lacks));
                for index in full {
                    prop_assert!(map.is_full(index));
                }
                model[usize::try_from(offset).unwrap()..][..len].fill(Some(byte));
            }
            for index in 0..10u64 {
                let at = usize::try_from(index).unwrap() * SIZE as usize;
                let expected = &model[at..at + SIZE as usize];
                let mut out = [0; SIZE as usize];
                if let Some(chunk) = map.get(index) {
                    chunk.ours().overlay(0, &mut out);
                }
                let written: Vec<u8> = expected.iter().map(|b| b.unwrap_or(0)).collect();
                prop_assert_eq!(&out[..], &written[..]);
                prop_assert_eq!(map.is_full(index), expected.iter().all(Option::is_some));
            }
            for index in 0..10u64 {
                map.take(index);
            }
            prop_assert_eq!((map.cost(), map.len()), (0, 0));
        }
    }

    #[test]
    fn a_mark_divides_old_chunks_from_new_ones() {
        let mut map = DirtyMap::new(SIZE);
        map.write(0, &[1; 20], |_| None);
        let mark = map.mark();
        map.write(40, &[1; 4], |_| None);
        map.write(4, &[2; 4], |_| None);
        assert_eq!(map.before(mark), [0, 1]);
        assert_eq!(map.before(map.mark()), [0, 1, 2]);
    }
}
