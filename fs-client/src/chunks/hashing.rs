//! [`Hashing`]: SHA-256 away from the async workers, on at most [`THREADS`] threads at a time. Compression
//! goes with it, before the hash on the way out and after it on the way in; since it takes longer, it has as
//! many threads as there are processors, and what only has to be hashed does not wait behind it.

use std::{sync::Arc, thread::available_parallelism};

use bytes::Bytes;
use cairn_codec::Codecs;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, Codec, Compression};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::error;

/// Measured: two threads keep up with what two connections deliver.
const THREADS: usize = 2;
/// Hashing so little takes less time than handing it to another thread.
const INLINE: usize = 16 * 1024;
/// Hashing so much takes no more time than handing it over and waiting, when there is nothing else to do.
const ALONE: usize = 64 * 1024;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    threads: Arc<Semaphore>,
    coders: Arc<Semaphore>,
    codecs: Arc<Codecs>,
}

impl Hashing {
    pub(super) fn new() -> Self {
        let coders = available_parallelism().map_or(THREADS, |n| n.get().max(THREADS));
        Self {
            threads: Arc::new(Semaphore::new(THREADS)),
            coders: Arc::new(Semaphore::new(coders)),
            codecs: Arc::default(),
        }
    }

    async fn id_of(&self, data: Bytes, alone: bool) -> Result<ChunkId, ChunkError> {
        if data.len() <= if alone { ALONE } else { INLINE } {
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

    /// What refers to `content`, at most a chunk, and the bytes that are to be stored for it. `alone`: nothing
    /// else is on its way.
    ///
    /// # Errors
    /// `Unreachable` when the runtime is being shut down.
    pub(super) async fn pack(
        &self,
        content: Bytes,
        how: Compression,
        alone: bool,
    ) -> Result<(ChunkRef, Bytes), ChunkError> {
        let plain = |id, content: &Bytes| {
            let len = length(content);
            ChunkRef { id, stored_len: len, logical_len: len, codec: Codec::Plain }
        };
        if how == Compression::Off {
            let id = self.id_of(content.clone(), alone).await?;
            return Ok((plain(id, &content), content));
        }
        let permit = self.coders.clone().acquire_owned().await;
        let codecs = self.codecs.clone();
        let job = spawn_blocking(move || {
            let packed = match codecs.pack(&content, how) {
                None => (plain(ChunkId::of(&content), &content), content),
                Some((codec, stored)) => {
                    let (stored_len, logical_len) = (length(&stored), length(&content));
                    let id = ChunkId::of(&stored);
                    (ChunkRef { id, stored_len, logical_len, codec }, stored)
                }
            };
            drop(permit);
            packed
        });
        job.await.map_err(|_| ChunkError::Unreachable)
    }

    /// The content of `chunk`, whose verified stored bytes are `stored`: at most `chunk_size` bytes.
    ///
    /// # Errors
    /// `Damaged` when the stored bytes are not what the reference says; `Unreachable` when the runtime
    /// is being shut down.
    pub(super) async fn unpack(
        &self,
        chunk: &ChunkRef,
        stored: Bytes,
        chunk_size: u32,
    ) -> Result<Bytes, ChunkError> {
        let codec = chunk.codec;
        if codec == Codec::Plain {
            return Ok(stored);
        }
        let permit = self.coders.clone().acquire_owned().await;
        let codecs = self.codecs.clone();
        let job = spawn_blocking(move || {
            let content = codecs.unpack(codec, stored, chunk_size as usize);
            drop(permit);
            content
        });
        let content = job.await.map_err(|_| ChunkError::Unreachable)?;
        content.map_err(|_| {
            let (id, codec) = (chunk.id, codec.word());
            error!(chunk = %id, codec, "the stored bytes are intact but cannot be decoded");
            ChunkError::Damaged
        })
    }

    /// Runs `job`, which hashes the `bytes` bytes that a node sent together, or a part of them. Returns when it
    /// has begun: who has much to hash waits for a thread.
    pub(super) async fn submit(&self, bytes: usize, job: impl FnOnce() + Send + 'static) {
        if bytes <= ALONE {
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

/// Callers have checked that it is no more than a chunk.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
