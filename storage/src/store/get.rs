//! Get: find the record, read it, check its frame. Hashing is the client's part.

use std::{iter, sync::Arc, time::Instant};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId};

use super::{GET_BATCH_BYTES, Store, Volume};

impl Store {
    /// Reads chunks, in the order of `ids`. What does not fit into one answer is `Overloaded`: ask
    /// again. The caller holds what [`Store::admit_get`] gave.
    pub async fn get(self: &Arc<Self>, ids: Vec<ChunkId>) -> Vec<Result<Bytes, ChunkError>> {
        let started = Instant::now();
        let store = Arc::clone(self);
        // A thread that may block costs more than a copy from the kernel's memory does.
        if let [id] = &ids[..]
            && let Some(data) = self.volumes.iter().find_map(|volume| volume.read_now(id))
        {
            self.activity.got(iter::once(Ok(data.len())), started.elapsed());
            return vec![Ok(data)];
        }
        let results: Vec<_> = self
            .readers
            .run(move || {
                if ids.len() > 1 {
                    store.volumes.iter().for_each(|volume| volume.expect(&ids));
                }
                let mut bytes = 0;
                let mut read = |id: &ChunkId| {
                    if bytes > 0 && bytes + u64::from(store.limits.chunk_size) > GET_BATCH_BYTES {
                        return Err(ChunkError::Overloaded);
                    }
                    let data = store.read_one(id, Volume::read)?;
                    bytes += data.len() as u64;
                    Ok(data)
                };
                ids.iter().map(&mut read).collect()
            })
            .await;
        self.activity.got(results.iter().map(length), started.elapsed());
        results
    }

    /// Reads one chunk and checks its hash, for clients that do not.
    ///
    /// # Errors
    /// `NotFound` or `Damaged`.
    pub async fn get_verified(self: &Arc<Self>, id: ChunkId) -> Result<Bytes, ChunkError> {
        let started = Instant::now();
        let store = Arc::clone(self);
        // Who asks may not have found it where we said.
        self.volumes.iter().for_each(|volume| volume.places().forget(&id));
        let result = self.readers.run(move || store.read_one(&id, Volume::read_verified)).await;
        self.activity.got(iter::once(length(&result)), started.elapsed());
        result
    }

    fn read_one(
        &self,
        id: &ChunkId,
        read: impl Fn(&Volume, &ChunkId) -> Result<Bytes, ChunkError>,
    ) -> Result<Bytes, ChunkError> {
        self.first(id, read).map(|(_, data)| data)
    }

    /// The first volume that gives the chunk, and what it gives. A damaged copy counts only when no other is there.
    pub(super) fn first<T>(
        &self,
        id: &ChunkId,
        give: impl Fn(&Volume, &ChunkId) -> Result<T, ChunkError>,
    ) -> Result<(usize, T), ChunkError> {
        let mut why = ChunkError::NotFound;
        for v in self.order(id) {
            match give(&self.volumes[v], id) {
                Ok(given) => return Ok((v, given)),
                Err(ChunkError::NotFound) => {}
                Err(e) => why = e,
            }
        }
        Err(why)
    }
}

fn length(result: &Result<Bytes, ChunkError>) -> Result<usize, ChunkError> {
    result.as_ref().map(Bytes::len).map_err(|error| *error)
}
