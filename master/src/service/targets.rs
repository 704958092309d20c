//! RequestPutTargets and RequestGetTargets: placement for callers that do not compute it themselves.

use cairn_proto::{ChunkError, ChunkId, ClusterMap, Node, pb, status};
use tonic::Status;

use super::Service;

impl Service {
    /// Where the copies of a chunk are to be put.
    pub(super) fn put_targets(
        &self,
        request: &pb::PutTargetsRequest,
    ) -> Result<pb::PutTargetsResponse, Status> {
        let id: ChunkId = request.chunk_id.parse()?;
        let map = self.cluster.map();
        let targets = enough(&map, &id)?.into_iter().map(to_wire).collect();
        Ok(pb::PutTargetsResponse { targets })
    }

    /// Where the copies of a chunk can be read, best first.
    pub(super) fn get_targets(
        &self,
        request: &pb::GetTargetsRequest,
    ) -> Result<pb::GetTargetsResponse, Status> {
        let id: ChunkId = request.chunk_id.parse()?;
        let map = self.cluster.map();
        let targets: Vec<_> = map.read_order(map.group(&id)).into_iter().map(to_wire).collect();
        if targets.is_empty() {
            return Err(no_nodes());
        }
        Ok(pb::GetTargetsResponse { targets })
    }
}

/// The write targets of `id`, when there are as many as a write needs.
pub(super) fn enough<'a>(map: &'a ClusterMap, id: &ChunkId) -> Result<Vec<&'a Node>, Status> {
    let targets = map.write_targets(map.group(id));
    if targets.is_empty() {
        return Err(no_nodes());
    }
    if targets.len() < map.min_replicas as usize {
        return Err(status::from_chunk(
            ChunkError::TooFewNodes,
            format!(
                "{} storage nodes are up and a write needs {}: start more, or wait for them",
                targets.len(),
                map.min_replicas
            ),
        ));
    }
    Ok(targets)
}

fn no_nodes() -> Status {
    status::from_chunk(
        ChunkError::TooFewNodes,
        "no storage node is up: start one with `cairn-storage serve`",
    )
}

fn to_wire(node: &Node) -> pb::StorageNode {
    pb::StorageNode {
        host: node.host.clone(),
        port: i32::from(node.port),
        node_id: node.id.to_string(),
    }
}
