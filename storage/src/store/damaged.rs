//! [`Damaged`]: chunks whose stored bytes were found to be wrong since the node started.
//!
//! A put of such a chunk stores it anew instead of being answered from the index, and "have you?" is
//! answered no, so that a writer or a repair heals it. Bounded; a restart forgets.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_proto::ChunkId;

const MOST: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Damaged {
    any: AtomicBool,
    ids: Mutex<HashSet<ChunkId>>,
}

impl Damaged {
    /// Remembers a chunk.
    pub fn note(&self, id: &ChunkId) {
        let mut ids = self.lock();
        if ids.len() < MOST {
            ids.insert(*id);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Whether the chunk is known to be damaged.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.any.load(Ordering::Acquire) && self.lock().contains(id)
    }

    /// These are good again.
    pub fn forget(&self, healed: &[ChunkId]) {
        if healed.is_empty() {
            return;
        }
        let mut ids = self.lock();
        for id in healed {
            ids.remove(id);
        }
        self.any.store(!ids.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
