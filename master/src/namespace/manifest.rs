//! Reading the references of a file, a page at a time, from the pending group or a snapshot.

use cairn_proto::{
    ChunkRef, FsError, Ino,
    limits::{MANIFEST_PAGE_MAX, SEGMENT_REFS},
    manifest::to_wire,
    pb,
    range::chunk_count,
};

use super::{Namespace, inodes::Inode, segments::read_segment};
use crate::{
    engine::EngineError,
    tables::{
        keys::Table,
        rows::{INLINE_REFS, InodeRow, LIST_SEGMENTS, ListRow, slots},
        source::{self, Source},
    },
};

/// References that come with Open and Create.
const FIRST_PAGE_REFS: u32 = 128;
/// Segments read for one page: bounds the work where a file is sparse.
const PAGE_SEGMENTS: u32 = 512;
/// List rows read at once.
const LIST_PAGE: usize = 8;

/// Collects references into runs up to a limit.
struct Runs {
    page: pb::ManifestPage,
    left: u32,
}

impl Runs {
    /// False when the page is full and the reference was not taken.
    fn take(&mut self, index: u64, chunk: ChunkRef) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let chunk = to_wire(Some(chunk));
        match self.page.runs.last_mut() {
            Some(run) if run.first_index + run.refs.len() as u64 == index => run.refs.push(chunk),
            _ => self.page.runs.push(pb::ManifestRun { first_index: index, refs: vec![chunk] }),
        }
        true
    }

    /// Takes what lies at or behind `from`; otherwise the index that did not fit.
    fn take_all(&mut self, base: u64, from: u64, refs: &[Option<ChunkRef>]) -> Result<(), u64> {
        for (index, chunk) in (base..).zip(refs) {
            if let Some(chunk) = chunk
                && index >= from
                && !self.take(index, *chunk)
            {
                return Err(index);
            }
        }
        Ok(())
    }

    /// One past the last reference that was taken.
    fn end(&self) -> u64 {
        self.page.runs.last().map_or(0, |run| run.first_index + run.refs.len() as u64)
    }

    fn finished(mut self, at: u64) -> pb::ManifestPage {
        self.page.end = true;
        self.stopped(at)
    }

    fn stopped(mut self, at: u64) -> pb::ManifestPage {
        self.page.next_index = at;
        self.page
    }
}

/// The references of an inode from `first` on, at most `max` of them (0: as many as fit in a page).
pub(in crate::namespace) fn page(
    source: &mut dyn Source,
    ino: u64,
    row: &InodeRow,
    chunk_size: u32,
    first: u64,
    max: u32,
) -> Result<pb::ManifestPage, EngineError> {
    let left = if max == 0 { MANIFEST_PAGE_MAX } else { max.min(MANIFEST_PAGE_MAX) };
    let head = pb::ManifestPage {
        data_version: row.data_version,
        size: row.size,
        ..pb::ManifestPage::default()
    };
    let mut runs = Runs { page: head, left };
    let total = chunk_count(row.size, chunk_size);
    if let Err(at) = runs.take_all(0, first, &slots(&row.refs, INLINE_REFS, "an inode")?) {
        return Ok(runs.stopped(at));
    }
    let taken = runs.end();
    let mut segments_left = PAGE_SEGMENTS;
    let mut list = first / SEGMENT_REFS / LIST_SEGMENTS;
    if total <= INLINE_REFS {
        return Ok(runs.finished(total.max(first)));
    }
    loop {
        let lists = source.page(&Table::Lists.of_from(ino, list), LIST_PAGE)?;
        let Some((last, _)) = lists.last().cloned() else { break };
        for (key, value) in lists {
            let row: ListRow = source::decode(&key, value)?;
            let base = source::second(&key)? * LIST_SEGMENTS;
            for entry in row.entries {
                let start = (base + u64::from(entry.slot)) * SEGMENT_REFS;
                if start + SEGMENT_REFS <= first {
                    continue;
                }
                if segments_left == 0 || runs.left == 0 {
                    // The inode's own references are those of segment 0, too.
                    return Ok(runs.stopped(start.max(first).max(taken)));
                }
                segments_left -= 1;
                let refs = read_segment(source, entry.segment)?;
                if let Err(at) = runs.take_all(start, first, &refs) {
                    return Ok(runs.stopped(at));
                }
            }
        }
        list = source::second(&last)?.saturating_add(1);
    }
    Ok(runs.finished(total.max(first)))
}

impl Namespace {
    /// The first references, which come with the answer to Open and Create.
    pub(super) fn first_page(&mut self, inode: &Inode) -> Result<pb::ManifestPage, FsError> {
        let chunk_size = self.chunk_size;
        Ok(page(&mut self.group, inode.ino, &inode.row, chunk_size, 0, FIRST_PAGE_REFS)?)
    }

    /// References of `ino` from `first_index` on, at most `max_refs` of them (0: a full page).
    pub fn manifest_page(
        &mut self,
        ino: Ino,
        first_index: u64,
        max_refs: u32,
    ) -> Result<pb::ManifestPage, FsError> {
        let inode = self.inode(ino.get())?;
        if inode.row.is_directory() {
            return Err(FsError::IsDirectory);
        }
        if !inode.row.is_regular() {
            return Err(FsError::InvalidArgument);
        }
        let chunk_size = self.chunk_size;
        Ok(page(&mut self.group, inode.ino, &inode.row, chunk_size, first_index, max_refs)?)
    }

    pub(super) fn get_file_manifest(
        &mut self,
        request: &pb::GetFileManifest,
    ) -> Result<pb::ManifestPage, FsError> {
        self.manifest_page(Ino::try_from(request.ino)?, request.first_index, request.max_refs)
    }
}
