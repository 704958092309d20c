//! The pending group: writes of operations that the engine does not have yet.
//!
//! Later operations of the group see the writes of earlier ones. Each operation can be undone by
//! itself ([`Group::begin`], [`Group::undo`]); the whole group is committed or forgotten.

use std::{collections::BTreeMap, iter::Peekable, sync::Arc};

use bytes::Bytes;
use prost::Message;

use super::{cache::RowCache, keys, source::Source};
use crate::engine::{Batch, Direction, Engine, EngineError, KeyRange, Pair};

/// Bytes of hot rows kept in memory.
const CACHE_BYTES: usize = 48 << 20;

/// The pending group above an engine.
pub struct Group {
    engine: Arc<dyn Engine>,
    cache: RowCache,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    undo: Vec<(Bytes, Option<Option<Bytes>>)>,
}

impl Group {
    /// An empty group.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            cache: RowCache::new(CACHE_BYTES),
            writes: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether a dump would tell of another file system after it. Numbers that go up do not make one.
    pub fn changes_file_system(&self) -> bool {
        self.writes.keys().any(|key| keys::is_portable(key) && !keys::is_mark(key))
    }

    /// What is written from now on can be undone.
    pub fn begin(&mut self) {
        self.undo.clear();
    }

    /// Takes back every write since [`Group::begin`].
    pub fn undo(&mut self) {
        for (key, before) in self.undo.drain(..).rev() {
            match before {
                Some(before) => self.writes.insert(key, before),
                None => self.writes.remove(&key),
            };
        }
    }

    /// Writes raw bytes.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.write(key, Some(value));
    }

    /// Writes a row.
    pub fn put_row(&mut self, key: Bytes, row: &impl Message) {
        self.write(key, Some(row.encode_to_vec().into()));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Bytes) {
        self.write(key, None);
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        let before = self.writes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Hands the group to the engine. On an error it is kept: see [`Group::forget`].
    pub fn commit(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.engine.commit(Batch { writes: self.writes.clone() }, epoch)?;
        self.undo.clear();
        for (key, value) in std::mem::take(&mut self.writes) {
            if keys::is_hot(&key) {
                self.cache.put(key, value);
            }
        }
        Ok(())
    }

    /// The first `limit` rows of `range`, the pending writes over what the engine has.
    pub fn rows(&self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>, EngineError> {
        let mut below = self.engine.scan(range.clone(), Direction::Forward).peekable();
        let mut above = self.writes.range((range.from.clone(), range.to.clone())).peekable();
        let mut page = Vec::new();
        while page.len() < limit {
            match next(&mut below, &mut above)? {
                None => break,
                Some((key, Some(value))) => page.push((key, value)),
                Some((_, None)) => {}
            }
        }
        Ok(page)
    }

    /// Drops the pending writes.
    pub fn forget(&mut self) {
        self.writes.clear();
        self.undo.clear();
    }
}

impl Source for Group {
    fn get(&mut self, key: &Bytes) -> Result<Option<Bytes>, EngineError> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        if let Some(cached) = self.cache.get(key) {
            return Ok(cached);
        }
        let value = self.engine.get(key)?;
        if keys::is_hot(key) {
            self.cache.put(key.clone(), value.clone());
        }
        Ok(value)
    }

    fn page(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>, EngineError> {
        self.rows(range, limit)
    }
}

type Written<'a> = (&'a Bytes, &'a Option<Bytes>);

/// The smaller of two heads; a write hides the row below it.
fn next<'a>(
    below: &mut Peekable<impl Iterator<Item = Result<Pair, EngineError>>>,
    above: &mut Peekable<impl Iterator<Item = Written<'a>>>,
) -> Result<Option<(Bytes, Option<Bytes>)>, EngineError> {
    let take_below = match (below.peek(), above.peek()) {
        (Some(Ok((key, _))), Some((written, _))) => key < *written,
        (Some(_), _) => true,
        (None, _) => false,
    };
    if take_below {
        return below.next().transpose().map(|pair| pair.map(|(key, value)| (key, Some(value))));
    }
    let Some((key, value)) = above.next() else { return Ok(None) };
    if matches!(below.peek(), Some(Ok((hidden, _))) if hidden == key) {
        below.next();
    }
    Ok(Some((key.clone(), value.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::memory::MemoryEngine, tables::keys::Table};

    fn group() -> Group {
        Group::new(Arc::new(MemoryEngine::new()))
    }

    fn inodes(group: &mut Group) -> Vec<u64> {
        let rows = group.page(&Table::Inodes.all(), usize::MAX).unwrap();
        rows.iter().map(|(key, _)| keys::owner(key).unwrap()).collect()
    }

    #[test]
    fn scans_merge_what_is_written_over_what_is_there() {
        let mut group = group();
        for ino in [1, 3, 5, 7] {
            group.put(keys::inode(ino), Bytes::from_static(b"old"));
        }
        group.commit(1).unwrap();
        group.put(keys::inode(2), Bytes::from_static(b"new"));
        group.put(keys::inode(3), Bytes::from_static(b"new"));
        group.delete(keys::inode(5));
        group.put(keys::inode(9), Bytes::from_static(b"new"));
        assert_eq!(inodes(&mut group), [1, 2, 3, 7, 9]);
        assert_eq!(group.page(&Table::Inodes.all(), 3).unwrap()[2].1, "new");
        group.forget();
        assert_eq!(inodes(&mut group), [1, 3, 5, 7]);
    }

    #[test]
    fn undo_takes_back_one_operation() {
        let mut group = group();
        group.begin();
        group.put(keys::inode(1), Bytes::from_static(b"first"));
        group.begin();
        group.put(keys::inode(1), Bytes::from_static(b"second"));
        group.put(keys::inode(1), Bytes::from_static(b"third"));
        group.delete(keys::inode(1));
        group.put(keys::inode(2), Bytes::from_static(b"second"));
        group.undo();
        assert_eq!(group.get(&keys::inode(1)).unwrap().unwrap(), "first");
        assert_eq!(group.get(&keys::inode(2)).unwrap(), None);
        assert_eq!(inodes(&mut group), [1]);
    }

    #[test]
    fn the_cache_follows_commits() {
        let mut group = group();
        assert_eq!(group.get(&keys::inode(1)).unwrap(), None);
        group.put(keys::inode(1), Bytes::from_static(b"a"));
        group.commit(1).unwrap();
        assert_eq!(group.get(&keys::inode(1)).unwrap().unwrap(), "a");
        group.delete(keys::inode(1));
        group.commit(1).unwrap();
        assert_eq!(group.get(&keys::inode(1)).unwrap(), None);
    }
}
