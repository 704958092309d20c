//! [`SegmentWriter`]: the segment that grows. One per data directory, owned by its writer thread.
//!
//! [`SegmentWriter::append`] writes records, [`SegmentWriter::sync`] makes them durable. After a failed
//! sync the kernel may have dropped the very pages that failed, so nothing that was appended since the
//! last good one may be counted on, and nothing here may be used again; except when the disk was full:
//! then the segment is given up, cut back to what was synced before the next one is made.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;
use cairn_proto::ChunkId;

use super::{
    Location, SegmentId,
    format::{FRAME_LEN, Frame, HEADER_LEN, Header, record_len},
    set::{Segment, SegmentSet},
};
use crate::{
    disk::write_full,
    failpoints::{self, IN_ROLL_OVER},
};

/// The kernel is asked to write back after this many bytes, so that the sync finds little to do.
const WRITEBACK_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of the segment that the kernel keeps in memory behind what was synced last, as far as they were written
/// through it: what is long is not (`disk/direct.rs`). Left alone it keeps
/// everything that is written until memory is full: other things go for it, and memory has to be found that
/// was not in use, which in a virtual machine costs several times as much as the write itself
/// (`docs/benchmarks.md`). So the same memory is written to again.
const WARM_BYTES: u64 = 64 * 1024 * 1024;
/// Less is not worth a call.
const COOL_BYTES: u64 = 4 * 1024 * 1024;
const ZEROS: [u8; 64] = [0; 64];

/// Room is taken from the file system in steps of a thirty-second of what the segment holds, this at
/// least: few enough calls that they do not count, and `du` of a node stays near what it keeps.
const STEP_MIN: u64 = 1024 * 1024;

/// How segments are cut.
#[derive(Clone, Copy, Debug)]
pub struct SegmentShape {
    /// Length at which the next segment begins.
    pub bytes: u64,
    /// Largest chunk, for the header.
    pub chunk_size: u32,
}

struct Active {
    segment: Segment,
    /// Where the next record goes.
    at: u64,
    /// Length that has been allocated.
    allocated: u64,
    written_back: u64,
    dirty: bool,
    /// End of what is durable.
    synced: u64,
    /// Until here the kernel has been told that it need keep nothing.
    cold: u64,
    /// A sync has failed because the disk was full: what lies beyond `synced` is not to be trusted.
    given_up: bool,
}

/// See the module.
pub struct SegmentWriter {
    set: Arc<SegmentSet>,
    shape: SegmentShape,
    active: Option<Active>,
    next: SegmentId,
}

/// A chunk to append.
#[derive(Clone, Debug)]
pub struct Record {
    /// SHA-256 of `data`, which the caller has checked.
    pub id: ChunkId,
    /// 1 byte to the chunk size.
    pub data: Bytes,
    /// Epoch of the put.
    pub epoch: u64,
}

impl Record {
    fn payload_len(&self) -> u32 {
        u32::try_from(self.data.len()).expect("chunks are at most 16 MiB")
    }
}

impl SegmentWriter {
    /// Goes on at `at` in the newest segment, where recovery found its end, or with none. `next` is
    /// the number of the next new segment.
    ///
    /// # Errors
    /// When the tail cannot be cut.
    pub fn new(
        set: Arc<SegmentSet>,
        shape: SegmentShape,
        newest: Option<(Segment, u64)>,
        next: SegmentId,
    ) -> io::Result<Self> {
        let mut active = None;
        if let Some((segment, at)) = newest {
            if segment.file.len()? != at {
                segment.file.truncate(at)?;
                segment.file.sync()?;
            }
            if at < shape.bytes {
                active = Some(Active::new(segment, at));
            }
        }
        Ok(Self { set, shape, active, next })
    }

    /// Bytes that can be appended without taking more from the file system.
    pub fn reserved(&self) -> u64 {
        self.active.as_ref().map_or(0, |a| a.allocated - a.at)
    }

    /// Number of the first segment that is not sealed: the active one, or the next.
    pub fn first_unsealed(&self) -> SegmentId {
        self.active.as_ref().map_or(self.next, |a| a.segment.id)
    }

    /// Seals the active segment, if there is one, and begins the next.
    ///
    /// # Errors
    /// As for [`SegmentWriter::sync`].
    pub fn roll(&mut self) -> io::Result<()> {
        if self.active.is_some() {
            self.seal()?;
            failpoints::hit(IN_ROLL_OVER);
            self.active = Some(self.create()?);
        }
        Ok(())
    }

    /// End of the records in the active segment, if there is one.
    pub fn position(&self) -> Option<(SegmentId, u64)> {
        self.active.as_ref().map(|a| (a.segment.id, a.at))
    }

    /// Writes all of `records`; segments that fill up are sealed, and so synced, on the way. Returns
    /// where they lie. They are durable after [`SegmentWriter::sync`].
    ///
    /// # Errors
    /// Then none of `records` may be counted on; those of earlier calls are as they were.
    pub fn append(&mut self, records: &[Record]) -> io::Result<Vec<Location>> {
        let mut places = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some(first) = rest.first() {
            let active = self.active_with_room(record_len(first.payload_len()))?;
            let mut room = active.allocated - active.at;
            let fit = rest
                .iter()
                .take_while(|r| {
                    let len = record_len(r.payload_len());
                    let fits = len <= room;
                    room = room.saturating_sub(len);
                    fits
                })
                .count();
            let (now, later) = rest.split_at(fit);
            active.write(now, &mut places)?;
            rest = later;
        }
        Ok(places)
    }

    /// Makes all appended records durable.
    ///
    /// # Errors
    /// Then the disk is not to be written to again.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.active {
            Some(active) if active.given_up => Err(io::ErrorKind::StorageFull.into()),
            Some(active) if active.dirty => active.sync(),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether records that were appended and not synced are lost, because the disk is full.
    pub fn has_given_up(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.given_up)
    }

    /// Cuts the unused rest off and syncs; the next append makes a new segment.
    ///
    /// # Errors
    /// As for [`SegmentWriter::sync`].
    pub fn seal(&mut self) -> io::Result<()> {
        if let Some(active) = &mut self.active {
            let end = if active.given_up { active.synced } else { active.at };
            active.segment.file.truncate(end)?;
            active.sync()?;
            active.keep_warm(0);
        }
        self.active = None;
        Ok(())
    }

    /// The active segment with at least `need` bytes allocated ahead.
    fn active_with_room(&mut self, need: u64) -> io::Result<&mut Active> {
        let full = self.active.as_ref().is_some_and(|a| {
            a.given_up
                || (a.allocated - a.at < need
                    && a.at > HEADER_LEN
                    && a.at + need > self.shape.bytes)
        });
        if full {
            self.seal()?;
            failpoints::hit(IN_ROLL_OVER);
        }
        if self.active.is_none() {
            self.active = Some(self.create()?);
        }
        let bytes = self.shape.bytes;
        let active = self.active.as_mut().expect("was made above");
        if active.allocated - active.at < need {
            active.allocate(active.at + need, bytes)?;
        }
        Ok(active)
    }

    fn create(&mut self) -> io::Result<Active> {
        let id = self.next;
        let salt = uuid::Uuid::new_v4().as_u64_pair().0;
        let header =
            Header { chunk_size: self.shape.chunk_size, fs: self.set.fs(), segment: id, salt };
        let disk = self.set.disk();
        let file = disk.create(&id.temporary_name())?;
        write_full(&*file, &mut [IoSlice::new(&header.encode())], 0)?;
        file.sync()?;
        disk.rename(&id.temporary_name(), &id.file_name())?;
        disk.sync_names()?;
        self.next = id.next();
        let segment = Segment { id, salt, file };
        self.set.insert(segment.clone());
        Ok(Active::new(segment, HEADER_LEN))
    }
}

/// Whether the disk has no room left: that passes, and nothing is broken.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Active {
    /// Goes on at `at`, up to where everything is durable.
    fn new(segment: Segment, at: u64) -> Self {
        Self {
            segment,
            at,
            allocated: at,
            written_back: at,
            dirty: false,
            synced: at,
            cold: at,
            given_up: false,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment.file.sync().inspect_err(|e| self.given_up |= is_full(e))?;
        self.dirty = false;
        self.synced = self.at;
        self.keep_warm(WARM_BYTES);
        Ok(())
    }

    /// Has the kernel keep the last `bytes` only of what is durable here.
    fn keep_warm(&mut self, bytes: u64) {
        let end = self.synced.saturating_sub(bytes);
        if end >= self.cold + COOL_BYTES {
            self.segment.file.forget(self.cold, end - self.cold);
            self.cold = end;
        }
    }

    /// Reserves the next step up to `whole`, or where the file system has not that much left, what is
    /// needed.
    fn allocate(&mut self, need: u64, whole: u64) -> io::Result<()> {
        let step = (self.at / 32).max(STEP_MIN);
        let mut len = need.max(whole.min(need + step));
        match self.segment.file.allocate(len) {
            Err(e) if is_full(&e) && need < len => {
                len = need;
                self.segment.file.allocate(len)?;
            }
            result => result?,
        }
        self.allocated = len;
        Ok(())
    }

    /// One vectored write of frames, payloads and padding; the disk may need several.
    fn write(&mut self, records: &[Record], places: &mut Vec<Location>) -> io::Result<()> {
        let start = self.at;
        let mut end = start;
        let mut frames = Vec::with_capacity(records.len());
        let mut located = Vec::with_capacity(records.len());
        for record in records {
            let len = record.payload_len();
            let frame = Frame { id: record.id, len, epoch: record.epoch };
            frames.push(frame.encode(self.segment.salt, end));
            located.push(Location { segment: self.segment.id, offset: end, len });
            end += record_len(len);
        }
        let mut bufs = Vec::with_capacity(3 * records.len());
        for (record, frame) in records.iter().zip(&frames) {
            bufs.push(IoSlice::new(frame));
            bufs.push(IoSlice::new(&record.data));
            let padding = record_len(record.payload_len()) - (FRAME_LEN + record.data.len()) as u64;
            bufs.push(IoSlice::new(&ZEROS[..usize::try_from(padding).expect("below 64")]));
        }
        self.dirty = true;
        write_full(&*self.segment.file, &mut bufs, start)?;
        self.at = end;
        places.append(&mut located);
        if self.at - self.written_back >= WRITEBACK_BYTES {
            let len = self.at - self.written_back;
            self.segment.file.start_writeback(self.written_back, len);
            self.written_back = self.at;
        }
        Ok(())
    }
}
