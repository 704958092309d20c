//! One dropping: a node that is no home of a group lets go of what all homes have.

use std::sync::Arc;

use cairn_proto::{ClusterMap, pb};

use super::{Repair, assess::Excess};

/// How it ended.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) excess: Excess,
    /// Chunks that some home turned out to lack; `None`: it did not work.
    pub(super) kept: Option<u64>,
}

/// Tells the node to let go. It asks the homes again about each chunk.
pub(super) async fn hand_over(
    repair: Arc<Repair>,
    map: Arc<ClusterMap>,
    excess: Excess,
) -> HandedOver {
    let Some(node) = map.node(excess.node) else { return HandedOver { excess, kept: None } };
    let homes = map.homes(cairn_proto::Group(excess.group));
    let request = pb::DropRequest {
        pg_bits: map.pg_bits,
        group: excess.group,
        homes: homes.into_iter().map(pb::Node::from).collect(),
        map_epoch: map.epoch,
    };
    let kept = match repair.chunks.drop_group(node, request).await {
        Ok(answer) => {
            repair.progress.dropped(answer.chunks_dropped, answer.bytes_dropped);
            Some(answer.chunks_kept)
        }
        // A newer map is the usual reason: the next look is by that.
        Err(error) => {
            tracing::debug!(node = node.name, group = excess.group, %error, "did not let go");
            None
        }
    };
    HandedOver { excess, kept }
}
