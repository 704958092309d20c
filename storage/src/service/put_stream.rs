//! The put stream: many batches under way, each answered when all of its chunks are durable.
//!
//! Bounds: a batch is taken from the stream's buffer only when the node has room for its bytes (so a
//! full node stops reading and flow control stops the client), and at most [`UNANSWERED`] batches of
//! one stream are under way, so a client that never reads its answers holds nothing of others.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, pb};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::Status;

use super::{Replies, Stopping, check_count};
use crate::store::Store;

const UNANSWERED: usize = 256;
const ANSWERS_QUEUED: usize = 64;

type Answers = mpsc::Sender<Result<pb::PutBatchReply, Status>>;

/// Serves one stream until the client has closed it, is gone, or the node stops.
pub(super) fn open(
    store: Arc<Store>,
    batches: impl Stream<Item = Result<pb::PutBatch, Status>> + Send + Unpin + 'static,
    mut stopping: Stopping,
) -> Replies<pb::PutBatchReply> {
    let (answers, queue) = mpsc::channel(ANSWERS_QUEUED);
    tokio::spawn(async move {
        tokio::select! {
            () = stopping.wait() => {}
            () = answers.closed() => {}
            result = accept(&store, batches, &answers) => {
                if let Err(status) = result {
                    // A client that is gone cannot be told.
                    let _ = answers.send(Err(status)).await;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(queue))
}

/// Takes batches and starts a task for each; the tasks outlive this.
async fn accept(
    store: &Arc<Store>,
    mut batches: impl Stream<Item = Result<pb::PutBatch, Status>> + Unpin,
    answers: &Answers,
) -> Result<(), Status> {
    let slots = Arc::new(Semaphore::new(UNANSWERED));
    while let Some(batch) = batches.try_next().await? {
        check_count(batch.chunks.len())?;
        let slot = Arc::clone(&slots).acquire_owned().await.expect("is never closed");
        let bytes = batch.chunks.iter().map(|c| c.data.len() as u64).sum();
        let room = store.admit_put(bytes).await;
        let (store, answers) = (Arc::clone(store), answers.clone());
        tokio::spawn(async move {
            let reply = put(&store, batch).await;
            drop(room);
            // A client that is gone does not want to know; its chunks are stored all the same.
            let _ = answers.send(Ok(reply)).await;
            drop(slot);
        });
    }
    Ok(())
}

async fn put(store: &Arc<Store>, batch: pb::PutBatch) -> pb::PutBatchReply {
    // Before the work: what is stamped meanwhile may have a later epoch, never an earlier one.
    let gc_epoch = store.epoch();
    let mut failures = Vec::new();
    let mut positions = Vec::with_capacity(batch.chunks.len());
    let mut chunks: Vec<(ChunkId, Bytes)> = Vec::with_capacity(batch.chunks.len());
    for (position, item) in (0u32..).zip(batch.chunks) {
        match ChunkId::try_from(item.id.as_ref()) {
            Ok(id) => {
                positions.push(position);
                chunks.push((id, item.data));
            }
            Err(malformed) => {
                let mut error = pb::ErrorDetail::from(ChunkError::Malformed);
                error.message = malformed.to_string();
                failures.push(pb::PutFailure { position, error: Some(error) });
            }
        }
    }
    let outcome = store.put(chunks).await;
    for (position, result) in positions.into_iter().zip(outcome) {
        if let Err(e) = result {
            failures.push(pb::PutFailure { position, error: Some(e.into()) });
        }
    }
    pb::PutBatchReply { seq: batch.seq, failures, gc_epoch }
}
