//! [`Index`]: chunk id -> where its record lies, on disk, with bounded caches.
//!
//! ```text
//! keyspace "chunks"  key: id (32)              value: version u8 = 1, segment u64, offset u64,
//!                                                     length u32, epoch u64 (little-endian)
//! keyspace "damaged" key: id (32)              value: empty; its bytes were found to be wrong
//! keyspace "marks"   key: segment u64 (be)     value: offset u64: everything before it is in "chunks"
//! keyspace "state"   key: "totals"             value: chunks u64, payload bytes u64
//!                    key: "epoch"              value: u64
//!                    key: "scrub"              value: see [`Pass`]
//! ```
//!
//! Entries, marks and totals of a group are one batch, so a mark never promises more than is there.
//! Nothing is synced per batch: what power loss takes is found again in the segments, from the marks.
//! All of it can be made anew from the segments, except what is known to be damaged: that is found again.
//! Which copies count is told to [`Groups`]: those that are in "chunks" and not in "damaged".
//!
//! Lock order: `writing`, held over read-change-write of entries, then the lock of [`Groups`], held over
//! the commit of what changes them.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_proto::ChunkId;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    damaged::Damaged,
    groups::{Counts, Groups},
    scrub::Pass,
};
use crate::segment::{Location, SegmentId};

const ENTRY_VERSION: u8 = 1;
const ENTRY_LEN: usize = 29;
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
}

/// Number and payload bytes of all chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// What can go wrong with the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is in use.
    #[error("it is in use by another process")]
    Locked,
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
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => match e.kind() {
                io::ErrorKind::NotFound
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
    total_chunks: AtomicU64,
    total_bytes: AtomicU64,
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
                total_chunks: AtomicU64::new(0),
                total_bytes: AtomicU64::new(0),
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

    /// Adds or replaces entries and moves marks forward, all or nothing. What was damaged is healed by
    /// its new entry.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn publish(
        &self,
        entries: &[(ChunkId, Entry)],
        marks: &BTreeMap<SegmentId, u64>,
    ) -> Result<(), IndexError> {
        let _writing = self.lock();
        let mut totals = self.totals();
        let mut seen = HashSet::with_capacity(entries.len());
        let mut batch = self.db.batch();
        let mut counted = Vec::with_capacity(entries.len());
        for (id, entry) in entries {
            if seen.insert(id) {
                let here = self.get(id)?.is_some();
                if !here {
                    totals.chunks += 1;
                    totals.bytes += u64::from(entry.at.len);
                }
                let damaged = self.known_damaged.contains(id);
                if damaged {
                    batch.remove(&self.damaged, id.as_bytes().as_slice());
                }
                if !here || damaged {
                    counted.push((id, entry.at.len));
                }
            }
            batch.insert(&self.chunks, id.as_bytes().as_slice(), encode_entry(entry).as_slice());
        }
        for (segment, offset) in marks {
            batch.insert(
                &self.marks,
                segment.0.to_be_bytes().as_slice(),
                offset.to_le_bytes().as_slice(),
            );
        }
        batch.insert(&self.state, "totals", encode_totals(totals).as_slice());
        let mut groups = self.counting.change();
        batch.commit()?;
        for (id, len) in counted {
            self.known_damaged.forget(id);
            groups.add(id, len);
        }
        self.store_totals(totals);
        Ok(())
    }

    /// Takes out the entries that are still as given: chunks that were put or touched since then stay.
    /// The number and bytes of those that went.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn remove(&self, entries: &[(ChunkId, Entry)]) -> Result<Totals, IndexError> {
        let _writing = self.lock();
        let (mut totals, mut gone) = (self.totals(), Totals::default());
        let mut batch = self.db.batch();
        let mut counted = Vec::new();
        let mut removed = HashSet::new();
        for (id, entry) in entries {
            if self.get(id)? != Some(*entry) || !removed.insert(id) {
                continue;
            }
            batch.remove(&self.chunks, id.as_bytes().as_slice());
            if self.known_damaged.contains(id) {
                batch.remove(&self.damaged, id.as_bytes().as_slice());
            } else {
                counted.push((id, entry.at.len));
            }
            gone.chunks += 1;
            gone.bytes += u64::from(entry.at.len);
        }
        totals.chunks = totals.chunks.saturating_sub(gone.chunks);
        totals.bytes = totals.bytes.saturating_sub(gone.bytes);
        batch.insert(&self.state, "totals", encode_totals(totals).as_slice());
        let mut groups = self.counting.change();
        batch.commit()?;
        for (id, len) in counted {
            groups.remove(id, len);
        }
        for id in removed {
            self.known_damaged.forget(id);
        }
        self.store_totals(totals);
        Ok(gone)
    }

    /// The chunk was read and is right: the disk could not read it for a while.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn note_good(&self, id: &ChunkId) -> Result<(), IndexError> {
        let _writing = self.lock();
        let Some(entry) = self.get(id)? else { return Ok(()) };
        let mut groups = self.counting.change();
        if self.known_damaged.forget(id) {
            groups.add(id, entry.at.len);
            self.damaged.remove(id.as_bytes().as_slice())?;
        }
        Ok(())
    }

    /// The record at `at` is damaged. Durable; nothing happens when the chunk lies elsewhere by now.
    ///
    /// # Errors
    /// See [`IndexError`]. It is known until the next start all the same.
    pub fn note_damaged(&self, id: &ChunkId, at: Location) -> Result<(), IndexError> {
        {
            let _writing = self.lock();
            if self.get(id)?.is_none_or(|entry| entry.at != at) {
                return Ok(());
            }
            let mut groups = self.counting.change();
            if !self.known_damaged.note(id) {
                return Ok(());
            }
            groups.remove(id, at.len);
            self.damaged.insert(id.as_bytes().as_slice(), b"".as_slice())?;
        }
        self.sync()
    }

    /// Stamps chunks with `epoch` where they have an older one.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn touch(&self, ids: &[ChunkId], epoch: u64) -> Result<(), IndexError> {
        let _writing = self.lock();
        let mut batch = self.db.batch();
        for id in ids {
            if let Some(entry) = self.get(id)?.filter(|e| e.epoch < epoch) {
                let value = encode_entry(&Entry { epoch, ..entry });
                batch.insert(&self.chunks, id.as_bytes().as_slice(), value.as_slice());
            }
        }
        if !batch.is_empty() {
            batch.commit()?;
        }
        Ok(())
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
        Totals {
            chunks: self.total_chunks.load(Ordering::Relaxed),
            bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }

    fn store_totals(&self, totals: Totals) {
        self.total_chunks.store(totals.chunks, Ordering::Relaxed);
        self.total_bytes.store(totals.bytes, Ordering::Relaxed);
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
        self.state.insert("epoch", epoch.to_le_bytes().as_slice())?;
        self.sync()
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
        Ok(self.state.insert("scrub", pass)?)
    }

    /// Makes everything durable, so that a start after power loss has little to scan.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn sync(&self) -> Result<(), IndexError> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode_entry(entry: &Entry) -> [u8; ENTRY_LEN] {
    let mut out = [0; ENTRY_LEN];
    out[0] = ENTRY_VERSION;
    out[1..9].copy_from_slice(&entry.at.segment.0.to_le_bytes());
    out[9..17].copy_from_slice(&entry.at.offset.to_le_bytes());
    out[17..21].copy_from_slice(&entry.at.len.to_le_bytes());
    out[21..29].copy_from_slice(&entry.epoch.to_le_bytes());
    out
}

fn decode_entry(value: &[u8]) -> Result<Entry, IndexError> {
    let bytes: &[u8; ENTRY_LEN] = value
        .try_into()
        .ok()
        .filter(|v: &&[u8; ENTRY_LEN]| v[0] == ENTRY_VERSION)
        .ok_or_else(|| IndexError::Damaged("an entry has an unknown form".into()))?;
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let len = u32::from_le_bytes(bytes[17..21].try_into().expect("4 bytes"));
    let at = Location { segment: SegmentId(u64_at(1)), offset: u64_at(9), len };
    Ok(Entry { at, epoch: u64_at(21) })
}

fn encode_totals(totals: Totals) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&totals.chunks.to_le_bytes());
    out[8..].copy_from_slice(&totals.bytes.to_le_bytes());
    out
}

fn decode_totals(value: &[u8]) -> Result<Totals, IndexError> {
    let (numbers, []) = value.as_chunks::<8>() else {
        return Err(IndexError::Damaged("the totals have a wrong length".into()));
    };
    match numbers {
        [chunks, bytes] => {
            Ok(Totals { chunks: u64::from_le_bytes(*chunks), bytes: u64::from_le_bytes(*bytes) })
        }
        _ => Err(IndexError::Damaged("the totals have a wrong length".into())),
    }
}
