//! Get: find the record, read it, check its frame. Hashing is the client's part.

use std::{slice, sync::Arc, time::Instant};

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
            let result = vec![Ok(data)];
            self.activity.got(&result, started.elapsed());
            return result;
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
        self.activity.got(&results, started.elapsed());
        results
    }

    /// Reads one chunk and checks its hash, for clients that do not.
    ///
    /// # Errors
    /// `NotFound` or `Damaged`.
    pub async fn get_verified(self: &Arc<Self>, id: ChunkId) -> Result<Bytes, ChunkError> {
        let started = Instant::now();
        let store = Arc::clone(self);
        let result = self.readers.run(move || store.read_one(&id, Volume::read_verified)).await;
        self.activity.got(slice::from_ref(&result), started.elapsed());
        result
    }

    /// The first volume that gives the chunk. A damaged copy counts only when no other is there.
    fn read_one(
        &self,
        id: &ChunkId,
        read: impl Fn(&Volume, &ChunkId) -> Result<Bytes, ChunkError>,
    ) -> Result<Bytes, ChunkError> {
        let mut why = ChunkError::NotFound;
        for v in self.order(id) {
            match read(&self.volumes[v], id) {
                Ok(data) => return Ok(data),
                Err(ChunkError::NotFound) => {}
                Err(e) => why = e,
            }
        }
        Err(why)
    }
}
