//! Segments: append-only files of framed chunk records.
//!
//! [`format`] has the byte picture, [`name`] the file names, [`set`] the open files of one directory,
//! [`writer`] the segment that grows, [`scan`] the walk over records that recovery needs, [`erase`] what
//! becomes of records whose chunks are gone.
//!
//! Invariants: bytes that were synced are never written again, but for frames that become tombstones; a
//! segment is sealed (cut to its length and synced) before the next one is made, so only the newest can
//! have a torn tail.

pub mod erase;
pub mod format;
pub mod name;
pub mod scan;
pub mod set;
pub mod writer;

pub use name::SegmentId;

/// Where the record of a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// In which segment.
    pub segment: SegmentId,
    /// Offset of the record's frame.
    pub offset: u64,
    /// Length of the payload.
    pub len: u32,
}
