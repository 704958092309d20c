//! Lists chunks by cursor, all volumes merged, in the order of ids.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use cairn_proto::{ChunkError, ChunkId};

use super::Store;

/// A chunk in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: ChunkId,
    /// Length of its data.
    pub len: u32,
    /// Epoch in which it was last put or touched.
    pub epoch: u64,
    /// Every copy is quarantined or damaged: no part of its group's digest.
    pub uncounted: bool,
}

impl Store {
    /// Up to `limit` chunks with ids greater than `after` and less than `before`.
    ///
    /// # Errors
    /// `DiskFailed` when an index cannot be read.
    pub async fn list(
        self: &Arc<Self>,
        after: Option<ChunkId>,
        before: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<Listed>, ChunkError> {
        let store = Arc::clone(self);
        self.readers.run(move || store.list_now(after.as_ref(), before.as_ref(), limit)).await
    }

    fn list_now(
        &self,
        after: Option<&ChunkId>,
        before: Option<&ChunkId>,
        limit: usize,
    ) -> Result<Vec<Listed>, ChunkError> {
        let floor = self.floor.load(Ordering::Acquire);
        let mut merged: BTreeMap<ChunkId, Listed> = BTreeMap::new();
        for volume in &self.volumes {
            let core = volume.core()?;
            let floor = floor.max(core.floor);
            for (id, entry) in volume.page_of(&core, after, limit)? {
                if before.is_some_and(|before| id >= *before) {
                    break;
                }
                let (epoch, uncounted) =
                    (entry.epoch.max(floor), !volume.counts(&core, &id, &entry));
                let new = Listed { id, len: entry.at.len, epoch, uncounted };
                let listed = merged.entry(id).or_insert(new);
                listed.epoch = listed.epoch.max(epoch);
                listed.uncounted &= uncounted;
            }
            while merged.len() > limit {
                merged.pop_last();
            }
        }
        Ok(merged.into_values().collect())
    }
}
