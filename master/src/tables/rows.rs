//! The values of all rows, as protobuf messages: fields are only ever added, a tag is never reused.

use bytes::Bytes;
use cairn_proto::{
    ChunkId, ChunkRef, Codec, FileKind,
    lock_ranges::{Mode, Ranges, Span},
    pb, xattr,
};
use prost::Message;

use crate::engine::EngineError;

/// Format of the rows that this version writes.
pub const SCHEMA: u32 = 1;

/// Chunks whose references lie in the inode itself; segments hold the others.
pub const INLINE_REFS: u64 = 4;

/// Segments that one list row names.
pub const LIST_SEGMENTS: u64 = 64;

/// What all other rows are written with.
#[derive(Clone, PartialEq, Message)]
pub struct SchemaRow {
    /// [`SCHEMA`] at the time.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Chunk size of the file system.
    #[prost(uint32, tag = "2")]
    pub chunk_size: u32,
}

/// What people decided about the cluster after it was formatted.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterRow {
    /// Copies wanted of every chunk; 0: as formatted.
    #[prost(uint32, tag = "1")]
    pub replicas: u32,
    /// Copies without which a write fails; 0: as formatted.
    #[prost(uint32, tag = "2")]
    pub min_replicas: u32,
    /// UUIDs, 16 bytes each, of nodes that were removed and may not come back by themselves.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub removed: Vec<Bytes>,
    /// What clients do with new chunks; absent: as formatted.
    #[prost(message, optional, tag = "4")]
    pub compression: Option<pb::Compression>,
}

/// An inode.
#[derive(Clone, PartialEq, Message)]
pub struct InodeRow {
    /// Type and permission bits.
    #[prost(uint32, tag = "1")]
    pub mode: u32,
    /// Number of names; of a directory 2 and its subdirectories.
    #[prost(uint32, tag = "2")]
    pub nlink: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Device number.
    #[prost(uint32, tag = "5")]
    pub rdev: u32,
    /// Length.
    #[prost(uint64, tag = "6")]
    pub size: u64,
    /// Sum of the stored lengths of all references.
    #[prost(uint64, tag = "7")]
    pub allocated: u64,
    /// Last read.
    #[prost(message, optional, tag = "8")]
    pub atime: Option<pb::Timestamp>,
    /// Last change of the content.
    #[prost(message, optional, tag = "9")]
    pub mtime: Option<pb::Timestamp>,
    /// Last change.
    #[prost(message, optional, tag = "10")]
    pub ctime: Option<pb::Timestamp>,
    /// Creation.
    #[prost(message, optional, tag = "11")]
    pub btime: Option<pb::Timestamp>,
    /// Grows with every change.
    #[prost(uint64, tag = "12")]
    pub version: u64,
    /// Grows with every change of the content.
    #[prost(uint64, tag = "13")]
    pub data_version: u64,
    /// Target of a symbolic link.
    #[prost(bytes = "bytes", tag = "14")]
    pub target: Bytes,
    /// References of the first [`INLINE_REFS`] chunks.
    #[prost(message, repeated, tag = "15")]
    pub refs: Vec<RefRow>,
    /// Of a directory: the one that holds its name; the root's is the root.
    #[prost(uint64, tag = "16")]
    pub parent: u64,
    /// Of a directory: the cookie of the next entry.
    #[prost(uint64, tag = "17")]
    pub next_cookie: u64,
    /// Of a directory: how many names it holds.
    #[prost(uint64, tag = "18")]
    pub entries: u64,
    /// Bytes of the list of extended attributes, each name with its NUL.
    #[prost(uint64, tag = "19")]
    pub xattr_list: u64,
    /// Which of them there may be (see [`xattr`]). Rows of older versions have 0 and a list.
    #[prost(uint32, tag = "20")]
    pub xattrs: u32,
    /// The innermost directory with a quota that it counts in; 0: none.
    #[prost(uint64, tag = "21")]
    pub quota: u64,
}

impl InodeRow {
    /// The type of file, if the row is sound.
    pub const fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == Some(FileKind::Regular)
    }

    /// Which extended attributes there may be. A bit that is not set is certain.
    pub const fn xattr_bits(&self) -> u32 {
        if self.xattr_list != 0 && self.xattrs == 0 { xattr::ALL } else { self.xattrs }
    }

    /// What `stat` shows.
    pub const fn attr(&self, ino: u64) -> pb::Attr {
        pb::Attr {
            ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            allocated: self.allocated,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            data_version: self.data_version,
            xattrs: Some(self.xattr_bits()),
        }
    }
}

/// One reference and its place in the inode or segment.
#[derive(Clone, PartialEq, Message)]
pub struct RefRow {
    /// Chunk index, counted from the first of the inode or segment.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
    /// Length of the stored bytes.
    #[prost(uint32, tag = "3")]
    pub stored_len: u32,
    /// Length of the content.
    #[prost(uint32, tag = "4")]
    pub logical_len: u32,
    /// Number of the codec; 0: stored as is.
    #[prost(uint32, tag = "5")]
    pub codec: u32,
}

/// References by slot; `None` is a hole.
pub type Slots = Vec<Option<ChunkRef>>;

/// Slots from rows; `what` names the row for the error.
pub fn slots(rows: &[RefRow], count: u64, what: &str) -> Result<Slots, EngineError> {
    let wrong = || EngineError::Damaged(format!("{what} holds a reference that makes no sense"));
    let count = usize::try_from(count).map_err(|_| wrong())?;
    let mut slots = vec![None; count];
    for row in rows {
        let slot = slots.get_mut(row.slot as usize).ok_or_else(wrong)?;
        *slot = Some(ChunkRef {
            id: ChunkId::try_from(row.id.as_ref()).map_err(|_| wrong())?,
            stored_len: row.stored_len,
            logical_len: row.logical_len,
            codec: Codec::try_from(row.codec).map_err(|_| wrong())?,
        });
    }
    Ok(slots)
}

/// Rows from slots. Their ids share one buffer: a hundred small ones, which all go at once, cost the allocator more
/// than the rest of a commit does.
pub fn ref_rows(slots: &[Option<ChunkRef>]) -> Vec<RefRow> {
    let chunks = || (0..).zip(slots).filter_map(|(slot, chunk)| Some((slot, (*chunk)?)));
    let ids: Vec<_> = chunks().map(|(_, chunk)| *chunk.id.as_bytes()).collect();
    let mut ids = Bytes::from(ids.into_flattened());
    let row = |(slot, chunk): (u32, ChunkRef)| RefRow {
        slot,
        id: ids.split_to(ChunkId::LEN),
        stored_len: chunk.stored_len,
        logical_len: chunk.logical_len,
        codec: chunk.codec.number(),
    };
    chunks().map(row).collect()
}

/// Sum of the stored lengths.
pub fn stored_bytes(slots: &[Option<ChunkRef>]) -> u64 {
    slots.iter().flatten().map(|chunk| u64::from(chunk.stored_len)).sum()
}

/// A name in a directory.
#[derive(Clone, PartialEq, Message)]
pub struct DentryRow {
    /// Where it leads.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// Type bits of that inode's mode.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Its place in listings, for as long as the name exists.
    #[prost(uint64, tag = "3")]
    pub cookie: u64,
}

/// The same by cookie.
#[derive(Clone, PartialEq, Message)]
pub struct CookieRow {
    /// The name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Where it leads.
    #[prost(uint64, tag = "2")]
    pub ino: u64,
    /// Type bits of that inode's mode.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
}

/// [`LIST_SEGMENTS`] consecutive segments of a file; absent: 128 holes.
#[derive(Clone, PartialEq, Message)]
pub struct ListRow {
    /// In the order of their slots.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<ListEntry>,
}

/// One segment of a file.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ListEntry {
    /// Segment index within the list row.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Which segment.
    #[prost(uint64, tag = "2")]
    pub segment: u64,
    /// Sum of the stored lengths in it.
    #[prost(uint64, tag = "3")]
    pub stored: u64,
}

/// References of 128 consecutive chunks.
#[derive(Clone, PartialEq, Message)]
pub struct SegmentRow {
    /// In the order of their slots.
    #[prost(message, repeated, tag = "1")]
    pub refs: Vec<RefRow>,
}

/// How many lists name a segment, when more than one does.
#[derive(Clone, PartialEq, Message)]
pub struct ShareRow {
    /// 2 or more.
    #[prost(uint64, tag = "1")]
    pub users: u64,
}

/// Segments that a file no longer names, one user of each to be taken away.
#[derive(Clone, PartialEq, Message)]
pub struct ReclaimRow {
    /// Which.
    #[prost(uint64, repeated, tag = "1")]
    pub segments: Vec<u64>,
}

/// A session.
#[derive(Clone, PartialEq, Message)]
pub struct SessionRow {
    /// Host and mount point, for people.
    #[prost(string, tag = "1")]
    pub client_name: String,
    /// Replies below this were acknowledged and are gone.
    #[prost(uint64, tag = "2")]
    pub floor: u64,
}

/// The locks of one owner on one file, in order, none touching the next.
#[derive(Clone, PartialEq, Message)]
pub struct LocksRow {
    /// Which bytes.
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<SpanRow>,
}

impl From<&Ranges> for LocksRow {
    fn from(ranges: &Ranges) -> Self {
        let row = |span: &Span| SpanRow {
            start: span.start,
            end: span.end,
            write: span.mode == Mode::Write,
            pid: span.pid,
        };
        Self { spans: ranges.iter().map(row).collect() }
    }
}

impl From<LocksRow> for Ranges {
    fn from(row: LocksRow) -> Self {
        let mut ranges = Self::default();
        for SpanRow { start, end, write, pid } in row.spans {
            if start <= end {
                let mode = if write { Mode::Write } else { Mode::Read };
                ranges.set(Span { start, end, mode, pid });
            }
        }
        ranges
    }
}

/// Locked bytes.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SpanRow {
    /// The first.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// The last.
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// Exclusive rather than shared.
    #[prost(bool, tag = "3")]
    pub write: bool,
    /// The process that asked, for people.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
}

/// The quota of a directory.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaRow {
    /// Bytes that chunks may take; 0: any.
    #[prost(uint64, tag = "1")]
    pub bytes_limit: u64,
    /// Inodes that may be; 0: any number.
    #[prost(uint64, tag = "2")]
    pub inodes_limit: u64,
    /// Bytes that chunks take, each reference counted.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// Inodes, the directory included.
    #[prost(uint64, tag = "4")]
    pub inodes: u64,
    /// The innermost directory with a quota around it; 0: none.
    #[prost(uint64, tag = "5")]
    pub around: u64,
    /// Whether the usage is complete.
    #[prost(enumeration = "QuotaState", tag = "6")]
    pub state: i32,
    /// Where the directory was when the quota was set, for people.
    #[prost(string, tag = "7")]
    pub path: String,
}

/// What is being done about a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum QuotaState {
    /// Nothing: it counts all there is.
    Settled = 0,
    /// What the directory held before is being counted.
    Counting = 1,
    /// It was removed: what counts in it is moved to the quota around it.
    Ending = 2,
}

/// A part of a backup of the metadata that lies in the storage nodes.
#[derive(Clone, PartialEq, Message)]
pub struct BackupRow {
    /// Ids of chunks, 32 bytes each.
    #[prost(bytes = "bytes", tag = "1")]
    pub ids: Bytes,
    /// With the last part: the root, a `BackupRoot`. Without it the backup was not finished.
    #[prost(bytes = "bytes", tag = "2")]
    pub root: Bytes,
}

/// What exists.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct CountersRow {
    /// Regular files.
    #[prost(uint64, tag = "1")]
    pub files: u64,
    /// Directories.
    #[prost(uint64, tag = "2")]
    pub directories: u64,
    /// The others.
    #[prost(uint64, tag = "3")]
    pub other: u64,
    /// Sum of the lengths of regular files.
    #[prost(uint64, tag = "4")]
    pub logical_bytes: u64,
    /// Sum of the stored lengths of all references.
    #[prost(uint64, tag = "5")]
    pub referenced_bytes: u64,
    /// Inodes without a name.
    #[prost(uint64, tag = "6")]
    pub orphans: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_slots() {
        let mut refs: Slots = vec![None; 128];
        refs[0] = Some(ChunkRef::plain(b"a"));
        refs[127] = ChunkRef::plain(b"bcd").clipped(2);
        let rows = ref_rows(&refs);
        assert_eq!(slots(&rows, 128, "x").unwrap(), refs);
        assert_eq!(stored_bytes(&refs), 4);
        assert!(slots(&rows, 127, "x").is_err(), "a slot outside is damage");
    }
}
