//! Chunks to and from the storage nodes: verified, cached, replicated, with fail-over.

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, Group};

use crate::{config::ClientConfig, rpc::Session};

/// A chunk that is durable on every node that the map `map_epoch` requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What a manifest says to refer to it.
    pub chunk: ChunkRef,
    /// Epoch of the map that the copies follow; belongs into `Commit.map_epoch`.
    pub map_epoch: u64,
    /// Set when fewer nodes than `replicas` were up; belongs into `Commit.degraded_groups`.
    pub degraded: Option<Group>,
}

/// Access to the chunks of a file system. Clones share connections, cache and budgets.
#[derive(Clone)]
pub struct Chunks {}

impl Chunks {
    /// Uses the cluster map of `session` and reports failed nodes through it. Connects when needed.
    /// Must be called within a tokio runtime.
    pub fn new(session: Session, config: &ClientConfig) -> Self {
        let _ = (session, config);
        Self {}
    }

    /// The stored bytes of `chunk`, verified against its id: exactly `stored_len` bytes in a buffer of
    /// their own. From memory, from a fetch that is under way, or from a node; another node after any
    /// failure. Cancel-safe; a caller that goes away does not disturb others who want the same chunk.
    ///
    /// # Errors
    /// `NotFound` or `Damaged` when every node that may hold it has answered so (fetch the manifest
    /// once more: the chunk may have been replaced); `Unreachable` at the deadline.
    pub async fn get(&self, chunk: &ChunkRef) -> Result<Bytes, ChunkError> {
        let _ = chunk;
        Err(ChunkError::Unreachable)
    }

    /// The chunk if it is in memory.
    pub fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        let _ = id;
        None
    }

    /// Begins to fetch what is neither in memory nor under way, as far as the budget for this reaches.
    /// Never waits, never fails.
    pub fn prefetch(&self, refs: impl IntoIterator<Item = ChunkRef>) {
        let _ = refs.into_iter();
    }

    /// Stores `data` (1 to chunk size bytes) on every node where its group belongs. `Ok` means durable
    /// there. Waits while more than the configured bytes are on their way. The cache keeps `data`, so
    /// hand over a buffer of its own, not a slice of a larger one. Cancel-safe.
    ///
    /// # Errors
    /// `NoSpace` when a node that is needed is full; `TooFewNodes` or `Unreachable` at the deadline;
    /// `BadLength` at once.
    pub async fn put(&self, data: Bytes) -> Result<Stored, ChunkError> {
        let _ = data;
        Err(ChunkError::Unreachable)
    }
}
