//! [`Reads`]: how often a chunk was in memory when a reader wanted it, and what the nodes sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// See the head of this file. Every number only grows.
#[derive(Debug, Default)]
pub struct Reads {
    hits: AtomicU64,
    misses: AtomicU64,
    fetched: AtomicU64,
    bytes: AtomicU64,
    local: AtomicU64,
}

impl Reads {
    pub(super) fn hit(&self, chunks: usize) {
        self.hits.fetch_add(chunks as u64, Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    pub(super) fn fetched(&self, bytes: usize) {
        self.fetched.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn local(&self, bytes: usize) {
        self.local.fetch_add(bytes as u64, Relaxed);
    }

    /// Chunks that a reader found in memory.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Chunks that a reader had to wait for.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// Chunks that came from nodes, read-ahead included.
    pub fn fetched_chunks(&self) -> u64 {
        self.fetched.load(Relaxed)
    }

    /// Their bytes.
    pub fn fetched_bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes of chunks that were read from the files of a node on this machine and were right.
    pub fn local_bytes(&self) -> u64 {
        self.local.load(Relaxed)
    }
}
