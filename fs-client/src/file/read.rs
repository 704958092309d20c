//! Reading: dirty bytes over bytes in flight over the chunks that the manifest names.
//!
//! What is to be read is decided at one moment, under the lock; what has to be fetched for it is
//! fetched afterwards, in parallel. Zeros are only for holes and for what lies past a chunk's content.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use cairn_proto::{
    ChunkError, ChunkRef, FsError,
    range::{ChunkSpan, indexes, spans},
};
use futures_util::future::try_join_all;

use super::{File, Slices, extents::Extents, readahead::ReadAhead, state::State};
use crate::{chunks::Turn, rpc::Caller};

/// A part of one chunk, and what it is made of.
struct Piece {
    span: ChunkSpan,
    /// `None`: a hole, or nothing of it shows.
    base: Option<ChunkRef>,
    /// Our own bytes over it, oldest first.
    layers: Vec<Extents<Bytes>>,
}

/// What a hole reads as.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How long a failed read fails again at once.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// The last read that failed. The kernel tries a page again whose read-ahead has failed; the
/// application shall not wait for the deadline twice.
#[derive(Debug, Default)]
pub struct FailedRead(Option<(Range<u64>, Instant, FsError)>);

impl FailedRead {
    fn new(offset: u64, len: usize, error: FsError) -> Self {
        Self(Some((offset..offset.saturating_add(len as u64), Instant::now(), error)))
    }

    /// The error of a read that covered `offset` and failed a moment ago.
    fn recent(&self, offset: u64) -> Option<FsError> {
        let (range, when, error) = self.0.as_ref()?;
        (range.contains(&offset) && when.elapsed() < FAILED_FOR).then_some(*error)
    }
}

enum Plan {
    Ready(Vec<Piece>),
    /// The manifest's page for this index is needed first.
    Unknown(u64),
}

impl File {
    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// `Io` when a chunk cannot be had intact from any node.
    pub async fn read(
        self: &Arc<Self>,
        caller: Caller,
        ahead: &Mutex<ReadAhead>,
        offset: u64,
        len: usize,
    ) -> Result<Slices, FsError> {
        if let Some(error) = self.lock().failed_read.recent(offset) {
            return Err(error);
        }
        let mut again = true;
        loop {
            let pieces = self.plan_with_manifest(caller, offset, len).await?;
            if again {
                self.read_ahead(caller, ahead, offset, &pieces);
            }
            match self.fetch(&pieces).await {
                Ok(bases) => return Ok(assemble(&pieces, bases)),
                // The chunk may have been replaced and collected since the manifest was read.
                Err(ChunkError::NotFound | ChunkError::Damaged) if again => {
                    again = false;
                    self.distrust_manifest();
                }
                Err(error) => {
                    tracing::error!(ino = %self.ino, offset, %error, "cannot read");
                    self.lock().failed_read = FailedRead::new(offset, len, error.into());
                    return Err(error.into());
                }
            }
        }
    }

    /// Reads when everything needed is in memory.
    pub fn read_now(
        self: &Arc<Self>,
        ahead: &Mutex<ReadAhead>,
        offset: u64,
        len: usize,
    ) -> Option<Slices> {
        let Plan::Ready(pieces) = self.plan(offset, len) else { return None };
        let chunks = self.context.chunks();
        let bases = pieces
            .iter()
            .map(|piece| match piece.base {
                Some(chunk) => chunks.cached(&chunk).map(Some),
                None => Some(None),
            })
            .collect::<Option<Vec<_>>>()?;
        chunks.found(bases.iter().flatten().count());
        self.read_ahead(Caller::default(), ahead, offset, &pieces);
        Some(assemble(&pieces, bases))
    }

    async fn plan_with_manifest(
        &self,
        caller: Caller,
        offset: u64,
        len: usize,
    ) -> Result<Vec<Piece>, FsError> {
        loop {
            match self.plan(offset, len) {
                Plan::Ready(pieces) => return Ok(pieces),
                Plan::Unknown(index) => self.resolve(caller, index).await.map(drop)?,
            }
        }
    }

    fn plan(&self, offset: u64, len: usize) -> Plan {
        let state = self.lock();
        let len = (len as u64).min(state.size().saturating_sub(offset));
        let mut pieces = Vec::new();
        for span in spans(offset, len, self.context.chunk_size) {
            let layers = layers(&state, span);
            let covered = layers.iter().any(|ours| ours.covers(span.start, span.end));
            let base = if covered {
                None
            } else {
                match self.known_in(&state, span.index) {
                    Some(base) => base.filter(|c| c.logical_len > span.start),
                    None => return Plan::Unknown(span.index),
                }
            };
            pieces.push(Piece { span, base, layers });
        }
        Plan::Ready(pieces)
    }

    async fn fetch(&self, pieces: &[Piece]) -> Result<Vec<Option<Bytes>>, ChunkError> {
        let chunks = self.context.chunks();
        let turn = |piece: &Piece| Turn::of(self.ino, piece.span.index);
        if let [piece @ Piece { base: Some(chunk), .. }] = pieces {
            return Ok(vec![Some(chunks.get(chunk, turn(piece)).await?)]);
        }
        try_join_all(pieces.iter().map(async |piece| match &piece.base {
            Some(chunk) => chunks.get(chunk, turn(piece)).await.map(Some),
            None => Ok(None),
        }))
        .await
    }

    fn read_ahead(
        self: &Arc<Self>,
        caller: Caller,
        ahead: &Mutex<ReadAhead>,
        offset: u64,
        pieces: &[Piece],
    ) {
        let len: u64 = pieces.iter().map(|p| u64::from(p.span.len())).sum();
        let size = self.lock().committed_size();
        let ranges = {
            let mut ahead = ahead.lock().unwrap_or_else(PoisonError::into_inner);
            let most = self.context.readers.share(ahead.in_order(), Instant::now());
            ahead.observe(offset, len, size, most)
        };
        if ranges.is_empty() {
            return;
        }
        match self.known_refs(&ranges) {
            Ok(refs) => self.context.chunks().prefetch(refs),
            Err(unknown) => {
                let file = Arc::clone(self);
                self.context.runtime.spawn(async move {
                    // Only a hint: the read itself meets the error if there is one.
                    if file.resolve(caller, unknown).await.is_ok()
                        && let Ok(refs) = file.known_refs(&ranges)
                    {
                        file.context.chunks().prefetch(refs);
                    }
                });
            }
        }
    }

    /// The references within `ranges`, holes left out, or the first index that is not known.
    fn known_refs(&self, ranges: &[Range<u64>]) -> Result<Vec<(ChunkRef, Turn)>, u64> {
        let state = self.lock();
        let chunk_size = self.context.chunk_size;
        let within = |r: &Range<u64>| indexes(r.start, r.end - r.start, chunk_size);
        let known = ranges.iter().flat_map(within);
        let known = known.map(|index| match self.known_in(&state, index) {
            Some(chunk) => Ok(chunk.map(|chunk| (chunk, Turn::of(self.ino, index)))),
            None => Err(index),
        });
        known.filter_map(Result::transpose).collect()
    }
}

/// What this mount has written over `span`.
fn layers(state: &State, span: ChunkSpan) -> Vec<Extents<Bytes>> {
    let mut layers = Vec::new();
    if let Some(flight) = state.flights.of_index(span.index) {
        layers.push(flight.ours.clone());
    }
    if let Some(dirty) = state.dirty.get(span.index)
        && dirty.ours().touches(span.start, span.end)
    {
        layers.push(dirty.ours().part(span.start, span.end));
    }
    layers
}

/// The bytes of `pieces`, whose bases are `bases`.
fn assemble(pieces: &[Piece], bases: Vec<Option<Bytes>>) -> Slices {
    pieces.iter().zip(bases).map(|(piece, base)| piece.bytes(base)).collect()
}

impl Piece {
    /// What it has, over `base`: a slice of that if nothing lies over it.
    fn bytes(&self, base: Option<Bytes>) -> Bytes {
        let (start, end) = (self.span.start, self.span.end);
        let (whole, len) = (start as usize..end as usize, (end - start) as usize);
        let base = base.zip(self.base);
        match &base {
            Some((data, chunk)) if self.layers.is_empty() && chunk.logical_len >= end => {
                return data.slice(whole);
            }
            None if self.layers.is_empty() && len <= ZEROS.len() => {
                return Bytes::from_static(&ZEROS[..len]);
            }
            Some(_) | None => {}
        }
        let mut out = BytesMut::with_capacity(len);
        if let Some((data, chunk)) = base {
            let stop = chunk.logical_len.min(end).max(start);
            out.extend_from_slice(&data[start as usize..stop as usize]);
        }
        out.resize(len, 0);
        self.layers.iter().for_each(|ours| ours.overlay(start, &mut out));
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u32, end: u32, base: Option<ChunkRef>) -> Piece {
        Piece { span: ChunkSpan { index: 0, start, end }, base, layers: Vec::new() }
    }

    #[test]
    fn a_clipped_chunk_reads_as_zeros_past_its_content() {
        let stored = Bytes::from_static(b"abcdef");
        let chunk = ChunkRef::plain(&stored).clipped(3);
        let bytes = assemble(&[piece(1, 6, chunk)], vec![Some(stored)]).joined();
        assert_eq!(&bytes[..], b"bc\0\0\0");
    }

    #[test]
    fn newer_layers_lie_over_older_ones_and_over_holes() {
        let mut both = piece(0, 6, None);
        both.layers.push(Extents::of(0, Bytes::from_static(b"old!")));
        both.layers.push(Extents::of(2, Bytes::from_static(b"N")));
        let bytes = assemble(&[both, piece(0, 2, None)], vec![None, None]).joined();
        assert_eq!(&bytes[..], b"olN!\0\0\0\0");
    }

    #[test]
    fn a_whole_chunk_is_answered_without_a_copy() {
        let stored = Bytes::from(vec![5; 64]);
        let chunk = Some(ChunkRef::plain(&stored));
        let bytes = assemble(&[piece(8, 64, chunk)], vec![Some(stored.clone())]).joined();
        assert_eq!(bytes.as_ptr(), stored[8..].as_ptr());
    }
}
