//! Which backups of the metadata lie in the storage nodes: the ids of their chunks, in rows, so that
//! garbage collection, which marks from a snapshot of the rows, keeps them.
//!
//! A backup's rows are written before its root is given to any node, its last row (which has the root)
//! when all chunks are durable. Rows of backups without a last row are of attempts that failed; they go
//! with the next success.

use bytes::Bytes;
use cairn_proto::ChunkId;

use super::{Namespace, view::View};
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::BackupRow,
        source::{self, Source},
    },
};

/// Ids in one row.
pub(crate) const IDS_PER_ROW: usize = 1024;
/// The number of the last row.
const LAST: u64 = u64::MAX;
/// Rows read at once.
const PAGE: usize = 64;

impl Namespace {
    /// How often the file system has changed since this start: what belongs to sessions does not count.
    pub fn changes_made(&self) -> u64 {
        self.changes
    }

    /// A generation greater than all before, also over restarts.
    pub fn next_backup(&mut self) -> u64 {
        self.backups += 1;
        (self.ids.incarnation() << 32) + self.backups
    }

    /// Notes chunks of a backup that is being made, in the pending group.
    pub fn note_backup_chunks(&mut self, generation: u64, part: u64, ids: &[ChunkId]) {
        let ids: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let row = BackupRow { ids: ids.into(), root: Bytes::new() };
        self.group.put_row(keys::backup(generation, part), &row);
    }

    /// All chunks of a backup are durable and noted, in the pending group.
    pub fn finish_backup(&mut self, generation: u64, root: Bytes) {
        let row = BackupRow { ids: Bytes::new(), root };
        self.group.put_row(keys::backup(generation, LAST), &row);
    }

    /// Backups that were finished, as (generation, root), ascending.
    pub fn backups(&mut self) -> Result<Vec<(u64, Bytes)>, EngineError> {
        let mut found = Vec::new();
        each_row(&mut self.group, &mut |generation, part, row| {
            if part == LAST {
                found.push((generation, row.root));
            }
        })?;
        Ok(found)
    }

    /// Forgets backups whose generation is none of `kept`, some rows at a time, in the pending group. True
    /// when there is more to do.
    pub fn forget_backups(&mut self, kept: &[u64]) -> Result<bool, EngineError> {
        let mut range = Table::Backups.all();
        let mut forgotten = 0;
        loop {
            let page = self.group.page(&range, PAGE)?;
            let Some((last, _)) = page.last().cloned() else { return Ok(false) };
            for (key, _) in page {
                if !kept.contains(&source::owner(&key)?) {
                    self.group.delete(key);
                    forgotten += 1;
                }
            }
            if forgotten >= PAGE {
                return Ok(true);
            }
            range = keys::after(&range, last);
        }
    }
}

impl View {
    /// Every chunk of every backup that is kept or being made: nothing of it is garbage.
    pub fn backup_chunks(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<(), EngineError> {
        each_row(&mut self.source(), &mut |_, _, row| {
            let (ids, _) = row.ids.as_chunks::<{ ChunkId::LEN }>();
            ids.iter().for_each(|id| visit(ChunkId::from_bytes(*id)));
        })
    }
}

fn each_row(
    source: &mut dyn Source,
    visit: &mut dyn FnMut(u64, u64, BackupRow),
) -> Result<(), EngineError> {
    let mut range = Table::Backups.all();
    loop {
        let page = source.page(&range, PAGE)?;
        let Some((last, _)) = page.last().cloned() else { return Ok(()) };
        for (key, value) in page {
            let row = source::decode(&key, value)?;
            visit(source::owner(&key)?, source::second(&key)?, row);
        }
        range = keys::after(&range, last);
    }
}
