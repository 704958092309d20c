//! The durable ordered map under the namespace: everything that a database has to offer us.
//!
//! There is one writer (the op thread); readers and [`Engine::sync`] may come from any thread. An
//! engine knows nothing of inodes. Adding one means implementing [`Reader`] and [`Engine`] and running
//! `conformance::run` on it.

#[cfg(test)]
mod conformance;
pub mod fjall;
mod journal_tail;
pub mod memory;

use std::{collections::BTreeMap, io, ops::Bound, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

/// What an engine can fail with.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The disk is full. Nothing of the batch was written.
    #[error("the disk that holds the metadata is full: free space on it, nothing was lost")]
    NoSpace,
    /// The disk failed. Nothing more is written until the process starts again.
    #[error("the metadata engine cannot go on: {}", cairn_daemon::io_error::explain(.0))]
    Io(#[source] io::Error),
    /// Somebody with a newer epoch writes here.
    #[error("a newer master (epoch {newest}) has taken over, this one (epoch {own}) must stop")]
    Fenced {
        /// The epoch of the refused commit.
        own: u64,
        /// The newest epoch that the engine has seen.
        newest: u64,
    },
    /// What is on disk makes no sense.
    #[error("the metadata is damaged: {0}")]
    Damaged(String),
    /// Another process has it open.
    #[error("another process uses the metadata directory")]
    Locked,
}

/// One key and its value.
pub type Pair = (Bytes, Bytes);
/// Pairs in the order of a scan.
pub type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, EngineError>> + Send + 'a>;

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub from: Bound<Bytes>,
    /// Where it ends.
    pub to: Bound<Bytes>,
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Reading, from the engine's present state or from a snapshot.
pub trait Reader: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
    /// The pairs of `range`, lazily. They are of the moment of the call.
    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_>;
}

/// The puts and deletes of one commit.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// By key; `None` deletes.
    pub writes: BTreeMap<Bytes, Option<Bytes>>,
}

/// A durable ordered map.
pub trait Engine: Reader {
    /// The state as of now, unaffected by later commits.
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError>;
    /// Applies all of `batch` or nothing; survives the end of the process, not yet a power loss.
    /// Refused when a commit with a newer `epoch` was seen, also before the last start.
    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError>;
    /// Makes everything committed before this call survive power loss. An error is final.
    fn sync(&self) -> Result<(), EngineError>;
    /// Whether there is room for more than deletions. Cheap; may lag behind a little.
    fn has_room(&self) -> bool {
        true
    }
}
