//! What people decide about storage nodes and copies: checked here, carried out by the cluster.

use cairn_proto::{Compression, Node, NodeState, limits::REPLICAS_MAX, pb};
use tonic::Status;

use super::Service;
use crate::{
    cluster::{administration::Undecided, membership::Settings},
    repair::only_copies::Removal,
};

fn refused(why: impl Into<String>) -> Status {
    Status::failed_precondition(why)
}

impl From<Undecided> for Status {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Unknown(_) => Self::not_found(undecided.to_string()),
            Undecided::Ambiguous { .. } => Self::invalid_argument(undecided.to_string()),
            Undecided::Call(error) => error.into(),
            Undecided::Engine(_) => Self::internal(undecided.to_string()),
        }
    }
}

impl Service {
    /// Drain, undrain, maintenance, resume, remove.
    pub(super) async fn change_node(
        &self,
        request: pb::ChangeNodeRequest,
    ) -> Result<pb::ChangeNodeResponse, Status> {
        let change = request.change();
        if change == pb::NodeChange::Resume
            && let Some(id) = self.cluster.find_removed(&request.node)
        {
            self.cluster.readmit(&self.ops, id).await?;
            let node = pb::Node { node_id: id.to_string(), ..Default::default() };
            return Ok(pb::ChangeNodeResponse { node: Some(node), changed: true, chunks_lost: 0 });
        }
        let node = self.cluster.find(&request.node)?;
        let (wish, possible) = match change {
            pb::NodeChange::Drain => (Some(NodeState::Draining), node.state != NodeState::Draining),
            pb::NodeChange::Maintenance => {
                (Some(NodeState::Maintenance), node.state != NodeState::Maintenance)
            }
            pb::NodeChange::Undrain => (None, node.state == NodeState::Draining),
            pb::NodeChange::Resume => (None, node.state == NodeState::Maintenance),
            pb::NodeChange::Remove => return self.remove_node(node, request.force).await,
            pb::NodeChange::Unspecified => {
                return Err(Status::invalid_argument(
                    "what is to become of the node: fill in ChangeNodeRequest.change",
                ));
            }
        };
        if possible && wish == Some(NodeState::Draining) && !request.force {
            self.room_without(&node)?;
        }
        if possible {
            tracing::info!(node = %node.id, name = node.name, ?change, "decided");
            self.cluster.decide(&self.ops, &node, wish).await?;
        }
        let now = self.cluster.find(&node.id.to_string())?;
        Ok(pb::ChangeNodeResponse { node: Some((&now).into()), changed: possible, chunks_lost: 0 })
    }

    /// Whether all copies have a place without `node`.
    fn room_without(&self, node: &Node) -> Result<(), Status> {
        let map = self.cluster.map();
        let others = map.nodes.iter().filter(|n| n.id != node.id && n.weight > 0);
        let others = others.filter(|n| n.state.is_home()).count();
        if others >= map.replicas as usize {
            return Ok(());
        }
        Err(refused(format!(
            "without {} there are {others} nodes for {} copies: add a node first, or ask for fewer \
             copies with `cairn cluster set --replicas`; --force drains it when there are more nodes",
            node.name, map.replicas
        )))
    }

    async fn remove_node(&self, node: Node, force: bool) -> Result<pb::ChangeNodeResponse, Status> {
        let removal = self.repair.may_remove(&node).await;
        let chunks_lost = match &removal {
            Removal::Harmless => 0,
            Removal::OnlyCopies(chunks) => *chunks,
            Removal::Unknown(_) => 0,
        };
        if !force {
            let name = &node.name;
            match removal {
                Removal::Harmless => {}
                Removal::OnlyCopies(chunks) => {
                    return Err(refused(format!(
                        "{name} holds the only copy of {chunks} chunks: `cairn node drain {name}` \
                         copies them elsewhere; --force removes it all the same, and they are lost"
                    )));
                }
                Removal::Unknown(why) => {
                    return Err(refused(format!(
                        "{name} may hold the only copy of something: {why}; --force removes it all \
                         the same"
                    )));
                }
            }
        }
        tracing::warn!(node = %node.id, name = node.name, force, chunks_lost, "removed for good");
        self.cluster.remove(&self.ops, node.id).await?;
        Ok(pb::ChangeNodeResponse { node: Some((&node).into()), changed: true, chunks_lost })
    }

    /// Other numbers of copies, another compression.
    pub(super) async fn set_copies(
        &self,
        request: pb::SetCopiesRequest,
    ) -> Result<pb::SetCopiesResponse, Status> {
        let before = self.cluster.with(|members, _| members.settings());
        let or = |given, kept| if given == 0 { kept } else { given };
        let replicas = or(request.replicas, before.replicas);
        // Fewer copies than were required can only mean that fewer are to be required.
        let kept = before.min_replicas.min(replicas);
        let min_replicas = or(request.min_replicas, kept);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(Status::invalid_argument(format!(
                "{replicas} replicas will not do: give 1 to {REPLICAS_MAX}"
            )));
        }
        if min_replicas > replicas {
            return Err(Status::invalid_argument(format!(
                "a write cannot require {min_replicas} of {replicas} copies: \
                 give --min-replicas from 1 to {replicas}"
            )));
        }
        let compression = request.compression.as_ref();
        let compression = compression.map_or(before.compression, Compression::from);
        let settings = Settings { replicas, min_replicas, compression };
        if settings != before {
            tracing::info!(replicas, min_replicas, %compression, "other settings");
            self.cluster.set_settings(&self.ops, settings).await?;
        }
        let map = self.cluster.map();
        let nodes = map.nodes.iter().filter(|n| n.weight > 0 && n.state.is_home()).count();
        Ok(pb::SetCopiesResponse {
            replicas,
            min_replicas,
            nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
            compression: Some(compression.into()),
        })
    }
}
