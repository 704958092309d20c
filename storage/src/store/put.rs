//! Put: check length and hash, leave out what is stored, hand the rest to the writers.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId};
use futures_util::future::join_all;

use super::{BATCH_COST, Store, writer::Outcome};
use crate::segment::writer::Record;

/// Hashing so little takes less time than handing it to another thread.
const INLINE: usize = 16 * 1024;
/// Hashing so much takes no more time than handing it over and waiting, when there is nothing else to do.
const ALONE: usize = 64 * 1024;

/// A chunk to store, not yet checked.
pub(super) type Unchecked = (ChunkId, Bytes);

/// A chunk that has to be written: its position in the request, and its data.
type Pending = (usize, Record);

/// How a chunk came to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was written.
    Stored,
    /// It was there already.
    Known,
}

impl Store {
    /// Stores chunks. Where the result is `Ok` the chunk is durable, newly or since earlier, and stamped
    /// with the epoch of the moment of this call, or a later one. The caller holds what [`Store::admit_put`] gave until this returns.
    ///
    /// May be dropped at any time: then it is open which of the chunks are stored.
    pub async fn put(self: &Arc<Self>, chunks: Vec<Unchecked>) -> Outcome {
        let started = Instant::now();
        let lengths: Vec<_> = chunks.iter().map(|(_, data)| data.len()).collect();
        let outcome = self.put_all(chunks, lengths.iter().sum()).await;
        self.activity.put(&lengths, &outcome, started.elapsed());
        outcome
    }

    /// Stores copies of chunks of other nodes, checked as [`Store::put`] does, each with the epoch that it
    /// has there. How much of them is in memory is bounded by the caller.
    pub async fn put_copies(self: &Arc<Self>, copies: Vec<Record>) -> Outcome {
        let store = Arc::clone(self);
        let check = move || {
            let named: Vec<_> = copies.iter().map(|copy| (copy.id, &copy.data[..])).collect();
            let right = store.check_data(&named).into_iter();
            let outcome: Outcome = right.map(|right| right.map(|()| Put::Known)).collect();
            let pending = copies.into_iter().enumerate();
            let pending = pending.filter(|(position, _)| outcome[*position].is_ok()).collect();
            (outcome, pending)
        };
        let (mut outcome, pending): (_, Vec<Pending>) = self.hashers.run(check).await;
        self.write_all(pending, &mut outcome).await;
        outcome
    }

    async fn put_all(self: &Arc<Self>, chunks: Vec<Unchecked>, bytes: usize) -> Outcome {
        let store = Arc::clone(self);
        let alone = self.admitted().0 <= bytes as u64 + BATCH_COST;
        let inline = if alone { ALONE } else { INLINE };
        let (mut outcome, pending) = if bytes <= inline {
            store.check(chunks)
        } else {
            self.hashers.run(move || store.check(chunks)).await
        };
        self.write_all(pending, &mut outcome).await;
        outcome
    }

    async fn write_all(self: &Arc<Self>, mut pending: Vec<Pending>, outcome: &mut Outcome) {
        let damaged = self.damaged() > 0;
        let ids: Vec<_> = pending.iter().filter(|_| damaged).map(|(_, record)| record.id).collect();
        // A disk may fail or fill up just now: then the chunk goes to the next.
        for _ in 0..self.volumes.len() {
            if pending.is_empty() {
                break;
            }
            pending = self.write(pending, outcome).await;
        }
        if !ids.is_empty() && self.volumes.len() > 1 {
            let store = Arc::clone(self);
            self.readers.run(move || store.drop_damaged(&ids)).await;
        }
    }

    /// Results of what needs no writing, and what needs it.
    fn check(&self, chunks: Vec<Unchecked>) -> (Outcome, Vec<Pending>) {
        let epoch = self.epoch();
        let mut pending = Vec::with_capacity(chunks.len());
        // Also of chunks that are stored: the answer must not depend on what others have put.
        let named: Vec<_> = chunks.iter().map(|(id, data)| (*id, &data[..])).collect();
        let right = self.check_data(&named).into_iter().zip(&chunks);
        let outcome: Outcome =
            right.map(|(right, (id, _))| right.and_then(|()| self.known(id, epoch))).collect();
        for (position, (id, data)) in chunks.into_iter().enumerate() {
            if outcome[position] == Err(ChunkError::NotFound) {
                pending.push((position, Record { id, data, epoch }));
            }
        }
        (outcome, pending)
    }

    /// Whether each of these is a chunk, and what its id names.
    fn check_data(&self, chunks: &[(ChunkId, &[u8])]) -> Vec<Result<(), ChunkError>> {
        let data: Vec<_> = chunks.iter().map(|(_, data)| *data).collect();
        let check = |((named, data), id): (&(ChunkId, &[u8]), ChunkId)| {
            if data.is_empty() || data.len() > self.limits.chunk_size as usize {
                Err(ChunkError::BadLength)
            } else if id == *named {
                Ok(())
            } else {
                Err(ChunkError::Mismatch)
            }
        };
        chunks.iter().zip(ChunkId::of_each(&data)).map(check).collect()
    }

    /// `Ok` when the chunk, which is good, is stored already, `NotFound` when it has to be written.
    fn known(&self, id: &ChunkId, epoch: u64) -> Result<Put, ChunkError> {
        for volume in &self.volumes {
            match volume.touch(id, epoch) {
                Ok(Some(_)) => return Ok(Put::Known),
                // Its stamp cannot be stored there: another disk may take the chunk.
                Ok(None) | Err(ChunkError::NoSpace) => {}
                Err(e) => return Err(e),
            }
        }
        Err(ChunkError::NotFound)
    }

    /// Sends each chunk to its disk; those whose disk failed or is full come back.
    async fn write(&self, pending: Vec<Pending>, outcome: &mut Outcome) -> Vec<Pending> {
        let takes: Vec<_> = self.volumes.iter().map(|v| v.takes(1)).collect();
        let mut shares: Vec<Vec<Pending>> = self.volumes.iter().map(|_| Vec::new()).collect();
        for (position, record) in pending {
            match self.pick(&record.id, &takes) {
                Ok(v) => shares[v].push((position, record)),
                Err(e) => outcome[position] = Err(e),
            }
        }
        let jobs = self.volumes.iter().zip(shares).filter(|(_, share)| !share.is_empty()).map(
            |(volume, share)| async move {
                let records = share.iter().map(|(_, record)| record.clone()).collect();
                (volume.put(records).await, share)
            },
        );
        let mut again = Vec::new();
        for (results, share) in join_all(jobs).await {
            for (result, (position, record)) in results.into_iter().zip(share) {
                outcome[position] = result;
                if matches!(result, Err(ChunkError::DiskFailed | ChunkError::NoSpace)) {
                    again.push((position, record));
                }
            }
        }
        again
    }
}
