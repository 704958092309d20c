//! The file of a dump.
//!
//! ```text
//! "CAIRNDMP", version u32
//! frame*: kind u8, length u32, crc32c of kind, length and payload u32, payload
//!   'H'  Head, the first
//!   'R'  rows, at most about 1 MiB; a row may go on in the next frame
//!   'E'  End, the last: SHA-256 of everything before it, counts; nothing follows
//! ```
//!
//! Numbers are big-endian. What a reader is given may be anything: it answers with a place and a reason,
//! never with part of the rows as if they were all.

use std::io::{self, Read};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    End, Head, VERSION,
    rows::{Counts, Rows, write_row},
};
use crate::engine::EngineError;

const MAGIC: &[u8; 8] = b"CAIRNDMP";
const HEAD: u8 = b'H';
const ROWS: u8 = b'R';
const END: u8 = b'E';
/// Bytes of rows after which a frame ends.
const FRAME_BYTES: usize = 256 << 10;
/// Most bytes in a frame.
const FRAME_MAX: u32 = 32 << 20;

/// Why a dump cannot be used.
#[derive(Debug, Error)]
pub(crate) enum DumpError {
    /// It is something else.
    #[error("it is no dump of a Cairn master: check which file you gave")]
    NoDump,
    /// A later release wrote it.
    #[error(
        "it has format version {0}, this release reads versions up to {VERSION}: \
         load it with the newer release that wrote it"
    )]
    Newer(u32),
    /// It ends too early.
    #[error("it is cut off at byte {0}: copy it again, or take another dump")]
    Truncated(u64),
    /// It was changed.
    #[error("it was altered or damaged at byte {at} ({why}): copy it again, or take another dump")]
    Altered {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// It cannot be read.
    #[error("it cannot be read: {}", cairn_daemon::io_error::explain(.0))]
    Io(io::Error),
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are cut far below 4 GiB");
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), payload);
    frame.extend_from_slice(&crc.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// One piece of a dump on its way out.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Rows written so far.
    pub(crate) rows: u64,
    /// With the last piece: how many there were of each kind.
    pub(crate) counts: Option<Counts>,
}

/// A dump, piece by piece.
pub(crate) struct Pieces<'a> {
    head: Option<Head>,
    rows: Rows<'a>,
    sha: Sha256,
    counts: Counts,
    ended: bool,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(head: Head, rows: Rows<'a>) -> Self {
        Self { head: Some(head), rows, sha: Sha256::new(), counts: Counts::default(), ended: false }
    }

    fn piece(&mut self, bytes: Vec<u8>) -> Piece {
        self.sha.update(&bytes);
        Piece { bytes: bytes.into(), rows: self.counts.total(), counts: None }
    }

    fn next_piece(&mut self) -> Result<Piece, EngineError> {
        if let Some(head) = self.head.take() {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&VERSION.to_be_bytes());
            bytes.extend_from_slice(&frame(HEAD, &head.encode_to_vec()));
            return Ok(self.piece(bytes));
        }
        let mut payload = Vec::with_capacity(FRAME_BYTES + 4096);
        while payload.len() < FRAME_BYTES
            && let Some(row) = self.rows.next()
        {
            let (key, value) = row?;
            self.counts.add(&key);
            write_row(&key, &value, &mut payload);
        }
        if !payload.is_empty() {
            return Ok(self.piece(frame(ROWS, &payload)));
        }
        self.ended = true;
        let end = End {
            sha256: self.sha.clone().finalize().to_vec(),
            rows: self.counts.total(),
            counts: self.counts.to_wire(),
        };
        let mut piece = self.piece(frame(END, &end.encode_to_vec()));
        piece.counts = Some(self.counts.clone());
        Ok(piece)
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.next_piece();
        self.ended |= piece.is_err();
        Some(piece)
    }
}

/// A dump on its way in.
pub(crate) struct Frames<R> {
    from: R,
    at: u64,
    sha: Sha256,
    /// What the file system is.
    pub(crate) head: Head,
    end: Option<End>,
}

impl<R: Read> Frames<R> {
    /// Reads up to the first row.
    pub(crate) fn open(mut from: R) -> Result<Self, DumpError> {
        let mut start = [0; 12];
        from.read_exact(&mut start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DumpError::NoDump,
            _ => DumpError::Io(error),
        })?;
        if start[..8] != *MAGIC {
            return Err(DumpError::NoDump);
        }
        let version = u32::from_be_bytes([start[8], start[9], start[10], start[11]]);
        if version > VERSION {
            return Err(DumpError::Newer(version));
        }
        let mut sha = Sha256::new();
        sha.update(start);
        let mut frames = Self { from, at: 12, sha, head: Head::default(), end: None };
        let (kind, payload) = frames.frame()?;
        if kind != HEAD {
            return Err(altered(12, "the head is missing"));
        }
        frames.head = Head::decode(payload.as_slice()).map_err(|e| altered(12, e))?;
        Ok(frames)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DumpError> {
        let at = self.at;
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DumpError::Truncated(at),
            _ => DumpError::Io(error),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>), DumpError> {
        let at = self.at;
        let mut start = [0; 9];
        self.read(&mut start)?;
        let length = u32::from_be_bytes([start[1], start[2], start[3], start[4]]);
        if length > FRAME_MAX {
            return Err(altered(at, format_args!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        let crc = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
        if crc32c::crc32c_append(crc32c::crc32c(&start[..5]), &payload) != crc {
            return Err(altered(at, "the checksum of a frame does not match"));
        }
        if start[0] != END {
            self.sha.update(start);
            self.sha.update(&payload);
        }
        Ok((start[0], payload))
    }

    /// The next bytes of rows; `None` after the last, when the whole file is as it was written.
    pub(crate) fn rows(&mut self) -> Result<Option<Vec<u8>>, DumpError> {
        let at = self.at;
        match self.frame()? {
            (ROWS, payload) => Ok(Some(payload)),
            (END, payload) => {
                let end = End::decode(payload.as_slice()).map_err(|e| altered(at, e))?;
                if end.sha256 != self.sha.clone().finalize().to_vec() {
                    return Err(altered(at, "the SHA-256 of the whole does not match"));
                }
                if self.from.read(&mut [0]).map_err(DumpError::Io)? != 0 {
                    return Err(altered(self.at, "bytes follow the end"));
                }
                self.end = Some(end);
                Ok(None)
            }
            (kind, _) => Err(altered(at, format_args!("a frame of kind {kind}"))),
        }
    }

    /// After the last row: whether as many came as were written.
    pub(crate) fn check(&self, counts: &Counts) -> Result<(), DumpError> {
        match &self.end {
            Some(end) if end.rows == counts.total() && end.counts == counts.to_wire() => Ok(()),
            Some(end) => {
                let why = format!("{} rows instead of {}", counts.total(), end.rows);
                Err(altered(self.at, why))
            }
            None => Err(DumpError::Truncated(self.at)),
        }
    }

    /// Where reading is.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }
}

/// Something at byte `at` is not as it was written.
pub(crate) fn altered(at: u64, why: impl ToString) -> DumpError {
    DumpError::Altered { at, why: why.to_string() }
}
