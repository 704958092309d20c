//! [`Gets`]: what the Get stream of a node carries. Answers are verified before anybody sees them.

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::{ChunkError, ChunkId, ChunkRef, bulk, pb, status};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    hashing::Hashing,
    pipe::{Cargo, Item},
};
use crate::rpc::connect::{NodeWire, StorageClient};

/// Chunks that one thread verifies in a go, so that two share a batch.
const VERIFY: usize = 8;
/// A node that is told of damage is waited for so long.
const REPORT: Duration = Duration::from_secs(10);

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
    pub(super) wire: NodeWire,
    /// For small calls.
    pub(super) client: StorageClient,
    pub(super) hashing: Hashing,
}

impl Cargo for Gets {
    type Item = GetItem;
    type Request = pb::GetBatch;
    type Response = pb::GetBatchReply;

    /// Other nodes are asked long before that.
    const PATH: &str = bulk::GET;
    const STALL: Duration = Duration::from_secs(3);

    fn request<'a>(&self, seq: u64, items: impl Iterator<Item = &'a GetItem>) -> pb::GetBatch {
        pb::GetBatch { seq, ids: items.map(|item| item.chunk.id.to_wire()).collect() }
    }

    fn wire(&self) -> NodeWire {
        self.wire.clone()
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
            let (client, runtime) = (self.client.clone(), Handle::current());
            let verify_all = move || -> Vec<_> {
                part.into_iter().map(|(item, answer)| verify(item, &answer)).collect()
            };
            let tell_all = move |verified| {
                for Verified { item, result, wrong } in verified {
                    if wrong {
                        runtime.spawn(report(client.clone(), item.chunk.id));
                    }
                    let _ = item.reply.send(result);
                }
            };
            self.hashing.submit(bytes, verify_all, tell_all);
        }
    }
}

/// A chunk of this length has its buffer for itself.
const ALONE: usize = 32 * 1024;

/// What a node's answer is worth.
struct Verified {
    item: GetItem,
    result: Result<(Bytes, Duration), ChunkError>,
    /// The node sent something that is not the chunk.
    wrong: bool,
}

/// What is right is handed on as it arrived when it is large: a frame of its own, which the transport puts
/// into a buffer of about its length. Small ones share a buffer, so they are copied out: whoever keeps one
/// chunk must not keep many.
fn verify(item: GetItem, answer: &pb::GetItem) -> Verified {
    let result = match &answer.error {
        // Nobody wants it any more.
        _ if item.reply.is_closed() => Err(ChunkError::Unreachable),
        Some(detail) => Err(status::chunk_error(detail)),
        None if answer.data.len() == item.chunk.stored_len as usize
            && item.chunk.id.verify(&answer.data) =>
        {
            let alone = answer.data.len() >= ALONE;
            let data =
                if alone { answer.data.clone() } else { Bytes::copy_from_slice(&answer.data) };
            Ok((data, item.asked.elapsed()))
        }
        None => Err(ChunkError::Damaged),
    };
    let wrong = answer.error.is_none() && result == Err(ChunkError::Damaged);
    Verified { item, result, wrong }
}

/// Has the node look at its copy itself: it then knows, and the copy is healed.
async fn report(mut client: StorageClient, id: ChunkId) {
    let request = pb::GetChunkRequest { chunk_id: id.to_string() };
    // Its scrub finds it too, if later.
    let _ = timeout(REPORT, client.get_chunk(request)).await;
}
