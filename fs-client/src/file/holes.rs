//! Holes: finding them (SEEK_DATA, SEEK_HOLE) and making them (punching, zeroing).

use std::{sync::Arc, time::Instant};

use cairn_proto::{ChunkRef, FsError, limits::MANIFEST_PAGE_MAX, manifest, pb, range::chunk_start};

use super::{File, Origin, commit::ask, manifests::flatten};
use crate::rpc::Caller;

/// References that are made holes in one step.
const STEP_REFS: u32 = 1024;
/// References asked for at first when a hole is looked for; each further step asks for more.
const FIRST_REFS: u32 = 64;
/// The same when data is looked for: one would do, but these lie together.
const FIRST_REFS_OF_DATA: u32 = 8;

impl File {
    /// The first offset at or after `offset` that is data, or a hole.
    ///
    /// # Errors
    /// `NoSuchDevice` when `offset` is at or past the end, or no data follows.
    pub async fn seek(
        self: &Arc<Self>,
        caller: Caller,
        offset: u64,
        data: bool,
    ) -> Result<u64, FsError> {
        self.flush().await?;
        let chunk_size = self.context.chunk_size;
        let mut index = offset / u64::from(chunk_size);
        // The master skips holes; the first reference is where they end.
        let mut most = if data { FIRST_REFS_OF_DATA } else { FIRST_REFS };
        loop {
            let page = self.context.manifest_page(caller, self.ino, index, most).await?;
            most = (most * 4).min(MANIFEST_PAGE_MAX);
            if offset >= page.size {
                return Err(FsError::NoSuchDevice);
            }
            let refs = flatten(index, page.runs)?;
            let found = if data {
                refs.first().map(|(index, _)| *index)
            } else {
                first_gap(index, &refs).filter(|gap| page.end || *gap < page.next_index)
            };
            match found {
                Some(found) => {
                    let at = chunk_start(found, chunk_size).clamp(offset, page.size);
                    return if data && at == page.size {
                        Err(FsError::NoSuchDevice)
                    } else {
                        Ok(at)
                    };
                }
                None if page.end => return Err(FsError::NoSuchDevice),
                None => index = page.next_index,
            }
        }
    }

    /// Turns `offset..end` into zeros: whole chunks become holes, the rest is written. The length
    /// stays.
    ///
    /// # Errors
    /// Write-back errors; `TimedOut` when others keep changing the same chunks.
    pub async fn clear(
        self: &Arc<Self>,
        origin: Origin,
        offset: u64,
        end: u64,
    ) -> Result<(), FsError> {
        self.flush().await?;
        let chunk = u64::from(self.context.chunk_size);
        let size = self.size();
        let end = end.min(size);
        if offset >= end {
            return Ok(());
        }
        let first = offset.div_ceil(chunk);
        // A last chunk that the file ends in is whole for this purpose.
        let last = if end == size { end.div_ceil(chunk) } else { end / chunk };
        if first > last || (first == last && !offset.is_multiple_of(chunk)) {
            self.zero(origin, offset, end).await?;
            return self.flush().await;
        }
        self.zero(origin, offset, (first * chunk).min(end)).await?;
        self.zero(origin, (last * chunk).max(offset), end).await?;
        self.flush().await?;
        self.punch(origin.caller, first, last).await
    }

    async fn zero(self: &Arc<Self>, origin: Origin, offset: u64, end: u64) -> Result<(), FsError> {
        match end.checked_sub(offset) {
            None | Some(0) => Ok(()),
            // At most two chunks: the callers' edges.
            Some(len) => {
                let zeros = vec![0; usize::try_from(len).map_err(|_| FsError::NoMemory)?];
                self.write(origin, offset, &zeros).await
            }
        }
    }

    async fn punch(&self, caller: Caller, first: u64, last: u64) -> Result<(), FsError> {
        let started = Instant::now();
        let mut index = first;
        while index < last {
            let page = self.context.manifest_page(caller, self.ino, index, STEP_REFS).await?;
            let mut refs = flatten(index, page.runs)?;
            refs.retain(|(index, _)| *index < last);
            if !refs.is_empty() {
                let op = holes(self.ino.get(), &refs);
                let fence = self.lock().fence;
                let outcome = ask(self.context.session(), fence, caller, op).await?;
                self.lock().replaced(&outcome.attr, &self.context.manifests);
                if !outcome.applied {
                    if started.elapsed() > self.context.deadline {
                        return Err(FsError::TimedOut);
                    }
                    continue;
                }
            }
            if page.end {
                break;
            }
            index = page.next_index;
        }
        Ok(())
    }
}

/// The first index from `index` on that `refs` leaves out.
fn first_gap(index: u64, refs: &[(u64, ChunkRef)]) -> Option<u64> {
    let dense = refs.iter().zip(index..).take_while(|((at, _), expected)| at == expected).count();
    index.checked_add(dense as u64)
}

fn holes(ino: u64, refs: &[(u64, ChunkRef)]) -> pb::Commit {
    let change = |&(index, chunk): &(u64, ChunkRef)| pb::ChunkChange {
        index,
        expected: Some(manifest::to_wire(Some(chunk))),
        new: Some(manifest::to_wire(None)),
    };
    pb::Commit { ino, changes: refs.iter().map(change).collect(), ..pb::Commit::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_is_the_first_index_left_out() {
        let refs = |indexes: &[u64]| -> Vec<(u64, ChunkRef)> {
            indexes.iter().map(|i| (*i, ChunkRef::plain(b"x"))).collect()
        };
        assert_eq!(first_gap(3, &refs(&[])), Some(3));
        assert_eq!(first_gap(3, &refs(&[4])), Some(3));
        assert_eq!(first_gap(3, &refs(&[3, 4, 6])), Some(5));
    }
}
