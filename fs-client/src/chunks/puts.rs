//! [`Puts`]: what the Put stream of a node carries.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, bulk, pb, status};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Order,
    pipe::{Cargo, Item},
    put::stamp,
};
use crate::rpc::connect::NodeWire;

/// One chunk for one node.
pub(super) struct PutItem {
    pub(super) order: Order,
    pub(super) id: ChunkId,
    pub(super) data: Bytes,
    pub(super) map_epoch: u64,
    /// Told the stamp.
    pub(super) reply: oneshot::Sender<Result<u64, ChunkError>>,
    /// The bytes' share of the upload budget, held as long as anybody holds the bytes.
    pub(super) _budget: Arc<OwnedSemaphorePermit>,
}

impl Item for PutItem {
    fn bytes(&self) -> usize {
        self.data.len()
    }

    fn order(&self) -> Order {
        self.order
    }

    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn fail(self, error: ChunkError) {
        let _ = self.reply.send(Err(error));
    }
}

/// See the head of this file.
pub(super) struct Puts {
    pub(super) wire: NodeWire,
}

impl Cargo for Puts {
    type Item = PutItem;
    type Request = pb::PutBatch;
    type Response = pb::PutBatchReply;

    /// A disk may take its time to make a batch durable; a node that needs longer is looked at by the
    /// master.
    const PATH: &str = bulk::PUT;
    const STALL: Duration = Duration::from_secs(2);

    fn request<'a>(&self, seq: u64, items: impl Iterator<Item = &'a PutItem>) -> pb::PutBatch {
        let mut batch = pb::PutBatch { seq, ..pb::PutBatch::default() };
        for item in items {
            batch.map_epoch = batch.map_epoch.max(item.map_epoch);
            batch.chunks.push(pb::PutChunkItem { id: item.id.to_wire(), data: item.data.clone() });
        }
        batch
    }

    fn wire(&self) -> NodeWire {
        self.wire.clone()
    }

    fn seq(response: &pb::PutBatchReply) -> u64 {
        response.seq
    }

    async fn settle(&self, items: Vec<PutItem>, response: pb::PutBatchReply) {
        let mut errors = vec![None; items.len()];
        for failure in &response.failures {
            // A failure that names no chunk of the batch leaves all of them in doubt.
            let error = failure.error.as_ref().map_or(ChunkError::Unreachable, status::chunk_error);
            match errors.get_mut(failure.position as usize) {
                Some(slot) => *slot = Some(error),
                None => errors.fill(Some(ChunkError::Unreachable)),
            }
        }
        let stamp = stamp(response.gc_epoch);
        for (item, error) in items.into_iter().zip(errors) {
            let _ = item.reply.send(error.map_or(Ok(stamp), Err));
        }
    }
}
