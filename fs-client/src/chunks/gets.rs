//! [`Gets`]: what the Get stream of a node carries. Answers are verified before anybody sees them.

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkRef, pb, status};
use tokio::{sync::oneshot, time::Instant};
use tonic::{Status, Streaming};

use super::{
    hashing::Hashing,
    pipe::{Cargo, Item, Outgoing},
};
use crate::rpc::connect::StorageClient;

/// Chunks that one thread verifies in a go, so that two share a batch.
const VERIFY: usize = 8;

/// One chunk from one node.
pub(super) struct GetItem {
    pub(super) chunk: ChunkRef,
    pub(super) asked: Instant,
    pub(super) reply: oneshot::Sender<Result<(Bytes, Duration), ChunkError>>,
}

impl Item for GetItem {
    fn bytes(&self) -> usize {
        self.chunk.stored_len as usize
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn fail(self, error: ChunkError) {
        let _ = self.reply.send(Err(error));
    }
}

/// See the head of this file.
pub(super) struct Gets {
    pub(super) client: StorageClient,
    pub(super) hashing: Hashing,
}

impl Cargo for Gets {
    type Item = GetItem;
    type Request = pb::GetBatch;
    type Response = pb::GetBatchReply;

    /// Other nodes are asked long before that.
    const STALL: Duration = Duration::from_secs(3);

    fn request<'a>(&self, seq: u64, items: impl Iterator<Item = &'a GetItem>) -> pb::GetBatch {
        pb::GetBatch { seq, ids: items.map(|item| item.chunk.id.to_wire()).collect() }
    }

    async fn open(&self, outgoing: Outgoing<Self>) -> Result<Streaming<pb::GetBatchReply>, Status> {
        Ok(self.client.clone().get(outgoing).await?.into_inner())
    }

    fn seq(response: &pb::GetBatchReply) -> u64 {
        response.seq
    }

    async fn settle(&self, items: Vec<GetItem>, response: pb::GetBatchReply) {
        if items.len() != response.items.len() {
            for item in items {
                item.fail(ChunkError::Unreachable);
            }
            return;
        }
        let mut pairs = items.into_iter().zip(response.items);
        loop {
            let part: Vec<_> = pairs.by_ref().take(VERIFY).collect();
            if part.is_empty() {
                return;
            }
            let bytes = part.iter().map(|(_, answer)| answer.data.len()).sum();
            self.hashing.submit(bytes, move || part.into_iter().for_each(verify)).await;
        }
    }
}

/// Copies what is right out of the batch's buffer: whoever keeps one chunk of it must not keep all.
fn verify((item, answer): (GetItem, pb::GetItem)) {
    if item.reply.is_closed() {
        return;
    }
    let result = match &answer.error {
        Some(detail) => Err(status::chunk_error(detail)),
        None if answer.data.len() == item.chunk.stored_len as usize
            && item.chunk.id.verify(&answer.data) =>
        {
            Ok((Bytes::copy_from_slice(&answer.data), item.asked.elapsed()))
        }
        None => Err(ChunkError::Damaged),
    };
    let _ = item.reply.send(result);
}
