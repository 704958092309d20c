//! Walks over the records of a segment, past damage and past what was erased.
//!
//! Where no valid frame lies, the walk goes on at the next place where one does. What is found after
//! such a gap, and everything in a segment that was never sealed, counts only if the payload hashes to
//! its id: a frame may have reached the disk without its payload. In a segment that was never sealed
//! such a frame is erased, since once the segment is sealed its frames are believed.

use std::io::{self, IoSlice};

use cairn_proto::ChunkId;

use super::{
    Location,
    format::{ALIGN, FRAME_LEN, Frame, RECORD_MAGIC, TOMBSTONE_MAGIC, record_len},
    set::Segment,
};
use crate::disk::{read_full, write_full};

const WINDOW: usize = 1024 * 1024;

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its frame.
    pub frame: Frame,
    /// Where it lies.
    pub at: Location,
}

/// What lies somewhere.
enum Looked {
    Record(Frame),
    /// Of a chunk that was erased; the payload may be a hole.
    Tombstone(Frame),
}

/// A walk over the records of one segment.
pub struct Scan<'a> {
    segment: &'a Segment,
    len: u64,
    at: u64,
    verify_all: bool,
    after_gap: bool,
    /// One past the last good record.
    end: u64,
    /// Bytes that were passed over between good records.
    skipped: u64,
    /// A frame was erased; the file is to be synced.
    erased: bool,
}

impl<'a> Scan<'a> {
    /// Begins at `from`, an end of a record. `sealed`: everything in the file was synced.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn new(segment: &'a Segment, from: u64, sealed: bool) -> io::Result<Self> {
        let len = segment.file.len()?;
        Ok(Self {
            segment,
            len,
            at: from,
            verify_all: !sealed,
            after_gap: false,
            end: from,
            skipped: 0,
            erased: false,
        })
    }

    /// One past the last good record so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes without good records between good records so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Makes what was erased durable. To be called before what was found is relied on.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.erased) {
            self.segment.file.sync()?;
        }
        Ok(())
    }

    /// The next record; `None` when there is none up to the end of the file.
    ///
    /// # Errors
    /// Whatever the disk answers.
    pub fn next_record(&mut self) -> io::Result<Option<Found>> {
        loop {
            let frame = match self.look_at(self.at)? {
                Some(Looked::Record(frame)) => frame,
                Some(Looked::Tombstone(frame)) => {
                    self.pass(&frame);
                    continue;
                }
                None => match self.search(self.at + ALIGN)? {
                    Some(next) => {
                        self.at = next;
                        self.after_gap = true;
                        continue;
                    }
                    None => return Ok(None),
                },
            };
            let at = Location { segment: self.segment.id, offset: self.at, len: frame.len };
            if (self.verify_all || self.after_gap) && !self.payload_is_good(&frame)? {
                if self.verify_all {
                    let zeros = [0; FRAME_LEN];
                    write_full(&*self.segment.file, &mut [IoSlice::new(&zeros)], self.at)?;
                    self.erased = true;
                }
                self.at += ALIGN;
                self.after_gap = true;
                continue;
            }
            self.pass(&frame);
            return Ok(Some(Found { frame, at }));
        }
    }

    /// Goes to the end of the record that begins here.
    fn pass(&mut self, frame: &Frame) {
        self.skipped += self.at - self.end;
        self.at += record_len(frame.len);
        self.end = self.at;
        self.after_gap = false;
    }

    fn look_at(&self, offset: u64) -> io::Result<Option<Looked>> {
        let mut bytes = [0; FRAME_LEN];
        if read_full(&*self.segment.file, &mut bytes, offset)? < FRAME_LEN {
            return Ok(None);
        }
        Ok(self.decode(&bytes, offset))
    }

    fn decode(&self, bytes: &[u8; FRAME_LEN], offset: u64) -> Option<Looked> {
        let salt = self.segment.salt;
        let fits = |f: &Frame| offset + FRAME_LEN as u64 + u64::from(f.len) <= self.len;
        if bytes.starts_with(TOMBSTONE_MAGIC) {
            let erased = Frame::decode_tombstone(bytes, salt, offset);
            return erased.filter(fits).map(Looked::Tombstone);
        }
        Frame::decode(bytes, salt, offset).filter(fits).map(Looked::Record)
    }

    fn payload_is_good(&self, frame: &Frame) -> io::Result<bool> {
        let mut payload = vec![0; frame.len as usize];
        let n = read_full(&*self.segment.file, &mut payload, self.at + FRAME_LEN as u64)?;
        Ok(n == payload.len() && ChunkId::of(&payload) == frame.id)
    }

    /// Offset of the next valid frame, of a record or of an erased one, at or after `from`.
    fn search(&self, from: u64) -> io::Result<Option<u64>> {
        let mut window = vec![0; WINDOW];
        let mut base = from;
        while base < self.len {
            let n = read_full(&*self.segment.file, &mut window, base)?;
            let (frames, _) = window[..n].as_chunks::<FRAME_LEN>();
            for (i, bytes) in frames.iter().enumerate() {
                let offset = base + (i * FRAME_LEN) as u64;
                let promising =
                    bytes.starts_with(RECORD_MAGIC) || bytes.starts_with(TOMBSTONE_MAGIC);
                if promising && self.decode(bytes, offset).is_some() {
                    return Ok(Some(offset));
                }
            }
            if n < WINDOW {
                break;
            }
            base += WINDOW as u64;
        }
        Ok(None)
    }
}
