//! Rows as chunks. Where a chunk ends is decided by the keys of the rows in it, so what comes before or
//! after has no say: a part of the tables that did not change gives the same chunks as last time.
//!
//! A row ends a chunk with a chance in proportion to its length, which makes chunks of [`TARGET`] bytes on
//! average whatever the rows are like. No chunk is longer than the file system's chunk size: there it is
//! cut, also within a row.

use std::{collections::VecDeque, mem};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    dump::rows::{Counts, Rows, write_row},
    engine::EngineError,
};

/// Bytes of a chunk on average, where the chunk size allows it.
const TARGET: usize = 24 << 10;

/// See the head of this file.
pub(crate) struct Cutter<'a> {
    rows: Rows<'a>,
    target: usize,
    most: usize,
    pending: Vec<u8>,
    ready: VecDeque<Bytes>,
    ended: bool,
    /// Over all chunks, in order.
    pub(crate) sha: Sha256,
    pub(crate) counts: Counts,
}

impl<'a> Cutter<'a> {
    /// Chunks of at most `chunk_size` bytes.
    pub(crate) fn new(rows: Rows<'a>, chunk_size: u32) -> Self {
        let most = (chunk_size as usize).min(8 * TARGET);
        Self {
            rows,
            target: TARGET.min(most / 2),
            most,
            pending: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            sha: Sha256::new(),
            counts: Counts::default(),
        }
    }

    fn take_row(&mut self) -> Result<(), EngineError> {
        let Some(row) = self.rows.next() else {
            self.ended = true;
            self.cut();
            return Ok(());
        };
        let (key, value) = row?;
        self.counts.add(&key);
        let length = write_row(&key, &value, &mut self.pending);
        let is_long = self.pending.len() >= self.target / 4;
        if is_long && xxh3_64(&key) % (self.target as u64) < length as u64 {
            self.cut();
        } else if self.pending.len() >= self.most {
            let rest = self.pending.split_off(self.pending.len() / self.most * self.most);
            self.cut();
            self.pending = rest;
        }
        Ok(())
    }

    fn cut(&mut self) {
        let bytes = Bytes::from(mem::take(&mut self.pending));
        self.sha.update(&bytes);
        let starts = (0..bytes.len()).step_by(self.most);
        self.ready.extend(starts.map(|at| bytes.slice(at..bytes.len().min(at + self.most))));
    }
}

impl Iterator for Cutter<'_> {
    type Item = Result<Bytes, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.take_row() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        dump::rows::Parser,
        engine::{Batch, Engine, Reader, memory::MemoryEngine},
        tables::keys,
    };

    fn cut(engine: &MemoryEngine, chunk_size: u32) -> Vec<Bytes> {
        Cutter::new(Rows::of(engine), chunk_size).map(Result::unwrap).collect()
    }

    fn put(engine: &MemoryEngine, ino: u64, value: Vec<u8>) {
        let writes = [(keys::inode(ino), Some(value.into()))].into();
        engine.commit(Batch { writes }, 1).unwrap();
    }

    #[test]
    fn chunks_are_bounded_and_hold_all_rows() {
        let engine = MemoryEngine::new();
        for ino in 0..3000 {
            put(&engine, ino, vec![ino as u8; if ino % 100 == 0 { 70_000 } else { 90 }]);
        }
        for chunk_size in [4096, 65_536, 16 << 20] {
            let chunks = cut(&engine, chunk_size);
            assert!(chunks.iter().all(|c| !c.is_empty() && c.len() <= chunk_size as usize));
            let mut parser = Parser::default();
            let mut rows = 0;
            for chunk in &chunks {
                parser.push(chunk);
                while let Some((key, value)) = parser.row().unwrap() {
                    assert_eq!(engine.get(&key).unwrap(), Some(value));
                    rows += 1;
                }
            }
            assert!(rows == 3000 && parser.is_empty());
        }
    }

    #[test]
    fn what_did_not_change_is_cut_the_same() {
        let engine = MemoryEngine::new();
        for ino in 0..50_000u64 {
            put(&engine, ino * 2, ino.to_be_bytes().repeat(12));
        }
        let before: HashSet<_> = cut(&engine, 65_536).into_iter().collect();
        assert!(before.len() > 100, "{} chunks", before.len());
        for ino in [31, 40_001, 77_777] {
            put(&engine, ino, vec![1; 500]);
        }
        let after = cut(&engine, 65_536);
        let new = after.iter().filter(|chunk| !before.contains(*chunk)).count();
        assert!((1..=6).contains(&new), "{new} of {} chunks are new", after.len());
    }
}
