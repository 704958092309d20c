//! Rows into the engine of a new data directory.
//!
//! The master that the rows are from may have gone on after they were taken. What it handed out then is
//! not known, so every high-water mark is raised by more than any master hands out: inode, segment and
//! session numbers, map epochs, incarnations. Versions of inodes begin with the incarnation, so no client
//! takes something new for something that it has cached.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::{frames::DumpError, rows::Counts};
use crate::{
    engine::{Batch, Engine, EngineError, Pair},
    failpoints,
    tables::{
        keys::{self, Mark},
        rows::{SCHEMA, SchemaRow},
        source,
    },
};

/// Bytes of one commit.
const BATCH_BYTES: usize = 4 << 20;
/// The engine's epoch while it is filled; the first start has a greater one.
const EPOCH: u64 = 1;

/// Why rows cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The dump is not as it was written.
    #[error(transparent)]
    Dump(#[from] DumpFault),
    /// A row is none of a file system's.
    #[error("it does not hold a file system: {0}")]
    Rows(String),
    /// A later release wrote the rows.
    #[error(
        "its rows have format {0}, this release knows formats up to {SCHEMA}: \
         load it with the newer release that wrote it"
    )]
    Newer(u32),
    /// The new directory.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The rows are there but do not make a namespace.
    #[error(transparent)]
    Open(#[from] crate::namespace::OpenError),
}

/// What is wrong with a dump, as a sentence.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct DumpFault(String);

impl From<DumpError> for LoadError {
    fn from(error: DumpError) -> Self {
        Self::Dump(DumpFault(error.to_string()))
    }
}

/// How far a mark is raised, and where it begins when there is none.
const fn raised(mark: Mark) -> (u64, u64) {
    match mark {
        Mark::Ino => (1 << 32, 2),
        Mark::Segment | Mark::Session => (1 << 32, 1),
        Mark::MapEpoch => (1 << 24, 1),
        // The upper half of a version: 2^16 restores are possible.
        Mark::Incarnation => (1 << 16, 0),
        // Stamps that the lost master may have refused stay refused.
        Mark::GcEpoch => (1 << 20, 1),
        Mark::GcFloor => (1 << 20, 0),
        Mark::GcReferenced => (0, 0),
    }
}

/// What is known to have been, from elsewhere than the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Least {
    /// Starts of the master.
    pub(crate) incarnation: u64,
    /// Epoch of garbage collection.
    pub(crate) gc_epoch: u64,
}

impl Least {
    const fn of(self, mark: Mark) -> u64 {
        match mark {
            Mark::Incarnation => self.incarnation,
            // The floor is as high as the epoch before: what was stamped for the lost master has to be
            // verified before anything may refer to it.
            Mark::GcEpoch | Mark::GcFloor => self.gc_epoch,
            Mark::Ino | Mark::Segment | Mark::Session | Mark::MapEpoch | Mark::GcReferenced => 0,
        }
    }
}

/// Every mark that is raised.
const MARKS: [Mark; 7] = [
    Mark::Ino,
    Mark::Segment,
    Mark::Session,
    Mark::MapEpoch,
    Mark::Incarnation,
    Mark::GcEpoch,
    Mark::GcFloor,
];

/// Takes rows in the order of their keys.
pub(crate) struct Loader<'a> {
    /// Absent: rows are checked and dropped.
    engine: Option<&'a dyn Engine>,
    chunk_size: u32,
    batch: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    last: Option<Bytes>,
    marks: BTreeMap<Bytes, u64>,
    counts: Counts,
}

impl<'a> Loader<'a> {
    /// For an engine that holds nothing.
    pub(crate) fn new(engine: &'a dyn Engine, chunk_size: u32) -> Self {
        Self { engine: Some(engine), ..Self::checking(chunk_size) }
    }

    /// Checks rows and keeps none.
    pub(crate) fn checking(chunk_size: u32) -> Self {
        Self {
            engine: None,
            chunk_size,
            batch: BTreeMap::new(),
            bytes: 0,
            last: None,
            marks: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// What has come.
    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes one row.
    pub(crate) fn row(&mut self, (key, value): Pair) -> Result<(), LoadError> {
        let wrong = |what: &str| LoadError::Rows(format!("{what} {}", key.escape_ascii()));
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(wrong("out of order is the row"));
        }
        if !keys::is_portable(&key) {
            return Err(wrong("no dump has the row"));
        }
        if self.last.is_none() {
            self.check_schema(&key, &value)?;
        }
        self.counts.add(&key);
        if keys::is_mark(&key) {
            let bytes = value.as_ref().try_into().map_err(|_| wrong("a number is damaged:"))?;
            self.marks.insert(key.clone(), u64::from_be_bytes(bytes));
        } else {
            self.bytes += key.len() + value.len();
            self.batch.insert(key.clone(), Some(value));
        }
        self.last = Some(key);
        if self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// The first row says how the others are written.
    fn check_schema(&self, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        if *key != keys::schema() {
            return Err(LoadError::Rows("its first row is not the format of the others".into()));
        }
        let schema: SchemaRow = source::decode(key, value.clone())?;
        if schema.version > SCHEMA {
            return Err(LoadError::Newer(schema.version));
        }
        if schema.chunk_size != self.chunk_size {
            return Err(LoadError::Rows(format!(
                "its rows are of chunks of {} bytes, its head says {}",
                schema.chunk_size, self.chunk_size
            )));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        self.bytes = 0;
        let writes = std::mem::take(&mut self.batch);
        let Some(engine) = self.engine else { return Ok(()) };
        engine.commit(Batch { writes }, EPOCH)?;
        failpoints::hit(failpoints::LOAD_BATCH);
        Ok(())
    }

    /// Everything has come: the marks go in, raised.
    pub(crate) fn finish(mut self, least: Least) -> Result<Counts, LoadError> {
        if self.last.is_none() {
            return Err(LoadError::Rows("it has no rows".into()));
        }
        for mark in MARKS {
            let key = keys::mark(mark);
            let (raise, first) = raised(mark);
            let mut stored = self.marks.remove(&key).unwrap_or(first);
            stored = stored.max(least.of(mark));
            let raised = stored.checked_add(raise).ok_or_else(|| {
                LoadError::Rows(format!("no {mark:?} number is left above {stored}"))
            })?;
            self.batch.insert(key, Some(Bytes::copy_from_slice(&raised.to_be_bytes())));
        }
        for (key, value) in std::mem::take(&mut self.marks) {
            self.batch.insert(key, Some(Bytes::copy_from_slice(&value.to_be_bytes())));
        }
        self.flush()?;
        if let Some(engine) = self.engine {
            engine.sync()?;
        }
        Ok(self.counts)
    }
}
