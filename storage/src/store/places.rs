//! [`Places`]: where chunks lay that were read lately, so that reading them again asks no index.
//!
//! Only a hint, never told of changes: a record's frame says whether it is still the one that was there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_proto::ChunkId;
use lru::LruCache;

use crate::segment::Location;

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

    fn lock(&self) -> MutexGuard<'_, LruCache<ChunkId, Location>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
