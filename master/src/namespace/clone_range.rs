//! CloneRange: shares the chunks of a range with another place, whole segments where they line up.

use std::ops::Range;

use cairn_proto::{
    ChunkRef, FsError,
    limits::{CLONE_MAX, FILE_SIZE_MAX, SEGMENT_REFS},
    pb,
    range::chunk_count,
};

use super::{
    Namespace,
    inodes::Inode,
    segments::{Home, Part},
};
use crate::tables::rows::INLINE_REFS;

/// A checked request in chunk indexes.
struct Span {
    src: u64,
    dst: u64,
    count: u64,
    /// The range reaches the end of the source and of the destination: what lies behind is empty.
    to_end: bool,
}

impl Span {
    /// Indexes at the destination.
    const fn range(&self) -> Range<u64> {
        self.dst..self.dst + self.count
    }

    /// The source segment that may take the place of segment `number` as a whole.
    fn shared_with(&self, number: u64) -> Option<u64> {
        if self.src % SEGMENT_REFS != self.dst % SEGMENT_REFS {
            return None;
        }
        let src_number = (number + self.src / SEGMENT_REFS).checked_sub(self.dst / SEGMENT_REFS)?;
        // Only segment 0 leaves the slots of the inode's own references empty.
        if (number == 0) != (src_number == 0) {
            return None;
        }
        let first = (number * SEGMENT_REFS).max(INLINE_REFS);
        let end = (number + 1) * SEGMENT_REFS;
        let covered = self.dst <= first && (end <= self.range().end || self.to_end);
        covered.then_some(src_number)
    }
}

impl Namespace {
    pub(super) fn clone_range(
        &mut self,
        request: &pb::CloneRange,
    ) -> Result<pb::Committed, FsError> {
        let src = self.inode(request.src_ino)?;
        let mut dst = self.inode(request.dst_ino)?;
        for inode in [&src, &dst] {
            if inode.row.is_directory() {
                return Err(FsError::IsDirectory);
            }
            if !inode.row.is_regular() {
                return Err(FsError::InvalidArgument);
            }
        }
        if request.length != 0 {
            let span = self.span(request, &src, &dst)?;
            let before = (dst.row.size, dst.row.allocated);
            self.clone_chunks(&src, &mut dst, &span)?;
            dst.row.size = dst.row.size.max(request.dst_offset + request.length);
            self.count_change(before, &dst.row);
            self.charge_change(before.1, &dst)?;
            let now = self.now();
            self.touch_data(&mut dst, now);
            self.put_inode(&dst);
        }
        Ok(pb::Committed { applied: true, attr: Some(dst.attr()), ..pb::Committed::default() })
    }

    fn span(&self, request: &pb::CloneRange, src: &Inode, dst: &Inode) -> Result<Span, FsError> {
        let chunk = u64::from(self.chunk_size);
        let end = |offset: u64| offset.checked_add(request.length).ok_or(FsError::InvalidArgument);
        let (src_end, dst_end) = (end(request.src_offset)?, end(request.dst_offset)?);
        if dst_end > FILE_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        let to_end = src_end == src.row.size && dst_end >= dst.row.size;
        let aligned = request.src_offset.is_multiple_of(chunk)
            && request.dst_offset.is_multiple_of(chunk)
            && (request.length.is_multiple_of(chunk) || to_end);
        let overlaps =
            src.ino == dst.ino && request.src_offset < dst_end && request.dst_offset < src_end;
        if !aligned || overlaps || src_end > src.row.size || request.length > CLONE_MAX {
            return Err(FsError::InvalidArgument);
        }
        Ok(Span {
            src: request.src_offset / chunk,
            dst: request.dst_offset / chunk,
            count: chunk_count(request.length, self.chunk_size),
            // Within one file the range cannot reach the end of both source and destination.
            to_end: to_end && src.ino != dst.ino,
        })
    }

    fn clone_chunks(&mut self, src: &Inode, dst: &mut Inode, span: &Span) -> Result<(), FsError> {
        let Range { start, end } = span.range();
        if start < INLINE_REFS {
            self.copy_refs(src, dst, span, start..end.min(INLINE_REFS))?;
        }
        if end <= INLINE_REFS {
            return Ok(());
        }
        for number in start.max(INLINE_REFS) / SEGMENT_REFS..=(end - 1) / SEGMENT_REFS {
            match span.shared_with(number) {
                Some(src_number) => self.share(src, src_number, dst, number)?,
                None => {
                    let first = (number * SEGMENT_REFS).max(INLINE_REFS).max(start);
                    let stop = ((number + 1) * SEGMENT_REFS).min(end);
                    self.copy_refs(src, dst, span, first..stop)?;
                }
            }
        }
        Ok(())
    }

    /// Lets segment `number` of `dst` be segment `src_number` of `src`.
    fn share(
        &mut self,
        src: &Inode,
        src_number: u64,
        dst: &mut Inode,
        number: u64,
    ) -> Result<(), FsError> {
        let new = self.list_entry(src.ino, src_number)?;
        let old = self.list_entry(dst.ino, number)?;
        if let Some(new) = new {
            self.share_segment(new.segment)?;
        }
        if let Some(old) = old {
            self.release_segment(old.segment)?;
        }
        let stored = |entry: Option<crate::tables::rows::ListEntry>| entry.map_or(0, |e| e.stored);
        dst.row.allocated = dst.row.allocated.saturating_sub(stored(old)) + stored(new);
        self.set_list_entry(dst.ino, number, new.map(|entry| (entry.segment, entry.stored)))?;
        Ok(())
    }

    /// Copies the references of the destination indexes `range`, at most a segment of them.
    fn copy_refs(
        &mut self,
        src: &Inode,
        dst: &mut Inode,
        span: &Span,
        range: Range<u64>,
    ) -> Result<(), FsError> {
        let mut part: Option<Part> = None;
        let mut refs: Vec<Option<ChunkRef>> = Vec::new();
        for index in range.clone() {
            let (home, slot) = Home::of(index - span.dst + span.src);
            if part.as_ref().is_none_or(|part| part.home != home) {
                part = Some(self.load_part(src, home)?);
            }
            refs.push(part.as_ref().and_then(|part| part.slots[slot]));
        }
        Ok(self.put_refs(dst, range.start, &refs)?)
    }
}
