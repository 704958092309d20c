//! [`Index`]: chunk id -> where its record lies, on disk, with bounded caches.
//!
//! ```text
//! keyspace "chunks"  key: id (32)              value: version u8 = 1, segment u64, offset u64,
//!                                                     length u32, epoch u64 (little-endian);
//!                                                     version 2, in quarantine: and since epoch u64
//! keyspace "damaged" key: id (32)              value: empty; its bytes were found to be wrong
//! keyspace "marks"   key: segment u64 (be)     value: offset u64: everything before it is in "chunks"
//! keyspace "state"   key: "totals"             value: chunks u64, payload bytes u64; then the same
//!                                                     of those in quarantine (absent: none)
//!                    key: "epoch"              value: u64
//!                    key: "scrub"              value: see [`Pass`]
//! ```
//!
//! Entries, marks and totals of a group are one batch, so a mark never promises more than is there.
//! Nothing is synced per batch: what power loss takes is found again in the segments, from the marks.
//! All of it can be made anew from the segments, except what is known to be damaged: that is found again;
//! and what is in quarantine, which begins anew. Which copies count is told to [`Groups`]: those that are
//! in "chunks" and neither in quarantine nor in "damaged".
//!
//! [`change`] has everything that changes entries, [`row`] the bytes of the values.
//!
//! After a write that failed the engine refuses every other one. [`IndexError::Full`] is told apart: then
//! the index may be dropped and opened again once there is room.
//!
//! Lock order: `writing`, held over read-change-write of entries and every other write, then the lock of [`Groups`], held over
//! the commit of what changes them, or of the totals. So whether a chunk is touched or goes is decided in
//! one place and one order.

mod change;
mod row;

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_proto::ChunkId;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

pub use self::change::Change;
use self::row::{decode_entry, decode_totals};
use super::{
    damaged::Damaged,
    groups::{Counts, Groups},
    scrub::Pass,
};
use crate::segment::{Location, SegmentId, writer::is_full};

/// Unflushed entries in memory; a few of these may exist while one is written out.
const MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
const OPEN_FILES: usize = 64;

/// What the index knows of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its record lies.
    pub at: Location,
    /// Epoch in which it was last put or touched.
    pub epoch: u64,
    /// Epoch of the cycle of garbage collection that put it into quarantine; 0: it is in none. It
    /// serves all the same; a put or a touch ends it.
    pub quarantined: u64,
}

impl Entry {
    /// The entry of a chunk that was just put.
    pub const fn new(at: Location, epoch: u64) -> Self {
        Self { at, epoch, quarantined: 0 }
    }

    /// Whether a touch in `epoch` would change nothing.
    pub const fn is_touched(&self, epoch: u64) -> bool {
        self.epoch >= epoch && !self.is_quarantined()
    }

    /// Whether it is in quarantine.
    pub const fn is_quarantined(&self) -> bool {
        self.quarantined != 0
    }
}

/// Number and payload bytes of all chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Chunks of these that are in quarantine.
    pub quarantined_chunks: u64,
    /// Bytes of their payloads.
    pub quarantined_bytes: u64,
}

impl Totals {
    /// `entry` is one more.
    fn add(&mut self, entry: &Entry) {
        let bytes = u64::from(entry.at.len);
        self.chunks += 1;
        self.bytes += bytes;
        if entry.is_quarantined() {
            self.quarantined_chunks += 1;
            self.quarantined_bytes += bytes;
        }
    }

    /// `entry` is no more.
    fn take(&mut self, entry: &Entry) {
        let bytes = u64::from(entry.at.len);
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if entry.is_quarantined() {
            self.quarantined_chunks = self.quarantined_chunks.saturating_sub(1);
            self.quarantined_bytes = self.quarantined_bytes.saturating_sub(bytes);
        }
    }
}

/// What can go wrong with the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is in use.
    #[error("it is in use by another process")]
    Locked,
    /// A write found no room, this one or an earlier one.
    #[error("{0}")]
    Full(io::Error),
    /// A write of the engine's own background work failed; it does not tell why.
    #[error("an earlier write has failed")]
    Poisoned,
    /// The file system answered an error that has nothing to do with the index's content.
    #[error("{0}")]
    Io(io::Error),
    /// Its content makes no sense: it has to be made anew.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<fjall::Error> for IndexError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked,
            fjall::Error::Poisoned => Self::Poisoned,
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => match e.kind() {
                _ if is_full(&e) => Self::Full(e),
                // An index whose making was cut short has files that the engine wants to make.
                io::ErrorKind::NotFound
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData => Self::Damaged(e.to_string()),
                _ => Self::Io(e),
            },
            // The list is open: whatever else it is, the segments have everything.
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Where an index tells which of its copies count: as the disk with this number.
#[derive(Clone, Default)]
pub struct Counting {
    /// Shared by all disks of a node.
    pub groups: Arc<Groups>,
    /// Number of the disk.
    pub volume: usize,
}

impl Counting {
    fn change(&self) -> Counts<'_> {
        self.groups.change(self.volume)
    }
}

/// See the module.
pub struct Index {
    db: Database,
    chunks: Keyspace,
    marks: Keyspace,
    state: Keyspace,
    /// What `known_damaged` has, on disk.
    damaged: Keyspace,
    known_damaged: Damaged,
    counting: Counting,
    writing: Mutex<()>,
    totals: Mutex<Totals>,
    /// A write has found no room.
    full: AtomicBool,
    /// What the engine answers to writes from now on.
    #[cfg(test)]
    pub(super) breaks: Mutex<Option<fn() -> fjall::Error>>,
}

impl Index {
    /// Opens the index in `dir`, or makes an empty one.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn open(dir: &Path, cache_bytes: u64, counting: Counting) -> Result<Self, IndexError> {
        let open = || -> Result<Self, fjall::Error> {
            let db = Database::builder(dir)
                .cache_size(cache_bytes)
                .max_journaling_size(JOURNAL_BYTES)
                .max_cached_files(Some(OPEN_FILES))
                .worker_threads(1)
                .open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            Ok(Self {
                chunks: db.keyspace("chunks", options)?,
                marks: db.keyspace("marks", options)?,
                state: db.keyspace("state", options)?,
                damaged: db.keyspace("damaged", options)?,
                known_damaged: Damaged::default(),
                counting: counting.clone(),
                db,
                writing: Mutex::new(()),
                totals: Mutex::default(),
                full: AtomicBool::new(false),
                #[cfg(test)]
                breaks: Mutex::default(),
            })
        };
        // The engine asserts on some kinds of damage. Nothing of it lives on after a panic here.
        let index = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
            .map_err(|_| IndexError::Damaged("the engine could not read its files".into()))??;
        let totals = match index.state.get("totals")? {
            Some(v) => decode_totals(&v)?,
            None => Totals::default(),
        };
        index.store_totals(totals);
        for item in index.damaged.iter() {
            let id = ChunkId::try_from(item.key()?.as_ref());
            index.known_damaged.note(&id.map_err(|e| IndexError::Damaged(e.to_string()))?);
        }
        Ok(index)
    }

    /// Chunks whose bytes were found to be wrong.
    pub fn damaged(&self) -> &Damaged {
        &self.known_damaged
    }

    /// The entry of a chunk.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn get(&self, id: &ChunkId) -> Result<Option<Entry>, IndexError> {
        self.chunks.get(id.as_bytes())?.map(|v| decode_entry(&v)).transpose()
    }

    /// Up to `limit` entries with ids greater than `after`, in order.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn page(
        &self,
        after: Option<&ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, Entry)>, IndexError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().as_slice()));
        self.entries((from, Bound::Unbounded)).take(limit).collect()
    }

    /// The entries of a range of ids, in order.
    pub fn entries(
        &self,
        ids: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = Result<(ChunkId, Entry), IndexError>> + use<> {
        self.chunks.range::<&[u8], _>(ids).map(|item| {
            let (key, value) = item.into_inner()?;
            let id =
                ChunkId::try_from(key.as_ref()).map_err(|e| IndexError::Damaged(e.to_string()))?;
            Ok((id, decode_entry(&value)?))
        })
    }

    /// Up to where the records of each segment are in the index.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn marks(&self) -> Result<BTreeMap<SegmentId, u64>, IndexError> {
        let damaged = || IndexError::Damaged("a mark has a wrong length".into());
        self.marks
            .iter()
            .map(|item| {
                let (key, value) = item.into_inner()?;
                let segment = key.as_ref().try_into().map_err(|_| damaged())?;
                let offset = value.as_ref().try_into().map_err(|_| damaged())?;
                Ok((SegmentId(u64::from_be_bytes(segment)), u64::from_le_bytes(offset)))
            })
            .collect()
    }

    /// Number and bytes of all chunks.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store_totals(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// The garbage collection epoch that was stored last; 0 when none was.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn epoch(&self) -> Result<u64, IndexError> {
        let Some(value) = self.state.get("epoch")? else { return Ok(0) };
        let bytes = value.as_ref().try_into();
        bytes.map(u64::from_le_bytes).map_err(|_| IndexError::Damaged("the epoch".into()))
    }

    /// Stores the garbage collection epoch durably.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn store_epoch(&self, epoch: u64) -> Result<(), IndexError> {
        let writing = self.lock();
        let value = epoch.to_le_bytes();
        self.write(&writing, || self.state.insert("epoch", value.as_slice()))?;
        self.persist(&writing)
    }

    /// How far scrub was; `None` when it never ran, or a newer release stored it.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn scrub(&self) -> Result<Option<Pass>, IndexError> {
        Ok(self.state.get("scrub")?.and_then(|value| Pass::decode(&value)))
    }

    /// Stores how far scrub is, for the next start. Power loss may take it.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn store_scrub(&self, pass: &[u8]) -> Result<(), IndexError> {
        self.write(&self.lock(), || self.state.insert("scrub", pass))
    }

    /// Makes everything durable, so that a start after power loss has little to scan.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn sync(&self) -> Result<(), IndexError> {
        self.persist(&self.lock())
    }

    /// Whether writes may be tried. Writes nothing.
    ///
    /// # Errors
    /// What the next write would answer, had one failed.
    pub fn check(&self) -> Result<(), IndexError> {
        self.write(&self.lock(), || self.db.persist(PersistMode::Buffer))
    }

    fn persist(&self, writing: &MutexGuard<'_, ()>) -> Result<(), IndexError> {
        self.write(writing, || self.db.persist(PersistMode::SyncData))
    }

    /// One write of the engine. The lock is held, so whoever is refused because of a write that failed
    /// knows why that one did.
    fn write<T>(
        &self,
        _writing: &MutexGuard<'_, ()>,
        write: impl FnOnce() -> Result<T, fjall::Error>,
    ) -> Result<T, IndexError> {
        #[cfg(test)]
        let breaks = *self.breaks.lock().unwrap();
        #[cfg(test)]
        let write = || breaks.map_or_else(write, |error| Err(error()));
        let result = write().map_err(IndexError::from);
        match &result {
            Err(IndexError::Full(_)) => self.full.store(true, Ordering::Release),
            Err(IndexError::Poisoned) if self.full.load(Ordering::Acquire) => {
                return Err(IndexError::Full(io::ErrorKind::StorageFull.into()));
            }
            Ok(_) | Err(_) => {}
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
