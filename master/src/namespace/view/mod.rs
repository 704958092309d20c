//! [`View`]: a consistent snapshot of the namespace, to be read on any thread while operations go on.

mod fsck;
mod references;
mod walk;

use std::sync::Arc;

use cairn_proto::FsError;

pub use self::{
    fsck::{Finding, Progress as FsckProgress},
    walk::Walk,
};
use crate::{
    engine::{EngineError, Reader},
    tables::source::Snapshot,
};

/// A consistent snapshot of the namespace.
#[derive(Clone)]
pub struct View {
    source: Snapshot,
    chunk_size: u32,
}

impl View {
    pub(super) fn new(reader: Arc<dyn Reader>, chunk_size: u32) -> Self {
        Self { source: Snapshot(reader), chunk_size }
    }

    /// The same snapshot as a source of rows.
    pub(super) fn source(&self) -> Snapshot {
        self.source.clone()
    }

    /// The rows themselves.
    pub(crate) fn reader(&self) -> &dyn Reader {
        self.source.0.as_ref()
    }

    /// Walks depth first from `path` (empty: the whole tree, the root included). With references, a
    /// file that has many comes in several entries.
    pub fn walk(&self, path: &str, with_refs: bool) -> Result<Walk, FsError> {
        Walk::begin(self.source.clone(), self.chunk_size, path, with_refs)
    }

    /// Checks everything against everything. `report` gets progress and findings about every 10,000
    /// rows and once more at the end (`done`); it answers false to stop early.
    pub fn fsck(&self, report: &mut dyn FnMut(FsckProgress) -> bool) -> Result<(), EngineError> {
        fsck::run(self.source.clone(), self.chunk_size, report)
    }
}
