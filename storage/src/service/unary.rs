//! The two plain calls, for small clients in any language: ids in hex, one chunk, one answer.

use std::sync::Arc;

use cairn_proto::{ChunkError, ChunkId, pb, status::from_chunk};
use tonic::Status;

use crate::store::Store;

pub(super) async fn put_chunk(
    store: &Arc<Store>,
    request: pb::PutChunkRequest,
) -> Result<pb::PutChunkResponse, Status> {
    let id: ChunkId = request.chunk_id.parse()?;
    let _room = store.admit_put(request.data.len() as u64).await;
    let outcome = store.put(vec![(id, request.data)]).await;
    match outcome.into_iter().next() {
        Some(Ok(_)) => Ok(pb::PutChunkResponse { status: "ok".into() }),
        Some(Err(e)) => Err(refusal(e, &id, store.chunk_size())),
        None => Err(ChunkError::Unreachable.into()),
    }
}

pub(super) async fn get_chunk(
    store: &Arc<Store>,
    request: pb::GetChunkRequest,
) -> Result<pb::GetChunkResponse, Status> {
    let id: ChunkId = request.chunk_id.parse()?;
    let _room = store.admit_get(1).await;
    match store.get_verified(id).await {
        Ok(data) => Ok(pb::GetChunkResponse { status: "ok".into(), data, message: String::new() }),
        Err(e) => Err(refusal(e, &id, store.chunk_size())),
    }
}

fn refusal(error: ChunkError, id: &ChunkId, chunk_size: u32) -> Status {
    let sentence = match error {
        ChunkError::BadLength => format!("a chunk has 1 to {chunk_size} bytes"),
        ChunkError::Mismatch => {
            format!("the data is not what {id} names: the id is the SHA-256 of the data alone")
        }
        ChunkError::NotFound => format!("chunk {id} is not on this node"),
        ChunkError::Damaged => format!("chunk {id} is damaged on this node: ask another"),
        ChunkError::NoSpace
        | ChunkError::DiskFailed
        | ChunkError::Unreachable
        | ChunkError::Overloaded
        | ChunkError::TooFewNodes
        | ChunkError::Malformed => error.to_string(),
    };
    from_chunk(error, sentence)
}
