//! RegisterNode: a storage node of another make, which has no report stream. It counts as up while it
//! can be reached.

use cairn_proto::{Node, pb};
use tonic::Status;

use super::Service;
use crate::cluster::suspicion;

impl Service {
    /// Adds or updates a node.
    pub(super) async fn register(
        &self,
        request: pb::RegisterRequest,
    ) -> Result<pb::RegisterResponse, Status> {
        let wire = pb::Node {
            node_id: request.node_id,
            host: request.host,
            port: u32::try_from(request.port).unwrap_or(0),
            ..Default::default()
        };
        let node = Node::try_from(&wire)?;
        suspicion::register(&self.cluster, node)
            .await
            .map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        Ok(pb::RegisterResponse { status: "ok".into() })
    }
}
