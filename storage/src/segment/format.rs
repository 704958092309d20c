//! The bytes of a segment file. All numbers are little-endian; records begin at multiples of 64.
//!
//! ```text
//! segment  = header, record, record, ..., zeros up to the allocated length
//!
//! header   0  "CAIRNSEG"                        record   0  "CRNR"
//!          8  version            u32                      4  length of payload   u32
//!         12  chunk size         u32                      8  epoch               u64
//!         16  file system        UUID                    16  chunk id            32 bytes
//!         32  segment id         u64                     48  zeros               12 bytes
//!         40  salt               u64                     60  crc32c of salt, offset, bytes 0..60
//!         48  zeros                                      64  payload, then zeros up to a multiple of 64
//!         60  crc32c of bytes 0..60
//! ```
//!
//! The checksum covers the frame only; the payload is checked by its id, its SHA-256. Salt and offset
//! are part of the checksum so that payload that happens to be a segment file (somebody stores one in
//! Cairn) never looks like records of the segment it lies in.
//!
//! The record of a chunk that was erased becomes a tombstone: the same frame with the magic "CRNX" and a
//! checksum of its own. It is durable before any byte of the payload goes, which may then be a hole. To
//! readers that know no tombstones it is damage, which they pass over.
//!
//! Versions: 1 is this one. A reader refuses what is newer.

use cairn_proto::{ChunkId, limits::CHUNK_SIZE_MAX};
use uuid::Uuid;

use super::SegmentId;

/// Version that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Length of the header of a segment.
pub const HEADER_LEN: u64 = 64;
/// Length of a record's frame.
pub const FRAME_LEN: usize = 64;
/// Records begin at multiples of this.
pub const ALIGN: u64 = 64;

const SEGMENT_MAGIC: &[u8; 8] = b"CAIRNSEG";
/// First bytes of every record.
pub const RECORD_MAGIC: &[u8; 4] = b"CRNR";
/// First bytes of what is left of a record whose chunk was erased.
pub const TOMBSTONE_MAGIC: &[u8; 4] = b"CRNX";

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Largest chunk.
    pub chunk_size: u32,
    /// The file system that the chunks belong to.
    pub fs: Uuid,
    /// Number of the segment, also in its name.
    pub segment: SegmentId,
    /// Random; part of every frame's checksum.
    pub salt: u64,
}

/// Why a header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// The checksum or the magic is wrong.
    #[error("its header is damaged")]
    Damaged,
    /// Written by a newer release.
    #[error("it has format version {0}, this release reads up to {VERSION}: use the newer release")]
    Newer(u32),
}

/// What the frame of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// SHA-256 of the payload.
    pub id: ChunkId,
    /// Length of the payload, 1 to 16 MiB.
    pub len: u32,
    /// Garbage collection epoch in which it was put.
    pub epoch: u64,
}

/// Bytes that a record with this payload takes in the file.
pub const fn record_len(payload: u32) -> u64 {
    (FRAME_LEN as u64 + payload as u64).next_multiple_of(ALIGN)
}

fn u32_at(bytes: &[u8; 64], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; 64], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Header {
    /// The bytes at the start of the file.
    pub fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.chunk_size.to_le_bytes());
        out[16..32].copy_from_slice(self.fs.as_bytes());
        out[32..40].copy_from_slice(&self.segment.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// When the bytes are no header that this release can read.
    pub fn decode(bytes: &[u8; 64]) -> Result<Self, BadHeader> {
        if &bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        Ok(Self {
            chunk_size: u32_at(bytes, 12),
            fs: Uuid::from_slice(&bytes[16..32]).expect("sixteen bytes"),
            segment: SegmentId(u64_at(bytes, 32)),
            salt: u64_at(bytes, 40),
        })
    }
}

fn frame_crc(salt: u64, offset: u64, frame: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), frame)
}

impl Frame {
    /// The bytes of this frame at `offset` of the segment with this `salt`.
    pub fn encode(&self, salt: u64, offset: u64) -> [u8; FRAME_LEN] {
        self.encode_as(RECORD_MAGIC, salt, offset)
    }

    /// The bytes that take the frame's place when the chunk is erased.
    pub fn encode_tombstone(&self, salt: u64, offset: u64) -> [u8; FRAME_LEN] {
        self.encode_as(TOMBSTONE_MAGIC, salt, offset)
    }

    fn encode_as(&self, magic: &[u8; 4], salt: u64, offset: u64) -> [u8; FRAME_LEN] {
        let mut out = [0; FRAME_LEN];
        out[..4].copy_from_slice(magic);
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        out[16..48].copy_from_slice(self.id.as_bytes());
        let crc = frame_crc(salt, offset, &out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The frame that lies at `offset`, if one does.
    pub fn decode(bytes: &[u8; FRAME_LEN], salt: u64, offset: u64) -> Option<Self> {
        Self::decode_as(RECORD_MAGIC, bytes, salt, offset)
    }

    /// The frame of the erased record that lay at `offset`, if one did.
    pub fn decode_tombstone(bytes: &[u8; FRAME_LEN], salt: u64, offset: u64) -> Option<Self> {
        Self::decode_as(TOMBSTONE_MAGIC, bytes, salt, offset)
    }

    fn decode_as(magic: &[u8; 4], bytes: &[u8; FRAME_LEN], salt: u64, offset: u64) -> Option<Self> {
        if &bytes[..4] != magic || u32_at(bytes, 60) != frame_crc(salt, offset, &bytes[..60]) {
            return None;
        }
        let len = u32_at(bytes, 4);
        if len == 0 || len > CHUNK_SIZE_MAX {
            return None;
        }
        let id = ChunkId::try_from(&bytes[16..48]).expect("32 bytes");
        Some(Self { id, len, epoch: u64_at(bytes, 8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { chunk_size: 65536, fs: Uuid::from_u128(7), segment: SegmentId(3), salt: 99 }
    }

    #[test]
    fn header_survives_and_damage_or_a_newer_version_is_refused() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for at in 0..64 {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(Header::decode(&wrong), Err(BadHeader::Damaged), "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(BadHeader::Newer(2)));
    }

    #[test]
    fn a_frame_is_valid_only_where_it_was_written() {
        let frame = Frame { id: ChunkId::of(b"abc"), len: 3, epoch: 5 };
        let bytes = frame.encode(99, 128);
        assert_eq!(Frame::decode(&bytes, 99, 128), Some(frame));
        assert_eq!(Frame::decode(&bytes, 99, 192), None);
        assert_eq!(Frame::decode(&bytes, 98, 128), None);
        assert_eq!(Frame::decode_tombstone(&bytes, 99, 128), None);
        let erased = frame.encode_tombstone(99, 128);
        assert_eq!(Frame::decode(&erased, 99, 128), None);
        assert_eq!(Frame::decode_tombstone(&erased, 99, 128), Some(frame));
        for at in 0..64 {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(Frame::decode(&wrong, 99, 128), None, "byte {at}");
        }
    }

    #[test]
    fn records_are_aligned() {
        assert_eq!(record_len(1), 128);
        assert_eq!(record_len(64), 128);
        assert_eq!(record_len(65536), 65600);
    }
}
