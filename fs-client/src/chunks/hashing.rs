//! [`Hashing`]: SHA-256 away from the async workers, on at most [`THREADS`] threads at a time. Compression
//! goes with it, before the hash on the way out and after it on the way in; since it takes longer, it has as
//! many threads as there are processors, and what only has to be hashed does not wait behind it.

use std::{sync::Arc, thread::available_parallelism};

use bytes::Bytes;
use cairn_codec::Codecs;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, Codec, Compression};
use tokio::sync::oneshot;
use tracing::error;

use super::jobs::Jobs;

/// Measured: two threads keep up with what two connections deliver.
const THREADS: usize = 2;
/// Chunks that one thread takes at a time: so many are hashed in one go.
const TOGETHER: usize = 4;
/// Hashing so little takes less time than handing it to another thread.
const INLINE: usize = 16 * 1024;
/// Hashing so much takes no more time than handing it over and waiting, when there is nothing else to do.
const ALONE: usize = 64 * 1024;

/// See the head of this file.
#[derive(Clone)]
pub(super) struct Hashing {
    hashers: Arc<Jobs>,
    coders: Arc<Jobs>,
    codecs: Arc<Codecs>,
}

impl Hashing {
    pub(super) fn new() -> Self {
        let coders = available_parallelism().map_or(THREADS, |n| n.get().max(THREADS));
        Self {
            hashers: Jobs::new(THREADS, TOGETHER),
            coders: Jobs::new(coders, TOGETHER),
            codecs: Arc::default(),
        }
    }

    async fn id_of(&self, data: Bytes, alone: bool) -> Result<ChunkId, ChunkError> {
        if data.len() <= if alone { ALONE } else { INLINE } {
            return Ok(ChunkId::of(&data));
        }
        let (reply, id) = oneshot::channel();
        self.hashers.hash(data, move |id| _ = reply.send(id));
        id.await.map_err(|_| ChunkError::Unreachable)
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
        let codecs = self.codecs.clone();
        let pack = move || match codecs.pack(&content, how) {
            None => (plain(ChunkId::of(&content), &content), content),
            Some((codec, stored)) => {
                let (stored_len, logical_len) = (length(&stored), length(&content));
                let id = ChunkId::of(&stored);
                (ChunkRef { id, stored_len, logical_len, codec }, stored)
            }
        };
        done(&self.coders, pack).await
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
        let codecs = self.codecs.clone();
        let unpack = move || codecs.unpack(codec, stored, chunk_size as usize);
        let content = done(&self.coders, unpack).await?;
        content.map_err(|_| {
            let (id, codec) = (chunk.id, codec.word());
            error!(chunk = %id, codec, "the stored bytes are intact but cannot be decoded");
            ChunkError::Damaged
        })
    }

    /// Runs `hash`, which hashes the `bytes` bytes that a node sent together, or a part of them, and then `tell`
    /// with what it found; not always before this returns.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        hash: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) {
        if bytes <= ALONE {
            tell(hash());
        } else {
            self.hashers.submit(hash, tell);
        }
    }
}

/// What `work` answers. `Unreachable` when it panics, or the runtime is being shut down.
async fn done<T: Send + 'static>(
    jobs: &Arc<Jobs>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ChunkError> {
    let (reply, answer) = oneshot::channel();
    jobs.submit(work, move |result| _ = reply.send(result));
    answer.await.map_err(|_| ChunkError::Unreachable)
}

/// Callers have checked that it is no more than a chunk.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
