//! [`Damaged`]: chunks whose stored bytes were found to be wrong and that are not healed yet.
//!
//! A put of such a chunk stores it anew instead of being answered from the index, and "have you?" is
//! answered no, so that a writer or a repair heals it. This is the part in memory; the index keeps the
//! same set on disk ([`Index::note_damaged`](super::index::Index::note_damaged)). Bounded.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_proto::ChunkId;

/// What is found beyond this many is found again when these are healed.
const MOST: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Damaged {
    any: AtomicBool,
    ids: Mutex<HashSet<ChunkId>>,
}

impl Damaged {
    /// Remembers a chunk; false when it is known already, or one too many.
    pub fn note(&self, id: &ChunkId) -> bool {
        let mut ids = self.lock();
        let new = ids.len() < MOST && ids.insert(*id);
        if new {
            self.any.store(true, Ordering::Release);
        }
        new
    }

    /// Whether the chunk is known to be damaged.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.any.load(Ordering::Acquire) && self.lock().contains(id)
    }

    /// It is good again, or gone; whether it was known to be damaged.
    pub fn forget(&self, id: &ChunkId) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut ids = self.lock();
        let was = ids.remove(id);
        self.any.store(!ids.is_empty(), Ordering::Release);
        was
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        if self.any.load(Ordering::Acquire) { self.lock().len() as u64 } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
