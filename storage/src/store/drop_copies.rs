//! Drop: takes copies out that others have. Whether they have them is the caller's business.

use std::sync::atomic::Ordering;

use cairn_proto::{ChunkError, ChunkId};

use super::{Store, index::Totals};

impl Store {
    /// Takes out every copy of these chunks that has not been stamped since with a newer epoch than the
    /// one given, and the number and bytes of the chunks that went. Blocks.
    ///
    /// # Errors
    /// `NoSpace` when a disk is full, `DiskFailed` when an index cannot be used.
    pub fn drop_copies(&self, chunks: &[(ChunkId, u64)]) -> Result<Totals, ChunkError> {
        let floor = self.floor.load(Ordering::Acquire);
        let mut gone = Totals::default();
        for volume in &self.volumes {
            let core = volume.core()?;
            let floor = floor.max(core.floor);
            let mut entries = Vec::new();
            for (id, stamp) in chunks {
                let entry = volume.entry_in(&core, id)?;
                let entry = entry.filter(|entry| entry.epoch.max(floor) <= *stamp);
                entries.extend(entry.map(|entry| (*id, entry)));
            }
            let here = volume.remove(&core, &entries)?;
            gone.chunks += here.chunks;
            gone.bytes += here.bytes;
        }
        Ok(gone)
    }

    /// Takes out copies that are known to be damaged where another disk here has a good one. Blocks.
    pub(super) fn drop_damaged(&self, ids: &[ChunkId]) {
        for (n, volume) in self.volumes.iter().enumerate().filter(|(_, v)| v.damaged() > 0) {
            let healed = |id: &&ChunkId| {
                let mut others = self.volumes.iter().enumerate().filter(|(other, _)| *other != n);
                volume.is_damaged(id) && others.any(|(_, other)| other.read_verified(id).is_ok())
            };
            let Ok(core) = volume.core() else { continue };
            let entries = ids.iter().filter(healed).filter_map(|id| {
                volume.entry_in(&core, id).ok().flatten().map(|entry| (*id, entry))
            });
            let entries: Vec<_> = entries.collect();
            if !entries.is_empty() && volume.remove(&core, &entries).is_ok() {
                tracing::info!(
                    chunks = entries.len(),
                    "damaged copies are gone: another disk has good ones"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::ChunkError;

    use crate::{
        segment::writer::Record,
        store::{
            Put,
            tests::{Rig, chunk},
        },
    };

    #[tokio::test]
    async fn a_copy_keeps_the_stamp_that_it_has_elsewhere() {
        let rig = Rig::new(1);
        rig.store().learn_epoch(9);
        let ((id, data), (other, _)) = (chunk(1), chunk(2));
        let copy = |id| Record { id, data: data.clone(), epoch: 4 };
        let outcome = rig.store().put_copies(vec![copy(id), copy(other)]).await;
        assert_eq!(outcome, [Ok(Put::Stored), Err(ChunkError::Mismatch)]);
        assert_eq!(rig.store().volumes[0].good_entry(&id).unwrap().epoch, 4);
        // Stamped here later than the caller knows: it stays.
        rig.store().have(vec![id], true).await;
        assert_eq!(rig.store().drop_copies(&[(id, 8)]).unwrap().chunks, 0);
        assert_eq!(rig.store().drop_copies(&[(id, 9)]).unwrap().chunks, 1);
        assert_eq!(rig.store().copies(), 0);
    }
}
