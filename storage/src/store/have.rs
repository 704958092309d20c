//! "Have you these?": yes for what is durable here, is not known to be damaged, and lies on a disk
//! that works.

use std::sync::Arc;

use cairn_proto::ChunkId;

use super::Store;

impl Store {
    /// Stored lengths of the chunks that are here, in the order of `ids`. With `touch` they are stamped
    /// with the current epoch before this returns.
    pub async fn have(self: &Arc<Self>, ids: Vec<ChunkId>, touch: bool) -> Vec<Option<u32>> {
        let store = Arc::clone(self);
        self.readers.run(move || ids.iter().map(|id| store.have_one(id, touch)).collect()).await
    }

    fn have_one(&self, id: &ChunkId, touch: bool) -> Option<u32> {
        let epoch = self.epoch();
        self.volumes.iter().find_map(|volume| {
            let entry = volume.good_entry(id)?;
            if touch && entry.epoch < epoch {
                volume.touch(&[*id], epoch).ok()?;
            }
            Some(entry.at.len)
        })
    }

    /// Those that are not here, or damaged. What is in quarantine is here.
    pub async fn missing<T: Send + 'static>(
        self: &Arc<Self>,
        chunks: Vec<T>,
        id: impl Fn(&T) -> &ChunkId + Send + 'static,
    ) -> Vec<T> {
        let store = Arc::clone(self);
        let is_here =
            move |chunk: &T| store.volumes.iter().any(|v| v.good_entry(id(chunk)).is_some());
        self.readers.run(move || chunks.into_iter().filter(|c| !is_here(c)).collect()).await
    }
}
