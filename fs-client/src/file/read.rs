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

use super::{File, cut::overlay, ranges::Ranges, readahead::ReadAhead, state::State};
use crate::rpc::Caller;

/// A part of one chunk, and what it is made of.
struct Piece {
    span: ChunkSpan,
    /// `None`: a hole, or nothing of it shows.
    base: Option<ChunkRef>,
    /// Our own bytes over it, oldest first, indexed like the chunk.
    layers: Vec<(Ranges, Bytes)>,
}

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
    ) -> Result<Bytes, FsError> {
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
    ) -> Option<Bytes> {
        let Plan::Ready(pieces) = self.plan(offset, len) else { return None };
        let chunks = self.context.chunks();
        let bases = pieces
            .iter()
            .map(|piece| match piece.base {
                Some(chunk) => chunks.cached(&chunk.id).map(Some),
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
            let covered = layers.iter().any(|(ranges, _)| ranges.covers(span.start, span.end));
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
        if let [Piece { base: Some(chunk), .. }] = pieces {
            return Ok(vec![Some(chunks.get(chunk).await?)]);
        }
        try_join_all(pieces.iter().map(async |piece| match &piece.base {
            Some(chunk) => chunks.get(chunk).await.map(Some),
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
        let range = {
            let mut ahead = ahead.lock().unwrap_or_else(PoisonError::into_inner);
            ahead.observe(offset, len, size)
        };
        if range.is_empty() {
            return;
        }
        let wanted = indexes(range.start, range.end - range.start, self.context.chunk_size);
        match self.known_refs(wanted.clone()) {
            Ok(refs) => self.context.chunks().prefetch(refs),
            Err(unknown) => {
                let file = Arc::clone(self);
                self.context.runtime.spawn(async move {
                    // Only a hint: the read itself meets the error if there is one.
                    if file.resolve(caller, unknown).await.is_ok()
                        && let Ok(refs) = file.known_refs(wanted)
                    {
                        file.context.chunks().prefetch(refs);
                    }
                });
            }
        }
    }

    /// The references at `wanted`, holes left out, or the first index that is not known.
    fn known_refs(&self, wanted: Range<u64>) -> Result<Vec<ChunkRef>, u64> {
        let state = self.lock();
        let known = wanted.map(|index| self.known_in(&state, index).ok_or(index));
        known.filter_map(Result::transpose).collect()
    }
}

/// What this mount has written over `span`.
fn layers(state: &State, span: ChunkSpan) -> Vec<(Ranges, Bytes)> {
    let mut layers = Vec::new();
    if let Some(flight) = state.flights.of_index(span.index) {
        layers.push((flight.dirty.clone(), flight.data.clone()));
    }
    if let Some(dirty) = state.dirty.get(span.index)
        && dirty.ranges().within(span.start, span.end).next().is_some()
    {
        layers.push(dirty.copy_range(span.start, span.end));
    }
    layers
}

/// The bytes of `pieces`, whose bases are `bases`.
fn assemble(pieces: &[Piece], bases: Vec<Option<Bytes>>) -> Bytes {
    if let ([piece], [Some(base)]) = (pieces, &bases[..])
        && piece.layers.is_empty()
        && piece.base.is_some_and(|chunk| chunk.logical_len >= piece.span.end)
    {
        return base.slice(piece.span.start as usize..piece.span.end as usize);
    }
    let len = pieces.iter().map(|p| p.span.len() as usize).sum();
    let mut out = BytesMut::with_capacity(len);
    for (piece, base) in pieces.iter().zip(bases) {
        let at = out.len();
        let ChunkSpan { start, end, .. } = piece.span;
        if let (Some(base), Some(chunk)) = (base, piece.base) {
            let stop = chunk.logical_len.min(end).max(start);
            out.extend_from_slice(&base[start as usize..stop as usize]);
        }
        out.resize(at + piece.span.len() as usize, 0);
        for (ranges, data) in &piece.layers {
            overlay(ranges, data, start, &mut out[at..]);
        }
    }
    out.freeze()
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
        let bytes = assemble(&[piece(1, 6, chunk)], vec![Some(stored)]);
        assert_eq!(&bytes[..], b"bc\0\0\0");
    }

    #[test]
    fn newer_layers_lie_over_older_ones_and_over_holes() {
        let mut both = piece(0, 6, None);
        both.layers.push((Ranges::of(0, 4), Bytes::from_static(b"old!")));
        both.layers.push((Ranges::of(2, 3), Bytes::from_static(b"..N")));
        let bytes = assemble(&[both, piece(0, 2, None)], vec![None, None]);
        assert_eq!(&bytes[..], b"olN!\0\0\0\0");
    }

    #[test]
    fn a_whole_chunk_is_answered_without_a_copy() {
        let stored = Bytes::from(vec![5; 64]);
        let chunk = Some(ChunkRef::plain(&stored));
        let bytes = assemble(&[piece(8, 64, chunk)], vec![Some(stored.clone())]);
        assert_eq!(bytes.as_ptr(), stored[8..].as_ptr());
    }
}
