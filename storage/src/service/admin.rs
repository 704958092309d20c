//! Hello, have, list, status.

use std::sync::Arc;

use cairn_proto::{ChunkId, handshake, limits::BATCH_CHUNKS, pb};
use tonic::Status;

use super::{ChunkService, ids};
use crate::{status, store::Store};

/// Says who the node is, and refuses who speaks another version or belongs elsewhere.
pub(super) fn hello(
    service: &ChunkService,
    request: &pb::HelloRequest,
) -> Result<pb::HelloResponse, Status> {
    if request.version != handshake::VERSION {
        return Err(Status::failed_precondition(format!(
            "the caller speaks protocol version {}, this storage node version {}: use the same \
             release on both sides",
            request.version,
            handshake::VERSION
        )));
    }
    let fs = service.identity.fs.to_string();
    if !request.fs_uuid.is_empty() && request.fs_uuid != fs {
        return Err(Status::failed_precondition(format!(
            "the caller belongs to file system {}, this storage node to {fs}",
            request.fs_uuid
        )));
    }
    Ok(pb::HelloResponse {
        version: handshake::VERSION,
        features: handshake::FEATURES & request.features,
        fs_uuid: fs,
        chunk_size: service.store.chunk_size(),
        node_id: service.identity.node_id.to_string(),
    })
}

pub(super) async fn have(
    store: &Arc<Store>,
    request: &pb::HaveRequest,
) -> Result<pb::HaveResponse, Status> {
    let found = store.have(ids(&request.ids)?, request.touch).await;
    Ok(pb::HaveResponse {
        stored_len_plus_one: found.into_iter().map(|len| len.map_or(0, |l| l + 1)).collect(),
        gc_epoch: store.epoch(),
    })
}

pub(super) async fn list_chunks(
    store: &Arc<Store>,
    request: &pb::ListChunksRequest,
) -> Result<pb::ListChunksResponse, Status> {
    let after = match request.after.as_ref() {
        [] => None,
        id => Some(ChunkId::try_from(id)?),
    };
    let limit = match request.limit as usize {
        0 => BATCH_CHUNKS,
        n => n.min(BATCH_CHUNKS),
    };
    let chunks = store.list(after, limit).await?;
    Ok(pb::ListChunksResponse {
        end: chunks.len() < limit,
        chunks: chunks
            .into_iter()
            .map(|c| pb::ChunkEntry {
                id: c.id.to_wire(),
                stored_len: c.len,
                touched_epoch: c.epoch,
                ..Default::default()
            })
            .collect(),
    })
}

pub(super) async fn node_status(service: &ChunkService) -> pb::NodeStatusResponse {
    let (store, identity) = (Arc::clone(&service.store), Arc::clone(&service.identity));
    service.store.blocking(move || status::node_status(&identity, &store)).await
}
