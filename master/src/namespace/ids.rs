//! Numbers that are never handed out twice: taken in ranges whose end is synced before the first of
//! them is used. What is left of a range at a crash is lost, which costs nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    engine::{Batch, Engine, EngineError},
    tables::keys::{self, Mark},
};

/// One kind of number.
struct Range {
    mark: Mark,
    step: u64,
    next: u64,
    end: u64,
}

impl Range {
    /// Goes on where the newest range of earlier starts ended.
    fn open(engine: &dyn Engine, mark: Mark, first: u64, step: u64) -> Result<Self, EngineError> {
        let next = load(engine, mark)?.unwrap_or(first);
        Ok(Self { mark, step, next, end: next })
    }

    fn take(&mut self, engine: &dyn Engine, epoch: u64) -> Result<u64, EngineError> {
        if self.next == self.end {
            let end = self.end.checked_add(self.step).ok_or_else(|| {
                EngineError::Damaged(format!("no {:?} number is left", self.mark))
            })?;
            store(engine, self.mark, end, epoch)?;
            self.end = end;
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

fn load(engine: &dyn Engine, mark: Mark) -> Result<Option<u64>, EngineError> {
    let Some(value) = engine.get(&keys::mark(mark))? else { return Ok(None) };
    let bytes = value.as_ref().try_into().map_err(|_| {
        EngineError::Damaged(format!("the high-water mark {mark:?} has {} bytes", value.len()))
    })?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

fn store(engine: &dyn Engine, mark: Mark, value: u64, epoch: u64) -> Result<(), EngineError> {
    let value = Bytes::copy_from_slice(&value.to_be_bytes());
    engine.commit(Batch { writes: BTreeMap::from([(keys::mark(mark), Some(value))]) }, epoch)?;
    engine.sync()
}

/// All numbers of the master.
pub(super) struct Ids {
    incarnation: u64,
    first_ino: u64,
    inodes: Range,
    segments: Range,
    sessions: Range,
    map_epochs: Range,
}

impl Ids {
    /// Takes the next incarnation number.
    pub(super) fn open(engine: &dyn Engine) -> Result<Self, EngineError> {
        let incarnation = load(engine, Mark::Incarnation)?.unwrap_or(0) + 1;
        store(engine, Mark::Incarnation, incarnation, incarnation)?;
        let inodes = Range::open(engine, Mark::Ino, 2, 1 << 16)?;
        Ok(Self {
            incarnation,
            first_ino: inodes.next,
            inodes,
            segments: Range::open(engine, Mark::Segment, 1, 1 << 16)?,
            sessions: Range::open(engine, Mark::Session, 1, 1 << 8)?,
            map_epochs: Range::open(engine, Mark::MapEpoch, 1, 1 << 10)?,
        })
    }

    pub(super) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether an earlier incarnation may have handed out this inode number.
    pub(super) const fn was_ino(&self, ino: u64) -> bool {
        ino > 1 && ino < self.first_ino
    }

    pub(super) fn ino(&mut self, engine: &dyn Engine) -> Result<u64, EngineError> {
        self.inodes.take(engine, self.incarnation)
    }

    pub(super) fn segment(&mut self, engine: &dyn Engine) -> Result<u64, EngineError> {
        self.segments.take(engine, self.incarnation)
    }

    pub(super) fn session(&mut self, engine: &dyn Engine) -> Result<u64, EngineError> {
        self.sessions.take(engine, self.incarnation)
    }

    pub(super) fn map_epoch(&mut self, engine: &dyn Engine) -> Result<u64, EngineError> {
        self.map_epochs.take(engine, self.incarnation)
    }
}
