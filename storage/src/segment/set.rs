//! [`SegmentSet`]: the segment files of one data directory, opened when needed.
//!
//! At most [`OPEN_MAX`] are kept open. The lock is held for look-ups only, never during reads.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use cairn_proto::ChunkId;
use uuid::Uuid;

use super::{
    Location, SegmentId,
    format::{BadHeader, FRAME_LEN, Frame, HEADER_LEN, Header, record_len},
};
use crate::disk::{Disk, DiskFile, read_full};

/// Most segment files that are open for reading at once: 64 GiB of chunks.
pub const OPEN_MAX: usize = 256;
/// What lies between two records that are read, and is not, may have this length: the next piece of the
/// same file, which goes over the client's other connection.
const GAP: u64 = 256 * 1024;

/// Most bytes that are copied from the kernel's memory on a thread of the network.
const AT_ONCE: u32 = 128 * 1024;

/// An open segment whose header has been checked.
#[derive(Clone)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// Part of its frames' checksums.
    pub salt: u64,
    /// The file.
    pub file: Arc<dyn DiskFile>,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The header is damaged or newer.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// The header is of another file system or segment.
    #[error("it belongs to file system {0}")]
    Foreign(Uuid),
    /// No record, or another's, lies where one was looked for.
    #[error("its record is not where the index says")]
    Misplaced,
}

/// See the module.
pub struct SegmentSet {
    disk: Arc<dyn Disk>,
    fs: Uuid,
    open: Mutex<BTreeMap<SegmentId, Segment>>,
}

impl SegmentSet {
    /// The segments on `disk`, which belong to the file system `fs`.
    pub fn new(disk: Arc<dyn Disk>, fs: Uuid) -> Self {
        Self { disk, fs, open: Mutex::new(BTreeMap::new()) }
    }

    /// The disk that they are on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The file system that they belong to.
    pub fn fs(&self) -> Uuid {
        self.fs
    }

    /// Numbers of the segments before `end`, oldest first. Unlike [`SegmentSet::list`] good for use while
    /// segments are being made.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn list_below(&self, end: SegmentId) -> io::Result<Vec<SegmentId>> {
        let names = self.disk.list()?;
        let ids = names.iter().filter_map(|name| SegmentId::parse(name));
        let mut ids: Vec<_> = ids.filter(|id| *id < end).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes a segment that no index names any more.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn remove(&self, id: SegmentId) -> io::Result<()> {
        self.opened().remove(&id);
        self.disk.remove(&id.file_name())?;
        self.disk.sync_names()
    }

    /// Numbers of all segments, oldest first. Removes what unfinished creations left: only for a start.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn list(&self) -> io::Result<Vec<SegmentId>> {
        let mut ids = Vec::new();
        for name in self.disk.list()? {
            if SegmentId::is_temporary(&name) {
                self.disk.remove(&name)?;
            } else if let Some(id) = SegmentId::parse(&name) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// An open segment.
    ///
    /// # Errors
    /// When the file cannot be opened or is not the segment that its name says.
    pub fn get(&self, id: SegmentId) -> Result<Segment, SegmentError> {
        if let Some(segment) = self.opened().get(&id) {
            return Ok(segment.clone());
        }
        let file = self.disk.open(&id.file_name())?;
        let mut bytes = [0; HEADER_LEN as usize];
        read_full(&*file, &mut bytes, 0)?;
        let header = Header::decode(&bytes)?;
        if header.fs != self.fs {
            return Err(SegmentError::Foreign(header.fs));
        }
        if header.segment != id {
            return Err(BadHeader::Damaged.into());
        }
        let segment = Segment { id, salt: header.salt, file };
        self.insert(segment.clone());
        Ok(segment)
    }

    /// Keeps an open segment for readers.
    pub fn insert(&self, segment: Segment) {
        let mut open = self.opened();
        while open.len() >= OPEN_MAX {
            open.pop_first();
        }
        open.insert(segment.id, segment);
    }

    /// Has the disk read what lies at `places` in long stretches, for who is about to read it piece by piece.
    pub fn expect(&self, mut places: Vec<Location>) {
        places.sort_unstable_by_key(|at| (at.segment, at.offset));
        let near = |a: &Location, b: &Location| {
            a.segment == b.segment && b.offset <= a.offset + record_len(a.len) + GAP
        };
        for stretch in places.chunk_by(near) {
            let [first, .., last] = stretch else { continue };
            if let Ok(segment) = self.get(first.segment) {
                let len = last.offset + record_len(last.len) - first.offset;
                segment.file.expect_read(first.offset, len);
            }
        }
    }

    /// Reads a chunk. Checks the frame, not the hash: the caller's reader does that.
    ///
    /// # Errors
    /// When the record is not there as the index says, or cannot be read.
    pub fn read(&self, id: &ChunkId, at: Location) -> Result<Bytes, SegmentError> {
        let segment = self.get(at.segment)?;
        let mut record = vec![0; FRAME_LEN + at.len as usize];
        let n = read_full(&*segment.file, &mut record, at.offset)?;
        record.truncate(n);
        payload(record, &segment, id, at).ok_or(SegmentError::Misplaced)
    }

    /// The file and the offset at which the payload of the record at `at` lies, for other processes of this
    /// machine. `None` where they cannot read it.
    pub fn place(&self, at: Location) -> Option<(String, u64)> {
        let file = self.disk.path(&at.segment.file_name())?;
        Some((file, at.offset + FRAME_LEN as u64))
    }

    /// As [`SegmentSet::read`], of what the kernel has in memory: waits for no device. `None`: read it the
    /// long way.
    pub fn read_now(&self, id: &ChunkId, at: Location) -> Option<Bytes> {
        if at.len > AT_ONCE {
            return None;
        }
        let segment = self.opened().get(&at.segment).cloned()?;
        let mut record = vec![0; FRAME_LEN + at.len as usize];
        let whole = segment.file.read_now(&mut record, at.offset);
        payload(record, &segment, id, at).filter(|_| whole)
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, BTreeMap<SegmentId, Segment>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `record`, read from where `at` says, has behind its frame; `None` when it is not the record of `id`.
fn payload(record: Vec<u8>, segment: &Segment, id: &ChunkId, at: Location) -> Option<Bytes> {
    let frame = Frame::decode(record.first_chunk()?, segment.salt, at.offset)?;
    let right =
        frame.id == *id && frame.len == at.len && record.len() == FRAME_LEN + at.len as usize;
    right.then(|| Bytes::from(record).slice(FRAME_LEN..))
}
