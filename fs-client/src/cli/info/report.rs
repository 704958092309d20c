//! What `cairn info` found.

use std::collections::BTreeMap;

use cairn_proto::{Attr, FileKind, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::{list, spool::Spool, store::StorePath};

/// Files with their chunks. `cairn info --json`
#[derive(Serialize, JsonSchema)]
pub struct InfoReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    pub version: u32,
    /// Each PATH, in the order given.
    pub files: Vec<FileInfo>,
}

/// A file, directory or link.
#[derive(Serialize, JsonSchema)]
pub struct FileInfo {
    /// Path in the store; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char device` or `block device`.
    pub kind: &'static str,
    /// Inode number.
    pub inode: u64,
    /// As `ls -l` shows it: `-rw-r--r--`.
    pub mode: String,
    /// Names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes in chunks as stored, holes excluded.
    pub allocated: u64,
    /// Last change of the content, UTC: `2026-11-22 10:30:00`.
    pub modified: String,
    /// Last change of anything, UTC.
    pub changed: String,
    /// Last read, as far as it is noted, UTC.
    pub accessed: String,
    /// Creation, UTC.
    pub created: String,
    /// Where a symbolic link leads.
    pub target: Option<String>,
    /// Entries of a directory.
    pub entries: Option<u64>,
    /// The chunks of a regular file.
    pub content: Option<Content>,
}

/// The chunks of a file.
#[derive(Serialize, JsonSchema)]
pub struct Content {
    /// Bytes of a whole chunk.
    pub chunk_size: u32,
    /// Chunks referred to, holes excluded.
    pub chunks: u64,
    /// Chunks that are holes: they read as zeros and take nothing.
    pub holes: u64,
    /// Distinct chunks.
    pub distinct: u64,
    /// Bytes of distinct chunks, one copy each.
    pub distinct_bytes: u64,
    /// Copies that every chunk shall have, not more than there are nodes.
    pub copies_wanted: u32,
    /// References to chunks that have as many good copies.
    pub complete: u64,
    /// References to chunks that have fewer, but at least one.
    pub fewer: u64,
    /// References to chunks of which no copy was seen, and a node that should have one does not answer.
    pub unknown: u64,
    /// References to chunks of which there is no copy.
    pub lost: u64,
    /// Nodes that do not answer, and why.
    pub away: BTreeMap<String, String>,
    /// The first chunks; all with `--all`. An index that is not listed between others is a hole.
    #[schemars(with = "Vec<ChunkInfo>")]
    pub list: Spool<ChunkInfo>,
}

/// One chunk of a file.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct ChunkInfo {
    /// Its place in the file: byte `index * chunk_size` is its first.
    pub index: u64,
    /// SHA-256 of its bytes, 64 hex digits.
    pub id: String,
    /// Bytes as stored.
    pub bytes: u32,
    /// How they are stored: `plain`, `lz4` or `zstd`.
    pub codec: String,
    /// Bytes of content.
    pub content_bytes: u32,
    /// The nodes that should have it, and others that do.
    pub copies: Vec<CopyInfo>,
}

/// One copy of a chunk.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct CopyInfo {
    /// The node.
    pub node: String,
    /// What the node says. `cairn verify` reads and hashes the bytes too.
    pub state: CopyState,
}

/// Whether a copy is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    /// The node has it, in full length.
    Present,
    /// The node should have it and has not.
    Missing,
    /// The node has something of another length.
    WrongLength,
    /// The node should have it and does not answer.
    NodeAway,
}

impl CopyState {
    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::WrongLength => "wrong length",
            Self::NodeAway => "node away",
        }
    }
}

impl FileInfo {
    /// What the attributes say.
    pub(super) fn new(path: &StorePath, attr: &Attr) -> Self {
        let time = |t: Timestamp| list::time_text(t);
        Self {
            path: path.to_string(),
            kind: match attr.kind() {
                FileKind::Regular => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::Fifo => "fifo",
                FileKind::Socket => "socket",
                FileKind::CharDevice => "char device",
                FileKind::BlockDevice => "block device",
            },
            inode: attr.ino.get(),
            mode: list::mode_text(attr),
            links: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            size: attr.size,
            allocated: attr.allocated,
            modified: time(attr.mtime),
            changed: time(attr.ctime),
            accessed: time(attr.atime),
            created: time(attr.btime),
            target: None,
            entries: None,
            content: None,
        }
    }
}
