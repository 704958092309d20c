//! Every reference of a snapshot: of each inode that exists, with or without a name.

use std::sync::Arc;

use cairn_proto::ChunkRef;

use super::View;
use crate::{
    engine::{Direction, EngineError},
    namespace::{Counters, segments::read_segment},
    tables::{
        keys::{self, Table},
        rows::{CountersRow, INLINE_REFS, InodeRow, ListRow, slots},
        source,
    },
};

impl View {
    /// Tells of every reference, as often as it exists; ends early when `each` says false. Neither
    /// lengths nor sums that are stored decide what is looked at, so those can be checked against it.
    ///
    /// # Errors
    /// When a row cannot be read, or is missing.
    pub fn references(&self, each: &mut dyn FnMut(&ChunkRef) -> bool) -> Result<(), EngineError> {
        let mut source = self.source.clone();
        let reader = Arc::clone(&self.source.0);
        for pair in reader.scan(Table::Inodes.all(), Direction::Forward) {
            let (key, value) = pair?;
            let row: InodeRow = source::decode(&key, value)?;
            if !slots(&row.refs, INLINE_REFS, "an inode")?.iter().flatten().all(&mut *each) {
                return Ok(());
            }
        }
        let mut owner = (0, false);
        for pair in reader.scan(Table::Lists.all(), Direction::Forward) {
            let (key, value) = pair?;
            let ino = source::owner(&key)?;
            if owner.0 != ino {
                owner = (ino, reader.get(&keys::inode(ino))?.is_some());
            }
            // What is left of an inode that is gone is about to be freed.
            if !owner.1 {
                continue;
            }
            let list: ListRow = source::decode(&key, value)?;
            for entry in list.entries {
                let refs = read_segment(&mut source, entry.segment)?;
                if !refs.iter().flatten().all(&mut *each) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The usage counters of the snapshot.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counters(&self) -> Result<Counters, EngineError> {
        let row: Option<CountersRow> = source::row(&mut self.source.clone(), &keys::counters())?;
        Ok(row.unwrap_or_default().into())
    }
}
