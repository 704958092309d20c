//! Brings a data directory back to work: index and segments are made to agree, the tail is cut.
//!
//! From each segment's mark on, records are scanned and put into the index; a sealed segment whose
//! mark is at its end costs nothing. The newest segment is synced before what is found there counts:
//! after kill -9 its records may be in the page cache only. An index that is missing, damaged or of
//! other segments is made anew. What nobody was promised may go; nothing that was acknowledged does.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use super::index::{Counting, Entry, Index, IndexError};
use crate::segment::{
    SegmentId,
    format::{BadHeader, HEADER_LEN},
    scan::Scan,
    set::{Segment, SegmentError, SegmentSet},
    writer::{SegmentShape, SegmentWriter},
};

const ENTRIES_PER_BATCH: usize = 1024;

/// Why a data directory cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The index cannot be opened, and making it anew would not help.
    #[error("the index cannot be used: {0}")]
    Index(#[from] IndexError),
    /// A segment is not readable.
    #[error("segment {0} cannot be used: {1}")]
    Segment(SegmentId, SegmentError),
    /// The disk said so.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A data directory ready for work.
pub struct Recovered {
    /// Its index.
    pub index: Index,
    /// Where the next chunk goes.
    pub writer: SegmentWriter,
}

/// Opens index and segments and makes them agree.
///
/// # Errors
/// See [`RecoveryError`].
pub fn recover(
    set: &Arc<SegmentSet>,
    index_dir: &Path,
    index_cache: u64,
    shape: SegmentShape,
    counting: &Counting,
) -> Result<Recovered, RecoveryError> {
    let ids = set.list()?;
    let index = match open_matching(index_dir, index_cache, counting, &ids) {
        Err(IndexError::Damaged(why)) => {
            tracing::warn!(index = %index_dir.display(), "making the index anew: {why}");
            fs::remove_dir_all(index_dir)?;
            Index::open(index_dir, index_cache, counting.clone())?
        }
        other => other?,
    };
    let marks = index.marks()?;
    let mut newest = None;
    for id in &ids {
        let sealed = ids.last() != Some(id);
        let from = marks.get(id).copied().unwrap_or(HEADER_LEN);
        match set.get(*id) {
            Ok(segment) => {
                let end = catch_up(&index, &segment, from, sealed)?;
                newest = Some((segment, end));
            }
            // One unreadable header must not keep the other segments' chunks away.
            Err(SegmentError::Header(BadHeader::Damaged)) => {
                tracing::error!(segment = %id, "its header is damaged: its chunks are lost here");
                newest = None;
            }
            Err(e) => return Err(RecoveryError::Segment(*id, e)),
        }
    }
    index.sync()?;
    let next = ids.last().map_or(SegmentId(1), |id| id.next());
    let writer = SegmentWriter::new(Arc::clone(set), shape, newest, next)?;
    Ok(Recovered { index, writer })
}

/// The index, unless it speaks of a segment that does not exist: then it is not of this directory.
fn open_matching(
    dir: &Path,
    cache: u64,
    counting: &Counting,
    ids: &[SegmentId],
) -> Result<Index, IndexError> {
    let index = Index::open(dir, cache, counting.clone())?;
    match index.marks()?.keys().find(|id| !ids.contains(id)) {
        None => Ok(index),
        Some(id) => Err(IndexError::Damaged(format!("it knows segment {id}, which is missing"))),
    }
}

/// Puts what the index lacks of one segment into it; the end of the segment's records.
fn catch_up(
    index: &Index,
    segment: &Segment,
    from: u64,
    sealed: bool,
) -> Result<u64, RecoveryError> {
    let len = segment.file.len()?;
    if len < from {
        tracing::error!(segment = %segment.id, "it is shorter than it was: chunks are lost here");
        return Ok(len.next_multiple_of(64));
    }
    if len == from {
        return Ok(from);
    }
    if !sealed {
        segment.file.sync()?;
    }
    let mut scan = Scan::new(segment, from, sealed)?;
    let mut found = Vec::new();
    let mut chunks = 0u64;
    loop {
        let record = scan.next_record()?;
        if let Some(record) = record {
            found.push((record.frame.id, Entry::new(record.at, record.frame.epoch)));
            chunks += 1;
        }
        if found.len() >= ENTRIES_PER_BATCH || (record.is_none() && !found.is_empty()) {
            scan.sync()?;
            index.publish(&found, &BTreeMap::from([(segment.id, scan.end())]))?;
            found.clear();
        }
        if record.is_none() {
            break;
        }
    }
    if sealed {
        // Nothing more will come: the next start need not look at what is damaged again.
        index.publish(&[], &BTreeMap::from([(segment.id, len)]))?;
    }
    if scan.skipped() > 0 {
        let bytes = scan.skipped();
        tracing::warn!(segment = %segment.id, bytes, "passed over bytes that are no records");
    }
    if chunks > 0 {
        tracing::info!(segment = %segment.id, chunks, "found chunks that the index did not have");
    }
    Ok(scan.end())
}
