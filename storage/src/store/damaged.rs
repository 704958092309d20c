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

    /// All of them.
    pub fn ids(&self) -> Vec<ChunkId> {
        self.lock().iter().copied().collect()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        if self.any.load(Ordering::Acquire) { self.lock().len() as u64 } else { 0 }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::ChunkError;

    use crate::{
        disk::fault::Call,
        segment::{SegmentId, format::HEADER_LEN},
        store::tests::{Rig, assert_all, chunk, put_all},
    };

    /// Damages the first record of the first segment and has it found.
    fn damage(rig: &Rig) {
        rig.disks[0].flip_bit(&SegmentId(1).file_name(), HEADER_LEN as usize + 64);
        rig.store().verify(|_| true).unwrap();
        assert_eq!(rig.store().damaged(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn healing_that_is_cut_short_leaves_the_chunk_known_as_damaged() {
        for seed in 0..6 {
            let mut rig = Rig::new(1);
            put_all(rig.store(), 0..40).await;
            damage(&rig);
            // The copy that would heal it is not durable when the power goes.
            rig.disks[0].fail_nth(Call::Sync, 1, libc::EIO);
            let ids: Vec<_> = (0..40).map(|n| chunk(n).0).collect();
            for n in 0..40 {
                rig.store().put(vec![chunk(n)]).await;
            }
            let after = rig.disks[0].power_cut(seed);
            rig.close().await;
            rig.disks[0] = after;
            rig.open();
            // Healed by what recovery found and checked, or known; never believed, never lost.
            let lacking = rig.store().have(ids, false).await.iter().filter(|h| h.is_none()).count();
            assert_eq!(lacking as u64, rig.store().damaged(), "seed {seed}");
            assert!(lacking <= 1, "seed {seed}");
            put_all(rig.store(), 0..40).await;
            assert_eq!(rig.store().damaged(), 0, "seed {seed}");
            assert_all(rig.store(), 0..40).await;
        }
    }

    #[tokio::test]
    async fn what_the_disk_could_not_read_for_a_while_is_good_again_when_it_can() {
        let rig = Rig::new(1);
        put_all(rig.store(), 0..20).await;
        let (id, data) = chunk(3);
        rig.disks[0].fail_nth(Call::Read, 1, libc::EIO);
        assert_eq!(rig.store().get(vec![id]).await, [Err(ChunkError::Damaged)]);
        assert_eq!(rig.store().have(vec![id], false).await, [None]);
        assert_eq!(rig.store().get(vec![id]).await, [Err(ChunkError::Damaged)]);
        assert_eq!(rig.store().get_verified(id).await, Ok(data.clone()));
        assert_eq!(rig.store().damaged(), 0);
        assert_eq!(rig.store().get(vec![id]).await, [Ok(data)]);
    }
}
