//! [`Places`]: where chunks lay that were read lately, so that reading them again asks no index.
//!
//! Only a hint: whoever reads there checks that it is the chunk, by the record's frame or by the chunk's hash. Where
//! that was not so, and where a segment is removed, the hints are forgotten.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_proto::ChunkId;
use lru::LruCache;

use crate::segment::{Location, SegmentId};

/// 1 GiB worth of whole chunks; about 2 MiB of memory.
const MOST: usize = 16 * 1024;

/// See the module.
pub struct Places(Mutex<LruCache<ChunkId, Location>>);

impl Default for Places {
    fn default() -> Self {
        // Without a capacity: room is taken when it is needed.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl Places {
    /// `id` was read from `at`.
    pub fn note(&self, id: &ChunkId, at: Location) {
        let mut places = self.lock();
        places.put(*id, at);
        while places.len() > MOST {
            places.pop_lru();
        }
    }

    /// Where `id` was when it was read last.
    pub fn of(&self, id: &ChunkId) -> Option<Location> {
        self.lock().get(id).copied()
    }

    /// `id` may be elsewhere by now.
    pub fn forget(&self, id: &ChunkId) {
        self.lock().pop(id);
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
