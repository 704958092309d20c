//! Locate: where chunks lie, for clients on this machine that read and verify them themselves.
//!
//! A chunk may be moved, erased or be damaged before or while they read it: then what they read is not what the
//! id names, and they get it from us.

use std::{sync::Arc, time::Instant};

use cairn_proto::{ChunkError, ChunkId, pb};

use super::{Store, Volume};
use crate::segment::Location;

impl Store {
    /// The places of chunks, in the order of `ids`. `None` when others cannot read our files.
    pub async fn locate(
        self: &Arc<Self>,
        ids: &[ChunkId],
    ) -> Option<Vec<Result<pb::Place, ChunkError>>> {
        let started = Instant::now();
        let now = ids.iter().map(|id| self.located_now(id).map(Ok));
        let found = match now.collect::<Option<Vec<_>>>() {
            Some(found) => found,
            None => {
                let (store, ids) = (Arc::clone(self), ids.to_vec());
                self.readers.run(move || store.locate_all(&ids)).await
            }
        };
        let place = |found: Result<(usize, Location), ChunkError>| match found {
            Ok((volume, at)) => {
                let (file, offset) = self.volumes[volume].segments().place(at)?;
                Some(Ok(pb::Place { file, offset, length: at.len }))
            }
            Err(error) => Some(Err(error)),
        };
        let places: Vec<_> = found.into_iter().map(place).collect::<Option<_>>()?;
        let lengths = places.iter().map(|place| match place {
            Ok(place) => Ok(place.length as usize),
            Err(error) => Err(*error),
        });
        self.activity.got(lengths, started.elapsed());
        Some(places)
    }

    fn located_now(&self, id: &ChunkId) -> Option<(usize, Location)> {
        let located = self.volumes.iter().map(|volume| volume.locate_now(id));
        located.enumerate().find_map(|(v, at)| Some((v, at?)))
    }

    fn locate_all(&self, ids: &[ChunkId]) -> Vec<Result<(usize, Location), ChunkError>> {
        ids.iter().map(|id| self.first(id, Volume::locate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::tests::{Rig, chunk, put_all};

    #[tokio::test]
    async fn what_was_put_lately_is_found_without_the_index() {
        let mut rig = Rig::new(2);
        put_all(rig.store(), 0..20).await;
        let ids: Vec<_> = (0..20).map(|seed| chunk(seed).0).collect();
        let known = |rig: &Rig| ids.iter().filter_map(|id| rig.store().located_now(id)).collect();
        let noted: Vec<_> = known(&rig);
        assert_eq!(noted.len(), 20);
        let indexed: Vec<_> =
            rig.store().locate_all(&ids).into_iter().map(|found| found.unwrap()).collect();
        assert_eq!(noted, indexed);
        rig.reopen().await;
        assert!(known(&rig).is_empty(), "nothing is known yet");
        rig.store().locate_all(&ids);
        assert_eq!(known(&rig), indexed);
    }
}
