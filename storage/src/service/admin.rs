//! Hello, have, list, status.

use std::sync::Arc;

use cairn_proto::{
    ChunkId, Malformed, handshake,
    limits::{BATCH_CHUNKS, PG_BITS_MAX},
    pb,
};
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
    // Before the work: what is stamped meanwhile may have a later epoch, never an earlier one.
    let gc_epoch = store.epoch();
    let found = store.have(ids(&request.ids)?, request.touch).await;
    Ok(pb::HaveResponse {
        stored_len_plus_one: found.into_iter().map(|len| len.map_or(0, |l| l + 1)).collect(),
        gc_epoch,
    })
}

pub(super) async fn list_chunks(
    store: &Arc<Store>,
    request: &pb::ListChunksRequest,
) -> Result<pb::ListChunksResponse, Status> {
    let after = edge(&request.after)?;
    let before = edge(&request.before)?;
    let limit = match request.limit as usize {
        0 => BATCH_CHUNKS,
        n => n.min(BATCH_CHUNKS),
    };
    let chunks = store.list(after, before, limit).await?;
    Ok(pb::ListChunksResponse {
        end: chunks.len() < limit,
        chunks: chunks
            .into_iter()
            .map(|c| pb::ChunkEntry {
                id: c.id.to_wire(),
                stored_len: c.len,
                touched_epoch: c.epoch,
                uncounted: c.uncounted,
            })
            .collect(),
    })
}

fn edge(wire: &[u8]) -> Result<Option<ChunkId>, Malformed> {
    if wire.is_empty() { Ok(None) } else { ChunkId::try_from(wire).map(Some) }
}

pub(super) async fn group_digests(
    store: &Arc<Store>,
    request: &pb::GroupDigestsRequest,
) -> Result<pb::GroupDigestsResponse, Status> {
    let pg_bits = group_bits(request.pg_bits)?;
    let counted = Arc::clone(store);
    let (groups, version) = store.blocking(move || counted.groups().digests(pg_bits)).await?;
    let groups = groups.into_iter().map(|(group, digest)| pb::GroupDigest {
        group: group.0,
        chunks: digest.chunks,
        bytes: digest.bytes,
        xor: bytes::Bytes::copy_from_slice(&digest.xor),
    });
    Ok(pb::GroupDigestsResponse { groups: groups.collect(), version })
}

/// Checks how many bits a group has.
pub(super) fn group_bits(wire: u32) -> Result<u32, Malformed> {
    if wire > PG_BITS_MAX {
        return Err(Malformed::new("group", format!("{wire} bits, at most {PG_BITS_MAX}")));
    }
    Ok(wire)
}

pub(super) async fn node_status(service: &ChunkService) -> pb::NodeStatusResponse {
    let (store, identity) = (Arc::clone(&service.store), Arc::clone(&service.identity));
    service.store.blocking(move || status::node_status(&identity, &store)).await
}
