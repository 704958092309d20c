//! [`Places`]: where chunks lay that were put or read lately, so that reading them asks no index, nor a thread that
//! may wait for its disk.
//!
//! Only a hint: whoever reads there checks that it is the chunk, by the record's frame or by the chunk's hash. Where
//! that was not so, where a segment is removed and where chunks are erased, the hints are forgotten.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_proto::ChunkId;
use lru::LruCache;

use crate::segment::{Location, SegmentId};

/// 2 GiB worth of whole chunks; about 4 MiB of memory.
const MOST: usize = 32 * 1024;

/// See the module.
pub struct Places(Mutex<LruCache<ChunkId, Location>>);

impl Default for Places {
    fn default() -> Self {
        // Without a capacity: room is taken when it is needed.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl Places {
    /// `id` lies at `at`.
    pub fn note(&self, id: &ChunkId, at: Location) {
        self.note_all([(*id, at)]);
    }

    /// As [`Places::note`], of each.
    pub fn note_all(&self, chunks: impl IntoIterator<Item = (ChunkId, Location)>) {
        let mut places = self.lock();
        for (id, at) in chunks {
            places.put(id, at);
        }
        while places.len() > MOST {
            places.pop_lru();
        }
    }

    /// Where `id` was when it was last heard of.
    pub fn of(&self, id: &ChunkId) -> Option<Location> {
        self.lock().get(id).copied()
    }

    /// `id` may be elsewhere by now.
    pub fn forget(&self, id: &ChunkId) {
        self.forget_all([id]);
    }

    /// As [`Places::forget`], of each.
    pub fn forget_all<'a>(&self, ids: impl IntoIterator<Item = &'a ChunkId>) {
        let mut places = self.lock();
        for id in ids {
            places.pop(id);
        }
    }

    /// Nothing lies in `segment` any more.
    pub fn forget_segment(&self, segment: SegmentId) {
        let mut places = self.lock();
        let gone: Vec<_> =
            places.iter().filter(|(_, at)| at.segment == segment).map(|(id, _)| *id).collect();
        for id in &gone {
            places.pop(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ChunkId, Location>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
