//! An engine in memory: for tests, and as the reference for the others. Nothing survives the process.

use std::{
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use super::{Batch, Direction, Engine, EngineError, KeyRange, Pair, Pairs, Reader};

/// Persistent in the functional sense: a snapshot shares the tree and the next commit copies it.
#[derive(Debug, Default)]
pub struct MemoryEngine(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rows: Arc<Rows>,
    epoch: u64,
}

#[derive(Clone, Debug, Default)]
struct Rows(std::collections::BTreeMap<Bytes, Bytes>);

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

fn is_empty(range: &KeyRange) -> bool {
    match (&range.from, &range.to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b))
        | (Bound::Excluded(a), Bound::Included(b)) => a >= b,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

impl Reader for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        if is_empty(&range) {
            return Box::new(std::iter::empty());
        }
        let pairs = self
            .0
            .range((range.from, range.to))
            .map(|(key, value)| Ok((key.clone(), value.clone())));
        match direction {
            Direction::Forward => Box::new(pairs),
            Direction::Backward => Box::new(pairs.rev()),
        }
    }
}

impl Reader for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.state().rows.get(key)
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Pairs<'_> {
        let rows = Arc::clone(&self.state().rows);
        Box::new(Scan { rows, range, direction, page: Vec::new().into_iter(), end: false })
    }
}

/// A scan that owns the tree it reads, a page at a time.
struct Scan {
    rows: Arc<Rows>,
    range: KeyRange,
    direction: Direction,
    page: std::vec::IntoIter<Pair>,
    end: bool,
}

const PAGE: usize = 64;

impl Scan {
    fn next_page(&mut self) -> Result<(), EngineError> {
        let range = self.range.clone();
        let page =
            self.rows.scan(range, self.direction).take(PAGE).collect::<Result<Vec<_>, _>>()?;
        self.end = page.len() < PAGE;
        if let Some((last, _)) = page.last() {
            match self.direction {
                Direction::Forward => self.range.from = Bound::Excluded(last.clone()),
                Direction::Backward => self.range.to = Bound::Excluded(last.clone()),
            }
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0
            && !self.end
            && let Err(error) = self.next_page()
        {
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Result<Arc<dyn Reader>, EngineError> {
        Ok(Arc::clone(&self.state().rows) as Arc<dyn Reader>)
    }

    fn commit(&self, batch: Batch, epoch: u64) -> Result<(), EngineError> {
        let mut state = self.state();
        if epoch < state.epoch {
            return Err(EngineError::Fenced { own: epoch, newest: state.epoch });
        }
        state.epoch = epoch;
        let rows = Arc::make_mut(&mut state.rows);
        for (key, value) in batch.writes {
            match value {
                Some(value) => rows.0.insert(key, value),
                None => rows.0.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance;

    #[test]
    fn conforms() {
        conformance::run(&mut || (Arc::new(MemoryEngine::new()), None));
    }
}
