//! The metadata as a portable stream of rows: written from a snapshot while the master serves, read into
//! an empty data directory. The format is described in `docs/formats.md`.
//!
//! - [`rows`]: which rows make the file system, in order, as bytes; and such bytes as rows again.
//! - [`frames`]: the file: those bytes in frames with checksums, a head before them, an end behind them.
//! - [`load`]: rows into an engine, with every number raised above what may have been handed out since.
//!
//! Backups in the storage nodes are the same bytes cut elsewhere (`crate::backup`). Nothing here knows
//! what an operation is, and nothing is decided on trust: what comes from a file may be anything.

pub(crate) mod frames;
pub(crate) mod load;
pub(crate) mod rows;

use cairn_proto::{Compression, pb};
use prost::Message;

use crate::format::Format;

/// Version of the format that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 1;

/// What stands before the rows.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    /// UUID of the file system.
    #[prost(string, tag = "1")]
    pub(crate) fs_uuid: String,
    /// Bytes in a chunk.
    #[prost(uint32, tag = "2")]
    pub(crate) chunk_size: u32,
    /// Copies wanted.
    #[prost(uint32, tag = "3")]
    pub(crate) replicas: u32,
    /// Copies without which a write fails.
    #[prost(uint32, tag = "4")]
    pub(crate) min_replicas: u32,
    /// Bits of a placement group.
    #[prost(uint32, tag = "5")]
    pub(crate) pg_bits: u32,
    /// When the snapshot was taken, for people.
    #[prost(uint64, tag = "6")]
    pub(crate) taken_unix_ms: u64,
    /// Starts of the master by then.
    #[prost(uint64, tag = "7")]
    pub(crate) incarnation: u64,
    /// What clients do with new chunks; absent: nothing.
    #[prost(message, optional, tag = "8")]
    pub(crate) compression: Option<pb::Compression>,
}

impl Head {
    /// The head of a dump of the file system that was formatted so.
    pub(crate) fn new(format: &Format, taken_unix_ms: u64, incarnation: u64) -> Self {
        Self {
            fs_uuid: format.fs_uuid.to_string(),
            chunk_size: format.chunk_size,
            replicas: format.replicas,
            min_replicas: format.min_replicas,
            pg_bits: format.pg_bits,
            taken_unix_ms,
            incarnation,
            compression: Some(format.compression.into()),
        }
    }

    /// What a data directory is to be formatted with, checked.
    pub(crate) fn format(&self) -> Result<Format, String> {
        let format = Format {
            fs_uuid: self.fs_uuid.parse().map_err(|e| format!("its UUID is none: {e}"))?,
            chunk_size: self.chunk_size,
            replicas: self.replicas,
            min_replicas: self.min_replicas,
            pg_bits: self.pg_bits,
            compression: self.compression.as_ref().map_or(Compression::Off, Compression::from),
        };
        format.check().map_err(|e| e.to_string())?;
        Ok(format)
    }
}

/// What stands behind the rows.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct End {
    /// SHA-256 of everything before this frame.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) sha256: Vec<u8>,
    /// Number of rows.
    #[prost(uint64, tag = "2")]
    pub(crate) rows: u64,
    /// Rows by kind.
    #[prost(message, repeated, tag = "3")]
    pub(crate) counts: Vec<pb::RowCount>,
}

#[cfg(test)]
mod tests;
