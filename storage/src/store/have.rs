//! "Have you these?": yes for what is durable here, is not known to be damaged, and lies on a disk
//! that works.

use std::sync::Arc;

use cairn_proto::ChunkId;

use super::Store;

impl Store {
    /// Stored lengths of the chunks that are here, in the order of `ids`. With `touch` they are stamped
    /// with the epoch of the moment of this call, or a later one, before this returns.
    pub async fn have(self: &Arc<Self>, ids: Vec<ChunkId>, touch: bool) -> Vec<Option<u32>> {
        let store = Arc::clone(self);
        self.readers.run(move || ids.iter().map(|id| store.have_one(id, touch)).collect()).await
    }

    fn have_one(&self, id: &ChunkId, touch: bool) -> Option<u32> {
        let entry = self.volumes.iter().find_map(|volume| match touch {
            // What is about to be erased is no copy to rely on.
            false => volume.good_entry(id).filter(|entry| !entry.is_quarantined()),
            // Found and stamped in one: what a sweep erases is not answered yes.
            true => volume.touch(id, self.epoch()).ok().flatten(),
        });
        entry.map(|entry| entry.at.len)
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
