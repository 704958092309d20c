//! [`Hashing`]: SHA-256 away from the async workers, on at most [`THREADS`] threads at a time.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Measured: two threads keep up with what two connections deliver.
const THREADS: usize = 2;
/// Hashing so little takes less time than handing it to another thread.
const INLINE: usize = 16 * 1024;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    threads: Arc<Semaphore>,
}

impl Hashing {
    pub(super) fn new() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)) }
    }

    /// The id of `data`.
    ///
    /// # Errors
    /// `Unreachable` when the runtime is being shut down.
    pub(super) async fn id_of(&self, data: Bytes) -> Result<ChunkId, ChunkError> {
        if data.len() <= INLINE {
            return Ok(ChunkId::of(&data));
        }
        let permit = self.threads.clone().acquire_owned().await;
        let job = spawn_blocking(move || {
            let id = ChunkId::of(&data);
            drop(permit);
            id
        });
        job.await.map_err(|_| ChunkError::Unreachable)
    }

    /// Runs `job`, which hashes `bytes` bytes. Returns when it has begun: who has much to hash waits
    /// for a thread.
    pub(super) async fn submit(&self, bytes: usize, job: impl FnOnce() + Send + 'static) {
        if bytes <= INLINE {
            job();
            return;
        }
        let permit = self.threads.clone().acquire_owned().await;
        spawn_blocking(move || {
            job();
            drop(permit);
        });
    }
}
